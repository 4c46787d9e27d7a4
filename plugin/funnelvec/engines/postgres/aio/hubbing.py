"""The part of the asynchronous table that has a hub column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funnelvec.engines import options
from funnelvec.engines.postgres.adapt import statement
from funnelvec.engines.postgres.aio.connection import atomic, cursor, fetch_one

if TYPE_CHECKING:
    from funnelvec.engines.postgres.aio.engine import AsyncPostgresEngine

__all__ = ["AsyncHubbing"]


class AsyncHubbing:
    """`add_hub` and `drop_hub`; see `funnelvec.engines.base.Table`."""

    if TYPE_CHECKING:  # what the table has and these methods use
        _engine: AsyncPostgresEngine
        _vector: str

        @property
        def _regclass(self) -> str: ...

    async def add_hub(
        self,
        *,
        sample: int = options.HUB_SAMPLE,
        allow_rewrite: bool = False,
        concurrently: bool = False,
    ) -> str:
        """Add a column that says how much of a hub each row is, kept by a trigger."""
        values = {
            "table": self._regclass,
            "vector": self._vector,
            "sample": options.check_hub_sample(sample),
            "allow_rewrite": options.check_flag(allow_rewrite, "allow_rewrite"),
            "concurrently": options.check_flag(concurrently, "concurrently"),
        }
        async with self._engine._calling() as connection, atomic(connection):
            row = await fetch_one(connection, statement("add_hub"), values)
        assert row is not None  # one row with the name of the column
        return str(row[0])

    async def drop_hub(self) -> None:
        """Remove the hub column with its bank and trigger."""
        values = {"table": self._regclass, "vector": self._vector}
        async with self._engine._calling() as connection, atomic(connection):
            await cursor(connection).execute(statement("drop_hub"), values)
