"""Percentiles, and ratios that are not printed when they say nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from funnelvec.errors import InvalidInput

__all__ = ["Ratio", "percentile", "ratio"]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of `values` do not exceed, interpolated between two."""
    ordered = sorted(values)
    if not ordered:
        raise InvalidInput("there are no values to take a percentile of")
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio measured `repeats` times: its median, and the lowest and highest."""

    value: float
    low: float
    high: float
    repeats: int

    @property
    def spread(self) -> float:
        """Distance from the lowest to the highest."""
        return self.high - self.low

    @property
    def stable(self) -> bool:
        """Whether the spread is no wider than the ratio itself."""
        return self.spread <= abs(self.value)

    def text(self, digits: int = 2) -> str:
        """The ratio with its spread, or only the spread if that is wider than the ratio."""
        low, high = f"{self.low:.{digits}f}", f"{self.high:.{digits}f}"
        if not self.stable:
            return f"unstable ({low} to {high})"
        shown = f"{self.value:.{digits}f}"
        return shown if self.repeats == 1 else f"{shown} ({low} to {high})"

    def as_json(self) -> dict[str, float | int | bool | None]:
        """For JSON; the value of an unstable ratio is null there, too."""
        return {
            "value": self.value if self.stable else None,
            "low": self.low,
            "high": self.high,
            "repeats": self.repeats,
            "stable": self.stable,
        }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """Ratio of two measurements, repeat by repeat; None where there is nothing to divide by.

    A single value on one side stands for all repeats of the other.
    """
    if not ours or not theirs or any(value <= 0 for value in theirs):
        return None
    repeats = max(len(ours), len(theirs))
    if {len(ours), len(theirs)} - {1, repeats}:
        raise InvalidInput(f"{len(ours)} repeats against {len(theirs)}: they must pair up")
    a, b = list(ours) * (repeats // len(ours)), list(theirs) * (repeats // len(theirs))
    each = [x / y for x, y in zip(a, b, strict=True)]
    return Ratio(median(each), min(each), max(each), repeats)
