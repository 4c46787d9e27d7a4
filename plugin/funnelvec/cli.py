"""The ``funnelvec`` command. Each subcommand is a module of `funnelvec.commands`.

Only the module of the command that was asked for is loaded, so ``funnelvec --help`` needs nothing
that a command may need. Nothing imports this module.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from funnelvec import __version__
from funnelvec.errors import FunnelvecError

__all__ = ["main"]

#: Command: what it does. The module ``commands/NAME.py`` has add_arguments(parser) and run(args).
COMMANDS = {
    "demo": "see it work: real text, an embedded Postgres, a funnel, calibrated relevance",
    "install": "put funnelvec into a database",
    "upgrade": "bring a database to this version of funnelvec",
    "uninstall": "take funnelvec out of a database; your data stays",
    "render": "print the SQL of an installation, for psql or pg_tle",
    "load": "load rows from Parquet or .npy files; goes on where it was interrupted",
    "status": "what a database has: version, resolutions, funnels",
    "backfill": "fill side tables, build indexes that were left, switch searches over; resumable",
    "repair": "mend what renames, drops, moves and restores left out of step",
    "tune": "choose the funnel of a table for a recall, and build it",
    "search": "search a table through its funnel",
    "explain": "search, and show what survives each stage and what it costs",
    "calibrate": "fit relevance to judgments: a Parquet or CSV file, or a table",
    "certify": "certify a cutoff by judgments: what it loses, or what it shows in vain",
    "evaluate": "what a funnel and its calibration are worth on judged queries",
    "doctor": "what kind of vectors a table holds, and what to do about it",
    "bench": "measure a funnel beside full HNSW and exact search",
}

_EPILOG = """\
examples:
  funnelvec demo
  funnelvec install postgresql:///shop
  funnelvec status postgresql:///shop
  funnelvec search postgresql:///shop products --like 42 -k 5
  funnelvec bench --quick

URL is postgresql://... or pg-embedded:DIR. Without one, commands take it from the environment:
  FUNNELVEC_URL     the URL
  PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGSERVICE, ...
                    read by libpq, as psql does, if FUNNELVEC_URL is not set

exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted
"""
_OK, _FAILED, _USAGE, _INTERRUPTED, _BROKEN_PIPE = 0, 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Wrong usage leaves by ``SystemExit(2)``, ``--help`` and ``--version`` by ``SystemExit(0)``, as
    argparse does.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser(arguments).parse_args(arguments)
    try:
        status = int(args.run(args))
        sys.stdout.flush()  # here, where a closed pipe can still be dealt with
        return status
    except FunnelvecError as error:
        message = " ".join(str(error).split())  # one line, whatever libpq says
        print(f"funnelvec: error: {message}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt as stopped:
        how_to_go_on = f": {stopped}" if str(stopped) else ""
        print(f"funnelvec: interrupted{how_to_go_on}", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has what they wanted. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="funnelvec",
        description="Coarse-to-fine vector search with calibrated relevance, inside pgvector.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"funnelvec {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    # The parser itself takes no values, so the first word is the command.
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, about in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            conflict_handler="resolve",  # a command may say more about --json
        )
        if name == asked:
            sub.add_argument("--json", action="store_true", help="print JSON instead of tables")
            module = import_module(f"funnelvec.commands.{name}")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run, usage_error=sub.error)
    return parser
