"""``funnelvec bench tune``."""

from __future__ import annotations

import argparse

from funnelvec.commands.bench_data import dataset_of
from funnelvec.commands.bench_report import print_and_write
from funnelvec.commands.output import progress

__all__ = ["run_tune"]

# (rows that are drawn, or at most taken of a file; queries, rounds, queries of the grid)
_QUICK, _FULL = (3_000, 300, 3, 40), (20_000, 900, 5, 100)


def run_tune(args: argparse.Namespace) -> int:
    """Measure the tuner beside a grid of what it could have chosen."""
    from funnelvec import bench
    from funnelvec.bench.peers import BASES

    rows, queries, rounds, grid = _QUICK if args.quick else _FULL
    if args.quick and args.rows is None:
        args.rows = rows
    report = bench.compare_tuning(
        args.url,
        dataset_of(args, rows=rows, queries=queries),
        target=args.recall,
        k=args.k,
        rounds=rounds if args.rounds is None else args.rounds,
        grid_queries=grid,
        bases=BASES if args.basis is None else [args.basis],
        say=progress(),
    )
    return print_and_write(args, report)
