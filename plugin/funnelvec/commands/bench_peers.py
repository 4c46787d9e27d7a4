"""``funnelvec bench peers``."""

from __future__ import annotations

import argparse

from funnelvec.commands.bench_data import bases_of, dataset_of
from funnelvec.commands.bench_report import print_and_write
from funnelvec.commands.output import progress

__all__ = ["add_peers", "run_peers"]

# (rows that are drawn, or at most taken of a file; queries, rounds, builds)
_QUICK, _FULL = (1_500, 30, 3, 1), (20_000, 300, 5, 3)
#: Of what is drawn for the quick way: fitting rotations takes most of it, and goes by the width.
_QUICK_DIMS = 768
_CLIENTS = 4


def add_peers(group: argparse._ArgumentGroup) -> None:
    """Add the arguments."""
    group.add_argument(
        "--recall", type=float, default=0.99, help="what everybody has to reach (default 0.99)"
    )
    group.add_argument(
        "--builds", type=int, metavar="N", help="build the best of each so often (default 3)"
    )
    group.add_argument(
        "--clients",
        type=int,
        default=_CLIENTS,
        metavar="N",
        help=f"clients that ask at once, beside one alone (default {_CLIENTS})",
    )
    group.add_argument(
        "--grown-from", type=int, metavar="N", help="also the best funnel on N of the rows"
    )


def run_peers(args: argparse.Namespace) -> int:
    """Measure everybody at their best."""
    from funnelvec import bench

    rows, queries, rounds, builds = _QUICK if args.quick else _FULL
    if args.quick and args.rows is None:
        args.rows = rows  # of a file, too: or the quick way would not be one
    if args.quick and args.data is None and args.spectrum is None and args.dims is None:
        args.dims = _QUICK_DIMS
    report = bench.compare_peers(
        args.url,
        dataset_of(args, rows=rows, queries=queries),
        funnels=[args.funnel] if args.funnel else [],
        target=args.recall,
        k=args.k,
        rounds=rounds if args.rounds is None else args.rounds,
        builds=builds if args.builds is None else args.builds,
        clients=args.clients,
        bases=bases_of(args),
        grown_from=args.grown_from,
        say=progress(),
    )
    return print_and_write(args, report)
