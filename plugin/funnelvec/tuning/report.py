"""What a tuning run found: the funnel, how sure that is, and what else there was."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Option", "TuningReport"]


@dataclass(frozen=True, slots=True)
class Option:
    """One funnel of the frontier.

    Attributes
    ----------
    funnel
        Its text.
    recall, low, high
        Share of the exact top k that it returns, with a 95 % interval where it was measured.
    milliseconds
        Median time of a search.
    memory, storage
        Bytes of index and codes that a search goes through, and bytes on disk beside the column.
    build
        Seconds to build what the table does not have; 0 where it has all.
    measured
        Whether the table was asked; else recall and time are the simulation's.
    index
        Settings of the first stage's index where they are not the usual ones.
    best
        Whether no other is at least as fast, as small and as good.
    """

    funnel: str
    recall: float
    low: float | None
    high: float | None
    milliseconds: float
    memory: int
    storage: int
    build: float
    measured: bool
    best: bool = False
    index: str = ""


@dataclass(frozen=True, slots=True)
class TuningReport:
    """What a tuning run chose and why; ``str()`` gives it as text.

    Attributes
    ----------
    funnel, name
        The funnel that was chosen, and what it is called; ``applied`` says whether it was made.
    target, k
        The recall that was asked for, among so many rows.
    recall, low, high, checked
        Recall of the funnel on queries that nothing was chosen by, its 95 % interval, and how
        many queries those are. In a dry run the simulation's, on the queries it chose by.
    met
        Whether `recall` reaches the target; with a budget of time, whether that is kept.
    latency
        The budget of time in milliseconds, None where there was none.
    milliseconds
        Median time of a search.
    runner_up, ratio, ratio_low, ratio_high
        The next best funnel of other stages, and our time over its, with a 95 % interval.
    losses
        For each stage, the share of true answers that is lost there, by the simulation.
    options
        The frontier and what lies near it.
    advice
        Why this funnel, and what more memory or more recall would cost, in sentences.
    source, queries
        Where the queries came from, and how many there were to choose by.
    index
        Settings of its index where they are not the usual ones, such as
        ``m 8, ef_construction 64``.
    built, dropped
        What was built and stays, and what was built and went again.
    certificate
        What is promised of the cutoff, where a miss budget was given.
    prices
        What the engine charges; see `funnelvec.tuning.cost.Prices`.
    notes
        What to know about these figures.
    """

    table: str
    vector: str
    engine: str
    rows: int
    sample: int
    name: str
    funnel: str
    target: float
    k: int
    recall: float
    low: float
    high: float
    checked: int
    met: bool
    milliseconds: float
    runner_up: str | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    losses: tuple[tuple[str, float], ...]
    options: tuple[Option, ...]
    advice: tuple[str, ...]
    source: str
    queries: int
    index: str = ""
    built: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    applied: bool = False
    dry_run: bool = False
    certificate: Any = None
    prices: Any = None
    notes: tuple[str, ...] = field(default=())
    seconds: float = 0.0
    latency: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values: what ``json.dumps`` takes."""
        found = asdict(self)
        for name in ("certificate", "prices"):
            value = getattr(self, name)
            found[name] = None if value is None else asdict(value)
        if found["certificate"] is not None:
            found["certificate"]["certified_at"] = self.certificate.certified_at.isoformat()
        return found

    def write_report(self, path: str | os.PathLike[str]) -> Path:
        """Write a page with the frontier, one HTML file that needs nothing else.

        Raises
        ------
        MissingDependency
            If the extra ``report`` is not installed.
        InvalidInput
            If the file cannot be written.
        """
        from funnelvec.tuning.page import write_page

        return write_page(self, path)

    def write_plot(self, path: str | os.PathLike[str]) -> Path:
        """Write the frontier as a picture; the ending says which kind: ``.png``, ``.svg``.

        Raises
        ------
        MissingDependency
            If the extra ``report`` is not installed.
        InvalidInput
            If the file cannot be written.
        """
        from funnelvec.tuning.page import write_plot

        return write_plot(self, path)

    @property
    def title(self) -> str:
        """The table and its column, as a line."""
        return f"{self.table}.{self.vector}: {self.rows:,} rows, {self.engine}"

    @property
    def verdict(self) -> str:
        """The choice as a line."""
        how = "simulated" if self.dry_run else f"on {self.checked:,} other queries"
        said = (
            f"'{self.funnel}': recall@{self.k} {self.recall:.4f} ({self.low:.4f} to "
            f"{self.high:.4f}, {how}), {self.milliseconds:.2f} ms"
        )
        if self.met:
            return said
        if self.latency is not None:
            return f"{said}; the budget of {self.latency:g} ms was missed"
        return f"{said}; the target {self.target:g} was missed"

    def __str__(self) -> str:
        lines = [self.title, self.verdict, ""]
        head = ("funnel", "recall", "95 %", "ms", "memory MB", "storage MB", "build s", "")
        body = [head, *map(_cells, self.options)]
        widths = [max(map(len, column)) for column in zip(*body, strict=True)]
        for row in body:
            cells = [
                text.ljust(width) if place in (0, 7) else text.rjust(width)
                for place, (text, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        lines += ["", *self.advice]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def _cells(option: Option) -> tuple[str, ...]:
    known = option.low is not None and option.high is not None
    return (
        option.funnel,
        f"{option.recall:.4f}",
        f"{option.low:.4f} to {option.high:.4f}" if known else "",
        f"{option.milliseconds:.2f}",
        f"{option.memory / 1e6:.1f}",
        f"{option.storage / 1e6:.1f}",
        f"{option.build:.0f}",
        "measured" if option.measured else "simulated",
    )
