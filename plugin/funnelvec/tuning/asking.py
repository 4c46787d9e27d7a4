"""Which queries a run works with: given, logged, or rows of the table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from funnelvec.errors import CapabilityError, NotFound
from funnelvec.reports import Sample
from funnelvec.tuning.calls import Call, Steps
from funnelvec.tuning.ground import Ground
from funnelvec.tuning.wanted import Wanted, check_enough

__all__ = ["Drawn", "draw"]

#: Queries that are taken where nobody says how many; more only where the recall needs them.
_USUAL, _MOST = 400, 4_000

_ROWS_ARE_NOT = (
    "the queries were rows of the table, which resemble each other more than questions resemble "
    "rows: for real queries recall can be lower. Pass queries=, or log_queries() and tune again"
)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Queries, the rows of the sample that they are (-1: none), and where they came from.

    The first `half` are to choose with, the others to check with: half of them, but no more than
    `most`, since every setting is asked all of them and more tell hardly anything more.
    """

    queries: npt.NDArray[np.float32]
    itself: npt.NDArray[np.int64]
    source: str
    most: int
    warning: str | None = None

    @property
    def half(self) -> int:
        """How many are to choose with."""
        return min(len(self.queries) // 2, self.most)

    def strangers(self, count: int) -> npt.NDArray[np.float32] | None:
        """Some of them, where they are no rows of the table."""
        return None if (self.itself >= 0).any() else self.queries[: min(count, self.half)]


def draw(ground: Ground, wanted: Wanted, sample: Sample) -> Steps[Drawn]:
    """Take the queries that were given, else those of the log, else rows."""
    given, source = wanted.queries, "given"
    if given is None and wanted.from_log is not False:
        given = yield from _logged(wanted)
        source = "the query log"
    count = min(max(_USUAL, wanted.queries_needed), _MOST)
    most = max(_USUAL, wanted.queries_needed) // 2
    if given is not None:
        usable = given[given.any(axis=1)] if ground.about.metric == "cosine" else given
        check_enough(wanted, len(usable), "given" if source == "given" else "in the log")
        order = np.random.default_rng(wanted.seed).permutation(len(usable))[:_MOST]
        taken = usable[order[:count]] if source != "given" else usable[order]
        return Drawn(taken, np.full(len(taken), -1), source, most)
    there = np.flatnonzero(sample.vectors.any(axis=1))  # in random order
    check_enough(wanted, min(len(there), max(0, len(sample.vectors) - 2 * wanted.k)), "rows")
    rows = there[:count].astype(np.int64)
    return Drawn(sample.vectors[rows], rows, "rows of the table", most, _ROWS_ARE_NOT)


def _logged(wanted: Wanted) -> Steps[npt.NDArray[np.float32] | None]:
    """The logged queries, or None where there are too few and nobody insisted on them."""
    try:
        found: npt.NDArray[np.float32] = yield Call(
            "logged_queries", (_MOST,), {"funnel": wanted.funnel}
        )
    except (NotFound, CapabilityError):
        if wanted.from_log:
            raise
        return None
    if len(found) < wanted.queries_needed and not wanted.from_log:
        return None
    return found
