"""From judged answers of a funnel to its certificate: what engines share that certify in Python."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.certificate import Certificate, cutoff_at, relevance_at
from funnelvec.calibration.guarantees import conformal_threshold, queries_needed
from funnelvec.calibration.listed import AdapterCalibration
from funnelvec.calibration.precision import precise_threshold
from funnelvec.engines.recall import bootstrap_interval
from funnelvec.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from funnelvec.calibration import StoredCalibration
    from funnelvec.calibration.precision import Shown
    from funnelvec.engines.asking import Wanted
    from funnelvec.funnel import Funnel
    from funnelvec.types import Judgments

__all__ = ["TOP", "certified", "just_below", "padded", "precise", "relevances"]

#: Rows of the exact answer that a certificate is about, where nobody says how many.
TOP = 100

_Scores = npt.NDArray[np.float64]
_Labels = npt.NDArray[np.bool_]


def padded(answers: Sequence[Sequence[float]]) -> tuple[_Scores, _Labels]:
    """Per query the scores of its relevant rows, -inf where lost, as (queries, most) arrays."""
    width = max(1, *(len(answer) for answer in answers))
    scores = np.full((len(answers), width), -np.inf)
    labels = np.zeros(scores.shape, dtype=np.bool_)
    for i, answer in enumerate(answers):
        scores[i, : len(answer)], labels[i, : len(answer)] = answer, True
    return scores, labels


def certified(
    answers: Sequence[Sequence[float]],
    *,
    level: float,
    k: int,
    funnel: Funnel,
    calibration: StoredCalibration,
    judgments: Judgments,
) -> Certificate:
    """Find the cutoff that loses at most a share of the relevant rows.

    Parameters
    ----------
    answers
        Per judged query the scores of those relevant rows that are among its exact top `k`, -inf
        where the funnel has lost the row; by an adapter, their relevances.

    Raises
    ------
    CalibrationError
        If there are too few queries, none has such a row, or the stages alone lose too many.
    """
    scores, labels = padded(answers)
    cutoff = _cutoff(scores, labels, level, funnel)
    losses = (labels & (scores < cutoff)).sum(axis=1) / np.maximum(labels.sum(axis=1), 1)
    low, high = bootstrap_interval(losses, seed=0)
    by_query = isinstance(calibration, AdapterCalibration)
    return Certificate(
        kind="max_miss",
        level=level,
        confidence=None,
        k=k,
        cutoff=None if by_query else cutoff,
        relevance=just_below(cutoff) if by_query else relevance_at(calibration, cutoff),
        observed=float(losses.mean()),
        low=low,
        high=high,
        queries=len(losses),
        without_relevant=float((~labels.any(axis=1)).mean()),
        answered=None,
        # A cutoff on the score itself does not hang on the fit, unless the score does.
        approximate=(by_query or calibration.alpha != 0)
        and calibration.judgments_sha256 == judgments.sha256,
        funnel=str(funnel),
        judgments_sha256=judgments.sha256,
        certified_at=datetime.datetime.now(datetime.timezone.utc),
    )


def precise(
    shown: Sequence[Shown],
    *,
    wanted: Wanted,
    k: int,
    funnel: Funnel,
    calibration: StoredCalibration,
    judgments: Judgments,
) -> Certificate:
    """Find the lowest relevance from which on enough of what is shown is relevant.

    Parameters
    ----------
    shown
        Per judged query what the funnel shows at `k` rows.

    Raises
    ------
    CalibrationError
        If there are too few queries, or no threshold can be promised.
    """
    found = precise_threshold(shown, min_precision=wanted.level, confidence=wanted.confidence)
    low, high = bootstrap_interval(found.losses, seed=0)
    return Certificate(
        kind="min_precision",
        level=wanted.level,
        confidence=wanted.confidence,
        k=k,
        cutoff=cutoff_at(calibration, found.relevance),
        relevance=found.relevance,
        observed=float(found.losses.mean()),
        low=low,
        high=high,
        queries=len(found.losses),
        without_relevant=float(np.mean([not (labels == 1).any() for _, labels in shown])),
        answered=found.answered,
        approximate=calibration.judgments_sha256 == judgments.sha256,
        funnel=str(funnel),
        judgments_sha256=judgments.sha256,
        certified_at=datetime.datetime.now(datetime.timezone.utc),
    )


def just_below(relevance: float) -> float:
    """Return a relevance that a row of this one still passes.

    A search turns it into a score, and the way there and back rounds.
    """
    if relevance <= 0.0:
        return 0.0
    return max(0.0, relevance - 1e-9 * relevance * (1.0 - relevance) - 4.5e-16)


def relevances(
    calibration: StoredCalibration, query: npt.NDArray[np.float32], scores: _Scores, k: int
) -> _Scores:
    """Of the `k` best rows; what an adapter makes of them hangs on the whole shortlist."""
    if not len(scores):
        return np.empty(0)
    return calibration.at(query, scores).apply(query, scores[:k])


def _cutoff(scores: _Scores, labels: _Labels, level: float, funnel: Funnel) -> float:
    n, needed = len(scores), queries_needed(level)
    if n >= needed:
        if not labels.any():
            raise CalibrationError(
                "no judged query has a relevant row among the exact top rows, so there is nothing "
                "to promise; judge rows that the search returns"
            )
        counts = np.maximum(labels.sum(axis=1), 1)
        by_stages = float(((labels & np.isneginf(scores)).sum(axis=1) / counts).sum())
        if by_stages > level * (n + 1) - 1 + 1e-9:
            raise CalibrationError(
                f"max_miss={level:g} cannot be promised for {funnel}: its stages alone lose "
                f"{by_stages / n:.4f} of the relevant rows; keep more rows in them, or ask for "
                f"max_miss={np.ceil(1000 * (by_stages + 1) / (n + 1)) / 1000:g}"
            )
    return conformal_threshold(scores, labels, max_miss=level).threshold
