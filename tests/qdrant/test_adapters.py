"""Adapters in Qdrant: what is asked of the database, what is read off it, and behind the hook.

What they answer is compared with the other engines in `tests/agreement/test_families.py`; here
they are put together by hand, so that nothing has to be fitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

import funnelvec as fv
from funnelvec.calibration import AdapterCalibration
from funnelvec.calibration.listed import LIST_SETS
from funnelvec.engines.qdrant.engine import QdrantEngine
from funnelvec.engines.qdrant.shards import Shards
from funnelvec.errors import CapabilityError
from tests import awaited
from tests.qdrant.facade import Server
from tests.qdrant.test_hook import KIND, Q, filled, told

DIMS, ROWS, KEEP, DEPTH = 16, 300, 80, 60
DATA = np.random.default_rng(8).normal(size=(ROWS + 20, DIMS)).astype(np.float32)
DATA[50:60] = DATA[40]  # ties
OTHER = DATA[ROWS:]


def adapter(table: Any, depth: int = DEPTH) -> AdapterCalibration:
    """An adapter that reads eight places of the list, each to some effect."""
    count = len(LIST_SETS["curve"])
    return AdapterCalibration(
        depth=depth,
        features=LIST_SETS["curve"],
        feature_means=tuple(np.linspace(0.6, 0.1, count)),
        feature_scales=(0.1,) * count,
        score_mean=0.3,
        score_scale=0.2,
        offsets=(-0.5, *np.linspace(0.9, -0.7, count)),
        slopes=(3.0, *np.linspace(-0.4, 0.5, count)),
        floor=0.1,
        a=0.8,
        b=1.2,
        c=-0.3,
        model=None,
        vector=table.vector,
        metric=table.metric,
        last_stage=f"{DIMS}:f32",
        judgments_sha256="",
        n_pairs=1,
        n_relevant=1,
        n_queries=1,
    )


def give(table: Any, fitted: AdapterCalibration) -> None:
    table._change(lambda vector: vector.calibrated(fitted))


def made(engine: Any, keys: list[Any] | None = None, **options: Any) -> Any:
    """A table whose rows have a price and a name, with an adapter."""
    kinds: Any = {"price": "number", "label": "text"}
    table = engine.create("docs", dims=DIMS, columns=kinds, **options)
    columns = {
        "price": [float(i % 50) for i in range(ROWS)],
        "label": [f"n{i}" for i in range(ROWS)],
    }
    table.add(keys or range(ROWS), DATA[:ROWS], columns=columns)
    table.add_resolution("8:f32")
    table.create_funnel("docs_search", f"8:f32@{KEEP} > {DIMS}:f32", returns=["label"])
    table.create_funnel("bare", f"8:f32@{KEEP} > {DIMS}:f32")
    return table


def oracle(**options: Any) -> Any:
    """The same in memory."""
    table: Any = made(fv.connect("memory:"), **options)
    (last,) = {each.funnel.last.resolution for each in table._funnels.values()}
    table._calibrations[None, "cosine", last] = (adapter(table),)
    return table


def near(ours: Any, theirs: Any) -> None:
    """The same rows, up to 32 bits."""
    assert [(hit.id, hit.columns) for hit in ours] == [(hit.id, hit.columns) for hit in theirs]
    for name, atol in (("score", 1e-6), ("relevance", 1e-5)):
        values = [[getattr(hit, name) for hit in each] for each in (ours, theirs)]
        np.testing.assert_allclose(*values, atol=atol)


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyed", ["integer", "text"])
def test_answers_are_those_of_memory(engine: QdrantEngine, keyed: Any) -> None:
    options: Any = {"id_kind": keyed}
    options["keys"] = [f"row {i:03}" for i in range(ROWS)] if keyed == "text" else None
    table, memory = made(engine, **options), oracle(**options)
    give(table, adapter(table))
    asked: list[dict[str, Any]] = [
        {},
        {"k": 70},
        {"filter": {"price": {"$lt": 20}}, "k": 30},
        {"filter": {"price": {"$lt": 2}}, "k": 30},  # fewer rows than it looks at
        {"cutoff": "best_f1", "k": 50},
        {"funnel": "bare", "k": 40},
        *({"min_relevance": level, "k": 40} for level in (0.0, 0.2, 0.5, 0.999, 1.0)),
    ]
    for query in (*OTHER[:3], DATA[40]):
        for options in asked:
            ours, theirs = table.search(query, **options), memory.search(query, **options)
            near(ours, theirs)
            assert (ours.nearest is None) == (theirs.nearest is None)
            if ours.nearest is not None:
                near([ours.nearest], [theirs.nearest])
            near(table.search(query, **options), ours)  # what is remembered of it
        whole = table.search(query, k=30)
        page = list(table.search(query, k=4))
        while len(page) < 30:
            page += table.search(query, k=4, after=page[-1])
        near(page[:30], whole)
    many = table.search_many(OTHER[:4], k=7, min_relevance=0.3)
    singly = [table.search(query, k=7, min_relevance=0.3) for query in OTHER[:4]]
    for ours, theirs in zip(many, singly, strict=True):
        near(ours, theirs)
        near([ours.nearest or ours[0]], [theirs.nearest or theirs[0]])
    assert table.search(OTHER[0], filter={"price": -1.0}, min_relevance=0.1) == []


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Edge is asked: limits of searches, and how many rows are read."""
    found: list[Any] = []
    query, read = Shards.query, Shards.read

    def counted(self: Shards, collection: str, request: Any) -> Any:
        found.append(request.limit)
        return query(self, collection, request)

    def noted(self: Shards, collection: str, how: Any) -> Any:
        answer = read(self, collection, how)
        found.append(("read", len(answer) if isinstance(answer, list) else answer))
        return answer

    monkeypatch.setattr(Shards, "query", counted)
    monkeypatch.setattr(Shards, "read", noted)
    return found


