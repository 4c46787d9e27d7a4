"""``funnelvec bench --report FILE``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Protocol

from funnelvec.commands.output import print_report
from funnelvec.commands.target import usage_error
from funnelvec.errors import InvalidInput

if TYPE_CHECKING:
    from funnelvec.bench.report import Section

__all__ = ["check_report", "print_and_write"]

#: What can be written as a page, and under which title.
_TITLES = {
    "search": "funnelvec bench",
    "peers": "funnelvec bench peers",
    "qdrant": "funnelvec bench qdrant",
    "tune": "funnelvec bench tune",
    "papers": "funnelvec bench papers",
}


class _Report(Protocol):
    def sections(self) -> list[Section]: ...

    def lines(self) -> list[str]: ...

    def as_json(self) -> dict[str, Any]: ...


def check_report(args: argparse.Namespace) -> None:
    """Refuse a page that could not be written before anything is measured."""
    if args.report is None:
        return
    if args.what not in _TITLES:
        usage_error(args, f"--report goes with {', '.join(_TITLES)}, not with {args.what}")
    from funnelvec.bench.page import check_path

    try:
        check_path(args.report)
    except InvalidInput as error:
        usage_error(args, f"--report: {error}")


def print_and_write(args: argparse.Namespace, report: _Report) -> int:
    """Print what a measurement found, and write its page where one was asked for."""
    status = print_report(args, report.as_json(), report.sections(), report.lines())
    if args.report is not None:  # last: what was measured is printed, whatever happens to the file
        from funnelvec.bench.page import write_report

        for path in write_report(report, args.report, title=_TITLES[args.what]):
            print(f"wrote {path}", file=sys.stderr)
    return status
