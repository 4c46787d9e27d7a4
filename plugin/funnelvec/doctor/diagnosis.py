"""All findings about one table, with the figures behind them."""

from __future__ import annotations

import dataclasses
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from funnelvec.doctor.bits import Bits
from funnelvec.doctor.duplicates import Duplicates
from funnelvec.doctor.fit import Fit
from funnelvec.doctor.hubness import Hubness
from funnelvec.doctor.lid import Lid
from funnelvec.doctor.norms import Norms
from funnelvec.doctor.order import Order
from funnelvec.doctor.pairs import Pairs
from funnelvec.doctor.prefixes import Prefixes
from funnelvec.doctor.rank import Rank
from funnelvec.doctor.stages import Choice
from funnelvec.doctor.values import Finding, counted
from funnelvec.types import BaseCode, Metric

__all__ = ["Diagnosis", "Measures"]

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Measures:
    """The figures by topic; None where the rows were too few, or too alike."""

    norms: Norms
    duplicates: Duplicates
    pairs: Pairs | None
    rank: Rank | None
    prefixes: Prefixes | None
    stage: Choice | None
    bits: Bits | None
    lid: Lid | None
    hubness: Hubness | None
    order: Order | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found in a sample of one vector column; ``str()`` gives it as text.

    Attributes
    ----------
    table, vector
        Names of the table and the column; empty for plain arrays.
    dims, code, metric
        Width and code of the column, and what it is compared by.
    rows, rows_exact
        Rows of the table, and whether they were counted or are the database's estimate.
    sample, queries, seed
        Rows that were drawn, how many of them were asked for, and the seed of both.
    findings
        One per topic, in the order they are best read.
    measures
        The figures behind them.
    funnels
        Whether each funnel of the table still fits it; empty for plain arrays.
    """

    table: str
    vector: str
    dims: int
    code: BaseCode
    metric: Metric
    rows: int
    rows_exact: bool
    sample: int
    queries: int
    seed: int
    findings: tuple[Finding, ...]
    measures: Measures
    funnels: tuple[Fit, ...] = ()

    def finding(self, topic: str) -> Finding:
        """The finding of a topic, such as ``norms``.

        Raises
        ------
        KeyError
            If there is none.
        """
        for finding in self.findings:
            if finding.topic == topic:
                return finding
        raise KeyError(topic)

    def as_json(self) -> dict[str, Any]:
        """Plain values: what ``json.dumps`` takes."""
        return dataclasses.asdict(self)

    def write_report(self, path: str | os.PathLike[str]) -> Path:
        """Write a page with plots, one HTML file that needs nothing else; returns its path.

        Raises
        ------
        MissingDependency
            If the extra ``report`` is not installed.
        InvalidInput
            If the file cannot be written.
        """
        from funnelvec.doctor.report import write_page

        return write_page(self, path)

    @property
    def title(self) -> str:
        """The table and its column, as a line."""
        where = f"{self.table}.{self.vector}" if self.table else "vectors"
        return f"{where}: {self.dims} dimensions, {self.code}, {self.metric}"

    @property
    def basis(self) -> str:
        """What was looked at, as a line."""
        about = "" if self.rows_exact else "about "
        drawn = f"{self.sample:,} of {about}{counted(self.rows, 'row')}"
        return f"{drawn}, {self.queries:,} of them as queries, seed {self.seed}"

    def __str__(self) -> str:
        lines = [self.title, self.basis, ""]
        head = ("", "finding", "value [95 %]", "what it is")
        rows = [(_MARKS[f.level], f.title, f.shown(), f.unit) for f in self.findings]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        for row in (head, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
        for finding in self.findings:
            lines += ["", f"{_MARKS[finding.level]} {finding.title} ({finding.basis})".strip()]
            parts = (("", finding.found), ("normal: ", finding.normal), ("do: ", finding.advice))
            for label, text in parts:
                lines += textwrap.wrap(
                    label + text, _WIDTH, initial_indent="  ", subsequent_indent="  "
                )
        for fit in self.funnels:
            lines += ["", *fit.lines()]
        return "\n".join(lines)


_MARKS = {"fine": "ok", "note": "note", "problem": "PROBLEM"}