@pytest.mark.parametrize("engine", ["edge"], indirect=True)
def test_the_funnel_is_asked_once(calls: list[Any], engine: QdrantEngine) -> None:
    table = made(engine)
    give(table, adapter(table))
    # As many rows as it looks at, or the page, and one more; of columns those of the answer.
    for options, expected in (
        ({"funnel": "bare"}, [DEPTH + 1]),
        ({"funnel": "bare", "k": 70}, [71]),
        ({"funnel": "bare", "min_relevance": 1.0}, [DEPTH + 1]),
        ({"funnel": "bare", "min_relevance": 0.01}, [DEPTH + 1]),
        ({"funnel": "bare", "cutoff": "best_f1"}, [KEEP + 1]),
        ({"funnel": "bare", "after": table.search(OTHER[0])[9]}, [KEEP + 1]),
        ({"k": 5}, [DEPTH + 1, ("read", 5)]),
        ({"k": 40}, [DEPTH + 1]),
    ):
        given: Any = options
        for _ in range(2):
            calls.clear()
            found = table.search(OTHER[0], **given)
            assert calls == expected, options
        assert (found.nearest is not None) == (given.get("min_relevance") == 1.0)
    calls.clear()
    assert len(table.search_many(OTHER[:6], funnel="bare", min_relevance=1.0)) == 6
    assert calls == [("read", 6)]


def test_what_strict_mode_does_not_allow_is_said(facade: Server) -> None:
    with fv.connect(facade.url) as engine:
        table = made(engine)
        give(table, adapter(table))
        expected = table.search(OTHER[0], k=5)
    facade.collections["docs"].strict = {"enabled": True, "max_query_limit": KEEP}
    with fv.connect(facade.url) as engine:  # another client finds what is known of the table
        table = engine.table("docs")
        assert table.search(OTHER[0], k=5) == expected
        assert table.search(OTHER[0], k=5, after=expected[1])[:3] == expected[2:]
    facade.collections["docs"].strict = {"enabled": True, "max_query_limit": DEPTH}
    with fv.connect(facade.url) as engine:
        table = engine.table("docs")
        with pytest.raises(CapabilityError, match=r"takes 80 rows.*allows 60 \(max_query_limit\)"):
            table.search(OTHER[0], k=5)
        with pytest.raises(CapabilityError, match=r"takes 80 rows"):
            table.calibrate(few(), family="adapter")


def few() -> fv.Judgments:
    """Enough judgments for an adapter to be thought of."""
    queries = np.repeat(DATA[:24], 3, axis=0)
    ids = [(row + step) % ROWS for row in range(24) for step in (0, 100, 200)]
    return fv.Judgments(queries, ids, np.tile([True, False, False], 24))


def test_funnels_that_keep_fewer_rows_go_on_with_what_they_had(engine: QdrantEngine) -> None:
    table = made(engine)
    platt = table.calibrate(few())
    table.create_funnel("less", f"8:f32@30 > {DIMS}:f32")
    give(table, adapter(table))
    give(table, adapter(table, 70))  # funnels that keep 60 rows still have use for the first
    give(table, adapter(table, 65))
    vector = table._vector(fresh=True)
    kept = [getattr(each, "depth", each.kind) for each in vector.calibrations]
    assert kept == ["platt", 60, 65]
    hit = table.search(OTHER[0], funnel="less")[0]
    assert hit.relevance == pytest.approx(platt.apply(None, [hit.score])[0])
    table.calibrate(few())
    assert [each.kind for each in table._vector().calibrations] == ["platt"]


