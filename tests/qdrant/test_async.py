"""The asynchronous engine: over HTTP (see `facade`), over local mode and over Edge."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

import funnelvec as fv
from funnelvec.engines.qdrant.aio import AsyncQdrantEngine, AsyncQdrantTable
from funnelvec.errors import CapabilityError, Conflict, InvalidInput, NotFound, Unreachable
from funnelvec.funnel import Funnel
from tests import awaited
from tests.agreement import edge
from tests.agreement.scenarios import Scenario, ask, compare, load, tolerance
from tests.agreement.test_qdrant import CHOSEN, HALVES, REFUSED
from tests.qdrant.facade import Server

N, DIMS = 300, 8
VECTORS = np.random.default_rng(6).normal(size=(N, DIMS)).astype(np.float32)
NUMBERS = iter(range(1_000))
#: The same code ran synchronously on all of them: some of every family is enough.
SOME = [scenario for scenario in CHOSEN if scenario.name not in REFUSED]


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with edge.folder() as folder:
        Path(folder).mkdir()
        server = Server(Path(folder))
        yield server
        server.close()


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    yield running
    running.together = None


async def made(engine: AsyncQdrantEngine) -> AsyncQdrantTable:
    docs = await engine.create(f"docs_{next(NUMBERS)}", dims=DIMS, columns={"n": "integer"})
    await docs.add(range(N), VECTORS, columns={"n": range(N)})
    await docs.add_resolution("4:f16", index=True)
    await docs.create_funnel(f"{docs.name}_search", "4:f16@50 > 8:f32")
    return docs


def over(url: str, body: Callable[[AsyncQdrantEngine], Awaitable[None]]) -> None:
    async def run() -> None:
        async with fv.connect_async(url) as engine:
            assert isinstance(engine, AsyncQdrantEngine)
            await body(engine)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("where", "scenario"),
    [
        *(("http", scenario) for scenario in SOME[::10]),
        *(("local", scenario) for scenario in SOME[::25]),
        *(("edge", scenario) for scenario in SOME[::40]),
    ],
    ids=lambda given: given if isinstance(given, str) else given.name,
)
def test_the_asynchronous_engine_answers_like_memory(
    request: pytest.FixtureRequest, where: str, scenario: Scenario
) -> None:
    with fv.connect("memory:") as memory:
        expected = ask(load(memory, scenario), scenario)
    with edge.folder() as folder:
        urls = {"local": "qdrant-local::memory:", "edge": f"edge:{folder}"}
        url = urls.get(where) or request.getfixturevalue("server").url
        with awaited.opened(url, "async") as engine:
            engine_names = {"http": "qdrant", "local": "qdrant-local", "edge": "edge"}
            assert engine.capabilities.name == engine_names[where]
            answer = ask(load(engine, scenario), scenario)
    last = Funnel.parse(scenario.funnel).last.resolution
    halves = last.code == "f16" and scenario.metric == "cosine"
    near = HALVES if halves else tolerance(scenario)
    compare(expected, answer, near, relevance=2 * HALVES if halves else 1e-4)


def test_searches_are_on_their_way_at_once(server: Server) -> None:
    async def body(engine: AsyncQdrantEngine) -> None:
        docs = await made(engine)
        await docs.search(VECTORS[0])
        server.together = "POST", "/points/query", threading.Barrier(20, timeout=60)
        found = await asyncio.gather(*(docs.search(VECTORS[row], k=3) for row in range(20)))
        server.together = None
        assert [answer[0].id for answer in found] == list(range(20))
        assert [type(answer) for answer in found] == [fv.Answer] * 20
        many = await docs.search_many(VECTORS[:20], k=3)
        assert [list(answer) for answer in many] == [list(answer) for answer in found]
        report = await docs.measure_recall(sample=10, k=3)
        assert (await docs.count(), report.recall > 0.5) == (N, True)

    over(server.url, body)


def test_the_loop_goes_on_meanwhile(server: Server) -> None:
    """A search waits for the loop's own doing, which waits for nothing of the search's."""

    async def body(engine: AsyncQdrantEngine) -> None:
        docs = await made(engine)
        barrier = threading.Barrier(2, timeout=60)
        server.together = "POST", "/points/query", barrier
        searching = asyncio.create_task(docs.search(VECTORS[5], k=1))
        await asyncio.to_thread(barrier.wait)
        assert (await searching)[0].id == 5

    over(server.url, body)


async def reached(barrier: threading.Barrier) -> None:
    while not barrier.n_waiting:
        await asyncio.sleep(0.001)


def test_a_search_that_is_cancelled_ends(server: Server) -> None:
    async def body(engine: AsyncQdrantEngine) -> None:
        docs = await made(engine)
        barrier = threading.Barrier(2)  # nobody comes: the server does not answer
        server.together = "POST", "/points/query", barrier
        searching = asyncio.create_task(docs.search(VECTORS[5], k=1))
        await reached(barrier)
        searching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await searching
        barrier.abort()
        server.together = None
        assert (await docs.search(VECTORS[5], k=1))[0].id == 5

    over(server.url, body)


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_load_that_is_cancelled_says_how_far_it_is(server: Server, parallel: int) -> None:
    async def body(engine: AsyncQdrantEngine) -> None:
        docs = await engine.create(f"docs_{next(NUMBERS)}", dims=DIMS)
        barrier = threading.Barrier(9)

        def told(done: int, total: int) -> None:
            if done >= 100 and server.together is None:
                server.together = "PUT", "/points", barrier

        given: dict[str, Any] = {"ids": range(N), "batch_size": 20, "parallel": parallel}
        loading = asyncio.create_task(docs.load(VECTORS, **given, progress=told))
        await reached(barrier)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert not [t for t in threading.enumerate() if t.name.startswith("funnelvec-load")]
        barrier.abort()
        server.together = None
        report = await docs.load(VECTORS, **given)
        assert report.skipped >= 60 and report.skipped + report.rows == N == await docs.count()

    over(server.url, body)


def test_rows_of_an_add_that_is_cancelled_are_removed_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("funnelvec.engines.qdrant.loading.BATCH", 50)

    async def body(engine: AsyncQdrantEngine) -> None:
        docs = await engine.create(f"docs_{next(NUMBERS)}", dims=DIMS)
        before, barrier = len(server.log), threading.Barrier(2)
        adding = asyncio.create_task(docs.add(range(N), VECTORS))
        while not any(m == "PUT" for m, _, _ in server.log[before:]):
            await asyncio.sleep(0)
        server.together = "PUT", "/points", barrier
        await reached(barrier)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        barrier.abort()
        server.together = None
        assert await docs.count() == 0

    over(server.url, body)


def test_clients_of_the_application(server: Server) -> None:
    async def body() -> None:
        client = AsyncQdrantClient(url=server.url, check_compatibility=False)
        async with fv.wrap_async(client) as engine:
            assert isinstance(engine, AsyncQdrantEngine)
            docs = await made(engine)
        async with fv.wrap_async(fv.hook(client)) as engine:
            again = await engine.table(docs.name)
            assert (again.name, again.vector, again.dims, again.code, again.metric, again.key) == (
                (docs.name, "embedding", DIMS, "f32", "cosine", "id")
            )
            assert (await again.search(VECTORS[9], k=1))[0].id == 9
        assert await client.collection_exists(docs.name)  # it is open
        with pytest.raises(InvalidInput, match="use wrap_async"):
            fv.wrap(client)
        with pytest.raises(InvalidInput, match="use wrap"):
            fv.wrap_async(QdrantClient(":memory:"))
        await client.close()

    asyncio.run(body())


def test_errors_are_those_of_the_other_engine(server: Server) -> None:
    async def body(engine: AsyncQdrantEngine) -> None:
        with pytest.raises(NotFound, match="does not exist"):
            await engine.table("nowhere")
        docs = await made(engine)
        with pytest.raises(Conflict, match="a row with the key 3 is in"):
            await docs.add([3], VECTORS[:1], columns={"n": [1]})
        with pytest.raises(InvalidInput):
            await docs.search(VECTORS[0, :3])
        with pytest.raises(CapabilityError, match="postgresql://"):
            await docs.log_queries()

    over(server.url, body)
    with pytest.raises(Unreachable, match="does not answer"):
        over("http://127.0.0.1:1", body)


def test_changes_of_one_program_wait_for_each_other(server: Server) -> None:
    async def body(engine: AsyncQdrantEngine) -> None:
        docs = await made(engine)
        names = [f"funnel_{number}" for number in range(8)]
        await asyncio.gather(*(docs.create_funnel(name, "8:f32") for name in names))
        for name in names:
            assert len(await docs.search(VECTORS[0], k=2, funnel=name)) == 2

    over(server.url, body)


def test_edge_is_served_to_tasks_and_can_be_stopped() -> None:
    async def body(engine: AsyncQdrantEngine) -> None:
        docs = await made(engine)
        found = await asyncio.gather(*(docs.search(VECTORS[row], k=1) for row in range(30)))
        assert [answer[0].id for answer in found] == list(range(30))
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def told(done: int, total: int) -> None:
            if done >= 100:
                loop.call_soon_threadsafe(stop.set)
                released.wait(60)

        released = threading.Event()
        other = await engine.create("other", dims=DIMS)
        given: dict[str, Any] = {"ids": range(N), "batch_size": 50}
        loading = asyncio.create_task(other.load(VECTORS, **given, progress=told))
        await stop.wait()
        loading.cancel()
        loop.call_later(0, released.set)
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert (await other.load(VECTORS, **given)).skipped == 100

    with edge.folder() as folder:
        over(f"edge:{folder}", body)
