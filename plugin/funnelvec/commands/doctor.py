"""``funnelvec doctor``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from funnelvec import entry
from funnelvec.commands.output import print_json
from funnelvec.commands.target import add_target, read_target, usage_error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = """\
examples:
  funnelvec doctor postgresql:///shop products
  funnelvec doctor postgresql:///shop products --report products.html
  funnelvec doctor postgresql:///shop products --vector embedding --sample 50000 --json

Reads a random sample, measures the table's funnels on rows old and new, and writes nothing to the
database. Ten thousand rows of 1,536 dimensions take
half a minute on two cores. --report needs: pip install 'funnelvec[report]'."""
    add_target(parser, table=True, required=True)
    parser.add_argument("--vector", metavar="COLUMN", help="if the table has several")
    parser.add_argument(
        "--sample", type=int, default=10_000, metavar="N", help="rows to draw (default 10000)"
    )
    parser.add_argument(
        "--queries", type=int, default=500, metavar="N", help="how many of them to ask for (500)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument(
        "--no-funnels", action="store_true", help="do not measure whether funnels still fit"
    )
    parser.add_argument("--report", metavar="FILE", help="write a page with plots: out.html")


def run(args: argparse.Namespace) -> int:
    """Examine, print, and write the page."""
    from funnelvec.doctor.limits import check

    url, name = read_target(args, table=True, required=True)
    check(sample=args.sample, queries=args.queries, seed=args.seed)
    page = None if args.report is None else _writable(args)
    with entry.connect(url) as engine:
        table: Any = engine.table(name, vector=args.vector)
        found = table.doctor(
            sample=args.sample, queries=args.queries, seed=args.seed, funnels=not args.no_funnels,
            progress=_shows_progress(),
        )  # fmt: skip
    if page is not None:
        found.write_report(page)
    if args.json:
        print_json(found.as_json())
        return 0
    print(found)
    if page is not None:
        print(f"\nreport: {page}")
    return 0


def _shows_progress() -> bool:
    """A bar is welcome where rich is installed, and nobody has to install it for one."""
    if not sys.stderr.isatty():
        return False
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True


def _writable(args: argparse.Namespace) -> Path:
    """The file of ``--report``: refused before the work if it cannot be written."""
    from funnelvec.doctor.report import check_available

    page = Path(args.report)
    if page.is_dir() or not page.absolute().parent.is_dir():
        usage_error(args, f"argument --report: {args.report} is no file in a folder that exists")
    check_available()
    return page
