"""Showing how far long work has come: a bar, a callback of the caller's, or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from funnelvec.engines.base import Progress
from funnelvec.errors import MissingDependency
from funnelvec.reports import FillingStep

__all__ = ["building_words", "filling_reporting", "reporting"]

#: Seconds between two words on how long indexes have been building.
_WORD_SECONDS = 10.0


@contextlib.contextmanager
def reporting(
    progress: Progress, total: int | None, title: str, *, unit: str = "rows"
) -> Iterator[Callable[[int], None]]:
    """Lend a function that is told how many of `total` rows (or another `unit`) are done.

    Parameters
    ----------
    progress
        True draws a bar on standard error (nothing where that is not a terminal); a callable is
        told (rows done, rows in all); False is silent.
    total
        None where nobody knows; a callable is then told 0.
    """
    if callable(progress):
        told = progress
        yield lambda done: told(done, total or 0)
    elif progress:
        with _bar(total, title, unit) as update:
            yield lambda done: update(done, total)
    else:
        yield lambda done: None


@contextlib.contextmanager
def filling_reporting(
    progress: Progress, on_step: Callable[[FillingStep], None] | None, table: str
) -> Iterator[Callable[[FillingStep], None]]:
    """Lend a function that is told of the steps of a backfill.

    `progress` hears of rows only, as in `reporting`, but with each report of how many there are,
    which changes while the table is written. `on_step` hears of everything.
    """
    with contextlib.ExitStack() as stack:
        count: Callable[[int, int], object] | None = None
        if callable(progress):
            count = progress
        elif progress:
            count = stack.enter_context(_bar(0, f"filling {table}", "rows"))

        def report(step: FillingStep) -> None:
            if on_step is not None:
                on_step(step)
            if count is not None and step.statement is None:
                count(step.done, step.total)

        yield report


def building_words(report: Callable[[FillingStep], None], table: str) -> Callable[[float], None]:
    """Return what is told how long indexes have been building, and says so from time to time."""
    due = 0.0

    def told(seconds: float) -> None:
        nonlocal due
        if seconds >= due:
            since = f", for {seconds:.0f} s" if due else ""
            report(FillingStep(f"building the indexes of {table}{since}"))
            due = seconds + _WORD_SECONDS

    return told


@contextlib.contextmanager
def _bar(total: int | None, title: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import (
            Progress as Bar,
        )
    except ImportError as error:
        raise MissingDependency.of("rich", extra="cli") from error
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, rate="")

        def update(done: int, total: int | None) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            rate = f"{speed:,.0f}/s" if speed else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield update
