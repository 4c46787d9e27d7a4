"""Answers of the client's in our terms, and requests in those of its local mode. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from qdrant_client import models

from funnelvec.engines.qdrant.deployment import Record, Scored
from funnelvec.engines.qdrant.names import PointId

__all__ = ["TIED", "levelled", "record_of", "scored", "without_params"]

#: How far the scores of equal rows may lie apart in local mode, over the larger of 1 and the score.
TIED = 4e-7


def levelled(found: Sequence[Scored]) -> list[Scored]:
    """Give rows of nearly one score, best first, the same: that of the best of them.

    Local mode multiplies matrices, and the last bits of what numpy says of a row depend on where
    in memory it stands. Equal rows are to tie.
    """
    level: list[Scored] = []
    for point in found:
        best = level[-1].score if level else point.score
        tied = abs(point.score - best) <= TIED * max(1.0, abs(best))
        level.append(point._replace(score=best) if tied else point)
    return level


def scored(found: models.ScoredPoint) -> Scored:
    """A point that was found."""
    return Scored(cast("PointId", found.id), found.score, found.payload or {})


def record_of(found: models.Record) -> Record:
    """A point that was read."""
    given: Any = found.vector or {}
    vectors = given if isinstance(given, dict) else {"": given}
    return Record(cast("PointId", found.id), found.payload or {}, vectors)


def without_params(request: models.QueryRequest) -> models.QueryRequest:
    """Local mode warns of parameters, none of which it follows; its search is exact."""
    return request.model_copy(update={"params": None, "prefetch": _bare(request.prefetch)})


def _bare(prefetch: Any) -> Any:
    if not isinstance(prefetch, models.Prefetch):
        return prefetch
    return prefetch.model_copy(update={"params": None, "prefetch": _bare(prefetch.prefetch)})
