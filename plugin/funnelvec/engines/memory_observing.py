"""What a table in memory says of itself: explain, measure_recall, status."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from funnelvec.codes import Codes, bits
from funnelvec.engines import checks
from funnelvec.engines.store import NamedFunnel, Step, Store, measure_recall
from funnelvec.resolution import Resolution
from funnelvec.types import Explanation, Hit, RecallReport, ResolutionStatus, StageReport

__all__ = ["MemoryObserving"]


class MemoryObserving:
    """The methods of `MemoryTable` that look and change nothing."""

    if TYPE_CHECKING:  # what the table has and these methods use
        name: str
        vector: str
        _base: Resolution
        _store: Store

        def __len__(self) -> int: ...
        def _funnel(self, name: str | None) -> NamedFunnel: ...
        def _search(
            self,
            query: npt.ArrayLike,
            k: int,
            min_relevance: float | None,
            filter: Mapping[str, Any] | None,
            funnel: str | None,
        ) -> tuple[list[Hit], tuple[Step, ...], list[str]]: ...

    def explain(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        funnel: str | None = None,
    ) -> Explanation:
        """Run one search and report what survived each stage."""
        start = perf_counter()
        hits, steps, notes = self._search(query, k, min_relevance, filter, funnel)
        total_ms = 1e3 * (perf_counter() - start)
        reports = [
            StageReport(
                stage=number,
                resolution=str(step.stage.resolution),
                keep=step.stage.keep,
                rows_in=step.rows_in,
                rows_out=len(hits) if number == len(steps) else len(step.rows),
                ms=step.ms,
                access="scan" if number == 1 else "rescore",
            )
            for number, step in enumerate(steps, 1)
        ]
        return Explanation(str(self._funnel(funnel).funnel), tuple(reports), total_ms, tuple(notes))

    def measure_recall(
        self, *, sample: int = 200, k: int = 10, funnel: str | None = None, seed: int = 0
    ) -> RecallReport:
        """Measure the funnel against exact search."""
        chosen = self._funnel(funnel).funnel
        size = checks.check_recall_arguments(
            sample=sample, k=k, seed=seed, funnel=chosen, rows=len(self)
        )
        return measure_recall(self._store, chosen, sample=size, k=k, seed=seed)

    def status(self) -> list[ResolutionStatus]:
        """Report every resolution that was added."""
        return [
            self._status(resolution, stored)
            for resolution, stored in self._store.codes.items()
            if resolution != self._base
        ]

    def _status(self, resolution: Resolution, stored: Codes) -> ResolutionStatus:
        has_balance = resolution.code == "bit" and len(self) > 0
        return ResolutionStatus(
            table=self.name,
            vector=self.vector,
            resolution=str(resolution),
            column=resolution.column_name(self.vector),
            rows=len(self),
            filled=len(self),
            coverage=1.0,
            bit_balance=bits.balance(stored, dims=resolution.dims) if has_balance else None,
        )
