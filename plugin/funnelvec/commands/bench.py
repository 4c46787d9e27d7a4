"""``funnelvec bench``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from funnelvec.commands.bench_data import add_data, check_data, dataset_of, turned
from funnelvec.commands.bench_papers import add_papers, run_papers
from funnelvec.commands.bench_peers import add_peers, run_peers
from funnelvec.commands.bench_qdrant import is_qdrant, run_qdrant, run_qdrant_load
from funnelvec.commands.bench_relevance import add_relevance, run_relevance
from funnelvec.commands.bench_report import check_report, print_and_write
from funnelvec.commands.bench_tune import run_tune
from funnelvec.commands.output import print_report, progress
from funnelvec.commands.target import usage_error
from funnelvec.errors import MissingDependency

if TYPE_CHECKING:
    from funnelvec.bench import Dataset, WindowReport, WriteBench

# (queries, rounds, builds)
_QUICK, _FULL = (100, 5, 1), (300, 9, 3)
_ROWS = 20_000
_LOAD_ROWS, _LOAD_QUICK, _LOAD_FULL = 10_000, 3, 9
_WINDOW_ROWS, _WINDOW_DIMS, _WINDOW_QUICK, _WINDOW_FULL = 20_000, 256, (10, 1), 3
_CODE_ROWS, _CODE_QUERIES = 20_000, 300
_WRITE_ROWS, _WRITE_QUICK, _WRITE_FULL = 2_000, 3, 5

_EPILOG = f"""\
examples:
  funnelvec bench --quick
  funnelvec bench peers --quick
  funnelvec bench peers --data vectors.npy --queries queries.npy --clients 4 --report out.html
  funnelvec bench qdrant --quick --data vectors.npy --queries queries.npy
  funnelvec bench papers --quick --data DIR
  funnelvec bench load --quick
  funnelvec bench writes --quick
  funnelvec bench relevance --quick --data DIR
  funnelvec bench --quick --data vectors.npy --queries queries.npy
  funnelvec bench --data docs.parquet --column embedding --funnel '128:f16@200 > 768:f32' --json

Without --data, {_ROWS:,} vectors of 1,536 dimensions are generated, with a decaying spectrum.
Without --url, a Postgres is started in a temporary folder and removed at the end. Both indexes
are built with m 16 and ef_construction 64. --quick: {_QUICK[0]} queries in {_QUICK[1]} rounds,
{_QUICK[2]} build, under two minutes on two cores; else {_FULL[0]} queries, {_FULL[1]} rounds,
{_FULL[2]} builds.

`bench filters` asks under filters that match 0.01 % to 100 % of the rows.

`bench windows` measures searches with a range in their filter: a funnel with windows beside
filtering what full HNSW has found, and pgvector's iterative scan. Give --data, --queries,
--values, --by and --ranges, or none of them for {_WINDOW_ROWS:,} generated rows. --quick:
{_WINDOW_QUICK[0]} cases of each width in {_WINDOW_QUICK[1]} round; else all, in {_WINDOW_FULL}.

`bench peers` measures funnels beside full HNSW, HNSW over halfvec, pgvector's two recipes with
reranking, Supabase's adaptive retrieval, LangChain's stores (where installed), pgvectorscale
(where the server has it) and exact search, each at the setting that reaches --recall in the least
time; in the vectors' own basis and under a random orthogonal matrix. --funnel names a template
without keeps. --quick takes 1,500 rows, also of a file, unless --rows says otherwise, and draws
768 dimensions.

`bench papers` does what papers say they do and prints their figures beside: matryoshka, pca-rag,
leanvec, lid-order. --data is the folder of the open evaluation sets; what needs one is skipped
without.

`bench tune` measures the tuner beside an exhaustive grid of what it could have chosen: its search
time over that of the grid's best at --recall, the time that both took, and how often a recall that
was stated holds for fresh queries. --quick takes 1,500 rows (drawn: of 256 dimensions), every
third keep and one basis; with --rows it takes every keep, and both.

