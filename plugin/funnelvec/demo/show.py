"""How the demo looks: readable at 80 columns, plain text when it goes into a file."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from funnelvec.bench import BenchReport
from funnelvec.demo import comparison, plan
from funnelvec.demo.corpus import Corpus
from funnelvec.demo.results import Answer, DemoReport, Fit, Server
from funnelvec.reports import Explanation, RecallReport, ResolutionStatus

_INDENT = (0, 0, 0, 2)


class Screen:
    """Prints the story; `interactive` says whether bars may be drawn."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = 0

    @property
    def interactive(self) -> bool:
        """Whether a person is watching a terminal."""
        return self._console.is_terminal and not self._console.quiet

    def step(self, title: str) -> None:
        """Open a numbered section."""
        self._steps += 1
        self._console.print(f"\n[bold]{self._steps}. {title}[/bold]")

    def say(self, text: str, *, style: str = "") -> None:
        """Print a paragraph; brackets in it are literal."""
        # Not rich's own wrapping, which pads every line with spaces.
        width = max(40, self._console.width)
        lines = textwrap.fill(
            text,
            width,
            initial_indent="  ",
            subsequent_indent="  ",
            break_on_hyphens=False,
            break_long_words=False,
        )
        self._print_plain(lines, style)

    def call(self, code: str, seconds: float) -> None:
        """Print a call that was just made, with its time."""
        self._console.print(
            Text.assemble("  ", (f">>> {code}", "cyan"), f"  {seconds:.2f} s"), soft_wrap=True
        )

    def line(self, text: str) -> None:
        """Print text to be pasted: never wrapped, never styled."""
        self._print_plain(f"  {text}")

    def heading(self, text: str) -> None:
        """Print a bold line with an empty one before it."""
        self._print_plain(f"\n  {text}", "bold")

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[int, int], None] | None]:
        """Lend a progress callback; None where nobody watches."""
        if not self.interactive:
            yield None
            return
        columns = (TextColumn(f"  {title}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(title, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    @contextmanager
    def working(self, title: str) -> Iterator[Callable[[str], None]]:
        """Show that something is going on, where a person is watching; lends what says more."""
        if not self.interactive:
            yield lambda text: None
            return
        with self._console.status(f"  {escape(title)} ...") as status:
            yield lambda text: status.update(f"  {escape(title)}: {escape(text)} ...")

    def gathered(self, found: Corpus, seconds: float) -> None:
        """Say what the walk found."""
        cap = {
            None: "",
            "documents": " (the cap)",
        }.get(found.stopped_by, f" (stopped by the cap on {found.stopped_by})")
        self.say(
            f"{len(found.documents):,} different docstrings{cap} from {found.files:,} source files "
            f"of the standard library and installed packages, read with ast and never imported, "
            f"in {seconds:.1f} s."
        )

    def encoded(self, model: str, dims: int, seconds: float) -> None:
        """Say what the text was embedded with."""
        self.say(
            f"Embedded with {model} ({dims} dimensions, Matryoshka-trained, from the files in its "
            f"wheel) in {seconds:.1f} s."
        )

    def server(self, server: Server) -> None:
        """Say where the data is."""
        self.line(
            f"PostgreSQL {server.postgres}, pgvector {server.pgvector}, funnelvec "
            f"{server.funnelvec}, embedded in"
        )
        self.line(server.directory)

    def status(self, status: ResolutionStatus) -> None:
        """Print the state of the stored resolution."""
        self.say(
            f"{status.resolution} is stored in column {status.column}, coverage "
            f"{status.coverage:.0%}, index of {_size(status.index_bytes or 0)}."
        )

    def recall(self, report: RecallReport, seconds: float) -> None:
        """Print the recall per stage."""
        self.call(f"docs.measure_recall(sample={report.queries}, k={report.k})", seconds)
        table = _table("stage", "resolution", "keep", f"recall of the exact top {report.k}")
        for stage in report.stages:
            keep = "" if stage.keep is None else str(stage.keep)
            table.add_row(str(stage.stage), stage.resolution, keep, f"{stage.recall:.4f}")
        self._print(table)
        self.say(
            f"{report.queries} rows as queries, each without itself; median inside the database "
            f"{report.funnel_ms:.2f} ms for the funnel, {report.exact_ms:.2f} ms for exact search."
        )

    def calibrated(self, fit: Fit, depth: int, seconds: float) -> None:
        """Say how the judgments came about, and what the fit is."""
        self.call("docs.calibrate(judgments)", seconds)
        self.say(
            f"A query is the first sentence of a docstring; of its exact top {depth}, without its "
            "own row, those of the same package count as relevant. Rows of other packages that "
            "would answer count as wrong and rows of the same package that miss the point as "
            "right, so relevance reads: probably about the question's subject."
        )
        line = f"{fit.slope:.3f} * score {'-' if fit.offset < 0 else '+'} {abs(fit.offset):.3f}"
        self.say(
            f"{fit.pairs:,} judged pairs of {fit.queries} queries, {fit.relevant / fit.pairs:.0%} "
            f"relevant. relevance = 1 / (1 + exp(-({line}))); relevance "
            f"{plan.MIN_RELEVANCE} means a cosine of {fit.cutoff:.3f}."
        )

    def answers(self, answers: Sequence[Answer]) -> None:
        """Print questions with their hits."""
        for answer in answers:
            self.heading(answer.question)
            if not answer.hits:
                self.say(f"(nothing reaches relevance {plan.MIN_RELEVANCE}; the nearest row is:)")
            style = "" if answer.hits else "dim"
            table = _table("score", "relevance", "name", "text", text_columns=2)
            for found in answer.hits or answer.nearest:
                relevance = found.hit.relevance
                table.add_row(
                    f"{found.hit.score:.3f}",
                    "" if relevance is None else f"{relevance:.2f}",
                    escape(found.name),
                    escape(found.text),
                    style=style,
                )
            self._print(table)

    def unanswerable(self, answers: Sequence[Answer], share: float) -> None:
        """Print how many of the questions were left unanswered."""
        table = _table("hits", "best relevance", "question", text_columns=1)
        for answer in answers:
            best = (answer.hits or answer.nearest)[0].hit
            table.add_row(
                str(len(answer.hits)),
                f"{best.relevance or 0.0:.2f}",
                escape(answer.question),
                style="red" if answer.hits else "",
            )
        self._print(table)
        empty = sum(not answer.hits for answer in answers)
        self.heading(f"{empty} of {len(answers)} answered empty ({share:.0%}).")
        self.say(
            "They are about other subjects altogether. A question about programming that these "
            "texts just do not cover is harder to turn away."
        )

    def explanation(self, explanation: Explanation, question: str) -> None:
        """Print what each stage of one search did."""
        self.say(f"{question}  ({explanation.funnel})")
        table = _table("stage", "resolution", "keep", "rows in", "rows out", "ms", "access")
        table.padding = (0, 1, 0, 0)
        for stage in explanation.stages:
            table.add_row(
                str(stage.stage),
                stage.resolution,
                "" if stage.keep is None else str(stage.keep),
                f"{stage.rows_in:,}",
                f"{stage.rows_out:,}",
                f"{stage.ms:.2f}",
                escape(stage.access),
            )
        self._print(table)
        self.say(f"{explanation.total_ms:.2f} ms in all")
        for note in explanation.notes:
            self.say(f"note: {note}")

    def comparison(self, case: BenchReport) -> None:
        """Print one table of contestants, with ratios to the full-vector index."""
        self.heading(f"{case.dataset}: {case.rows:,} x {case.dims:,}")
        self.say(f"({case.note})")
        table = _table(*comparison.head(case))
        table.padding = (0, 1, 0, 0)
        for row in comparison.rows(case):
            table.add_row(*row)
        self._print(table)
        for text in (comparison.legend(case), comparison.verdict(case), comparison.remark(case)):
            self.say(text)
        for note in case.notes:
            self.say(f"note: {note}")

    def kept(self, server: Server, command: Sequence[str]) -> None:
        """Say how to open the database again."""
        self.step("The database is kept")
        self.say("Open it in psql (this starts the server, and stops it when you leave):")
        self.line(shlex.join([*command, "--keep", server.directory, "--psql"]))
        self.say("While that runs, from another terminal:")
        self.line(shlex.join([server.psql, server.url]))
        self.say("SQL to paste:")
        for statement in SAMPLE_SQL:
            self._console.print()
            for text in statement.splitlines():
                self.line(text)
        self._console.print()
        self.say("A question of your own:")
        self.line(shlex.join([*command, "--keep", server.directory, "--ask", "sort a list"]))

    def finished(self, report: DemoReport) -> None:
        """Print how long it took."""
        self._console.print(f"\nDone in {report.seconds:.0f} s.")

    def _print_plain(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style, soft_wrap=True, markup=False, highlight=False)

    def _print(self, table: Table) -> None:
        self._console.print(Padding(table, _INDENT, expand=False))


SAMPLE_SQL = (
    """select d.name, s.score, s.relevance
  from docs_search((select embedding from questions where id = 1),
                   k => 5, min_relevance => 0.5) s
  join docs d using (id);""",
    """select *
  from funnelvec.explain('docs_search', (select embedding from questions where id = 1));""",
    "select * from funnelvec.measure_recall('docs_search', sample => 200);",
    "select * from funnelvec.calibrate('docs_search', 'judgments');",
    """select funnelvec.search_sql('docs_search', '{"kind": "function"}');""",
    "select * from funnelvec.status();",
)


def _table(*headers: str, text_columns: int = 0) -> Table:
    """A table without rules; the last `text_columns` are text and cut to the width left."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for position, header in enumerate(headers):
        text = position >= len(headers) - text_columns
        last = position == len(headers) - 1
        table.add_column(
            header,
            justify="left" if text or header in ("", "resolution", "access") else "right",
            no_wrap=text_columns > 0,
            overflow="ellipsis" if text else "fold",
            ratio=(2 if last else 1) if text else None,
        )
    table.expand = text_columns > 0
    return table


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
