# Made from aio/hubbing.py by tools/write_sync.py: change that file, then `make sync`.

"""The part of the synchronous table that has a hub column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funnelvec.engines import options
from funnelvec.engines.postgres.adapt import statement
from funnelvec.engines.postgres.sync.connection import atomic, cursor, fetch_one

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync.engine import PostgresEngine

__all__ = ["Hubbing"]


class Hubbing:
    """`add_hub` and `drop_hub`; see `funnelvec.engines.base.Table`."""

    if TYPE_CHECKING:  # what the table has and these methods use
        _engine: PostgresEngine
        _vector: str

        @property
        def _regclass(self) -> str: ...

    def add_hub(
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
        with self._engine._calling() as connection, atomic(connection):
            row = fetch_one(connection, statement("add_hub"), values)
        assert row is not None  # one row with the name of the column
        return str(row[0])

    def drop_hub(self) -> None:
        """Remove the hub column with its bank and trigger."""
        values = {"table": self._regclass, "vector": self._vector}
        with self._engine._calling() as connection, atomic(connection):
            cursor(connection).execute(statement("drop_hub"), values)
