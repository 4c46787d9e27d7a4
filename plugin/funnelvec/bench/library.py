"""What bounds a search: a library in this process, and how fast this machine reads memory.

Neither is a peer. A library has no rows, no transactions, no other process to go to and back; the
codes read once, from end to end, is what a search that skips nothing cannot be faster than.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from funnelvec.bench import stage
from funnelvec.bench.contestants import EF_SEARCH, Contestant
from funnelvec.bench.data import Dataset
from funnelvec.bench.entrants import Entrant
from funnelvec.bench.knobs import Setting
from funnelvec.errors import MissingDependency

__all__ = ["Library", "LibraryLane", "read_rate"]

_M, _EF_CONSTRUCTION = 16, 64
#: Far more than any cache holds.
_READ = 1 << 28


@dataclass(frozen=True, slots=True)
class LibraryLane:
    """A library's index as a contestant; all clients share it."""

    contestant: Contestant
    index: Any
    k: int
    row_bytes: int

    def search(self, query: Any) -> list[tuple[Any, ...]]:
        """Rows and their cosines; `query` comes from `stage.parameters`."""
        found = self.index.search(query.array, self.k)
        return list(zip(found.keys.tolist(), (1 - found.distances).tolist(), strict=True))

    def sizes(self, schema: str) -> stage.Sizes:
        """The graph is what the saved index has beyond the vectors."""
        whole = int(self.index.serialized_length)
        return stage.Sizes(whole - self.row_bytes, whole)


class Library(Entrant):
    """HNSW of usearch over the whole vectors, with the parameters that the others have."""

    family = name = "usearch in this process"
    bound = True

    def __init__(self, dataset: Dataset, *, k: int) -> None:
        try:
            import usearch.index
        except ImportError as error:
            raise MissingDependency.of("usearch", extra="bench") from error
        self._make = usearch.index.Index
        self._dataset, self._k = dataset, k
        self._index: Any = None
        self.knobs = (("expansion_search", EF_SEARCH),)

    def build(self) -> float:
        """Add every row, with every core."""
        started = time.perf_counter()
        self._index = self._make(
            ndim=self._dataset.dims,
            metric="cos",
            dtype="f32",
            connectivity=_M,
            expansion_add=_EF_CONSTRUCTION,
        )
        self._index.add(
            np.arange(len(self._dataset.rows)), self._dataset.rows, threads=os.cpu_count() or 1
        )
        return time.perf_counter() - started

    def open(self, stack: contextlib.ExitStack) -> LibraryLane:
        """One index serves all."""
        contestant = Contestant(
            name=self.name,
            label="usearch",
            table="",
            statement="index.search(query, k)",
            remark=f"m {_M}, ef_construction {_EF_CONSTRUCTION}, f32",
        )
        return LibraryLane(contestant, self._index, self._k, self._dataset.rows.nbytes)

    def turned(self, lane: stage.Runner, setting: Setting, *, ready: bool = True) -> LibraryLane:
        """The list is the index's, and so everybody's."""
        assert isinstance(lane, LibraryLane)
        self._index.expansion_search = setting[0]
        name = f"{self.name}, ef_search {setting[0]}"
        return replace(lane, index=self._index, contestant=replace(lane.contestant, name=name))


def read_rate() -> float:
    """Bytes a second at which one core reads memory: the fastest of some ways to read it once."""
    numbers = np.ones(_READ // 8, dtype=np.uint64)
    floats = numbers.view(np.float32)
    best = 0.0
    for read in (
        lambda: np.bitwise_or.reduce(numbers),
        lambda: np.add.reduce(numbers),
        lambda: float(floats @ floats),
    ):
        read()
        started = time.perf_counter()
        read()
        best = max(best, _READ / (time.perf_counter() - started))
    return best
