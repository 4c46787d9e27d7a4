"""What a run found, as values, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, TypeAlias

from funnelvec.bench.overhead import Overhead
from funnelvec.bench.stats import Ratio, percentile, ratio

__all__ = ["BenchReport", "Section", "Standing", "Times", "Versus", "standing_json"]

#: Milliseconds of each query in one round.
Times: TypeAlias = dict[int, float]


@dataclass(frozen=True, slots=True)
class Section:
    """A table to print: the first column is text, the others are numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """One contestant's figures; `times` per round, `build_seconds` per build.

    Attributes
    ----------
    mapping_ms
        What the client's mapping of one query takes of each time, where it maps.
    family
        What it stands for among the peers.
    recalls
        Recall on every build, where there were several.
    together
        Queries per second of several clients, round by round.
    pages
        Pages that a search reads, from memory or disk; None where nobody counted.
    load_seconds, rows
        What getting so many rows in took before anything was built; 0 where nobody asked.
    """

    name: str
    label: str
    ours: bool
    settings: str
    statement: str
    recall: float
    times: tuple[Times, ...]
    index_bytes: int
    total_bytes: int
    build_seconds: tuple[float, ...]
    mapping_ms: float = 0.0
    family: str = ""
    recalls: tuple[float, ...] = ()
    together: tuple[float, ...] = ()
    pages: float | None = None
    load_seconds: float = 0.0
    rows: int = 0

    @property
    def milliseconds(self) -> list[float]:
        """The times of all searches of all rounds."""
        return [time for each in self.times for time in each.values()]

    def over(self, other: Standing) -> Versus:
        """These figures divided by another's."""
        mine, theirs = [], []
        for a, b in zip(self.times, other.times, strict=True):
            # The same queries on both sides, as some contestants do not answer all of them.
            common = a.keys() & b.keys()
            mine.append(median(a[query] for query in common))
            theirs.append(median(b[query] for query in common))
        return Versus(
            name=other.name,
            latency=ratio(mine, theirs),
            index=ratio([self.index_bytes], [other.index_bytes]),
            total=ratio([self.total_bytes], [other.total_bytes]),
            build=ratio(self.build_seconds, other.build_seconds),
        )


