"""``funnelvec bench relevance``."""

from __future__ import annotations

import argparse

from funnelvec.commands.output import print_json, print_table, progress
from funnelvec.commands.target import usage_error

__all__ = ["add_relevance", "run_relevance"]


def add_relevance(parser: argparse._ArgumentGroup) -> None:
    """Add the arguments."""
    parser.add_argument("--set", metavar="NAME", action="append", help="only this set (repeat)")


def run_relevance(args: argparse.Namespace) -> int:
    """Measure calibration on judged sets."""
    from pathlib import Path

    from funnelvec.bench import relevance, relevance_report
    from funnelvec.bench.relevance_data import SETS

    if args.data is None:
        usage_error(args, "relevance needs the folder of the judged sets: --data DIR")
    report = relevance.measure_relevance(
        Path(args.data),
        names=tuple(args.set or SETS),
        halvings=relevance.QUICK if args.quick else relevance.HALVINGS,
        say=progress(),
    )
    if args.json:
        print_json(report.as_json())
        return 0
    for section in relevance_report.sections(report):
        print_table(section.head, section.rows, title=section.title)
        print()
    for line in relevance_report.missed(report):
        print(f"missed: {line}")
    return 0
