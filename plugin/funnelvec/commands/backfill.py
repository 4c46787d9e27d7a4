"""``funnelvec backfill``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from funnelvec.commands.output import print_json
from funnelvec.commands.target import add_target, opened, read_target, usage_error

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync import PostgresEngine
    from funnelvec.reports import FillingStep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = """\
examples:
  funnelvec backfill postgresql:///shop products
  funnelvec backfill postgresql:///shop --dry-run      # every table with something left to do

Fills side tables (add_resolution with storage => 'side') in batches, builds their indexes
concurrently and switches searches over. Readers and writers go on meanwhile. It may be stopped at
any time (Ctrl-C, a lost connection, a crash): the next call goes on from there."""
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

    ran: list[str] = []

    def say(step: FillingStep) -> None:
        if step.statement is not None:
            ran.append(step.statement)
            if not args.json:
                print(f"{table}: {step.statement}", file=sys.stderr, flush=True)

    with engine.connection() as connection:
        following = next_step(connection, table)
        if args.dry_run:
            if not args.json:
                print(f"{table}: {following or 'nothing to do'}")
            return {"table": table, "rows": 0, "statements": [], "next": following}
        rows = backfill(connection, table, batch=args.batch, progress=not args.json, on_step=say)
    if not args.json:
        print(f"{table}: {'in use' if following else 'nothing to do'}, {rows:,} rows gone through")
    return {"table": table, "rows": rows, "statements": ran, "next": None}
