"""Guarantees hold over many splits of queries, and say so where they cannot be given."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from funnelvec.bench.relevance_data import load_set
from funnelvec.calibration import metrics
from funnelvec.calibration.guarantees import (
    conformal_threshold,
    hoeffding_bentkus,
    learn_then_test,
    queries_needed,
    threshold_grid,
)
from funnelvec.calibration.precision import Shown, precise_threshold, precision_losses
from funnelvec.errors import CalibrationError, InvalidInput

SPLITS = 100
DATA = Path(os.environ.get("FUNNELVEC_DATA", "/work/shared/data"))
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]


def made_up(n: int = 400, k: int = 40) -> tuple[Floats, Labels]:
    """Queries that differ in level and spread, some of them without relevant rows."""
    rng = np.random.default_rng(11)
    level, spread = rng.normal(0, 0.8, (n, 1)), rng.uniform(0.5, 1.5, (n, 1))
    values = -np.sort(-(level + spread * rng.normal(size=(n, k))), axis=1).round(3)
    labels = rng.random((n, k)) < 1 / (1 + np.exp(-(2.5 * (values - level) - 2)))
    labels[::9] = False
    return values, labels


def pools() -> list[str]:
    return ["made up", "clinc imbalanced", "dbpedia_entity", "squad"]


@pytest.fixture(scope="module", params=pools())
def pool(request: pytest.FixtureRequest) -> tuple[str, Floats, Labels]:
    if request.param == "made up":
        return (request.param, *made_up())
    if not DATA.is_dir():
        pytest.skip("the open sets are not here; FUNNELVEC_DATA names their folder")
    data = load_set(request.param, DATA, limit=600)
    judged = np.flatnonzero(data.judged)
    return request.param, data.candidates.scores[judged], data.candidates.labels[judged]


def within(values: list[float], level: float) -> bool:
    """Not above the level by more than two standard errors."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)) <= level + 2 * error


# -- what is missed ----------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "n"), [(0.05, 60), (0.1, 150)])
def test_the_level_holds_over_splits(
    pool: tuple[str, Floats, Labels], level: float, n: int
) -> None:
    _, values, labels = pool
    realised = []
    for seed in range(SPLITS):
        drawn = np.random.default_rng(seed).permutation(len(values))
        judged, new = drawn[:n], drawn[n:]
        promise = conformal_threshold(values[judged], labels[judged], max_miss=level)
        realised.append(float(metrics.misses(values[new] >= promise.threshold, labels[new]).mean()))
    assert within(realised, level)
    # Not by keeping everything: what may be lost is mostly lost.
    assert float(np.mean(realised)) > level / 4


def test_the_threshold_is_the_highest_that_stays_within_the_budget() -> None:
    values, labels = made_up(80, 20)
    promise = conformal_threshold(values, labels, max_miss=0.1)
    budget = (0.1 * 81 - 1) / 80
    risks = {t: float(metrics.misses(values >= t, labels).mean()) for t in np.unique(values)}
    assert promise.threshold == max(t for t, risk in risks.items() if risk <= budget + 1e-12)
    assert promise.observed == pytest.approx(risks[promise.threshold])


def test_where_nothing_can_be_lost_the_loosest_threshold_comes_back() -> None:
    # The table of losses never exceeds the level: the last threshold, not the first.
    values, labels = made_up(60, 10)
    promise = conformal_threshold(values, np.zeros_like(labels), max_miss=0.05)
    assert promise.threshold == values.max() and promise.observed == 0.0
    bottom = np.zeros_like(labels)
    bottom[:, -1] = True
    kept = values >= conformal_threshold(values, bottom, max_miss=1 / 61).threshold
    assert kept[bottom].all()


def test_equal_values_stay_together() -> None:
    values = np.zeros((40, 5))
    labels = np.ones((40, 5), dtype=bool)
    assert (values >= conformal_threshold(values, labels, max_miss=0.1).threshold).all()


def test_too_few_queries_are_refused_with_the_number_needed() -> None:
    values, labels = made_up(18, 10)
    with pytest.raises(CalibrationError, match=r"at least 19 .* there are 18; judge 1 more"):
        conformal_threshold(values, labels, max_miss=0.05)
    assert queries_needed(0.05) == 19 and queries_needed(0.01) == 99 and queries_needed(1 / 3) == 2
    values, labels = made_up(19, 10)
    assert conformal_threshold(values, labels, max_miss=0.05).n_queries == 19
    for level in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(InvalidInput, match="between 0 and 1"):
            queries_needed(level)


# -- what is shown in vain ------------------------------------------------------------------------


def test_precision_is_broken_no_more_often_than_allowed(pool: tuple[str, Floats, Labels]) -> None:
    name, values, labels = pool
    delta, n = 0.1, 120
    # The nearest rows are always good enough for this much, on every set.
    wanted = 0.25 if name != "made up" else 0.5
    broken, refused = 0, 0
    for seed in range(SPLITS):
        drawn = np.random.default_rng(seed).permutation(len(values))
        fit, judged, new = np.split(drawn, [40, 40 + n])
        try:
            promise = learn_then_test(
                values[judged],
                labels[judged],
                min_precision=wanted,
                thresholds=threshold_grid(values[fit], steps=60),
                delta=delta,
            )
        except CalibrationError:
            refused += 1
            continue
        kept = values[new] >= promise.threshold
        shown = kept.sum(axis=1)
        risk = float(((kept & ~labels[new]).sum(axis=1) / np.maximum(shown, 1)).mean())
        broken += risk > 1 - wanted
    assert refused < SPLITS / 2
    allowed = delta + 2 * math.sqrt(delta * (1 - delta) / SPLITS)
    assert broken / SPLITS <= allowed


