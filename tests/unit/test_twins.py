"""The synchronous and the asynchronous engine offer the same, and the tool that sees to it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

import pytest

import funnelvec as fv
from funnelvec.engines import base
from tools import write_sync

pytest.importorskip("psycopg")
pytest.importorskip("qdrant_client")

from funnelvec.engines.postgres import aio, sync, twins
from funnelvec.engines.qdrant import aio as qdrant

PAIRS = [
    (sync.PostgresEngine, aio.AsyncPostgresEngine),
    (sync.PostgresTable, aio.AsyncPostgresTable),
]
PROTOCOLS = [
    (base.Engine, aio.AsyncPostgresEngine),
    (base.Table, aio.AsyncPostgresTable),
    (base.Engine, qdrant.AsyncQdrantEngine),
    (base.Table, qdrant.AsyncQdrantTable),
]


def members(cls: type) -> dict[str, Any]:
    """What users call; a protocol brings what its base classes have."""
    return {name: value for name, value in inspect.getmembers(cls) if not name.startswith("_")}


def parameters(function: Any) -> list[tuple[str, Any, Any, Any]]:
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default, as_sync(str(p.annotation))) for p in found]


def as_sync(text: str | None) -> str:
    """A text about the asynchronous engine, said of the other one."""
    return write_sync.convert(f"{text!r}\n") if text else ""


@pytest.mark.parametrize(("plain", "awaited"), PAIRS, ids=lambda cls: cls.__name__)
def test_the_twins_offer_the_same(plain: type, awaited: type) -> None:
    assert members(plain).keys() == members(awaited).keys()
    for name, of_plain in members(plain).items():
        of_awaited = members(awaited)[name]
        assert as_sync(of_plain.__doc__) == as_sync(of_awaited.__doc__) != "", name
        if isinstance(of_plain, property):
            assert isinstance(of_awaited, property), name
            continue
        assert parameters(of_plain) == parameters(of_awaited), name
        lends = name == "connection"  # a context manager: nothing to await before it is entered
        assert inspect.iscoroutinefunction(of_awaited) or lends, name
        assert not inspect.iscoroutinefunction(of_plain), name


@pytest.mark.parametrize(("protocol", "awaited"), PROTOCOLS, ids=lambda cls: cls.__name__)
def test_the_asynchronous_one_has_all_that_every_engine_has(protocol: type, awaited: type) -> None:
    for name, expected in members(protocol).items():
        found = members(awaited)[name]
        if isinstance(expected, property):
            assert isinstance(found, property), name
        else:
            assert parameters(expected) == parameters(found), name
            assert inspect.iscoroutinefunction(found), name


@pytest.mark.parametrize("name", ["connect", "wrap", "connect_embedded"])
def test_the_ways_in_take_the_same(name: str) -> None:
    assert parameters(getattr(sync, name)) == parameters(getattr(aio, name))
    assert as_sync(getattr(sync, name).__doc__) == as_sync(getattr(aio, name).__doc__)
    if name != "connect_embedded":
        assert parameters(getattr(fv, name)) == parameters(getattr(fv, f"{name}_async"))


def test_the_synchronous_engine_is_what_the_tool_writes() -> None:
    pytest.importorskip("ruff")
    texts = write_sync.written()
    assert texts.keys() == set(write_sync.TARGET.glob("*.py"))
    for path, text in texts.items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is stale: run `make sync`"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("async def f():\n    return await g()\n", "def f():\n    return g()\n"),
        ("async with a as b, c:\n    pass\n", "with a as b, c:\n    pass\n"),
        ("x = [y async for y in z]\n", "x = [y for y in z]\n"),
        ("psycopg.AsyncCursor(AsyncIterator)\n", "psycopg.Cursor(Iterator)\n"),
        ("AbstractAsyncContextManager\n", "AbstractContextManager\n"),
        ("contextlib.asynccontextmanager\n", "contextlib.contextmanager\n"),
        ("wrap_async(__aenter__)\n", "wrap(__enter__)\n"),
        ("a.aio.b\n", "a.sync.b\n"),
        ("is_async_pool(in_thread, task_lock)\n", "is_pool(in_place, thread_lock)\n"),
        ("import asyncio  # async only\nx = 1\n", "x = 1\n"),
        ("if x:\n    # sync only: y()\n    pass\n", "if x:\n    y()\n    pass\n"),
        ("# The asynchronous one: await f()\n", "# The synchronous one: f()\n"),
        ("awaited = asynchrony\n", None),
        ("asyncio.sleep(0)\n", None),
        ("async \\\ndef f(): ...\n", None),
    ],
)
def test_what_the_tool_makes_of_a_text(source: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(write_sync.NotConvertible, match="line 1"):
            write_sync.convert(source)
    else:
        assert write_sync.convert(source) == expected


def test_a_cancelled_thread_is_undone_when_it_has_ended() -> None:
    started, go, undone = threading.Event(), threading.Event(), list[str]()

    def call() -> str:
        started.set()
        go.wait()
        return "result"

    async def main() -> None:
        task = asyncio.create_task(twins.in_thread(call, undo=undone.append))
        await asyncio.to_thread(started.wait)
        task.cancel()
        await asyncio.wait([task], timeout=0)
        assert not task.done()  # it does not leave the thread behind
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert undone == ["result"]


def test_a_lock_belongs_to_its_connection() -> None:
    class Connection:
        pass

    one, other = Connection(), Connection()
    assert twins.thread_lock(one) is twins.thread_lock(one) is not twins.thread_lock(other)
    assert twins.task_lock(one) is twins.task_lock(one) is not twins.task_lock(other)
    with twins.thread_lock(one), twins.thread_lock(one):
        pass
