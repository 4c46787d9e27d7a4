"""``funnelvec bench qdrant`` and ``funnelvec bench load`` on a Qdrant URL."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from funnelvec.commands.bench_data import bases_of, dataset_of
from funnelvec.commands.bench_report import print_and_write
from funnelvec.commands.output import print_report, progress

if TYPE_CHECKING:
    from funnelvec.bench import Dataset

__all__ = ["is_qdrant", "run_qdrant", "run_qdrant_load"]

# (rows that are drawn, or at most taken of a file; queries)
_QUICK, _FULL = (4_000, 100), (20_000, 300)
#: Of what is drawn for the quick way: fitting rotations takes most of it, and goes by the width.
#: With fewer rows Qdrant would go through all points: it makes graphs from 10,000 kB on.
_QUICK_DIMS = 768


def is_qdrant(url: str | None) -> bool:
    """Whether rows are to be loaded into Qdrant, and not into a Postgres."""
    return url is not None and url.startswith(("http://", "https://", "edge:", "qdrant-local:"))


def run_qdrant(args: argparse.Namespace) -> int:
    """Compare with what Qdrant has."""
    from funnelvec.bench.edge_peers import compare_edge

    rows, queries = _QUICK if args.quick else _FULL
    brief = args.quick and args.rows is None
    if brief:
        args.rows = rows  # of a file, too: or the quick way would not be one
    if args.quick and args.data is None and args.spectrum is None and args.dims is None:
        args.dims = _QUICK_DIMS
    report = compare_edge(
        dataset_of(args, rows=rows, queries=queries),
        funnels=[args.funnel] if args.funnel else [],
        target=args.recall,
        k=args.k,
        rounds=(3 if args.quick else 5) if args.rounds is None else args.rounds,
        bases=bases_of(args, brief=brief),
        quick=args.quick,
        url=args.url,
        say=progress(),
    )
    return print_and_write(args, report)


def run_qdrant_load(args: argparse.Namespace, dataset: Dataset, first: str, rounds: int) -> int:
    """Measure how fast points get in."""
    from funnelvec.bench.loading_points import compare_point_loads

    report = compare_point_loads(
        args.url,
        dataset,
        resolution=first,
        rounds=rounds if args.rounds is None else args.rounds,
        parallel=args.parallel,
        say=progress(),
    )
    return print_report(args, report.as_json(), [report.section()], report.lines())
