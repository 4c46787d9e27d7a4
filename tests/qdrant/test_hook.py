"""The hook: the same calls on a plain client and on a hooked one, and what lies below.

What an application does is written once, in `USES`, and done with both; the funnels keep so many
rows that nothing may differ. What is stored and sent is looked at beside that.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.conversions.conversion import RestToGrpc
from qdrant_client.local.qdrant_local import QdrantLocal

import funnelvec as fv
from funnelvec.engines.qdrant import names
from funnelvec.errors import CapabilityError, Conflict, InvalidInput, NotCalibrated, VersionMismatch
from funnelvec.types import Judgments
from tests.qdrant.facade import Server

RNG = np.random.default_rng(11)
V = RNG.normal(size=(80, 16)).astype(np.float32)
COSINE = models.VectorParams(size=16, distance=models.Distance.COSINE)
FUNNEL = "8:f16@80 > 16:f32"


def point(id: int, row: int, name: str | None = None, **payload: Any) -> models.PointStruct:
    vector: Any = V[row].tolist()
    return models.PointStruct(
        id=id, vector=vector if name is None else {name: vector}, payload=payload
    )


def below(hooked: QdrantClient) -> QdrantClient:
    """The client that a hooked one was made from."""
    original = hooked._original  # type: ignore[attr-defined]
    assert isinstance(original, QdrantClient)
    return original


def filled(plain: QdrantClient, name: str | None = None, **options: Any) -> QdrantClient:
    """A hooked client with 60 points in ``docs``."""
    hooked = fv.hook(plain, **{"funnel": FUNNEL, **options})
    hooked.create_collection("docs", vectors_config=COSINE if name is None else {name: COSINE})
    hooked.upsert("docs", [point(i, i, name, n=i, kind="ab"[i % 2]) for i in range(60)])
    return hooked


def stored(plain: QdrantClient, id: int) -> dict[str, Any]:
    """All vectors that a point has, by name."""
    (record,) = plain.retrieve("docs", [id], with_vectors=True)
    vector: Any = record.vector
    return vector if isinstance(vector, dict) else {"": vector}


def in_step(plain: QdrantClient, column: str = "", code: str = "8_f16") -> None:
    """Every point has the code of the vector that it has now, and no other."""
    records, _ = plain.scroll("docs", limit=1_000, with_vectors=True)
    for record in records:
        found: Any = record.vector or {}
        vectors = found if isinstance(found, dict) else {"": found}
        if record.id == names.DEFINITION or column not in vectors:
            assert code not in vectors, f"point {record.id} kept its code"
            continue
        prefix = np.asarray(vectors[column][:8])
        expected = prefix / np.linalg.norm(prefix)
        np.testing.assert_allclose(vectors[code], expected, atol=2e-3, err_msg=str(record.id))


# -- the same on both ------------------------------------------------------------------------------


def told(found: Any) -> Any:
    """What an application sees, in a form that can be compared."""
    if isinstance(found, (models.ScoredPoint, models.Record)):
        score = round(found.score, 4) if isinstance(found, models.ScoredPoint) else None
        return found.id, score, found.payload, told(found.vector)
    if isinstance(found, dict):
        return {name: told(each) for name, each in found.items()}
    if isinstance(found, (list, tuple)):
        return [told(each) for each in found]
    if isinstance(found, float):
        return round(found, 4)
    if hasattr(found, "points"):
        return told(found.points)
    if isinstance(found, models.GroupsResult):
        return [(group.id, told(group.hits)) for group in found.groups]
    return found


KIND = models.Filter(must=[models.FieldCondition(key="kind", match=models.MatchValue(value="a"))])
NOT_A = models.Filter(
    must_not=[models.FieldCondition(key="kind", match=models.MatchValue(value="a"))]
)
EF = models.SearchParams(hnsw_ef=200, indexed_only=False)
Q = V[70].tolist()

USES: dict[str, Callable[[QdrantClient, str | None], Any]] = {
    "query": lambda c, n: c.query_points("docs", Q, using=n),
    "positional": lambda c, n: c.query_points("docs", V[71], n, None, KIND, EF, 5, 2),
    "filtered": lambda c, n: c.query_points("docs", query=Q, using=n, query_filter=NOT_A, limit=7),
    "vectors": lambda c, n: c.query_points("docs", Q, using=n, with_vectors=True, limit=2),
    "bare": lambda c, n: c.query_points("docs", Q, using=n, with_payload=False, limit=3),
    "some payload": lambda c, n: c.query_points("docs", Q, using=n, with_payload=["n"], limit=3),
    "threshold": lambda c, n: c.query_points("docs", Q, using=n, score_threshold=0.2, limit=60),
    "offset": lambda c, n: c.query_points("docs", Q, using=n, limit=25, offset=30),
    "exact": lambda c, n: c.query_points(
        "docs", Q, using=n, search_params=models.SearchParams(exact=True)
    ),
    "everything": lambda c, n: c.query_points("docs", Q, using=n, limit=1_000),
    "no query": lambda c, n: c.query_points("docs", limit=1_000),
    "own prefetch": lambda c, n: c.query_points(
        "docs",
        prefetch=models.Prefetch(query=V[72].tolist(), using=n, limit=20, filter=KIND),
        query=Q,
        using=n,
    ),
    "fusion": lambda c, n: sorted(
        told(p)[0]
        for p in c.query_points(
            "docs",
            prefetch=[
                models.Prefetch(query=V[72].tolist(), using=n, limit=8),
                models.Prefetch(query=Q, using=n, limit=8, score_threshold=0.0),
            ],
            query=models.FusionQuery(fusion=models.Fusion.RRF),
            limit=100,
        ).points
    ),
    "batch": lambda c, n: c.query_batch_points(
        "docs",
        [
            models.QueryRequest(query=V[73].tolist(), using=n, limit=3, with_payload=True),
            models.QueryRequest(query=Q, using=n, filter=KIND, offset=1, with_vector=True),
            models.QueryRequest(limit=100),
        ],
    ),
    "groups": lambda c, n: c.query_points_groups(
        "docs", "kind", Q, using=n, limit=2, group_size=4, with_vectors=True
    ),
    "scroll": lambda c, n: c.scroll("docs", limit=100, with_vectors=True),
    "pages": lambda c, n: [c.scroll("docs", KIND, 7, None, offset) for offset in (None, 9, 58)],
    "retrieve": lambda c, n: c.retrieve("docs", [3, 4, 1_000], with_vectors=True),
    "count": lambda c, n: (c.count("docs").count, c.count("docs", count_filter=NOT_A).count),
    "collection": lambda c, n: (
        c.get_collection("docs").points_count,
        type(c.get_collection("docs").config.params.vectors) if n else "a server says how",
    ),
}


@pytest.fixture(scope="module", params=["local", "server"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A plain client and a hooked one over two places with the same points."""
    servers: list[Server] = []
    clients: list[QdrantClient] = []
    for number in range(2):
        if request.param == "local":
            clients.append(QdrantClient(":memory:"))
        else:
            servers.append(Server(tmp_path_factory.mktemp(f"place{number}"), checked=False))
            clients.append(QdrantClient(url=servers[-1].url, check_compatibility=False, timeout=60))
    both = {}
    for name in (None, "body"):
        collection = "docs" if name is None else "body"
        clients[0].create_collection(collection, COSINE if name is None else {name: COSINE})
        hooked = fv.hook(clients[1], funnel=FUNNEL)
        hooked.create_collection(collection, COSINE if name is None else {name: COSINE})
        both[name] = hooked
        for client in (clients[0], hooked):
            rows = [point(i, i, name, n=i, kind="ab"[i % 2]) for i in range(60)]
            client.upsert(collection, rows)
    yield clients[0], both
    for client in clients:
        client.close()
    for server in servers:
        server.close()


