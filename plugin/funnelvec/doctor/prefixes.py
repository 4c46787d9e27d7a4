"""What a first stage keeps of the exact top 10, by width and code; whether dimensions are ordered.

Matryoshka training (Kusupati et al. 2022) and a rotation by PCA put the most into the first
dimensions. Whether that is so shows beside a control: as many dimensions, drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from funnelvec.codes.bits import levels
from funnelvec.doctor.intervals import Bootstrap
from funnelvec.doctor.neighbours import Places, Rows, space, space_of_code
from funnelvec.doctor.rows import K, Prepared
from funnelvec.doctor.values import Range
from funnelvec.resolution import Resolution
from funnelvec.types import Code

__all__ = ["KEEPS", "TARGET", "Prefixes", "Stage", "measure", "widths"]

#: Lengths of the shortlists that are reported, and the recall that a first stage should reach.
KEEPS = (10, 100, 200)
TARGET = 0.99
#: Codes of a rotated vector. Signs are enough for wide ones; more bits take room and time here.
_ROTATED: tuple[Code, ...] = ("bit", "bit2", "bit3", "bit4")
_MOST_BITS = 2048
#: A smaller sample inside the sample: how the shortlist grows from one to the other.
_PART = 4
#: By how much the share that a prefix finds must exceed that of random dimensions.
_CLEAR = 0.02
#: Sets of random dimensions, and the 97.5 % point of Student's t for one less.
_DRAWS, _T = 5, 2.776

_Shares: TypeAlias = npt.NDArray[np.float64]

#: Where the vectors keep what tells them apart: in the first dimensions, or anywhere.
Order: TypeAlias = Literal["first", "none", "unknown"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One resolution as a first stage.

    Attributes
    ----------
    resolution, width, code, bytes
        What it is (the code of rotated signs is ``bit~random``), and bytes of one code.
    recall, intervals
        Mean share of the exact top 10 in shortlists of `KEEPS`, with 95 % intervals.
    control
        The same for as many dimensions drawn at random, in full precision, mean of five draws;
        None for signs and above half the width, where they are mostly the same dimensions.
    keep, keep_part
        Shortest shortlist that holds `TARGET` of the top 10, in the sample and in a quarter of
        it.
    """

    resolution: str
    width: int
    code: str
    bytes: int
    recall: tuple[float, ...]
    intervals: tuple[Range, ...]
    control: tuple[float, ...] | None
    keep: int
    keep_part: int

    def keep_at(self, rows: float, population: float) -> float:
        """The shortlist for `population` rows, if it goes on growing as it did up to `rows`."""
        growth = float(np.log(self.keep / self.keep_part) / np.log(_PART))
        grown: float = self.keep * (population / rows) ** min(1.0, max(0.0, growth))
        return min(population, grown)


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefix curve.

    Attributes
    ----------
    keeps
        Lengths of the shortlists, as in every stage.
    stages
        By code, then by width: floats, signs, and codes of all numbers after a random rotation.
    gain, gain_interval
        Share of the top 10 that prefixes of at most half the width find alone, less the share
        that random dimensions find; None where no prefix is that narrow.
    order
        ``first``: the first dimensions carry more than others. ``none``: no more, or less.
    rows, queries
        Different rows, and how many of them were asked for.
    """

    keeps: tuple[int, ...]
    stages: tuple[Stage, ...]
    gain: float | None
    gain_interval: Range | None
    order: Order
    rows: int
    queries: int


def widths(dims: int) -> tuple[int, ...]:
    """Widths that are looked at: powers of two from 16 (or 2) on, and the full width."""
    first = 16 if dims > 32 else 2
    found = [first << i for i in range(14) if first << i < dims]
    return (*found, dims)


def measure(rows: Prepared, bootstrap: Bootstrap) -> Prefixes:
    """Measure every width as a first stage of floats and of signs."""
    part = max(K + 1, len(rows.order) // _PART)
    orders = [rows.rng.permutation(rows.dims) for _ in range(_DRAWS)]
    truth_part = rows.space.nearest(rows.queries, K, among=part)
    stages: list[Stage] = []
    gains: list[_Shares] = []
    for width in widths(rows.dims):
        drawn = [_control(rows, order[:width]) for order in orders if 2 * width <= rows.dims]
        for code in ("f16", "bit"):
            resolution = Resolution(width, code)
            coded = space_of_code(resolution, rows.vectors, rows.metric, base=rows.base)
            found = coded.places(rows.queries, rows.truth)
            smaller = coded.places(rows.queries, truth_part, among=part)
            control = drawn if code == "f16" else []
            stages.append(_stage(resolution, found, smaller, control, bootstrap))
            if control:
                gains.append(np.array([found.kept(K) - each.kept(K) for each in control]))
    for code in _ROTATED:
        turned = Resolution(rows.dims, code, "random")
        if code != "bit" and rows.dims * levels(code) > _MOST_BITS:
            continue
        coded = space_of_code(turned, rows.vectors, rows.metric, base=rows.base)
        found = coded.places(rows.queries, rows.truth)
        smaller = coded.places(rows.queries, truth_part, among=part)
        stages.append(_stage(turned, found, smaller, [], bootstrap))
    gain, interval, order = _ordered(gains, bootstrap)
    stages.sort(key=lambda stage: (stage.code != "f16", stage.code, stage.width))
    return Prefixes(KEEPS, tuple(stages), gain, interval, order, len(rows.order), len(rows.queries))


def _control(rows: Prepared, drawn: Rows) -> Places:
    """Where the neighbours stand by some dimensions alone."""
    columns = np.ascontiguousarray(rows.vectors[:, np.sort(drawn)])
    return space(columns, rows.metric).places(rows.queries, rows.truth)


def _stage(
    resolution: Resolution,
    found: Places,
    smaller: Places,
    control: list[Places],
    bootstrap: Bootstrap,
) -> Stage:
    kept = [found.kept(keep) for keep in KEEPS]
    return Stage(
        resolution=str(resolution),
        width=resolution.dims,
        code=str(resolution).partition(":")[2],
        bytes=2 * resolution.dims
        if resolution.code == "f16"
        else -(-resolution.dims * levels(resolution.code) // 8),
        recall=tuple(float(values.mean()) for values in kept),
        intervals=tuple(bootstrap.interval(values, bounded=True) for values in kept),
        control=tuple(float(np.mean([c.kept(keep) for c in control])) for keep in KEEPS)
        if control
        else None,
        keep=found.keep_for(TARGET),
        keep_part=smaller.keep_for(TARGET),
    )


def _ordered(
    gains: list[_Shares], bootstrap: Bootstrap
) -> tuple[float | None, Range | None, Order]:
    """Tell from (draws, queries) gains per width whether the first dimensions are special.

    If they are not, they are one more draw: their gain lies within what draws differ by. So its
    interval is that of one more draw (Student's t), widened by that of the queries.
    """
    if not gains:
        return None, None, "unknown"
    found: _Shares = np.mean(gains, axis=0)
    gain = float(found.mean())
    low, high = bootstrap.interval(found.mean(axis=0))
    between = _T * float(found.mean(axis=1).std(ddof=1)) * (1 + 1 / _DRAWS) ** 0.5
    low, high = (
        gain - float(np.hypot(gain - low, between)),
        gain + float(np.hypot(high - gain, between)),
    )
    order: Order = "first" if low > _CLEAR else "none"
    return gain, (low, high), order
