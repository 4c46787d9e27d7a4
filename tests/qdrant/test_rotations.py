"""How fitted rotations and certificates are kept with a collection in Qdrant."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

import funnelvec as fv
from funnelvec.engines.qdrant import client as deployment
from funnelvec.engines.qdrant.engine import QdrantEngine
from funnelvec.errors import Conflict, EngineError
from tests.agreement.test_certify import judgments, made, rows

DIMS = 16
VECTORS = (np.random.default_rng(3).normal(size=(300, DIMS)) * np.exp(-np.arange(DIMS) / 4)).astype(
    np.float32
)


def filled(engine: QdrantEngine) -> Any:
    table = engine.create("docs", dims=DIMS)
    table.add(range(300), VECTORS)
    return table


def funnel(table: Any) -> None:
    table.add_resolution("6:f16~pca")
    table.create_funnel("docs_search", "6:f16~pca@60 > 16:f32")


def test_a_second_client_and_the_next_process_read_the_maps(
    engine: QdrantEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "_PART_BYTES", 200)  # several points
    table = filled(engine)
    table.fit_rotation(dims=8)
    table.fit_rotation("sphere", kind="sphering", dims=8, queries=VECTORS[:60])
    funnel(table)
    kept = [*table._vector().rotations.values()]
    reserved = table._collection.reserved
    assert len(reserved) == 1 + sum(each.parts for each in kept)
    assert (engine.capabilities.name == "edge") == (len(reserved) == 1)
    assert table.count() == len(table.sample(1_000).ids) == 300
    assert table.measure_recall(sample=20, k=5).recall > 0.9
    first = table.search(VECTORS[8], k=5)
    assert len(table.search(VECTORS[8], k=60)) == 60
    engine._collections.clear()  # as another process: nothing is remembered
    again = engine.table("docs")
    assert again.search(VECTORS[8], k=5) == first
    assert [status.rotation for status in again.rotations()] == ["pca", "sphere"]
    again.upsert([1_000], VECTORS[[8]])
    assert {hit.id for hit in again.search(VECTORS[8], k=2)} == {8, 1_000}
    again.drop_rotation("sphere")
    assert len(again._collection.reserved) == 1 + sum(
        each.parts for each in kept if each.name == "pca"
    )
    assert again.count() == 301


def test_whoever_is_stopped_while_writing_leaves_no_rows_behind(
    engine: QdrantEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "_PART_BYTES", 200)
    table = filled(engine)
    keep = type(table._collection.deployment).keep_bytes

    def stopped(self: Any, collection: str, token: str, content: bytes) -> None:
        keep(self, collection, token, content[: len(content) // 2])
        raise KeyboardInterrupt

    def gone(*_: Any) -> None:
        raise EngineError("the server has gone too")

    here = type(table._collection.deployment)
    with monkeypatch.context() as patched:
        patched.setattr(here, "keep_bytes", stopped)
        patched.setattr(here, "drop_bytes", gone)
        with pytest.raises(KeyboardInterrupt):
            table.fit_rotation(dims=8)
    assert table.rotations() == [] and table.count() == 300
    assert len(table.sample(1_000).ids) == 300
    table.fit_rotation(dims=8)  # takes the place of what was left
    funnel(table)
    assert table.search(VECTORS[8], k=1)[0].id == 8
    assert table.count() == 300
    with monkeypatch.context() as patched:
        patched.setattr(here, "keep_bytes", stopped)
        with pytest.raises(KeyboardInterrupt):
            table.fit_rotation("other", dims=8)
    assert [each.name for each in table._vector(fresh=True).rotations.values()] == ["pca"]


def test_numbers_that_are_gone_or_damaged_are_named(engine: QdrantEngine) -> None:
    table = filled(engine)
    table.fit_rotation(dims=8)
    funnel(table)
    (kept,) = [*table._vector().rotations.values()]
    here = table._collection.deployment
    here.keep_bytes("docs", kept.token, b"{}\nnothing")
    engine._collections.clear()
    with pytest.raises(EngineError, match=r"the rotation pca, as it is kept.*damaged"):
        engine.table("docs")
    here.drop_bytes("docs", kept.token, max(1, kept.parts))
    with pytest.raises(EngineError, match="the numbers of the rotation pca are not in 'docs'"):
        engine.table("docs")


def test_two_clients_fit_at_once() -> None:
    """Whoever comes second is told, and what he has written is gone."""
    client = QdrantClient(":memory:")
    one, two = fv.wrap(client), fv.wrap(client)
    table = filled(one)  # type: ignore[arg-type]
    other, entered = two.table("docs"), threading.Event()
    here = table._collection.deployment
    keep = here.keep_bytes

    def late(collection: str, token: str, content: bytes) -> None:
        keep(collection, token, content)
        if not entered.is_set():
            entered.set()
            other.fit_rotation(dims=4)

    here.keep_bytes = late
    with pytest.raises(Conflict, match="another client has fitted or dropped the rotation pca"):
        table.fit_rotation(dims=8)
    assert [status.width for status in table.rotations()] == [4]
    everything, _ = client.scroll("docs", limit=1_000)
    assert len(everything) == 300 + 2  # the definition and one part


def test_a_certificate_is_read_by_the_next_client_and_void_for_all() -> None:
    client = QdrantClient(":memory:")
    table = made(fv.wrap(client))
    certificate = table.certify(judgments(rows()), max_miss=0.3, k=40)
    other = fv.wrap(client).table("things")
    assert other._vector().certificate(other._funnel(None), "max_miss") == certificate
    assert other.search(rows()[3], k=40, cutoff="certified") == table.search(
        rows()[3], k=40, cutoff="certified"
    )
    cutoff = table._question(table._funnel(None), _certified()).cutoff
    assert cutoff == certificate.cutoff
    other.calibrate(judgments(rows()))
    table._vector(fresh=True)
    with pytest.raises(fv.errors.NotCalibrated, match="void"):
        table.search(rows()[3], k=40, cutoff="certified")


def _certified() -> Any:
    from funnelvec.engines.qdrant.questions import Asked

    return Asked(40, None, None, cutoff="certified")


def test_what_has_changed_meanwhile_is_not_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    client = QdrantClient(":memory:")
    table = made(fv.wrap(client))
    other = fv.wrap(client).table("things")
    answers = table._judged_answers

    def slow(*given: Any) -> Any:
        found = answers(*given)
        other.create_funnel("things_search", f"8:f16@200 > {DIMS}:f32", replace=True)
        return found

    monkeypatch.setattr(table, "_judged_answers", slow)
    with pytest.raises(Conflict, match="has changed meanwhile; certify again"):
        table.certify(judgments(rows()), max_miss=0.3)
    assert table._vector(fresh=True).certificates == {}


def test_a_certified_cutoff_goes_down_as_a_threshold() -> None:
    with fv.connect("qdrant-local::memory:") as engine:
        table: Any = made(engine)
        certificate = table.certify(judgments(rows()), max_miss=0.4, k=50)
        sent: list[models.QueryRequest] = []
        here = table._collection.deployment
        query = here.query
        here.query = lambda name, requests: sent.extend(requests) or query(name, requests)
        (found,) = table.search_many(rows()[3:4], k=50, cutoff="certified")
        assert table.search(rows()[3], k=50, cutoff="certified") == found
        below = np.nextafter(np.float32(certificate.cutoff), np.float32(-np.inf))
        assert [request.score_threshold for request in sent] == [float(below)]
