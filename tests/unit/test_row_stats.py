"""What is kept of the rows of a table, beside the rows themselves, and how it is chosen."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from funnelvec.calibration.choosing import JudgedScores, choose
from funnelvec.calibration.listed import MOST_FEATURES, AdapterCalibration
from funnelvec.calibration.row_stats import QUERY_FEATURES, RowStats
from funnelvec.errors import CalibrationError
from funnelvec.types import Metric

WIDTH = 24


def rows(n: int = 900) -> np.ndarray[Any, Any]:
    """Eight directions with variances of their own, and one variance along all others."""
    rng = np.random.default_rng(1)
    spread = np.array([3, 2.5, 2, 1.7, 1.5, 1.3, 1.2, 1.1, *[0.4] * (WIDTH - 8)])
    turned = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    return ((rng.normal(size=(n, WIDTH)) * spread + 0.8) @ turned).astype(np.float32)


def queries(n: int = 30) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(2).normal(size=(n, WIDTH)) * 3).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_mean_and_deviation_are_those_of_the_scores_with_all_rows(metric: Metric) -> None:
    kept = RowStats.measure(rows(), metric=metric)
    assert kept is not None
    found = kept.features(QUERY_FEATURES, queries())
    wide, asked = rows().astype(np.float64), queries().astype(np.float64)
    if metric == "cosine":
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    if metric == "euclidean":
        distances = np.linalg.norm(asked[:, None] - wide[None], axis=2)
        mean = -np.sqrt((distances**2).mean(axis=1))
        # To first order: along the line from the mean of the rows to the query.
        lines = asked - wide.mean(axis=0)
        deviation = np.sqrt(np.einsum("nd,de,ne->n", lines, np.cov(wide.T, bias=True), lines))
        deviation /= -mean
    else:
        scores = asked @ wide.T
        mean, deviation = scores.mean(axis=1), scores.std(axis=1)
    np.testing.assert_allclose(found[:, 0], mean, rtol=2e-3, atol=2e-3 * np.abs(mean).max())
    np.testing.assert_allclose(found[:, 1], deviation, rtol=0.08)
    assert np.corrcoef(found[:, 1], deviation)[0, 1] > 0.98
    # The places are along directions that are at right angles to one another.
    assert np.abs(np.corrcoef(kept.features(QUERY_FEATURES[2:], rows()).T) - np.eye(4)).max() < 0.05


def test_products_are_whole_numbers_that_32_bits_hold() -> None:
    kept = RowStats.measure(rows(), metric="cosine")
    assert kept is not None
    for vector in (kept.mean, *kept.directions):
        numbers = np.array(json.loads(vector), dtype=np.float32)
        assert np.linalg.norm(numbers) < 3900 + WIDTH**0.5
        for query in queries():
            whole = np.rint((query / np.linalg.norm(query)).astype(np.float32) * np.float32(4096))
            exact = int(whole.astype(np.int64) @ numbers.astype(np.int64))
            for order in (slice(None), slice(None, None, -1), np.argsort(whole * numbers)):
                total = np.float32(0)
                for product in (whole * numbers)[order]:
                    total = np.float32(total + product)
                assert total == exact


def test_what_is_kept_reads_back_and_does_not_hang_on_the_order_of_rows() -> None:
    for metric in ("cosine", "euclidean"):
        kept = RowStats.measure(rows(), metric=metric)  # type: ignore[arg-type]
        assert kept is not None
        assert RowStats.of(json.loads(json.dumps(asdict(kept)))) == kept
        again = RowStats.measure(rows()[::-1], metric=metric)  # type: ignore[arg-type]
        assert again is not None
        np.testing.assert_allclose(
            again.features(QUERY_FEATURES, queries()),
            kept.features(QUERY_FEATURES, queries()),
            atol=2e-3,
        )
    short = kept.needed(("rank0", "place1"))
    assert short is not None and len(short.directions) == 2
    assert kept.needed(("rank0", "last")) is None
    with pytest.raises(CalibrationError, match="reads 3 main directions"):
        short.check(("place2",))


def test_few_rows_and_rows_without_a_direction() -> None:
    nothing = np.zeros((5, 3), dtype=np.float32)
    assert RowStats.measure(nothing, metric="cosine") is None
    assert RowStats.measure(rows(1), metric="dot") is None
    kept = RowStats.measure(nothing, metric="dot")
    assert kept is not None
    assert (kept.features(QUERY_FEATURES[:2], queries()[:, :3]) == 0).all()
    same = RowStats.measure(np.ones((4, 2), dtype=np.float32), metric="euclidean")
    assert same is not None
    found = same.features(("query_mean", "query_sd"), np.array([[4.0, 5.0]], np.float32))
    np.testing.assert_allclose(found, [[-5.0, 0.0]], atol=1e-2)


# -- how it is chosen ----------------------------------------------------------------------------


def judged(*, groups: Any = None, by: str = "query_mean") -> JudgedScores:
    """Sixty queries whose lists tell nothing of their cutoff, and whose place does."""
    rng = np.random.default_rng(3)
    lists = -np.sort(-rng.uniform(0.2, 0.9, size=(60, 25)), axis=1)
    values = rng.normal(size=60)
    labels = rng.random(size=lists.shape) < 1 / (
        1 + np.exp(-12 * (lists - 0.6) - 2 * values[:, None])
    )
    asked = {name: rng.normal(size=60) for name in QUERY_FEATURES} | {by: values}
    return JudgedScores(
        lists.ravel(), labels.ravel(), np.repeat(np.arange(60), 25), lists, groups, asked,
        RowStats.measure(rows(), metric="cosine"),
    )  # fmt: skip


KNOWN: dict[str, Any] = {
    "model": None, "vector": "v", "metric": "cosine", "last_stage": "24:f32",
    "judgments_sha256": "", "n_pairs": 0, "n_relevant": 0, "n_queries": 0,
}  # fmt: skip


@pytest.mark.parametrize("by", ["place2"])
def test_features_of_the_query_are_taken_where_they_help(by: str) -> None:
    given = judged(by=by)
    calibration = choose(given, "adapter", **KNOWN).calibration
    assert isinstance(calibration, AdapterCalibration)
    assert by in calibration.features and calibration.rows is not None
    assert len(calibration.features) < MOST_FEATURES
    at = [
        calibration.at(query, row) for query, row in zip(queries(2), given.lists[:2], strict=True)
    ]  # type: ignore[index]
    assert all(each.slope > 0 for each in at)
    without = choose(replace(given, asked={}, rows=None), "adapter", **KNOWN)
    assert getattr(without.calibration, "rows", None) is None


def test_a_place_that_names_the_group_is_no_help_for_other_groups() -> None:
    # Ten groups of queries, each at a place of its own and with a cutoff of its own.
    rng = np.random.default_rng(4)
    group = np.arange(60) % 10
    lists = -np.sort(-rng.uniform(0.2, 0.9, size=(60, 25)), axis=1)
    cutoff = rng.permutation(np.linspace(-2, 2, 10))[group]
    labels = rng.random(size=lists.shape) < 1 / (
        1 + np.exp(-12 * (lists - 0.6) - 2 * cutoff[:, None])
    )
    places = rng.normal(size=(10, 6))[group] + 0.05 * rng.normal(size=(60, 6))
    given = JudgedScores(
        lists.ravel(), labels.ravel(), np.repeat(np.arange(60), 25), lists, None,
        dict(zip(QUERY_FEATURES, places.T, strict=True)), RowStats.measure(rows(), metric="cosine"),
    )  # fmt: skip
    alone = choose(given, "adapter", **KNOWN)
    together = choose(replace(given, groups=group.astype(np.int64)), "adapter", **KNOWN)
    assert getattr(alone.calibration, "rows", None) is not None
    assert getattr(together.calibration, "rows", None) is None


def test_queries_that_want_the_same_rows_are_one_group() -> None:
    wanted = [[f"r{i}", f"s{i}"] for i in range(6)] * 2
    groups = JudgedScores.grouped(wanted)
    assert groups is not None and (groups[:6] == groups[6:]).all()
    assert len(set(groups.tolist())) == 6
    # With fewer groups than folds each query is one of its own.
    assert JudgedScores.grouped([["a"], ["a"], ["b"], ["b"]]) is None
