"""``funnelvec tune``."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from funnelvec import entry
from funnelvec.commands.output import print_json, progress
from funnelvec.commands.target import add_target, read_target, usage_error
from funnelvec.errors import InvalidInput, NotFound

_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)b?", re.IGNORECASE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = """\
examples:
  funnelvec tune postgresql:///shop products --dry-run
  funnelvec tune postgresql:///shop products --recall 0.99 --queries queries.npy --report tuned.html
  funnelvec tune postgresql:///shop products --queries log --memory 200MB
  funnelvec tune postgresql:///shop products --latency 5 --on-copy 20000

Builds what it measures, keeps the funnel that wins and what it needs, and removes what lost. Run it
again after an interruption: it goes on with what was built. --dry-run and --on-copy change nothing
in the table. --report and --plot need: pip install 'funnelvec[report]'."""
    add_target(parser, table=True, required=True)
    parser.add_argument("--vector", metavar="COLUMN", help="if the table has several")
    parser.add_argument("--recall", type=float, metavar="R", help="to be found (default 0.99)")
    parser.add_argument("-k", type=int, default=10, help="of the best so many rows (default 10)")
    parser.add_argument(
        "--queries", metavar="WHERE", help="an .npy file (n, dims), 'log', or 'rows' of the table"
    )
    parser.add_argument("--funnel", metavar="NAME", help="default: TABLE_search")
    budget = parser.add_argument_group("budget")
    budget.add_argument("--memory", metavar="SIZE", help="index and codes, such as 200MB")
    budget.add_argument("--storage", metavar="SIZE", help="on disk, beside the vectors")
    budget.add_argument("--build", type=float, metavar="SECONDS", help="to build what is missing")
    budget.add_argument("--latency", type=float, metavar="MS", help="find most within this time")
    parser.add_argument("--storage-kind", choices=("column", "side"), help="as for resolutions")
    parser.add_argument("--allow-rewrite", action="store_true", help="of tables over 100,000 rows")
    parser.add_argument("--sample", type=int, default=50_000, metavar="N", help="rows to simulate")
    parser.add_argument("--on-copy", type=int, metavar="N", help="build and measure on N rows")
    parser.add_argument("--dry-run", action="store_true", help="simulate, build nothing")
    parser.add_argument(
        "--measure-again", action="store_true", help="what the engine charges, which is kept else"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument("--report", metavar="FILE", help="write a page with the frontier: out.html")
    parser.add_argument("--plot", metavar="FILE", help="write the frontier: out.png or out.svg")


def run(args: argparse.Namespace) -> int:
    """Tune, print, and write the page."""
    url, name = read_target(args, table=True, required=True)
    files = [_writable(args, each) for each in ("report", "plot")]
    queries = _queries(args)
    budget = {
        "memory": _size(args, "memory"), "storage": _size(args, "storage"), "build": args.build,
        "latency": args.latency,
    }  # fmt: skip
    shown, say = _showing()
    with entry.connect(url) as engine:
        table: Any = engine.table(name, vector=args.vector)
        found = table.tune(
            args.recall, k=args.k, queries=queries, funnel=args.funnel,
            budget={each: limit for each, limit in budget.items() if limit is not None},
            storage=args.storage_kind, allow_rewrite=args.allow_rewrite, sample=args.sample,
            on_copy=args.on_copy, dry_run=args.dry_run, measure_again=args.measure_again,
            seed=args.seed, progress=shown, on_step=say,
        )  # fmt: skip
    page, plot = files
    if page is not None:
        found.write_report(page)
    if plot is not None:
        found.write_plot(plot)
    if args.json:
        print_json(found.as_json())
        return 0 if found.met else 1
    print(found)
    for kind, file in (("report", page), ("plot", plot)):
        if file is not None:
            print(f"{kind}: {file}")
    return 0 if found.met else 1


def _showing() -> tuple[bool, Any]:
    """A bar on a terminal that has rich, else a line for each step."""
    if sys.stderr.isatty():
        try:
            import rich  # noqa: F401
        except ImportError:
            pass
        else:
            return True, None
    return False, progress()


def _queries(args: argparse.Namespace) -> Any:
    if args.queries in (None, "log", "rows"):
        return args.queries
    import numpy as np

    path = Path(args.queries)
    if not path.is_file():
        raise NotFound(f"there is no file {args.queries!r}; --queries also takes 'log' and 'rows'")
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInput(f"{path} is not a NumPy array file: {error}") from None
    return found


def _size(args: argparse.Namespace, name: str) -> float | None:
    text = getattr(args, name)
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        usage_error(args, f"argument --{name}: {text!r} is no size such as 200MB")
    return float(found[1]) * _UNITS[found[2].lower()]


def _writable(args: argparse.Namespace, name: str) -> Path | None:
    """A file to write, refused before the work if that cannot be done."""
    given = getattr(args, name)
    if given is None:
        return None
    from funnelvec.pages import check_available
    from funnelvec.tuning.page import check_format

    path = Path(given)
    if name == "plot":
        check_format(path)
    if path.is_dir() or not path.absolute().parent.is_dir():
        usage_error(args, f"argument --{name}: {given} is no file in a folder that exists")
    check_available()
    return path
