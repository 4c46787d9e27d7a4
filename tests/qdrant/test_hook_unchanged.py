"""Code written for plain clients, run as it stands on hooked ones.

It is taken out of the packages that are installed: the examples in the README of qdrant-client and
in the documentation of LangChain's store. LlamaIndex has none that needs no model, so its public
methods are called. Each also runs on a plain client, and both have to say the same.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.local.qdrant_local import QdrantLocal

import funnelvec as fv
from tests.qdrant.facade import Server

RANDOM = np.random.default_rng(6).normal(size=(40, 32))
#: Keeps more rows than there are, so that a funnel finds exactly what a plain search does.
FUNNEL = "16:f16@500 > {dims}:f32"


def blocks(text: str) -> list[str]:
    """Python in a text of Markdown."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def twin(request: pytest.FixtureRequest, plain: QdrantClient) -> Iterator[QdrantClient]:
    """Another plain client of the same kind, over another place."""
    if isinstance(plain._client, QdrantLocal):
        client = QdrantClient(":memory:")
        yield client
        client.close()
        return
    from tests.agreement import edge

    with edge.folder() as folder:
        from pathlib import Path

        Path(folder).mkdir()
        server = Server(Path(folder), checked=False)
        client = QdrantClient(url=server.url, check_compatibility=False, timeout=60)
        yield client
        client.close()
        server.close()


def scores(found: Any) -> list[tuple[Any, float, Any]]:
    return [(hit.id, round(hit.score, 4), hit.payload) for hit in found.points]


def funnels(client: QdrantClient, collection: str) -> int:
    """How many points of a collection have a code of its funnel."""
    condition = models.HasVectorCondition(has_vector=client_vector(client, collection))
    return client.count(collection, count_filter=models.Filter(must=[condition])).count


def client_vector(client: QdrantClient, collection: str) -> str:
    vectors = client.get_collection(collection).config.params.vectors
    assert isinstance(vectors, dict)
    (name,) = [name for name in vectors if name.endswith("16_f16")]
    return name


# -- qdrant-client ---------------------------------------------------------------------------------


def readme() -> list[str]:
    text = importlib.metadata.metadata("qdrant-client").get_payload()
    return blocks(str(text))


def test_the_readme_of_the_client(plain: QdrantClient, twin: QdrantClient) -> None:
    examples = [block for block in readme() if "my_collection" in block and "async" not in block]
    assert len(examples) == 4
    said = []
    for client in (twin, fv.hook(plain, funnel=FUNNEL.format(dims=100))):
        np.random.seed(5)
        names: dict[str, Any] = {"client": client}
        for example in examples:
            exec(example, names)
            if "hits" in names:
                said.append(scores(names["hits"]))
    assert said[:2] == said[2:] and len(said[0]) == 5
    assert all(payload["rand_number"] >= 3 for _, _, payload in said[3])
    assert funnels(plain, "my_collection") == 100


