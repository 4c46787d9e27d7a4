"""What a run of `bench.windows` found, as values, as tables and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from funnelvec.bench.report import Section
from funnelvec.bench.stats import Ratio

__all__ = ["MOST", "IndexCost", "WindowReport", "WindowRow"]

#: The most rows that one scan of pgvector's HNSW can return.
MOST = 1000


@dataclass(frozen=True, slots=True)
class WindowRow:
    """All cases of one width: median milliseconds and mean recall of each way.

    `share` is the mean share of the rows that match. `ways` counts how our first stage went about
    it: by a window, by the index of all rows, or comparing all rows that match.
    """

    aim: float
    share: float
    cases: int
    windows_ms: float
    without_ms: float
    post_ms: float
    iterative_ms: float
    windows_recall: float
    without_recall: float
    post_recall: float
    iterative_recall: float
    oversampled: int
    ways: dict[str, int]
    versus_without: Ratio | None
    versus_post: Ratio | None
    versus_iterative: Ratio | None


@dataclass(frozen=True, slots=True)
class IndexCost:
    """What was built: seconds and bytes."""

    name: str
    count: int
    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class WindowReport:
    """Everything that one run found."""

    dataset: str
    rows: int
    dims: int
    funnel: str
    k: int
    rounds: int
    measured: tuple[WindowRow, ...]
    built: tuple[IndexCost, ...]

    def sections(self) -> tuple[Section, Section]:
        """The tables to print."""
        head = (
            *("range holds", "cases", "windows ms", "without ms", "post ms", "iterative ms"),
            *("recall", "without", "post", "iterative"),
            *("to without", "to post", "to iterative", "by way of"),
        )
        rows = tuple(
            (
                f"{each.share:.2%}",
                str(each.cases),
                f"{each.windows_ms:.2f}",
                f"{each.without_ms:.2f}",
                f"{each.post_ms:.2f}",
                f"{each.iterative_ms:.2f}",
                f"{each.windows_recall:.3f}",
                f"{each.without_recall:.3f}",
                f"{each.post_recall:.3f}",
                f"{each.iterative_recall:.3f}",
                _text(each.versus_without),
                _text(each.versus_post),
                _text(each.versus_iterative),
                ", ".join(f"{count} {way}" for way, count in sorted(each.ways.items())),
            )
            for each in self.measured
        )
        costs = tuple(
            (each.name, str(each.count), f"{each.seconds:.1f}", f"{each.bytes / 1e6:.1f}")
            for each in self.built
        )
        return (
            Section(f"Ranges: recall@{self.k} and time", head, rows),
            Section("What was built", ("index", "number", "seconds", "MB"), costs),
        )

    def lines(self) -> list[str]:
        """What to say below the tables."""
        least = min(each.windows_recall for each in self.measured)
        return [
            f"data: {self.dataset}; {self.rows:,} rows x {self.dims:,} dimensions, "
            f"{self.rounds} rounds; k {self.k}; funnel {self.funnel}; least recall of ours "
            f"{least:.3f}",
            "without: the same funnel on a table without windows",
            "post: full HNSW, the nearest 2 k / share of the rows (at most "
            f"{MOST:,}, all that one scan returns), then the filter",
            "iterative: full HNSW with hnsw.iterative_scan = relaxed_order, its list as long as "
            "our first keep, the planner free to go by the index on the column",
            "each ratio is of medians, windows to another, round by round; the column of the range "
            "has a B-tree index",
        ]

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        rows = [
            {
                **asdict(each),
                "versus_without": each.versus_without and each.versus_without.as_json(),
                "versus_post": each.versus_post and each.versus_post.as_json(),
                "versus_iterative": each.versus_iterative and each.versus_iterative.as_json(),
            }
            for each in self.measured
        ]
        return {**asdict(self), "format": 1, "measured": rows}


def _text(value: Ratio | None) -> str:
    return "-" if value is None else value.text()
