"""Calls of an asynchronous program, each in a thread of its own while it lasts.

What is between two requests is the synchronous engine's own code, in a thread; requests themselves
are coroutines of the program's loop, so that many are on their way at once, by the connections of
one client. A task that is cancelled stops the request that its call waits for, and ends when the
call has cleaned up.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["Calls", "Heeding", "Relay", "Stopped"]

_T = TypeVar("_T")

#: Calls under way at once; further ones wait. Each has a thread, which mostly waits for an answer.
_MOST = 64


class Stopped(BaseException):
    """Raised in the thread of a call whose task was cancelled; what it began is undone by it."""


class _Call:
    """One call: the loop that its requests run in, and whether it is to stop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._guard = threading.Lock()
        self._stopping = False
        self._waiting: set[Future[Any]] = set()
        self._told: set[int] = set()  # threads of the call; a load has several

    def stop(self) -> None:
        """Have every thread of the call hear of it, once: what it does then is cleaning up."""
        with self._guard:
            self._stopping, waiting = True, list(self._waiting)
        for future in waiting:
            future.cancel()

    def check(self) -> None:
        """Raise `Stopped` if the call is to stop and this thread has not heard of it."""
        with self._guard:
            if not self._stopping or threading.get_ident() in self._told:
                return
            self._told.add(threading.get_ident())
        raise Stopped

    def wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the loop."""
        try:
            self.check()
        except Stopped:
            coroutine.close()
            raise
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        with self._guard:
            self._waiting.add(future)
            late = self._stopping and threading.get_ident() not in self._told
        if late:  # it was stopped between the check and now
            future.cancel()
        try:
            return future.result()
        except CancelledError:
            self.check()
            raise
        finally:
            with self._guard:
                self._waiting.discard(future)


_current: contextvars.ContextVar[_Call] = contextvars.ContextVar("funnelvec_call")


class Calls:
    """Runs calls in threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MOST, "funnelvec-call")

    async def run(self, call: Callable[[], _T]) -> _T:
        """Make a call; where the task is cancelled, wait until the call has ended."""
        loop = asyncio.get_running_loop()
        state, context = _Call(loop), contextvars.copy_context()
        context.run(_current.set, state)
        running = loop.run_in_executor(self._pool, functools.partial(context.run, call))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            state.stop()
            while not running.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # seen: what the call says of its end is not raised
            raise

    def close(self) -> None:
        """Let the threads go when their calls have ended."""
        self._pool.shutdown(wait=False)


class Relay:
    """An asynchronous client that passes for a synchronous one in the threads of calls."""

    def __init__(self, client: Any) -> None:
        self._asynchronous = client
        self._client = client._client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._asynchronous, name)

        @functools.wraps(found)
        def call(*args: Any, **given: Any) -> Any:
            return _current.get().wait(found(*args, **given))

        return call


class Heeding:
    """A deployment in this process, whose calls cannot be stopped: one is not followed by more."""

    def __init__(self, deployment: Any) -> None:
        self._deployment = deployment

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._deployment, name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def call(*args: Any, **given: Any) -> Any:
            state = _current.get()
            state.check()
            return found(*args, **given)

        return call

    def settle(self, collection: str, told: Callable[[float], object] = lambda _: None) -> None:
        """Build indexes; that is long, and can be stopped where it tells how long it takes."""
        state = _current.get()

        def heard(seconds: float) -> None:
            state.check()
            told(seconds)

        self._deployment.settle(collection, heard)
