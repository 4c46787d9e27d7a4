"""``funnelvec demo``: real text, an embedded Postgres, a funnel, a calibrated relevance.

Settings are in `plan`, questions in `questions`; both were fixed before results were seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from funnelvec.errors import InvalidInput, MissingDependency, NotFound

if TYPE_CHECKING:
    from rich.console import Console

    from funnelvec.demo.results import DemoReport
    from funnelvec.demo.story import Stage

__all__ = ["add_arguments", "run", "run_from_args"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``funnelvec demo``."""
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="keep the database in DIR and print how to open it; tables of an earlier demo there "
        "are made anew",
    )
    parser.add_argument(
        "--ask",
        action="append",
        metavar="TEXT",
        help="answer a question of your own (repeatable) instead of the whole tour; with --keep "
        "DIR the database there is used again",
    )
    parser.add_argument(
        "--psql", action="store_true", help="open psql on the database kept in --keep DIR"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )


def run_from_args(args: argparse.Namespace) -> int:
    """Run the demo as the parsed arguments say; returns the exit status."""
    if args.dry_run:
        return _dry_run(args)
    if args.psql:
        return _psql(args.keep)
    try:
        from rich.console import Console
    except ImportError as error:
        raise MissingDependency.of("rich", extra="demo") from error
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Docstrings hold every script of the world; a narrow terminal encoding shows a mark.
            stream.reconfigure(errors="replace")
    report = run(args.keep, args.ask, console=Console(quiet=args.json), command=_command())
    if args.json:
        print(json.dumps(report.as_json(), indent=2, default=str))
    return 0


def run(
    keep: Path | None = None,
    ask: Sequence[str] | None = None,
    *,
    console: Console | None = None,
    command: Sequence[str] = ("funnelvec", "demo"),
) -> DemoReport:
    """Run the demo.

    Parameters
    ----------
    keep
        Folder of the database. None takes a temporary one, which is removed at the end.
    ask
        Questions of one's own. With them only the documents' table is made, or the one that is
        in `keep` already is used again, and only these questions are answered.
    console
        Where to print; standard output by default.
    command
        How this program was called, for the commands it suggests.

    Raises
    ------
    MissingDependency
        Without the demo extra.
    NotFound
        If too few docstrings are installed.
    Conflict
        If `keep` holds tables of the demo's names that are not the demo's.
    """
    try:
        from rich.console import Console

        from funnelvec.demo import database, show, story
    except ImportError as error:
        if (error.name or "").startswith("funnelvec"):
            raise
        raise MissingDependency.of(error.name or "rich", extra="demo") from error
    from funnelvec.demo.encoder import Encoder

    started = time.perf_counter()
    encoder = Encoder.installed()
    screen = show.Screen(console or Console())
    with _folder(keep) as directory, database.opened(directory, tuned=not ask) as engine:
        stage = story.Stage(engine, encoder, screen)
        report = _questions_only(stage, keep, ask) if ask else _tour(stage, keep)
        report = dataclasses.replace(report, seconds=time.perf_counter() - started)
        screen.finished(report)
        if keep is not None and not ask:
            screen.kept(report.server, command)
    return report


def _tour(stage: Stage, keep: Path | None) -> DemoReport:
    from funnelvec.demo import database, plan, story
    from funnelvec.demo.results import DemoReport

    screen = stage.screen
    built, dataset = story.build(stage, keep=keep is not None)

    screen.step(f"Five questions, min_relevance={plan.MIN_RELEVANCE}")
    screen.say(
        f">>> docs.search(question, k={plan.SHOWN}, min_relevance={plan.MIN_RELEVANCE})",
        style="cyan",
    )
    screen.say(
        f"=> select * from docs_search($1, k => {plan.SHOWN}, min_relevance => "
        f"{plan.MIN_RELEVANCE});",
        style="cyan",
    )
    answers = story.answer(stage, plan.ANSWERABLE)
    screen.answers(answers)

    screen.step(f"Twenty questions that no docstring answers, min_relevance={plan.MIN_RELEVANCE}")
    unanswerable = story.answer(stage, plan.UNANSWERABLE)
    report = DemoReport(
        server=database.describe_server(stage.engine),
        built=built,
        answers=tuple(answers),
        unanswerable=tuple(unanswerable),
    )
    screen.unanswerable(unanswerable, report.empty_share or 0.0)

    screen.step("One search, explained")
    explanation = story.explain(stage, plan.ANSWERABLE[0])
    screen.explanation(explanation, plan.ANSWERABLE[0])

    screen.step("Full-vector HNSW, funnel and exact search, measured in this run")
    comparisons = []
    for case in story.compare(stage, dataset):
        screen.comparison(case)
        comparisons.append(case)
    screen.say("The same on vectors of your own: funnelvec bench --data FILE")
    return dataclasses.replace(report, explanation=explanation, comparisons=tuple(comparisons))


def _questions_only(stage: Stage, keep: Path | None, ask: Sequence[str]) -> DemoReport:
    from funnelvec.demo import database, plan, story
    from funnelvec.demo.results import DemoReport

    built = None
    if database.is_ready(stage.engine):
        stage.screen.say("Using the database that is there.")
    else:
        built, _ = story.build(stage, keep=keep is not None)
        stage.screen.step(f"Your questions, min_relevance={plan.MIN_RELEVANCE}")
    answers = story.answer(stage, ask, k=5)
    stage.screen.answers(answers)
    return DemoReport(
        server=database.describe_server(stage.engine), built=built, answers=tuple(answers)
    )


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="funnelvec-demo-") as name:
        yield Path(name)


def _psql(keep: Path | None) -> int:
    """Hold the kept server up for as long as its own psql is open."""
    from funnelvec.demo import database

    if keep is None:
        raise InvalidInput("--psql opens a database that was kept: say which with --keep DIR")
    if not (keep / "data" / "PG_VERSION").is_file():
        raise NotFound(f"there is no database in {str(keep)!r}: run the demo with --keep DIR first")
    with database.opened(keep, tuned=False) as engine:
        server = database.describe_server(engine)
        return subprocess.run([server.psql, server.url], check=False).returncode


def _dry_run(args: argparse.Namespace) -> int:
    from funnelvec.demo import plan

    where = str(args.keep) if args.keep else "a temporary folder, removed at the end"
    print(f"would start an embedded PostgreSQL in {where}")
    print(f"would load docstrings into table {plan.TABLE!r} with the funnel {plan.FUNNEL!r}")
    if args.ask:
        print("would answer: " + "; ".join(args.ask))
        return 0
    print(f"would answer {len(plan.ANSWERABLE)} + {len(plan.UNANSWERABLE)} questions")
    print(
        f"would compare {plan.FUNNEL!r} on the documents and {plan.WIDE_FUNNEL!r} on "
        f"{plan.WIDE_ROWS:,} generated vectors of {plan.WIDE_DIMS:,} dimensions with full-vector "
        "HNSW and exact search, in tables that are dropped at the end"
    )
    return 0


def _command() -> list[str]:
    program = Path(sys.argv[0])
    if program.name == "funnelvec":
        return [str(program), "demo"]
    return [sys.executable, "-m", "funnelvec", "demo"]
