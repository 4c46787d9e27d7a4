"""The sample as the measures take it: checked, without zero rows and copies, in random order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.doctor.neighbours import Matrix, Rows, Space, space
from funnelvec.errors import InvalidInput
from funnelvec.types import BaseCode, Key, Metric

__all__ = ["FEWEST", "K", "Prepared", "prepare"]

#: What a search is taken to ask for, and fewest different rows among which neighbours mean much.
K = 10
FEWEST = 20


@dataclass(frozen=True, eq=False)  # no slots: cached_property needs a __dict__
class Prepared:
    """A sample of vectors, ready to be measured.

    Attributes
    ----------
    given
        (n, d) float32, the sample as it came.
    ids
        n keys of its rows, or None.
    metric, base
        What rows are compared by, and what the column stores.
    population
        Rows of the table that the sample stands for, at least n.
    norms
        (n,) float64 lengths.
    groups
        (n,) number of the first row that equals this one.
    order
        Numbers of different rows that have neighbours, in random order.
    queries
        Places in `order` of the rows that are asked for.
    rng
        Where every measure draws from, in one fixed sequence.
    """

    given: Matrix
    ids: Sequence[Key] | None
    metric: Metric
    base: BaseCode
    population: int
    norms: npt.NDArray[np.float64]
    groups: Rows
    order: Rows
    queries: Rows
    rng: np.random.Generator

    def __len__(self) -> int:
        return len(self.given)

    @property
    def dims(self) -> int:
        """Width of the vectors."""
        return int(self.given.shape[1])

    @property
    def is_whole(self) -> bool:
        """Whether the sample is the table."""
        return self.population == len(self)

    @cached_property
    def vectors(self) -> Matrix:
        """(p, d) the rows of `order`."""
        return self.given[self.order]

    @cached_property
    def space(self) -> Space:
        """The rows of `order` as an exact search compares them."""
        return space(self.vectors, self.metric)

    @cached_property
    def truth(self) -> Rows:
        """(m, K) exact nearest neighbours of the queries, as places in `order`."""
        return self.space.nearest(self.queries, K)

    def name(self, row: int) -> str:
        """What a row of the sample is called."""
        return f"row {row}" if self.ids is None else str(self.ids[row])


def prepare(
    vectors: npt.ArrayLike,
    *,
    ids: Sequence[Key] | None,
    metric: Metric,
    base: BaseCode,
    population: int | None,
    queries: int,
    seed: int,
) -> Prepared:
    """Check a sample and take zero rows and copies out of the rows that have neighbours.

    Raises
    ------
    InvalidInput
        If it is not an (n, d) array of finite numbers with at least two rows.
    """
    given = _matrix(vectors)
    norms = np.sqrt(np.einsum("ij,ij->i", given, given, dtype=np.float64))
    groups = _groups(given)
    rng = np.random.default_rng(seed)
    different = np.flatnonzero(groups == np.arange(len(given)))
    if metric == "cosine":
        different = different[norms[different] > 0]
    order = rng.permutation(different)
    # Queries come from the end: the beginning is what smaller samples are made of.
    asked = np.arange(len(order))[-queries:]
    return Prepared(
        given=given,
        ids=ids,
        metric=metric,
        base=base,
        population=max(len(given), population or 0),
        norms=norms,
        groups=groups,
        order=order,
        queries=asked,
        rng=rng,
    )


def _matrix(vectors: npt.ArrayLike) -> Matrix:
    try:
        array: npt.NDArray[Any] = np.asarray(vectors)
        if array.dtype.kind not in "iuf" or array.ndim != 2:
            raise InvalidInput(
                f"vectors must be numbers of the shape (n, d), not {array.dtype} {array.shape}"
            )
        with np.errstate(over="ignore"):
            matrix: Matrix = np.array(array, dtype=np.float32, order="C")
            matrix += np.float32(0)  # there is no -0 any more, so equal rows have equal bytes
    except InvalidInput:
        raise
    except Exception as error:  # numpy asks the object itself, which may answer with any error
        raise InvalidInput(f"vectors cannot be read as an array of numbers: {error}") from None
    if matrix.shape[0] < 2 or matrix.shape[1] < 1:
        raise InvalidInput(
            f"a diagnosis needs at least two vectors, not {matrix.shape[0]} of {matrix.shape[1]} "
            "dimensions; load some rows first"
        )
    for row in np.flatnonzero(~np.isfinite(matrix).all(axis=1))[:1]:
        raise InvalidInput(f"vectors must hold finite numbers; row {row} does not")
    return matrix


def _groups(matrix: Matrix) -> Rows:
    """(n,) number of the first row with the same bytes; digests need far less room than rows."""
    first: dict[bytes, int] = {}
    found = np.empty(len(matrix), np.intp)
    for number, row in enumerate(matrix):
        digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
        found[number] = first.setdefault(digest, number)
    return found
