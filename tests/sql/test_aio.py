"""What only the asynchronous engine has: its ways in, and what they refuse."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import psycopg_pool
import pytest

import funnelvec as fv
from funnelvec import errors
from funnelvec.engines.postgres.aio import AsyncPostgresEngine
from tests.sql.tables import vectors

if TYPE_CHECKING:
    from tests.databases import Database


def test_awaited_or_entered(owner_url: str) -> None:
    async def main() -> None:
        async with fv.connect_async(owner_url) as engine:
            table = await engine.create("docs", dims=4)
            assert await table.add([1, 2], [[1, 2, 3, 4], [4, 3, 2, 1]]) == 2
            await table.create_funnel("docs_search", "4:f32")
        engine = await fv.connect_async(owner_url)
        assert isinstance(engine, AsyncPostgresEngine)
        table = await engine.table("docs")
        assert [hit.id for hit in await table.search([1, 2, 3, 4], k=1)] == [1]
        assert repr(table) == '<AsyncPostgresTable "public"."docs", embedding 4:f32 cosine>'
        await engine.close()
        with pytest.raises(errors.EngineError, match="closed"):
            await table.count()

    asyncio.run(main())


def test_wrap_leaves_what_it_borrowed_open(owner_url: str) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(owner_url) as connection:
            async with fv.wrap_async(connection) as engine:
                assert engine.server is None
            await connection.execute("select 1")
        async with psycopg_pool.AsyncConnectionPool(owner_url, min_size=1, max_size=1) as pool:
            async with fv.wrap_async(pool):
                pass
            async with pool.connection() as lent:
                await lent.execute("select 1")

    asyncio.run(main())


def test_the_wrong_twin(owner_url: str) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(owner_url) as connection:
            with pytest.raises(errors.InvalidInput, match="AsyncConnection: use wrap_async"):
                fv.wrap(connection)
        pool = psycopg_pool.AsyncConnectionPool(owner_url, open=False)
        with pytest.raises(errors.InvalidInput, match="AsyncConnectionPool: use wrap_async"):
            fv.wrap(pool)

    asyncio.run(main())
    with (
        psycopg.connect(owner_url) as connection,
        pytest.raises(errors.InvalidInput, match=r"psycopg\.Connection: use wrap"),
    ):
        fv.wrap_async(connection)
    with pytest.raises(errors.InvalidInput, match="wrap_async takes a psycopg"):
        fv.wrap_async(3)


def test_wrong_ways_in(owner_url: str, new_database: Callable[..., Database]) -> None:
    bare = new_database("vector")

    async def main() -> None:
        with pytest.raises(errors.Unreachable, match="cannot use the server"):
            await fv.connect_async("postgresql://localhost:1/x?connect_timeout=2")
        with pytest.raises(errors.InstallError, match="funnelvec install"):
            async with fv.connect_async(bare.owner_url):
                pass
        async with await psycopg.AsyncConnection.connect(bare.owner_url) as connection:
            with pytest.raises(errors.InstallError, match="funnelvec install"):
                await fv.wrap_async(connection)
            await connection.execute("select 1")
        with pytest.raises(errors.CapabilityError, match=r"use connect\('memory:'\)"):
            fv.connect_async("memory:")
        with pytest.raises(errors.InvalidInput, match="unknown scheme"):
            fv.connect_async("mysql://x")

    asyncio.run(main())


@pytest.mark.slow
def test_an_embedded_server() -> None:
    async def main(folder: Path) -> None:
        url = f"pg-embedded:{folder}"
        async with fv.connect_async(url, settings={"fsync": False}) as engine:
            assert engine.server is not None
            table = await engine.create("docs", dims=32)
            assert await table.add(range(10), vectors(10)) == 10
        opening = asyncio.ensure_future(_opened(url))
        await asyncio.sleep(0)
        opening.cancel()  # while the server starts: it is stopped again
        with pytest.raises(asyncio.CancelledError):
            await opening

    # Not tmp_path: whichever run of pytest starts next closes its parents to the server's user.
    with tempfile.TemporaryDirectory(prefix="funnelvec-aio-") as name:
        asyncio.run(main(Path(name, "db")))
        assert not Path(name, "db", "data", "postmaster.pid").exists()


async def _opened(url: str) -> AsyncPostgresEngine:
    return await fv.connect_async(url)
