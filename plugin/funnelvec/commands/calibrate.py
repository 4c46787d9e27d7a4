"""``funnelvec calibrate``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from funnelvec.commands import judged
from funnelvec.commands.output import print_json

_EXAMPLES = """\
  funnelvec calibrate postgresql:///shop products judgments
  funnelvec calibrate postgresql:///shop products judged.parquet --grade rating --relevant-from 2
  funnelvec calibrate postgresql:///shop products items.csv --encoder app:embed --add-unjudged 50"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    judged.add_arguments(parser, examples=_EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """Calibrate."""
    with judged.opened(args) as opened:
        found: dict[str, Any] = {"table": opened.table.name, **judged.summary(opened.judgments)}
        if not args.dry_run:
            fitted = opened.table.calibrate(opened.judgments, funnel=opened.funnel)
            found["calibration"] = json.loads(fitted.to_json())
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
        if isinstance(value, float) and not isinstance(value, bool)
    )
    print(f"calibrated {opened.table.name}: {calibration['kind']}" + (numbers and f" ({numbers})"))
    return 0
