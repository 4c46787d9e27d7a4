"""What a fit reports, and what is known of a rotation that was kept."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from typing import Any

from funnelvec.types import Metric

__all__ = ["Comparison", "RotationReport", "RotationStatus"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One code behind the rotation, beside others of the same bytes.

    Attributes
    ----------
    resolution, bytes
        What it is, and the bytes of one code.
    fitted, truncated, random
        Mean share of the exact top 10 that is among the best 100: behind the rotation, of the
        first dimensions as they are, and of as many behind a random rotation.
    gain, margin
        ``fitted`` less the better of the other two, and two standard errors of that over queries.
    """

    resolution: str
    bytes: int
    fitted: float
    truncated: float
    random: float
    gain: float
    margin: float

    @property
    def recommended(self) -> bool:
        """Whether it beats both, by more than chance."""
        return self.gain > self.margin

    @property
    def verdict(self) -> str:
        """The same in words."""
        if self.recommended:
            return "recommended"
        other = "truncation" if self.truncated >= self.random else "a random rotation"
        how = "loses to" if self.gain < -self.margin else "no better than"
        return f"not recommended: {how} {other}"


@dataclass(frozen=True, slots=True)
class RotationReport:
    """What a fit found; ``str()`` gives a table.

    Attributes
    ----------
    rotation, kind, chain, metric, dims, width
        The rotation: from so many dimensions to so many.
    rows, queries
        What it was fitted on; no queries but for sphering.
    held_out
        Queries that were measured with, and not fitted on.
    fitted_on
        SHA-256 of the vectors that it was fitted on.
    comparisons
        What was measured, by width.
    kept
        Whether the rotation was kept; not in a dry run.
    """

    rotation: str
    kind: str
    chain: str | None
    metric: Metric
    dims: int
    width: int
    rows: int
    queries: int
    held_out: int
    fitted_on: str
    comparisons: tuple[Comparison, ...]
    kept: bool = False

    @property
    def recommended(self) -> bool:
        """Whether any code behind it beats truncation and a random rotation of the same bytes."""
        return any(each.recommended for each in self.comparisons)

    def as_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        found = asdict(self) | {"recommended": self.recommended}
        found["comparisons"] = [
            asdict(each) | {"verdict": each.verdict} for each in self.comparisons
        ]
        return found

    def __str__(self) -> str:
        """Tabulate the comparisons."""
        head = ("resolution", "bytes", "fitted", "truncated", "random", "")
        body = [
            (
                each.resolution,
                str(each.bytes),
                *(f"{share:.3f}" for share in (each.fitted, each.truncated, each.random)),
                each.verdict,
            )
            for each in self.comparisons
        ]
        widths = [max(len(row[place]) for row in (head, *body)) for place in range(len(head))]
        lines = [
            "  ".join(
                text.ljust(width) if place in (0, 5) else text.rjust(width)
                for place, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (head, *body)
        ]
        chain = f" > {self.chain}" if self.chain else ""
        return "\n".join(
            [
                f"rotation {self.rotation} ({self.kind}{chain}), {self.dims} to {self.width} "
                f"dimensions, fitted on {self.rows:,} rows"
                + (f" and {self.queries:,} queries" if self.queries else ""),
                f"share of the exact top 10 among the best 100, {self.held_out:,} other queries:",
                *lines,
                "" if self.kept else "nothing was kept (dry run)",
            ]
        ).rstrip()


@dataclass(frozen=True, slots=True)
class RotationStatus:
    """A rotation that was kept.

    Attributes
    ----------
    rotation, kind, dims, width, cuttable
        Its name, what it is, its widths, and whether resolutions may take fewer dimensions.
    metric, prefix_metric
        Of the column it was fitted for, and what its codes are compared by.
    recommended
        Whether it won when it was measured.
    rows, queries, fitted_on, fitted_at
        What it was fitted on, and when.
    used_by
        Resolutions that name it.
    """

    rotation: str
    kind: str
    dims: int
    width: int
    cuttable: bool
    metric: Metric
    prefix_metric: Metric
    recommended: bool
    rows: int
    queries: int
    fitted_on: str
    fitted_at: datetime.datetime
    used_by: tuple[str, ...]
