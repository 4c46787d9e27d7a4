# Made from aio/observing.py by tools/write_sync.py: change that file, then `make sync`.

"""What an synchronous table says of itself: explain, measure_recall, status, the query log."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psycopg import sql

from funnelvec import filters
from funnelvec.engines import checks
from funnelvec.engines.asking import check_cutoff
from funnelvec.engines.checks import check_positive
from funnelvec.engines.options import check_flag
from funnelvec.engines.postgres.adapt import VectorParameter, quoted, statement
from funnelvec.engines.postgres.load import Layout, prepare_queries
from funnelvec.engines.postgres.sync import copy
from funnelvec.engines.postgres.sync.connection import (
    Connection,
    atomic,
    cursor,
    fetch_all,
    fetch_one,
)
from funnelvec.engines.recall import (
    check_log_arguments,
    check_queries,
    check_recall_arguments,
)
from funnelvec.errors import NotFound
from funnelvec.funnel import Funnel
from funnelvec.reports import (
    Explanation,
    RecallReport,
    ResolutionStatus,
    StageRecall,
    StageReport,
)
from funnelvec.resolution import Resolution
from funnelvec.types import BaseCode, Cutoff

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync.engine import PostgresEngine
    from funnelvec.engines.postgres.sync.table import StoredFunnel

__all__ = ["Observing"]

_MONTH = datetime.timedelta(days=30)


class Observing:
    """The methods of `PostgresTable` that look at it, and its query log."""

    if TYPE_CHECKING:  # what the table has and these methods use
        _engine: PostgresEngine
        _schema: str
        _vector: str
        _dims: int
        _code: BaseCode

        @property
        def _regclass(self) -> str: ...
        @property
        def _identifier(self) -> sql.Identifier: ...
        def _query(self, query: npt.ArrayLike) -> npt.NDArray[np.float32]: ...
        def _layout(self, connection: Connection) -> Layout: ...
        def _known_funnel(
            self, connection: Connection, name: str | None
        ) -> tuple[str, StoredFunnel]: ...

    @property
    def _base(self) -> Resolution:
        return Resolution(self._dims, self._code)

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
        """Run one search under EXPLAIN ANALYZE and read the stages off its plan."""
        vector = VectorParameter(self._query(query))
        checks.check_k(k)
        threshold = checks.check_min_relevance(min_relevance)
        parsed = filters.parse(filter)
        chosen = check_cutoff(cutoff, min_relevance=min_relevance)
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
                    "cutoff": chosen,
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
        self,
        *,
        sample: int | None = None,
        k: int = 10,
        funnel: str | None = None,
        seed: int = 0,
        queries: npt.ArrayLike | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> RecallReport:
        """Measure the funnel against exact search in the database, stage by stage."""
        given = None if queries is None else check_queries(queries, self._base)
        parsed = filters.parse(filter)
        with self._engine._calling() as connection, atomic(connection):
            name, stored = self._known_funnel(connection, funnel)
            some = fetch_one(
                connection,
                sql.SQL("select count(*) from (select from {} limit 2) as t").format(
                    self._identifier
                ),
            )
            size = check_recall_arguments(
                sample=sample, k=k, seed=seed, funnel=Funnel.parse(stored.funnel),
                rows=some[0] if some else 0, given=None if given is None else len(given),
            )  # fmt: skip
            source = None
            if given is not None:
                layout = self._layout(connection)
                source = copy.copy_queries(connection, prepare_queries(given, layout))
            rows = fetch_all(
                connection,
                statement("measure_recall"),
                {
                    "funnel": quoted(self._schema, name),
                    "sample": size, "k": k, "seed": seed, "queries": source,
                    "filter": None if parsed is None else filters.to_json(parsed),
                },
            )  # fmt: skip
            if source is not None:
                cursor(connection).execute("drop table pg_temp.funnelvec_queries")
        *_, asked, funnel_ms, exact_ms = rows[-1]
        return RecallReport(
            k=k,
            queries=asked,
            stages=tuple(StageRecall(*row[:6]) for row in rows),
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

    def log_queries(
        self,
        *,
        share: float = 0.01,
        keep_for: datetime.timedelta = _MONTH,
        max_rows: int = 100_000,
        roles: bool = False,
        funnel: str | None = None,
    ) -> None:
        """Log a share of the funnel's queries in the table ``<funnel>_log``, for the owner only."""
        share, keep_for = check_log_arguments(share=share, keep_for=keep_for)
        options = {
            "share": share,
            "keep_for": keep_for,
            "max_rows": min(check_positive(max_rows, "max_rows"), 2**31 - 1),
            "roles": check_flag(roles, "roles"),
        }
        with self._engine._calling() as connection, atomic(connection):
            name, _ = self._known_funnel(connection, funnel)
            fetch_one(
                connection,
                statement("log_queries"),
                {"funnel": quoted(self._schema, name), **options},
            )

    def stop_logging(self, *, forget: bool = False, funnel: str | None = None) -> None:
        """Log no more queries; with `forget` the logged ones are dropped."""
        check_flag(forget, "forget")
        with self._engine._calling() as connection, atomic(connection):
            name, _ = self._known_funnel(connection, funnel)
            fetch_one(
                connection,
                statement("stop_logging"),
                {"funnel": quoted(self._schema, name), "forget": forget},
            )

    def logged_queries(
        self, limit: int = 1000, *, funnel: str | None = None
    ) -> npt.NDArray[np.float32]:
        """Return the queries that were logged last, newest first."""
        limit = min(check_positive(limit, "limit"), 2**63 - 1)
        with self._engine._calling() as connection:
            name, _ = self._known_funnel(connection, funnel)
            row = fetch_one(
                connection, statement("query_log"), {"table": self._regclass, "funnel": name}
            )
            if row is None or row[0] is None:
                raise NotFound(
                    f"funnel {name!r} has no query log; log_queries(funnel={name!r}) starts one"
                )
            log = sql.SQL("select q.query::real[] from {} as q order by q.id desc limit %s").format(
                sql.Identifier(self._schema, row[0])
            )
            rows = fetch_all(connection, log, (limit,))
        return np.array([row[0] for row in rows], np.float32).reshape(-1, self._dims)
