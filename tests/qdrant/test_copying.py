"""Resolutions on servers that add no vectors in place: a copy, and an alias in place of the name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

import funnelvec as fv
from funnelvec.engines.qdrant import copying
from funnelvec.engines.qdrant.client import ClientDeployment
from funnelvec.engines.qdrant.features import Version
from funnelvec.errors import CapabilityError, Conflict, EngineError
from tests.agreement import edge
from tests.qdrant.facade import Server

ROWS = 400
VECTORS = np.random.default_rng(3).normal(size=(ROWS + 100, 8)).astype(np.float32)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(Server, "version", "1.15.5")
    with edge.folder() as folder:
        Path(folder).mkdir()
        server = Server(Path(folder))
        yield server
        server.close()


def filled(engine: Any) -> Any:
    table = engine.create("docs", dims=8, columns={"n": "integer", "price": "number"})
    table.add(range(ROWS), VECTORS[:ROWS], columns={"n": range(ROWS), "price": np.arange(ROWS) / 7})
    table.create_funnel("docs_search", "8:f32", returns=["n", "price"])
    return table


def check(table: Any, *, rows: int = ROWS) -> None:
    assert table.count() == rows
    table.create_funnel("small", "4:f16@300 > 8:f32", replace=True)
    found = table.search(VECTORS[7], k=3, filter={"n": {"$lt": 380}}, funnel="small")
    assert found[0].id == 7
    (status,) = [s for s in table.status() if s.resolution == "4:f16"]
    assert (status.rows, status.filled, status.advice) == (rows, rows, "")


def test_a_copy_takes_the_place_of_the_collection_and_again(server: Server) -> None:
    with fv.connect(server.url) as engine, fv.connect(server.url) as second:
        table = filled(engine)
        other = second.table("docs")
        before = table.search(VECTORS[7], k=5)
        with pytest.raises(CapabilityError, match=r"needs Qdrant 1\.18.*allow_rewrite=True"):
            table.add_resolution("4:f16")
        assert table.status() == [] and list(server.collections) == ["docs"]
        table.fit_rotation(dims=4, queries=VECTORS[:40])
        table.add_resolution("4:f16", allow_rewrite=True, index=True)
        assert list(server.collections) == ["docs__fv1"] and server.aliases == {"docs": "docs__fv1"}
        check(table)
        assert table.search(VECTORS[7], k=5) == before
        made = server.collections["docs__fv1"]
        assert made.schema == {"id": "integer", "n": "integer", "price": "float"}
        graph = made.vectors["embedding_4_f16"].hnsw_config
        assert graph is not None and graph.m == 32
        # The other client learns of the new vector when it writes.
        other.upsert([7], VECTORS[[8]])
        assert [s.filled for s in table.status()] == [ROWS]
        told: list[Any] = []
        table.add_resolution("4:f16~pca", allow_rewrite=True, concurrently=True)
        with pytest.raises(Conflict, match="is not filled yet"):
            table.create_funnel("more", "4:f16~pca@300 > 8:f32")
        table.upsert([5], VECTORS[[9]])  # before the copy begins
        assert table.backfill(on_step=told.append) == ROWS
        assert [step.done for step in told if step.state == "copying"] == [250, 400]
        assert list(server.collections) == ["docs__fv2"] and server.aliases == {"docs": "docs__fv2"}
        table.create_funnel("more", "4:f16~pca@300 > 8:f32")
        assert {h.id for h in table.search(VECTORS[9], k=2, funnel="more")} == {5, 9}
        assert [s.filled for s in table.status()] == [ROWS, ROWS]
        assert table.backfill() == 0


def test_who_is_stopped_goes_on_and_nobody_writes_meanwhile(server: Server) -> None:
    with fv.connect(server.url) as engine:
        table = filled(engine)
        server.fail_after = 2  # the definition, and a page
        with pytest.raises(EngineError, match="the disk is full"):
            table.add_resolution("4:f16", allow_rewrite=True)
        server.fail_after = None
        for write in (
            lambda: table.add([5_000], VECTORS[[9]]),
            lambda: table.upsert([5], VECTORS[[9]]),
            lambda: table.delete([5]),
            lambda: table.load(VECTORS, ids=range(5_000, 5_500)),
            lambda: table.create_funnel("more", "8:f32"),
            lambda: table.add_resolution("2:f16", allow_rewrite=True),
        ):
            with pytest.raises(Conflict, match=r"is being copied into 'docs__fv1'.*backfill\(\)"):
                write()
        assert table.search(VECTORS[7], k=1)[0].id == 7
    with fv.connect(server.url) as engine:  # the next process
        table, told = engine.table("docs"), []
        table.backfill(on_step=told.append)
        assert [step.done for step in told if step.state == "copying"] == [400]
        check(table)
        table.add([5_000], VECTORS[[9]])


def test_all_that_a_funnel_needs_is_copied_once(server: Server) -> None:
    with fv.connect(server.url) as engine:
        table = filled(engine)
        table.add_resolutions("2:int8@350 > 4:f16@300 > 8:f32", allow_rewrite=True)
        assert list(server.collections) == ["docs__fv1"]
        table.create_funnel("more", "2:int8@350 > 4:f16@300 > 8:f32")
        check(table)


def test_a_copy_is_given_up(server: Server) -> None:
    with fv.connect(server.url) as engine:
        table = filled(engine)
        server.fail_after = 2
        with pytest.raises(EngineError, match="the disk is full"):
            table.add_resolution("4:f16", allow_rewrite=True)
        server.fail_after = None
        table.drop_resolution("4:f16")
        assert list(server.collections) == ["docs"] and table.status() == []
        table.upsert([5], VECTORS[[9]])
        table.add_resolution("4:f16", allow_rewrite=True)
        check(table)
        with pytest.raises(CapabilityError, match=r"removing 4:f16 from a collection needs Qdrant"):
            table.drop_resolution("4:f16")
        assert [s.resolution for s in table.status()] == ["4:f16"]


def test_what_other_programs_write_meanwhile_is_in_the_copy(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = QdrantClient(url=server.url, check_compatibility=False)
    fill = copying.Copy.fill

    def busy(self: Any, told: Any) -> None:
        fill(self, told)
        point = models.PointStruct(id=5_000, vector={"embedding": VECTORS[401].tolist()})
        client.upsert("docs", [point])
        client.update_vectors(
            "docs", [models.PointVectors(id=3, vector={"embedding": VECTORS[402].tolist()})]
        )
        client.set_payload("docs", {"n": 77}, points=[4])
        client.delete("docs", models.PointIdsList(points=[5]))

    with fv.connect(server.url) as engine:
        table = filled(engine)
        monkeypatch.setattr(copying.Copy, "fill", busy)
        table.add_resolution("4:f16", allow_rewrite=True)
        check(table)
        assert table.search(VECTORS[401], k=1)[0].id == 5_000
        assert table.search(VECTORS[402], k=1, funnel="small")[0].id == 3
        assert {hit.id for hit in table.search(VECTORS[1], k=9, filter={"n": 77})} == {4, 77}
        assert 5 not in {hit.id for hit in table.search(VECTORS[5], k=100)}


def test_a_flood_of_writes_is_refused_and_the_source_stays(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_MOST_PASSES", 2)
    monkeypatch.setattr(copying, "_same", lambda one, other: False)
    with fv.connect(server.url) as engine:
        table = filled(engine)
        with pytest.raises(Conflict, match="faster than the copy follows"):
            table.add_resolution("4:f16", allow_rewrite=True)
        assert set(server.collections) == {"docs", "docs__fv1"} and server.aliases == {}
        monkeypatch.undo()
        monkeypatch.setattr(Server, "version", "1.17.1")
        table.backfill()
        check(table)


def test_who_is_stopped_before_the_alias_is_made_finds_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with fv.connect(server.url) as engine:
        table = filled(engine)
        with monkeypatch.context() as patched:
            patched.setattr(copying, "_point", killed)
            with pytest.raises(KeyboardInterrupt):
                table.add_resolution("4:f16", allow_rewrite=True)
        assert list(server.collections) == ["docs__fv1"] and server.aliases == {}
    with fv.connect(server.url) as engine:
        check(engine.table("docs"))
        assert server.aliases == {"docs": "docs__fv1"}


def test_a_collection_of_another_program_keeps_all_that_it_has() -> None:
    client = QdrantClient(":memory:")
    client.create_collection(
        "shop_v1",
        vectors_config={
            "": models.VectorParams(size=8, distance=models.Distance.COSINE),
            "title": models.VectorParams(size=4, distance=models.Distance.DOT),
            "words": models.VectorParams(
                size=2,
                distance=models.Distance.DOT,
                multivector_config=models.MultiVectorConfig(
                    comparator=models.MultiVectorComparator.MAX_SIM
                ),
            ),
        },
        sparse_vectors_config={"terms": models.SparseVectorParams()},
    )
    for alias in ("shop", "offers"):
        made = models.CreateAlias(collection_name="shop_v1", alias_name=alias)
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
    terms = models.SparseVector(indices=[3, 1], values=[2.0, 0.5])
    payload = {"price": 252.85714285714286, "tags": ["a", None, {"b": [1.5, True]}]}
    client.upsert(
        "shop",
        [
            models.PointStruct(
                id=i,
                vector={
                    "": VECTORS[i].tolist(),
                    "title": [1.0, 0, 0, i],
                    "words": [[0.5, 1.0], [i, 2.0]],
                    "terms": terms,
                },
                payload=payload,
            )
            for i in range(300)
        ],
    )
    engine = fv.wrap(client)
    engine._deployment.version = Version(1, 17)  # type: ignore[attr-defined]
    table = engine.table("shop", vector="")
    table.add_resolution("4:f16", allow_rewrite=True)
    aliases = {a.alias_name: a.collection_name for a in client.get_aliases().aliases}
    assert aliases == {"shop": "shop__fv1", "offers": "shop__fv1"}
    assert not client.collection_exists("shop_v1")
    (record,) = client.retrieve("shop", [7], with_vectors=True)
    assert record.payload == payload and isinstance(record.vector, dict)
    assert set(record.vector) == {"", "4_f16", "title", "words", "terms"}
    assert record.vector["words"] == [[0.5, 1.0], [7.0, 2.0]]
    assert record.vector["terms"] in (terms, models.SparseVector(indices=[1, 3], values=[0.5, 2.0]))
    table.create_funnel("shop_search", "4:f16@50 > 8:f32")
    assert table.search(VECTORS[4], k=1)[0].id == 4


def test_differences_are_seen_and_last_bits_are_not() -> None:
    assert copying._equal({"a": [1.5, {"b": None}]}, {"a": [1.5 + 2e-16, {"b": None}]})
    for other in ({}, {"a": 2}, {"a": 1.0}, {"a": True}, {"a": 1, "b": 1}, {"a": [1]}):
        assert not copying._equal({"a": 1}, other)
    assert copying._alike([1.0, 2.0], [1.0, 2.0 + 1e-7])
    assert not copying._alike([1.0, 2.0], [1.0, 2.1])
    assert not copying._alike([1.0, 2.0], [1.0])
    assert json.dumps(copying.target_of("a", ["a", "a__fv1"])) == '"a__fv2"'


def test_the_oldest_servers_take_no_collection_of_another_program(server: Server) -> None:
    client = QdrantClient(url=server.url, check_compatibility=False)
    client.create_collection(
        "shop", vectors_config={"v": models.VectorParams(size=8, distance=models.Distance.COSINE)}
    )
    with fv.connect(server.url) as engine:
        assert isinstance(engine._deployment, ClientDeployment)  # type: ignore[attr-defined]
        with pytest.raises(CapabilityError, match=r"'shop', which another program.*Qdrant 1\.16"):
            engine.table("shop").create_funnel("shop_search", "8:f32")
