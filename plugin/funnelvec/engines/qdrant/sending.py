"""Batches of a load: one after the other, or several on their way at once.

Qdrant has no transaction for a batch and the record of it. So the record comes first and says which
rows may be in, and a load that goes on writes over those. Batches that are on their way at once
land in any order, and are counted in that of the source.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from funnelvec.engines.loads import Run
from funnelvec.reports import Upserted

__all__ = ["Batches", "Course", "Range", "in_turn", "side_by_side"]


#: Rows of a source from the first number up to the second.
Range: TypeAlias = tuple[int, int]


class Rows(Protocol):
    """A batch that has been checked."""

    @property
    def keys(self) -> Sequence[Any]:
        """Keys of its rows."""

    @property
    def ids(self) -> Sequence[Any]:
        """Ids of its points."""


class Batches(Protocol):
    """What is done with batches."""

    def refuse(self, rows: Any, fresh: Sequence[Range]) -> None:
        """Raise if one of these rows of a batch is there, though it has not been written yet."""

    def write(self, rows: Any, *, undo: bool) -> Upserted:
        """Write a batch; `undo`: where that fails, remove what is in of it."""

    def keep(self) -> None:
        """Keep the record."""


@dataclass(slots=True)
class Course:
    """Which rows of a source may be in beyond those that are.

    Attributes
    ----------
    before
        Those of a load that was interrupted.
    sent
        Those that were sent since, or are about to be.
    kept
        What the record says: how many rows are in, and which may be.
    """

    before: list[Range] = field(default_factory=list)
    sent: list[Range] = field(default_factory=list)
    kept: tuple[int, list[Range]] | None = None

    def beyond(self, rows: int) -> list[Range]:
        """Which rows may be in beyond the first `rows`, in order and apart."""
        found: list[Range] = []
        for start, end in sorted((max(start, rows), end) for start, end in self.before + self.sent):
            if start >= end:
                continue
            if found and start <= found[-1][1]:
                found[-1] = (found[-1][0], max(found[-1][1], end))
            else:
                found.append((start, end))
        return found

    def fresh(self, first: int, end: int) -> list[Range]:
        """Which of the rows from `first` to `end` were not sent before, counted from `first`."""
        found, start = [], first
        for low, high in [*sorted(self.before), (end, end)]:
            if start < min(low, end):
                found.append((start - first, min(low, end) - first))
            start = max(start, high)
        return found


class _Refused(Exception):
    """A batch of which nothing was sent; its cause says why."""


class _Flight(NamedTuple):
    """A batch on its way, and which rows of the source it is."""

    keys: Sequence[Any]
    ids: frozenset[Any]
    place: Range
    task: Future[Upserted]

    @property
    def refused(self) -> bool:
        """Whether it has ended with nothing sent."""
        return self.task.done() and isinstance(self.task.exception(), _Refused)


def in_turn(
    batches: Iterable[Rows], run: Run, course: Course, doing: Batches
) -> Iterator[tuple[Sequence[Any], Upserted]]:
    """Write one batch after the other; yield the keys of each when it is in."""
    first = run.rows
    for rows in batches:
        end = first + len(rows.keys)
        fresh = course.fresh(first, end)
        doing.refuse(rows, fresh)
        course.sent = [(first, end)]
        doing.keep()
        yield rows.keys, doing.write(rows, undo=fresh == [(0, len(rows.keys))])
        first = end


def side_by_side(
    batches: Iterable[Rows], run: Run, course: Course, doing: Batches, *, workers: int
) -> Iterator[tuple[Sequence[Any], Upserted]]:
    """Write batches from several threads; yield the keys of each when all up to it are in.

    At most two for each worker are in memory. When one fails nothing new is sent, and its error is
    raised when all that were sent have ended.
    """
    pool = ThreadPoolExecutor(workers, "funnelvec-load")
    flights: deque[_Flight] = deque()
    first = covered = run.rows

    def send(rows: Rows, fresh: Sequence[Range]) -> Upserted:
        try:
            doing.refuse(rows, fresh)
        except BaseException as error:
            raise _Refused from error
        return doing.write(rows, undo=fresh == [(0, len(rows.keys))])

    try:
        for rows in batches:
            end, ids = first + len(rows.keys), frozenset(rows.ids)
            while flights and (len(flights) >= 2 * workers or _must_land(flights, ids)):
                yield _landed(flights)
            if end > covered:  # so much ahead, or every batch would wait for its record
                covered = end + workers * len(rows.keys)
                course.sent = [*(flight.place for flight in flights), (first, covered)]
                doing.keep()
            # Whoever has started the load may stop it through what stands in its context.
            context = contextvars.copy_context()
            task = pool.submit(context.run, send, rows, course.fresh(first, end))
            flights.append(_Flight(rows.keys, ids, (first, end), task))
            first = end
        while flights:
            yield _landed(flights)
    except GeneratorExit:
        raise
    except BaseException:
        _stop(flights, course)
        while flights and flights[0].task.exception() is None:
            yield _landed(flights)
        raise
    finally:
        _stop(flights, course)
        pool.shutdown(wait=True, cancel_futures=True)


def _must_land(flights: Iterable[_Flight], ids: frozenset[Any]) -> bool:
    """Whether one has failed, or holds a row that is written again: that keeps its order."""
    return any(
        flight.task.exception() is not None
        if flight.task.done()
        else not flight.ids.isdisjoint(ids)
        for flight in flights
    )


def _landed(flights: deque[_Flight]) -> tuple[Sequence[Any], Upserted]:
    try:
        written = flights[0].task.result()  # it stays where it fails, as the end of what is in
    except _Refused as refused:
        error = refused.__cause__
        assert error is not None  # see `send`
        raise error from error.__cause__
    return flights.popleft().keys, written


def _stop(flights: deque[_Flight], course: Course) -> None:
    """Wait for what is being written; what waits for its turn is not sent."""
    for flight in reversed(flights):
        flight.task.cancel()
    sent = [flight for flight in flights if not flight.task.cancelled()]
    wait([flight.task for flight in sent])
    flights.clear()
    flights.extend(sent)
    course.sent = [flight.place for flight in sent if not flight.refused]
