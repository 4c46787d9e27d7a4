"""``funnelvec bench``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from funnelvec.commands.output import print_json, print_table, progress
from funnelvec.commands.target import usage_error
from funnelvec.errors import MissingDependency

if TYPE_CHECKING:
    from funnelvec.bench import Dataset

# (queries, rounds, builds)
_QUICK, _FULL = (100, 5, 1), (300, 9, 3)
_ROWS = 20_000
_LOAD_ROWS, _LOAD_QUICK, _LOAD_FULL = 10_000, 3, 9
_WRITE_ROWS, _WRITE_QUICK, _WRITE_FULL = 2_000, 3, 5

_EPILOG = f"""\
examples:
  funnelvec bench --quick
  funnelvec bench load --quick
  funnelvec bench writes --quick
  funnelvec bench --relevance --quick --data DIR
  funnelvec bench --quick --data vectors.npy --queries queries.npy
  funnelvec bench --data docs.parquet --column embedding --funnel '128:f16@200 > 768:f32' --json

Without --data, {_ROWS:,} vectors of 1,536 dimensions are generated, with a decaying spectrum.
Without --url, a Postgres is started in a temporary folder and removed at the end. Both indexes
are built with m 16 and ef_construction 64. --quick: {_QUICK[0]} queries in {_QUICK[1]} rounds,
{_QUICK[2]} build, under two minutes on two cores; else {_FULL[0]} queries, {_FULL[1]} rounds,
{_FULL[2]} builds.

`bench load` measures how fast rows get in: a bare binary COPY, ours, ours with the codes of the
first stage of --funnel, with their index too, and upserts; {_LOAD_ROWS:,} rows (fewer with an
index), {_LOAD_FULL} rounds, with --quick {_LOAD_QUICK}.

`bench writes` measures what inserts, updates and deletes cost with codes in a column, in a side
table and without: time, WAL per row, share of HOT updates, and what fillfactor does to them;
{_WRITE_ROWS:,} rows, {_WRITE_FULL} rounds, with --quick {_WRITE_QUICK}."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "what",
        nargs="?",
        choices=("search", "load", "writes"),
        default="search",
        help="default: search",
    )
    parser.add_argument("--quick", action="store_true", help="fewer queries, rounds and builds")
    parser.add_argument(
        "--filters",
        action="store_true",
        help="measure filtered searches instead: filters that match 0.01 %% to 100 %% of the rows",
    )
    _add_relevance(parser)
    parser.add_argument("--data", metavar="FILE", help="vectors: .npy or .parquet")
    parser.add_argument("--column", metavar="NAME", help="column of the Parquet file")
    parser.add_argument("--queries", metavar="FILE", help="queries (default: rows held out)")
    parser.add_argument("--rows", type=int, metavar="N", help="at most so many rows")
    parser.add_argument("--dims", type=int, metavar="D", help="width of generated vectors")
    parser.add_argument("--funnel", metavar="TEXT", help="default: '128:f16@200 > D:f32'")
    parser.add_argument("-k", type=int, default=10, help="how many rows to find (default 10)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of all queries")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument(
        "--url", help="measure on this Postgres, in a schema of its own that is dropped at the end"
    )


