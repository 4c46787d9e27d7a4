"""What a run of `compare_edge` found, as values, as tables and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from funnelvec.bench.edge_recipes import FULL, OURS, Setting
from funnelvec.bench.edge_worker import Built
from funnelvec.bench.knobs import Traces, traces_json
from funnelvec.bench.layers import Layer
from funnelvec.bench.report import Section
from funnelvec.bench.stats import Ratio, percentile, ratio

__all__ = ["TARGETS", "EdgeBasis", "EdgeReport", "EdgeStanding"]

#: What was set out to be reached: against full vectors, and against the best quantization.
TARGETS = {"faster": 5.0, "smaller": 3.0, "sooner": 3.0, "faster than quantization": 1.4}


@dataclass(frozen=True, slots=True)
class EdgeStanding:
    """One contestant's figures; `times` are milliseconds of every query, round by round."""

    name: str
    family: str
    setting: str
    recall: float
    times: tuple[tuple[float, ...], ...]
    cpu_seconds: tuple[float, ...]
    memory: tuple[int, int]
    built: Built

    @property
    def ours(self) -> bool:
        """Whether it is a funnel."""
        return self.family == OURS

    @property
    def label(self) -> str:
        """Its name where there is little room."""
        return self.name

    @property
    def milliseconds(self) -> list[float]:
        """The times of all searches of all rounds."""
        return [time for each in self.times for time in each]

    @property
    def rates(self) -> list[float]:
        """Queries per second of one client, round by round."""
        return [1000 / mean(each) for each in self.times]

    @property
    def resident(self) -> int:
        """Resident bytes."""
        return sum(self.memory)


@dataclass(frozen=True, slots=True)
class EdgeBasis:
    """One basis: the best of each family, ours first.

    `tried` says what every recipe reached at its best, `traces` (name, family, settings) what it
    reached while its knobs were turned.
    """

    basis: str
    standings: tuple[EdgeStanding, ...]
    tried: tuple[tuple[str, str, float, float, float], ...]
    traces: Traces[Setting] = ()

    @property
    def ours(self) -> EdgeStanding:
        """The funnel."""
        return self.standings[0]

    def sections(self, *, k: int, target: float) -> list[Section]:
        """The tables of this basis."""
        rows = [self._row(each, target) for each in self.standings]
        head = (
            *("", "setting", f"recall@{k}", "p50 ms", "p95 ms", "per second", "per CPU s"),
            *("resident MB", "disk MB", "load s", "index s"),
            *("ours faster", "per CPU s", "memory smaller", "ready sooner"),
        )
        tried = tuple(
            (name, setting, f"{recall:.4f}", f"{ms:.2f}", f"{seconds:.1f}")
            for name, setting, recall, ms, seconds in self.tried
        )
        return [
            Section(f"Basis: {self.basis}", head, tuple(rows)),
            Section(
                "Every recipe at its best",
                ("", "setting", f"recall@{k}", "p50 ms", "load and index s"),
                tried,
            ),
        ]

    def _row(self, each: EdgeStanding, target: float) -> tuple[str, ...]:
        versus = () if each is self.ours else self.versus(each)
        return (
            each.name,
            each.setting,
            f"{each.recall:.4f}" + ("" if each.recall >= target else " missed"),
            f"{percentile(each.milliseconds, 0.5):.3f}",
            f"{percentile(each.milliseconds, 0.95):.3f}",
            f"{mean(each.rates):,.0f}",
            f"{len(each.times[0]) / mean(each.cpu_seconds):,.0f}",
            f"{each.resident / 1e6:.0f}",
            f"{each.built.disk_bytes / 1e6:.0f}",
            f"{each.built.load_seconds:.1f}",
            f"{each.built.index_seconds:.1f}",
            *(("",) * 4 if not versus else tuple(_shown(found) for found in versus)),
        )

    def versus(self, each: EdgeStanding) -> tuple[Ratio | None, ...]:
        """Rates by the clock and by the CPU, memory, and time until ready: ours better."""
        mine = self.ours
        return (
            ratio(mine.rates, each.rates),
            ratio(each.cpu_seconds, mine.cpu_seconds),
            ratio([each.resident], [mine.resident]),
            ratio([each.built.seconds], [mine.built.seconds]),
        )

    def verdicts(self) -> list[str]:
        """Which targets are reached."""
        full = next(each for each in self.standings if each.family == FULL)
        faster, _, smaller, sooner = self.versus(full)
        others = [
            found[0]
            for each in self.standings
            if each.family not in (FULL, self.ours.family) and (found := self.versus(each))
        ]
        best = min((each for each in others if each is not None), key=lambda e: e.value)
        checked = (
            ("times the queries per second of full HNSW", faster, TARGETS["faster"]),
            ("times less resident memory", smaller, TARGETS["smaller"]),
            ("times sooner ready", sooner, TARGETS["sooner"]),
            (
                "times the queries per second of the best quantization",
                best,
                TARGETS["faster than quantization"],
            ),
        )
        return [
            f"{self.basis}: {_shown(found)} {what}, target {target:g}: "
            + ("reached" if found is not None and found.value >= target else "missed")
            for what, found, target in checked
        ]


def _shown(found: Ratio | None) -> str:
    return "-" if found is None else found.text(1)


@dataclass(frozen=True, slots=True)
class EdgeReport:
    """What one run found."""

    dataset: str
    note: str
    rows: int
    dims: int
    queries: int
    k: int
    target: float
    rounds: int
    bases: tuple[EdgeBasis, ...]
    layers: tuple[Layer, ...]
    seconds: float = 0.0

    def sections(self) -> list[Section]:
        """The tables, in the order to be read."""
        found = [
            section
            for each in self.bases
            for section in each.sections(k=self.k, target=self.target)
        ]
        rows = tuple(each.row() for each in self.layers)
        return [*found, Section("What this package costs over the same request", Layer.HEAD, rows)]

    def lines(self) -> list[str]:
        """What to say below the tables."""
        return [
            *(line for each in self.bases for line in each.verdicts()),
            *(each.verdict() for each in self.layers),
            f"data: {self.dataset}; {self.note}",
            f"{self.rows:,} rows x {self.dims:,} dimensions, {self.queries} queries in turns, "
            f"{self.rounds} rounds, Edge with one thread; each at the setting that reaches "
            f"recall@{self.k} {self.target:g} in the least median time, on the same queries; "
            "'missed': no setting does, and this one finds most",
            "ratios: above 1 ours is better; resident: in a fresh process that has asked every "
            "query, beyond one that has opened nothing; ready: from an empty folder to the last "
            "index, which load builds where a resolution has been declared before it",
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
            "targets": TARGETS,
            "bases": [
                {
                    "basis": basis.basis,
                    "standings": [
                        {
                            **asdict(each),
                            "per_second": mean(each.rates),
                            "ours_better": {
                                name: None if found is None else found.as_json()
                                for name, found in zip(
                                    ("rate", "cpu_rate", "memory", "ready"),
                                    basis.versus(each),
                                    strict=True,
                                )
                            },
                        }
                        for each in basis.standings
                    ],
                    "tried": [
                        dict(zip(("name", "setting", "recall", "ms", "seconds"), each, strict=True))
                        for each in basis.tried
                    ],
                    "traces": traces_json(basis.traces),
                }
                for basis in self.bases
            ],
            "layers": [each.as_json() for each in self.layers],
            "seconds": round(self.seconds, 1),
        }
