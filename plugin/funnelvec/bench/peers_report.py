"""What a run of `compare_peers` found, as values, as tables and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from funnelvec.bench.knobs import Setting, Traces, traces_json
from funnelvec.bench.report import Section, Standing, standing_json
from funnelvec.bench.stats import Ratio, percentile, ratio

__all__ = ["BasisReport", "PeersReport", "Reading", "rate_ratio"]


@dataclass(frozen=True, slots=True)
class Reading:
    """Reading the codes of our first stage once from end to end, with one core.

    Attributes
    ----------
    resolution
        What is read.
    bytes
        Of all rows.
    rates
        Bytes a second at which memory was read, round by round.
    """

    resolution: str
    bytes: int
    rates: tuple[float, ...]

    @property
    def milliseconds(self) -> list[float]:
        """What it takes, round by round."""
        return [1000 * self.bytes / rate for rate in self.rates]


@dataclass(frozen=True, slots=True)
class BasisReport:
    """One basis: the best of each family, ours first.

    Attributes
    ----------
    growth
        The best funnel on fewer rows, where that was asked for.
    tried
        What every recipe reached at its best: name, setting, recall, median milliseconds.
    traces
        Name, family and everything that was measured while the knobs were turned.
    bounds, reading
        What is possible at all: a library in this process, and memory read once.
    """

    basis: str
    standings: tuple[Standing, ...]
    growth: Standing | None
    tried: tuple[tuple[str, str, float, float], ...]
    traces: Traces[Setting] = ()
    bounds: tuple[Standing, ...] = ()
    reading: Reading | None = None

    def sections(self, *, k: int, target: float, clients: int) -> list[Section]:
        """The tables of this basis."""
        tried = tuple(
            (name, setting, f"{recall:.4f}", f"{ms:.2f}")
            for name, setting, recall, ms in self.tried
        )
        return [
            self._figures(k, target, clients),
            self._ratios(clients),
            self._bounds(k),
            Section("Every recipe at its best", ("", "setting", f"recall@{k}", "p50 ms"), tried),
        ]

    def _figures(self, k: int, target: float, clients: int) -> Section:
        together = (f"{clients} clients",) if clients > 1 else ()
        head = (
            *("", f"recall@{k}", "p50 ms", "p95 ms", "mapping ms", "per second"),
            *together,
            *("pages", "index MB", "total MB", "build s", "rows loaded/s"),
        )
        rows = []
        for each in self.standings:
            missed = "" if each.recall >= target else " missed"
            rows.append(
                (
                    each.name,
                    _spread(each.recalls or (each.recall,), 4) + missed,
                    f"{percentile(each.milliseconds, 0.5):.2f}",
                    f"{percentile(each.milliseconds, 0.95):.2f}",
                    f"{each.mapping_ms:.2f}" if each.mapping_ms else "",
                    f"{1000 / mean(each.milliseconds):,.0f}",
                    *([f"{median(each.together):,.0f}"] if clients > 1 else []),
                    "-" if each.pages is None else f"{each.pages:,.0f}",
                    f"{each.index_bytes / 1e6:.1f}" if each.index_bytes else "-",
                    f"{each.total_bytes / 1e6:.1f}",
                    _spread(each.build_seconds, 1) if each.build_seconds else "-",
                    _load_rate(each),
                )
            )
        return Section(f"Basis: {self.basis}", head, tuple(rows))

    def _ratios(self, clients: int) -> Section:
        mine = self.standings[0]
        head = (
            *("ours against", "ours faster"),
            *((f"faster, {clients} clients",) if clients > 1 else ()),
            *("fewer pages", "index smaller", "total smaller", "build faster"),
        )
        rows = tuple(
            (
                each.name,
                _times(rate_ratio(mine, each)),
                *([_times(ratio(mine.together, each.together))] if clients > 1 else []),
                _times(ratio(_some(each.pages), _some(mine.pages))),
                _times(ratio(_some(each.index_bytes), [mine.index_bytes])),
                _times(ratio([each.total_bytes], [mine.total_bytes])),
                _times(ratio(each.build_seconds, mine.build_seconds)),
            )
            for each in self.standings[1:]
        )
        return Section("Ratios (above 1: ours is better)", head, rows)

    def _bounds(self, k: int) -> Section:
        mine = self.standings[0]
        head = ("bound", f"recall@{k}", "p50 ms", "index MB", "build s", "ours takes")
        rows = [
            (
                each.name,
                f"{each.recall:.4f}",
                f"{percentile(each.milliseconds, 0.5):.2f}",
                f"{each.index_bytes / 1e6:.1f}",
                _spread(each.build_seconds, 1),
                _times(mine.over(each).latency),
            )
            for each in self.bounds
        ]
        if self.reading is not None:
            gigabytes = median(self.reading.rates) / 1e9
            taken = self.reading.milliseconds
            medians = [median(times.values()) for times in mine.times]
            rows.append(
                (
                    f"reading all {self.reading.resolution} once "
                    f"({self.reading.bytes / 1e6:.1f} MB at {gigabytes:.1f} GB/s, one core)",
                    "-",
                    f"{median(taken):.2f}",
                    "-",
                    "-",
                    _times(ratio(medians, taken)),
                )
            )
        return Section("Bounds", head, tuple(rows))

    def as_json(self) -> dict[str, Any]:
        """The figures of this basis for programs."""
        return {
            "basis": self.basis,
            "contestants": [_json(each) for each in self.standings],
            "bounds": [_json(each) for each in self.bounds],
            "reading": self.reading
            and {
                "resolution": self.reading.resolution,
                "bytes": self.reading.bytes,
                "bytes_per_second": [round(rate) for rate in self.reading.rates],
            },
            "tried": traces_json(self.traces),
        }


def rate_ratio(mine: Standing, other: Standing) -> Ratio | None:
    """Queries per second of one client, ours by theirs, over the queries that both answered."""
    ours, theirs = [], []
    for a, b in zip(mine.times, other.times, strict=True):
        common = a.keys() & b.keys()
        ours.append(1000 / mean(a[query] for query in common))
        theirs.append(1000 / mean(b[query] for query in common))
    return ratio(ours, theirs)


def _some(value: float | None) -> list[float]:
    return [value] if value else []


def _load_rate(each: Standing) -> str:
    seconds = each.load_seconds + median(each.build_seconds or (0.0,))
    return f"{each.rows / seconds:,.0f}" if each.rows and seconds else "-"


def _spread(values: tuple[float, ...], digits: int) -> str:
    shown = f"{median(values):.{digits}f}"
    if len(values) == 1:
        return shown
    return f"{shown} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _times(found: Ratio | None) -> str:
    return "-" if found is None else found.text(1)


def _json(each: Standing) -> dict[str, Any]:
    return {
        **standing_json(each),
        "family": each.family,
        "recalls": [round(recall, 6) for recall in each.recalls],
        "queries_per_second": round(1000 / mean(each.milliseconds), 2),
        "queries_per_second_together": [round(rate, 2) for rate in each.together],
        "pages": each.pages,
        "mapping_ms": round(each.mapping_ms, 4),
        "load_seconds": round(each.load_seconds, 3),
    }


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
    builds: int
    clients: int
    grown_from: int | None
    bases: tuple[BasisReport, ...]
    notes: tuple[str, ...]
    seconds: float = 0.0

    def sections(self) -> list[Section]:
        """The tables, in the order to be read."""
        found = [
            section
            for each in self.bases
            for section in each.sections(k=self.k, target=self.target, clients=self.clients)
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
        several = f", {self.builds} builds of each with all rounds on every one"
        return [
            f"data: {self.dataset}; {self.note}",
            f"{self.rows:,} rows x {self.dims:,} dimensions, {self.queries} queries in turns, "
            f"{self.rounds} rounds{several if self.builds > 1 else ''}; each at the setting that "
            f"reaches recall@{self.k} {self.target:g} in the least median time, on the same "
            "queries; 'missed': no setting does, and this one finds most",
            "mapping: of a query by a fitted rotation, in Python, part of the times before it; "
            "pages: of 8 kB, read by a search from memory or disk; rows loaded: with the index",
            "ratios: ours against that line, above 1 ours is better; per second: one client",
            "bounds: not peers; a library has no rows, no transactions and nobody to ask over a "
            "connection, and reading once is what skips nothing",
            *(f"note: {note}" for note in self.notes),
            f"{self.seconds:.0f} s in all",
        ]

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "format": 2,
            "data": {"name": self.dataset, "note": self.note, "rows": self.rows, "dims": self.dims},
            "queries": self.queries,
            "k": self.k,
            "target": self.target,
            "rounds": self.rounds,
            "builds": self.builds,
            "clients": self.clients,
            "bases": [each.as_json() for each in self.bases],
            "tables": [
                {"title": each.title, "head": each.head, "rows": each.rows}
                for each in self.sections()
            ],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }
