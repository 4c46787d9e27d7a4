"""A table whose reads and writes stop in the middle until they are let go.

The server waits for an advisory lock that the test holds: in the row `STOP_AT` of a load, and in
the first row that `measure_recall` or `calibrate` reads. So a test can be sure that a call is under
way, without guessing how long things take.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg

import funnelvec as fv
from tests.sql.tables import DIMS, vectors

if TYPE_CHECKING:
    from funnelvec.engines.base import Table

ROWS = 300
STOP_AT = 2_000
#: More than the server's socket takes in, so that the client is stopped while it sends.
LOAD = range(1_000, 21_000)


def make_docs(url: str, *, reads: bool) -> Table:
    """Make the table ``docs`` with a funnel and the gate in it, before reads or before writes.

    Reads are stopped by row-level security, under which Postgres has no COPY.
    """
    engine = fv.connect(url)
    table = engine.create("docs", dims=DIMS, columns={"price": "number"})
    table.add(range(ROWS), vectors(ROWS))
    table.add_resolution("16:f16")  # an index would make the loads slow
    table.create_funnel("docs_search", "16:f16@100 > 32:f32")
    engine.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            """
            create function gate() returns boolean language plpgsql as $$
            begin
                if current_query() ~ 'measure_recall|calibrate|copy "|insert into "' then
                    perform pg_advisory_xact_lock_shared(1);
                end if;
                return true;
            end $$;
            create function stop() returns trigger language plpgsql as $$
            begin perform gate(); return new; end $$;
            """
        )
        connection.execute(
            f"create trigger stop before insert on docs for each row"
            f" when (new.id = {STOP_AT}) execute function stop()"
        )
    if reads:
        stop_reads(url)
    return table


def stop_reads(url: str) -> None:
    """Put the gate before reads as well."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("alter table docs enable row level security")
        connection.execute("alter table docs force row level security")
        connection.execute("create policy all_rows on docs using (gate()) with check (true)")


class Gate:
    """The test's end of the gate, on a connection of its own."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def wait_for(self, waiting: int = 1) -> None:
        """Return when so many sessions stand before the gate."""
        found = -1
        while found != waiting:
            row = self._connection.execute(
                "select count(*) from pg_locks as l, pg_sleep(0.01)"
                " where l.locktype = 'advisory' and not l.granted and l.database ="
                " (select oid from pg_database where datname = current_database())"
            ).fetchone()
            assert row is not None
            found = row[0]

    def open(self) -> None:
        """Let everything go."""
        self._connection.execute("select pg_advisory_unlock_all()")


@contextlib.contextmanager
def closed(url: str) -> Iterator[Gate]:
    """Close the gate; it opens at the end."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(1)")
        yield Gate(connection)
