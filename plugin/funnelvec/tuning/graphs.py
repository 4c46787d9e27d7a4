"""Index settings: the usual one, and the two others that a run may choose.

No setting did better than the usual one in time and recall at once (docs/benchmark.md, index
parameters), so others are chosen for what it cannot do: fewer links where a budget of memory,
storage or building has no room for it, more where no list of it reaches the recall. What they cost
and lose beside it was read off that table; what is built is then measured like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from funnelvec.tuning.cost import Prices

__all__ = ["DENSE", "LIGHT", "Graph"]


@dataclass(frozen=True, slots=True)
class Graph:
    """An HNSW index beside the usual one.

    Attributes
    ----------
    m, ef_construction
        As pgvector and Qdrant call them.
    build, walk
        Seconds to build it, and pages of a walk with a list as long, over those of the usual one.
    loss
        What it loses of what its codes hold, times the length of the list.
    """

    m: int
    ef_construction: int
    build: float
    walk: float
    loss: float

    def of(self, prices: Prices) -> Prices:
        """The prices with this index."""
        return replace(
            prices,
            m=self.m,
            walk_floats=prices.walk_floats * self.walk,
            walk_bits=prices.walk_bits * self.walk,
            step_floats=prices.step_floats * self.walk,
            step_bits=prices.step_bits * self.walk,
            index_row=prices.index_row * self.build,
        )

    def __str__(self) -> str:
        return f"m {self.m}, ef_construction {self.ef_construction}"


LIGHT = Graph(8, 64, build=0.55, walk=0.66, loss=2.4)
DENSE = Graph(24, 64, build=1.6, walk=1.27, loss=0.6)
