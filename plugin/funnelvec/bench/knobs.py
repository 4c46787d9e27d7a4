"""Turning the knobs of a contestant: the setting that reaches a recall in the least time."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Generic, TypeAlias, TypeVar

__all__ = ["Knobs", "S", "Setting", "Traces", "Tried", "traces_json", "turn"]

#: Names and values, cheap to dear. A longer list of any knob finds no less.
Knobs: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]
#: Values of the knobs, in their order.
Setting: TypeAlias = tuple[int, ...]


#: Settings of a contestant: whole numbers, or others too.
S = TypeVar("S", bound="tuple[float, ...]")


@dataclass(frozen=True, slots=True)
class Tried(Generic[S]):
    """What a setting reached: mean recall, and the median milliseconds of a search."""

    setting: S
    recall: float
    ms: float


#: Name and family of recipes, and everything that was measured while their knobs were turned.
Traces: TypeAlias = tuple[tuple[str, str, tuple[Tried[S], ...]], ...]


def traces_json(traces: Traces[S]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "name": name,
            "family": family,
            "settings": [
                {"setting": each.setting, "recall": each.recall, "p50_ms": each.ms}
                for each in trace
            ],
        }
        for name, family, trace in traces
    ]


def turn(
    knobs: Knobs, measure: Callable[[Setting], tuple[float, float]], *, k: int, target: float
) -> tuple[Tried[Setting], tuple[Tried[Setting], ...]]:
    """Halve the last knob for every value of those before it.

    Parameters
    ----------
    measure
        Mean recall and median milliseconds at a setting.
    k
        The last knob is how long a list is, and no list is shorter than this.
    target
        The recall to reach.

    Returns
    -------
    The fastest setting that reaches the recall, or the dearest where none does; and everything
    that was measured on the way.
    """
    known: dict[Setting, Tried[Setting]] = {}

    def at(setting: Setting) -> Tried[Setting]:
        if setting not in known:
            known[setting] = Tried(setting, *measure(setting))
        return known[setting]

    best: Tried[Setting] | None = None
    for start in product(*(values for _, values in knobs[:-1])) if knobs else ():
        values = [v for v in knobs[-1][1] if v >= k and (not start or v <= start[-1])]
        if not values or at((*start, values[-1])).recall < target:
            continue
        place = bisect.bisect_left(
            values, True, key=lambda value: at((*start, value)).recall >= target
        )
        found = at((*start, values[min(place, len(values) - 1)]))
        if best is not None and found.ms > best.ms:
            break  # a longer list takes longer, whatever comes after it
        best = found
    best = best or at(tuple(values[-1] for _, values in knobs))
    return best, tuple(sorted(known.values(), key=lambda tried: tried.recall))
