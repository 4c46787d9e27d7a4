"""Every scenario on the memory engine, checked against a slow evaluator in this file.

It also proves of each scenario that no rounding can change its answer, which is what lets the
same list run on engines that round otherwise.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from funnelvec.codes.bits import LEVELS, levels
from funnelvec.engines.base import Table
from funnelvec.engines.memory import MemoryEngine
from funnelvec.funnel import Funnel
from tests.agreement.scenarios import SCENARIOS, Scenario, ask, compare, load, tolerance

#: More than twice what two engines may differ by. No cut and no two neighbours of an answer are
#: closer than this, unless they are equal.
CLEAR = 5e-6


def matching(scenario: Scenario) -> list[int]:
    """Rows that match, by a condition written by hand for each filter."""
    rows, _ = scenario.build()
    everything = list(range(len(rows.ids)))
    if not scenario.filter:
        return everything
    expected = BY_HAND[scenario.name.removesuffix("_side")]
    cells = {**rows.columns}
    if isinstance(scenario.key, str):
        cells[scenario.key] = rows.ids
    else:
        cells |= dict(zip(scenario.key, zip(*rows.ids, strict=True), strict=True))  # type: ignore[arg-type]
    return [i for i in everything if expected({name: cells[name][i] for name in cells})]


def some(value: Any, test: Any) -> bool:
    """A test that a missing value fails."""
    return value is not None and bool(test(value))


def nested(c: dict[str, Any]) -> bool:
    first = some(c["stock"], lambda v: 2 <= v < 5) and c["lang"] != "de"
    early = some(c["day"], lambda v: v.isoformat() < "2024-06-01")
    return first or not (c["sold out"] is True or early)


BY_HAND: dict[str, Any] = {
    "filter_equal": lambda c: c["lang"] == "de",
    "filter_not_equal": lambda c: c["lang"] != "de",
    "filter_code_points": lambda c: c["lang"] in ("de", "en", "é", 'o\'neil "x" \\ %s $1'),
    "filter_quotes": lambda c: some(c["lang"], lambda v: v.startswith("o'neil")),
    "filter_empty_text": lambda c: c["lang"] == "",
    "filter_range": lambda c: some(c["Price"], lambda v: 10 <= v < 40.5),
    "filter_nan_is_above": lambda c: some(c["Price"], lambda v: math.isnan(v) or v > 90),
    "filter_nan_is_not_below": lambda c: some(c["Price"], lambda v: not math.isnan(v)),
    "filter_nan_differs": lambda c: c["Price"] != 10.5,
    "filter_in": lambda c: c["stock"] in (1, 5),
    "filter_not_in": lambda c: c["stock"] not in (1, 5),
    "filter_exists": lambda c: c["lang"] is not None,
    "filter_missing": lambda c: c["lang"] is None,
    "filter_not": lambda c: not some(c["stock"], lambda v: v < 5),
    "filter_boolean": lambda c: c["sold out"] is True,
    "filter_boolean_not": lambda c: c["sold out"] is not True,
    "filter_date": lambda c: some(c["day"], lambda v: (v.year, v.month) == (2024, 3)),
    "filter_timestamp": lambda c: some(
        c["seen"],
        lambda v: (
            (v.day, v.hour) > (2, 10)
            or v.month > 1
            or (v.day == 2 and v.hour == 10 and v.microsecond > 0)
        ),
    ),
    "filter_timestamp_naive": lambda c: some(
        c["seen"], lambda v: v.month == 1 and (v.day, v.hour) < (2, 12)
    ),
    "filter_timestamp_day": lambda c: some(c["seen"], lambda v: (v.month, v.day) < (1, 3)),
    "filter_uuid": lambda c: some(c["batch"], lambda v: v.int == 1),
    "filter_uuid_in": lambda c: not some(c["batch"], lambda v: v.int == 1),
    "filter_key": lambda c: c["id"] >= 190,
    "filter_several": lambda c: (
        c["lang"] == "de" and some(c["stock"], lambda v: v > 2) and c["sold out"] is True
    ),
    "filter_nested": nested,
    "filter_nested_not": lambda c: not nested(c),
    "filter_nothing": lambda c: False,
    "filter_two_stages": lambda c: some(c["stock"], lambda v: v < 4),
    "filter_before_the_cut": lambda c: some(c["stock"], lambda v: v >= 3),
    "relevance_and_filter": lambda c: c["sold out"] is True,
    "dot_filtered": lambda c: some(c["stock"], lambda v: v >= 3),
    "euclidean_filtered": lambda c: some(c["stock"], lambda v: v >= 3),
    "keys_filtered_by_a_part": lambda c: c["tenant"] == "a" and c["Doc id"] >= 105,
}


def slow_f16(x: list[float], scenario: Scenario, metric: str) -> list[float]:
    """The 16-bit code of a prefix, a number at a time."""
    length = slow_length(x)
    if metric == "cosine":
        x = [float(np.float32(v / length)) for v in x]
    elif scenario.dtype == "f32" and length > 65504:
        x = [float(np.float32(v / length) * np.float32(65504)) for v in x]
    return [float(np.float16(v)) for v in x]


def slow_steps(dims: int) -> float:
    return 127 / min(1.0, 8 / math.sqrt(dims))


def slow_bytes(x: list[float]) -> list[int]:
    """The code of one byte a number of a vector."""
    length = slow_length(x)
    steps = [float(np.float32(v / length)) * slow_steps(len(x)) for v in x]
    return [max(-127, min(127, round(step))) for step in steps]


def slow_length(x: list[float]) -> float:
    return math.sqrt(math.fsum(v * v for v in x))


def slow_mapped(fitted: Any, vector: Any, resolution: Any, asked: bool) -> list[float]:
    """A vector behind a fitted rotation, a number at a time."""
    numbers = (fitted.query_map if asked and fitted.query_map else fitted.row_map).matrix()
    x = [float(v) for v in vector]
    length = slow_length(x) if fitted.query_map and fitted.metric == "cosine" else 1.0
    return [
        float(np.float32(math.fsum(p * q for p, q in zip(row, x, strict=True)) / length))
        for row in numbers[: resolution.dims]
    ]


def slow_above(x: list[float], code: str) -> list[bool]:
    """Signs, or which levels the numbers of a vector are above."""
    if code == "bit":
        return [p > 0 for p in x]
    length = slow_length(x)
    return [p / length > level / math.sqrt(len(x)) for level in LEVELS[code] for p in x]


def slow_score(resolution: Any, a: Any, b: Any, scenario: Scenario, rotations: Any) -> float:
    """Score of a query and a row at a resolution, a number at a time."""
    a, b = (vector.astype(np.float16) if scenario.dtype == "f16" else vector for vector in (a, b))
    fitted = rotations.get(resolution.rotation)
    metric = scenario.metric
    if fitted is None:
        x, y = ([float(v) for v in vector[: resolution.dims]] for vector in (a, b))
    else:
        x = slow_mapped(fitted, a, resolution, True)
        y = slow_mapped(fitted, b, resolution, False)
        metric = "dot" if fitted.query_map else metric
    if resolution.code == "bit" or (fitted and resolution.code in LEVELS):
        above = zip(*(slow_above(z, resolution.code) for z in (x, y)), strict=True)
        return 1 - 2 * sum(p != q for p, q in above) / (len(x) * levels(resolution.code))
    if resolution.code == "int8":
        p, q = (slow_bytes(z) for z in (x, y))
        return (
            1 - sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) / 2 / slow_steps(len(x)) ** 2
        )
    if resolution.code == "f16" and resolution != scenario.base:
        x, y = (slow_f16(z, scenario, metric) for z in (x, y))
    if metric == "dot":
        return math.fsum(p * q for p, q in zip(x, y, strict=True))
    if metric == "euclidean":
        return -slow_length([p - q for p, q in zip(x, y, strict=True)])
    lengths = [slow_length(z) for z in (x, y)]
    return math.fsum(p / lengths[0] * (q / lengths[1]) for p, q in zip(x, y, strict=True))


def slow_descent(scenario: Scenario, rotations: Any) -> list[tuple[float, Any]]:
    """The answer before any threshold, and the proof that nothing hangs on a rounding."""
    rows, query = scenario.build()
    alive = matching(scenario)
    ranked: list[tuple[float, Any, int]] = []
    for stage in Funnel.parse(scenario.funnel).stages:
        scored = [
            (-slow_score(stage.resolution, query, rows.vectors[i], scenario, rotations), i)
            for i in alive
        ]
        # Scores that differ only by rounding are one score; its ties are in the order of keys.
        ranked = sorted((round(score, 9), rows.ids[i], i) for score, i in scored)
        if stage.keep is not None and stage.keep < len(ranked):
            gap = ranked[stage.keep][0] - ranked[stage.keep - 1][0]
            size = max(1.0, abs(ranked[stage.keep][0]))
            assert gap > CLEAR * size, f"{scenario.name}: stage {stage} cuts through a near-tie"
        ranked = ranked[: stage.keep]
        alive = [i for _, _, i in ranked]
    for (a, _, i), (b, _, j) in pairwise(ranked):
        same = slow_tie(rows.vectors[i], rows.vectors[j], scenario)
        clear = b - a > CLEAR * max(1.0, abs(a))
        assert clear or same, f"{scenario.name}: rows {i} and {j} nearly tie"
    return [(-score, key) for score, key, _ in ranked]


def slow_tie(a: Any, b: Any, scenario: Scenario) -> bool:
    """Whether every engine gives both rows the same score.

    They do if it is one vector; under cosine also if it is scaled by 2 or 4, and under dot if the
    query has no length.
    """
    if Funnel.parse(scenario.funnel).last.resolution.code in ("bit", "int8"):
        return True  # whole numbers do not round
    if scenario.metric == "dot" and not scenario.build()[1].any():
        return True
    scaled = (0.25, 0.5, 1, 2, 4) if scenario.metric == "cosine" else (1,)
    return any(np.array_equal(a * factor, b) for factor in scaled) or len(a) == 1


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine()


def test_names_differ_and_every_filter_is_checked_by_hand() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    assert {s.name.removesuffix("_side") for s in SCENARIOS if s.filter} == set(BY_HAND)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_memory_answers_as_the_slow_evaluator(engine: MemoryEngine, scenario: Scenario) -> None:
    table: Table = load(engine, scenario)
    hits = ask(table, scenario)
    expected = slow_descent(scenario, table._store.rotations)  # type: ignore[attr-defined]
    if scenario.min_relevance is not None:
        _, query = scenario.build()
        unlimited = table.search(query, k=scenario.k, filter=scenario.filter)
        relevance = np.array([hit.relevance for hit in unlimited], dtype=np.float64)
        if scenario.min_relevance not in (0, 1):
            assert (np.abs(relevance - scenario.min_relevance) > 1e-3).all(), "too close to call"
        above = relevance > scenario.min_relevance
        compare(hits, [hit for hit, keep in zip(unlimited, above, strict=True) if keep], 0.0)
        assert scenario.min_relevance in (0, 1) or 0 < len(hits) < len(unlimited)
        hits = unlimited
    assert [hit.id for hit in hits] == [key for _, key in expected[: scenario.k]]
    for hit, (score, _) in zip(hits, expected, strict=False):
        size = max(1.0, abs(score))
        assert hit.score == pytest.approx(score, abs=tolerance(scenario) * size)
        assert (hit.relevance is None) == (scenario.judgments is None)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_answers_keep_what_they_promise(engine: MemoryEngine, scenario: Scenario) -> None:
    table = load(engine, scenario)
    hits = ask(table, scenario)
    assert len(hits) <= scenario.k
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.id))
    assert len({hit.id for hit in hits}) == len(hits)
    relevance = [hit.relevance for hit in hits if hit.relevance is not None]
    assert relevance == sorted(relevance, reverse=True)
    if scenario.expected is not None:
        assert tuple(hit.id for hit in hits) == scenario.expected
    explanation = table.explain(
        scenario.build()[1],
        k=scenario.k,
        min_relevance=scenario.min_relevance,
        filter=scenario.filter,
    )
    assert explanation.stages[-1].rows_out == len(hits)
    assert explanation.stages[0].rows_in == len(matching(scenario))
