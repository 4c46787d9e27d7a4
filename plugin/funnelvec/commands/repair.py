"""``funnelvec repair``."""

from __future__ import annotations

import argparse
import dataclasses

from funnelvec.commands.output import print_json
from funnelvec.commands.target import add_target, opened, read_target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = """\
examples:
  funnelvec status postgresql:///shop              # names what is out of step
  funnelvec repair postgresql:///shop --dry-run
  funnelvec repair postgresql:///shop

On the tables that the role owns: search functions are written again where the table, its key, an
index or funnelvec has changed; renames are followed; what a dropped table left goes; what the
registry has lost is taken over. No row of a table is touched. Repairing twice does no harm.
Exit status 1 if something could not be repaired."""
    add_target(parser, table=False)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")


def run(args: argparse.Namespace) -> int:
    """Repair."""
    url, _ = read_target(args, table=False)
    with opened(url) as engine:
        done = engine.repair(dry_run=args.dry_run)
        # What is left is not the role's own, or has to be decided by somebody.
        left = [] if args.dry_run else engine.problems()
    failed = any(each.action.startswith("not repaired") for each in done)
    if args.json:
        print_json(
            {
                "dry_run": args.dry_run,
                "repairs": [dataclasses.asdict(each) for each in done],
                "problems": [dataclasses.asdict(each) for each in left],
            }
        )
        return int(failed)
    if not done:
        print("nothing to repair")
    for each in done:
        print(f"{each.object}: {each.action}")
    for problem in left:
        print(f"left: {problem.object}: {problem.advice}")
    return int(failed)
