"""``funnelvec explain``."""

from __future__ import annotations

import argparse
import dataclasses

from funnelvec.commands import asking
from funnelvec.commands.output import print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    asking.add_arguments(parser, command="explain")


def run(args: argparse.Namespace) -> int:
    """Search once, and explain it."""
    with asking.asked(args) as asked:
        found = asked.table.explain(asked.query, **asked.options)
    if args.json:
        print_json(dataclasses.asdict(found))
        return 0
    head = ("resolution", "access", "stage", "keep", "rows in", "rows out", "ms", "hit", "read")
    rows = [
        (
            stage.resolution,
            stage.access,
            stage.stage,
            "-" if stage.keep is None else stage.keep,
            f"{stage.rows_in:,}",
            f"{stage.rows_out:,}",
            f"{stage.ms:.3f}",
            f"{stage.blocks_hit:,}",
            f"{stage.blocks_read:,}",
        )
        for stage in found.stages
    ]
    print_table(head, rows, title=f"{found.funnel}: {found.total_ms:.3f} ms", text=2)
    for note in found.notes:
        print(f"note: {note}")
    return 0
