"""``funnelvec search``."""

from __future__ import annotations

import argparse
import dataclasses

from funnelvec.commands import asking
from funnelvec.commands.output import print_json, print_table
from funnelvec.errors import InvalidInput
from funnelvec.types import Hit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    asking.add_arguments(parser, command="search")
    parser.add_argument(
        "--after",
        metavar="CURSOR",
        help="go on behind this hit: its cursor, as --json prints it",
    )


def run(args: argparse.Namespace) -> int:
    """Search."""
    with asking.asked(args) as asked:
        hits = _hits(asked, args.after)
        name, key = asked.table.name, asked.table.key
    if args.json:
        found = [{**dataclasses.asdict(hit), "cursor": hit.cursor} for hit in hits]
        print_json({"table": name, "key": key, "hits": found})
        return 0
    if not hits:
        print("no hits")
        return 0
    names = (*((key,) if isinstance(key, str) else key), *hits[0].columns)
    rows = [
        (
            *(hit.id if isinstance(hit.id, tuple) else (hit.id,)),
            *hit.columns.values(),
            f"{hit.score:.6f}",
            "-" if hit.relevance is None else f"{hit.relevance:.4f}",
        )
        for hit in hits
    ]
    print_table((*names, "score", "relevance"), rows, text=len(names))
    return 0


def _hits(asked: asking.Asked, after: str | None) -> list[Hit]:
    options = {**asked.options, "after": after}
    if asked.itself is None:
        return asked.table.search(asked.query, **options)
    k = options["k"]
    try:
        # One more than asked for, since the row of --like finds itself.
        found = asked.table.search(asked.query, **{**options, "k": k + 1})
    except InvalidInput:
        # Perhaps because the funnel keeps no more than k; if not, this refuses it again.
        found = asked.table.search(asked.query, **options)
    return [hit for hit in found if hit.id != asked.itself][:k]
