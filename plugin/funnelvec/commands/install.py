"""``funnelvec install``."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funnelvec.commands.output import print_json
from funnelvec.commands.target import add_target, read_target
from funnelvec.errors import InvalidInput, MissingDependency, NotFound

if TYPE_CHECKING:
    import psycopg

_EMBEDDED = "pg-embedded:"
_DONE = {
    "installed": "installed",
    "replaced": "replaced the text of the same version",
    "unchanged": "is installed already; nothing to do",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = """\
examples:
  funnelvec install postgresql:///shop
  funnelvec install postgresql:///shop --dry-run
  funnelvec install --mode plain          # a managed server, without files on it

pgvector has to be there first: create extension vector. Installing twice does no harm."""
    add_target(parser, table=False)
    parser.add_argument(
        "--mode",
        choices=("auto", "extension", "plain"),
        default="auto",
        help="extension: create extension (the server has the files); plain: the same SQL as a "
        "tracked script; auto (default): keep to what is there, else extension where possible",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the SQL that would run, and write nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Install."""
    from funnelvec.install import apply

    url, _ = read_target(args, table=False)
    with _connected(url, mode=args.mode, dry_run=args.dry_run) as connection:
        result = apply.install(connection, mode=args.mode, dry_run=args.dry_run)
    if args.json:
        print_json(dataclasses.asdict(result))
        return 0
    if args.dry_run and result.sql:
        print(result.sql)
        return 0
    what = f"funnelvec {result.version} ({result.mode})"
    print(f"{what} in database {result.database}: {_DONE[result.action]}")
    for warning in result.warnings:
        print(f"warning: {warning}")
    return 0


@contextmanager
def _connected(url: str, *, mode: str, dry_run: bool) -> Iterator[psycopg.Connection[Any]]:
    """Connect without asking for funnelvec, which is not there yet."""
    try:
        import psycopg

        from funnelvec.engines.postgres.adapt import translated
    except ImportError as error:
        raise MissingDependency.of(error.name or "psycopg", extra="postgres") from error
    if not url.startswith(_EMBEDDED):
        if not url.startswith(("postgresql:", "postgres:")):
            raise InvalidInput(f"install works on postgresql:// and pg-embedded: URLs, not {url}")
        with translated(), psycopg.connect(url, autocommit=True) as connection:
            yield connection
        return
    from funnelvec.engines.postgres.embedded import EmbeddedServer

    folder = Path(url.removeprefix(_EMBEDDED))
    if dry_run and not (folder / "data").is_dir():
        raise NotFound(f"there is no database in {folder} yet; a dry run does not make one")
    with EmbeddedServer.start(folder) as server:
        if mode == "extension" and not dry_run:
            server.prepare_extension()
        with translated(), psycopg.connect(server.url(), autocommit=True) as connection:
            if not dry_run:
                connection.execute("create extension if not exists vector")
            yield connection
