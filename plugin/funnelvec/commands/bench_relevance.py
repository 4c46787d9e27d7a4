"""``funnelvec bench relevance``."""

from __future__ import annotations

import argparse

from funnelvec.commands.output import print_report, progress
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
    return print_report(
        args,
        report.as_json(),
        relevance_report.sections(report),
        [f"missed: {line}" for line in relevance_report.missed(report)],
    )