@dataclass(frozen=True, slots=True)
class Versus:
    """One contestant's figures divided by those of `name`: below 1, smaller or faster."""

    name: str
    latency: Ratio | None
    index: Ratio | None
    total: Ratio | None
    build: Ratio | None


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Everything that one run measured, and the settings it was measured with."""

    dataset: str
    note: str
    rows: int
    dims: int
    queries: int
    k: int
    rounds: int
    server: dict[str, str]
    standings: tuple[Standing, ...]
    overheads: tuple[Overhead, ...]
    notes: tuple[str, ...]
    seconds: float = 0.0

    @property
    def ours(self) -> Standing:
        """The contestant that the others are compared with."""
        return next(standing for standing in self.standings if standing.ours)

    @property
    def full(self) -> tuple[Standing, ...]:
        """Full HNSW: at its default, and last as good as ours, where that is another setting."""
        return tuple(each for each in self.standings if not each.ours and each.index_bytes)

    @property
    def exact(self) -> Standing:
        """The one without an index."""
        return next(each for each in self.standings if not each.index_bytes)

    @property
    def builds(self) -> int:
        """How often each index was built."""
        return len(self.ours.build_seconds)

    @property
    def versus(self) -> tuple[Versus, ...]:
        """Ratios of ours to each of the others."""
        return tuple(self.ours.over(other) for other in self.standings if not other.ours)

    def sections(self) -> list[Section]:
        """The tables, in the order to be read."""
        found = [self._figures(), self._ratios()]
        return [*found, self._overhead()] if self.overheads else found

    def lines(self) -> list[str]:
        """What to say below the tables: data, settings, notes."""
        server = ", ".join(f"{name} {value}" for name, value in self.server.items())
        return [
            f"data: {self.dataset}; {self.note}",
            f"{self.rows:,} rows x {self.dims:,} dimensions, {self.queries} queries in turns, "
            f"{self.rounds} rounds after a warm-up; recall against one exact search in NumPy; "
            "times over the connection and back, vectors in binary, statements prepared",
            f"server: {server}",
            *(f"{each.name}: {each.settings}" for each in self.standings if each.settings),
            f"spread: lowest and highest of the rounds, and of the builds ({self.builds} each); "
            "sizes have none",
            *(f"note: {note}" for note in self.notes),
            f"{self.seconds:.0f} s in all",
        ]

    def as_json(self) -> dict[str, Any]:
        """The same for programs; times are medians per round, in milliseconds."""
        return {
            "format": 1,
            "data": {"name": self.dataset, "note": self.note, "rows": self.rows, "dims": self.dims},
            "queries": self.queries,
            "k": self.k,
            "rounds": self.rounds,
            "server": self.server,
            "contestants": [standing_json(each) for each in self.standings],
            "ratios": [_versus_json(each) for each in self.versus],
            "overhead": [_overhead_json(each) for each in self.overheads],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }

    def _figures(self) -> Section:
        head = ("", f"recall@{self.k}", "p50 ms", "p95 ms", "index MB", "total MB", "build s")
        rows = tuple(
            (
                each.name,
                f"{each.recall:.4f}",
                f"{percentile(each.milliseconds, 0.5):.2f}",
                f"{percentile(each.milliseconds, 0.95):.2f}",
                f"{each.index_bytes / 1e6:.1f}",
                f"{each.total_bytes / 1e6:.1f}",
                f"{median(each.build_seconds):.1f}" if each.build_seconds else "-",
            )
            for each in self.standings
        )
        return Section("Side by side", head, rows)

    def _ratios(self) -> Section:
        head = ("ours, as a multiple of", "latency", "index", "total", "build")
        rows = tuple(
            (each.name, *map(_shown, (each.latency, each.index, each.total, each.build)))
            for each in self.versus
        )
        return Section("Ratios (below 1: ours is faster or smaller)", head, rows)

    def _overhead(self) -> Section:
        head = ("", "function ms", "SQL ms", "difference ms", "ratio", "by CPU", "target", "")
        rows = tuple(
            (
                each.name,
                f"{each.function_ms:.3f}",
                f"{each.sql_ms:.3f}",
                f"{each.difference_ms:.3f}",
                each.ratio.text(3),
                "-" if each.cpu is None else each.cpu.text(3),
                f"<= {each.allowed_ms:.3f} ms",
                _verdict(each),
            )
            for each in self.overheads
        )
        return Section("Overhead of the function over the SQL in it", head, rows)


def _shown(value: Ratio | None) -> str:
    return "-" if value is None else value.text()


def _verdict(each: Overhead) -> str:
    if not each.same:
        return "miss: rows differ"
    return "pass" if each.passed else "miss"


def standing_json(each: Standing) -> dict[str, Any]:
    """One contestant's figures for programs; times are medians per round, in milliseconds."""
    return {
        "name": each.name,
        "ours": each.ours,
        "settings": each.settings,
        "statement": each.statement,
        "recall": round(each.recall, 6),
        "searches": len(each.milliseconds),
        "p50_ms": round(percentile(each.milliseconds, 0.5), 4),
        "p95_ms": round(percentile(each.milliseconds, 0.95), 4),
        "p50_ms_per_round": [round(median(times.values()), 4) for times in each.times],
        "index_bytes": each.index_bytes,
        "total_bytes": each.total_bytes,
        "build_seconds": [round(seconds, 3) for seconds in each.build_seconds],
    }


def _versus_json(each: Versus) -> dict[str, Any]:
    parts: Sequence[tuple[str, Ratio | None]] = (
        ("latency", each.latency),
        ("index", each.index),
        ("total", each.total),
        ("build", each.build),
    )
    return {"against": each.name, **{name: part and part.as_json() for name, part in parts}}


def _overhead_json(each: Overhead) -> dict[str, Any]:
    cpu = each.cpu and each.cpu.as_json()
    return {**asdict(each), "ratio": each.ratio.as_json(), "cpu": cpu, "passed": each.passed}
