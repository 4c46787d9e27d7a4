"""``funnelvec calibrate``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from funnelvec.commands import judged
from funnelvec.commands.output import print_json
from funnelvec.commands.target import usage_error
from funnelvec.types import Family

if TYPE_CHECKING:
    from funnelvec.calibration.base import Calibration
    from funnelvec.calibration.certificate import Certificate

_EXAMPLES = """\
  funnelvec calibrate postgresql:///shop products judgments
  funnelvec calibrate postgresql:///shop products judged.parquet --grade rating --relevant-from 2
  funnelvec calibrate postgresql:///shop products items.csv --encoder app:embed --add-unjudged 50
  funnelvec calibrate postgresql:///shop products judgments --max-miss 0.05 --report out.html

--report needs: pip install 'funnelvec[evaluate,report]'."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    judged.add_arguments(parser, examples=_EXAMPLES)
    parser.add_argument(
        "--family",
        choices=get_args(Family),
        default="platt",
        help="the kind of map: one for all queries, or an adapter with one for each; auto takes "
        "the best by cross-validation (default platt)",
    )
    parser.add_argument(
        "--report",
        action="append",
        default=[],
        metavar="FILE",
        help="show the calibration: a page (out.html), plots (out.png) or numbers (out.json); "
        "may be given several times",
    )
    parser.add_argument(
        "--max-miss",
        type=float,
        metavar="P",
        help="certify the cutoff that loses at most this share too, and show it in the report",
    )
    parser.add_argument("-k", type=int, metavar="K", help="rows that the report and --max-miss ask")


def run(args: argparse.Namespace) -> int:
    """Calibrate."""
    files = report_files(args)
    with judged.opened(args) as opened:
        promises: list[Certificate] = []
        found: dict[str, Any] = {"table": opened.table.name, **judged.summary(opened.judgments)}
        if not args.dry_run:
            fitted = opened.table.calibrate(
                opened.judgments, family=args.family, funnel=opened.funnel
            )
            found["calibration"] = json.loads(fitted.to_json())
            if args.max_miss is not None:
                promise = opened.table.certify(
                    opened.judgments, max_miss=args.max_miss, k=args.k, funnel=opened.funnel
                )
                found["certificate"] = json.loads(promise.to_json())
                promises.append(promise)
            if files:
                _report(args, opened, fitted, promises, files)
    if args.json:
        print_json({**found, "dry_run": args.dry_run})
        return 0
    print(
        f"{found['pairs']:,} judged pairs of {found['queries']:,} queries, "
        f"{found['relevant']:,} of them relevant"
    )
    if args.dry_run:
        print("nothing was fitted or written")
        return 0
    calibration = found["calibration"]
    numbers = ", ".join(
        f"{name} {value:.6g}"
        for name, value in calibration.items()
        if isinstance(value, float) and (name, value) != ("alpha", 0.0)  # no hub column
    )
    for promise in promises:
        print(promise)
    for path in files:
        print(f"report: {path}")
    print(f"calibrated {opened.table.name}: {calibration['kind']}" + (numbers and f" ({numbers})"))
    return 0


def report_files(args: argparse.Namespace) -> list[Path]:
    """The files of ``--report``: refused before the work if they cannot be written."""
    from funnelvec.evaluation.calibration_report import check_format

    files = [Path(name) for name in args.report]
    if not files:
        return files
    for path in files:
        if path.is_dir() or not path.absolute().parent.is_dir():
            usage_error(args, f"argument --report: {path} is no file in a folder that exists")
    kinds = {check_format(path) for path in files}
    from funnelvec.evaluation.ranking import check_available

    check_available()
    if kinds - {".json"}:
        from funnelvec.pages import check_available as check_pages

        check_pages()
    return files


def _report(
    args: argparse.Namespace,
    opened: judged.Judged,
    calibration: Calibration,
    promises: Sequence[Certificate],
    files: Sequence[Path],
) -> None:
    """Ask the judged queries and show what the calibration makes of the answers.

    Rows that nobody judged had no part in the fit, so they have none in the report.
    """
    from funnelvec.evaluation.calibration_report import CalibrationReport

    report = CalibrationReport.measure(
        opened.table,
        opened.judgments,
        calibration,
        k=args.k,
        funnel=opened.funnel,
        certificates=promises,
        progress=judged.shows_progress(),
    )
    for path in files:
        report.write(path)
