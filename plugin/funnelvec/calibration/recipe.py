"""The whole recipe: which correction and how strong, chosen by cross-validation; means of fits.

Plain Platt on the raw score is always among the candidates, and what is chosen has to beat it by
more than noise. Queries are kept together, and nothing is looked at but the judged queries given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.adapter import Adapter, Weighting, blend, fit_adapter, pair_weights
from funnelvec.calibration.beta import BetaMap, fit_beta
from funnelvec.calibration.candidates import Candidates, folds
from funnelvec.calibration.correction import (
    CORRECTIONS,
    Corrected,
    Correction,
    CorrectionKind,
    correct,
    fit_correction,
)
from funnelvec.calibration.logistic import Floats, log_losses

__all__ = ["Choice", "Fitted", "Tried", "cross_fit", "fit_choice", "fit_recipe"]

#: Queries that the choice is made on; a choice needs fewer than the fit.
_ENOUGH = 200
_UNCHANGED = BetaMap()
_STRENGTHS = (1.0, 0.6, 1.5, 2.0)
_RIDGE = 150.0
#: Features and ridges whose mean is taken: for relevance, and for cutoffs, where queries with few
#: relevant rows weigh as much as others and many features follow their noise.
_MEANS: dict[Weighting, tuple[tuple[str, float], ...]] = {
    "pairs": tuple((name, 750.0) for name in ("setting", "levels", "shape", "coherent", "curve")),
    "queries": (("setting", 150.0), ("levels", 150.0)),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to fit: a correction and its strength, a set of features, a ridge, a weighting.

    The strength multiplies the fitted weight of the hub bias, which was fitted without the
    features that bend the slope.
    """

    correction: CorrectionKind = "raw"
    strength: float = 1.0
    features: str = "none"
    ridge: float = _RIDGE
    weighting: Weighting = "pairs"

    def __str__(self) -> str:
        ridge = f", ridge {self.ridge:g}" if self.features != "none" else ""
        strength = "" if self.correction == "raw" else f" x{self.strength:g}"
        return f"{self.correction}{strength}, {self.features}{ridge}, by {self.weighting}"


@dataclass(frozen=True, slots=True)
class Tried:
    """Choices whose mean was taken, and the log loss of held-out queries.

    `error` is the standard error of the difference to plain Platt, which comes first.
    """

    choices: tuple[Choice, ...]
    loss: float
    error: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted choice: from candidates to log-odds.

    Attributes
    ----------
    choices
        What was chosen: of several, the adapter is the mean. They share the correction.
    correction, adapter
        What was fitted.
    finish
        What corrects the log-odds at the end, fitted to those of held-out queries.
    tried
        All that was compared, in the order of trying.
    """

    choices: tuple[Choice, ...]
    correction: Correction
    adapter: Adapter
    finish: BetaMap = _UNCHANGED
    tried: tuple[Tried, ...] = ()

    def corrected(self, candidates: Candidates) -> Corrected:
        """Return the candidates in the order of the corrected score."""
        return correct(candidates, self.correction)

    def logits(self, candidates: Candidates) -> Floats:
        """Return the log-odds of relevance, (n, K), in the order of `corrected`."""
        return self.finish.apply(self.adapter.logits(self.corrected(candidates)))


#: Corrections that are fitted already, by fold and kind: most choices share them.
_Known = dict[tuple[int, CorrectionKind], Correction]


def fit_choice(
    candidates: Candidates, *choices: Choice, seed: int = 0, correction: Correction | None = None
) -> Fitted:
    """Fit one choice to all candidates given, or the mean of several that share a correction.

    With a `correction`, that one is taken instead of being fitted; its strength still counts.
    """
    if correction is None:
        correction = fit_correction(candidates, choices[0].correction, seed=seed)
    correction = replace(correction, alpha=choices[0].strength * correction.alpha)
    corrected = correct(candidates, correction)
    adapters = [
        fit_adapter(
            corrected,
            choice.features,
            ridge=choice.ridge,
            weighting=choice.weighting,
            seed=seed,
        )
        for choice in choices
    ]
    return Fitted(choices, correction, blend(adapters))


def cross_fit(
    candidates: Candidates, *choices: Choice, seed: int = 0, known: _Known | None = None
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return (n, K) log-odds and labels, each query's from a fit that did not see its group."""
    known = {} if known is None else known
    logits = np.empty(candidates.scores.shape)
    labels = np.empty(candidates.labels.shape, dtype=np.bool_)
    for number, (fit, held) in enumerate(folds(candidates.groups, seed=seed)):
        part, key = candidates.take(fit), (number, choices[0].correction)
        if key not in known:
            known[key] = fit_correction(part, choices[0].correction, seed=seed)
        fitted = fit_choice(part, *choices, seed=seed, correction=known[key])
        corrected = fitted.corrected(candidates.take(held))
        logits[held], labels[held] = fitted.adapter.logits(corrected), corrected.labels
    return logits, labels


