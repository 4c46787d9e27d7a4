"""How commands print: tables for people, plain text for pipes, JSON for programs."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from funnelvec.bench.report import Section

__all__ = ["print_json", "print_report", "print_table", "progress"]


def print_table(
    head: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "", text: int = 1
) -> None:
    """Print a table; its first `text` columns are aligned left, the others right.

    On a terminal rich draws it, where it is installed. Elsewhere the text is plain and no column
    is cut or wrapped, so that other programs can read it.
    """
    cells = [["" if value is None else str(value) for value in row] for row in rows]
    if sys.stdout.isatty() and _print_rich(head, cells, title=title, text=text):
        return
    if title:
        print(title)
    if not cells:
        return
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    for row in (list(head), *cells):
        aligned = (
            value.ljust(width) if i < text else value.rjust(width)
            for i, (value, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(aligned).rstrip())


def _print_rich(head: Sequence[str], cells: list[list[str]], *, title: str, text: int) -> bool:
    try:
        from rich import box
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        return False
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(head):
        table.add_column(escape(name), justify="left" if i < text else "right", overflow="fold")
    for row in cells:
        table.add_row(*map(escape, row))
    console = Console(highlight=False)
    if title:
        console.print(escape(title), style="bold")
    console.print(table)
    return True


def print_json(value: Any) -> None:
    """Print a value as JSON; keys of the user's that JSON does not know become text."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def print_report(
    args: argparse.Namespace,
    content: Any,
    sections: Sequence[Section],
    lines: Sequence[str] = (),
) -> int:
    """Print what a measurement found: its content with ``--json``, else its tables and lines."""
    if args.json:
        print_json(content)
        return 0
    for section in sections:
        print_table(section.head, section.rows, title=section.title)
        print()
    for line in lines:
        print(line)
    return 0


def progress() -> Callable[[str], None]:
    """Return what says on standard error what is being done, and since when."""
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", file=sys.stderr, flush=True)

    return say
