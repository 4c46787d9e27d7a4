"""What a tuning run asks for, step by step, so that one text serves tables of every kind.

A run is a generator. It yields what is to be done, on a table that may have to be awaited, and is
sent what came of it; errors are thrown into it, so that it can clean up by further steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeAlias, TypeVar

__all__ = ["Call", "Compute", "Say", "Step", "Steps", "drive"]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Call:
    """Call a method of the table; with `timed` the answer is (result, milliseconds).

    `on` is another table than the one that is tuned.
    """

    method: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    on: Any = None
    timed: bool = False


@dataclass(frozen=True, slots=True)
class Compute:
    """Do something that takes the processor a while and no table."""

    work: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Say:
    """Tell what is being done, and how far that is: `done` of 100."""

    text: str
    done: int


Step: TypeAlias = Call | Compute | Say
Steps: TypeAlias = Generator[Step, Any, Result]


def drive(steps: Steps[Result], table: Any, *, say: Callable[[Say], object]) -> Result:
    """Do what a run asks for on a synchronous table, and return what it returns."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = steps.send(answer) if error is None else steps.throw(error)
        except StopIteration as end:
            result: Result = end.value
            return result
        answer = error = None
        try:
            answer = _done(step, table, say)
        except BaseException as raised:  # an interruption too: the run leaves nothing half done
            error = raised


def _done(step: Step, table: Any, say: Callable[[Say], object]) -> Any:
    if isinstance(step, Say):
        return say(step)
    if isinstance(step, Compute):
        return step.work()
    method = getattr(table if step.on is None else step.on, step.method)
    started = perf_counter()
    result = method(*step.arguments, **step.options)
    return (result, 1e3 * (perf_counter() - started)) if step.timed else result
