"""What answers are worth, measured on judged queries: order, cutoffs, calibration."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.errors import InvalidInput
from funnelvec.evaluation.answers import Answers, Unjudged
from funnelvec.evaluation.pooled import Calibrated, Ranked, draws
from funnelvec.evaluation.ranking import ranking

__all__ = ["Evaluation", "Figure", "evaluate_answers"]

Floats = npt.NDArray[np.float64]
#: From weights of the queries to a value.
Measure = Callable[[Floats], float]

_TOP = 20
_QUARTERS = ("lowest", "second", "third", "highest")


@dataclass(frozen=True, slots=True)
class Figure:
    """A measure, and its 95 % bootstrap interval over queries.

    Attributes
    ----------
    name
        Such as ``ndcg@10``; names do not change between versions.
    value, low, high
        NaN where there is nothing to measure.
    about
        What it is, in words.
    raw
        The same of the score alone, where that can differ.
    """

    name: str
    value: float
    low: float
    high: float
    about: str
    raw: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of a funnel on judged queries; ``str()`` gives a table.

    Attributes
    ----------
    table, funnel
        What was asked.
    k
        How many rows each query asked for.
    queries, pairs
        Judged queries, and rows of their answers that count.
    without_relevant
        Share of the queries without a judged-relevant row.
    judged
        Share of the returned rows that somebody judged.
    unjudged
        What becomes of the others.
    calibrated
        Whether the table says a relevance; without, there are no figures of it.
    times, seed
        Of the bootstrap.
    """

    table: str
    funnel: str
    k: int
    queries: int
    pairs: int
    without_relevant: float
    judged: float
    unjudged: Unjudged
    calibrated: bool
    figures: tuple[Figure, ...]
    times: int
    seed: int

    def __getitem__(self, name: str) -> Figure:
        """Return a figure by its name.

        Raises
        ------
        InvalidInput
            If there is none; the message has the names.
        """
        for figure in self.figures:
            if figure.name == name:
                return figure
        known = ", ".join(figure.name for figure in self.figures)
        raise InvalidInput(f"there is no figure {name!r}; there are {known}")

    def as_json(self) -> dict[str, Any]:
        """The same as values that JSON knows; what is not a number is None."""
        content: dict[str, Any] = json.loads(json.dumps({"format": 1, **asdict(self)}, default=str))
        for figure in content["figures"]:
            for part in ("value", "low", "high", "raw"):
                if figure[part] is not None and not math.isfinite(figure[part]):
                    figure[part] = None
        return content

    def rows(self) -> list[tuple[str, ...]]:
        """The table as text, its head first."""
        head = ("figure", "value", "95 %", "raw score", "what it is")
        return [
            head,
            *(
                (
                    each.name,
                    _digits(each.value),
                    f"[{_digits(each.low)}, {_digits(each.high)}]",
                    "" if each.raw is None else _digits(each.raw),
                    each.about,
                )
                for each in self.figures
            ),
        ]

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*textwrap.wrap(self.assumptions(), 100), "", *lines])

    def assumptions(self) -> str:
        """Say what was asked and what the figures rest on."""
        others = (
            "count as irrelevant" if self.unjudged == "irrelevant" else "are left out of everything"
        )
        relevance = "" if self.calibrated else " There is no calibration, so no relevance."
        return (
            f"{self.funnel} on {self.table}: {self.queries:,} judged queries, {self.k} rows each, "
            f"{self.pairs:,} pairs; {self.without_relevant:.1%} of the queries have no relevant "
            f"row. Of the rows that came back {self.judged:.1%} were judged; the others {others}. "
            f"Intervals by {self.times:,} draws of the queries.{relevance}"
        )


def evaluate_answers(
    answers: Answers,
    *,
    k: int,
    table: str = "",
    funnel: str = "",
    unjudged: Unjudged = "irrelevant",
    min_relevance: float | None = None,
    times: int = 200,
    seed: int = 0,
) -> Evaluation:
    """Measure answers.

    Parameters
    ----------
    k
        How many rows were asked for.
    min_relevance
        A cutoff to measure too: what it keeps, what it loses, how often it leaves nothing.
    times, seed
        Draws of the bootstrap, 20 to 10,000, and its seed.

    Raises
    ------
    InvalidInput
        If there is no relevance and one is asked for, or `times` is out of range.
    MissingDependency
        If ir-measures is not installed.
    """
    if not 20 <= times <= 10_000:
        raise InvalidInput(f"times is {times}; draw 20 to 10,000 times")
    weights = draws(len(answers), times=times, seed=seed)
    found = [*_of_order(answers, k, weights), *_of_cutting(answers, weights)]
    if answers.relevance is not None:
        found += _of_calibration(answers, answers.relevance, weights)
        if min_relevance is not None:
            found += _of_cutoff(answers, answers.relevance, min_relevance, weights)
    elif min_relevance is not None:
        raise InvalidInput(
            f"min_relevance={min_relevance:g} means nothing: the funnel has no calibration; "
            "calibrate it first"
        )
    rows = ~np.isnan(answers.scores)
    return Evaluation(
        table=table,
        funnel=funnel,
        k=k,
        queries=len(answers),
        pairs=int(answers.counted.sum()),
        without_relevant=float((answers.totals == 0).mean()),
        judged=float(answers.judged[rows].mean()),
        unjudged=unjudged,
        calibrated=answers.relevance is not None,
        figures=tuple(found),
        times=times,
        seed=seed,
    )


