"""``funnelvec search``."""

from __future__ import annotations

import argparse
import dataclasses

from funnelvec.commands import asking
from funnelvec.commands.output import print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    asking.add_arguments(parser, command="search")


def run(args: argparse.Namespace) -> int:
    """Search."""
    with asking.asked(args) as asked:
        k = asked.options["k"]
        # One more than asked for, since the row of --like finds itself.
        more = k if asked.itself is None else k + 1
        found = asked.table.search(asked.query, **{**asked.options, "k": more})
        hits = [hit for hit in found if asked.itself is None or hit.id != asked.itself][:k]
        name, key = asked.table.name, asked.table.key
    if args.json:
        print_json({"table": name, "key": key, "hits": [dataclasses.asdict(hit) for hit in hits]})
        return 0
    if not hits:
        print("no hits")
        return 0
    rows = [
        (hit.id, f"{hit.score:.6f}", "-" if hit.relevance is None else f"{hit.relevance:.4f}")
        for hit in hits
    ]
    print_table((key, "score", "relevance"), rows)
    return 0
