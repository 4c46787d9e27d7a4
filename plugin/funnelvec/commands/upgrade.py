"""``funnelvec upgrade``."""

from __future__ import annotations

import argparse

from funnelvec.commands.connecting import connected
from funnelvec.commands.install import print_result
from funnelvec.commands.target import add_target, read_target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = """\
examples:
  funnelvec upgrade postgresql:///shop
  funnelvec upgrade postgresql:///shop --dry-run > upgrade.sql   # a plain install, for a DBA

A plain install runs the migrations in one transaction. An extension runs alter extension
funnelvec update, for which the server needs the new files: make -C sql install. Upgrading twice
does no harm."""
    add_target(parser, table=False)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the SQL that would run, and write nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Upgrade."""
    from funnelvec.install import apply

    url, _ = read_target(args, table=False)
    with connected(url, "upgrade", files=not args.dry_run) as connection:
        result = apply.upgrade(connection, dry_run=args.dry_run)
    print_result(result, json=args.json)
    return 0