def test_the_first_failure_ends_the_sequence() -> None:
    # Good at the top, bad in the middle, good again below: what is below is never reached.
    n = 300
    values = np.tile([3.0, 2.0, 1.0, 0.0], (n, 1))
    labels = np.tile([True, False, False, False], (n, 1))
    labels[:, 2:] = True
    grid = np.array([3.0, 2.0, 1.0, 0.0])
    promise = learn_then_test(values, labels, min_precision=0.7, thresholds=grid)
    assert promise.threshold == 3.0
    losses = (~labels).mean()
    assert losses < 0.3  # keeping everything would do


def test_a_precision_out_of_reach_is_said_with_what_can_be_had() -> None:
    values, labels = made_up(100, 10)
    with pytest.raises(CalibrationError, match=r"can carry min_precision=0\.\d") as caught:
        learn_then_test(values, labels, min_precision=0.99, thresholds=threshold_grid(values))
    can = float(str(caught.value).rsplit("=", 1)[1])
    found = learn_then_test(
        values, labels, min_precision=can - 0.02, thresholds=threshold_grid(values)
    )
    assert math.isfinite(found.threshold)


def test_p_values_by_hand() -> None:
    # No loss at all: the chance of that under the level is (1 - level)^n, in both bounds but e.
    assert hoeffding_bentkus(0.0, 0.2, 10) == pytest.approx(0.8**10)
    assert hoeffding_bentkus(0.2, 0.2, 10) == 1.0
    below = sum(math.comb(50, i) * 0.3**i * 0.7 ** (50 - i) for i in range(6))
    hoeffding = math.exp(-50 * (0.1 * math.log(0.1 / 0.3) + 0.9 * math.log(0.9 / 0.7)))
    assert hoeffding_bentkus(0.1, 0.3, 50) == pytest.approx(min(hoeffding, math.e * below))
    assert hoeffding_bentkus(0.9, 0.3, 50) == 1.0


# -- what a search shows -----------------------------------------------------------------------


def lists(values: Floats, labels: Labels) -> list[Shown]:
    """Relevances that a curve fitted elsewhere could give: right on average, never per query."""
    relevances = 1 / (1 + np.exp(-(2.0 * values - 1.5)))
    return [Shown(p, y.astype(np.int8)) for p, y in zip(relevances, labels, strict=True)]


@pytest.mark.parametrize(("min_precision", "confidence"), [(0.7, 0.9), (0.5, 0.8)])
def test_the_precision_holds_with_its_confidence_over_splits(
    min_precision: float, confidence: float
) -> None:
    values, labels = made_up(n=1200)
    shown = lists(values, labels)
    losses, some = precision_losses(shown)
    broken, rows, promised = [], [], 0
    for seed in range(SPLITS):
        drawn = np.random.default_rng(seed).permutation(len(values))
        judged, new = drawn[:120], drawn[120:]
        try:
            found = precise_threshold(
                [shown[i] for i in judged], min_precision=min_precision, confidence=confidence
            )
        except CalibrationError:
            continue
        promised += 1
        step = round((1 - found.relevance) * 200) - 1
        # The other 1,080 queries are drawn from the same 1,200, so they are as good as new ones.
        broken.append(float(losses[step, new].mean() > 1 - min_precision))
        rows.append(float(some[step, new].mean()))
    assert within(broken, 1 - confidence)
    assert promised > SPLITS / 2
    # Not by showing nothing.
    assert np.mean(rows) > 0.3


def test_the_precise_threshold_by_hand() -> None:
    good = Shown(np.array([0.95, 0.9, 0.4]), np.array([1, 1, 0], dtype=np.int8))
    mixed = Shown(np.array([0.8, 0.7]), np.array([1, -1], dtype=np.int8))
    unknown = Shown(np.array([0.6]), np.array([-1], dtype=np.int8))
    losses, some = precision_losses([good, mixed, unknown])
    assert losses[39].tolist() == [0.0, 0.0, 0.0]  # 0.8
    assert some[39].tolist() == [True, True, False]
    assert losses[79].tolist() == [0.0, 0.0, 1.0]  # 0.6: nothing is known of what is shown
    assert losses[119].tolist() == [pytest.approx(1 / 3), 0.0, 1.0]  # 0.4
    found = precise_threshold([good] * 40, min_precision=0.9, confidence=0.95)
    assert found.relevance == pytest.approx(0.405)
    assert (found.answered, found.losses.max()) == (1.0, 0.0)


def test_an_answer_that_is_nearly_always_empty_is_no_precision() -> None:
    """One query in fifty is shown a row, and it is wrong: the mean loss is small all the same."""
    wrong = Shown(np.array([0.95]), np.array([0], dtype=np.int8))
    right = Shown(np.array([0.5]), np.array([1], dtype=np.int8))
    found = precise_threshold([wrong, *[right] * 99], min_precision=0.9, confidence=0.95)
    assert found.relevance <= 0.5
    with pytest.raises(CalibrationError, match=r"0\.000 of them"):
        precise_threshold([wrong] * 2 + [Shown(np.zeros(1), np.zeros(1, np.int8))] * 98,
                          min_precision=0.9, confidence=0.95)  # fmt: skip
