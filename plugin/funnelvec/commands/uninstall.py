"""``funnelvec uninstall``."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from funnelvec.commands.connecting import connected
from funnelvec.commands.output import print_json
from funnelvec.commands.target import add_target, read_target

if TYPE_CHECKING:
    from funnelvec.install.remove import UninstallResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = """\
examples:
  funnelvec uninstall postgresql:///shop --dry-run
  funnelvec uninstall postgresql:///shop
  funnelvec uninstall postgresql:///shop --data

What goes: the search functions, and the schema funnelvec with its registry and the calibrations.
What stays: your tables, vectors and rows; and, without --data, the code columns and their indexes,
which a later install takes over (add_resolution finds them). All or nothing: where another role's
objects are in the way, they are named and nothing is changed."""
    add_target(parser, table=False)
    parser.add_argument(
        "--mode",
        choices=("auto", "extension", "plain"),
        default="auto",
        help="only if it is installed like this (default: auto, either)",
    )
    parser.add_argument(
        "--data",
        action="store_true",
        help="drop the code columns and the indexes that funnelvec made too",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the SQL that would run, and write nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Uninstall."""
    from funnelvec.install.remove import uninstall

    url, _ = read_target(args, table=False)
    with connected(url, "uninstall") as connection:
        result = uninstall(connection, mode=args.mode, data=args.data, dry_run=args.dry_run)
    if args.json:
        print_json(dataclasses.asdict(result))
    elif args.dry_run and result.statements:
        print("\n".join([*(f"-- {line}" for line in _report(result)), *result.statements]))
    else:
        print("\n".join(_report(result)))
    return 0


def _report(result: UninstallResult) -> list[str]:
    where = f"database {result.database}"
    if result.action == "absent":
        return [f"funnelvec is not installed in {where}; nothing to do"]
    version = f"funnelvec {result.version} ({result.mode})"
    did = "would be removed" if result.dry_run else "removed"
    lines = [f"{version if result.version else 'what was left of funnelvec'} in {where}: {did}"]
    if result.calibrations:
        lines.append(f"calibrations gone with it: {result.calibrations}")
    for word, names in (
        ("search function gone", result.functions),
        ("column gone", result.dropped),
        ("codes kept", result.kept),
    ):
        # One line each, whatever the name holds: a dry run prints these as comments.
        lines += [f"{word}: {' '.join(name.split())}" for name in names]
    return lines
