"""``funnelvec bench papers``."""

from __future__ import annotations

import argparse

from funnelvec.commands.bench_report import print_and_write
from funnelvec.commands.output import progress

__all__ = ["add_papers", "run_papers"]


def add_papers(group: argparse._ArgumentGroup) -> None:
    """Add the arguments."""
    group.add_argument("--paper", metavar="NAME", action="append", help="only this one (repeat)")


def run_papers(args: argparse.Namespace) -> int:
    """Measure what papers say."""
    from pathlib import Path

    from funnelvec.bench import papers

    report = papers.measure_papers(
        None if args.data is None else Path(args.data),
        names=tuple(args.paper or papers.PAPERS),
        url=args.url,
        quick=args.quick,
        say=progress(),
    )
    return print_and_write(args, report)
