"""What the synchronous and the asynchronous engine each do in a way of their own.

The two are one text: ``sync/`` is written from ``aio/`` by ``tools/write_sync.py``, which drops
`await` and puts one name of each pair below for the other: `thread_lock` for `task_lock`,
`in_place` for `in_thread`, `is_pool` for `is_async_pool`, `take` for `take_async`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["Ahead", "in_place", "in_thread", "is_async_pool", "is_pool", "task_lock", "thread_lock"]

Result = TypeVar("Result")

# By connection and not by engine: `wrap` may have been called twice on one connection. A lock that
# belongs to nothing else would keep a connection alive, hence the weak keys.
_thread_locks: WeakKeyDictionary[object, contextlib.AbstractContextManager[Any]]
_task_locks: WeakKeyDictionary[object, asyncio.Lock]
_thread_locks, _task_locks = WeakKeyDictionary(), WeakKeyDictionary()
_guard = threading.Lock()


def thread_lock(connection: object) -> contextlib.AbstractContextManager[Any]:
    """Return the lock that a call holds while it uses this connection.

    psycopg serialises statements. A call of ours is several, some of them in a transaction, and
    transactions of two threads on one connection would close in the wrong order.
    """
    with _guard:
        if (lock := _thread_locks.get(connection)) is None:
            # Re-entrant: a progress callback that searches gets the driver's error, no deadlock.
            lock = _thread_locks[connection] = threading.RLock()
        return lock


def task_lock(connection: object) -> asyncio.Lock:
    """Return the lock that a call holds while it uses this connection; see `thread_lock`."""
    with _guard:
        if (lock := _task_locks.get(connection)) is None:
            lock = _task_locks[connection] = asyncio.Lock()
        return lock


async def in_thread(
    call: Callable[[], Result], undo: Callable[[Result], object] | None = None
) -> Result:
    """Call in a thread, so that other tasks go on meanwhile.

    A thread cannot be stopped. When the task is cancelled and there is an `undo`, it waits for the
    end and undoes what the call returned.
    """
    if undo is None:
        return await asyncio.to_thread(call)
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled() and running.exception() is None:
            await asyncio.to_thread(undo, running.result())
        raise


def in_place(call: Callable[[], Result], undo: Callable[[Result], object] | None = None) -> Result:
    """Call it here and now; `undo` has nothing to undo."""
    return call()


class Ahead(Generic[Result]):
    """Calls a function again and again, the next time while its last result is being used.

    Without `threaded` it is called when its result is asked for: in place, or by `take_async` in
    some thread. After an error or None it is not called ahead again.
    """

    def __init__(self, call: Callable[[], Result], *, threaded: bool) -> None:
        self._call = call
        self._thread = ThreadPoolExecutor(1, "funnelvec") if threaded else None
        self._next: Future[Result] | None = self._thread.submit(call) if self._thread else None

    def take(self) -> Result:
        """Return the next result."""
        if self._next is None:
            return self._call()
        return self._taken(self._next.result())

    async def take_async(self) -> Result:
        """Return the next result."""
        if self._next is None:
            return await asyncio.to_thread(self._call)
        return self._taken(await asyncio.wrap_future(self._next))

    def _taken(self, result: Result) -> Result:
        if self._thread is not None and result is not None:
            self._next = self._thread.submit(self._call)
        return result

    def close(self) -> None:
        """Wait for the thread, if there is one."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)


def is_async_pool(obj: object) -> bool:
    """Whether it is an ``AsyncConnectionPool``, or works like one."""
    return _is_pool(obj) and inspect.iscoroutinefunction(getattr(obj, "getconn", None))


def is_pool(obj: object) -> bool:
    """Whether it is a ``ConnectionPool``, or works like one."""
    return _is_pool(obj) and not inspect.iscoroutinefunction(getattr(obj, "getconn", None))


def _is_pool(obj: object) -> bool:
    return callable(getattr(obj, "connection", None)) and callable(getattr(obj, "getconn", None))
