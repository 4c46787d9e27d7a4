"""Fitted rotations: linear maps of one vector column; the twin of ``sql/parts/27_fitted.sql``.

A map is kept in whole numbers, so that the database and numpy multiply by the same ones. Vectors
are divided by their length first and get it back, so that no number of any size overflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from funnelvec.codes import floats
from funnelvec.errors import CapabilityError, Conflict, InvalidInput, SpecError
from funnelvec.resolution import Resolution
from funnelvec.types import Metric

__all__ = ["MOST_NUMBERS", "Chain", "Kind", "LinearMap", "Rotation", "check_fits"]

Kind: TypeAlias = Literal["pca", "sphering"]
Chain: TypeAlias = Literal["random", "itq"]

#: The largest number of a map. Six digits leave errors of 1e-7 in a score, as float32 does.
_LARGEST = 1_000_000
#: Numbers in the function of one resolution: every session of Postgres reads it once.
MOST_NUMBERS = 2_097_152
#: Rows that are mapped at a time.
_BLOCK = 4096
#: Numbers of a matrix up to which OpenBLAS multiplies it with a vector in one thread.
_ALONE = 9216


@dataclass(frozen=True, slots=True, eq=False)
class LinearMap:
    """A linear map: (width, dims) int32 `numbers` times `step`."""

    numbers: npt.NDArray[np.int32]
    step: float

    @property
    def floats(self) -> npt.NDArray[np.float32]:
        """The numbers as 32-bit floats, which hold them all; made once."""
        return _floats(self)

    @classmethod
    def rounded(cls, matrix: npt.NDArray[np.float64]) -> LinearMap:
        """Round a (width, dims) matrix, its largest number to `_LARGEST` steps."""
        step = float(np.abs(matrix).max()) / _LARGEST
        if not np.isfinite(step) or step == 0.0:
            raise InvalidInput("a map must have numbers that are finite, and not zero all of them")
        return cls(np.rint(matrix / step).astype(np.int32), step)

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return the (width, dims) numbers that it stands for."""
        found: npt.NDArray[np.float64] = self.numbers.astype(np.float64) * self.step
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """A fitted rotation; immutable, like the codes that were made with it.

    Attributes
    ----------
    name, kind
        What resolutions call it, and how it was fitted.
    chain
        What follows: a random rotation, which spreads over all dimensions what the first had
        ordered, or one that lays numbers close to their signs (ITQ). Such a rotation is used in
        its full width. None where nothing follows.
    metric
        Of the column it was fitted for.
    row_map, query_map
        The maps; None for queries that take the map of rows.
    fitted_on
        SHA-256 of the vectors that it was fitted on.
    rows, queries
        How many those were.
    """

    name: str
    kind: Kind
    chain: Chain | None
    metric: Metric
    row_map: LinearMap
    query_map: LinearMap | None
    fitted_on: str
    rows: int
    queries: int

    @property
    def dims(self) -> int:
        """Width of the vectors that it takes."""
        return int(self.row_map.numbers.shape[1])

    @property
    def width(self) -> int:
        """Width of what it gives."""
        return int(self.row_map.numbers.shape[0])

    @property
    def cuttable(self) -> bool:
        """Whether its first dimensions say more than others."""
        return self.chain is None

    @property
    def prefix_metric(self) -> Metric:
        """What its prefixes are compared by: inner products where there are two maps."""
        return self.metric if self.query_map is None else "dot"

    def map_query(self, query: npt.NDArray[np.float32], dims: int) -> npt.NDArray[np.float32]:
        """Map one (d,) query fast; what `apply` gives, up to rounding."""
        chosen = self.row_map if self.query_map is None else self.query_map
        wide = query.astype(np.float64)
        length = float(np.sqrt(wide @ wide))
        if length == 0.0:
            return np.zeros(dims, np.float32)
        keeps = self.query_map is None or self.metric != "cosine"
        scale = chosen.step * (length if keeps else 1.0)
        with np.errstate(all="ignore"):
            found = _by_one_thread(chosen.floats[:dims], (wide / length).astype(np.float32))
            return (found.astype(np.float64) * scale).astype(np.float32)

    def apply(
        self, x: npt.NDArray[np.float32], *, dims: int | None = None, asked: bool = False
    ) -> npt.NDArray[np.float32]:
        """Map (n, d) float32 vectors to their first `dims` numbers; `asked`: they are queries.

        Lengths stay what they are. Only two maps under cosine, whose prefixes are compared by
        inner products, give what the vectors would have at length 1.
        """
        chosen = self.query_map if asked and self.query_map is not None else self.row_map
        width = self.width if dims is None else dims
        # In double precision and rounded once: a float32 product of BLAS depends on where in the
        # matrix a row stands, and equal rows must get equal codes.
        across = chosen.numbers[:width].T.astype(np.float64)
        keeps = self.query_map is None or self.metric != "cosine"
        mapped = np.empty((len(x), width), np.float32)
        for start in range(0, len(x), _BLOCK):
            part = x[start : start + _BLOCK]
            product = _product(floats.directions(part).astype(np.float64), across) * chosen.step
            if keeps:
                product *= np.sqrt((part.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
            with np.errstate(over="ignore"):
                mapped[start : start + _BLOCK] = product
        return mapped


def _by_one_thread(
    matrix: npt.NDArray[np.float32], vector: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Multiply (n, d) by (d,), as a stack of products that are each too small to share out.

    A BLAS with threads shares out a product of this size, and on a busy machine it then waits for
    the others: 12 ms for the 0.1 ms that it takes.
    """
    n, d = matrix.shape
    rows = _rows_alone(n, d)
    found: npt.NDArray[np.float32] = (matrix.reshape(n // rows, rows, d) @ vector).reshape(n)
    return found


@lru_cache(maxsize=64)
def _rows_alone(n: int, d: int) -> int:
    """How many of n rows of d numbers go into one product, so that all products are alike."""
    return max(
        each for each in range(1, n + 1) if n % each == 0 and (each == 1 or each * d <= _ALONE)
    )


@lru_cache(maxsize=16)
def _floats(chosen: LinearMap) -> npt.NDArray[np.float32]:
    return chosen.numbers.astype(np.float32)


def check_fits(resolution: Resolution, rotation: Rotation, *, metric: Metric) -> None:
    """Refuse a resolution that asks of a rotation what it does not give.

    Raises
    ------
    SpecError
        If it is wider than the rotation, cuts one that may not be cut, or takes bits that mean
        nothing there.
    Conflict
        If the rotation was fitted for another metric.
    CapabilityError
        If the map would be too large for a function of a database.
    """
    name, width, dims = rotation.name, rotation.width, resolution.dims
    if rotation.metric != metric:
        raise Conflict(
            f"the rotation {name} was fitted for the metric {rotation.metric}, not {metric}; fit "
            "another one for that, under another name"
        )
    if dims > width or (dims < width and not rotation.cuttable):
        fault = (
            f"is wider than the rotation {name}, which keeps {width} dimensions"
            if dims > width
            else f"cuts the rotation {name}, which ends in another one ({rotation.chain})"
        )
        raise SpecError(f"resolution {resolution} {fault}; write {width}:{resolution.code}~{name}")
    if rotation.query_map is not None and resolution.code.startswith(("bit", "bq", "int8")):
        raise SpecError(
            f"resolution {resolution} takes signs, or directions, which say nothing where rows and "
            f"queries have different maps; write {dims}:f16~{name}"
        )
    if resolution.code in ("bit2", "bit3", "bit4") and rotation.chain != "random":
        raise SpecError(
            f"resolution {resolution} compares numbers with levels that fit those of a random "
            "rotation; fit a rotation with then='random', or take another code"
        )
    if dims * rotation.dims > MOST_NUMBERS:
        raise CapabilityError(
            f"resolution {resolution} needs a map of {dims * rotation.dims:,} numbers; ask for at "
            f"most {MOST_NUMBERS // rotation.dims} dimensions"
        )


def _product(
    left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    with np.errstate(all="ignore"):  # some builds of BLAS warn of numbers that are in no operand
        found: npt.NDArray[np.float64] = left @ right
    return found
