"""``funnelvec demo``."""

from __future__ import annotations

import argparse

from funnelvec.demo import run as demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the demo's own module."""
    parser.epilog = """\
examples:
  funnelvec demo
  funnelvec demo --keep ./demo-db
  funnelvec demo --keep ./demo-db --ask "sort a list in place"
"""
    demo.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    return demo.run_from_args(args)
