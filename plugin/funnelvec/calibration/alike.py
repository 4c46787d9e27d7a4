"""Which judged queries ask for the same thing, so that they are fitted or held out together.

A fit that saw one of two such queries knows the other one. What it makes of the other is then no
sample of what it makes of a query of another kind, and a promise that rests on it is broken by the
first questions that nobody judged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["alike"]

Ints = npt.NDArray[np.int64]


def alike(relevant: Sequence[Ints], *, least: float = 0.5) -> Ints:
    """Number queries so that those with mostly the same relevant rows have one number.

    Parameters
    ----------
    relevant
        For each query the numbers of its relevant rows. A query without any is by itself.
    least
        Two queries are alike where the rows that both want are at least this share of the rows
        that one of them wants (the Jaccard index); likeness is carried on from query to query.

    Returns
    -------
    groups
        (n,) int64.
    """
    wants = [frozenset(map(int, rows)) for rows in relevant]
    sets = list({each: None for each in wants if each})
    root = list(range(len(sets)))

    def find(place: int) -> int:
        while root[place] != place:
            root[place] = root[root[place]]
            place = root[place]
        return place

    holders: dict[int, list[int]] = defaultdict(list)
    for place, rows in enumerate(sets):
        shared = Counter(other for row in rows for other in holders[row])
        for other, count in shared.items():
            if count >= least * (len(rows) + len(sets[other]) - count):
                root[find(place)] = find(other)
        for row in rows:
            holders[row].append(place)
    number = {rows: find(place) for place, rows in enumerate(sets)}
    alone = iter(range(len(sets), len(sets) + len(wants)))
    named = [number[each] if each else next(alone) for each in wants]
    result: Ints = np.unique(np.array(named, dtype=np.int64), return_inverse=True)[1].astype(
        np.int64
    )
    return result
