"""What `compare_tuning` reports: the tuner's choice beside the best of a grid."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from funnelvec.bench.report import Section
from funnelvec.bench.stats import Ratio

__all__ = ["Cell", "Repeats", "TuneBasis", "TuneBench"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One funnel of the grid: recall and median time over the same queries."""

    funnel: str
    recall: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Repeats:
    """Choosing again with other queries, by simulation.

    Attributes
    ----------
    count, queries, fresh
        How often; with how many queries to choose, and as many to check; how many were fresh.
    inside, above, reached
        In how many the fresh recall was in the interval that was stated, above its lower limit,
        and at least the target.
    """

    count: int
    inside: int
    above: int
    reached: int
    queries: int
    fresh: int


@dataclass(frozen=True, slots=True)
class TuneBasis:
    """One basis: the tuner's funnel, the best of the grid, and how long both took.

    Attributes
    ----------
    chosen, best
        The tuner's funnel on the grid's queries; the fastest of the grid that finds as much on
        queries that it was not picked by.
    latency
        The tuner's median time over the best of the grid's, in turns, by rounds.
    luckiest, untested
        The fastest that finds as much on the grid's own queries, and our time over its: of
        thousands of settings some find more there than they do elsewhere.
    held, fresh, tried
        What the tuner's funnel finds of the other queries, how many these are, and how many
        settings were asked them.
    """

    basis: str
    funnel: str
    recall: float
    low: float
    high: float
    checked: int
    met: bool
    chosen: Cell
    best: Cell
    latency: Ratio | None
    luckiest: Cell
    untested: Ratio | None
    held: float
    fresh: int
    tried: int
    tune_seconds: float
    grid_seconds: float
    build_seconds: float
    settings: int
    repeats: Repeats | None
    grid: tuple[Cell, ...] = ()

    @property
    def share(self) -> float:
        """The tuner's time over the grid's."""
        return self.tune_seconds / self.grid_seconds


@dataclass(frozen=True, slots=True)
class TuneBench:
    """The tuner beside an exhaustive grid, in each basis; a `coarse` one has every third keep."""

    dataset: str
    rows: int
    dims: int
    queries: int
    k: int
    target: float
    rounds: int
    bases: tuple[TuneBasis, ...]
    seconds: float
    coarse: bool = False

    def sections(self) -> list[Section]:
        """Tables to print."""
        head = (
            "basis", "funnel", f"recall@{self.k} stated", "on fresh queries",
            "best of the grid", "its recall", "ours / its", "tune s", "grid s", "settings", "share",
        )  # fmt: skip
        rows = tuple(
            (
                each.basis, each.funnel, f"{each.recall:.4f} ({each.low:.4f} to {each.high:.4f})",
                f"{each.held:.4f}", each.best.funnel, f"{each.best.recall:.4f}",
                "" if each.latency is None else each.latency.text(),
                f"{each.tune_seconds:.0f}", f"{each.grid_seconds:.0f}", str(each.settings),
                f"{each.share:.3f}",
            )
            for each in self.bases
        )  # fmt: skip
        found = [Section(f"Tuner and grid: {self.dataset}, {self.rows:,} rows", head, rows)]
        picked: tuple[str, ...] = ("basis", "fastest by the grid's own queries", "its recall there")
        picked += ("ours there", "ours / its", "asked other queries", "fresh queries")
        lines = tuple(
            (
                each.basis, each.luckiest.funnel, f"{each.luckiest.recall:.4f}",
                f"{each.chosen.recall:.4f}",
                "" if each.untested is None else each.untested.text(), str(each.tried),
                str(each.fresh),
            )
            for each in self.bases
        )  # fmt: skip
        found.append(Section("Picked, and not yet asked other queries", picked, lines))
        repeats = [
            (
                each.basis, str(each.repeats.count), str(each.repeats.queries),
                str(each.repeats.fresh),
                str(each.repeats.inside), str(each.repeats.above), str(each.repeats.reached),
            )
            for each in self.bases
            if each.repeats is not None
        ]  # fmt: skip
        if repeats:
            titles: tuple[str, ...] = ("basis", "repeats", "to check", "fresh queries")
            titles += ("fresh recall in the interval", "above its lower limit")
            titles += (f"at least {self.target:g}",)
            found.append(Section("Fresh queries", titles, tuple(repeats)))
        return found

    def lines(self) -> list[str]:
        """What was met and what was not, in words."""
        said = []
        for each in self.bases:
            fast = each.latency is not None and each.latency.value <= 1.1
            told = "met" if fast else "missed"
            if each.latency is None or not each.latency.stable:
                told = "not told, since the ratio is no steadier than it is large"
            soon = "met" if each.share <= 0.1 else "missed"
            if self.coarse:
                soon = "not told by a coarse grid"
            said.append(
                f"{each.basis}: within 10 % of the best: {told}; at most a tenth of the grid's "
                f"time: {soon}; recall {'met' if each.met else 'missed'}"
            )
        if self.coarse:
            said.append("the grid has every third keep; --rows 3000 has it take every one")
        return [*said, f"{self.seconds:.0f} s in all"]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        found = asdict(self)
        for shown, each in zip(found["bases"], self.bases, strict=True):
            for name in ("latency", "untested"):
                value = getattr(each, name)
                shown[name] = None if value is None else value.as_json()
        return found
