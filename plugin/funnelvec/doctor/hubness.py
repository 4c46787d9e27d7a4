"""Hubs: rows that are among the nearest neighbours of very many others, and rows of none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from funnelvec.doctor.neighbours import Space
from funnelvec.doctor.rows import K, Prepared
from funnelvec.doctor.values import Finding, counted, digits, share

__all__ = ["Hub", "Hubness", "describe", "measure", "occurrences", "skewness"]

#: All of these are asked for, so that counts are not those of a sample of queries.
_ROWS = 5000
_SKEWED = 1.2
_HEAVY = 3.0


@dataclass(frozen=True, slots=True)
class Hub:
    """A row, and in how many top tens it is."""

    key: str
    count: int


@dataclass(frozen=True, slots=True)
class Hubness:
    """How often rows are among the 10 nearest of others (k-occurrence, mean 10).

    Attributes
    ----------
    skewness
        Third standardised moment of the counts (Radovanovic et al. 2010).
    never
        Share of rows in nobody's top ten.
    top
        Share of all places that the most frequent 1 % of the rows hold.
    hubs
        The most frequent rows.
    rows
        Different rows, each of them asked for.
    counts
        Rows by count: how many are in 0, 1, 2, ... top tens, the last for all above.
    """

    skewness: float
    never: float
    top: float
    hubs: tuple[Hub, ...]
    rows: int
    counts: tuple[int, ...]


def measure(rows: Prepared) -> Hubness:
    """Ask for the neighbours of up to 5,000 rows among themselves."""
    n = min(_ROWS, len(rows.order))
    part = Space(rows.space.points[:n], rows.space.offsets[:n])
    counts = occurrences(part, K)
    falling = np.argsort(-counts, kind="stable")
    few = max(1, round(n / 100))
    by_count = np.bincount(np.minimum(counts, 60), minlength=61)
    return Hubness(
        skewness=skewness(counts),
        never=float((counts == 0).mean()),
        top=float(counts[falling[:few]].sum() / counts.sum()),
        hubs=tuple(
            Hub(rows.name(int(rows.order[place])), int(counts[place])) for place in falling[:5]
        ),
        rows=n,
        counts=tuple(map(int, by_count)),
    )


def occurrences(space: Space, k: int) -> npt.NDArray[np.int64]:
    """(n,) how often each row is among the `k` nearest of another."""
    near = space.nearest(np.arange(len(space)), k)
    return np.bincount(near.ravel(), minlength=len(space))


def skewness(counts: npt.NDArray[np.int64]) -> float:
    """Third standardised moment; 0 where all counts are equal."""
    apart = counts - counts.mean()
    spread = float(np.sqrt((apart**2).mean()))
    return float((apart**3).mean()) / spread**3 if spread else 0.0


def describe(found: Hubness, rows: Prepared) -> Finding:
    """Say whether a few rows answer everything."""
    first = found.hubs[0]
    seen = (
        f"The most frequent row ({first.key}) is in {first.count:,} top tens of {found.rows:,}; "
        f"1 % of the rows hold {share(found.top)} of all places, and {share(found.never)} are in "
        "nobody's."
    )
    skewed, heavy = found.skewness > _SKEWED, found.skewness > _HEAVY
    if heavy:
        advice = (
            "Look at the hubs "
            f"({', '.join(hub.key for hub in found.hubs)}): they are often empty, short or "
            "boilerplate texts; remove those. A correction per row (score less the row's mean "
            "similarity to typical queries) helps search in published work, if it helps on your "
            "judged queries too. calibrate() before you use a cutoff."
        )
    elif skewed:
        advice = (
            "Usual for this many dimensions. Look at the first hubs "
            f"({', '.join(hub.key for hub in found.hubs[:3])}) once, to see that they are real "
            "content."
        )
    else:
        advice = "Nothing to do."
    return Finding(
        topic="hubness",
        title="Hubs",
        level="problem" if heavy else "note" if skewed else "fine",
        number=found.skewness,
        unit="skewness of how often a row is in a top ten",
        interval=None,
        basis=f"{counted(found.rows, 'different row')}, each of them a query",
        found=seen,
        normal=(
            f"{digits(1 / np.sqrt(K))} by chance; above 1.2 counts as hubness (rule of thumb of "
            "scikit-hubness), and it grows with the number of dimensions (Radovanovic et al. "
            "2010) and of rows."
        ),
        advice=advice,
    )
