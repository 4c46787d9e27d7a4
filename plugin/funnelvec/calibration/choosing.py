"""Which family of maps, chosen by grouped cross-validation; plain Platt is always among them.

Queries are kept together, and with those that want mostly the same rows. A family is taken only
where it beats Platt on held-out queries by a standard error of the difference, so that asking for
the best never costs anything but time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.adapter import FLOOR, Adapter, blend, design
from funnelvec.calibration.beta import BetaCalibration, fit_beta, fit_beta_curve
from funnelvec.calibration.candidates import folds
from funnelvec.calibration.hub import JudgedHubs, choose_alpha, corrected
from funnelvec.calibration.isotonic import IsotonicCalibration, fit_isotonic
from funnelvec.calibration.judged_scores import JudgedScores
from funnelvec.calibration.listed import (
    LIST_SETS,
    MOST_FEATURES,
    QUERY_SETS,
    AdapterCalibration,
)
from funnelvec.calibration.logistic import Floats, fit_lines, log_losses
from funnelvec.calibration.platt import PlattCalibration, check_counts, fit_platt
from funnelvec.calibration.row_stats import QUERY_FEATURES
from funnelvec.calibration.stored import StoredCalibration
from funnelvec.errors import CalibrationError
from funnelvec.types import Family

__all__ = ["LEAST_QUERIES", "Choice", "Chosen", "JudgedScores", "choose", "fit_family"]

#: Judged queries that an adapter needs: with fewer, features of queries are noise.
LEAST_QUERIES = 20
#: Queries that the choice is made on, and those that the lines are fitted to.
_ENOUGH, _PLENTY = 300, 1_000
_SETS = {**LIST_SETS, **QUERY_SETS}
_RIDGES = (5.0, 30.0, 150.0, 750.0)
_BLENDED = 3
_EDGE = 1e-12

_Logits: TypeAlias = "Callable[[JudgedScores], Floats]"


@dataclass(frozen=True, slots=True)
class Choice:
    """A family, with the features and the ridge of an adapter."""

    family: Family
    features: str = ""
    ridge: float = 0.0

    def __str__(self) -> str:
        return f"{self.family} {self.features} {self.ridge:g}" if self.features else self.family


@dataclass(frozen=True, slots=True)
class Tried:
    """A choice, its log loss on held-out queries, and the standard error against Platt's."""

    choice: Choice
    loss: float
    error: float


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen and fitted, and everything that was tried."""

    calibration: StoredCalibration
    tried: tuple[Tried, ...]


def fit_family(
    judged: JudgedScores, family: Family, *, hubs: JudgedHubs | None = None, **known: Any
) -> StoredCalibration:
    """Fit a family, or the best one.

    Parameters
    ----------
    family
        "adapter" and "auto" are chosen by `choose`; "adapter" may turn out to be plain Platt.
    hubs
        Of the judged rows, where the column has a hub column and the funnel a shortlist. Then the
        scores are corrected by as much of it as helps, before anything else.
    known
        What the fit belongs to and comes from; see `StoredCalibration`.

    Raises
    ------
    CalibrationError
        If the judgments are too few, or relevance does not rise with the score.
    """
    positive = int(judged.labels.sum())
    check_counts(positive, len(judged.labels) - positive, judged.queries)
    if hubs is not None:
        alpha = choose_alpha(judged, hubs.pairs)
        judged = corrected(judged, hubs, alpha)
        known = {**known, "hub": hubs.id, "alpha": alpha} if alpha > 0 else known
    if family in ("adapter", "auto"):
        return choose(judged, family, **known).calibration
    return _fit_plain(judged, family, known)


def _fit_plain(judged: JudgedScores, family: Family, known: dict[str, Any]) -> StoredCalibration:
    if family == "isotonic":
        low, high, levels = fit_isotonic(judged.scores, judged.labels)
        return IsotonicCalibration(low=low, high=high, levels=levels, **known)
    if family == "beta":
        line, end = fit_beta_curve(judged.scores, judged.labels)
        return BetaCalibration(
            slope=line.slope, offset=line.offset, a=end.a, b=end.b, c=end.c, **known
        )
    line = fit_platt(judged.scores, judged.labels)
    return PlattCalibration(slope=line.slope, offset=line.offset, **known)


def choose(judged: JudgedScores, family: Family = "auto", *, seed: int = 0, **known: Any) -> Chosen:
    """Choose among the families by cross-validation, and fit what was chosen to all pairs.

    Parameters
    ----------
    family
        "adapter": adapters and plain Platt; "auto": all families.
    seed
        Of the folds.

    Raises
    ------
    CalibrationError
        If an adapter is asked for and cannot be fitted.
    """
    # By content, so that folds do not hang on the order in which an engine gives its queries.
    sums = np.bincount(judged.query_of, weights=judged.scores, minlength=judged.queries)
    judged = judged.take(np.argsort(sums / np.bincount(judged.query_of), kind="stable"))
    if judged.groups is not None:
        _, first, group = np.unique(judged.groups, return_index=True, return_inverse=True)
        judged = replace(judged, groups=np.argsort(np.argsort(first))[group])
    drawn = np.sort(np.random.default_rng(seed).permutation(judged.queries)[:_ENOUGH])
    some, wanted = judged.take(drawn), _candidates(judged, family)
    tried: list[Tried] = []
    reference: Floats | None = None
    for choice in (Choice("platt"), *wanted):
        try:
            losses = _losses(some, _held_out(some, [choice], known, seed=seed))
        except CalibrationError:
            if reference is None:
                break  # where Platt cannot be cross-validated, nothing can
            continue
        reference = losses if reference is None else reference
        error = float((losses - reference).std() / np.sqrt(len(losses)))
        tried.append(Tried(choice, float(losses.mean()), error))
    winners = _winners(tried)
    if winners[0].family != "adapter":
        return Chosen(_fit_plain(judged, winners[0].family, known), tuple(tried))
    drawn = np.sort(np.random.default_rng(seed).permutation(judged.queries)[:_PLENTY])
    held = _held_out(some, winners, known, seed=seed)
    adapter = blend([_fit_adapter(judged.take(drawn), choice) for choice in winners])
    return Chosen(_stored(adapter, judged, held, some.labels, known), tuple(tried))


def _candidates(judged: JudgedScores, family: Family) -> list[Choice]:
    if family == "adapter" and judged.lists is None:
        raise CalibrationError(
            "an adapter reads the shortlist before the last stage, and the funnel keeps none, or "
            "fewer than 20 rows; create it with one, such as '128:f16@200 > 768:f32'"
        )
    if family == "adapter" and judged.queries < LEAST_QUERIES:
        raise CalibrationError(
            f"an adapter needs at least {LEAST_QUERIES} judged queries; the judgments have "
            f"{judged.queries}"
        )
    plain = [Choice("beta"), Choice("isotonic")] if family == "auto" else []
    if judged.lists is None or judged.queries < LEAST_QUERIES:
        return plain
    names = [*LIST_SETS, *(name for name in QUERY_SETS if set(_SETS[name]) & judged.asked.keys())]
    return plain + [Choice("adapter", name, ridge) for name in names for ridge in _RIDGES]


def _winners(tried: Sequence[Tried]) -> list[Choice]:
    """Return the best choice, of adapters the best few; Platt where it is not clearly beaten."""
    if not tried:
        return [Choice("platt")]
    ranked = sorted(tried, key=lambda one: one.loss)
    best = ranked[0]
    if best.loss + best.error >= tried[0].loss:
        return [Choice("platt")]
    if best.choice.family != "adapter":
        return [best.choice]
    winners: list[Choice] = []
    read: set[str] = set()
    for one in ranked:
        more = read | set(_SETS.get(one.choice.features, ()))
        most = MOST_FEATURES - bool(more & set(QUERY_FEATURES))
        if one.choice.family == "adapter" and len(more) <= most:
            winners, read = [*winners, one.choice], more
    return winners[:_BLENDED]


def _held_out(
    judged: JudgedScores, choices: Sequence[Choice], known: dict[str, Any], *, seed: int
) -> Floats:
    """Return (m,) log-odds, each pair's from a fit that did not see its query."""
    logits = np.empty(len(judged.scores))
    groups = np.arange(judged.queries) if judged.groups is None else judged.groups
    for fit, held in folds(groups, seed=seed):
        fitted = _fitted(judged.take(fit), choices, known)
        inside = np.isin(judged.query_of, held)
        logits[inside] = fitted(judged.take(held))
    return logits


