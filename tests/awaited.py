"""The asynchronous engine in synchronous clothes, so that one test serves both.

`Awaited` wraps an engine or a table: what is a coroutine is run to its end on a loop of its own,
what comes back is wrapped again where that is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any, cast

import funnelvec as fv

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync import PostgresEngine


class Awaited:
    """An asynchronous object whose methods do not have to be awaited."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._inner, self._loop = inner, loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *given, **options: self._run(found(*given, **options))

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        result = self._loop.run_until_complete(coroutine)
        aio = ("funnelvec.engines.postgres.aio", "funnelvec.engines.qdrant.aio")
        ours = type(result).__module__.startswith(aio)
        driver = type(result).__module__.startswith("psycopg")
        return Awaited(result, self._loop) if ours or driver else result

    def __len__(self) -> int:
        return int(self._run(self._inner.count()))

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        """The engine's connection, its methods run the same way."""
        lent = self._inner.connection()
        yield Awaited(self._run_bare(lent.__aenter__()), self._loop)
        self._run_bare(lent.__aexit__(None, None, None))

    def _run_bare(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)


@contextlib.contextmanager
def opened(url: str, how: str, **options: Any) -> Iterator[PostgresEngine]:
    """Open the ``"sync"`` engine, or the ``"async"`` one in the same clothes."""
    if how == "sync":
        with fv.connect(url, **options) as engine:
            yield cast("PostgresEngine", engine)
        return
    loop = asyncio.new_event_loop()
    try:
        engine = loop.run_until_complete(_awaited(fv.connect_async(url, **options)))
        yield cast("PostgresEngine", Awaited(engine, loop))
        loop.run_until_complete(engine.close())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _awaited(opening: Any) -> Any:
    return await opening
