"""Platt calibration: refusals, the curve, and its JSON (exact values are in test_golden.py)."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funnelvec.calibration import Calibration, PlattCalibration, fit_platt
from funnelvec.errors import CalibrationError, InvalidInput
from funnelvec.types import Judgments

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]


def judged(relevant: int = 20, others: int = 30, seed: int = 0) -> tuple[Scores, Labels]:
    rng = np.random.default_rng(seed)
    labels = np.arange(relevant + others) < relevant
    return rng.normal(np.where(labels, 0.6, 0.4), 0.1), labels


def fitted(**changes: Any) -> PlattCalibration:
    values: dict[str, Any] = {
        "slope": 12.5,
        "offset": -8.0,
        "model": "m",
        "vector": "embedding",
        "metric": "cosine",
        "last_stage": "64:f32",
        "judgments_sha256": "00",
        "n_pairs": 50,
        "n_relevant": 20,
        "n_queries": 5,
    }
    return PlattCalibration(**{**values, **changes})


def test_the_fit_solves_its_equations() -> None:
    scores, labels = judged()
    line = fit_platt(scores, labels)
    targets = np.where(labels, 21 / 22, 1 / 32)
    error = 1 / (1 + np.exp(-(line.slope * scores + line.offset))) - targets
    assert error.sum() == pytest.approx(0, abs=1e-10)
    assert (error * scores).sum() == pytest.approx(0, abs=1e-10)


@given(st.floats(-5, 5), st.floats(0.001, 1000))
def test_the_fit_follows_a_change_of_scale(shift: float, scale: float) -> None:
    scores, labels = judged()
    line, moved = fit_platt(scores, labels), fit_platt(scores * scale + shift, labels)
    assert moved.slope == pytest.approx(line.slope / scale, rel=1e-6)
    assert moved.offset == pytest.approx(line.offset - moved.slope * shift, rel=1e-6, abs=1e-6)


def test_separable_pairs_have_a_finite_fit() -> None:
    line = fit_platt([0.1] * 10 + [0.9] * 10, [False] * 10 + [True] * 10)
    p = fitted(slope=line.slope, offset=line.offset).apply(None, [0.1, 0.9])
    assert p == pytest.approx([1 / 12, 11 / 12], abs=1e-9)  # two scores: the targets themselves


@pytest.mark.parametrize(
    ("relevant", "others", "message"),
    [
        (9, 30, "at least 10 relevant pairs; the judgments have 9"),
        (0, 30, "have 0"),
        (20, 9, "at least 10 pairs that are not relevant; the judgments have 9"),
    ],
)
def test_too_few_pairs(relevant: int, others: int, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        fit_platt(*judged(relevant, others))


def test_too_few_queries() -> None:
    with pytest.raises(CalibrationError, match=r"at least 5 different queries; .* have 4"):
        fit_platt(*judged(), n_queries=4)
    fit_platt(*judged(), n_queries=5)


@pytest.mark.parametrize("score", [0.0, 0.1, 1 / 3])
def test_constant_scores(score: float) -> None:
    with pytest.raises(CalibrationError, match="all 30 judged pairs have the score"):
        fit_platt([score] * 30, [True] * 15 + [False] * 15)


def test_swapped_labels() -> None:
    scores, labels = judged()
    with pytest.raises(CalibrationError, match="labels are not swapped"):
        fit_platt(scores, ~labels)
    with pytest.raises(CalibrationError, match="labels are not swapped"):
        fitted(slope=-1.0)


@pytest.mark.parametrize("scores", [[math.nan] * 50, [math.inf] * 50, [0.5] * 49, [[0.5] * 50]])
def test_scores_that_are_not_a_finite_row(scores: Any) -> None:
    with pytest.raises(InvalidInput):
        fit_platt(scores, judged()[1])


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.01, 1e4), st.floats(-100, 100))
def test_the_cutoff_inverts_the_curve(relevance: float, slope: float, offset: float) -> None:
    calibration = fitted(slope=slope, offset=offset)
    cutoff = calibration.cutoff(None, relevance)
    assert calibration.apply(None, [cutoff])[0] == pytest.approx(relevance, rel=1e-6)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2), st.floats(1e-3, 1e6), st.floats(-1e6, 1e6))
def test_relevance_never_falls(scores: list[float], slope: float, offset: float) -> None:
    relevance = fitted(slope=slope, offset=offset).apply(None, sorted(scores))
    assert (np.diff(relevance) >= 0).all()
    assert ((relevance >= 0) & (relevance <= 1)).all()


def test_ends_of_the_cutoff() -> None:
    calibration = fitted()
    assert calibration.cutoff(None, 0.0) == calibration.cutoff(None, -1.0) == -math.inf
    assert calibration.cutoff(None, 1.0) == math.inf
    with pytest.raises(InvalidInput):
        calibration.cutoff(None, math.nan)


def test_json_round_trip() -> None:
    calibration = fitted(slope=0.1 + 0.2, model=None)
    assert isinstance(calibration, Calibration)
    assert PlattCalibration.from_json(calibration.to_json()) == calibration


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "beta"},
        {"version": 2},
        {"slope": -1.0},
        {"slope": math.inf},
        {"slope": "12"},
        {"extra": 1},
    ],
)
def test_odd_json_is_refused(change: dict[str, Any]) -> None:
    content = {**json.loads(fitted().to_json()), **change}
    with pytest.raises(CalibrationError):
        PlattCalibration.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "[]", "5", "{}", '{"kind": "platt", "version": 1}'])
def test_what_is_no_calibration(text: str) -> None:
    with pytest.raises(CalibrationError):
        PlattCalibration.from_json(text)


def test_judgments_are_checked_and_kept_apart_from_the_callers_arrays() -> None:
    queries = np.ones((3, 4), np.float32)
    judgments = Judgments(queries, ["a", "b", "c"], np.array([1, 0, 1]))
    assert judgments.labels.tolist() == [True, False, True]
    assert (len(judgments), judgments.distinct_queries) == (3, 1)
    before = judgments.sha256
    queries[:] = 7
    assert judgments.sha256 == before
    assert Judgments(np.ones((3, 4), np.float32), ["a", "b", "d"], [1, 0, 1]).sha256 != before  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("queries", "ids", "labels"),
    [
        (np.ones(4), [1], [True]),
        (np.ones((0, 4)), [], []),
        (np.ones((2, 4)), [1], [True, False]),
        (np.ones((2, 4)), [1, 2], [True]),
        (np.full((1, 4), np.nan), [1], [True]),
        (np.full((1, 4), 1e39), [1], [True]),
        (np.ones((1, 4)), [1], [2]),
        (np.ones((1, 4)), [1], ["yes"]),
        ("queries", [1], [True]),
    ],
)
def test_bad_judgments(queries: Any, ids: Any, labels: Any) -> None:
    with pytest.raises(InvalidInput, match="judgments"):
        Judgments(queries, ids, labels)
