"""What a table in memory says of itself: explain, measure_recall, status."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec import filters
from funnelvec.codes import Codes, bits
from funnelvec.engines.memory_searching import Asked
from funnelvec.engines.recall import bootstrap_interval, check_queries, check_recall_arguments
from funnelvec.engines.store import NamedFunnel, Rows, Step, Store
from funnelvec.errors import CapabilityError, InvalidInput
from funnelvec.funnel import Funnel, Stage
from funnelvec.reports import (
    Explanation,
    RecallReport,
    ResolutionStatus,
    StageRecall,
    StageReport,
)
from funnelvec.resolution import Resolution
from funnelvec.types import Answer, Cutoff

__all__ = ["MemoryObserving"]

_MONTH = datetime.timedelta(days=30)


class MemoryObserving:
    """The methods of `MemoryTable` that look and change nothing."""

    if TYPE_CHECKING:  # what the table has and these methods use
        name: str
        vector: str
        _base: Resolution
        _store: Store

        def __len__(self) -> int: ...
        def _funnel(self, name: str | None) -> NamedFunnel: ...
        def _alpha(self, named: NamedFunnel) -> float: ...
        def _search(
            self, named: NamedFunnel, query: npt.ArrayLike, asked: Asked
        ) -> tuple[Answer, tuple[Step, ...], list[str]]: ...

    def explain(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        cutoff: Cutoff | None = None,
        funnel: str | None = None,
    ) -> Explanation:
        """Run one search and report what survived each stage."""
        start = perf_counter()
        named = self._funnel(funnel)
        asked = Asked(k, min_relevance, filter, cutoff=cutoff)
        hits, steps, notes = self._search(named, query, asked)
        if hits.nearest is not None:
            notes.append(
                f"no row passes the cutoff: the best has the score {hits.nearest.score:.6f}, "
                f"relevance {hits.nearest.relevance:.4f}"
            )
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
        return Explanation(str(named.funnel), tuple(reports), total_ms, tuple(notes))

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
        """Measure the funnel against exact search."""
        named = self._funnel(funnel)
        store, chosen = self._store, named.funnel
        matrix = None if queries is None else check_queries(queries, store.base)
        size = check_recall_arguments(
            sample=sample, k=k, seed=seed, funnel=chosen, rows=len(self),
            given=None if matrix is None else len(matrix),
        )  # fmt: skip
        parsed = filters.parse(filter)
        bound = None if parsed is None else filters.check(parsed, store.kinds)
        usable = store.comparable(chosen) if matrix is None else store.askable(chosen, matrix)
        if not len(usable):
            what = "every row is" if matrix is None else "every query is"
            raise InvalidInput(f"{what} zero at some stage of '{chosen}'; widen that stage")
        picked = np.random.default_rng(seed).choice(usable, min(size, len(usable)), replace=False)
        drawn = [(store.codes[store.base][row], int(row)) for row in picked]
        if matrix is not None:
            drawn = [(matrix[row], -1) for row in picked]
        return compare(
            store, chosen, drawn, rows=store.matching(bound), k=k, seed=seed,
            alpha=self._alpha(named),
        )  # fmt: skip

    def log_queries(
        self,
        *,
        share: float = 0.01,
        keep_for: datetime.timedelta = _MONTH,
        max_rows: int = 100_000,
        roles: bool = False,
        funnel: str | None = None,
    ) -> None:
        """Refused: what is in memory is gone before there is traffic to learn from."""
        raise CapabilityError("memory: keeps no query log; a postgresql:// URL does")

    def stop_logging(self, *, forget: bool = False, funnel: str | None = None) -> None:
        """Refused, as `log_queries` is."""
        raise CapabilityError("memory: keeps no query log; a postgresql:// URL does")

    def logged_queries(
        self, limit: int = 1000, *, funnel: str | None = None
    ) -> npt.NDArray[np.float32]:
        """Refused, as `log_queries` is."""
        raise CapabilityError("memory: keeps no query log; a postgresql:// URL does")

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
            code_bytes=stored.nbytes,
            bit_balance=bits.balance(stored, dims=resolution.dims) if has_balance else None,
        )


def compare(
    store: Store,
    funnel: Funnel,
    drawn: list[tuple[npt.NDArray[Any], int]],
    *,
    rows: Rows,
    k: int,
    seed: int,
    alpha: float = 0.0,
) -> RecallReport:
    """Send queries through the funnel and through exact search among `rows`, and compare.

    Parameters
    ----------
    drawn
        Queries, each with the row that it is and that is left out; -1 where it is none.
    alpha
        How much of the hub of a row its score is less, in both.

    Raises
    ------
    InvalidInput
        If no query has a row to be compared with.
    """
    exact = Funnel((Stage(store.base),))
    alive: list[list[float]] = []
    times: list[tuple[float, float]] = []
    for query, itself in drawn:
        steps = store.descend(query, funnel, rows, alpha=alpha)
        (truth,) = store.descend(query, exact, rows, alpha=alpha)
        others = truth.rows != itself
        best, scores = truth.rows[others], truth.scores[others]
        if not len(best):
            continue
        wanted = min(k, len(best))
        best = best[scores >= scores[wanted - 1]]
        survivors = [step.rows[step.rows != itself] for step in steps]
        survivors[-1] = survivors[-1][:k]
        alive.append([min(wanted, int(np.isin(best, each).sum())) / wanted for each in survivors])
        times.append((sum(step.ms for step in steps), truth.ms))
    if not alive:
        raise InvalidInput("nothing to compare: beside the query itself no row matches")
    recalls = [
        StageRecall(
            number, str(stage.resolution), stage.keep, float(shares.mean()),
            *bootstrap_interval(shares, seed=seed),
        )
        for number, (stage, shares) in enumerate(
            zip(funnel.stages, np.array(alive).T, strict=True), 1
        )
    ]  # fmt: skip
    funnel_ms, exact_ms = np.median(times, axis=0)
    return RecallReport(k, len(alive), tuple(recalls), float(funnel_ms), float(exact_ms))
