"""``funnelvec certify``."""

from __future__ import annotations

import argparse
import json

from funnelvec.commands import judged
from funnelvec.commands.output import print_json
from funnelvec.commands.target import usage_error

_EXAMPLES = """\
  funnelvec certify postgresql:///shop products judgments --max-miss 0.05
  funnelvec certify postgresql:///shop products judged.parquet --min-precision 0.9 -k 20"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    judged.add_arguments(parser, examples=_EXAMPLES)
    promise = parser.add_mutually_exclusive_group()
    promise.add_argument(
        "--max-miss", type=float, metavar="SHARE", help="lose at most so much (default 0.05)"
    )
    promise.add_argument(
        "--min-precision",
        type=float,
        metavar="SHARE",
        help="show at least so much that is relevant",
    )
    parser.add_argument(
        "--confidence", type=float, metavar="P", help="of --min-precision (default 0.95)"
    )
    parser.add_argument("-k", type=int, help="rows that it is about (default 100)")


def run(args: argparse.Namespace) -> int:
    """Certify."""
    if args.confidence is not None and args.min_precision is None:
        usage_error(args, "argument --confidence: it belongs to --min-precision")
    with judged.opened(args) as opened:
        counted = judged.summary(opened.judgments)
        if args.dry_run:
            certificate = None
        elif args.min_precision is not None:
            certificate = opened.table.certify(
                opened.judgments,
                min_precision=args.min_precision,
                confidence=0.95 if args.confidence is None else args.confidence,
                k=args.k,
                funnel=opened.funnel,
            )
        else:
            certificate = opened.table.certify(
                opened.judgments,
                max_miss=0.05 if args.max_miss is None else args.max_miss,
                k=args.k,
                funnel=opened.funnel,
            )
    if args.json:
        said = None if certificate is None else json.loads(certificate.to_json())
        print_json({**counted, "certificate": said, "dry_run": args.dry_run})
        return 0
    print(f"{counted['pairs']:,} judged pairs of {counted['queries']:,} queries")
    print("nothing was certified or written" if certificate is None else str(certificate))
    return 0
