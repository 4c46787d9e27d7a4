"""``funnelvec backfill``."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import sys
import time
from typing import TYPE_CHECKING, Any

from funnelvec.commands.output import print_json
from funnelvec.commands.target import add_target, opened, read_target, usage_error

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync import PostgresEngine
    from funnelvec.reports import FillingStep

#: How often rows are reported where no bar is drawn.
_EVERY_SECONDS = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = """\
examples:
  funnelvec backfill postgresql:///shop products
  funnelvec backfill postgresql:///shop --dry-run      # every table with something left to do

Fills side tables (add_resolution with storage => 'side') in batches, builds their indexes and
those left with concurrently => true, and switches searches over. Readers and writers go on
meanwhile. It may be stopped at any time (Ctrl-C, a lost connection, a crash): the next call goes on
from there. Progress goes to standard error: a bar on a terminal, else a line every ten seconds."""
    add_target(parser, table=True)
    parser.add_argument(
        "--batch", type=int, metavar="N", help="rows per transaction (default: what takes 0.2 s)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the next statement of each table, run nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Fill."""
    url, name = read_target(args, table=True)
    if args.batch is not None and not 1 <= args.batch <= 1_000_000:
        usage_error(args, f"--batch is 1 to 1000000, not {args.batch}")
    with opened(url) as engine:
        done = [_table(engine, table, args) for table in _tables(engine, name)]
    if args.json:
        print_json(done)
    elif not done:
        print("nothing to do")
    return 0


def _tables(engine: PostgresEngine, name: str) -> list[str]:
    from funnelvec.engines.postgres.adapt import SQL_NAME, statement
    from funnelvec.errors import NotFound

    with engine.connection() as connection:
        if not name:
            return [row[0] for row in connection.execute(statement("unfinished")).fetchall()]
        row = connection.execute(
            statement("find_table"), {"name": name, "sql_name": SQL_NAME}
        ).fetchone()
    if row is None:
        raise NotFound(f"table {name!r} does not exist or is not on the search_path")
    return [str(row[0])]


def _table(engine: PostgresEngine, table: str, args: argparse.Namespace) -> dict[str, Any]:
    from funnelvec.engines.postgres.sync.filling import backfill, next_step

    with engine.connection() as connection:
        following = next_step(connection, table)
        if args.dry_run:
            if not args.json:
                print(f"{table}: {following or 'nothing to do'}")
            return {"table": table, "rows": 0, "statements": [], "next": following}
        # Without rich there is no bar; filling needs none.
        bar = sys.stderr.isatty() and importlib.util.find_spec("rich") is not None
        told = _Told(table, lines=not args.json, rows=not bar)
        try:
            rows = backfill(
                connection,
                table,
                batch=args.batch,
                progress=bar and not args.json,
                on_step=told,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"nothing is lost, and searches of {table} run as before; the same command goes on"
            ) from None
    if not args.json:
        print(f"{table}: {'in use' if following else 'nothing to do'}, {rows:,} rows gone through")
    return {"table": table, "rows": rows, "statements": told.ran, "next": None}


class _Told:
    """What is said of the steps on standard error: statements, and rows where no bar shows them."""

    def __init__(self, table: str, *, lines: bool, rows: bool) -> None:
        self.ran: list[str] = []
        self._table, self._lines, self._rows = table, lines, rows
        self._started: dict[str, tuple[float, int]] = {}
        self._said = time.monotonic()

    def __call__(self, step: FillingStep) -> None:
        if step.statement is not None:
            self.ran.append(step.statement)
            if self._lines:
                print(f"{self._table}: {step.statement}", file=sys.stderr, flush=True)
            return
        now = time.monotonic()
        since, before = self._started.setdefault(str(step.resolution), (now, step.done))
        done = step.state in ("filled", "ready")
        if self._lines and self._rows and (done or now - self._said >= _EVERY_SECONDS):
            self._said = now
            pace = _pace(step.done - before, now - since, left=step.total - step.done)
            # A table that was never analyzed has no number of rows that would be cheap to ask for.
            total = f" of about {step.total:,}" if done or step.total > step.done else ""
            text = f"{step.resolution}: {step.done:,}{total} rows{pace}"
            print(f"{self._table}: {text}", file=sys.stderr, flush=True)


def _pace(rows: int, seconds: float, *, left: int) -> str:
    if rows <= 0 or seconds <= 0:
        return ""
    time_left = datetime.timedelta(seconds=round(left * seconds / rows))
    return f", {rows / seconds:,.0f} rows/s" + (f", {time_left} left" if left > 0 else "")
