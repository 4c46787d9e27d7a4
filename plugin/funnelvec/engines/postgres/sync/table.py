# Made from aio/table.py by tools/write_sync.py: change that file, then `make sync`.

"""The synchronous table: one vector column of one table; see `funnelvec.engines.base.Table`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import sql

from funnelvec.calibration.certificate import Certificate
from funnelvec.codes.maps import Rotation
from funnelvec.engines import checks, options
from funnelvec.engines.asking import check_promise, check_returns
from funnelvec.engines.base import Progress, default_funnel
from funnelvec.engines.keys import KeyName
from funnelvec.engines.postgres import load
from funnelvec.engines.postgres.adapt import quoted, statement
from funnelvec.engines.postgres.sync import copy, filling
from funnelvec.engines.postgres.sync.calibrating import Calibrating
from funnelvec.engines.postgres.sync.connection import (
    Connection,
    atomic,
    cursor,
    fetch_all,
    fetch_one,
)
from funnelvec.engines.postgres.sync.evaluating import Evaluating
from funnelvec.engines.postgres.sync.examining import Examining
from funnelvec.engines.postgres.sync.following import Following
from funnelvec.engines.postgres.sync.hubbing import Hubbing
from funnelvec.engines.postgres.sync.loading import Loading
from funnelvec.engines.postgres.sync.observing import Observing
from funnelvec.engines.postgres.sync.rotating import Rotating
from funnelvec.engines.postgres.sync.searching import Searching
from funnelvec.engines.postgres.sync.tuning import Tuning
from funnelvec.engines.together import needed
from funnelvec.errors import NotFound
from funnelvec.funnel import Funnel
from funnelvec.reports import FillingStep
from funnelvec.resolution import Resolution
from funnelvec.types import (
    BaseCode,
    Judgments,
    Metric,
    Storage,
    needs_direction,
)

if TYPE_CHECKING:
    from typing_extensions import LiteralString  # in typing from Python 3.11 on

    from funnelvec.engines.postgres.sync.engine import PostgresEngine
    from funnelvec.judging import Unjudged

__all__ = ["PostgresTable"]


class StoredFunnel(NamedTuple):
    """What the registry says of a funnel."""

    funnel: str
    model: str
    metric: Metric
    returns: tuple[str, ...]
    vector_oid: int
    vector_type: LiteralString
    maps: tuple[str, ...]
    map_dims: tuple[int, ...]
    map_oid: int
    map_type: LiteralString


class PostgresTable(
    Loading,
    Searching,
    Calibrating,
    Following,
    Observing,
    Examining,
    Evaluating,
    Rotating,
    Hubbing,
    Tuning,
):
    """A table of the user's, seen through one vector column."""

    def __init__(
        self,
        engine: PostgresEngine,
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
        self._maps: dict[str, Rotation] = {}

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
        return f"<PostgresTable {self._regclass}, {column}>"

    def __len__(self) -> int:
        return self.count()

    def count(self) -> int:
        """Count the rows."""
        with self._engine._calling() as connection:
            return self._count(connection)

    def add_resolution(
        self,
        resolution: Resolution | str,
        *,
        index: bool = False,
        allow_rewrite: bool = False,
        metric: Metric | None = None,
        storage: Storage | None = None,
        concurrently: bool = False,
        m: int | None = None,
        ef_construction: int | None = None,
    ) -> None:
        """Store a resolution in a generated column, or in a side table that `backfill` fills."""
        text = str(checks.check_resolution(resolution, dims=self._dims, code=self._code))
        links, listed = options.check_graph(m, ef_construction)
        self._call(
            "add_resolution",
            resolution=text,
            m=links,
            ef_construction=listed,
            index=options.check_flag(index, "index"),
            allow_rewrite=options.check_flag(allow_rewrite, "allow_rewrite"),
            metric=checks.check_metric(metric),
            storage=options.check_storage(storage),
            concurrently=options.check_flag(concurrently, "concurrently"),
        )

    def add_resolutions(
        self,
        funnel: Funnel | str,
        *,
        index: bool = True,
        allow_rewrite: bool = False,
        metric: Metric | None = None,
        storage: Storage | None = None,
        concurrently: bool = False,
    ) -> None:
        """Store every resolution that a funnel needs, in one rewrite of the table."""
        needed(funnel, dims=self._dims, code=self._code)
        self._call(
            "add_resolutions",
            funnel=str(funnel),
            index=options.check_flag(index, "index"),
            allow_rewrite=options.check_flag(allow_rewrite, "allow_rewrite"),
            metric=checks.check_metric(metric),
            storage=options.check_storage(storage),
            concurrently=options.check_flag(concurrently, "concurrently"),
        )

    def backfill(
        self,
        *,
        batch: int | None = None,
        progress: Progress = False,
        on_step: Callable[[FillingStep], None] | None = None,
    ) -> int:
        """Fill side tables, build the indexes that were left, and switch searches over."""
        options.check_progress(progress)
        rows = options.check_batch(batch)
        with self._engine._calling() as connection:
            return filling.backfill(
                connection, self._regclass, batch=rows, progress=progress, on_step=on_step
            )

    def drop_resolution(self, resolution: Resolution | str) -> None:
        """Remove the column and index of a resolution."""
        self._call(
            "drop_resolution", resolution=str(checks.check_resolution(resolution, dims=self._dims))
        )

    def add_window(
        self,
        resolution: Resolution | str,
        by: str,
        *,
        levels: int | None = None,
        allow_rewrite: bool = False,
        concurrently: bool = False,
    ) -> None:
        """Build partial indexes over ranges of a column, or leave them to `backfill`."""
        text = str(checks.check_resolution(resolution, dims=self._dims, code=self._code))
        self._call(
            "add_window",
            resolution=text,
            by=checks.check_name(by, "the column of the windows"),
            levels=options.check_levels(levels),
            allow_rewrite=options.check_flag(allow_rewrite, "allow_rewrite"),
            concurrently=options.check_flag(concurrently, "concurrently"),
        )

    def drop_window(self, resolution: Resolution | str, by: str) -> None:
        """Remove the windows of a resolution by a column, and their indexes."""
        self._call(
            "drop_window",
            resolution=str(checks.check_resolution(resolution, dims=self._dims)),
            by=checks.check_name(by, "the column of the windows"),
        )

    def create_funnel(
        self,
        name: str,
        funnel: Funnel | str,
        *,
        approximate: bool = False,
        replace: bool = False,
        model: str | None = None,
        metric: Metric | None = None,
        returns: Sequence[str] = (),
    ) -> None:
        """Create a funnel and its SQL function ``name(query, k, min_relevance, ...)``."""
        checks.check_name(name, "the name of a funnel")
        options.check_flag(approximate, "approximate")
        parsed = funnel if isinstance(funnel, Funnel) else Funnel.parse(funnel)
        parsed.check(dims=self._dims, code=self._code, approximate=approximate)
        self._call(
            "create_funnel",
            name=name,
            funnel=str(parsed),
            approximate=bool(approximate),
            replace=options.check_flag(replace, "replace"),
            model=model,
            metric=checks.check_metric(metric),
            returns=check_returns(returns),
        )
        self._funnels = {}

    def drop_funnel(self, name: str) -> None:
        """Drop a funnel and its SQL function; its calibration stays with the column."""
        self._call("drop_funnel", funnel=self._funnel_name(name))
        self._funnels = {}

    def certify(
        self,
        judgments: Judgments,
        *,
        max_miss: float | None = None,
        min_precision: float | None = None,
        confidence: float = 0.95,
        k: int | None = None,
        unjudged: Unjudged = "irrelevant",
        funnel: str | None = None,
    ) -> Certificate:
        """Certify a cutoff in the database; the judgments go there in a temporary table."""
        wanted = check_promise(
            max_miss=max_miss, min_precision=min_precision, confidence=confidence, unjudged=unjudged
        )
        rows = None if k is None else checks.check_k(k)
        with self._engine._calling() as connection, atomic(connection):
            name, stored = self._known_funnel(connection, funnel)
            layout = self._layout(connection)
            layout = layout._replace(directed=needs_direction(stored.metric))
            copy.copy_judgments(connection, load.prepare_judgments(judgments, layout))
            row = fetch_one(
                connection,
                statement("certify"),
                {
                    "funnel": quoted(self._schema, name),
                    "max_miss": wanted.level if wanted.kind == "max_miss" else None,
                    "min_precision": wanted.level if wanted.kind == "min_precision" else None,
                    "confidence": wanted.confidence,
                    "k": rows,
                    "unjudged": unjudged,
                },
            )
            cursor(connection).execute("drop table pg_temp.funnelvec_judgments")
        assert row is not None  # certify returns one row or raises
        return Certificate(*row)

    @property
    def _identifier(self) -> sql.Identifier:
        return sql.Identifier(self._schema, self._name)

    @property
    def _regclass(self) -> str:
        return quoted(self._schema, self._name)

    def _funnel_name(self, name: str) -> str:
        return quoted(self._schema, checks.check_name(name, "the name of a funnel"))

    def _call(self, what: str, /, **arguments: Any) -> None:
        with self._engine._calling() as connection, atomic(connection):
            column = {"table": self._regclass, "vector": self._vector}
            cursor(connection).execute(statement(what), {**column, **arguments})
            row = fetch_one(connection, statement("metric"), column)
        if row is not None:
            self._metric = row[0]

    def _count(self, connection: Connection) -> int:
        query = sql.SQL("select count(*) from {}").format(self._identifier)
        row = fetch_one(connection, query)
        return int(row[0]) if row else 0

    def _known_funnel(self, connection: Connection, name: str | None) -> tuple[str, StoredFunnel]:
        """Return a funnel that the registry knows, asking it once per name."""
        wanted = default_funnel(self._name) if name is None else checks.check_name(name, "funnel")
        known = self._funnels  # replaced and never changed, so other threads may do so meanwhile
        if wanted not in known:
            rows = fetch_all(
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