class Named:
    """A client in whose calls ``docs`` is another collection."""

    def __init__(self, client: QdrantClient, collection: str) -> None:
        self.client, self.collection = client, collection

    def __getattr__(self, name: str) -> Any:
        return lambda _, *args, **given: getattr(self.client, name)(self.collection, *args, **given)


@pytest.mark.parametrize("name", [None, "body"], ids=["unnamed", "named"])
@pytest.mark.parametrize("use", USES)
def test_an_application_sees_no_difference(pair: Any, use: str, name: str | None) -> None:
    plain, both = pair
    collection = "docs" if name is None else "body"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # local mode's, of parameters of searches
        expected = told(USES[use](Named(plain, collection), name))  # type: ignore[arg-type]
        found = told(USES[use](Named(both[name], collection), name))  # type: ignore[arg-type]
    assert found == expected
    assert expected is not None and expected != []


@pytest.mark.parametrize("distance", [models.Distance.DOT, models.Distance.EUCLID])
@pytest.mark.parametrize("datatype", [None, models.Datatype.FLOAT16])
def test_every_metric_has_the_scores_that_the_application_knows(
    distance: models.Distance, datatype: models.Datatype | None, facade: Server
) -> None:
    plain = QdrantClient(url=facade.url, check_compatibility=False, timeout=60)
    params = models.VectorParams(size=16, distance=distance, datatype=datatype)
    funnel = f"16:bit2~random@80 > 8:f16@80 > 16:{'f32' if datatype is None else 'f16'}"
    hooked = fv.hook(plain, funnel=funnel)
    for name, client in (("plain", plain), ("docs", hooked)):
        client.create_collection(name, params)
        client.upsert(name, [point(i, i, n=i) for i in range(60)])
    threshold = 3.0 if distance == models.Distance.DOT else 4.95
    expected = told(plain.query_points("plain", Q, limit=8, score_threshold=threshold))
    assert told(hooked.query_points("docs", Q, limit=8, score_threshold=threshold)) == expected
    assert 1 < len(expected) <= 8
    plain.close()