def _figure(
    name: str, about: str, measure: Measure, weights: Floats, raw: float | None = None
) -> Figure:
    """A measure of all queries, and its interval."""
    value = measure(np.ones(weights.shape[1]))
    values = np.array([measure(row) for row in weights])
    low, high = float("nan"), float("nan")
    if not np.isnan(values).all():
        low, middle, high = map(float, np.nanquantile(values, [0.025, 0.5, 0.975]))
        if name.startswith("ece"):
            # Queries that are drawn twice look like more than they are, and add error of their
            # own to every draw: as much as the draws lie above the value is taken off.
            low, high = max(0.0, low - middle + value), max(0.0, high - middle + value)
    return Figure(name, value, low, high, about, raw)


def _mean(values: Floats) -> Measure:
    """The mean over queries that have a value."""
    there = ~np.isnan(values)
    kept = np.where(there, values, 0.0)

    def measure(weights: Floats) -> float:
        total = float(weights[there].sum())
        return float(weights @ kept) / total if total else float("nan")

    return measure


def _of_order(answers: Answers, k: int, weights: Floats) -> Iterable[Figure]:
    about = {
        "ndcg": "order of the best {}, mean over queries with a relevant row",
        "recall": "share of all relevant rows that are among the best {}",
        "reciprocal_rank": "1 / place of the first relevant row",
    }
    for name, values in ranking(answers, k=k).items():
        kind, _, cut = name.partition("@")
        yield _figure(name, about[kind].format(cut), _mean(values), weights)


def _of_cutting(answers: Answers, weights: Floats) -> Iterable[Figure]:
    """What one threshold for all queries can do: on relevance where there is one."""
    raw = Ranked.of(answers.scores, answers.labels, answers.counted)
    ours = raw
    if answers.relevance is not None:
        ours = Ranked.of(answers.relevance, answers.labels, answers.counted)
    whole = np.ones(len(answers))
    other, differs = raw.kept(whole), ours is not raw
    yield _figure(
        "pr_auc",
        "precision over recall of all pairs together, area",
        ours.pr_auc,
        weights,
        raw.pr_auc(whole) if differs else None,
    )
    for name, part, about in (
        ("p@r95", "precision", "precision of the pairs kept by the threshold that keeps 95 %"),
        ("filter@r95", "filtered", "share of the pairs that this threshold takes away"),
        ("null@r95", "empty", "share of the queries that this threshold leaves nothing"),
    ):
        yield _figure(
            name,
            about,
            lambda drawn, part=part: float(getattr(ours.kept(drawn), part)),  # type: ignore[misc]
            weights,
            float(getattr(other, part)) if differs else None,
        )


def _of_calibration(answers: Answers, relevance: Floats, weights: Floats) -> Iterable[Figure]:
    every = Calibrated.of(relevance, answers.labels, answers.counted)
    yield _figure("ece", "calibration error, 15 bins of equal size, debiased", every.ece, weights)
    first = answers.counted.copy()
    first[:, _TOP:] = False
    if first.any():
        top = Calibrated.of(relevance, answers.labels, first)
        yield _figure(f"ece@{_TOP}", f"the same over the best {_TOP} rows", top.ece, weights)
    for name, members in _quarters(answers):
        some = answers.counted & members[:, None]
        if some.any():
            part = Calibrated.of(relevance, answers.labels, some)
            about = f"the same over the quarter of the queries with the {name} best scores"
            yield _figure(f"ece_{name}", about, part.ece, weights)
    yield _figure("brier", "mean squared error of relevance", every.brier, weights)
    yield _figure("log_loss", "mean cross-entropy of relevance", every.log_loss, weights)


def _quarters(answers: Answers) -> Iterable[tuple[str, npt.NDArray[np.bool_]]]:
    """Queries by their best score, which needs no label: from those that found little on."""
    best = np.where(answers.counted, answers.scores, -np.inf).max(axis=1)
    asked = np.flatnonzero(np.isfinite(best))
    for name, part in zip(
        _QUARTERS, np.array_split(asked[np.argsort(best[asked], kind="stable")], 4), strict=True
    ):
        members = np.zeros(len(answers), dtype=np.bool_)
        members[part] = True
        yield name, members


def _of_cutoff(
    answers: Answers, relevance: Floats, least: float, weights: Floats
) -> Iterable[Figure]:
    kept = answers.counted & (np.where(answers.counted, relevance, -1.0) >= least)
    sizes, hits = kept.sum(axis=1), (kept & answers.labels).sum(axis=1)
    among = answers.labels.sum(axis=1)
    some, nan = answers.totals > 0, np.nan
    at = f"min_relevance {least:g}"
    for name, about, values in (
        ("kept", f"rows per query that {at} keeps", sizes.astype(np.float64)),
        ("empty", f"share of the queries that {at} leaves nothing", (sizes == 0).astype(float)),
        (
            "precision",
            "share of the kept rows that are relevant, mean over queries that keep a row",
            np.where(sizes > 0, hits / np.maximum(sizes, 1), nan),
        ),
        (
            "missed",
            "share of its returned relevant rows that a query loses; 0 without one",
            (among - hits) / np.maximum(among, 1),
        ),
        (
            "f1",
            "F1 of the kept rows against all relevant ones, mean over queries with one",
            np.where(some, 2.0 * hits / np.maximum(sizes + answers.totals, 1), nan),
        ),
    ):
        yield _figure(f"{name}@min_relevance", about, _mean(values), weights)


def _digits(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"