def fit_recipe(
    candidates: Candidates,
    *,
    weighting: Weighting = "pairs",
    corrections: Sequence[CorrectionKind] = CORRECTIONS,
    seed: int = 0,
) -> Fitted:
    """Choose by cross-validation and fit to all candidates given.

    The correction is the richest of those that are within one standard error of the best, its
    strength (for relevance) the best of four. Features are not chosen: the adapter is the mean of
    several, over few features and over many, which is steadier than the best of them. The whole
    has to beat plain Platt on the raw score by one standard error of the difference over queries;
    else plain Platt is taken.

    Parameters
    ----------
    corrections
        Those that whoever applies the fit can apply, from the poorest to the richest. One that
        weighs bands is left out where the candidates have none.

    Raises
    ------
    CalibrationError
        If the judgments cannot carry even plain Platt.
    """
    drawn = np.sort(np.random.default_rng(seed).permutation(len(candidates))[:_ENOUGH])
    some = candidates.take(drawn)
    known: _Known = {}
    losses: dict[tuple[Choice, ...], Floats] = {}

    def loss(*choices: Choice) -> float:
        if choices not in losses:
            losses[choices] = _losses(some, *choices, seed=seed, known=known)
        return float(losses[choices].mean())

    plain = Choice(weighting=weighting)
    loss(plain)
    kinds = [each for each in corrections if "bands" not in each or some.bands is not None]
    each = [Choice(kind, 1.0, "shape", _RIDGE, weighting) for kind in kinds]
    best = min(each, key=lambda one: loss(one))
    chosen = [
        one for one in each if loss(one) <= loss(best) + _error(losses[one,] - losses[best,])
    ][-1]
    if weighting == "pairs" and chosen.correction != "raw":
        chosen = min((replace(chosen, strength=x) for x in _STRENGTHS), key=lambda one: loss(one))
    mean = tuple(
        replace(chosen, features=features, ridge=ridge) for features, ridge in _MEANS[weighting]
    )
    better = loss(*mean) + _error(losses[mean] - losses[plain,]) < loss(plain)
    fitted = fit_choice(candidates, *(mean if better else (plain,)), seed=seed)
    finish = _UNCHANGED
    if weighting == "pairs" and better:
        finish = fit_beta(*cross_fit(candidates, *fitted.choices, seed=seed), seed=seed)
    tried = tuple(
        Tried(choices, float(found.mean()), _error(found - losses[plain,]))
        for choices, found in losses.items()
    )
    return replace(fitted, finish=finish, tried=tried)


def _error(differences: Floats) -> float:
    """Standard error of the mean over queries."""
    return float(differences.std() / np.sqrt(len(differences)))


def _losses(candidates: Candidates, *choices: Choice, seed: int, known: _Known) -> Floats:
    """Held-out log loss of each query, weighted as the choices weigh."""
    logits, labels = cross_fit(candidates, *choices, seed=seed, known=known)
    weights = pair_weights(labels, choices[0].weighting)
    losses = weights * log_losses(logits, labels)
    result: Floats = losses.sum(axis=1) / weights.sum() * len(labels)
    return result