def _add_relevance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--relevance",
        action="store_true",
        help="measure calibration on the open judged sets instead; --data is their folder",
    )
    parser.add_argument(
        "--set", metavar="NAME", action="append", help="with --relevance: only this set (repeat)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure."""
    try:
        import funnelvec.bench  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("funnelvec"):
            raise
        raise MissingDependency.of(error.name or "numpy", extra="bench") from error
    if args.data is None and (args.queries or args.column):
        usage_error(args, "--queries and --column go with --data")
    if args.data is not None and args.dims is not None:
        usage_error(args, "--dims is for generated vectors; the file has its own")
    if args.relevance:
        return _relevance(args)
    if args.set:
        usage_error(args, "--set goes with --relevance")
    if args.what == "load":
        return _run_load(args)
    if args.what == "writes":
        return _run_writes(args)
    return _search(args)


def _search(args: argparse.Namespace) -> int:
    from funnelvec import bench

    queries, rounds, builds = _QUICK if args.quick else _FULL
    if args.filters:
        queries = 20 if args.quick else 60
    if args.data is None:
        dims = 1_536 if args.dims is None else args.dims
        rows = _ROWS if args.rows is None else args.rows
        dataset = bench.generate(rows, queries, dims=dims, seed=args.seed)
    else:
        dataset = bench.load(
            args.data,
            column=args.column,
            queries_path=args.queries,
            rows=args.rows,
            queries=queries,
            seed=args.seed,
        )
    if args.filters:
        return _filters(args, dataset)
    report = bench.compare(
        args.url,
        dataset,
        funnel=args.funnel,
        k=args.k,
        rounds=rounds if args.rounds is None else args.rounds,
        builds=builds,
        say=progress(),
    )
    if args.json:
        print_json(report.as_json())
        return 0
    for section in report.sections():
        print_table(section.head, section.rows, title=section.title)
        print()
    for line in report.lines():
        print(line)
    return 0


def _filters(args: argparse.Namespace, dataset: Dataset) -> int:
    from funnelvec import bench

    report = bench.measure_filters(
        args.url,
        dataset,
        funnel=args.funnel,
        k=args.k,
        rounds=3 if args.rounds is None else args.rounds,
        say=progress(),
    )
    if args.json:
        print_json(report.as_json())
        return 0
    section = report.section()
    print_table(section.head, section.rows, title=section.title)
    print()
    for line in report.lines():
        print(line)
    return 0


def _relevance(args: argparse.Namespace) -> int:
    from pathlib import Path

    from funnelvec.bench import relevance, relevance_report
    from funnelvec.bench.relevance_data import SETS

    if args.data is None:
        usage_error(args, "--relevance needs the folder of the judged sets: --data DIR")
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


def _run_load(args: argparse.Namespace) -> int:
    from funnelvec import bench

    dataset, first = _rows_and_codes(args, _LOAD_ROWS)
    rounds = _LOAD_QUICK if args.quick else _LOAD_FULL
    report = bench.compare_loads(
        args.url,
        dataset,
        resolution=first,
        rounds=rounds if args.rounds is None else args.rounds,
        say=progress(),
    )
    if args.json:
        print_json(report.as_json())
        return 0
    print_table(report.head, report.table(), title="Loading")
    print()
    for line in report.lines():
        print(line)
    return 0


def _run_writes(args: argparse.Namespace) -> int:
    from funnelvec import bench

    dataset, first = _rows_and_codes(args, _WRITE_ROWS)
    rounds = _WRITE_QUICK if args.quick else _WRITE_FULL
    report = bench.compare_writes(
        args.url,
        dataset,
        resolution=first,
        rounds=rounds if args.rounds is None else args.rounds,
        seed=args.seed,
        say=progress(),
    )
    if args.json:
        print_json(report.as_json())
        return 0
    for section in report.sections():
        print_table(section.head, section.rows, title=section.title)
        print()
    for line in report.lines():
        print(line)
    return 0


def _rows_and_codes(args: argparse.Namespace, rows: int) -> tuple[Dataset, str]:
    """What is written, and the resolution of the first stage."""
    from funnelvec import bench
    from funnelvec.funnel import Funnel

    rows = rows if args.rows is None else args.rows
    if args.data is None:
        dims = 1_536 if args.dims is None else args.dims
        dataset = bench.generate(rows, 1, dims=dims, seed=args.seed)
    else:
        dataset = bench.load(args.data, column=args.column, rows=rows, queries=1, seed=args.seed)
    if args.funnel is not None:
        return dataset, str(Funnel.parse(args.funnel).stages[0].resolution)
    return dataset, f"{min(128, dataset.dims)}:f16"