def test_the_asynchronous_example_of_the_readme(
    facade: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [block for block in readme() if "asyncio.run(main())" in block]
    here = f'AsyncQdrantClient(url="{facade.url}", check_compatibility=False, timeout=60)'
    unchanged = example.replace('AsyncQdrantClient(url="http://localhost:6333")', here)
    hooked = unchanged.replace(here, f'fv.hook({here}, funnel="4:f16@200 > 10:f32")')
    assert example != unchanged != hooked
    np.random.seed(5)
    exec(unchanged, {})
    expected = capsys.readouterr().out
    asyncio.run(
        AsyncQdrantClient(url=facade.url, check_compatibility=False, timeout=60).delete_collection(
            "my_collection"
        )
    )
    np.random.seed(5)
    exec(hooked, {"fv": fv})
    ids = re.compile(r"id=(\d+)")
    assert ids.findall(capsys.readouterr().out) == ids.findall(expected)
    assert facade.log[-1][2]["prefetch"]["using"] == "4_f16"


# -- LangChain -------------------------------------------------------------------------------------


def imported(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others' packages say of each other
        return pytest.importorskip(name, reason=f"{name} comes with funnelvec[integrations]")


def embedded(text: str, dims: int) -> list[float]:
    """A vector of a text that is near to those of texts with the same letters."""
    found = np.zeros(dims)
    for place, letter in enumerate(text):
        found[(ord(letter) * 7 + place % 3) % dims] += 1
    return [float(each) for each in found + 0.01]


@pytest.mark.filterwarnings("ignore")
def test_the_documentation_of_langchains_store(
    plain: QdrantClient, twin: QdrantClient, capsys: pytest.CaptureFixture[str]
) -> None:
    store = imported("langchain_qdrant")
    base = imported("langchain_core.embeddings").Embeddings

    class OpenAIEmbeddings(base):  # type: ignore[misc, valid-type]
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [embedded(text, 1536) for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return embedded(text, 1536)

    texts = blocks(store.QdrantVectorStore.__doc__)
    made = re.search(r"client\.create_collection\(.*", texts[0], re.DOTALL)
    assert made is not None
    said = []
    for client in (twin, fv.hook(plain, funnel=FUNNEL.format(dims=1536))):
        names: dict[str, Any] = {
            "client": client,
            "OpenAIEmbeddings": OpenAIEmbeddings,
            "models": models,
            "QdrantVectorStore": store.QdrantVectorStore,
            **vars(models),
        }
        exec(dedented(made[0]), names)
        for text in texts[1:]:
            if any(call in text for call in ("import", "vector_store.")) and "await" not in text:
                exec(dedented(text), names)
        found = names["retriever"].invoke("thud")
        said.append((shown(capsys), [doc.page_content for doc in found]))
    assert said[0] == said[1]
    assert said[0][0].count("thud") >= 2 and said[0][1] == ["thud"]
    assert funnels(plain, "demo_collection") == 2


def dedented(text: str) -> str:
    import textwrap

    return textwrap.dedent("        " + text if not text.startswith(" ") else text)


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "an id", capsys.readouterr().out)


@pytest.mark.filterwarnings("ignore")
def test_langchain_opens_checks_and_deletes(plain: QdrantClient, twin: QdrantClient) -> None:
    """What its examples leave out: a named vector, a collection that is there, MMR, retrieving."""
    store = imported("langchain_qdrant").QdrantVectorStore
    fake = imported("langchain_core.embeddings").DeterministicFakeEmbedding(size=32)
    said = []
    for client in (twin, fv.hook(plain, funnel=FUNNEL.format(dims=32))):
        client.create_collection(
            "docs", {"text": models.VectorParams(size=32, distance=models.Distance.COSINE)}
        )
        first = store(client=client, collection_name="docs", embedding=fake, vector_name="text")
        ids = first.add_texts(
            [f"text {i}" for i in range(40)], [{"n": i} for i in range(40)], ids=list(range(40))
        )
        again = store(client=client, collection_name="docs", embedding=fake, vector_name="text")
        n = models.FieldCondition(key="metadata.n", range=models.Range(lt=20))
        found = again.similarity_search_with_score(
            "text 7", 5, filter=models.Filter(must=[n]), offset=1
        )
        mmr = again.max_marginal_relevance_search("text 7", k=3, fetch_k=10)
        again.delete(ids[:3])
        said.append(
            [
                [(doc.page_content, round(score, 4)) for doc, score in found],
                [doc.page_content for doc in mmr],
                [doc.page_content for doc in again.get_by_ids([2, 3, 4])],
                client.count("docs").count,
            ]
        )
    assert said[0] == said[1] and said[0][3] == 37
    assert funnels(plain, "docs") == 37


# -- LlamaIndex ------------------------------------------------------------------------------------


def nodes() -> list[Any]:
    schema = imported("llama_index.core.schema")
    made = []
    for i in range(40):
        node = schema.TextNode(
            id_=f"00000000-0000-4000-8000-0000000000{i:02d}",
            text=f"text {i}",
            metadata={"n": i, "kind": "ab"[i % 2]},
            embedding=RANDOM[i].tolist(),
        )
        related = schema.RelatedNodeInfo(node_id=f"document {i % 4}")
        node.relationships = {schema.NodeRelationship.SOURCE: related}
        made.append(node)
    return made


def asked(**rest: Any) -> Any:
    types = imported("llama_index.core.vector_stores.types")
    filters = types.MetadataFilters(
        filters=[
            types.MetadataFilter(key="kind", value="a"),
            types.MetadataFilter(key="n", value=30, operator=types.FilterOperator.LT),
        ]
    )
    query = (RANDOM[8] + 0.1).tolist()
    return types.VectorStoreQuery(
        query_embedding=query, similarity_top_k=6, filters=filters, **rest
    )


def answered(result: Any) -> list[Any]:
    return [
        (node.node_id, node.text, round(score, 4))
        for node, score in zip(result.nodes, result.similarities, strict=True)
    ]


@pytest.mark.filterwarnings("ignore")
def test_llamaindexs_store(plain: QdrantClient, twin: QdrantClient) -> None:
    store = imported("llama_index.vector_stores.qdrant").QdrantVectorStore
    said = []
    for client in (twin, fv.hook(plain, funnel=FUNNEL.format(dims=32))):
        first = store("docs", client=client)
        ids = first.add(nodes())
        again = store("docs", client=client)  # finds the collection and its form
        found = [answered(again.query(asked()))]
        again.delete("document 3")
        again.delete_nodes(node_ids=ids[:1])
        found.append(answered(again.query(asked())))
        kept = again.get_nodes(node_ids=ids[:6])
        said.append([*found, sorted(node.node_id for node in kept), client.count("docs").count])
    assert said[0] == said[1] and said[0][3] == 29
    assert len(said[0][0]) == 6 and said[0][0][0][1] == "text 8"
    assert funnels(plain, "docs") == 29


@pytest.mark.filterwarnings("ignore")
def test_llamaindexs_store_awaited(facade: Server) -> None:
    store = imported("llama_index.vector_stores.qdrant").QdrantVectorStore

    async def use() -> list[Any]:
        plain = AsyncQdrantClient(url=facade.url, check_compatibility=False, timeout=60)
        hooked = fv.hook(plain, funnel=FUNNEL.format(dims=32))
        found = []
        for collection, client in (("plain", plain), ("docs", hooked)):
            made = store(collection, aclient=client)
            await made.async_add(nodes())
            found.append(answered(await made.aquery(asked())))
        assert facade.log[-1][2]["prefetch"]["using"] == "16_f16"
        await plain.close()
        return found

    expected, found = asyncio.run(use())
    assert found == expected and len(found) == 6
