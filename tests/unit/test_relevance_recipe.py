"""The recipe on made-up queries whose truth is known: what it finds, and what it never does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from funnelvec.calibration import f1, metrics
from funnelvec.calibration.abstain import fit_abstain
from funnelvec.calibration.adapter import Adapter, blend, fit_adapter, pair_weights
from funnelvec.calibration.alike import alike
from funnelvec.calibration.beta import BetaMap, fit_beta
from funnelvec.calibration.candidates import Candidates, folds
from funnelvec.calibration.corpus import CorpusStats, hub_bias, pull
from funnelvec.calibration.correction import Correction, correct, fit_correction
from funnelvec.calibration.logistic import fit_flat, fit_lines, sigmoid
from funnelvec.calibration.platt import fit_platt
from funnelvec.calibration.recipe import Choice, cross_fit, fit_choice, fit_recipe
from funnelvec.errors import CalibrationError, InvalidInput

K = 60


def unit(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def clusters() -> tuple[
    npt.NDArray[np.float32], npt.NDArray[np.float32], list[npt.NDArray[np.int64]]
]:
    """Thirty topics of 4 to 30 rows with spreads of their own, and 90 queries about them."""
    rng = np.random.default_rng(5)
    centres, spreads = rng.normal(size=(30, 24)), rng.uniform(0.3, 1.2, 30)
    topic = np.repeat(np.arange(30), rng.integers(4, 31, 30))
    rows = unit(centres[topic] + spreads[topic, None] * rng.normal(size=(len(topic), 24)))
    asked = np.repeat(np.arange(30), 3)
    queries = unit(centres[asked] + 0.8 * rng.normal(size=(90, 24)))
    return rows, queries, [np.flatnonzero(topic == wanted) for wanted in asked]


@pytest.fixture(scope="module")
def candidates(
    clusters: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], list[npt.NDArray[np.int64]]],
) -> Candidates:
    rows, queries, relevant = clusters
    return Candidates.collect(rows, queries, relevant, stats=CorpusStats.measure(rows), k=K)


# -- label-free measures -------------------------------------------------------------------------


def test_the_hub_bias_is_the_mean_of_the_nearest_in_the_bank_but_itself() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(40, 8)))
    every = rows @ rows.T
    np.fill_diagonal(every, -9)
    expected = -np.sort(-every, axis=1)[:, :5].mean(axis=1)
    np.testing.assert_allclose(
        hub_bias(rows, rows, k=5, own=np.arange(40)), -np.sort(-every)[:, :5].mean(1), rtol=1e-5
    )
    assert expected.shape == (40,)
    with pytest.raises(InvalidInput, match="at least 2"):
        hub_bias(rows, rows[:1])


def test_the_corrected_score_is_one_inner_product_with_one_more_dimension(
    clusters: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], list[npt.NDArray[np.int64]]],
    candidates: Candidates,
) -> None:
    rows, queries, _ = clusters
    stats = CorpusStats.measure(rows)
    every = rows @ queries[0]
    nearest = np.argsort(-every, kind="stable")[:K]
    weights = np.exp((every[nearest][:50] - every[nearest][0]) / 0.05)
    centre = (weights / weights.sum()) @ rows[nearest][:50]
    np.testing.assert_allclose(
        pull(rows[nearest], every[nearest].astype(float)), rows[nearest] @ centre, atol=1e-5
    )
    wide_query = np.append(queries[0] + 0.7 * centre, -0.4)
    wide_rows = np.concatenate([rows, stats.bias[:, None]], axis=1)[nearest]
    corrected = correct(candidates, Correction(alpha=0.4, gamma=0.7))
    np.testing.assert_allclose(
        np.sort(wide_rows @ wide_query)[::-1], corrected.scores[0], atol=1e-5
    )


def test_correcting_reorders_labels_with_the_scores(candidates: Candidates) -> None:
    corrected = correct(candidates, Correction(alpha=1.0, gamma=0.5))
    assert (np.diff(corrected.scores, axis=1) <= 0).all()
    np.testing.assert_array_equal(corrected.labels.sum(1), candidates.labels.sum(1))
    raw = correct(candidates, Correction())
    np.testing.assert_array_equal(raw.scores, candidates.scores)


def test_a_correction_is_fitted_only_where_it_has_the_right_sign(candidates: Candidates) -> None:
    assert fit_correction(candidates, "raw") == Correction()
    fitted = fit_correction(candidates, "hub+pull")
    assert fitted.gamma > 0 and fitted.alpha >= 0
    against = replace(candidates, pull=-candidates.pull)
    assert fit_correction(against, "hub+pull") == fit_correction(against, "hub")


def test_bands_are_parts_of_the_score_and_their_weights_are_those_of_another_query(
    clusters: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], list[npt.NDArray[np.int64]]],
    candidates: Candidates,
) -> None:
    rows, queries, _ = clusters
    assert candidates.bands is not None
    # 24 directions: the first two bands, a part of the third, and nothing behind.
    np.testing.assert_allclose(candidates.bands.sum(axis=2), candidates.scores, atol=1e-5)
    assert (candidates.bands[:, :, 3] == 0).all()
    axes = CorpusStats.measure(rows).axes()
    stretch = np.repeat([1.5, 0.0], [4, 12])
    turned = axes[:, :16] @ np.diag(stretch - 1) @ axes[:, :16].T @ queries[0] + queries[0]
    corrected = correct(candidates, Correction(betas=(0.5, -1.0, 0.0, 0.0)))
    nearest = np.argsort(-(rows @ queries[0]), kind="stable")[:K]
    np.testing.assert_allclose(
        np.sort(rows[nearest] @ turned)[::-1], corrected.scores[0], atol=1e-5
    )
    fitted = fit_correction(candidates, "hub+pull+bands")
    assert len(fitted.betas) == 4 and min(fitted.betas) >= -1
    bare = replace(candidates, bands=None)
    assert "bands" not in str(fit_recipe(bare).tried)
    with pytest.raises(CalibrationError, match="bands"):
        correct(bare, fitted)
    with pytest.raises(CalibrationError, match="bands"):
        fit_correction(bare, "hub+pull+bands")


def test_queries_that_want_mostly_the_same_rows_are_held_out_together() -> None:
    wants = [[1, 2, 3], [7], [3, 2, 1], [], [1, 2, 3, 4], [7, 8], [], [9, 1], [3, 4, 1]]
    found = alike([np.array(each, dtype=np.int64) for each in wants])
    groups: dict[int, list[int]] = {}
    for query, group in enumerate(found.tolist()):
        groups.setdefault(group, []).append(query)
    # 0, 2, 4 and 8 share three of four at least; 1 and 5 half; two that want nothing do not.
    assert sorted(groups.values()) == [[0, 2, 4, 8], [1, 5], [3], [6], [7]]
    assert sorted(groups) == list(range(5))
    apart = alike([np.array(each, dtype=np.int64) for each in wants], least=0.9)
    assert apart[0] == apart[2] != apart[4]


# -- the fit ---------------------------------------------------------------------------------------


def test_without_features_it_is_platt(candidates: Candidates) -> None:
    corrected = correct(candidates, Correction())
    fitted = fit_adapter(corrected, "none", ridge=30.0)
    line = fit_platt(candidates.scores.ravel(), candidates.labels.ravel())
    offset, slope = fitted.lines(corrected)
    # Platt smooths the labels, which moves the line by less than a hundredth here.
    np.testing.assert_allclose(slope, line.slope, rtol=0.01)
    np.testing.assert_allclose(offset, line.offset, rtol=0.01)


def test_lines_are_fitted_as_by_a_flat_regression() -> None:
    rng = np.random.default_rng(1)
    phi = np.concatenate([np.ones((12, 1)), rng.normal(size=(12, 2))], axis=1)
    g, weights = rng.normal(size=(12, 7)), rng.uniform(0.5, 2.0, (12, 7))
    labels = rng.random((12, 7)) < sigmoid(g)
    found = fit_lines(g, phi, labels, weights=np.ones_like(weights), ridge=3.0)
    columns = np.concatenate(
        [np.repeat(phi, 7, axis=0), np.repeat(phi, 7, axis=0) * g.reshape(-1, 1)], axis=1
    )
    penalty = np.full(6, 3.0)
    penalty[[0, 3]] = 84e-7
    np.testing.assert_allclose(
        found.ravel(), fit_flat(columns, labels.ravel(), penalty=penalty), atol=1e-5
    )


@pytest.mark.parametrize("features", ["none", "setting", "levels", "shape", "coherent", "curve"])
def test_for_one_query_relevance_never_falls_as_the_score_rises(
    candidates: Candidates, features: str
) -> None:
    corrected = correct(candidates, Correction(alpha=0.3, gamma=0.3))
    # Hardly any ridge: the lines of odd queries would point down without the floor.
    fitted = fit_adapter(corrected, features, ridge=1e-3)
    assert (np.diff(fitted.logits(corrected), axis=1) <= 0).all()
    assert (fitted.lines(corrected)[1] > 0).all()


def test_swapped_labels_are_refused(candidates: Candidates) -> None:
    with pytest.raises(CalibrationError, match="swapped"):
        fit_adapter(
            correct(replace(candidates, labels=~candidates.labels), Correction()), "none", ridge=1.0
        )


def test_labels_that_are_all_the_same_are_refused(candidates: Candidates) -> None:
    nothing = replace(candidates, labels=np.zeros_like(candidates.labels))
    with pytest.raises(CalibrationError, match="same label"):
        fit_choice(nothing, Choice())


def test_the_mean_of_adapters_gives_the_mean_of_their_log_odds(candidates: Candidates) -> None:
    corrected = correct(candidates, Correction())
    several = [fit_adapter(corrected, name, ridge=500.0) for name in ("levels", "shape", "none")]
    mean = blend(several)
    expected = np.mean([each.logits(corrected) for each in several], axis=0)
    np.testing.assert_allclose(mean.logits(corrected), expected, atol=1e-9)
    with pytest.raises(CalibrationError, match="different candidates"):
        blend([several[0], replace(several[1], score_mean=9.0)])


def test_an_adapter_that_could_fall_cannot_be_made(candidates: Candidates) -> None:
    fitted = fit_adapter(correct(candidates, Correction()), "setting", ridge=30.0)
    for change in (
        {"floor": 0.0},
        {"score_scale": -1.0},
        {"score_mean": float("nan")},
        {"slopes": (1.0,)},
    ):
        with pytest.raises(CalibrationError):
            replace(fitted, **change)
    assert isinstance(fitted, Adapter)


def test_weights_by_query_give_the_relevant_rows_of_each_query_the_same_sum() -> None:
    labels = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    weights = pair_weights(labels, "queries")
    np.testing.assert_allclose((weights * labels).sum(axis=1), [2.0, 2.0, 0.0])
    assert (weights[~labels] == 1).all() and (pair_weights(labels, "pairs") == 1).all()


# -- the choice --------------------------------------------------------------------------------------


def test_folds_keep_groups_together() -> None:
    groups = np.repeat(np.arange(7), 3)
    seen = []
    for fit, held in folds(groups):
        assert not set(groups[fit]) & set(groups[held])
        assert sorted([*fit, *held]) == list(range(21))
        seen.extend(held)
    assert sorted(seen) == list(range(21))
    with pytest.raises(CalibrationError, match="two groups"):
        next(folds(np.zeros(5, dtype=np.int64)))


def test_held_out_queries_have_no_part_in_their_own_log_odds(candidates: Candidates) -> None:
    before, _ = cross_fit(candidates, Choice())
    _, held = next(folds(candidates.groups))
    changed = candidates.labels.copy()
    changed[held] = ~changed[held]
    after, _ = cross_fit(replace(candidates, labels=changed), Choice())
    np.testing.assert_array_equal(before[held], after[held])
    assert not np.array_equal(before, after)


def test_the_recipe_beats_platt_where_queries_differ(candidates: Candidates) -> None:
    half = np.arange(90) % 2 == 0
    fit, test = candidates.take(np.flatnonzero(half)), candidates.take(np.flatnonzero(~half))
    fitted, platt = fit_recipe(fit), fit_choice(fit, Choice())
    assert fitted.choices != (Choice(),)
    assert fitted.tried[0].choices == (Choice(),)

    def loss(one: object) -> float:
        logits, labels = one.logits(test), one.corrected(test).labels  # type: ignore[attr-defined]
        return float((np.logaddexp(0, logits) - labels * logits).mean())

    assert loss(fitted) < loss(platt)
    assert (np.diff(fitted.logits(test), axis=1) <= 0).all()


def test_the_recipe_is_plain_platt_where_nothing_tells_queries_apart() -> None:
    rng = np.random.default_rng(2)
    n = 60
    scores = -np.sort(-rng.normal(size=(n, K)), axis=1)
    noise = Candidates(
        scores=scores,
        labels=rng.random((n, K)) < sigmoid(2 * scores - 1),
        totals=np.full(n, 20),
        bias=rng.normal(size=(n, K)),
        pull=rng.normal(size=(n, K)),
        setting=np.stack([rng.normal(size=n), rng.uniform(1, 2, n)], axis=1),
        coherence=rng.normal(size=(n, 2)),
        place=rng.normal(size=(n, 4)),
        groups=np.arange(n),
    )
    assert fit_recipe(noise).choices == (Choice(),)


def test_the_recipe_depends_on_the_candidates_alone(candidates: Candidates) -> None:
    few = candidates.take(np.arange(30))
    assert fit_recipe(few) == fit_recipe(few)


# -- cutoffs by F1, abstention, metrics ---------------------------------------------------------------


def test_the_best_threshold_is_the_best_of_all() -> None:
    rng = np.random.default_rng(3)
    logits = -np.sort(-rng.normal(size=(20, 12)).round(1), axis=1)  # with ties
    labels = rng.random((20, 12)) < sigmoid(logits)
    totals = labels.sum(1) + rng.integers(0, 3, 20)
    found = metrics.macro_f1(
        logits >= f1.best_threshold(logits, labels, totals), labels, totals
    ).mean()
    every = [metrics.macro_f1(logits >= t, labels, totals).mean() for t in np.unique(logits)]
    assert found == pytest.approx(max(every))


def test_the_expected_f1_rule_keeps_what_it_says() -> None:
    relevance = np.array([[0.9, 0.8, 0.1, 0.05]])
    sizes = f1.expected_f1_sizes(relevance, 1.0)
    total = relevance.sum()
    values = [2 * relevance[0, :k].sum() / (k + total) for k in range(1, 5)]
    assert sizes[0] == 1 + int(np.argmax(values)) == 2
    np.testing.assert_array_equal(f1.keep_first(sizes, 4), [[True, True, False, False]])


def test_a_table_without_an_answer_is_told_from_one_with(candidates: Candidates) -> None:
    rng = np.random.default_rng(4)
    answerable = np.arange(90) % 3 > 0
    scores = candidates.scores.copy()
    scores[~answerable] = scores[~answerable] * 0.3 + rng.normal(scale=0.001, size=(30, 1))
    changed = replace(candidates, scores=scores)
    fit, test = np.arange(45), np.arange(45, 90)
    head = fit_abstain(changed.take(fit), answerable[fit])
    assert metrics.auc(head.logits(changed.take(test)), answerable[test]) > 0.9
    with pytest.raises(CalibrationError, match="at least 10"):
        fit_abstain(changed.take(fit), np.ones(45, dtype=bool))


def test_metrics_on_a_list_made_by_hand() -> None:
    values = np.array([[0.9, 0.8, 0.1], [0.7, 0.6, 0.5]])
    labels = np.array([[1, 0, 1], [0, 0, 0]], dtype=bool)
    # The first relevant pair is first of 6, the second is last.
    assert metrics.pr_auc(values, labels) == pytest.approx((1 + 2 / 6) / 2)
    # A query without relevant rows only adds pairs that are not.
    assert metrics.precision_at_recall(values, labels, 0.95) == pytest.approx(2 / 6)
    kept = values >= 0.65
    assert metrics.kept_rows(kept) == 1.5
    np.testing.assert_allclose(metrics.misses(kept, labels), [0.5, 0.0])
    np.testing.assert_allclose(metrics.macro_f1(kept, labels, np.array([4, 0])), [2 / 6])
    np.testing.assert_allclose(metrics.oracle_f1(labels, np.array([4, 0])), [4 / 7])
    assert metrics.auc(
        np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1], bool)
    ) == pytest.approx(0.875)
    assert metrics.brier(values, labels) == pytest.approx(
        (0.01 + 0.64 + 0.81 + 0.49 + 0.36 + 0.25) / 6
    )


def test_the_debiased_error_of_a_calibrated_map_is_near_nothing() -> None:
    rng = np.random.default_rng(6)
    relevance = rng.uniform(0.01, 0.99, (100, 100))
    labels = rng.random((100, 100)) < relevance
    assert metrics.debiased_ece(relevance, labels) < 0.01
    assert metrics.debiased_ece(relevance**3, labels) > 0.1


def test_the_bootstrap_draws_queries() -> None:
    per_query = np.arange(50, dtype=np.float64)
    low, high = metrics.bootstrap(lambda drawn: float(per_query[drawn].mean()), 50)
    assert low < 24.5 < high and high - low < 12


# -- beta calibration ------------------------------------------------------------------------------


def test_beta_calibration_finds_the_map_that_was_applied() -> None:
    rng = np.random.default_rng(8)
    logits = rng.normal(-1, 2, 60_000)
    truth = BetaMap(0.6, 1.7, -0.3)
    found = fit_beta(logits, rng.random(60_000) < sigmoid(truth.apply(logits)))
    np.testing.assert_allclose([found.a, found.b, found.c], [0.6, 1.7, -0.3], atol=0.08)
    np.testing.assert_allclose(BetaMap().apply(logits), logits, atol=1e-12)


def test_coefficients_of_a_beta_map_are_never_negative_and_it_rises() -> None:
    rng = np.random.default_rng(9)
    logits = rng.normal(0, 3, 5_000)
    # Flat, then steep: without the rule `a` would be negative.
    labels = rng.random(5_000) < np.where(
        logits > 1, sigmoid(2 * logits), 0.35 - 0.02 * np.tanh(logits)
    )
    found = fit_beta(logits, labels)
    assert found.a >= 0 and found.b >= 0
    assert (np.diff(found.apply(np.linspace(-20, 20, 500))) >= 0).all()
    with pytest.raises(CalibrationError, match="swapped"):
        fit_beta(logits, rng.random(5_000) < sigmoid(-2 * logits))
    for wrong in ((-0.1, 1.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0, float("nan"))):
        with pytest.raises(CalibrationError):
            BetaMap(*wrong)


def test_a_beta_map_is_inverted() -> None:
    found = BetaMap(0.4, 2.0, 0.7)
    for logit in (-30.0, -2.0, 0.0, 5.0):
        assert float(found.apply(np.array(found.invert(logit)))) == pytest.approx(logit, abs=1e-9)
    assert BetaMap(0.0, 1.0, 0.5).invert(0.0) == -float("inf")
