"""What a run of `compare_peers` found, as values, as tables and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import Any

from funnelvec.bench.report import Section, Standing
from funnelvec.bench.stats import percentile, ratio

__all__ = ["BasisReport", "PeersReport"]


@dataclass(frozen=True, slots=True)
class BasisReport:
    """One basis: the best of each family, ours first; `tried` says what every recipe reached."""

    basis: str
    standings: tuple[Standing, ...]
    growth: Standing | None
    tried: tuple[tuple[str, str, float, float], ...]

    def sections(self, *, k: int, target: float) -> list[Section]:
        """The tables of this basis."""
        mine = self.standings[0]
        rows = []
        for each in self.standings:
            versus = None if each is mine else mine.over(each)
            rows.append(
                (
                    each.name,
                    f"{each.recall:.4f}" + ("" if each.recall >= target else " missed"),
                    f"{percentile(each.milliseconds, 0.5):.2f}",
                    f"{percentile(each.milliseconds, 0.95):.2f}",
                    f"{each.mapping_ms:.2f}" if each.mapping_ms else "",
                    f"{1000 / mean(each.milliseconds):,.0f}",
                    f"{each.index_bytes / 1e6:.1f}",
                    f"{each.total_bytes / 1e6:.1f}",
                    f"{sum(each.build_seconds):.1f}",
                    *(
                        ("", "", "")
                        if versus is None
                        else tuple(
                            _times(found)
                            for found in (
                                ratio(_rates(mine), _rates(each)),
                                ratio([each.index_bytes], [mine.index_bytes]),
                                ratio(each.build_seconds, mine.build_seconds),
                            )
                        )
                    ),
                )
            )
        head = (
            *("", f"recall@{k}", "p50 ms", "p95 ms", "mapping ms", "per second"),
            *("index MB", "total MB"),
            *("build s", "ours faster", "index smaller", "build faster"),
        )
        tried = tuple(
            (name, setting, f"{recall:.4f}", f"{ms:.2f}")
            for name, setting, recall, ms in self.tried
        )
        return [
            Section(f"Basis: {self.basis}", head, tuple(rows)),
            Section("Every recipe at its best", ("", "setting", f"recall@{k}", "p50 ms"), tried),
        ]


def _rates(each: Standing) -> list[float]:
    """Queries per second of one client, round by round."""
    return [1000 / mean(times.values()) for times in each.times]


def _times(found: Any) -> str:
    return "-" if found is None else found.text(1)


@dataclass(frozen=True, slots=True)
class PeersReport:
    """What one run found."""

    dataset: str
    note: str
    rows: int
    dims: int
    queries: int
    k: int
    target: float
    rounds: int
    grown_from: int | None
    bases: tuple[BasisReport, ...]
    notes: tuple[str, ...]
    seconds: float = 0.0

    def sections(self) -> list[Section]:
        """The tables, in the order to be read."""
        found = [
            section
            for each in self.bases
            for section in each.sections(k=self.k, target=self.target)
        ]
        growth = [
            (
                each.basis,
                f"{percentile(each.growth.milliseconds, 0.5):.2f}",
                f"{percentile(each.standings[0].milliseconds, 0.5):.2f}",
                _times(each.standings[0].over(each.growth).latency),
                f"{each.growth.recall:.4f}",
            )
            for each in self.bases
            if each.growth is not None
        ]
        if growth:
            head = (
                "basis",
                f"p50 ms, {self.grown_from:,} rows",
                f"{self.rows:,} rows",
                "grows by",
                f"recall@{self.k} of the small one",
            )
            found.append(Section("The same funnel on fewer rows", head, tuple(growth)))
        return found

    def lines(self) -> list[str]:
        """What to say below the tables."""
        return [
            f"data: {self.dataset}; {self.note}",
            f"{self.rows:,} rows x {self.dims:,} dimensions, {self.queries} queries in turns, "
            f"{self.rounds} rounds; each at the setting that reaches recall@{self.k} "
            f"{self.target:g} in the least median time, on the same queries; 'missed': no setting "
            "does, and this one finds most",
            "mapping: of a query by a fitted rotation, in Python, part of the times before it",
            "ratios: ours against that line, above 1 ours is better; per second: one client",
            *(f"note: {note}" for note in self.notes),
            f"{self.seconds:.0f} s in all",
        ]

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "format": 1,
            "data": {"name": self.dataset, "note": self.note, "rows": self.rows, "dims": self.dims},
            "queries": self.queries,
            "k": self.k,
            "target": self.target,
            "rounds": self.rounds,
            "tables": [
                {"title": each.title, "head": each.head, "rows": each.rows}
                for each in self.sections()
            ],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }
