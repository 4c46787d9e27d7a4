"""The asynchronous engine: the methods of `QdrantEngine` and `QdrantTable`, to be awaited.

There is no second text of them. `awaited` makes a coroutine of a method, with its arguments and its
documentation, which runs it by `Calls`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from qdrant_client import AsyncQdrantClient

from funnelvec.engines.base import Capabilities
from funnelvec.engines.keys import KeyName
from funnelvec.engines.qdrant.calling import Calls, Heeding, Relay
from funnelvec.engines.qdrant.client import ClientDeployment
from funnelvec.engines.qdrant.deployment import Deployment
from funnelvec.engines.qdrant.engine import QdrantEngine, client_options, edge_deployment
from funnelvec.engines.qdrant.failing import errors
from funnelvec.engines.qdrant.hook.client import unhooked
from funnelvec.engines.qdrant.table import QdrantTable
from funnelvec.reports import Problem, Repair
from funnelvec.types import BaseCode, ColumnKind, Metric

__all__ = [
    "AsyncQdrantEngine",
    "AsyncQdrantTable",
    "connect",
    "connect_edge",
    "connect_local",
    "wrap",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def connect(url: str, **given: Any) -> AsyncQdrantEngine:
    """Open a server; `given` is what `AsyncQdrantClient` takes."""
    with errors():
        client = AsyncQdrantClient(url=url, check_compatibility=False, **client_options(given))
    return await _over(client, owned=True)


async def connect_local(path: str, **given: Any) -> AsyncQdrantEngine:
    """Open the client's local mode, which does its work in the loop: it is for tests."""
    with errors():
        place: dict[str, Any] = {"location": path} if path == ":memory:" else {"path": path}
        client = AsyncQdrantClient(**place, **given)
    return await _over(client, owned=True)


async def connect_edge(path: str) -> AsyncQdrantEngine:
    """Open a folder of collections; Edge searches one query after the other, in a thread."""
    calls = Calls()
    deployment = await calls.run(lambda: edge_deployment(path))
    return AsyncQdrantEngine(QdrantEngine(cast("Deployment", Heeding(deployment))), calls)


async def wrap(client: AsyncQdrantClient) -> AsyncQdrantEngine:
    """Use a client that the application has, or the one below its hook; closing leaves it open."""
    return await _over(unhooked(client), owned=False)


async def _over(client: AsyncQdrantClient, *, owned: bool) -> AsyncQdrantEngine:
    calls, relay = Calls(), cast("Any", Relay(client))
    try:
        made = await calls.run(lambda: QdrantEngine(ClientDeployment(relay, owned=owned)))
    except BaseException:
        calls.close()
        if owned:
            await client.close()
        raise
    return AsyncQdrantEngine(made, calls)


def awaited(
    method: Callable[Concatenate[QdrantTable, _P], _T],
) -> Callable[Concatenate[AsyncQdrantTable, _P], Coroutine[Any, Any, _T]]:
    """Make a coroutine of a method of the synchronous table."""

    @functools.wraps(method)
    async def call(self: AsyncQdrantTable, /, *args: _P.args, **given: _P.kwargs) -> _T:
        return await self._calls.run(functools.partial(method, self._table, *args, **given))

    return call


class AsyncQdrantTable:
    """One vector of a collection; see `funnelvec.engines.base.Table` for what its methods do.

    Several calls may be under way at once. What the caller hands over to be called, `progress`,
    `on_step` and iterators to load from, is called in the thread of the call.
    """

    def __init__(self, table: QdrantTable, calls: Calls) -> None:
        self._table, self._calls = table, calls
        # None of these change while a collection lives, so nobody has to be asked again.
        self._dims, self._code = table.dims, table.code
        self._metric, self._key = table.metric, table.key

    @property
    def name(self) -> str:
        """Name of the collection."""
        return self._table.name

    @property
    def vector(self) -> str:
        """Name of the vector."""
        return self._table.vector

    @property
    def dims(self) -> int:
        """Width of the vector."""
        return self._dims

    @property
    def code(self) -> BaseCode:
        """Code of the vector."""
        return self._code

    @property
    def metric(self) -> Metric:
        """What the vector is compared by."""
        return self._metric

    @property
    def key(self) -> KeyName:
        """Name of the key column, or the names of its columns."""
        return self._key

    def __repr__(self) -> str:
        return (
            f"<AsyncQdrantTable {self.name!r}, {self.vector} {self.dims}:{self.code} {self.metric}>"
        )

    count = awaited(QdrantTable.count)
    add_resolution = awaited(QdrantTable.add_resolution)
    add_resolutions = awaited(QdrantTable.add_resolutions)
    backfill = awaited(QdrantTable.backfill)
    drop_resolution = awaited(QdrantTable.drop_resolution)
    add_window = awaited(QdrantTable.add_window)
    drop_window = awaited(QdrantTable.drop_window)
    add_hub = awaited(QdrantTable.add_hub)
    drop_hub = awaited(QdrantTable.drop_hub)
    create_funnel = awaited(QdrantTable.create_funnel)
    drop_funnel = awaited(QdrantTable.drop_funnel)
    search = awaited(QdrantTable.search)
    search_many = awaited(QdrantTable.search_many)
    explain = awaited(QdrantTable.explain)
    measure_recall = awaited(QdrantTable.measure_recall)
    status = awaited(QdrantTable.status)
    sample = awaited(QdrantTable.sample)
    doctor = awaited(QdrantTable.doctor)
    add = awaited(QdrantTable.add)
    upsert = awaited(QdrantTable.upsert)
    delete = awaited(QdrantTable.delete)
    load = awaited(QdrantTable.load)
    calibrate = awaited(QdrantTable.calibrate)
    certify = awaited(QdrantTable.certify)
    fit_rotation = awaited(QdrantTable.fit_rotation)
    rotations = awaited(QdrantTable.rotations)
    drop_rotation = awaited(QdrantTable.drop_rotation)
    tune = awaited(QdrantTable.tune)
    evaluate = awaited(QdrantTable.evaluate)
    answers = awaited(QdrantTable.answers)
    log_queries = awaited(QdrantTable.log_queries)
    stop_logging = awaited(QdrantTable.stop_logging)
    logged_queries = awaited(QdrantTable.logged_queries)
    feedback = awaited(QdrantTable.feedback)
    feedback_state = awaited(QdrantTable.feedback_state)
    adopt_feedback = awaited(QdrantTable.adopt_feedback)
    check_drift = awaited(QdrantTable.check_drift)


class AsyncQdrantEngine:
    """Collections as tables; see `funnelvec.engines.base.Engine` for the contract."""

    def __init__(self, engine: QdrantEngine, calls: Calls) -> None:
        self._engine, self._calls = engine, calls

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        return self._engine.capabilities

    async def table(self, name: str, *, vector: str | None = None) -> AsyncQdrantTable:
        """Open a collection by one of its vectors; ``""`` is the one without a name."""
        return await self._calls.run(
            lambda: AsyncQdrantTable(self._engine.table(name, vector=vector), self._calls)
        )

    #: What Qdrant calls a table.
    collection = table

    async def create(
        self,
        name: str,
        *,
        dims: int,
        vector: str = "embedding",
        dtype: BaseCode = "f32",
        metric: Metric = "cosine",
        id: str | Sequence[str] = "id",
        id_kind: ColumnKind | Sequence[ColumnKind] = "integer",
        columns: Mapping[str, ColumnKind] | None = None,
    ) -> AsyncQdrantTable:
        """Create an empty collection; its columns have payload indexes, but JSON."""
        make = functools.partial(self._engine.create, name, dims=dims, vector=vector, dtype=dtype)
        more = functools.partial(make, metric=metric, id=id, id_kind=id_kind, columns=columns)
        return await self._calls.run(lambda: AsyncQdrantTable(more(), self._calls))

    async def problems(self) -> list[Problem]:
        """List hub columns that other programs' writes have left behind."""
        return await self._calls.run(self._engine.problems)

    async def repair(self, *, dry_run: bool = False) -> list[Repair]:
        """Measure rows that their hub columns do not know."""
        return await self._calls.run(lambda: self._engine.repair(dry_run=dry_run))

    async def close(self) -> None:
        """Release what was opened here; a client of the application's stays open."""
        try:
            await self._calls.run(self._engine.close)
        finally:
            self._calls.close()

    async def __aenter__(self) -> AsyncQdrantEngine:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
