"""Hub columns in Qdrant: numbers in payloads, formulas over the last stage, and the hook."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import qdrant_edge
from qdrant_client import QdrantClient, models

import funnelvec as fv
from funnelvec.engines.qdrant.engine import QdrantEngine
from funnelvec.errors import CalibrationError, Conflict, EngineError, NotCalibrated, NotFound
from tests import awaited
from tests.qdrant.test_hook import EF, KIND, USES, Q, V, filled, point, told
from tests.qdrant.test_hook import Q as QUERY

DIMS, ROWS = 16, 120
DATA = np.random.default_rng(8).normal(size=(ROWS + 60, DIMS)).astype(np.float32)
DATA[::3] += 0.8
OTHER = DATA[ROWS:]


def judgments(vectors: np.ndarray[Any, Any], ids: list[Any]) -> fv.Judgments:
    """Rows that lean to the middle of all answer nothing, however high they score."""
    rng, found = np.random.default_rng(2), []
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    middle = units.mean(axis=0)
    for number in range(24):
        query = units[number] + rng.normal(scale=0.15, size=DIMS).astype(np.float32)
        scores = units @ query / np.linalg.norm(query)
        for row in np.argsort(-scores)[:25]:
            relevant = scores[row] - 1.5 * units[row] @ middle > 0.1
            found.append((query, ids[row], bool(relevant) ^ bool(rng.random() < 0.05)))
    queries, keys, labels = zip(*found, strict=True)
    return fv.Judgments(np.stack(queries), list(keys), np.array(labels))


def made(engine: Any, funnel: str = f"8:f16@60 > {DIMS}:f32", **options: Any) -> Any:
    table = engine.create("docs", dims=DIMS, **options)
    table.add(range(ROWS), DATA[:ROWS])
    table.add_resolutions(funnel)
    table.create_funnel("docs_search", funnel, approximate=True)
    return table


def numbers(table: Any) -> dict[Any, float]:
    """The number of every row, as it is kept."""
    hub, ids = table._vector(fresh=True).hub, table._ids()
    read = table._collection.deployment.retrieve(table.name, ids, payload=True, vectors=())
    return {record.id: record.payload.get(hub.key) for record in read}


def check_in_step(table: Any) -> None:
    """Every row with a vector has the number of that vector."""
    hub = table._vector(fresh=True).hub
    read = table._read_vectors(table._ids(), table.vector)
    bank = table._collection.bank(hub)
    expected = bank.measure(list(read), np.stack(list(read.values())))
    kept = numbers(table)
    np.testing.assert_allclose([kept[id] for id in read], expected, atol=1e-5)


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["edge"], indirect=True)
@pytest.mark.parametrize(
    ("metric", "funnel", "near"),
    [
        ("cosine", f"8:f16@60 > {DIMS}:f32", 1e-6),
        ("cosine", f"8:f16@60 > {DIMS}:f16", 1e-3),
        ("cosine", f"8:f16@60 > {DIMS}:int8", 1e-6),
        ("cosine", f"8:f16@60 > {DIMS}:bit", 1e-6),
        ("euclidean", f"8:f32@60 > {DIMS}:f32", 1e-5),
        ("dot", f"8:f32@60 > {DIMS}:f32", 1e-5),
    ],
)
def test_every_last_stage_is_corrected_as_in_memory(
    engine: QdrantEngine, metric: Any, funnel: str, near: float
) -> None:
    with fv.connect("memory:") as memory:
        pair = made(memory, funnel, metric=metric), made(engine, funnel, metric=metric)
        given = judgments(DATA[:ROWS], list(range(ROWS)))
        for each in pair:
            each.add_hub(sample=80)
        alphas = [each.calibrate(given).alpha for each in pair]
        assert alphas[0] == pytest.approx(alphas[1], rel=5e-3) and alphas[0] > 0
        for query in OTHER[:4]:
            ours, theirs = (each.search(query, k=40) for each in pair)
            known = {hit.id: hit.score for hit in ours}
            assert len(known.keys() & {hit.id for hit in theirs}) >= 38
            for hit in theirs:
                assert hit.score == pytest.approx(known.get(hit.id, hit.score), abs=10 * near)
            level = theirs[20].relevance
            cut = pair[1].search(query, k=40, min_relevance=level)
            assert {hit.id for hit in theirs if hit.relevance > level} <= {hit.id for hit in cut}
            assert all(hit.relevance >= level for hit in cut)
    said = pair[1].explain(OTHER[0], min_relevance=0.5)
    assert any("times the hub of the row" in note for note in said.notes)


def test_keys_of_any_kind_and_names_of_any_form(engine: QdrantEngine) -> None:
    name = "my vec"
    table = engine.create("docs", dims=DIMS, vector=name, id="name", id_kind="text")
    keys = [f"row {row}" for row in range(ROWS)]
    table.load(DATA[:ROWS], ids=keys, batch_size=50)
    table.add_resolution("8:f16")
    table.create_funnel("docs_search", f"8:f16@60 > {DIMS}:f32")
    assert table.add_hub(sample=50) == f"{name}_hub"
    table.load(OTHER[:20], ids=[f"more {row}" for row in range(20)], batch_size=7)
    check_in_step(table)
    assert table.calibrate(judgments(DATA[:ROWS], keys)).alpha > 0
    assert table.search(OTHER[5], k=1)[0].id == "more 5"
    assert len(engine.table("docs").search(OTHER[0], k=30)) == 30
    table.drop_hub()
    assert len(table) == ROWS + 20
    ids = table._ids()
    (record, *_) = table._collection.deployment.retrieve("docs", ids[:1], payload=True, vectors=())
    assert list(record.payload) == ["name"]


@pytest.mark.parametrize("engine", ["edge"], indirect=True)
def test_what_a_table_goes_by_with_and_without_it(engine: QdrantEngine) -> None:
    table = made(engine)
    given = judgments(DATA[:ROWS], list(range(ROWS)))
    table.create_funnel("alone", f"{DIMS}:f32")
    plain = table.calibrate(given)
    table.certify(given, max_miss=0.3, k=20)
    table.add_hub()
    assert table.search(OTHER[0], k=20, cutoff="certified") is not None
    fitted = table.calibrate(given)
    assert fitted.hub is not None
    with pytest.raises(NotCalibrated, match="is void"):
        table.search(OTHER[0], k=20, cutoff="certified")
    # A single stage has no shortlist that could be put into another order.
    found = table.search(OTHER[0], k=3, funnel="alone")
    scores = [hit.score for hit in found]
    assert [hit.relevance for hit in found] == pytest.approx(plain.apply(OTHER[0], scores))
    table.certify(given, max_miss=0.3, k=20)
    assert engine.table("docs").search(OTHER[0], k=20, cutoff="certified") is not None
    table.drop_hub()
    with pytest.raises(NotFound, match=r"has no hub column; add_hub\(\) makes one"):
        table.drop_hub()
    with pytest.raises(NotCalibrated, match="is void"):
        table.search(OTHER[0], k=20, cutoff="certified")
    found = table.search(OTHER[0], k=3)
    scores = [hit.score for hit in found]
    assert [hit.relevance for hit in found] == pytest.approx(plain.apply(OTHER[0], scores))


@pytest.mark.parametrize("engine", ["edge"], indirect=True)
def test_names_that_are_taken(engine: QdrantEngine) -> None:
    table = engine.create("docs", dims=DIMS, columns={"embedding_hub": "number"})
    table.add(range(ROWS), DATA[:ROWS])
    with pytest.raises(Conflict, match="needs the name 'embedding_hub', which is taken"):
        table.add_hub()
    few = engine.create("few", dims=DIMS)
    few.add(range(5), DATA[:5])
    with pytest.raises(CalibrationError, match="the table has 5 rows"):
        few.add_hub()
    assert few._vector(fresh=True).hub is None


def test_a_field_of_the_application_is_left_alone() -> None:
    client = QdrantClient(":memory:")
    params = models.VectorParams(size=DIMS, distance=models.Distance.COSINE)
    client.create_collection("docs", {"e": params})
    points = [
        models.PointStruct(id=row, vector={"e": DATA[row].tolist()}, payload={"e_hub": "mine"})
        for row in range(30)
    ]
    client.upsert("docs", points)
    with pytest.raises(Conflict, match="needs the name 'e_hub', which is taken"):
        fv.wrap(client).table("docs").add_hub()
    assert client.retrieve("docs", [3])[0].payload == {"e_hub": "mine"}


class Killed(BaseException):
    """Ends a program."""


@pytest.mark.parametrize("engine", ["edge"], indirect=True)
@pytest.mark.parametrize("where", ["keep_bytes", "add_number", "set_numbers"])
def test_who_is_stopped_goes_on(
    engine: QdrantEngine, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    table = made(engine)
    deployment = table._collection.deployment

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched, contextlib.suppress(Killed):
        patched.setattr(deployment, where, die)
        patched.setattr(deployment, "drop_number", die)  # nothing is cleaned up either
        table.add_hub()
    assert len(table) == ROWS
    table.upsert([0], OTHER[:1])
    if where == "set_numbers":  # its bank is there, the numbers are not
        assert table.backfill() == ROWS - 1
        assert table.backfill() == 0
    else:
        table.add_hub()
    check_in_step(table)
    assert len(table) == ROWS


@pytest.mark.parametrize("engine", ["edge"], indirect=True)
def test_a_drop_that_was_stopped(engine: QdrantEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    table = made(engine)
    table.add_hub()
    deployment = table._collection.deployment

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(deployment, "drop_bytes", die)
        table.drop_hub()
    assert len(table) == ROWS and len(table.search(OTHER[0], k=ROWS // 3)) == ROWS // 3
    table.drop_hub()
    assert len(table) == ROWS and table._vector().hub is None


@pytest.mark.parametrize("engine", ["edge"], indirect=True)
def test_a_bank_that_is_gone(engine: QdrantEngine) -> None:
    table = made(engine)
    table.add_hub()
    hub = table._vector().hub
    table._collection.deployment.drop_bytes("docs", hub.id, hub.parts)
    other = engine.table("docs")
    other._collection._banks.clear()  # as in another program
    with pytest.raises(EngineError, match=r"bank of the hub column embedding_hub.*drop_hub\(\)"):
        other.upsert([0], OTHER[:1])
    assert len(other.search(OTHER[0], k=7)) == 7
    other.drop_hub()
    other.upsert([0], OTHER[:1])


def test_edge_keeps_it_in_its_folder(edge_folder: str) -> None:
    with fv.connect(f"edge:{edge_folder}") as engine:
        table = made(engine)
        table.add_hub()
        table.calibrate(judgments(DATA[:ROWS], list(range(ROWS))))
        before = table.search(OTHER[0], k=9)
        assert before[0].relevance is not None
    with fv.connect(f"edge:{edge_folder}") as engine:
        again = engine.table("docs")
        assert list(again.search(OTHER[0], k=9)) == list(before)
        again.upsert([0, 500], OTHER[:2])
        check_in_step(again)


@pytest.mark.parametrize("form", ["sync", "async"])
def test_what_other_programs_write_is_told_and_mended(form: str, edge_folder: str) -> None:
    with awaited.opened(f"edge:{edge_folder}", form) as opened:
        engine: Any = opened
        table = engine.create("docs", dims=DIMS)
        table.add(range(60), DATA[:60])
        table.add_hub()
        assert engine.problems() == [] == engine.repair()
        inner = table._inner._table if form == "async" else table
        shards = inner._collection.deployment
        shards = getattr(shards, "_deployment", shards)._shards
        shards.update("docs", qdrant_edge.UpdateOperation.clear_payload([3, 5]))
        (problem,) = engine.problems()
        assert problem.object == "docs.embedding"
        assert problem.advice.startswith("2 rows have no embedding_hub")
        (planned,) = engine.repair(dry_run=True)
        assert engine.repair() == [planned] and engine.problems() == []
        if form == "sync":
            check_in_step(table)


# -- behind the hook -------------------------------------------------------------------------------


def hubbed(plain: QdrantClient, **options: Any) -> tuple[QdrantClient, Any]:
    """A hooked client over 60 points whose hubs are known, and the table that it is below."""
    filled(plain, funnel="8:f16@60 > 16:f32")
    table = fv.wrap(plain).table("docs", vector="")
    table.add_hub(sample=40)
    return fv.hook(plain, **options), table


def update(id: int, row: int) -> models.PointVectors:
    return models.PointVectors(id=id, vector=V[row].tolist())


WRITES: dict[str, Callable[[QdrantClient], Any]] = {
    "upsert": lambda c: c.upsert("docs", [point(3, 70, n=3), point(90, 71)]),
    "upload_points": lambda c: c.upload_points("docs", [point(4, 72), point(91, 73)], wait=True),
    "upload_collection": lambda c: c.upload_collection(
        "docs", V[74:77], [{"n": 1}, {"n": 2}, {"n": 3}], [5, 92, 93], wait=True
    ),
    "update_vectors": lambda c: c.update_vectors("docs", [update(6, 75), update(7, 76)]),
    "overwrite_payload": lambda c: c.overwrite_payload("docs", {"kind": "z"}, points=KIND),
    "clear_payload": lambda c: c.clear_payload("docs", points_selector=[1, 2, 8]),
    "delete_payload": lambda c: c.delete_payload("docs", ["n"], points=[11]),
    "set_payload": lambda c: c.set_payload("docs", {"n": 7}, points=[12]),
    "delete_vectors": lambda c: c.delete_vectors("docs", [""], [13]),
    "batch": lambda c: c.batch_update_points(
        "docs",
        [
            models.UpsertOperation(upsert=models.PointsList(points=[point(14, 77)])),
            models.UpdateVectorsOperation(
                update_vectors=models.UpdateVectors(points=[update(15, 78)])
            ),
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(payload={"n": 1}, points=[14, 16])
            ),
            models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[17])),
        ],
    ),
}


def test_writes_of_an_application_keep_numbers_in_step(plain: QdrantClient) -> None:
    hooked, table = hubbed(plain)
    check_in_step(table)
    for name, write in WRITES.items():
        write(hooked)
        try:
            check_in_step(table)
        except AssertionError as error:
            raise AssertionError(f"after {name}") from error
    assert hooked.count("docs").count == 64
    (record,) = hooked.retrieve("docs", [12])
    assert record.payload == {"n": 7, "kind": "z"}


def test_an_application_reads_what_it_wrote(plain: QdrantClient) -> None:
    hooked = filled(plain, funnel="8:f16@60 > 16:f32")
    with contextlib.suppress(UserWarning):  # local mode says once that it is always exact
        plain.query_points("docs", Q, search_params=EF)
    before = {name: told(use(hooked, None)) for name, use in USES.items()}
    fv.wrap(plain).table("docs", vector="").add_hub(sample=40)
    hooked = fv.hook(plain)
    for name, use in USES.items():
        assert told(use(hooked, None)) == before[name], name
    assert "_fv_hub" not in hooked.get_collection("docs").payload_schema
    records, _ = hooked.scroll("docs", limit=100)
    assert all(set(record.payload or {}) == {"n", "kind"} for record in records)


def test_searches_behind_the_hook_go_by_the_corrected_score(plain: QdrantClient) -> None:
    hooked, table = hubbed(plain, relevance=True)
    fitted = table.calibrate(judgments(V[:60], list(range(60))))
    assert fitted.alpha > 0
    hits = table.search(np.float32(QUERY), k=10)
    found = hooked.query_points("docs", Q).points
    assert [each.id for each in found] == [hit.id for hit in hits]
    assert [each.score for each in found] == pytest.approx([hit.score for hit in hits], abs=1e-6)
    told = [each.payload["relevance"] for each in found if each.payload]
    assert told == pytest.approx([hit.relevance for hit in hits], abs=1e-6)
    least = float(np.median(told))
    strict = fv.hook(plain, min_relevance=least)
    kept = strict.query_points("docs", Q, query_filter=KIND, search_params=EF).points
    expected = table.search(np.float32(Q), min_relevance=least)
    assert {each.id for each in kept} == {h.id for h in expected if h.id % 2 == 0}
    groups = strict.query_points_groups("docs", "kind", Q, group_size=9).groups
    grouped = {hit.id for group in groups for hit in group.hits}
    assert {hit.id for hit in expected} <= grouped
    # A search that is no funnel has the plain score, and the relevance that belongs to it.
    with contextlib.suppress(UserWarning):  # local mode says that it is always exact
        plain.query_points("docs", Q, search_params=models.SearchParams(exact=True))
    exact = hooked.query_points("docs", Q, search_params=models.SearchParams(exact=True)).points
    raw = {each.id: each.score for each in exact}
    assert raw != {each.id: each.score for each in found}


def test_a_vector_that_goes_takes_its_numbers_along() -> None:
    plain = QdrantClient(":memory:")
    hooked = filled(plain, "text", funnel="8:f16@60 > 16:f32")
    table = fv.wrap(plain).table("docs", vector="text")
    table.add_hub(sample=40)
    table.upsert(range(100, 300), np.vstack([DATA, -DATA])[:200])
    table.fit_rotation()
    assert plain.count("docs").count > 261
    hooked.create_vector_name(
        "docs",
        "other",
        models.DenseVectorNameConfig(
            dense=models.DenseVectorConfig(size=4, distance=models.Distance.DOT)
        ),
    )
    hooked.delete_vector_name("docs", "text")
    records, _ = plain.scroll("docs", limit=300)
    assert sum("text_hub" in (record.payload or {}) for record in records) == 0
    assert hooked.count("docs").count == 260
    assert plain.count("docs").count == 261  # and the definition


def test_distances_stay_distances() -> None:
    plain = QdrantClient(":memory:")
    hooked = fv.hook(plain, funnel="8:f32@60 > 16:f32")
    params = models.VectorParams(size=16, distance=models.Distance.EUCLID)
    hooked.create_collection("docs", vectors_config=params)
    hooked.upsert("docs", [point(row, row) for row in range(60)])
    before = told(hooked.query_points("docs", Q, score_threshold=9.0))
    table = fv.wrap(plain).table("docs", vector="")
    table.add_hub(sample=40)
    # The plain calibration is that of hits whose distances the application reads.
    line = table.calibrate(judgments(V[:60], list(range(60))))
    assert line.alpha > 0
    assert told(fv.hook(plain).query_points("docs", Q, score_threshold=9.0)) == before
    hits = fv.hook(plain, relevance=True).query_points("docs", Q).points
    assert all(hit.payload == {"relevance": None} for hit in hits)
