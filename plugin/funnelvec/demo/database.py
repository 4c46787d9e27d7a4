"""The demo's database: an embedded Postgres, and which of its tables are the demo's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import funnelvec as fv
from funnelvec.demo import plan
from funnelvec.demo.results import Server
from funnelvec.errors import Conflict, NotFound

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync import PostgresEngine

# Written as a comment on our tables, so that a later run knows them from the user's own.
MARK = "made by funnelvec demo"
READY = f"{MARK}, complete"
_TABLES = (plan.TABLE, "questions", "judgments")


@contextmanager
def opened(directory: Path, *, tuned: bool) -> Iterator[PostgresEngine]:
    """Open the embedded Postgres of a folder; `tuned` gives it the comparison's settings."""
    options = {"settings": plan.SERVER} if tuned else {}
    with cast("PostgresEngine", fv.connect(f"pg-embedded:{directory}", **options)) as engine:
        yield engine


def describe_server(engine: PostgresEngine) -> Server:
    """Read the versions, and how to reach the database from outside."""
    server = engine.server
    assert server is not None  # `database` opens embedded servers only
    with engine.connection() as connection:
        row = connection.execute(
            "select current_setting('server_version'), funnelvec.version(), "
            "(select extversion from pg_extension where extname = 'vector')"
        ).fetchone()
    assert row is not None
    return Server(
        directory=str(server.directory),
        psql=str(server.bin_dir / "psql"),
        url=server.url(),
        postgres=row[0],
        funnelvec=row[1],
        pgvector=row[2],
    )


def is_ready(engine: PostgresEngine) -> bool:
    """Whether an earlier run left a complete table of documents here."""
    return _comment(engine, plan.TABLE) == READY


def clear(engine: PostgresEngine) -> None:
    """Remove what an earlier run left; a table of those names that is not ours is a `Conflict`."""
    present = [name for name in _TABLES if _comment(engine, name) is not None]
    for name in present:
        if not (_comment(engine, name) or "").startswith(MARK):
            raise Conflict(
                f"the database has a table {name!r} that this demo did not make; use another "
                "folder with --keep, or rename that table"
            )
    for name in present:
        if name == plan.TABLE:
            table = engine.table(name, vector="embedding")
            # An earlier run may have been interrupted before it came that far.
            with suppress(NotFound):
                table.drop_funnel(f"{name}_search")
        with engine.connection() as connection:
            connection.execute(f"drop table {name}")


def _comment(engine: PostgresEngine, table: str) -> str | None:
    """The comment on a table, '' if it has none, None if there is no such table."""
    with engine.connection() as connection:
        row = connection.execute(
            "select coalesce(obj_description(to_regclass(%s), 'pg_class'), '') "
            "where to_regclass(%s) is not null",
            [table, table],
        ).fetchone()
    return None if row is None else str(row[0])


def mark(engine: PostgresEngine, table: str, text: str = MARK) -> None:
    """Write on a table that it is the demo's own; `READY` says that it is complete too."""
    with engine.connection() as connection:
        connection.execute(f"comment on table {table} is '{text}'")
