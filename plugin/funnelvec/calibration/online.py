"""Platt scaling that follows a stream of feedback: one small update for each answer.

C. Gupta and A. Ramdas, "Online Platt Scaling with Calibeating" (ICML 2023): an online Newton step
on the two numbers of a Platt curve (OPS), and running means in ten bins of its output that take
out what is left of the miscalibration (TOPS, tracking). Nothing is assumed of the stream.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from funnelvec.errors import CalibrationError, InvalidInput

__all__ = ["OnlinePlatt", "OnlineRelevance"]

_BETA, _BINS, _RADIUS, _EDGE = 0.1, 10, 100.0, 1e-5


class OnlineRelevance(NamedTuple):
    """What the state makes of a relevance: by the curve alone, and with tracking."""

    platt: float
    tracked: float


@dataclass(frozen=True, slots=True)
class OnlinePlatt:
    """The state after some feedback; immutable, `update` returns the next.

    Attributes
    ----------
    slope, offset
        Of the curve over the log-odds of the base relevance. (0, 0) is the start of the paper,
        `unchanged()` starts from the base relevance itself.
    h
        (h11, h12, h22): the sum of the outer products of gradients, plus its start.
    means, counts
        Per bin of the curve's output: the running mean of the labels, and how many.
    seen
        Number of updates.
    """

    slope: float = 0.0
    offset: float = 0.0
    h: tuple[float, float, float] = (1.0 / _BETA**2, 0.0, 1.0 / _BETA**2)
    means: tuple[float, ...] = tuple((i + 0.5) / _BINS for i in range(_BINS))
    counts: tuple[int, ...] = (1,) * _BINS
    seen: int = 0

    def __post_init__(self) -> None:
        h11, h12, h22 = self.h
        numbers = (self.slope, self.offset, *self.h, *self.means)
        if not all(math.isfinite(number) for number in numbers) or h11 * h22 <= h12 * h12:
            raise CalibrationError(f"not a state of online Platt scaling: {self!r:.200}")
        if len(self.means) != _BINS or len(self.counts) != _BINS or min(self.counts) < 1:
            raise CalibrationError(f"online Platt scaling has {_BINS} bins of one or more labels")

    @classmethod
    def unchanged(cls) -> OnlinePlatt:
        """Return a start that leaves the base relevance as it is until feedback comes."""
        return cls(slope=1.0)

    def relevance(self, base: float) -> OnlineRelevance:
        """Return what is made of a base relevance in [0, 1]."""
        p = _sigmoid(self.slope * _log_odds(base) + self.offset)
        return OnlineRelevance(p, self.means[_bin(p)])

    def update(self, base: float, relevant: bool) -> OnlinePlatt:
        """Return the state after one label.

        Parameters
        ----------
        base
            The base relevance of the row that was judged, in [0, 1].
        relevant
            What was said of it.
        """
        x, y = _log_odds(base), float(bool(relevant))
        p = _sigmoid(self.slope * x + self.offset)
        g1, g2 = (p - y) * x, p - y
        h11, h12, h22 = self.h
        h11, h12, h22 = h11 + g1 * g1, h12 + g1 * g2, h22 + g2 * g2
        determinant = h11 * h22 - h12 * h12
        slope = self.slope - (h22 * g1 - h12 * g2) / determinant / _BETA
        offset = self.offset - (h11 * g2 - h12 * g1) / determinant / _BETA
        slope, offset = _projected(slope, offset, (h11, h12, h22))
        place = _bin(p)
        means, counts = list(self.means), list(self.counts)
        means[place] = (counts[place] * means[place] + y) / (counts[place] + 1)
        counts[place] += 1
        return OnlinePlatt(
            slope, offset, (h11, h12, h22), tuple(means), tuple(counts), self.seen + 1
        )

    def to_json(self) -> str:
        """Write the state as one JSON object; floats keep every digit."""
        return json.dumps({"kind": "online-platt", "version": 1, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> OnlinePlatt:
        """Read what `to_json` wrote.

        Raises
        ------
        CalibrationError
            If the text is not such an object.
        """
        try:
            content: Any = json.loads(text)
            if content.pop("kind") != "online-platt" or content.pop("version") != 1:
                raise CalibrationError(f"not a state of version 1: {text!r:.80}")
            if content.keys() != {field.name for field in fields(cls)}:
                raise CalibrationError(f"a state with missing or unknown parts: {text!r:.80}")
            for name in ("h", "means", "counts"):
                content[name] = tuple(content[name])
            return cls(**content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CalibrationError(
                f"a state of online Platt scaling is a JSON object: {error}"
            ) from None


def _log_odds(base: float) -> float:
    if not 0.0 <= base <= 1.0:
        raise InvalidInput(f"relevance must be a probability from 0 to 1, not {base!r}")
    held = min(max(base, _EDGE), 1.0 - _EDGE)
    return math.log(held / (1.0 - held))


def _sigmoid(z: float) -> float:
    if z >= 0:
        return 1.0 / (1.0 + math.exp(-z))
    shrunk = math.exp(max(z, -700.0))
    return shrunk / (1.0 + shrunk)


def _bin(p: float) -> int:
    return min(int(p * _BINS), _BINS - 1)


def _projected(slope: float, offset: float, h: tuple[float, float, float]) -> tuple[float, float]:
    """The nearest point of the ball of radius 100, near in the norm of H.

    It is ``(H + m I)^-1 H theta`` for the multiplier m >= 0 that puts it on the ball.
    """
    if math.hypot(slope, offset) <= _RADIUS:
        return slope, offset
    h11, h12, h22 = h
    r1, r2 = h11 * slope + h12 * offset, h12 * slope + h22 * offset

    def at(m: float) -> tuple[float, float]:
        a, b = h11 + m, h22 + m
        determinant = a * b - h12 * h12
        return (b * r1 - h12 * r2) / determinant, (a * r2 - h12 * r1) / determinant

    low, high = 0.0, 1.0
    while math.hypot(*at(high)) > _RADIUS:
        high *= 2.0
    for _ in range(200):
        middle = (low + high) / 2.0
        if math.hypot(*at(middle)) > _RADIUS:
            low = middle
        else:
            high = middle
    return at(high)
