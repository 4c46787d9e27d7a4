"""The asynchronous table: one vector column of one table; see `funnelvec.engines.base.Table`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from psycopg import sql

from funnelvec import filters
from funnelvec.calibration.platt import PlattCalibration
from funnelvec.engines import checks, options
from funnelvec.engines.base import Progress, default_funnel
from funnelvec.engines.keys import KeyName
from funnelvec.engines.postgres import load
from funnelvec.engines.postgres.adapt import DTYPES, VectorParameter, quoted, statement
from funnelvec.engines.postgres.aio import copy, filling
from funnelvec.engines.postgres.aio.connection import (
    Connection,
    atomic,
    cursor,
    fetch_all,
    fetch_one,
)
from funnelvec.engines.postgres.twins import in_thread
from funnelvec.errors import NotFound
from funnelvec.funnel import Funnel
from funnelvec.resolution import Resolution
from funnelvec.types import (
    BaseCode,
    Explanation,
    FillingStep,
    Hit,
    Judgments,
    Key,
    Metric,
    RecallReport,
    ResolutionStatus,
    StageRecall,
    StageReport,
    Storage,
    needs_direction,
)

if TYPE_CHECKING:
    from funnelvec.engines.postgres.aio.engine import AsyncPostgresEngine

__all__ = ["AsyncPostgresTable"]


class StoredFunnel(NamedTuple):
    """What the registry says of a funnel."""

    funnel: str
    model: str
    metric: Metric


class AsyncPostgresTable:
    """A table of the user's, seen through one vector column."""

    def __init__(
        self,
        engine: AsyncPostgresEngine,
        schema: str,
        name: str,
        *,
        vector: str,
        dims: int,
        code: BaseCode,
        metric: Metric,
        key: KeyName,
    ) -> None:
        self._engine = engine
        self._schema = schema
        self._name = name
        self._vector = vector
        self._dims = dims
        self._code: BaseCode = code
        self._metric: Metric = metric
        self._key = key
        self._funnels: dict[str, StoredFunnel] = {}

    @property
    def name(self) -> str:
        """Name of the table, without its schema."""
        return self._name

    @property
    def schema(self) -> str:
        """Schema that the table, and with it the functions of its funnels, live in."""
        return self._schema

    @property
    def vector(self) -> str:
        """Name of the vector column."""
        return self._vector

    @property
    def dims(self) -> int:
        """Width of the vector column."""
        return self._dims

    @property
    def code(self) -> BaseCode:
        """Code of the vector column: ``f32`` for ``vector``, ``f16`` for ``halfvec``."""
        return self._code

    @property
    def metric(self) -> Metric:
        """What the column is compared by, as this handle last saw it."""
        return self._metric

    @property
    def key(self) -> KeyName:
        """Name of the key column, or the names of its columns."""
        return self._key

    def __repr__(self) -> str:
        column = f"{self._vector} {self._dims}:{self._code} {self._metric}"
        return f"<AsyncPostgresTable {self._regclass}, {column}>"

    # sync only: def __len__(self) -> int:
    # sync only:     return self.count()

    async def count(self) -> int:
        """Count the rows."""
        async with self._engine._calling() as connection:
            return await self._count(connection)

    async def add(
        self,
        ids: Sequence[Key],
        vectors: npt.ArrayLike,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        progress: Progress = False,
    ) -> int:
        """Add rows by binary COPY, all or none."""
        options.check_progress(progress)
        async with self._engine._calling() as connection:
            known = await copy.read_columns(connection, self._regclass)
            rows = await in_thread(
                partial(
                    load.prepare, known, key=self._key, vector=self._vector, dims=self._dims,
                    code=self._code, directed=needs_direction(self._metric),
                    ids=ids, vectors=vectors, columns=columns,
                )
            )  # fmt: skip
            async with atomic(connection):
                await copy.copy_rows(connection, self._identifier, rows, progress)
        return len(rows.ids)

    async def add_resolution(
        self,
        resolution: Resolution | str,
        *,
        index: bool = False,
        allow_rewrite: bool = False,
        metric: Metric | None = None,
        storage: Storage | None = None,
    ) -> None:
        """Store a resolution in a generated column, or in a side table that `backfill` fills."""
        text = str(checks.check_resolution(resolution, dims=self._dims, code=self._code))
        await self._call(
            "add_resolution",
            resolution=text,
            index=options.check_flag(index, "index"),
            allow_rewrite=options.check_flag(allow_rewrite, "allow_rewrite"),
            metric=checks.check_metric(metric),
            storage=options.check_storage(storage),
        )

    async def backfill(
        self,
        *,
        batch: int | None = None,
        progress: Progress = False,
        on_step: Callable[[FillingStep], None] | None = None,
    ) -> int:
        """Fill the side tables of this table, build their indexes and switch searches over."""
        options.check_progress(progress)
        rows = options.check_batch(batch)
        async with self._engine._calling() as connection:
            return await filling.backfill(
                connection, self._regclass, batch=rows, progress=progress, on_step=on_step
            )

    async def drop_resolution(self, resolution: Resolution | str) -> None:
        """Remove the column and index of a resolution."""
        await self._call(
            "drop_resolution", resolution=str(checks.check_resolution(resolution, dims=self._dims))
        )

    async def create_funnel(
        self,
        name: str,
        funnel: Funnel | str,
        *,
        approximate: bool = False,
        replace: bool = False,
        model: str | None = None,
        metric: Metric | None = None,
    ) -> None:
        """Create a funnel and its SQL function ``name(query, k, min_relevance, filter)``."""
        checks.check_name(name, "the name of a funnel")
        options.check_flag(approximate, "approximate")
        parsed = funnel if isinstance(funnel, Funnel) else Funnel.parse(funnel)
        parsed.check(dims=self._dims, code=self._code, approximate=approximate)
        await self._call(
            "create_funnel",
            name=name,
            funnel=str(parsed),
            approximate=bool(approximate),
            replace=options.check_flag(replace, "replace"),
            model=model,
            metric=checks.check_metric(metric),
        )
        self._funnels = {}

    async def drop_funnel(self, name: str) -> None:
        """Drop a funnel and its SQL function; its calibration stays with the column."""
        await self._call("drop_funnel", funnel=self._funnel_name(name))
        self._funnels = {}

    async def search(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        funnel: str | None = None,
    ) -> list[Hit]:
        """Return at most `k` rows, best first, by calling the SQL function of the funnel."""
        # The function takes what the column holds; what has no direction it refuses itself.
        vector = VectorParameter(self._query(query).astype(DTYPES[self._code], copy=False))
        checks.check_k(k)
        threshold = checks.check_min_relevance(min_relevance)
        parsed = filters.parse(filter)
        async with self._engine._calling() as connection:
            name, _ = await self._known_funnel(connection, funnel)
            command = sql.SQL("select * from {}(%s, %s, %s, %s)").format(
                sql.Identifier(self._schema, name)
            )
            rows = await fetch_all(
                connection,
                command,
                (vector, k, threshold, None if parsed is None else filters.to_json(parsed)),
            )
        if isinstance(self._key, str):
            return [Hit(*row) for row in rows]
        return [Hit(tuple(key), score, relevance) for *key, score, relevance in rows]

    async def explain(
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
        async with self._engine._calling() as connection, atomic(connection):
            name, stored = await self._known_funnel(connection, funnel)
            rows = await fetch_all(
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
        stages = tuple(StageReport(*row) for row in rows)
        return Explanation(
            funnel=stored.funnel,
            stages=stages,
            total_ms=round(sum(stage.ms for stage in stages), 3),
        )

    async def measure_recall(
        self, *, sample: int = 200, k: int = 10, funnel: str | None = None, seed: int = 0
    ) -> RecallReport:
        """Measure the funnel against exact search in the database, stage by stage."""
        async with self._engine._calling() as connection, atomic(connection):
            name, stored = await self._known_funnel(connection, funnel)
            checks.check_recall_arguments(
                sample=sample,
                k=k,
                seed=seed,
                funnel=Funnel.parse(stored.funnel),
                rows=await self._count(connection),
            )
            rows = await fetch_all(
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

    async def calibrate(
        self, judgments: Judgments, *, funnel: str | None = None
    ) -> PlattCalibration:
        """Fit relevance in the database; the judgments go there in a temporary table."""
        async with self._engine._calling() as connection, atomic(connection):
            name, stored = await self._known_funnel(connection, funnel)
            judged = load.prepare_judgments(
                judgments, await copy.read_columns(connection, self._regclass),
                key=self._key, vector=self._vector, dims=self._dims, code=self._code,
                directed=needs_direction(stored.metric),
            )  # fmt: skip
            await copy.copy_judgments(connection, self._identifier, judged)
            row = await fetch_one(
                connection, statement("calibrate"), {"funnel": quoted(self._schema, name)}
            )
            await cursor(connection).execute("drop table pg_temp.funnelvec_judgments")
        assert row is not None  # calibrate returns one row or raises
        _, slope, offset, queries, pairs, relevant, _, sha256 = row
        return PlattCalibration(
            slope=slope,
            offset=offset,
            model=stored.model or None,
            vector=self._vector,
            metric=stored.metric,
            last_stage=str(Funnel.parse(stored.funnel).last.resolution),
            judgments_sha256=sha256,
            n_pairs=pairs,
            n_relevant=relevant,
            n_queries=queries,
        )

    async def status(self) -> list[ResolutionStatus]:
        """Report every stored resolution of this vector column."""
        async with self._engine._calling() as connection:
            rows = await fetch_all(
                connection, statement("status"), {"table": self._regclass, "vector": self._vector}
            )
        return [ResolutionStatus(*row) for row in rows]

    def _query(self, query: npt.ArrayLike) -> npt.NDArray[np.float32]:
        return checks.check_query(query, dims=self._dims, code=self._code, directed=False)

    @property
    def _identifier(self) -> sql.Identifier:
        return sql.Identifier(self._schema, self._name)

    @property
    def _regclass(self) -> str:
        return quoted(self._schema, self._name)

    def _funnel_name(self, name: str) -> str:
        return quoted(self._schema, checks.check_name(name, "the name of a funnel"))

    async def _call(self, what: str, /, **arguments: Any) -> None:
        async with self._engine._calling() as connection, atomic(connection):
            column = {"table": self._regclass, "vector": self._vector}
            await cursor(connection).execute(statement(what), {**column, **arguments})
            row = await fetch_one(connection, statement("metric"), column)
        if row is not None:
            self._metric = row[0]

    async def _count(self, connection: Connection) -> int:
        query = sql.SQL("select count(*) from {}").format(self._identifier)
        row = await fetch_one(connection, query)
        return int(row[0]) if row else 0

    async def _known_funnel(
        self, connection: Connection, name: str | None
    ) -> tuple[str, StoredFunnel]:
        """Return a funnel that the registry knows, asking it once per name."""
        wanted = default_funnel(self._name) if name is None else checks.check_name(name, "funnel")
        known = self._funnels  # replaced and never changed, so other threads may do so meanwhile
        if wanted not in known:
            rows = await fetch_all(
                connection, statement("funnels"), {"table": self._regclass, "vector": self._vector}
            )
            known = self._funnels = {row[0]: StoredFunnel(*row[1:]) for row in rows}
        if wanted not in known:
            others = ", ".join(sorted(known)) or "none"
            raise NotFound(
                f"table {self._name!r} has no funnel {wanted!r}; make it with create_funnel() or "
                f"name another with funnel= (there are: {others})"
            )
        return wanted, known[wanted]
