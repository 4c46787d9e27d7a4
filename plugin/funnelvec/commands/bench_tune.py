"""``funnelvec bench tune``."""

from __future__ import annotations

import argparse

from funnelvec.commands.bench_data import bases_of, dataset_of
from funnelvec.commands.bench_report import print_and_write
from funnelvec.commands.output import progress

__all__ = ["run_tune"]

# (rows that are drawn, or at most taken of a file; queries, rounds, queries of the grid)
_QUICK, _FULL = (1_500, 400, 3, 40), (20_000, 900, 5, 100)
#: Of what is drawn for the quick way.
_QUICK_DIMS = 256


def run_tune(args: argparse.Namespace) -> int:
    """Measure the tuner beside a grid of what it could have chosen."""
    from funnelvec import bench

    rows, queries, rounds, grid = _QUICK if args.quick else _FULL
    # With --rows the quick way has the whole grid, and takes its time.
    coarse = args.quick and args.rows is None
    if coarse:
        args.rows = rows
    if args.quick and args.data is None and args.spectrum is None and args.dims is None:
        args.dims = _QUICK_DIMS
    report = bench.compare_tuning(
        args.url,
        dataset_of(args, rows=rows, queries=queries),
        target=args.recall,
        k=args.k,
        rounds=rounds if args.rounds is None else args.rounds,
        grid_queries=grid,
        coarse=coarse,
        bases=bases_of(args, brief=coarse),
        say=progress(),
    )
    return print_and_write(args, report)
