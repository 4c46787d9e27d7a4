"""``funnelvec render``."""

from __future__ import annotations

import argparse

from funnelvec.commands.output import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = """\
examples:
  funnelvec render plain > funnelvec.sql      # for psql or a web console, in a transaction
  funnelvec render tle > funnelvec-tle.sql    # for a database with pg_tle 1.5 or later
  funnelvec render pgxs                       # the script that create extension runs

It needs no database. The text that upgrades a plain install comes from
funnelvec upgrade URL --dry-run."""
    parser.add_argument("target", choices=("plain", "tle", "pgxs"), help="for which delivery")
    parser.usage = f"{parser.prog} {{plain,tle,pgxs}} [options]"


def run(args: argparse.Namespace) -> int:
    """Print the SQL."""
    from funnelvec.install.render import load_source, render

    source = load_source()
    text = render(source, args.target)
    if args.json:
        print_json(
            {
                "target": args.target,
                "version": source.version,
                "sha256": source.sha256,
                "sql": text,
            }
        )
    else:
        print(text, end="")
    return 0
