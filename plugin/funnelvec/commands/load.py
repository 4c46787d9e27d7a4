"""``funnelvec load``."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
from typing import Any

from funnelvec.commands.output import print_json
from funnelvec.commands.target import add_target, opened, read_files, usage_error
from funnelvec.reports import LoadReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = """\
examples:
  funnelvec load postgresql:///shop products products.parquet
  funnelvec load postgresql:///shop products exports/ --ids sku --vectors emb --columns price,lang=l
  funnelvec load postgresql:///shop products vectors.npy --ids keys.npy --upsert
  funnelvec load postgresql:///shop products products.parquet --dry-run

FILE is Parquet, a folder of Parquet files, or .npy (vectors; their keys come from --ids). Every
batch is committed. After an interruption, whatever it was, the same command goes on after the rows
that are in; it makes sure that the files are the same."""
    add_target(parser, table=True, required=True)
    parser.usage = f"{parser.prog} [URL] TABLE FILE... [options]"
    parser.add_argument(
        "--ids",
        "--id",
        metavar="NAME",
        help="column of the files with the key, a,b where it has several columns, or an .npy file "
        "(default: the names of the table's key)",
    )
    parser.add_argument(
        "--vectors", metavar="NAME", help="column of the files with the vectors (default: as there)"
    )
    parser.add_argument(
        "--columns",
        metavar="LIST",
        help="further columns, as price,lang=language where the file calls lang language "
        "(default: all that the table has)",
    )
    parser.add_argument(
        "--vector", metavar="COLUMN", help="vector column of the table, if it has several"
    )
    parser.add_argument("--upsert", action="store_true", help="change rows that are there already")
    parser.add_argument("--batch", type=int, metavar="N", help="rows per batch and transaction")
    parser.add_argument(
        "--parallel",
        type=int,
        default=1,
        metavar="N",
        help="batches on their way at once, to a Qdrant server (default 1)",
    )
    parser.add_argument(
        "--name", help="what this load is found by when it is started again (default: its files)"
    )
    parser.add_argument(
        "--restart", action="store_true", help="begin with the first row, whatever is in already"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="read and check all rows, and write nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Load."""
    url, name, files = read_files(args)
    if args.restart and args.name is not None:
        usage_error(args, "--restart and --name: a name is for going on")
    columns = _columns(args, args.columns)
    with opened(url) as engine:
        table = engine.table(name, vector=args.vector)
        report = table.load(
            files,
            ids=_ids(args.ids),
            vectors=args.vectors,
            columns=columns,
            batch_size=args.batch,
            upsert=args.upsert,
            resume=not args.restart if args.name is None else args.name,
            dry_run=args.dry_run,
            parallel=args.parallel,
            # Without rich there is no bar; loading needs none.
            progress=importlib.util.find_spec("rich") is not None,
        )
    if args.json:
        print_json(dataclasses.asdict(report))
        return 0
    for line in _lines(report, name, upsert=args.upsert):
        print(line)
    return 0


def _ids(given: str | None) -> Any:
    if given is None or given.endswith(".npy"):
        return given
    return given.split(",")


def _columns(args: argparse.Namespace, given: str | None) -> dict[str, str] | None:
    if given is None:
        return None
    pairs = [part.partition("=") for part in given.split(",") if part]
    if any(not name or (sign and not origin) for name, sign, origin in pairs):
        usage_error(args, f"argument --columns: {given!r} is no list such as price,lang=language")
    return {name: origin or name for name, _, origin in pairs}


def _lines(report: LoadReport, table: str, *, upsert: bool) -> list[str]:
    rate = f", {report.rows / report.seconds:,.0f} rows/s" if report.seconds else ""
    if report.dry_run:
        lines = [f"{report.rows:,} rows can be loaded into {table}; nothing was written"]
    else:
        kinds = f" ({report.inserted:,} new, {report.updated:,} changed)" if upsert else ""
        lines = [f"loaded {report.rows:,} rows into {table}{kinds} in {report.seconds:.1f} s{rate}"]
    if report.skipped:
        lines.append(f"{report.skipped:,} rows were in from before")
    if report.unused:
        lines.append(f"not used: {', '.join(report.unused)}")
    return lines
