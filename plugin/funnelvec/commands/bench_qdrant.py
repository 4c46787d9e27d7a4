"""``funnelvec bench qdrant`` and ``funnelvec bench load`` on a Qdrant URL."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from funnelvec.commands.output import print_report, progress

if TYPE_CHECKING:
    from funnelvec.bench import Dataset

__all__ = ["is_qdrant", "run_qdrant", "run_qdrant_load"]


def is_qdrant(url: str | None) -> bool:
    """Whether rows are to be loaded into Qdrant, and not into a Postgres."""
    return url is not None and url.startswith(("http://", "https://", "edge:", "qdrant-local:"))


def run_qdrant(args: argparse.Namespace, dataset: Dataset) -> int:
    """Compare with what Qdrant has."""
    from funnelvec.bench.edge_peers import compare_edge
    from funnelvec.bench.peers import BASES

    report = compare_edge(
        dataset,
        funnels=[args.funnel] if args.funnel else [],
        target=args.recall,
        k=args.k,
        rounds=(3 if args.quick else 5) if args.rounds is None else args.rounds,
        bases=BASES if args.basis is None else [args.basis],
        quick=args.quick,
        url=args.url,
        say=progress(),
    )
    return print_report(args, report.as_json(), report.sections(), report.lines())


def run_qdrant_load(args: argparse.Namespace, dataset: Dataset, first: str, rounds: int) -> int:
    """Measure how fast points get in."""
    from funnelvec.bench.loading_points import compare_point_loads

    report = compare_point_loads(
        args.url,
        dataset,
        resolution=first,
        rounds=rounds if args.rounds is None else args.rounds,
        say=progress(),
    )
    return print_report(args, report.as_json(), [report.section()], report.lines())
