"""What the doctor says: one `Finding` per thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Finding", "Histogram", "Level", "Range", "counted", "digits", "share"]

#: ``fine``: nothing to do. ``note``: worth knowing. ``problem``: searches suffer from it.
Level: TypeAlias = Literal["fine", "note", "problem"]

#: Both ends of a 95 % interval.
Range: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: the number, how sure it is, what is normal, what to do.

    Attributes
    ----------
    topic, title
        Short name (``norms``) and a line for people.
    level
        Whether anything has to be done.
    number, unit
        The figure and what it is; None where it could not be measured.
    interval
        95 % interval of the number; None where only the size of the sample is known (`basis`).
    basis
        What was looked at: ``10,000 rows``.
    found, normal, advice
        What was seen, what is usual and who says so, and what to do about it.
    """

    topic: str
    title: str
    level: Level
    number: float | None
    unit: str
    interval: Range | None
    basis: str
    found: str
    normal: str
    advice: str

    def shown(self) -> str:
        """The number with its interval, as a table shows it."""
        if self.number is None:
            return "-"
        if self.interval is None:
            return digits(self.number)
        low, high = self.interval
        return f"{digits(self.number)} [{digits(low)}, {digits(high)}]"


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often values fall between two neighbouring edges; one more edge than counts."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: npt.NDArray[Any], *, bins: int = 50) -> Histogram:
        """Count finite values in bins of equal width."""
        low, high = float(values.min()), float(values.max())
        if not high - low > 1e-9 * max(abs(low), abs(high)):  # one value is a bin, not an error
            low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
        counts, edges = np.histogram(values, bins=bins, range=(low, high))
        return cls(tuple(map(float, edges)), tuple(map(int, counts)))


def digits(value: float) -> str:
    """Three digits that count, and thousands with commas: 0.983, 41.2, 12,300."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def share(value: float) -> str:
    """A share as a percentage that never rounds to all or nothing: 41 %, 0.3 %, 99.96 %."""
    if value in (0.0, 1.0):
        return f"{100 * value:.0f} %"
    text = ""
    for places in range(1 if value < 0.1 or value > 0.9 else 0, 5):
        text = f"{100 * value:.{places}f}"
        if 0 < float(text) < 100:
            return f"{text} %"
    return f"{round(100 * value)} %"


def counted(count: int, noun: str) -> str:
    """``1 row``, ``10,000 rows``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
