"""``funnelvec bench relevance``: what calibration is worth, by a fixed protocol on open sets.

Queries are halved 20 times (``default_rng(0..19).permutation``). Everything is chosen and fitted
on the first half and measured on the second: the recipe, raw cosine, global Platt and, for the
cutoffs, the oracle that knows the labels. Means over the halvings are compared with the targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.bench.relevance_data import SETS, RelevanceSet, load_set
from funnelvec.calibration import f1, metrics
from funnelvec.calibration.abstain import fit_abstain
from funnelvec.calibration.candidates import Candidates
from funnelvec.calibration.choosing import JudgedScores, fit_family
from funnelvec.calibration.correction import Correction, correct
from funnelvec.calibration.guarantees import conformal_threshold
from funnelvec.calibration.hub import JudgedHubs
from funnelvec.calibration.logistic import Floats, sigmoid
from funnelvec.calibration.recipe import Choice, Fitted, cross_fit, fit_choice, fit_recipe

__all__ = ["HALVINGS", "Halving", "RelevanceReport", "SetFigures", "measure_relevance"]

HALVINGS, QUICK = 20, 3
MAX_MISS = 0.05

#: A calibration says where it belongs; these belong to arrays.
_NOWHERE: dict[str, Any] = {
    "model": None, "vector": "", "metric": "cosine", "last_stage": "384:f32",
    "judgments_sha256": "", "n_pairs": 0, "n_relevant": 0, "n_queries": 0,
}  # fmt: skip

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Halving:
    """What one halving gave: names and values, and the choices that the fit half made."""

    values: dict[str, float]
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetFigures:
    """Means of one set over the halvings, and how often each choice was made."""

    name: str
    queries: int
    means: dict[str, float]
    errors: dict[str, float]
    choices: dict[str, int]


@dataclass(frozen=True, slots=True)
class RelevanceReport:
    """Everything that one run found."""

    halvings: int
    sets: tuple[SetFigures, ...]
    format: int = field(default=1)

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self)


def measure_relevance(
    folder: Path,
    *,
    names: Iterable[str] = SETS,
    halvings: int = HALVINGS,
    say: Callable[[str], None] = lambda text: None,
) -> RelevanceReport:
    """Run the protocol.

    Parameters
    ----------
    folder
        Of the open evaluation data.
    names
        Which of `SETS`; intents that the fit half has not seen are measured where there are
        intents.
    halvings
        How often queries are halved.
    """
    figures = []
    for name in names:
        say(f"{name}: candidates")
        data = load_set(name, folder)
        plans: list[tuple[str, Callable[[int], Halving]]] = [
            (name, lambda seed, data=data: _halve(data, seed))  # type: ignore[misc]
        ]
        if data.intents is not None and name == "clinc imbalanced":
            plans.append(
                (f"{name}, unseen intents", lambda seed, data=data: _unseen(data, seed))  # type: ignore[misc]
            )
        for label, plan in plans:
            done = []
            for seed in range(halvings):
                say(f"{label}: halving {seed + 1} of {halvings}")
                done.append(plan(seed))
            alone = _leave_one_out(data) if name == "csfcube" else {}
            figures.append(_summary(label, int(data.judged.sum()), done, alone))
    return RelevanceReport(halvings=halvings, sets=tuple(figures))


def _summary(name: str, queries: int, done: list[Halving], alone: dict[str, float]) -> SetFigures:
    choices = [choice for each in done for choice in each.choices]
    columns = {key: np.array([each.values[key] for each in done]) for key in done[0].values}
    return SetFigures(
        name=name,
        queries=queries,
        means={key: float(column.mean()) for key, column in columns.items()} | alone,
        errors={
            key: float(column.std(ddof=1) / math.sqrt(len(column))) if len(column) > 1 else 0.0
            for key, column in columns.items()
        },
        choices={choice: choices.count(choice) for choice in sorted(set(choices))},
    )


def _halve(data: RelevanceSet, seed: int) -> Halving:
    rng = np.random.default_rng(seed)
    judged = np.flatnonzero(data.judged)
    places = judged[rng.permutation(len(judged))]
    half = len(places) // 2
    result = _compare(data.candidates.take(places[:half]), data.candidates.take(places[half:]))
    if data.answered is None:
        return result
    places = np.random.default_rng(seed).permutation(len(data.candidates))
    half = len(places) // 2
    values = result.values | _abstention(data, places[:half], places[half:])
    if data.intents is not None:
        values["abstain_auc_unseen"] = _abstention(data, *_apart(data, seed))["abstain_auc"]
    return Halving(values, result.choices)


def _unseen(data: RelevanceSet, seed: int) -> Halving:
    """The same where no intent of the test half occurs in the fit half."""
    fit, test = _apart(data, seed)
    result = _compare(data.candidates.take(fit), data.candidates.take(test))
    return Halving(result.values | _abstention(data, fit, test), result.choices)


def _apart(data: RelevanceSet, seed: int) -> tuple[Ints, Ints]:
    """Halves without a common intent; queries without one are halved freely."""
    assert data.intents is not None
    rng = np.random.default_rng(seed)
    intents = rng.permutation(np.unique(data.intents[data.intents >= 0]))
    fit = np.isin(data.intents, intents[: len(intents) // 2])
    outside = rng.permutation(np.flatnonzero(data.intents < 0))
    fit[outside[: len(outside) // 2]] = True
    return np.flatnonzero(fit), np.flatnonzero(~fit)


def _abstention(data: RelevanceSet, fit: Ints, test: Ints) -> dict[str, float]:
    assert data.answered is not None
    head = fit_abstain(data.candidates.take(fit), data.answered[fit])
    there, truth = data.candidates.take(test), data.answered[test]
    return {
        "abstain_auc": metrics.auc(head.logits(there), truth),
        "abstain_auc_top": metrics.auc(there.scores[:, 0], truth),
        "abstain_auc_gap": metrics.auc(there.scores[:, 0] - there.scores[:, 1], truth),
    }


def _compare(fit: Candidates, test: Candidates) -> Halving:
    """Everything about one fit half and one test half."""
    platt = fit_choice(fit, Choice())
    relevance, cutting = fit_recipe(fit), fit_recipe(fit, weighting="queries")
    values = (
        _base(fit, test, platt)
        | _of_relevance(fit, test, relevance)
        | _of_one_threshold(fit, test, cutting)
        | _of_cutoffs(fit, test, cutting)
    )
    in_searches, chosen = _of_searches(fit, test, prefix="searches", hubs=False)
    with_hubs, chosen_with = _of_searches(fit, test, prefix="hub", hubs=True)
    values |= in_searches | with_hubs
    for measure, raw in (
        ("pr_auc", "raw_pr_auc"),
        ("kept", "raw_kept"),
        ("brier", "platt_brier"),
        ("searches_pr_auc", "raw_pr_auc"),
        ("searches_brier", "platt_brier"),
        ("hub_pr_auc", "raw_pr_auc"),
        ("hub_brier", "platt_brier"),
    ):
        values[f"{measure}_ratio"] = values[measure] / values[raw]
    chosen = f"in searches: {chosen}, with a hub column {chosen_with}"
    return Halving(values, (_named(relevance), _named(cutting), chosen))


def _of_searches(
    fit: Candidates, test: Candidates, *, prefix: str, hubs: bool
) -> tuple[dict[str, float], str]:
    """What ``calibrate(family="auto")`` makes of the same judgments, and searches apply.

    With `hubs` the table has a hub column, which is the bias of the candidates.
    """
    n, k = fit.scores.shape
    assert fit.queries is not None
    judged = JudgedScores(
        fit.scores.ravel(),
        fit.labels.ravel(),
        np.repeat(np.arange(n), k),
        fit.scores,
        groups=fit.groups,
    ).measured(fit.rows, fit.queries)
    bias = JudgedHubs("bias", fit.bias.ravel(), fit.bias) if hubs else None
    calibration = fit_family(judged, "auto", hubs=bias, **_NOWHERE)

    def answers(some: Candidates) -> tuple[Floats, metrics.Labels]:
        there = correct(some, Correction(alpha=calibration.alpha))
        assert some.queries is not None
        lists = [
            calibration.at(query, row).apply(None, row)
            for query, row in zip(some.queries, there.scores, strict=True)
        ]
        return np.stack(lists), there.labels

    (before, fitted), (there, labels) = answers(fit), answers(test)
    kept = there >= f1.best_threshold(before, fitted, fit.totals)
    values = {
        "f1": _mean(metrics.macro_f1(kept, labels, test.totals)),
        "pr_auc": metrics.pr_auc(there, labels),
        "brier": metrics.brier(there, labels),
        "ece": metrics.debiased_ece(there, labels),
        "ece_top20": metrics.debiased_ece(there[:, :20], labels[:, :20]),
        **({"alpha": calibration.alpha} if hubs else {}),
    }
    chosen = calibration.kind + (" of the query" if getattr(calibration, "rows", None) else "")
    return {f"{prefix}_{name}": value for name, value in values.items()}, chosen


def _named(fitted: Fitted) -> str:
    return " + ".join(str(choice) for choice in fitted.choices)


def _base(fit: Candidates, test: Candidates, platt: Fitted) -> dict[str, float]:
    """Raw cosine, global Platt and the oracle."""
    threshold = f1.best_threshold(fit.scores, fit.labels, fit.totals)
    kept = test.scores >= threshold
    raw_kept, raw_miss = _certified(fit.scores, fit.labels, test.scores, test.labels)
    relevance = sigmoid(platt.logits(test))
    return {
        "raw_f1": _mean(metrics.macro_f1(kept, test.labels, test.totals)),
        "oracle_f1": _mean(metrics.oracle_f1(test.labels, test.totals)),
        "raw_pr_auc": metrics.pr_auc(test.scores, test.labels),
        "raw_kept": raw_kept,
        "raw_miss": raw_miss,
        "platt_brier": metrics.brier(relevance, test.labels),
        "platt_ece": metrics.debiased_ece(relevance, test.labels),
        "platt_ece_top20": metrics.debiased_ece(relevance[:, :20], test.labels[:, :20]),
    }


def _of_relevance(fit: Candidates, test: Candidates, fitted: Fitted) -> dict[str, float]:
    """The map that says relevance, and the expected-F1 rule on it."""
    logits, labels = cross_fit(fit, *fitted.choices)
    share = f1.fit_share(sigmoid(fitted.finish.apply(logits)), labels, fit.totals)
    there = fitted.corrected(test)
    relevance = sigmoid(fitted.logits(test))
    kept = f1.keep_first(f1.expected_f1_sizes(relevance, share), relevance.shape[1])
    return {
        "best_f1": _mean(metrics.macro_f1(kept, there.labels, test.totals)),
        "pr_auc": metrics.pr_auc(relevance, there.labels),
        "brier": metrics.brier(relevance, there.labels),
        "ece": metrics.debiased_ece(relevance, there.labels),
        "ece_top20": metrics.debiased_ece(relevance[:, :20], there.labels[:, :20]),
    }


def _of_one_threshold(fit: Candidates, test: Candidates, fitted: Fitted) -> dict[str, float]:
    """The best threshold by F1 on a map that counts queries alike."""
    logits, labels = cross_fit(fit, *fitted.choices)
    there = fitted.corrected(test)
    kept = fitted.adapter.logits(there) >= f1.best_threshold(logits, labels, fit.totals)
    return {"f1": _mean(metrics.macro_f1(kept, there.labels, test.totals))}


def _of_cutoffs(fit: Candidates, test: Candidates, fitted: Fitted) -> dict[str, float]:
    """A certified threshold on a map that counts queries alike."""
    logits, labels = cross_fit(fit, *fitted.choices)
    there = fitted.corrected(test)
    kept, miss = _certified(logits, labels, fitted.adapter.logits(there), there.labels)
    return {"kept": kept, "miss": miss}


def _certified(
    values: Floats, labels: metrics.Labels, test: Floats, truth: metrics.Labels
) -> tuple[float, float]:
    """Rows kept per query and share missed at ``max_miss=0.05``."""
    promise = conformal_threshold(values, labels, max_miss=MAX_MISS)
    kept = test >= promise.threshold
    return metrics.kept_rows(kept), float(metrics.misses(kept, truth).mean())


def _leave_one_out(data: RelevanceSet) -> dict[str, float]:
    """Rows kept by a certified cutoff where half of the queries are too few for one."""
    everything = data.candidates.take(np.flatnonzero(data.judged))
    n = len(everything)
    totals = np.zeros((n, 4))
    for i in range(n):
        one = np.array([i], dtype=np.int64)
        rest, test = everything.take(np.delete(np.arange(n), i)), everything.take(one)
        fitted = fit_recipe(rest, weighting="queries")
        logits, labels = cross_fit(rest, *fitted.choices)
        there = fitted.corrected(test)
        totals[i] = (
            *_certified(rest.scores, rest.labels, test.scores, test.labels),
            *_certified(logits, labels, fitted.adapter.logits(there), there.labels),
        )
    raw_kept, raw_miss, kept, miss = totals.mean(axis=0)
    return {
        "loo_kept": float(kept),
        "loo_raw_kept": float(raw_kept),
        "loo_kept_ratio": float(kept / raw_kept),
        "loo_miss": float(miss),
        "loo_raw_miss": float(raw_miss),
    }


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
