"""Filling side tables: the steps of `funnelvec.next_step`, one short transaction after another.

Every step is resumable, so whatever stops the work (an interruption, a lost connection, a killed
server) costs at most one batch: calling it again goes on from there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable

from funnelvec.engines.base import Progress
from funnelvec.engines.postgres.adapt import statement
from funnelvec.engines.postgres.aio.connection import IDLE, Connection, cursor, fetch_one
from funnelvec.engines.progress import filling_reporting
from funnelvec.errors import CapabilityError
from funnelvec.reports import FillingStep

__all__ = ["backfill", "next_step"]

_FIRST_BATCH = 1000
_LARGEST_BATCH = 100_000
#: Who changes a vector that stands in a batch waits for its end.
_SECONDS_PER_BATCH = 0.2


async def next_step(connection: Connection, table: str) -> str | None:
    """Return the statement to run next for a table, or None."""
    row = await fetch_one(connection, statement("next_step"), {"table": table})
    return None if row is None or row[0] is None else str(row[0])


async def backfill(
    connection: Connection,
    table: str,
    *,
    batch: int | None,
    progress: Progress = False,
    on_step: Callable[[FillingStep], None] | None = None,
) -> int:
    """Run every step that is left for a table; return the rows that were looked at.

    Parameters
    ----------
    batch
        Rows per transaction; None suits it to about 0.2 seconds each.
    on_step
        Told of each step before it runs, and after every batch.
    """
    looked_at = 0
    with contextlib.ExitStack() as stack:
        report = stack.enter_context(filling_reporting(progress, on_step, table))
        async with _committing(connection):
            while (step := await next_step(connection, table)) is not None:
                if step.startswith("call funnelvec.backfill"):
                    looked_at += await _fill(connection, table, batch=batch, report=report)
                else:
                    report(FillingStep(statement=step))
                    await cursor(connection).execute(step.encode())
    return looked_at


async def _fill(
    connection: Connection,
    table: str,
    *,
    batch: int | None,
    report: Callable[[FillingStep], None],
) -> int:
    looked_at = 0
    rows = batch or _FIRST_BATCH
    while True:
        started = time.monotonic()
        row = await fetch_one(
            connection, statement("backfill_step"), {"table": table, "batch": rows}
        )
        if row is None or row[0] is None:
            return looked_at
        resolution, state, done, total, went_through = row
        looked_at += went_through
        report(FillingStep(resolution=resolution, state=state, done=done, total=total))
        if batch is None:
            aim = _SECONDS_PER_BATCH / max(1e-3, time.monotonic() - started)
            rows = min(_LARGEST_BATCH, max(100, int(rows * min(2.0, max(0.25, aim)))))


@contextlib.asynccontextmanager
async def _committing(connection: Connection) -> AsyncIterator[None]:
    """Work that commits as it goes, without time limits on its statements."""
    if connection.pgconn.transaction_status != IDLE or not connection.autocommit:
        raise CapabilityError(
            "backfill commits as it goes and builds indexes concurrently, so it needs a connection "
            "in autocommit mode without an open transaction: use fv.connect(url), "
            'connection.autocommit = True, or a pool with kwargs={"autocommit": True}'
        )
    row = await fetch_one(connection, statement("show_limits"))
    assert row is not None
    # An index takes as long as it takes, and waits for the transactions that were open before it;
    # limits meant for searches would only break it off. What blocks others has limits of its own.
    no_limits = {"statement": "0", "lock": "0"}
    await fetch_one(connection, statement("set_limits"), no_limits)
    try:
        yield
    finally:
        if connection.pgconn.transaction_status == IDLE:
            limits = {"statement": row[0], "lock": row[1]}
            await fetch_one(connection, statement("set_limits"), limits)