def test_a_search_by_a_point_is_a_funnel_too(plain: QdrantClient) -> None:
    hooked = filled(plain)
    found = hooked.query_points("docs", 7, limit=5, query_filter=NOT_A)
    similar = V[:60] @ V[7] / np.linalg.norm(V[:60], axis=1)
    ranked = [int(row) for row in np.argsort(-similar) if row != 7 and row % 2 == 1]
    assert [hit.id for hit in found.points] == ranked[:5]
    requests = [models.QueryRequest(query=7, limit=2), models.QueryRequest(query=Q, limit=2)]
    answers = hooked.query_batch_points("docs", requests)
    assert 7 not in [hit.id for hit in answers[0].points] and len(answers[1].points) == 2
    assert requests[0].query == 7  # what the application has is left as it is


# -- what is sent ----------------------------------------------------------------------------------


def test_a_search_is_sent_as_a_funnel(facade: Server) -> None:
    plain = QdrantClient(url=facade.url, check_compatibility=False, timeout=60)
    hooked = filled(plain, funnel="16:bit@60 > 8:f16@40 > 16:f32")
    params = models.SearchParams(
        hnsw_ef=99, quantization=models.QuantizationSearchParams(rescore=False)
    )
    hooked.query_points("docs", Q, query_filter=KIND, limit=30, offset=5, search_params=params)
    body = facade.log[-1][2]
    middle = body["prefetch"]
    inner = middle["prefetch"]
    assert (body["limit"], body["offset"], "filter" in body) == (30, 5, False)
    assert (middle["using"], middle["limit"], "filter" in middle) == ("8_f16", 70, False)
    assert (inner["using"], inner["limit"]) == ("16_bit", 105)  # all grow alike
    assert inner["filter"] == KIND.model_dump(exclude_none=True)
    assert inner["params"]["hnsw_ef"] == 99
    assert inner["params"]["quantization"]["rescore"] is False  # its own, not the application's
    assert body["params"]["quantization"]["ignore"] is True
    hooked.query_points("docs", Q, limit=10)
    assert facade.log[-1][2]["prefetch"]["limit"] == 40  # as it was defined
    hooked.query_points(
        "docs",
        prefetch=[models.Prefetch(query=Q, filter=KIND, score_threshold=0.1)],
        query=models.FusionQuery(fusion=models.Fusion.RRF),
    )
    (part,) = facade.log[-1][2]["prefetch"]
    assert (part["limit"], part["score_threshold"], "filter" in part) == (10, 0.1, False)
    assert part["prefetch"]["prefetch"]["filter"] == KIND.model_dump(exclude_none=True)
    plain.close()


def test_strict_mode_is_not_overstepped(facade: Server) -> None:
    plain = QdrantClient(url=facade.url, check_compatibility=False, timeout=60)
    hooked = filled(plain)
    facade.collections["docs"].strict = {
        "enabled": True, "max_query_limit": 50, "search_max_hnsw_ef": 45,
    }  # fmt: skip
    again = fv.hook(plain)
    assert len(again.query_points("docs", Q, limit=40).points) == 40
    assert facade.log[-1][2]["prefetch"]["limit"] == 50
    assert facade.log[-1][2]["prefetch"]["params"]["hnsw_ef"] == 45
    assert len(hooked.query_points("docs", Q, limit=40).points) == 40  # knew of no limit
    plain.close()


def test_definitions_are_read_now_and_then_for_searches_and_always_for_writes(
    facade: Server,
) -> None:
    plain = QdrantClient(url=facade.url, check_compatibility=False, timeout=60)
    hooked = filled(plain)
    facade.log.clear()
    for _ in range(3):
        hooked.query_points("docs", Q)
    assert [path for _, path, _ in facade.log if not path.endswith("query")].count(
        "/collections/docs/points"
    ) <= 1
    facade.log.clear()
    hooked.upsert("docs", [point(1, 1)])
    assert [method for method, _, _ in facade.log] == ["POST", "PUT"]
    plain.close()


