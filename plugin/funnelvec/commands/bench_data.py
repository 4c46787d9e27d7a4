"""The vectors that ``funnelvec bench`` measures with: a file's or drawn ones, in either basis."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from funnelvec.commands.target import usage_error

if TYPE_CHECKING:
    from funnelvec.bench import Dataset

__all__ = ["add_data", "bases_of", "check_data", "dataset_of", "turned"]


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which vectors."""
    parser.add_argument("--data", metavar="FILE", help="vectors: .npy or .parquet")
    parser.add_argument("--column", metavar="NAME", help="column of the Parquet file")
    parser.add_argument("--queries", metavar="FILE", help="queries (default: rows held out)")
    parser.add_argument("--rows", type=int, metavar="N", help="at most so many rows")
    parser.add_argument("--dims", type=int, metavar="D", help="width of generated vectors")
    parser.add_argument(
        "--spectrum",
        metavar="FILE",
        help="draw vectors whose dimensions have these variances: an .npy of eigenvalues, or "
        "power:EXPONENT",
    )
    parser.add_argument(
        "--basis",
        choices=("own", "rotated"),
        help="as they are, or under a random rotation (default: own; peers, qdrant, tune: both)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")


def check_data(args: argparse.Namespace) -> None:
    """Refuse arguments that do not go together."""
    if args.data is None and (args.queries or args.column):
        usage_error(args, "--queries and --column go with --data")
    if args.data is not None and args.dims is not None:
        usage_error(args, "--dims is for generated vectors; the file has its own")
    if args.data is not None and args.spectrum is not None:
        usage_error(args, "--spectrum is for generated vectors; the file has its own")
    if args.basis is not None and args.what in ("relevance", "papers"):
        usage_error(args, f"--basis does not go with {args.what}: a rotation changes no cosine")
    if args.spectrum is not None and args.what in ("relevance", "papers"):
        usage_error(args, f"--spectrum does not go with {args.what}, which generates nothing")


def dataset_of(args: argparse.Namespace, *, rows: int, queries: int) -> Dataset:
    """Read or draw; `rows` where the caller has not said how many to draw."""
    from funnelvec import bench

    if args.data is None:
        found = bench.generate(
            rows if args.rows is None else args.rows,
            queries,
            dims=args.dims,
            seed=args.seed,
            spectrum_of=args.spectrum,
        )
    else:
        found = bench.load(
            args.data,
            column=args.column,
            queries_path=args.queries,
            rows=args.rows,
            queries=queries,
            seed=args.seed,
        )
    # These measure in both bases and turn the vectors themselves.
    return found if args.what in ("peers", "qdrant", "tune") else turned(args, found)


def bases_of(args: argparse.Namespace, *, brief: bool = False) -> Sequence[str]:
    """Return the bases to measure in: all unless one was asked for, or time is short."""
    from funnelvec.bench.peers import BASES

    if args.basis is not None:
        return [args.basis]
    return BASES[:1] if brief else BASES


def turned(args: argparse.Namespace, dataset: Dataset) -> Dataset:
    """Under a random rotation, where that was asked for."""
    from funnelvec.bench.data import rotated

    return rotated(dataset, seed=args.seed) if args.basis == "rotated" else dataset
