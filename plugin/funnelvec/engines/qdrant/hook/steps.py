"""What an intercepted call does, as a generator of calls of the transport. Pure.

The synchronous and the asynchronous client differ in how a call is made, not in what is asked, so
both run the same generators.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

__all__ = ["Call", "Given", "Steps", "run", "run_async"]

#: Arguments of a call, by name.
Given: TypeAlias = dict[str, Any]


class Call(NamedTuple):
    """One call of the transport."""

    method: str
    given: Given


_T = TypeVar("_T")
#: Yields calls, takes their answers, returns the answer to the client.
Steps: TypeAlias = Generator[Call, Any, _T]


def run(steps: Steps[_T], do: Callable[[Call], Any]) -> _T:
    """Make the calls one after the other; an error of a call comes up where it was yielded."""
    try:
        call = next(steps)
        while True:
            try:
                answer = do(call)
            except BaseException as error:
                call = steps.throw(error)
            else:
                call = steps.send(answer)
    except StopIteration as end:
        answer = end.value
    return answer  # type: ignore[no-any-return]


async def run_async(steps: Steps[_T], do: Callable[[Call], Awaitable[Any]]) -> _T:
    """Make the calls one after the other, awaiting each; else as `run`."""
    try:
        call = next(steps)
        while True:
            try:
                answer = await do(call)
            except BaseException as error:
                call = steps.throw(error)
            else:
                call = steps.send(answer)
    except StopIteration as end:
        answer = end.value
    return answer  # type: ignore[no-any-return]
