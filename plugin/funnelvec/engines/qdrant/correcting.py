"""Scores less a share of the hub of their rows, as a formula of Qdrant's. Pure.

The number that says how much of a hub a row is stands in its payload. The last stage of a funnel
becomes a prefetch, and the formula over it puts its rows into another order: of exactly those that
the stages before have let through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from funnelvec.codes import int8
from funnelvec.engines.qdrant.vectors import Stored, below

__all__ = ["Correction"]


@dataclass(frozen=True, slots=True)
class Correction:
    """Where the hubs of rows stand in their payload, and how much of them is taken off."""

    path: str
    alpha: float

    def formula(self, stored: Stored) -> models.FormulaQuery:
        """The corrected score of ours over a stage: higher for what is more similar.

        A row that nobody has measured counts as an ordinary one.
        """
        off = models.MultExpression(mult=[-self.alpha, self.path])
        whole = models.SumExpression(sum=[*_own(stored), off])
        return models.FormulaQuery(formula=whole, defaults={self.path: 0.0})

    def threshold(self, cutoff: float) -> float:
        """What Qdrant is told of the lowest corrected score; see `Stored.threshold`."""
        return below(cutoff)

    def over(
        self, search: models.QueryRequest, stored: Stored, *, rows: int
    ) -> models.QueryRequest:
        """Return a search by one vector as one by the corrected score, of its first `rows`."""
        stage = models.Prefetch(
            query=[], using=search.using, filter=search.filter, params=search.params, limit=rows
        )
        # Put in afterwards: pydantic would look at every number.
        prefetch = stage.model_copy(update={"query": search.query})
        changed = {"query": self.formula(stored), "using": None, "filter": None, "params": None}
        return search.model_copy(update={**changed, "prefetch": prefetch})


def _own(stored: Stored) -> list[Any]:
    """Terms that make our score of Qdrant's, as `Stored.score` does."""
    raw = "$score"
    if stored.is_bits:
        return [models.MultExpression(mult=[1.0 / stored.size, raw])]
    if stored.resolution.code == "int8":
        share = -0.5 / int8.scale(stored.size) ** 2
        return [1.0, models.MultExpression(mult=[share, raw, raw])]
    return [models.NegExpression(neg=raw)] if stored.falls else [raw]