`bench qdrant` measures funnels on Qdrant Edge beside full-dimension HNSW and Qdrant's own
quantizations with rescoring (int8, binary, turbo), each at the setting that reaches --recall in
the least time, in both bases; then what this package costs over the same request built by hand,
on Edge, in local mode, and on the server of --url if one is given. --quick takes 4,000 rows, also
of a file, and one basis, unless --rows or --basis says otherwise, and draws 768 dimensions.

`bench load` measures how fast rows get in: a bare binary COPY, ours, ours with the codes of the
first stage of --funnel, with their index too, and upserts; {_LOAD_ROWS:,} rows (fewer with an
index), {_LOAD_FULL} rounds, with --quick {_LOAD_QUICK}. With a --url of Qdrant's (http:, edge:,
qdrant-local:) it measures the client's upload_points, or Edge's upsert, and ours; --parallel is
that of all of them.

`bench writes` measures what inserts, updates and deletes cost with codes in a column, in a side
table and without: time, WAL per row, share of HOT updates, and what fillfactor does to them;
{_WRITE_ROWS:,} rows, {_WRITE_FULL} rounds, with --quick {_WRITE_QUICK}.

`bench codes` measures what codes keep of the exact top 10, per byte: prefixes, rotations, signs
and what lost against them; in numpy, without a database; {_CODE_ROWS:,} rows. --turn rotates the
vectors at random before, as if no dimension were special."""


_KINDS = (
    *("search", "peers", "qdrant", "tune", "filters", "windows", "codes", "relevance", "papers"),
    *("load", "writes"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("what", nargs="?", choices=_KINDS, default="search", help="default: search")
    parser.add_argument("--quick", action="store_true", help="fewer queries, rounds and builds")
    add_data(parser)
    parser.add_argument("--funnel", metavar="TEXT", help="default: '128:f16@200 > D:f32'")
    parser.add_argument("-k", type=int, default=10, help="how many rows to find (default 10)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of all queries")
    parser.add_argument(
        "--url", help="measure on this server, in a schema of its own that is dropped at the end"
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="search, peers, qdrant, tune and papers: also a page (.html), or the plots (.png)",
    )
    parser.add_argument(
        "--parallel",
        type=int,
        default=1,
        metavar="N",
        help="load, with a --url of Qdrant's: requests at once, of every contestant (default 1)",
    )
    add_peers(parser.add_argument_group("peers"))
    _add_windows(parser.add_argument_group("windows"))
    codes = parser.add_argument_group("codes")
    codes.add_argument("--turn", action="store_true", help="rotate the vectors at random first")
    add_relevance(parser.add_argument_group("relevance"))
    add_papers(parser.add_argument_group("papers"))


def _add_windows(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--values", metavar="FILE", help="Parquet, a row for each vector of --data")
    group.add_argument("--by", metavar="NAME", help="column of --values, whole numbers")
    group.add_argument("--ranges", metavar="FILE", help="Parquet with the columns qid, lo and hi")
    group.add_argument("--levels", type=int, metavar="N", help="levels of windows")


def run(args: argparse.Namespace) -> int:
    """Measure."""
    try:
        import funnelvec.bench  # noqa: F401 (whether it can be, with what it needs)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("funnelvec"):
            raise
        raise MissingDependency.of(error.name or "numpy", extra="bench") from error
    check_data(args)
    if args.set and args.what != "relevance":
        usage_error(args, "--set goes with relevance")
    check_report(args)
    if args.paper and args.what != "papers":
        usage_error(args, "--paper goes with papers")
    others = {
        "load": _run_load,
        "papers": run_papers,
        "peers": run_peers,
        "qdrant": run_qdrant,
        "tune": run_tune,
        "writes": _run_writes,
        "windows": _windows,
        "codes": _run_codes,
        "relevance": run_relevance,
    }
    return others.get(args.what, _run_search)(args)


def _run_search(args: argparse.Namespace) -> int:
    from funnelvec import bench

    queries, rounds, builds = _QUICK if args.quick else _FULL
    if args.what == "filters":
        queries = 20 if args.quick else 60
    dataset = dataset_of(args, rows=_ROWS, queries=queries)
    if args.what == "filters":
        return _filters(args, dataset)
    report = bench.compare(
        args.url,
        dataset,
        funnel=args.funnel,
        k=args.k,
        rounds=rounds if args.rounds is None else args.rounds,
        builds=builds if args.builds is None else args.builds,
        say=progress(),
    )
    return print_and_write(args, report)


def _print(args: argparse.Namespace, report: WindowReport | WriteBench) -> int:
    return print_report(args, report.as_json(), report.sections(), report.lines())


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
    return print_report(args, report.as_json(), [report.section()], report.lines())


def _windows(args: argparse.Namespace) -> int:
    from funnelvec import bench

    files = {"data": args.data, "queries": args.queries, "values": args.values,
             "by": args.by, "ranges": args.ranges}  # fmt: skip
    missing = [name for name, given in files.items() if given is None]
    if missing and len(missing) < len(files):
        usage_error(args, f"windows also needs {', '.join(f'--{name}' for name in missing)}")
    cases = _WINDOW_QUICK[0] if args.quick else None
    if missing:
        ranges = bench.generate_ranges(
            _WINDOW_ROWS if args.rows is None else args.rows,
            dims=_WINDOW_DIMS if args.dims is None else args.dims,
            per_share=cases or 2 * _WINDOW_QUICK[0],
            seed=args.seed,
            spectrum_of=args.spectrum,
        )
    else:
        ranges = bench.load_ranges(
            args.data,
            queries=args.queries,
            values=args.values,
            by=args.by,
            ranges=args.ranges,
            rows=(_WINDOW_ROWS if args.quick else None) if args.rows is None else args.rows,
            per_share=cases,
            seed=args.seed,
        )
    rounds = _WINDOW_QUICK[1] if args.quick else _WINDOW_FULL
    report = bench.measure_windows(
        args.url,
        replace(ranges, data=turned(args, ranges.data)),
        funnel=args.funnel,
        k=args.k,
        rounds=rounds if args.rounds is None else args.rounds,
        levels=args.levels,
        say=progress(),
    )
    return _print(args, report)


def _run_load(args: argparse.Namespace) -> int:
    from funnelvec import bench

    dataset, first = _rows_and_codes(args, _LOAD_ROWS)
    rounds = _LOAD_QUICK if args.quick else _LOAD_FULL
    if args.parallel != 1 and not is_qdrant(args.url):
        usage_error(args, "--parallel goes with a --url of Qdrant's")
    if is_qdrant(args.url):
        return run_qdrant_load(args, dataset, first, rounds)
    report = bench.compare_loads(
        args.url,
        dataset,
        resolution=first,
        rounds=rounds if args.rounds is None else args.rounds,
        say=progress(),
    )
    return print_report(args, report.as_json(), [report.section()], report.lines())


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
    return _print(args, report)


def _run_codes(args: argparse.Namespace) -> int:
    from funnelvec import bench

    if args.rows is None:
        args.rows = _CODE_ROWS
    dataset = dataset_of(args, rows=_CODE_ROWS, queries=_CODE_QUERIES)
    report = bench.compare_codes(dataset, turned=args.turn, seed=args.seed, say=progress())
    return print_report(args, report.as_json(), [report.section()])


def _rows_and_codes(args: argparse.Namespace, rows: int) -> tuple[Dataset, str]:
    """What is written, and the resolution of the first stage."""
    from funnelvec.funnel import Funnel

    if args.rows is None:
        args.rows = rows
    dataset = dataset_of(args, rows=rows, queries=1)
    if args.funnel is not None:
        return dataset, str(Funnel.parse(args.funnel).stages[0].resolution)
    return dataset, f"{min(128, dataset.dims)}:f16"