def test_awaited(edge_folder: str) -> None:
    with fv.connect(f"edge:{edge_folder}") as engine:
        table = made(engine)
        give(table, adapter(table))
        expected = [table.search(query, min_relevance=0.3) for query in OTHER[:2]]
    with awaited.opened(f"edge:{edge_folder}", "async") as opened:
        again: Any = opened.table("docs")
        assert [again.search(query, min_relevance=0.3) for query in OTHER[:2]] == expected
        assert again.search_many(OTHER[:2], min_relevance=0.3) == expected


# -- behind the hook -------------------------------------------------------------------------------


@pytest.fixture
def hooked(plain: QdrantClient) -> Iterator[tuple[QdrantClient, Any]]:
    """A client over 60 points, and their table, which has an adapter."""
    filled(plain)
    table = fv.wrap(plain).table("docs", vector="")
    give(table, adapter(table, 40))
    yield plain, table


def test_the_hook_reads_the_list_of_a_plain_search(hooked: tuple[QdrantClient, Any]) -> None:
    plain, table = hooked
    asking = fv.hook(plain, relevance="worth")
    expected = {hit.id: hit.relevance for hit in table.search(np.float32(Q), k=60)}
    without = fv.hook(plain)
    asked: list[dict[str, Any]] = [
        {"limit": 5},
        {"limit": 7, "offset": 3, "with_vectors": True},
        {"limit": 50, "with_payload": ["n"]},
        {"limit": 4, "with_payload": False},
        {"limit": 60, "score_threshold": 0.2},
        {"limit": 9, "query_filter": KIND},
    ]
    for options in asked:
        found = asking.query_points("docs", Q, **options).points
        worth = [(hit.payload or {}).pop("worth") for hit in found]
        assert told(found) == told(without.query_points("docs", Q, **options).points) or (
            options.get("with_payload") is False and all(hit.payload == {} for hit in found)
        )
        if "query_filter" not in options:
            assert worth == pytest.approx([expected[hit.id] for hit in found], abs=1e-6)
    level = sorted(expected.values())[30]
    strict = fv.hook(plain, min_relevance=level)
    wanted = [hit.id for hit in table.search(np.float32(Q), k=60, min_relevance=level)]
    assert 0 < len(wanted) < 60
    assert [hit.id for hit in strict.query_points("docs", Q, limit=60).points] == wanted
    assert [h.id for h in strict.query_points("docs", Q, limit=3, offset=2).points] == wanted[2:5]
    requests = [
        models.QueryRequest(query=Q, limit=60),
        models.QueryRequest(query=Q, limit=2, offset=1, with_payload=True, with_vector=True),
    ]
    first, second = strict.query_batch_points("docs", requests)
    assert [hit.id for hit in first.points] == wanted
    assert [(h.id, (h.payload or {})["n"], len(h.vector or [])) for h in second.points] == [
        (id, id, 16) for id in wanted[1:3]
    ]
    none = fv.hook(plain, min_relevance=1.0)
    assert none.query_points("docs", Q).points == []


def test_what_has_no_list_behind_the_hook(hooked: tuple[QdrantClient, Any]) -> None:
    """Groups and prefetches of the application's: nothing is said of their relevance."""
    plain, _ = hooked
    asking, strict = fv.hook(plain, relevance=True), fv.hook(plain, min_relevance=0.3)
    own: Any = {"prefetch": models.Prefetch(query=Q, limit=20), "query": Q, "limit": 3}
    points = asking.query_points("docs", **own).points
    groups = asking.query_points_groups("docs", "kind", Q).groups
    for hit in (*points, *(each for group in groups for each in group.hits)):
        assert (hit.payload or {})["relevance"] is None
    for search in (
        lambda: strict.query_points("docs", **own),
        lambda: strict.query_points_groups("docs", "kind", Q),
    ):
        with pytest.raises(CapabilityError, match=r"family='platt'.*postgresql:// table"):
            search()


def test_the_hook_asks_once_too(facade: Server) -> None:
    plain = QdrantClient(url=facade.url, check_compatibility=False, timeout=60)
    filled(plain)
    table = fv.wrap(plain).table("docs", vector="")
    give(table, adapter(table, 40))
    asking = fv.hook(plain, relevance=True)
    asking.query_points("docs", Q)
    facade.log.clear()
    assert len(asking.query_points("docs", Q, limit=4).points) == 4
    (_, asked, body), (_, read, ids) = facade.log
    assert asked.endswith("/points/query") and read.endswith("/docs/points")
    assert (body["limit"], body["with_payload"], body["prefetch"]["limit"]) == (40, False, 80)
    assert len(ids["ids"]) == 4
    facade.collections["docs"].strict = {"enabled": True, "max_query_limit": 30}
    with pytest.raises(CapabilityError, match=r"adapter reads takes 40 rows.*allows 30"):
        fv.hook(plain, relevance=True).query_points("docs", Q, limit=4)
    plain.close()
