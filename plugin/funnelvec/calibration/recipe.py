"""The whole recipe: which correction, which features, how much ridge, chosen by cross-validation.

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
from funnelvec.calibration.logistic import Floats

__all__ = ["Choice", "Fitted", "Tried", "cross_fit", "fit_choice", "fit_recipe"]

#: Queries that the choice is made on; a choice needs fewer than the fit.
_ENOUGH = 200
_UNCHANGED = BetaMap()
_STRENGTHS = (0.6, 1.5, 2.0)
#: So many of the best choices are averaged: they are close, and their mean is steadier than each.
_BLENDED = 3
_RIDGES = (30.0, 150.0, 750.0)
_FEATURES = ("setting", "levels", "shape", "coherent", "curve")


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to fit: a correction and its strength, a set of features, a ridge, a weighting.

    The strength multiplies the fitted weight of the hub bias, which was fitted without the
    features that bend the slope.
    """

    correction: CorrectionKind = "raw"
    strength: float = 1.0
    features: str = "none"
    ridge: float = _RIDGES[0]
    weighting: Weighting = "pairs"

    def __str__(self) -> str:
        ridge = f", ridge {self.ridge:g}" if self.features != "none" else ""
        strength = "" if self.correction == "raw" else f" x{self.strength:g}"
        return f"{self.correction}{strength}, {self.features}{ridge}, by {self.weighting}"


@dataclass(frozen=True, slots=True)
class Tried:
    """A choice and its log loss on held-out queries: mean, and its standard error against Platt."""

    choice: Choice
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
        Every choice that was compared, in the order of trying.
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

    First the correction, with the features "shape" and without any, then its strength, then
    features and ridge. What is chosen is the mean of the three best by held-out log loss, if the
    best beats plain Platt on the raw score by one standard error of the difference over queries;
    else plain Platt.

    Parameters
    ----------
    corrections
        Those that whoever applies the fit can apply. One that weighs bands is left out where the
        candidates have none.

    Raises
    ------
    CalibrationError
        If the judgments cannot carry even plain Platt.
    """
    drawn = np.sort(np.random.default_rng(seed).permutation(len(candidates))[:_ENOUGH])
    some = candidates.take(drawn)
    known: _Known = {}
    plain = Choice(weighting=weighting)
    reference = _losses(some, plain, seed=seed, known=known)
    tried = [Tried(plain, float(reference.mean()), 0.0)]

    def best() -> Tried:
        return min(tried, key=lambda one: one.loss)

    def attempt(choice: Choice) -> None:
        losses = _losses(some, choice, seed=seed, known=known)
        error = float((losses - reference).std() / np.sqrt(len(losses)))
        tried.append(Tried(choice, float(losses.mean()), error))

    for kind in corrections:
        if kind == "hub+pull+bands" and candidates.bands is None:
            continue
        for features in ("none", "shape"):
            if (kind, features) != ("raw", "none"):
                attempt(Choice(kind, 1.0, features, _RIDGES[1], weighting))
    kind, strength = best().choice.correction, 1.0
    if kind != "raw":
        for other in _STRENGTHS:
            attempt(Choice(kind, other, "shape", _RIDGES[1], weighting))
        strength = best().choice.strength
    for features in _FEATURES:
        for ridge in _RIDGES:
            if (features, ridge) != ("shape", _RIDGES[1]):
                attempt(Choice(kind, strength, features, ridge, weighting))
    fitted = fit_choice(candidates, *_winners(tried), seed=seed)
    finish = _UNCHANGED
    if weighting == "pairs" and fitted.choices != (plain,):
        finish = fit_beta(*cross_fit(candidates, *fitted.choices, seed=seed), seed=seed)
    return replace(fitted, finish=finish, tried=tuple(tried))


def _winners(tried: list[Tried]) -> list[Choice]:
    """The best few with one correction; plain Platt alone where they do not clearly beat it."""
    ranked = sorted(tried, key=lambda one: one.loss)
    best = ranked[0]
    if best.loss + best.error >= tried[0].loss:
        return [tried[0].choice]
    same = (best.choice.correction, best.choice.strength)
    alike = [one.choice for one in ranked if (one.choice.correction, one.choice.strength) == same]
    return alike[:_BLENDED]


def _losses(candidates: Candidates, choice: Choice, *, seed: int, known: _Known) -> Floats:
    """Held-out log loss of each query, weighted as the choice weighs."""
    logits, labels = cross_fit(candidates, choice, seed=seed, known=known)
    weights = pair_weights(labels, choice.weighting)
    losses = weights * (np.logaddexp(0.0, logits) - np.where(labels, logits, 0.0))
    result: Floats = losses.sum(axis=1) / weights.sum() * len(labels)
    return result
