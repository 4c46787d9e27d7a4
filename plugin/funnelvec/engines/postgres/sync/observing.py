# Made from aio/observing.py by tools/write_sync.py: change that file, then `make sync`.

"""What an synchronous table says of itself: explain, measure_recall, status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec import filters
from funnelvec.engines import checks
from funnelvec.engines.postgres.adapt import VectorParameter, quoted, statement
from funnelvec.engines.postgres.sync.connection import Connection, atomic, fetch_all
from funnelvec.funnel import Funnel
from funnelvec.types import (
    Explanation,
    RecallReport,
    ResolutionStatus,
    StageRecall,
    StageReport,
)

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync.engine import PostgresEngine
    from funnelvec.engines.postgres.sync.table import StoredFunnel

__all__ = ["Observing"]


class Observing:
    """The methods of `PostgresTable` that look and change nothing."""

    if TYPE_CHECKING:  # what the table has and these methods use
        _engine: PostgresEngine
        _schema: str
        _vector: str

        @property
        def _regclass(self) -> str: ...
        def _query(self, query: npt.ArrayLike) -> npt.NDArray[np.float32]: ...
        def _count(self, connection: Connection) -> int: ...
        def _known_funnel(
            self, connection: Connection, name: str | None
        ) -> tuple[str, StoredFunnel]: ...

    def explain(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        funnel: str | None = None,
    ) -> Explanation:
        """Run one search under EXPLAIN ANALYZE and read the stages off its plan."""
        vector = VectorParameter(self._query(query))
        checks.check_k(k)
        threshold = checks.check_min_relevance(min_relevance)
        parsed = filters.parse(filter)
        with self._engine._calling() as connection, atomic(connection):
            name, stored = self._known_funnel(connection, funnel)
            rows = fetch_all(
                connection,
                statement("explain"),
                {
                    "funnel": quoted(self._schema, name),
                    "query": vector,
                    "k": k,
                    "min_relevance": threshold,
                    "filter": None if parsed is None else filters.to_json(parsed),
                },
            )
        stages = tuple(StageReport(*row[:-1]) for row in rows)
        notes = (f"stage {row[0]} ({row[1]}): {note}" for row in rows for note in row[-1])
        return Explanation(
            funnel=stored.funnel,
            stages=stages,
            total_ms=round(sum(stage.ms for stage in stages), 3),
            notes=tuple(notes),
        )

    def measure_recall(
        self, *, sample: int = 200, k: int = 10, funnel: str | None = None, seed: int = 0
    ) -> RecallReport:
        """Measure the funnel against exact search in the database, stage by stage."""
        with self._engine._calling() as connection, atomic(connection):
            name, stored = self._known_funnel(connection, funnel)
            checks.check_recall_arguments(
                sample=sample,
                k=k,
                seed=seed,
                funnel=Funnel.parse(stored.funnel),
                rows=self._count(connection),
            )
            rows = fetch_all(
                connection,
                statement("measure_recall"),
                {"funnel": quoted(self._schema, name), "sample": sample, "k": k, "seed": seed},
            )
        *_, queries, funnel_ms, exact_ms = rows[-1]
        return RecallReport(
            k=k,
            queries=queries,
            stages=tuple(StageRecall(*row[:4]) for row in rows),
            funnel_ms=funnel_ms,
            exact_ms=exact_ms,
        )

    def status(self) -> list[ResolutionStatus]:
        """Report every stored resolution of this vector column."""
        with self._engine._calling() as connection:
            rows = fetch_all(
                connection, statement("status"), {"table": self._regclass, "vector": self._vector}
            )
        return [ResolutionStatus(*row) for row in rows]
