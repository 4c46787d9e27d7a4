"""What a table says of itself; a part of the protocol `Table`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from funnelvec.types import Explanation, RecallReport, ResolutionStatus

__all__ = ["Observed"]


class Observed(Protocol):
    """One search explained, recall, the state of what is stored, and the log of queries."""

    def explain(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        funnel: str | None = None,
    ) -> Explanation:
        """Run one search and report what survived each stage, with times."""

    def measure_recall(
        self,
        *,
        sample: int | None = None,
        k: int = 10,
        funnel: str | None = None,
        seed: int = 0,
        queries: npt.ArrayLike | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> RecallReport:
        """Measure the funnel against exact search, with given queries or sampled rows as queries.

        A sampled row does not count among its own neighbours, so the funnel is asked for ``k + 1``
        rows. Rows as near as the k-th count as well as those before it, so it does not matter
        which of several duplicates come back.

        Parameters
        ----------
        sample
            How many queries to draw; None is 200 rows, or all of the given queries.
        queries
            (n, dims) float32 or what converts to it. None draws rows of the table.
        filter
            What both searches are narrowed down by; see `funnelvec.filters`. Queries for which
            nothing matches are left out.

        Raises
        ------
        InvalidInput
            If the table has fewer than two rows, the rows asked for cannot reach the last stage,
            no query can be asked at every stage, or nothing matches the filter.
        """

    def log_queries(
        self,
        *,
        share: float = 0.01,
        keep_for: datetime.timedelta = datetime.timedelta(days=30),
        max_rows: int = 100_000,
        roles: bool = False,
        funnel: str | None = None,
    ) -> None:
        """Log a share of a funnel's queries, to measure, tune and calibrate with.

        Parameters
        ----------
        share
            Share of queries to log, from 0 (none) to 1 (all), drawn at random.
        keep_for, max_rows
            How long, and how many of the newest, to keep.
        roles
            Whether to log the name of the database role that asked.

        Raises
        ------
        InvalidInput
            If a number is out of range.
        Conflict
            If the name of the log is taken.
        CapabilityError
            If the engine keeps no log.
        """

    def stop_logging(self, *, forget: bool = False, funnel: str | None = None) -> None:
        """Log no more queries; with `forget` the logged ones are dropped too."""

    def logged_queries(
        self, limit: int = 1000, *, funnel: str | None = None
    ) -> npt.NDArray[np.float32]:
        """Return up to `limit` logged queries as (n, dims) float32, newest first.

        Raises
        ------
        NotFound
            If the funnel has no log.
        """

    def status(self) -> list[ResolutionStatus]:
        """Report every resolution: coverage, bit balance, index."""
