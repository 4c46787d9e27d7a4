"""Whether a funnel still fits its table: what the doctor says of each, beside the vectors."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

from funnelvec.doctor.values import counted, share

__all__ = ["Fit", "Found", "Tuned"]

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a tuning run found of a funnel, kept beside it.

    Attributes
    ----------
    target, k
        The recall that was asked for, among so many rows.
    recall, low, high
        What was found on the checking queries, with its 95 % interval.
    rows
        Rows of the table then.
    at
        When, in ISO form.
    """

    target: float
    k: int
    recall: float
    low: float
    high: float
    rows: int
    at: str


@dataclass(frozen=True, slots=True)
class Found:
    """How much a funnel finds of the exact top k of some rows, each left out of its own answer.

    Attributes
    ----------
    queries
        How many rows were asked for; 0 where recall could not be measured.
    rows, since, decided
        Of rows that came since a tuning run: how many of how many, and how that was decided. None
        where it was not asked, or cannot be told.
    ms
        Mean milliseconds of a query, the exact search included.
    """

    recall: float | None = None
    low: float | None = None
    high: float | None = None
    queries: int = 0
    rows: int | None = None
    since: int | None = None
    decided: str | None = None
    ms: float | None = field(default=None, compare=False)

    def __str__(self) -> str:
        if self.recall is None or self.low is None or self.high is None:
            return "not measured"
        return f"{self.recall:.4f} ({self.low:.4f} to {self.high:.4f}, {self.queries} rows)"


@dataclass(frozen=True, slots=True)
class Fit:
    """One funnel of the table.

    Attributes
    ----------
    tuned
        What the tuning run found; None where it was made in another way.
    everywhere, recent
        Recall on rows of the whole table, and on those that came since the run (without one: on
        the newest tenth).
    coverage
        Of the stages but the last: the share of rows that have its code.
    advice
        What is to be done, a sentence each; empty where it fits.
    notes
        What could not be told, and why.
    """

    name: str
    funnel: str
    tuned: Tuned | None = None
    everywhere: Found = field(default_factory=Found)
    recent: Found = field(default_factory=Found)
    coverage: Mapping[str, float] = field(default_factory=dict)
    advice: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def since(self) -> float | None:
        """Share of the rows that came since the tuning run; None where that is not known."""
        if self.tuned is None or self.recent.since is None or not self.recent.rows:
            return None
        return self.recent.since / self.recent.rows

    def lines(self) -> list[str]:
        """What is printed of it."""
        found = [f"{'LOOK' if self.advice else 'ok'} funnel {self.name}: '{self.funnel}'"]
        said = []
        if self.tuned is not None:
            said.append(
                f"tuned {self.tuned.at} for recall@{self.tuned.k} {self.tuned.target:g}, with "
                f"{counted(self.tuned.rows, 'row')}: {self.tuned.recall:.4f}"
            )
        if self.since is not None:
            said.append(f"rows since: {share(self.since)} ({self.recent.decided})")
        if self.everywhere.queries:
            said.append(f"recall on rows of all: {self.everywhere}")
        if self.recent.queries:
            which = "on rows since" if self.tuned is not None else "on the newest tenth"
            how = "" if self.tuned is not None else f"; {self.recent.decided}"
            said.append(f"recall {which}: {self.recent}{how}")
        missing = {name: part for name, part in self.coverage.items() if part < 1}
        said += [f"rows with a code of {name}: {share(part)}" for name, part in missing.items()]
        said += [f"note: {note}" for note in self.notes]
        said += [f"do: {advice}" for advice in self.advice]
        for text in said:
            found += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")
        return found
