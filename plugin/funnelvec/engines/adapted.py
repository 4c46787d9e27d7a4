"""Searching a table by a calibration that lives in the client, such as a network.

The database compares scores, so all it needs is one number per query: the cutoff. It gets it
through the calibration that the table has, which turns scores into relevance and back; relevance
itself is put in here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.base import Calibration
from funnelvec.engines import checks
from funnelvec.errors import InvalidInput
from funnelvec.types import Answer

__all__ = ["AdaptedTable"]

#: Below 1 by so much that the score it means is still finite.
_MOST = 1.0 - 1e-12
#: The literal is loosened by this much, so that rounding on the way keeps no row out.
_SLACK = 1e-6


class Searched(Protocol):
    """What is needed of a table: `search` as `engines.base.Table` has it."""

    def search(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        funnel: str | None = None,
    ) -> Answer:
        """Find the `k` rows most similar to `query`."""


class AdaptedTable:
    """A table whose relevance is that of a calibration in the client.

    Parameters
    ----------
    table
        Of any engine that does not await.
    fitted
        What ``table.calibrate(judgments)`` returned, in force in the table and of a family with
        one map for all queries: it carries the cutoff to the database. None if there is none;
        then rows are cut off here, after they were read.
    calibration
        Whose relevance is shown and asked for, such as a `NetworkAdapter`. It has to belong to
        the last stage of the funnel, like `fitted`.

    Raises
    ------
    InvalidInput
        If `fitted` is an adapter.
    """

    def __init__(
        self, table: Searched, calibration: Calibration, *, fitted: Calibration | None = None
    ) -> None:
        if hasattr(fitted, "depth"):
            raise InvalidInput(
                "the calibration in force is an adapter, by which each score means another "
                "relevance for each query; calibrate with family='platt', or leave `fitted` out"
            )
        self._table, self._calibration, self._fitted = table, calibration, fitted

    def search(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        funnel: str | None = None,
    ) -> Answer:
        """Find the `k` rows most similar to `query`, with the relevance of the calibration.

        Arguments and order are those of `Table.search`; rows whose relevance is below
        `min_relevance` are left out, and the database is told the score that it means.
        """
        least = checks.check_min_relevance(min_relevance)
        vector = np.asarray(query, dtype=np.float32)
        cutoff = -math.inf if least is None else self._calibration.cutoff(vector, least)
        found = self._table.search(
            query, k=k, min_relevance=self._literal(cutoff), filter=filter, funnel=funnel
        )
        if found:
            relevance = self._calibration.apply(vector, [hit.score for hit in found])
            hits = [
                replace(hit, relevance=float(value))
                for hit, value in zip(found, relevance, strict=True)
            ]
        else:
            hits = []
        kept = [hit for hit in hits if hit.score >= cutoff]
        nearest = found.nearest if not hits else hits[0]
        if nearest is not None and not hits:
            value = self._calibration.apply(vector, [nearest.score])[0]
            nearest = replace(nearest, relevance=float(value))
        return Answer(kept, nearest=None if kept or least is None else nearest)

    def _literal(self, cutoff: float) -> float | None:
        """The relevance by which the table's own calibration means this score, or a bit less."""
        if self._fitted is None or cutoff == -math.inf:
            return None
        if cutoff == math.inf:
            return _MOST
        loose = cutoff - _SLACK * max(1.0, abs(cutoff))
        return min(_MOST, float(self._fitted.apply(None, [loose])[0]))