def test_what_is_sent_can_be_said_in_grpc_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC has been run with nothing here; its messages can be made of what we send, at least."""
    hooked = filled(QdrantClient(":memory:"), funnel="16:bit@60 > 8:f16@40 > 16:f32")
    hooked._client._hook.local = False  # type: ignore[attr-defined]
    sent: dict[str, Any] = {}
    for name in ("query_points", "upsert", "scroll"):
        monkeypatch.setattr(
            hooked._client._real,  # type: ignore[attr-defined]
            name,
            lambda _name=name, **given: sent.update({_name: given}) or ([], None),
        )
    hooked.scroll("docs", KIND)
    hooked.upsert("docs", [point(1, 1)])
    with pytest.raises(AttributeError):  # the answer is none of a search
        hooked.query_points("docs", Q, query_filter=KIND, search_params=EF)
    (written,) = sent["upsert"]["points"]
    named = RestToGrpc.convert_point_struct(written).vectors.vectors.vectors
    assert set(named) == {"", "8_f16", "16_bit"}
    outer = RestToGrpc.convert_prefetch_query(sent["query_points"]["prefetch"])
    (inner,) = outer.prefetch
    assert (outer.using, outer.limit, inner.using, inner.limit) == ("8_f16", 40, "16_bit", 60)
    assert inner.params.hnsw_ef == 200 and len(inner.filter.must) == 1
    assert RestToGrpc.convert_search_params(
        sent["query_points"]["search_params"]
    ).quantization.ignore
    assert len(RestToGrpc.convert_filter(sent["scroll"]["scroll_filter"]).must_not) == 1


# -- writes ----------------------------------------------------------------------------------------


def test_every_way_of_writing_keeps_step(plain: QdrantClient) -> None:
    hooked = filled(plain)
    numpy = models.PointStruct(id=60, vector=V[60], payload={"n": 60})  # type: ignore[arg-type]
    hooked.upsert("docs", points=[numpy], wait=True)
    batch = models.Batch(ids=[61, 62], vectors=V[61:63].tolist(), payloads=[{"n": 61}, {"n": 62}])
    hooked.upsert("docs", batch)
    hooked.upsert("docs", models.Batch(ids=[63], vectors={"": V[63:64].tolist()}, payloads=None))
    hooked.upload_points("docs", (point(id, id, n=id) for id in range(64, 70)), batch_size=4)
    hooked.upload_collection("docs", V[70:72], ids=[70, 71], payload=[{"n": 70}, {"n": 71}])
    hooked.upload_collection("docs", iter(V[72:74].tolist()), ids=iter([72, 73]))
    hooked.upload_collection("docs", {"": V[74:76]}, ids=[74, 75])
    in_step(plain)
    assert hooked.count("docs").count == 76
    assert stored(plain, 61).keys() == {"", "8_f16"}
    hooked.update_vectors("docs", [models.PointVectors(id=3, vector=V[9].tolist())])
    hooked.update_vectors("docs", [models.PointVectors(id=4, vector={"": V[10].tolist()})])
    in_step(plain)
    assert [hit.id for hit in hooked.query_points("docs", V[9], limit=1).points] in ([3], [9])
    hooked.delete_vectors("docs", vectors=[""], points=[3, 5])
    in_step(plain)
    assert stored(plain, 5) == {} and 5 not in [
        hit.id for hit in hooked.query_points("docs", V[5], limit=100).points
    ]


def test_the_operations_of_a_batch_keep_step(plain: QdrantClient) -> None:
    hooked = filled(plain)
    every = models.Filter(must_not=[models.HasIdCondition(has_id=[1])])
    operations: list[Any] = [
        models.UpsertOperation(upsert=models.PointsList(points=[point(70, 70, n=70)])),
        models.UpsertOperation(
            upsert=models.PointsBatch(
                batch=models.Batch(ids=[71], vectors=[V[71].tolist()], payloads=[{"n": 71}])
            )
        ),
        models.UpdateVectorsOperation(
            update_vectors=models.UpdateVectors(
                points=[
                    models.PointVectors(id=2, vector=V[72].tolist()),
                    models.PointVectors(id=3, vector=[0.0] * 8 + V[73, 8:].tolist()),
                ]
            )
        ),
        models.DeleteVectorsOperation(delete_vectors=models.DeleteVectors(points=[4], vector=[""])),
        models.SetPayloadOperation(
            set_payload=models.SetPayload(payload={"seen": True}, filter=every)
        ),
        models.DeletePayloadOperation(
            delete_payload=models.DeletePayload(keys=["kind"], filter=every)
        ),
        models.DeleteOperation(delete=models.PointIdsList(points=[5])),
    ]
    answers = hooked.batch_update_points("docs", operations)
    assert all(answer.status == models.UpdateStatus.COMPLETED for answer in answers)
    assert stored(plain, 3).keys() == {""}  # the old code is gone, and there is no new one
    records, _ = plain.scroll("docs", limit=100)
    reserved = next(record for record in records if record.id == names.DEFINITION)
    assert "seen" not in (reserved.payload or {}) and "_fv_definition" in (reserved.payload or {})
    assert {71, 70, 2} <= {hit.id for hit in hooked.query_points("docs", Q, limit=100).points}
    hooked.batch_update_points(
        "docs",
        [
            models.ClearPayloadOperation(clear_payload=models.FilterSelector(filter=every)),
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(payload={"n": 0}, filter=every)
            ),
            models.DeleteOperation(delete=models.FilterSelector(filter=every)),
        ],
    )
    assert hooked.count("docs").count == 1
    assert hooked.query_points("docs", V[1]).points[0].id == 1
    plain.delete("docs", [3])
    in_step(plain)


def test_a_code_that_there_is_none_of_any_more_goes(plain: QdrantClient) -> None:
    hooked = filled(plain)
    hooked.update_vectors(
        "docs",
        [
            models.PointVectors(id=3, vector=[0.0] * 8 + V[3, 8:].tolist()),
            models.PointVectors(id=4, vector=V[5].tolist()),
        ],
    )
    assert stored(plain, 3).keys() == {""} and stored(plain, 4).keys() == {"", "8_f16"}
    hooked.upsert("docs", [point(6, 6), models.PointStruct(id=7, vector=[0.0] * 16)])
    assert stored(plain, 7).keys() == {""}
    zero = hooked.query_points("docs", [0.0] * 16, limit=3)  # no direction: as without a funnel
    assert len(zero.points) == 3
    (status,) = fv.wrap(hooked).table("docs").status()
    assert (status.rows, status.filled) == (60, 58)


def test_the_definition_survives_what_an_application_may_do_to_points(plain: QdrantClient) -> None:
    hooked = filled(plain)
    everything = models.Filter(must_not=[models.HasIdCondition(has_id=[1_000])])
    hooked.overwrite_payload("docs", {"n": 1}, points=everything)
    hooked.set_payload("docs", {"m": 1}, points=everything)
    hooked.clear_payload("docs", models.FilterSelector(filter=everything))
    hooked.delete_payload("docs", keys=["_fv_definition"], points=everything)
    hooked.delete("docs", everything)
    assert hooked.count("docs").count == 0 and hooked.scroll("docs") == ([], None)
    (record,) = plain.retrieve("docs", [names.DEFINITION])
    assert set(record.payload or {}) == {"_fv_definition", "_fv_version"}
    hooked.upsert("docs", [point(1, 1)])
    in_step(plain)
    for refused in (
        lambda: hooked.delete("docs", [names.DEFINITION]),
        lambda: hooked.set_payload("docs", {}, points=[1, names.DEFINITION]),
        lambda: hooked.upsert("docs", [models.PointStruct(id=names.DEFINITION, vector=Q)]),
    ):
        with pytest.raises(InvalidInput, match="holds the definition"):
            refused()
    assert hooked.retrieve("docs", [names.DEFINITION]) == []


def test_what_cannot_be_found_again_is_refused_and_the_rest_is_for_qdrant_to_say(
    plain: QdrantClient,
) -> None:
    hooked = filled(plain)
    for value in (float("nan"), float("inf"), 1e39):
        with pytest.raises(InvalidInput, match=r"point 9: number 3 of the vector '' is"):
            hooked.upsert("docs", [models.PointStruct(id=9, vector=[1.0] * 3 + [value] * 13)])
    with pytest.raises(InvalidInput, match=r"point 1: number 0"):
        hooked.upload_points("docs", [models.PointStruct(id=1, vector=[float("nan")] * 16)])
    with pytest.raises(Exception) as theirs:
        hooked.upsert("docs", [models.PointStruct(id=9, vector=[1.0] * 5)])
    assert not isinstance(theirs.value, fv.FunnelvecError)
    with pytest.raises(Exception) as wide:
        hooked.query_points("docs", [1.0] * 17)
    assert not isinstance(wide.value, fv.FunnelvecError)
    with pytest.raises(Exception) as missing:
        hooked.query_points("nope", Q)
    with pytest.raises(type(missing.value)):
        plain.query_points("nope", Q)
    assert hooked.count("docs").count == 60
    in_step(plain)


def test_a_document_that_a_server_is_to_embed_is_refused(facade: Server) -> None:
    plain = QdrantClient(
        url=facade.url, check_compatibility=False, timeout=60, cloud_inference=True
    )
    hooked = filled(plain)
    document = models.Document(text="a", model="m")
    with pytest.raises(CapabilityError, match="embed before writing"):
        hooked.upsert("docs", [models.PointStruct(id=1, vector=document)])
    plain.close()


# -- making and taking away ------------------------------------------------------------------------


def test_a_collection_is_made_with_its_vectors(plain: QdrantClient) -> None:
    hooked = fv.hook(plain, funnel={"docs": {"body": "8:f16@20 > 16:f32"}, "flat": "16:f32"})
    own = models.HnswConfigDiff(m=32)
    hooked.create_collection(
        "docs",
        {
            "body": COSINE,
            "title": models.VectorParams(size=4, distance=models.Distance.DOT, hnsw_config=own),
        },
    )
    made = plain.get_collection("docs").config.params.vectors
    assert isinstance(made, dict) and set(made) == {"body", "body_8_f16", "title"}
    shown = hooked.get_collection("docs").config.params.vectors
    assert isinstance(shown, dict) and list(shown) == ["body", "title"]
    assert shown["body"].hnsw_config is not None and shown["body"].hnsw_config.m == 0
    assert shown["title"].hnsw_config is not None and shown["title"].hnsw_config.m == 32
    hooked.upsert("docs", [models.PointStruct(id=1, vector={"title": [1.0, 0, 0, 0]})])
    hooked.upsert("docs", [point(2, 2, "body")])
    in_step(plain, "body", "body_8_f16")
    found = hooked.query_points("docs", [1.0, 1, 1, 1], using="title").points
    assert [hit.id for hit in found] == [1]
    (record,) = hooked.retrieve("docs", [2], with_vectors=["body_8_f16"])
    assert isinstance(record.vector, dict)  # whoever names one of ours gets it
    hooked.create_collection("flat", COSINE)
    hooked.upload_collection("flat", V[:5], ids=range(5))
    assert [hit.id for hit in hooked.query_points("flat", V[3], limit=1).points] == [3]
    table = fv.wrap(hooked).table("docs", vector="body")
    assert table.search(V[2], k=3)[0].id == 2 and len(table) == 2
    assert hooked.delete_collection("docs")
    hooked.create_collection("other", COSINE)  # nothing was said of it
    assert plain.count("other").count == 0


def test_a_collection_made_anew_has_its_funnel_again(plain: QdrantClient) -> None:
    hooked = filled(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        hooked.recreate_collection("docs", COSINE)
    assert hooked.count("docs").count == 0
    hooked.upsert("docs", [point(1, 1)])
    in_step(plain)
    with pytest.raises(Exception) as theirs:
        hooked.create_collection("docs", COSINE)
    assert not isinstance(theirs.value, fv.FunnelvecError)
    assert hooked.count("docs").count == 1


def test_keys_of_a_collection_made_through_the_hook_are_what_they_turn_out_to_be(
    plain: QdrantClient,
) -> None:
    hooked = fv.hook(plain, funnel=FUNNEL)
    hooked.create_collection("docs", COSINE)
    table = fv.wrap(hooked).table("docs")
    assert len(table) == 0 and table.search(V[0]) == []
    table.create_funnel("more", "16:f32")  # changes the definition before there is a row
    uuid = "4f2e1a3c-0000-4000-8000-000000000001"
    hooked.upsert("docs", [models.PointStruct(id=uuid, vector=V[0].tolist(), payload={"n": 1})])
    (hit,) = fv.wrap(hooked).table("docs").search(V[0], k=1)
    assert str(hit.id) == uuid


def test_funnels_that_do_not_fit_are_refused_or_said(plain: QdrantClient) -> None:
    narrow = models.VectorParams(size=4, distance=models.Distance.COSINE)
    with pytest.warns(UserWarning, match="no vector of it is what the funnel .* ends in"):
        fv.hook(plain, funnel=FUNNEL).create_collection("narrow", narrow)
    assert plain.collection_exists("narrow")
    for funnel, vectors, message in (
        ({"docs": FUNNEL}, narrow, "it is 4:f32, and the funnel ends in 16:f32"),
        ({"docs": {"body": FUNNEL}}, COSINE, "has no vector 'body', but ''"),
        ({"docs": FUNNEL}, {"a": COSINE, "b": COSINE}, "several vectors .* say which"),
        (
            {"docs": "16:f32"},
            models.VectorParams(size=16, distance=models.Distance.MANHATTAN),
            "compared by Manhattan",
        ),
    ):
        with pytest.raises(InvalidInput, match=message):
            fv.hook(plain, funnel=funnel).create_collection("docs", vectors)  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="needs the name '8_f16', which is taken"):
        fv.hook(plain, funnel={"docs": {"": FUNNEL}}).create_collection(
            "docs", {"": COSINE, "8_f16": narrow}
        )
    with pytest.raises(CapabilityError, match="a rotation is fitted to rows"):
        fv.hook(plain, funnel="8:f16~pca@9 > 16:f32").create_collection("docs", COSINE)
    assert not plain.collection_exists("docs")


def test_a_vector_goes_with_all_that_was_made_of_it(facade: Server) -> None:
    plain = QdrantClient(url=facade.url, check_compatibility=False, timeout=60)
    hooked = fv.hook(plain, funnel={"docs": {"body": FUNNEL}})
    title = models.VectorParams(size=4, distance=models.Distance.DOT)
    hooked.create_collection("docs", {"body": COSINE, "title": title})
    hooked.upsert("docs", [point(1, 1, "body")])
    with pytest.raises(Conflict, match="drop_resolution removes it"):
        hooked.delete_vector_name("docs", "body_8_f16")
    hooked.delete_vector_name("docs", "body")
    assert list(facade.collections["docs"].vectors) == ["title"]
    hooked.upsert("docs", [models.PointStruct(id=2, vector={"title": [1.0, 0, 0, 0]})])
    assert hooked.count("docs").count == 2
    plain.close()


def test_shards_with_keys_have_no_place_for_a_definition(facade: Server) -> None:
    plain = QdrantClient(url=facade.url, check_compatibility=False, timeout=60)
    with pytest.warns(UserWarning, match="its shards have keys"):
        fv.hook(plain, funnel=FUNNEL).create_collection(
            "docs", COSINE, sharding_method=models.ShardingMethod.CUSTOM
        )
    assert list(facade.collections["docs"].vectors) == [""]
    plain.close()


def test_an_old_server_and_a_definition_that_cannot_be_kept(
    facade: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = QdrantClient(url=facade.url, check_compatibility=False, timeout=60)
    hooked = fv.hook(plain, funnel=FUNNEL)
    facade.fail_after = 0
    with pytest.raises(Exception, match="the disk is full"):
        hooked.create_collection("docs", COSINE)
    assert facade.collections == {}  # none without its definition
    monkeypatch.setattr(Server, "version", "1.14.4")
    with pytest.raises(CapabilityError, match=r"funnelvec needs Qdrant 1\.15"):
        hooked.create_collection("docs", COSINE)
    plain.close()


# -- collections that are there --------------------------------------------------------------------


def test_a_funnel_that_is_there_is_used_and_one_that_is_added_found(plain: QdrantClient) -> None:
    plain.create_collection("docs", {"body": COSINE})
    plain.upsert("docs", [point(i, i, "body") for i in range(20)])
    hooked = fv.hook(plain)
    with pytest.warns(UserWarning, match="funnelvec keeps nothing of it") as told:
        hooked.query_points("docs", Q, using="body")
        hooked.upsert("docs", [point(20, 20, "body")])
        hooked.upload_points("docs", [point(21, 21, "body")])
    assert len(told) == 1 and told[0].filename == __file__
    table = fv.wrap(plain).table("docs", vector="body")
    if isinstance(plain._client, QdrantLocal):
        table.add_resolution("8:f16", concurrently=True)
        hooked.upsert("docs", [point(22, 22, "body")])  # brings its code while others lack theirs
        assert stored(plain, 22).keys() == {"body", "body_8_f16"}
        assert table.backfill() == 22
    else:
        hooked.upsert("docs", [point(22, 22, "body")])
        table.add_resolution("8:f16")
    hooked.upsert("docs", [point(23, 23, "body")])
    in_step(plain, "body", "body_8_f16")
    table.create_funnel("docs_search", "8:f16@30 > 16:f32")
    again = fv.hook(plain)
    assert [hit.id for hit in again.query_points("docs", V[23], using="body").points][:1] == [23]
    assert again.count("docs").count == 24


def test_a_resolution_that_is_on_its_way_is_written_where_its_vector_is(
    plain: QdrantClient,
) -> None:
    hooked = filled(plain)
    table = fv.wrap(hooked).table("docs")
    collection = table._collection
    from funnelvec.engines.qdrant.definition import Kept
    from funnelvec.resolution import Resolution

    wanted = Resolution.parse("4:f16")
    table._change(
        lambda v: type(v)(
            v.column, {**v.resolutions, wanted: Kept(False, ready=False)}, v.funnels, ()
        )
    )
    hooked.upsert("docs", [point(1, 2)])  # the definition says so, the collection not yet
    assert stored(plain, 1).keys() == {"", "8_f16"}
    table._provide(wanted)
    hooked.upsert("docs", [point(1, 2)])
    assert stored(plain, 1).keys() == {"", "8_f16", "4_f16"}
    assert collection.definition(fresh=True).vectors[""].filling == [wanted]


def test_a_newer_definition_is_refused(plain: QdrantClient) -> None:
    hooked = filled(plain)
    plain.set_payload("docs", {"_fv_definition": '{"format": 99}'}, points=[names.DEFINITION])
    with pytest.raises(VersionMismatch, match="upgrade funnelvec"):
        hooked.upsert("docs", [point(1, 1)])


def test_a_collection_copied_through_the_hook_has_a_funnel_of_its_own(
    facade: Server,
) -> None:
    source = filled(QdrantClient(":memory:"))
    target = QdrantClient(":memory:")
    source.migrate(target)
    assert target.count("docs").count == 60
    assert isinstance(target.get_collection("docs").config.params.vectors, models.VectorParams)
    hooked = fv.hook(QdrantClient(":memory:"), funnel=FUNNEL)
    target.migrate(hooked)
    in_step(below(hooked))
    assert hooked.count("docs").count == 60


def test_fitted_rotations_are_read_with_the_definition(plain: QdrantClient) -> None:
    hooked = filled(plain)
    table = fv.wrap(hooked).table("docs")
    hooked.upload_collection("docs", RNG.normal(size=(300, 16)), ids=range(100, 400))
    table.fit_rotation("pca", dims=8)
    table.add_resolution("8:f16~pca")
    table.create_funnel("docs_search", "8:f16~pca@400 > 16:f32", replace=True)
    again = fv.hook(plain)
    again.upsert("docs", [point(70, 70, n=70)])
    assert stored(plain, 70).keys() == {"", "8_f16", "8_f16_pca"}
    assert [hit.id for hit in again.query_points("docs", V[70], limit=1).points] == [70]
    reserved = set(table._collection.reserved)
    assert len(reserved) == 2  # the definition, and the numbers of the map
    records, _ = again.scroll("docs", limit=1_000)
    assert len(records) == again.count("docs").count == 361
    assert again.get_collection("docs").points_count == 361
    again.delete("docs", models.Filter(must_not=[models.HasIdCondition(has_id=[70])]))
    assert {record.id for record in plain.scroll("docs")[0]} == {70, *reserved}
    expected = {hit.id for hit in fv.wrap(plain).table("docs").search(V[70], k=3)}
    assert {hit.id for hit in again.query_points("docs", V[70]).points} == expected == {70}


def test_a_collection_that_is_being_copied_takes_no_writes(facade: Server) -> None:
    plain = QdrantClient(url=facade.url, check_compatibility=False, timeout=60)
    hooked = filled(plain)
    table = fv.wrap(hooked).table("docs")
    table._collection.change(lambda d: replace(d, copying="docs__fv1"), copier=True)
    for refused in (
        lambda: hooked.upsert("docs", [point(1, 1)]),
        lambda: hooked.upload_points("docs", [point(1, 1)]),
        lambda: hooked.delete("docs", [1]),
        lambda: hooked.set_payload("docs", {"n": 1}, points=[1]),
        lambda: hooked.batch_update_points("docs", []),
    ):
        with pytest.raises(Conflict, match="being copied"):
            refused()
    assert len(hooked.query_points("docs", Q, limit=5).points) == 5
    plain.close()


# -- relevance -------------------------------------------------------------------------------------


def judged(table: Any) -> None:
    queries = np.repeat(V[60:70], 60, axis=0)
    ids = list(range(60)) * 10
    unit = V / np.linalg.norm(V, axis=1, keepdims=True)
    labels = (unit[60:70] @ unit[:60].T).ravel() + RNG.normal(scale=0.1, size=600) > 0.2
    table.calibrate(Judgments(queries, ids, labels))


def test_relevance_is_told_where_it_is_asked_for(plain: QdrantClient) -> None:
    filled(plain)
    asking = fv.hook(plain, relevance=True)
    assert asking.query_points("docs", Q, limit=1).points[0].payload["relevance"] is None  # type: ignore[index]
    with pytest.raises(NotCalibrated, match=r"calibrate\(judgments\)"):
        fv.hook(plain, min_relevance=0.5).query_points("docs", Q)
    table = fv.wrap(plain).table("docs")
    judged(table)
    expected = {hit.id: hit.relevance for hit in table.search(Q, k=10)}
    asking = fv.hook(plain, relevance="how_sure")
    found = asking.query_points("docs", Q, limit=10, with_payload=False).points
    assert {hit.id: (hit.payload or {})["how_sure"] for hit in found} == pytest.approx(expected)
    with pytest.raises(InvalidInput, match="has a payload field 'n' of its own"):
        fv.hook(plain, relevance="n").query_points("docs", Q)
    least = fv.hook(plain, relevance=True, min_relevance=0.5)
    wanted = [hit.id for hit in table.search(Q, k=60, min_relevance=0.5)]
    assert 0 < len(wanted) < 60
    assert [hit.id for hit in least.query_points("docs", Q, limit=60).points] == wanted
    strict = least.query_points("docs", Q, limit=60, score_threshold=0.99)
    assert strict.points == []
    grouped = least.query_points_groups("docs", "kind", Q, limit=5, group_size=60)
    assert sorted(hit.id for group in grouped.groups for hit in group.hits) == sorted(wanted)
    requests = [models.QueryRequest(query=Q, limit=60), models.QueryRequest(query=V[61].tolist())]
    first, second = least.query_batch_points("docs", requests)
    assert [hit.id for hit in first.points] == wanted and second.points != first.points
    none = fv.hook(plain, min_relevance=1.0)
    assert none.query_points("docs", Q).points == []
    assert none.query_points_groups("docs", "kind", Q).groups == []
    assert [answer.points for answer in none.query_batch_points("docs", requests)] == [[], []]


# -- the client itself -----------------------------------------------------------------------------


def test_a_hooked_client_is_a_client_and_its_transport_its_own(facade: Server) -> None:
    plain = QdrantClient(url=facade.url, check_compatibility=False, timeout=60)
    hooked = fv.hook(plain)
    assert isinstance(hooked, QdrantClient) and hooked.init_options == plain.init_options
    assert hooked.http is plain.http
    assert isinstance(fv.hook(QdrantClient(":memory:"))._client, QdrantLocal)
    with pytest.raises(NotImplementedError):
        _ = fv.hook(QdrantClient(":memory:")).http
    with pytest.raises(InvalidInput, match="hooked already"):
        fv.hook(hooked)
    assert fv.wrap(hooked).capabilities.name == "qdrant"
    plain.close()


def test_the_original_stays_open_and_lives_as_long_as_the_hook(facade: Server) -> None:
    plain = QdrantClient(url=facade.url, check_compatibility=False, timeout=60)
    hooked = fv.hook(plain)
    del hooked
    gc.collect()
    assert plain.get_collections().collections == []
    hooked = fv.hook(plain)
    del plain
    gc.collect()
    assert hooked.get_collections().collections == []
    hooked.close()
    with pytest.raises(Exception, match="closed"):
        hooked.get_collections()


def test_a_class_of_the_applications_keeps_its_methods() -> None:
    class Ours(QdrantClient):
        """Ours."""

        def twice(self, collection: str) -> int:
            return 2 * self.count(collection).count

        def query_points(self, *args: Any, **given: Any) -> Any:
            return [hit.id for hit in super().query_points(*args, **given).points]

    hooked = filled(Ours(":memory:"))
    assert isinstance(hooked, Ours) and hooked.twice("docs") == 120
    assert hooked.query_points("docs", V[4], limit=1) == [4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fv.hook(object()), "hook takes a QdrantClient or an AsyncQdrantClient"),
        (lambda: fv.hook(QdrantClient(":memory:"), funnel=7), "funnel is a text such as"),  # type: ignore[arg-type]
        (lambda: fv.hook(QdrantClient(":memory:"), funnel="8:f16 >"), "stage|resolution"),
        (lambda: fv.hook(QdrantClient(":memory:"), relevance=""), "relevance is True, or"),
        (lambda: fv.hook(QdrantClient(":memory:"), min_relevance=2), "min_relevance"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


def test_an_asynchronous_client_is_not_taken_for_a_plain_one() -> None:
    assert isinstance(fv.hook(AsyncQdrantClient(":memory:")), AsyncQdrantClient)
