"""``funnelvec evaluate``."""

from __future__ import annotations

import argparse

from funnelvec.commands import judged
from funnelvec.commands.output import print_json, print_table

_EXAMPLES = """\
  funnelvec evaluate postgresql:///shop products judgments
  funnelvec evaluate postgresql:///shop products judged.parquet --min-relevance 0.7
  funnelvec evaluate http://localhost:6333 products judged.csv -k 50 --judged-only --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    judged.add_arguments(parser, examples=_EXAMPLES)
    parser.add_argument("-k", type=int, metavar="K", help="rows per query (default: up to 100)")
    parser.add_argument(
        "--min-relevance", type=float, metavar="P", help="measure this cutoff too, 0 to 1"
    )
    parser.add_argument(
        "--judged-only",
        action="store_true",
        help="leave out rows that nobody judged (default: they count as not relevant)",
    )
    parser.add_argument(
        "--draws", type=int, default=200, metavar="N", help="draws of the bootstrap (default 200)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")


def run(args: argparse.Namespace) -> int:
    """Ask, measure and print."""
    from funnelvec.evaluation.ranking import check_available

    check_available()
    with judged.opened(args) as opened:
        if args.dry_run:
            return _dry(args, judged.summary(opened.judgments))
        found = opened.table.evaluate(
            opened.judgments,
            k=args.k,
            min_relevance=args.min_relevance,
            unjudged="ignored" if args.judged_only else "irrelevant",
            funnel=opened.funnel,
            times=args.draws,
            seed=args.seed,
            progress=judged.shows_progress(),
        )
    if args.json:
        print_json(found.as_json())
        return 0
    head, *rows = found.rows()
    print_table(head, rows, title=found.assumptions())
    return 0


def _dry(args: argparse.Namespace, found: dict[str, int]) -> int:
    if args.json:
        print_json({**found, "dry_run": True})
    else:
        print(f"{found['pairs']:,} judged pairs of {found['queries']:,} queries; nothing was asked")
    return 0
