"""What commands about judgments share: a table, and where its judgments are."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from funnelvec import entry
from funnelvec.commands.target import add_target, default_url, is_url, usage_error
from funnelvec.errors import CapabilityError, InvalidInput

if TYPE_CHECKING:
    from funnelvec.engines.base import Table
    from funnelvec.types import Judgments

__all__ = ["Judged", "add_arguments", "opened", "shows_progress", "summary"]

_SOURCES = """\
JUDGMENTS is a Parquet or CSV file (by its ending), or a table or view of the database (Postgres).
It has a row for each judged pair: the query (a vector, or a text with --encoder), the key of the
row, and whether it is relevant (--label, or --grade with --relevant-from)."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An open table with judgments of it."""

    table: Table
    judgments: Judgments
    funnel: str | None


def add_arguments(parser: argparse.ArgumentParser, *, examples: str) -> None:
    """Add the arguments."""
    parser.epilog = f"examples:\n{examples}\n\n{_SOURCES}"
    add_target(parser, table=True, required=True)
    parser.usage = f"{parser.prog} [URL] TABLE JUDGMENTS [options]"
    parser.add_argument("--funnel", metavar="NAME", help="default: TABLE_search")
    parser.add_argument("--vector", metavar="COLUMN", help="if the table has several")
    parser.add_argument("--query", default="query", metavar="NAME", help="column with the query")
    parser.add_argument(
        "--ids",
        "--id",
        metavar="NAME",
        help="column with the key, a,b where it has several columns (default: as in the table)",
    )
    parser.add_argument(
        "--label", metavar="NAME", help="column that says true or false (default: relevant)"
    )
    parser.add_argument("--grade", metavar="NAME", help="column with grades; see --relevant-from")
    parser.add_argument(
        "--relevant-from", type=float, metavar="N", help="the least grade that counts as relevant"
    )
    parser.add_argument(
        "--unjudged",
        choices=("ignored", "irrelevant"),
        help="what rows without a label are (default: an error)",
    )
    parser.add_argument(
        "--add-unjudged",
        type=int,
        metavar="K",
        help="add the K best rows of each query that nobody judged, as not relevant",
    )
    parser.add_argument(
        "--encoder",
        metavar="MODULE:NAME",
        help="what turns texts into vectors: a Python function of a list of texts",
    )
    parser.add_argument("--dry-run", action="store_true", help="read and check, and write nothing")


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[Judged]:
    """Open the table and read the judgments."""
    words = list(args.target)
    url = words.pop(0) if is_url(words[0]) else default_url()
    if len(words) != 2:
        usage_error(args, "which table, and which judgments? give both after the URL")
    if args.add_unjudged is not None and args.add_unjudged < 1:
        usage_error(args, f"argument --add-unjudged: {args.add_unjudged} is no number from 1 on")
    encoder = None if args.encoder is None else _encoder(args)
    with entry.connect(url) as engine:
        table = engine.table(words[0], vector=args.vector)
        judgments = _read(args, words[1], engine, table, encoder)
        if args.add_unjudged is not None:
            judgments = judgments.with_unjudged(table, k=args.add_unjudged, funnel=args.funnel)
        yield Judged(table, judgments, args.funnel)


def _read(
    args: argparse.Namespace, source: str, engine: Any, table: Table, encoder: Any
) -> Judgments:
    from funnelvec.types import Judgments

    ids = table.key if args.ids is None else tuple(args.ids.split(","))
    columns: dict[str, Any] = {
        "query": args.query,
        "id": ids[0] if isinstance(ids, tuple) and len(ids) == 1 else ids,
        "label": args.label,
        "grade": args.grade,
        "relevant_from": args.relevant_from,
        "unjudged": args.unjudged,
        "encoder": encoder,
    }
    if source.lower().endswith((".parquet", ".pq")):
        return Judgments.from_parquet(source, **columns)
    if source.lower().endswith(".csv"):
        return Judgments.from_csv(source, **columns)
    if not hasattr(engine, "connection"):
        raise CapabilityError(
            f"{source!r} is no .parquet or .csv file, and only Postgres has tables of judgments"
        )
    return Judgments.from_table(engine, source, **columns)


def _encoder(args: argparse.Namespace) -> Any:
    module, _, name = args.encoder.partition(":")
    if not module or not name:
        usage_error(args, f"argument --encoder: {args.encoder!r} is not MODULE:NAME")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(f"--encoder {args.encoder}: {error}") from None
    if not callable(found):
        raise InvalidInput(f"--encoder {args.encoder}: {name} is not a function")
    return found


def summary(judgments: Judgments) -> dict[str, int]:
    """How much was judged."""
    return {
        "pairs": len(judgments),
        "relevant": int(judgments.labels.sum()),
        "queries": judgments.distinct_queries,
    }


def shows_progress() -> bool:
    """A bar is welcome where rich is installed, and nobody has to install it for one."""
    if not sys.stderr.isatty():
        return False
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True
