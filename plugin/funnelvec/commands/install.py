"""``funnelvec install``."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from funnelvec.commands.connecting import connected
from funnelvec.commands.output import print_json
from funnelvec.commands.target import add_target, read_target, usage_error

if TYPE_CHECKING:
    from funnelvec.install.apply import InstallResult

_DONE = {
    "installed": "installed",
    "replaced": "replaced the text of the same version",
    "upgraded": "upgraded from {previous}",
    "moved": "moved here from the other mode, with everything in it",
    "unchanged": "is installed already; nothing to do",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = """\
examples:
  funnelvec install postgresql:///shop
  funnelvec install postgresql:///shop --dry-run
  funnelvec install --mode plain          # a managed server, without files on it
  funnelvec install postgresql:///shop --mode extension --move   # from plain; nothing is lost

pgvector has to be there first: create extension vector. Installing twice does no harm. An older
version is brought up to date by funnelvec upgrade; for pg_tle see funnelvec render."""
    add_target(parser, table=False)
    parser.add_argument(
        "--mode",
        choices=("auto", "extension", "plain"),
        default="auto",
        help="extension: create extension (the server has the files); plain: the same SQL as a "
        "tracked script; auto (default): keep to what is there, else extension where possible",
    )
    parser.add_argument(
        "--move",
        action="store_true",
        help="change over from the other mode; registry, calibrations and grants stay",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the SQL that would run, and write nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Install."""
    from funnelvec.install import apply

    if args.move and args.mode == "auto":
        usage_error(args, "--move: where to? add --mode extension or --mode plain")
    url, _ = read_target(args, table=False)
    write = not args.dry_run
    files = write and args.mode == "extension"
    with connected(url, "install", create=write, files=files) as connection:
        result = apply.install(connection, mode=args.mode, move=args.move, dry_run=args.dry_run)
    print_result(result, json=args.json)
    return 0


def print_result(result: InstallResult, *, json: bool) -> None:
    """Print what was done; of a dry run the SQL alone, so that it can be saved and run."""
    if json:
        print_json(dataclasses.asdict(result))
        return
    if result.dry_run and result.sql:
        print(result.sql if result.sql.endswith("\n") else f"{result.sql};")
        return
    done = _DONE[result.action].format(previous=result.previous)
    print(f"funnelvec {result.version} ({result.mode}) in database {result.database}: {done}")
    for warning in result.warnings:
        print(f"warning: {warning}")
