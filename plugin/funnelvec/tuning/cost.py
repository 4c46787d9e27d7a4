"""What a search, an index and a build cost on one engine.

A search pays for the call, for the walk through the first index, for every row that a later stage
compares, and for every row whose whole vector the last stage reads. The walk is a constant and so
much per row of the list; both grow with the logarithm of the table, as the graph's depth does.
Where there is no index the first stage compares every row. A query that a fitted rotation maps is
mapped by the client, once for each stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from funnelvec.codes import is_bits
from funnelvec.codes.rotations import is_random
from funnelvec.resolution import Resolution
from funnelvec.tuning.candidates import Template, bytes_of
from funnelvec.types import Storage

Floats = npt.NDArray[np.float64]

__all__ = ["Design", "Prices", "fitted", "usual"]

#: Bytes of the code that the price of a row between is stated for.
_INLINE = 1024
#: Weight of what is expected of a price, beside the relative errors of the times.
_HELD = 0.1


@dataclass(frozen=True, slots=True)
class Prices:
    """Milliseconds, bytes and seconds on one engine.

    Attributes
    ----------
    call
        One search, whatever it does.
    walk_floats, walk_bits, step_floats, step_bits
        The first stage: its start, and each row of its list, over numbers or over bits.
    stage, row
        A stage between, and each row that it compares by a code of 1 kB.
    wide
        Each row that the last stage reads and compares.
    scan
        Each row of an exact search.
    map, map_number
        Mapping a query for one stage by a fitted rotation, and each number of the map.
    index_row, encode_row
        Seconds to enter a row into an index of 1 kB codes, and to store its code.
    rows
        Rows of the table that the prices were measured on.
    indexed
        Whether the engine has indexes.
    paged
        Whether its indexes consist of pages of 8 kB, as Postgres' do.
    m
        Links of a row in an index, of each level.
    measured
        Whether they were measured here, or are those of the machine this was written on.
    kind
        Where the codes stand: in columns of the table, or in a side table, whose rows are joined.
    other
        The prices of the other kind, where some codes stand there.
    key, at, kept
        What kept prices are known by, when they were measured, and whether that was another run.
    """

    call: float
    walk_floats: float
    walk_bits: float
    step_floats: float
    step_bits: float
    stage: float
    row: float
    wide: float
    scan: float
    map: float
    map_number: float
    index_row: float
    encode_row: float
    rows: int
    indexed: bool = True
    paged: bool = True
    m: int = 16
    measured: bool = False
    kind: Storage = "column"
    other: Prices | None = None
    key: str | None = None
    at: str | None = None
    kept: bool = False

    def of(self, kind: Storage) -> Prices:
        """The prices where codes stand there, as far as they are known."""
        return self if self.other is None or kind == self.kind else self.other

    def first(self, resolution: Resolution, keep: int, rows: int) -> float:
        """Milliseconds of a first stage."""
        in_bits = is_bits(resolution.code)
        start = self.walk_bits if in_bits else self.walk_floats
        step = self.step_bits if in_bits else self.step_floats
        if not self.indexed:
            return start * rows / self.rows + step * keep
        deeper = math.log(max(rows, 3)) / math.log(max(self.rows, 3))
        return (start + step * keep) * deeper

    def milliseconds(self, template: Template, keeps: Sequence[int], rows: int) -> float:
        """Median milliseconds of a search."""
        if not keeps:
            return self.call + self.scan * rows
        total = self.call + self.first(template.first, keeps[0], rows)
        for resolution, keep in zip(template.stages[1:-1], keeps, strict=False):
            total += self.stage + self.row * keep * (0.5 + 0.5 * bytes_of(resolution) / _INLINE)
        return total + self.wide * keeps[-1] + self.mapping(template)

    def mapping(self, template: Template) -> float:
        """Milliseconds to map a query for the stages behind fitted rotations."""
        mapped = [r for r in template.stages if r.rotation and not is_random(r.rotation)]
        numbers = sum(each.dims for each in mapped) * template.stages[-1].dims
        return self.map * len(mapped) + self.map_number * numbers

    def index_bytes(self, resolution: Resolution, rows: int) -> int:
        """Bytes of an HNSW index over a resolution."""
        if not self.indexed:
            return 0
        if self.paged:
            # A row with its 32 and more links takes some 300 bytes beside the code; fewer with 8.
            size = bytes_of(resolution) + 92 + 13 * self.m
            return int(8192 * math.ceil(rows / max(1, 8160 // size)))
        return int(rows * (bytes_of(resolution) + 10 * self.m))

    def code_bytes(self, resolution: Resolution, rows: int) -> int:
        """Bytes of the codes themselves."""
        return rows * (bytes_of(resolution) + 8)

    def build(self, resolution: Resolution, rows: int, *, index: bool, stored: bool) -> float:
        """Seconds to store a resolution and index it; `stored` where its codes are there."""
        total = 0.0 if stored else rows * self.encode_row
        if index and self.indexed:
            deeper = math.log(max(rows, 3)) / math.log(max(self.rows, 3))
            scale = 0.5 + 0.5 * bytes_of(resolution) / _INLINE
            total += rows * self.index_row * scale * deeper
        return total


def usual(engine: str, dims: int) -> Prices:
    """Prices of the machine that this was written on, for where none can be measured.

    Read off `docs/benchmark.md`: 13 pages a row of the list at 0.8 microseconds, 20 microseconds
    for a vector of 1,536 dimensions out of TOAST, 2 for a code of 1 kB in its row, 230 for mapping
    a query of 1,536 numbers by 128 and by 512.
    """
    wide = 0.004 + 1.1e-5 * dims
    postgres = Prices(
        call=0.3, walk_floats=0.25, walk_bits=0.3, step_floats=0.011, step_bits=0.013, stage=0.1,
        row=0.002, wide=wide, scan=0.0007 + 5e-6 * dims, map=0.06, map_number=1e-7,
        index_row=2.5e-4, encode_row=1e-4, rows=50_000,
    )  # fmt: skip
    if engine == "postgres":
        return postgres
    if engine == "memory":
        return replace(
            postgres, walk_floats=2.0, walk_bits=2.0, step_floats=0.0, step_bits=0.0,
            row=0.001, map=0.005, index_row=0.0, indexed=False, paged=False, rows=10_000,
        )  # fmt: skip
    return replace(
        postgres, call=0.4, walk_floats=0.1, walk_bits=0.1, step_floats=0.004, step_bits=0.004,
        stage=0.05, row=0.001, wide=0.002 + 1e-6 * dims, scan=2e-4 + 1e-6 * dims, map=0.005,
        map_number=2e-7, paged=False, m=32,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Design:
    """One funnel that was timed to find the prices: its keeps, and its median milliseconds."""

    template: Template
    keeps: tuple[int, ...]
    milliseconds: float


def fitted(
    designs: Sequence[Design], known: Prices, *, rows: int, scan_ms: float,
    index_row: float, encode_row: float,
) -> Prices:  # fmt: skip
    """Find the prices that explain the times of some funnels, none of them below zero.

    Parameters
    ----------
    known
        What is taken where the times say nothing, such as for codes that were not tried.
    rows
        Of the table that they were measured on.
    scan_ms
        Milliseconds of an exact search there.
    """
    matrix = np.array([_explained(each) for each in designs])
    times = np.array([each.milliseconds for each in designs])
    expected = np.array([
        known.call + known.walk_floats, known.call + known.walk_bits, known.step_floats,
        known.step_bits, known.stage, known.row, known.wide,
    ])  # fmt: skip
    pace = float(np.median(times / (matrix @ expected)))
    found = _not_negative(matrix, times, pace * expected)
    seen = np.asarray(matrix.any(axis=0))
    floats, bits, step, step_bits, stage, row, wide = (
        float(value) if there else None for value, there in zip(found, seen, strict=True)
    )
    call = known.call
    return replace(
        known,
        walk_floats=max(0.0, (floats if floats is not None else call) - call),
        walk_bits=max(0.0, (bits if bits is not None else floats or call) - call),
        step_floats=known.step_floats if step is None else step,
        step_bits=known.step_bits if step_bits is None else step_bits,
        stage=known.stage if stage is None else stage,
        row=known.row if row is None else row,
        wide=known.wide if wide is None else wide,
        scan=max(1e-7, (scan_ms - call) / rows),
        map=pace * known.map,
        map_number=pace * known.map_number,
        index_row=index_row,
        encode_row=encode_row,
        rows=rows,
        measured=True,
    )


def _explained(design: Design) -> list[float]:
    """How often each price is paid: two starts, two steps, a stage, a row of it, a wide row."""
    in_bits, keep = is_bits(design.template.first.code), float(design.keeps[0])
    found = [float(not in_bits), float(in_bits), keep * (not in_bits), keep * in_bits]
    between = 0.0
    for resolution, each in zip(design.template.stages[1:-1], design.keeps, strict=False):
        between += each * (0.5 + 0.5 * bytes_of(resolution) / _INLINE)
    return [*found, float(len(design.keeps) - 1), between, float(design.keeps[-1])]


def _not_negative(
    matrix: npt.NDArray[np.float64],
    times: npt.NDArray[np.float64],
    expected: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Least squares without negative prices: the most negative one is set to zero, and again.

    Prices that the times hardly tell apart are held near what is `expected` of them.
    """
    free = np.asarray(matrix.any(axis=0))
    # Relative errors: a slow design would else count for more than a fast one.
    relative = matrix / times[:, np.newaxis]
    held = np.diag(_HELD / np.maximum(expected, 1e-9))
    sides = np.concatenate([np.ones(len(times)), np.full(len(expected), _HELD)])
    both = np.concatenate([relative, held])
    found = np.zeros(matrix.shape[1])
    while free.any():
        solved = np.linalg.lstsq(both[:, free], sides, rcond=None)[0]
        if (solved >= 0).all():
            found[free] = solved
            break
        places = np.flatnonzero(free)
        free[places[int(np.argmin(solved))]] = False
    return found
