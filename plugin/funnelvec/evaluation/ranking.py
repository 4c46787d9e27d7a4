"""Measures of order, query by query, as trec_eval computes them (through ir-measures)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.errors import MissingDependency
from funnelvec.evaluation.answers import Answers

__all__ = ["check_available", "ranking"]

Floats = npt.NDArray[np.float64]


def check_available() -> None:
    """Refuse early where the package is missing.

    Raises
    ------
    MissingDependency
        If ir-measures is not installed.
    """
    try:
        import ir_measures  # noqa: F401
    except ImportError as error:
        raise MissingDependency.of("ir-measures", extra="evaluate") from error


def ranking(answers: Answers, *, k: int) -> dict[str, Floats]:
    """Return nDCG and recall of the best 10 and of the best `k`, and the reciprocal rank.

    Relevance is yes or no. Rows that do not count are taken out of the answer, and those behind
    move up; relevant rows that were not returned count in the ideal order and in recall.

    Returns
    -------
    measures
        (n,) by name; NaN for a query without a relevant row, which has no value.

    Raises
    ------
    MissingDependency
        If ir-measures is not installed.
    """
    check_available()
    import ir_measures
    from ir_measures import RR, R, nDCG

    cuts = sorted({min(10, k), k})
    wanted: dict[Any, str] = {nDCG @ cut: f"ndcg@{cut}" for cut in cuts}
    wanted |= {R @ cut: f"recall@{cut}" for cut in cuts}
    wanted[RR] = "reciprocal_rank"
    asked = np.flatnonzero(answers.totals > 0)
    judged = [
        ir_measures.Qrel(str(i), name, int(relevant))
        for i in asked
        for name, relevant in _rows(answers, int(i))
    ]
    run = [
        # Ties are broken by name there; the place in the answer has none.
        ir_measures.ScoredDoc(str(i), str(j), float(-j))
        for i in asked
        for j in np.flatnonzero(answers.counted[i])
    ]
    found = {name: np.full(len(answers), np.nan) for name in wanted.values()}
    for values in found.values():
        values[asked] = 0.0
    if run:
        for metric in ir_measures.iter_calc(list(wanted), judged, run):
            found[wanted[metric.measure]][int(metric.query_id)] = metric.value
    return found


def _rows(answers: Answers, i: int) -> list[tuple[str, bool]]:
    """The judged rows of a query: those returned by their place, relevant ones that were not."""
    places = np.flatnonzero(answers.judged[i])
    rows = [(str(j), bool(answers.labels[i, j])) for j in places]
    lost = int(answers.totals[i]) - int(answers.labels[i].sum())
    return rows + [(f"lost {number}", True) for number in range(lost)]
