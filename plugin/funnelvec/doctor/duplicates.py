"""Rows with the same vector, and rows with almost the same: what they do to the top k."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from funnelvec.doctor.intervals import poisson, wilson
from funnelvec.doctor.rows import K, Prepared
from funnelvec.doctor.values import Finding, Range, counted, digits, share

__all__ = ["Duplicates", "describe", "measure"]

#: Two rows this close, as a share of the longer one, are near-copies: a cosine of 0.995.
_NEAR = 0.1


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Copies in the sample, and what they mean for the table.

    Attributes
    ----------
    copies, copies_interval
        Share of the sample's rows that have an exact copy in the sample.
    largest, examples
        Size of the largest set of equal rows, and the keys of up to five of its rows.
    pairs
        Pairs of equal rows in the sample.
    twins, twins_interval
        Copies that a row of the table has on average, estimated from the pairs: a pair is seen
        only if both of its rows are drawn.
    near, near_interval
        Share of the queries with a near-copy among the different rows; None with too few rows.
    """

    copies: float
    copies_interval: Range
    largest: int
    examples: tuple[str, ...]
    pairs: int
    twins: float
    twins_interval: Range
    near: float | None
    near_interval: Range | None


def measure(rows: Prepared, *, with_neighbours: bool) -> Duplicates:
    """Count copies, and near-copies among the neighbours of the queries."""
    n, population = len(rows), rows.population
    names, sizes = np.unique(rows.groups, return_counts=True)
    pairs = int((sizes * (sizes - 1) // 2).sum())
    copied = int(sizes[sizes > 1].sum())
    members = np.flatnonzero(rows.groups == names[int(sizes.argmax())])
    # The expected number of pairs in the sample is the table's, times the chance to draw both.
    scale = 2 * (population - 1) / (n * (n - 1))
    low, high = (pairs, pairs) if rows.is_whole else poisson(pairs)
    close = int(_near_copies(rows).sum()) if with_neighbours else None
    asked = len(rows.queries)
    return Duplicates(
        copies=copied / n,
        copies_interval=wilson(copied, n),
        largest=int(sizes.max()),
        examples=tuple(rows.name(int(row)) for row in members[:5]) if sizes.max() > 1 else (),
        pairs=pairs,
        twins=pairs * scale,
        twins_interval=(low * scale, high * scale),
        near=None if close is None else close / asked,
        near_interval=None if close is None else wilson(close, asked),
    )


def _near_copies(rows: Prepared) -> npt.NDArray[np.bool_]:
    """(m,) whether the nearest neighbour of a query is almost the same vector."""
    here = rows.order[rows.queries]
    there = rows.order[rows.truth[:, 0]]
    found = np.empty(len(here), np.bool_)
    for start in range(0, len(here), 256):
        part = slice(start, start + 256)
        left, right = rows.given[here[part]].astype(np.float64), rows.given[there[part]]
        apart = np.sqrt(((left - right) ** 2).sum(axis=1))
        found[part] = apart <= _NEAR * np.maximum(rows.norms[here[part]], rows.norms[there[part]])
    return found


def describe(found: Duplicates, rows: Prepared) -> Finding:
    """Say how many places of an answer go to copies."""
    seen = _seen(found, rows)
    many = found.twins > 0.1 or found.copies > 0.05
    near = found.near is not None and found.near > 0.05
    if many:
        fill = K / (1 + found.twins)
        advice = (
            f"Copies take places of the answer: of k = {K} about {digits(fill)} are different. "
            "Remove copies, or keep one vector row per text and join the rest; until then ask for "
            f"about {digits(1 + found.twins)} times the k you want. Equal rows rank by key."
        )
    elif near:
        advice = (
            "Near-copies crowd the answer. Remove repeated texts and overlapping chunks, or thin "
            "the hits in the application."
        )
    else:
        advice = "Nothing to do."
    return Finding(
        topic="duplicates",
        title="Copies",
        level="problem" if many else "note" if near else "fine",
        number=found.copies,
        unit="share of the sampled rows with an exact copy",
        interval=found.copies_interval,
        basis=counted(len(rows), "row"),
        found=seen,
        normal=(
            "Near 0. Copies come from repeated texts, empty texts and loading twice; no study "
            "gives a usual share, so any above 5 % is named."
        ),
        advice=advice,
    )


def _seen(found: Duplicates, rows: Prepared) -> str:
    if found.pairs == 0:
        seen = "No two sampled rows are equal."
    else:
        shown = ", ".join(found.examples)
        more = ", ..." if found.largest > len(found.examples) else ""
        seen = (
            f"{share(found.copies)} of the sampled rows have an exact copy; the largest set has "
            f"{counted(found.largest, 'row')} ({shown}{more})."
        )
    if not rows.is_whole:
        low, high = found.twins_interval
        seen += (
            f" In the whole table a row has about {digits(found.twins)} copies (95 %: "
            f"{digits(low)} to {digits(high)}), since a sample rarely holds both rows of a pair."
        )
    if found.near is not None:
        seen += (
            f" {share(found.near)} of {counted(len(rows.queries), 'different row')} that were "
            "asked for have a neighbour that is almost the same (within 10 % of the length)."
        )
    return seen
