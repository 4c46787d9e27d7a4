"""What `search` and `explain` share: the query and how to narrow it down."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funnelvec.commands.target import add_target, opened, read_target, usage_error
from funnelvec.errors import InvalidInput, MissingDependency, NotFound

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync import PostgresEngine, PostgresTable


def add_arguments(parser: argparse.ArgumentParser, *, command: str) -> None:
    """Add the arguments."""
    parser.epilog = f"""\
examples:
  funnelvec {command} postgresql:///shop products --like 42
  funnelvec {command} postgresql:///shop products --query-file q.npy -k 5 --min-relevance 0.7
  funnelvec {command} postgresql:///shop products --like 42 --filter '{{"price": {{"$lt": 50}}}}'"""
    add_target(parser, table=True, required=True)
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("--query", metavar="JSON", help="the query vector, a list of numbers")
    query.add_argument("--query-file", metavar="FILE", help="the query vector in an .npy file")
    query.add_argument(
        "--like",
        metavar="KEY",
        help="the vector of the row with this key, itself left out; "
        "a JSON list where the key has several columns",
    )
    parser.add_argument("-k", type=_count, default=10, help="how many rows at most (default 10)")
    parser.add_argument(
        "--min-relevance", type=float, metavar="P", help="least calibrated probability, 0 to 1"
    )
    parser.add_argument("--filter", metavar="JSON", help='such as \'{"price": {"$lt": 50}}\'')
    parser.add_argument("--funnel", metavar="NAME", help="default: TABLE_search")
    parser.add_argument("--vector", metavar="COLUMN", help="if the table has several")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows from 1 on")
    return int(text)


@dataclass(frozen=True, slots=True)
class Asked:
    """An open table, what to look for, the options of `search`, and the key of ``--like``."""

    table: PostgresTable
    query: Any
    options: dict[str, Any]
    itself: Any = None


@contextmanager
def asked(args: argparse.Namespace) -> Iterator[Asked]:
    """Open the table and read the query."""
    url, name = read_target(args, table=True, required=True)
    given = _json(args, "--filter", args.filter) if args.filter is not None else None
    itself, query = None, None if args.like is not None else _query(args)
    with opened(url) as engine:
        table = engine.table(name, vector=args.vector)
        if query is None:
            itself, query = _stored(engine, table, _key(args, table))
        options = {
            "k": args.k,
            "min_relevance": args.min_relevance,
            "filter": given,
            "funnel": args.funnel,
        }
        yield Asked(table, query, options, itself)


def _query(args: argparse.Namespace) -> Any:
    if args.query is not None:
        return _json(args, "--query", args.query)
    try:
        import numpy as np
    except ImportError as error:
        raise MissingDependency.of("numpy", extra="postgres") from error
    path = Path(args.query_file)
    if not path.is_file():
        raise NotFound(f"there is no file {args.query_file!r}")
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInput(f"{path} is not a NumPy array file: {error}") from None
    return found[0] if found.ndim == 2 and len(found) == 1 else found


def _json(args: argparse.Namespace, option: str, text: str) -> Any:
    parse: Callable[[str], Any] = json.loads
    try:
        return parse(text)
    except ValueError as error:
        usage_error(args, f"argument {option}: not JSON: {error}")


def _key(args: argparse.Namespace, table: PostgresTable) -> dict[str, str]:
    """Read ``--like``: the columns of the key with their values, as text that Postgres reads."""
    if isinstance(table.key, str):
        return {table.key: args.like}
    parts = _json(args, "--like", args.like)
    if not isinstance(parts, list) or len(parts) != len(table.key):
        usage_error(
            args, f"argument --like: the key is ({', '.join(table.key)}), so a JSON list of them"
        )
    return {name: str(part) for name, part in zip(table.key, parts, strict=True)}


def _stored(engine: PostgresEngine, table: PostgresTable, key: dict[str, str]) -> tuple[Any, Any]:
    from psycopg import sql

    columns = list(map(sql.Identifier, key))
    command = sql.SQL("select {vector}::text, {key} from {table} where {same}").format(
        vector=sql.Identifier(table.vector),
        key=sql.SQL(", ").join(columns),
        table=sql.Identifier(table.schema, table.name),
        same=sql.SQL(" and ").join(sql.SQL("{} = %s").format(column) for column in columns),
    )
    with engine.connection() as connection:
        row = connection.execute(command, list(key.values())).fetchone()
    if row is None or row[0] is None:
        wanted = ", ".join(map(repr, key.values()))
        raise NotFound(f"table {table.name!r} has no row with the key {wanted} and a vector")
    vector, *parts = row
    return parts[0] if isinstance(table.key, str) else tuple(parts), json.loads(vector)
