"""The hook over the asynchronous client, in local mode and over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal

import funnelvec as fv
from funnelvec.engines.qdrant import names
from tests.qdrant.facade import Server

V = np.random.default_rng(12).normal(size=(80, 16)).astype(np.float32)
COSINE = models.VectorParams(size=16, distance=models.Distance.COSINE)
Body = Callable[[AsyncQdrantClient, AsyncQdrantClient], Awaitable[None]]


@pytest.fixture(params=["local", "server"])
def running(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    """Run something with a plain client and a hooked one over it."""
    where: dict[str, Any] = {"location": ":memory:"}
    if request.param == "server":
        server: Server = request.getfixturevalue("facade")
        where = {"url": server.url, "check_compatibility": False, "timeout": 60}

    async def run(body: Body) -> None:
        plain = AsyncQdrantClient(**where)
        hooked = fv.hook(plain, funnel="8:f16@80 > 16:f32")
        assert isinstance(hooked, AsyncQdrantClient)
        try:
            await body(plain, hooked)
        finally:
            await hooked.close()

    return lambda body: asyncio.run(run(body))


async def in_step(plain: AsyncQdrantClient, count: int) -> None:
    records, _ = await plain.scroll("docs", limit=1_000, with_vectors=True)
    rows = [record for record in records if record.id != names.DEFINITION]
    assert len(rows) == count
    for record in rows:
        assert isinstance(record.vector, dict) and set(record.vector) == {"", "8_f16"}
        prefix = np.asarray(record.vector[""][:8], np.float32)
        np.testing.assert_allclose(
            record.vector["8_f16"], prefix / np.linalg.norm(prefix), atol=2e-3
        )


def test_writes_keep_step_and_searches_are_funnels(running: Callable[[Body], None]) -> None:
    async def body(plain: AsyncQdrantClient, hooked: AsyncQdrantClient) -> None:
        await hooked.create_collection("docs", COSINE)
        first = [
            models.PointStruct(id=i, vector=V[i].tolist(), payload={"n": i}) for i in range(20)
        ]
        await hooked.upsert("docs", first)
        hooked.upload_points("docs", [models.PointStruct(id=20, vector=V[20].tolist())], wait=True)
        hooked.upload_collection("docs", V[21:60], ids=range(21, 60), wait=True)
        await hooked.update_vectors("docs", [models.PointVectors(id=3, vector=V[70].tolist())])
        await in_step(plain, 60)
        assert (await hooked.count("docs")).count == 60
        found = await hooked.query_points("docs", V[70], limit=3, with_vectors=True)
        assert found.points[0].id == 3 and isinstance(found.points[0].vector, list)
        nearest = await hooked.query_points("docs", 3, limit=2)
        assert 3 not in [hit.id for hit in nearest.points]
        many = await hooked.query_batch_points(
            "docs", [models.QueryRequest(query=V[i].tolist(), limit=1) for i in range(2)]
        )
        assert [answer.points[0].id for answer in many] == [0, 1]
        everything = models.Filter(must_not=[models.HasIdCondition(has_id=[5])])
        await hooked.delete("docs", everything)
        assert [record.id for record in (await hooked.scroll("docs"))[0]] == [5]
        vectors = (await hooked.get_collection("docs")).config.params.vectors
        assert isinstance(vectors, models.VectorParams)

    running(body)


def test_an_upload_finds_out_for_itself_what_the_collection_is(
    running: Callable[[Body], None],
) -> None:
    async def body(plain: AsyncQdrantClient, hooked: AsyncQdrantClient) -> None:
        await hooked.create_collection("docs", COSINE)
        another = fv.hook(plain)  # has awaited nothing yet
        another.upload_collection("docs", V[:10], ids=range(10), wait=True)
        await in_step(plain, 10)
        await plain.create_collection("bare", COSINE)
        with pytest.warns(UserWarning, match="keeps nothing of it"):
            another.upload_collection("bare", V[:10], ids=range(10), wait=True)
        assert (await another.count("bare")).count == 10

    running(body)


def test_calls_at_the_same_time(running: Callable[[Body], None]) -> None:
    async def body(plain: AsyncQdrantClient, hooked: AsyncQdrantClient) -> None:
        await hooked.create_collection("docs", COSINE)
        writes = [
            hooked.upsert("docs", [models.PointStruct(id=i, vector=V[i].tolist())])
            for i in range(20)
        ]
        await asyncio.gather(*writes)
        await in_step(plain, 20)
        searches = [hooked.query_points("docs", V[i], limit=1) for i in range(20)]
        answers = await asyncio.gather(*searches)
        assert [answer.points[0].id for answer in answers] == list(range(20))

    running(body)


def test_errors_come_up_as_they_are(running: Callable[[Body], None]) -> None:
    async def body(plain: AsyncQdrantClient, hooked: AsyncQdrantClient) -> None:
        with pytest.raises(Exception, match=r"nope") as theirs:
            await plain.query_points("nope", V[0])
        with pytest.raises(type(theirs.value), match=r"nope"):
            await hooked.query_points("nope", V[0])
        with pytest.raises(fv.errors.InvalidInput, match="does not fit"):
            await fv.hook(plain, funnel={"docs": "4:f32"}).create_collection("docs", COSINE)
        assert not await plain.collection_exists("docs")

    running(body)


def test_a_collection_whose_making_is_cancelled_is_not_left_without_its_definition(
    facade: Server,
) -> None:
    async def body() -> None:
        plain = AsyncQdrantClient(url=facade.url, check_compatibility=False, timeout=60)
        hooked = fv.hook(plain, funnel="8:f16@80 > 16:f32")
        written = plain._client.upsert

        async def cancelled(**given: Any) -> Any:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return await written(**given)

        plain._client.upsert = cancelled  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await hooked.create_collection("docs", COSINE)
        assert not await plain.collection_exists("docs")
        await plain.close()

    asyncio.run(body())


def test_its_transport_passes_for_what_it_is() -> None:
    hooked = fv.hook(AsyncQdrantClient(":memory:"))
    assert isinstance(hooked._client, AsyncQdrantLocal)