def _fitted(judged: JudgedScores, choices: Sequence[Choice], known: dict[str, Any]) -> _Logits:
    if choices[0].family == "adapter":
        return partial(_lines, blend([_fit_adapter(judged, choice) for choice in choices]))
    calibration = _fit_plain(judged, choices[0].family, known)

    def logits(held: JudgedScores) -> Floats:
        relevance = np.clip(calibration.apply(None, held.scores), _EDGE, 1 - _EDGE)
        result: Floats = np.log(relevance) - np.log1p(-relevance)
        return result

    return logits


def _lines(adapter: Adapter, judged: JudgedScores) -> Floats:
    offsets, slopes = adapter.lines_of(judged.features(adapter.features))
    result: Floats = offsets[judged.query_of] + slopes[judged.query_of] * judged.scores
    return result


def _losses(judged: JudgedScores, logits: Floats) -> Floats:
    """Log loss of each query, a share of the mean over pairs."""
    losses = log_losses(logits, judged.labels)
    sums = np.bincount(judged.query_of, weights=losses, minlength=judged.queries)
    return sums / len(losses) * judged.queries


def _fit_adapter(judged: JudgedScores, choice: Choice) -> Adapter:
    names = _SETS[choice.features]
    values = judged.features(names)
    means, scales = values.mean(axis=0), values.std(axis=0)
    scales = np.where(scales > 1e-9, scales, 1.0)
    mean, scale = float(judged.scores.mean()), float(judged.scores.std())
    if not scale > 0 or judged.labels.all() or not judged.labels.any():
        raise CalibrationError("all judged pairs have the same score, or the same label")
    rows, columns = judged.query_of, _places(judged.query_of)
    shape = (judged.queries, int(columns.max()) + 1)
    g, labels, weights = np.zeros(shape), np.zeros(shape, dtype=np.bool_), np.zeros(shape)
    g[rows, columns] = (judged.scores - mean) / scale
    labels[rows, columns], weights[rows, columns] = judged.labels, 1.0
    phi = design(values, means, scales)
    offsets, slopes = fit_lines(g, phi, labels, weights=weights, ridge=choice.ridge)
    if slopes[0] <= 0:
        raise CalibrationError(
            f"the fitted slope is {slopes[0]:.6g}: relevant rows do not score higher than the "
            "others; check that the labels are not swapped"
        )
    return Adapter(
        features=names,
        feature_means=tuple(map(float, means)),
        feature_scales=tuple(map(float, scales)),
        score_mean=mean,
        score_scale=scale,
        offsets=tuple(map(float, offsets)),
        slopes=tuple(map(float, slopes)),
        floor=FLOOR * float(slopes[0]),
    )


def _places(query_of: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the place of each pair among those of its query."""
    order = np.argsort(query_of, kind="stable")
    counts = np.bincount(query_of)
    places = np.empty(len(query_of), dtype=np.intp)
    places[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return places


def _stored(
    adapter: Adapter,
    judged: JudgedScores,
    held: Floats,
    labels: npt.NDArray[np.bool_],
    known: dict[str, Any],
) -> AdapterCalibration:
    """Return the adapter with what corrects its log-odds, fitted to those of held-out queries."""
    assert judged.lists is not None
    end = fit_beta(held, labels)
    return AdapterCalibration(
        depth=judged.lists.shape[1],
        features=adapter.features,
        feature_means=adapter.feature_means,
        feature_scales=adapter.feature_scales,
        score_mean=adapter.score_mean,
        score_scale=adapter.score_scale,
        offsets=adapter.offsets,
        slopes=adapter.slopes,
        floor=adapter.floor,
        a=end.a,
        b=end.b,
        c=end.c,
        rows=None if judged.rows is None else judged.rows.needed(adapter.features),
        **known,
    )
