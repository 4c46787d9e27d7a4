"""What a paper says beside what was measured here, as values, as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from funnelvec.bench.report import Section

__all__ = ["Finding", "PapersReport"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One table of one paper.

    Attributes
    ----------
    paper, source
        Its short name, and where it is published.
    title
        What was measured here, on which data.
    claim
        The figures of the paper that stand beside ours.
    head, rows
        The table; the first column is text, and one column says what the paper has.
    notes
        What bounds the comparison.
    """

    paper: str
    source: str
    title: str
    claim: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def section(self) -> Section:
        """The table to print."""
        return Section(f"{self.paper}: {self.title}", self.head, self.rows)


@dataclass(frozen=True, slots=True)
class PapersReport:
    """Everything that one run measured; `skipped` says what it could not, and why."""

    findings: tuple[Finding, ...]
    skipped: tuple[str, ...]
    seconds: float

    def sections(self) -> list[Section]:
        """The tables, in the order to be read."""
        return [each.section() for each in self.findings]

    def lines(self) -> list[str]:
        """What to say below the tables."""
        said = []
        for each in self.findings:
            said.append(f"{each.paper}, {each.source}. The paper: {each.claim}")
            said += [f"{each.paper}: {note}" for note in each.notes]
        return [
            *dict.fromkeys(said),
            *(f"skipped: {each}" for each in self.skipped),
            f"{self.seconds:.0f} s in all",
        ]

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "format": 1,
            "findings": [asdict(each) for each in self.findings],
            "skipped": list(self.skipped),
            "seconds": round(self.seconds, 1),
        }
