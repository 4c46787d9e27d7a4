"""Where a command works: ``[URL] [TABLE]`` on the command line, and the environment."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, cast

from funnelvec import entry
from funnelvec.errors import CapabilityError

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync import PostgresEngine

__all__ = [
    "add_target",
    "default_url",
    "is_url",
    "opened",
    "read_files",
    "read_target",
    "usage_error",
]

_SCHEMES = ("postgresql", "postgres", "pg-embedded", "memory", "http", "https", "qdrant-local")
_URL = re.compile(rf"(?:{'|'.join((*_SCHEMES, 'edge'))}):|[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def add_target(parser: argparse.ArgumentParser, *, table: bool, required: bool = False) -> None:
    """Add the positional arguments; `read_target` tells URL and table apart."""
    if not table:
        parser.add_argument("target", nargs="?", metavar="URL", help="the database to work in")
    else:
        parser.add_argument(
            "target",
            nargs="+" if required else "*",
            metavar="URL TABLE",
            help="where to work, and a table by its name or as SQL writes it (shop.products)",
        )
    words = f"[URL]{' TABLE' if required else ' [TABLE]' if table else ''}"
    parser.usage = f"{parser.prog} {words} [options]"
    lines = "Without URL: the variable FUNNELVEC_URL, else libpq's own (PGHOST, PGDATABASE, ...)."
    parser.epilog = f"{parser.epilog}\n\n{lines}" if parser.epilog else lines


def read_target(
    args: argparse.Namespace, *, table: bool, required: bool = False
) -> tuple[str, str]:
    """Return URL and table (empty if none was given)."""
    given = args.target if isinstance(args.target, list) else [args.target] * bool(args.target)
    words = list(given)
    url = words.pop(0) if words and (_URL.match(words[0]) or not table) else default_url()
    name = words.pop(0) if words and table else ""
    if words:
        usage_error(args, f"unexpected: {' '.join(words)} (a URL begins with postgresql://)")
    if required and not name:
        usage_error(args, "which table? give its name after the URL")
    return url, name


def read_files(args: argparse.Namespace) -> tuple[str, str, list[str]]:
    """Return URL, table and the files that follow them."""
    words = list(args.target)
    url = words.pop(0) if _URL.match(words[0]) else default_url()
    if len(words) < 2:
        usage_error(args, "which table, and which files? give them after the URL")
    return url, words[0], words[1:]


def is_url(word: str) -> bool:
    """Whether a word of the command line is where to work, and not the name of a table."""
    return _URL.match(word) is not None


def default_url() -> str:
    """The URL from the environment; libpq fills in what it leaves open."""
    return os.environ.get("FUNNELVEC_URL") or "postgresql://"


def usage_error(args: argparse.Namespace, message: str) -> NoReturn:
    """Leave with a usage message and exit status 2."""
    args.usage_error(message)
    raise AssertionError("argparse exits")


@contextmanager
def opened(url: str) -> Iterator[PostgresEngine]:
    """Open an engine whose SQL side can be asked."""
    with entry.connect(url) as engine:
        if engine.capabilities.name != "postgres":
            raise CapabilityError(f"this command works on Postgres, not on {url}")
        yield cast("PostgresEngine", engine)
