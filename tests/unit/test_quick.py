"""Calibrations in plain floats say what the families say in arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from funnelvec.calibration import AdapterCalibration, BetaCalibration, PlattCalibration
from funnelvec.calibration.isotonic import IsotonicCalibration
from funnelvec.calibration.listed import LIST_SETS
from funnelvec.calibration.quick import Curve, QuickAdapter
from funnelvec.calibration.row_stats import QUERY_FEATURES, RowStats

BELONGS: dict[str, Any] = {
    "model": None, "vector": "e", "metric": "dot", "last_stage": "8:f32",
    "judgments_sha256": "", "n_pairs": 1, "n_relevant": 1, "n_queries": 1,
}  # fmt: skip
QUERY = np.ones(3, np.float32)


def agree(curve: Curve, fitted: Any, scores: np.ndarray[Any, Any]) -> None:
    expected = fitted.apply(QUERY, scores)
    np.testing.assert_allclose(curve.relevance(scores.tolist()), expected, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(curve.apply(scores), expected, rtol=1e-9, atol=1e-300)
    for relevance in (-1.0, 0.0, 1e-9, 0.3, 0.999, 1.0, 2.0):
        at = fitted.cutoff(QUERY, relevance)
        assert curve.cutoff(relevance) == pytest.approx(at, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("features", LIST_SETS.values(), ids=list(LIST_SETS))
def test_adapters(features: tuple[str, ...]) -> None:
    rng, count = np.random.default_rng(len(features)), len(features)
    for length in (1, 2, 19, 20, 60, 199, 200, 230):
        fitted = AdapterCalibration(
            depth=int(rng.integers(20, 201)),
            features=features,
            feature_means=tuple(rng.normal(size=count)),
            feature_scales=tuple(rng.uniform(0.1, 1, count)),
            score_mean=0.3,
            score_scale=0.2,
            offsets=tuple(rng.normal(size=count + 1)),
            slopes=tuple(rng.normal(size=count + 1)),
            floor=0.05,
            a=float(rng.uniform(0, 2)),
            b=float(rng.uniform(0.1, 2)),
            c=float(rng.normal()),
            **BELONGS,
        )
        for spread in (0.3, 40.0, 5_000.0):  # the last is beyond what features and logits may be
            scores = -np.sort(-rng.normal(scale=spread, size=length))
            quick = QuickAdapter(fitted)
            curve = quick.curve(QUERY, [scores[place] for place in quick.places(length)])
            at = fitted.at(QUERY, scores)
            assert (curve.slope, curve.offset) == pytest.approx((at.slope, at.offset), rel=1e-9)
            agree(curve, at, scores)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_what_is_read_off_the_query(metric: Any) -> None:
    rng = np.random.default_rng(4)
    rows = (rng.normal(size=(300, 12)) * np.linspace(2, 0.5, 12) + 0.3).astype(np.float32)
    measured = RowStats.measure(rows, metric=metric)
    assert measured is not None
    for names in (QUERY_FEATURES, ("query_sd",), ("place1", "query_mean")):
        stats = measured.needed(names)
        assert stats is not None
        read = stats.reader(names)
        for query in (*rng.normal(size=(20, 12)).astype(np.float32), rows.mean(axis=0)):
            expected = stats.features(names, query[np.newaxis])[0]
            np.testing.assert_allclose(read(query), expected, rtol=1e-12, atol=1e-15)
    count = len(LIST_SETS["ends"]) + 2
    fitted = AdapterCalibration(
        depth=20,
        features=("query_sd", "rank0", "place0", "last"),
        feature_means=(0.1,) * count,
        feature_scales=(0.4,) * count,
        score_mean=0.3,
        score_scale=0.2,
        offsets=(0.2, 0.7, -0.3, 0.5, 0.9),
        slopes=(2.0, 0.1, 0.3, -0.2, 0.4),
        floor=0.05,
        a=0.9,
        b=1.1,
        c=0.1,
        rows=measured.needed(("query_sd", "place0")),
        **{**BELONGS, "metric": metric},
    )
    scores, query = np.linspace(0.9, -0.1, 30), rows[7]
    quick = QuickAdapter(fitted)
    curve = quick.curve(query, [scores[place] for place in quick.places(len(scores))])
    agree(curve, fitted.at(query, scores), scores)


def test_one_curve_for_all_queries() -> None:
    scores = np.concatenate([np.linspace(-2, 2, 101), [-1e5, 1e5]])
    platt = PlattCalibration(slope=7.0, offset=-3.0, **BELONGS)
    beta = BetaCalibration(slope=7.0, offset=-3.0, a=0.0, b=1.7, c=0.4, **BELONGS)
    for fitted in (platt, replace(platt, slope=0.01), beta, replace(beta, a=2.0, b=0.0)):
        curve = Curve.of(fitted)
        assert curve is not None
        agree(curve, fitted, scores)
    steps = IsotonicCalibration(low=(0.0, 1.0), high=(0.5, 2.0), levels=(0.1, 0.9), **BELONGS)
    assert Curve.of(steps) is None and QuickAdapter.of(steps) is None
