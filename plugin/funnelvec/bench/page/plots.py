"""Plots of measurements: recall against time, sizes and builds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from funnelvec.bench.edge_report import EdgeBasis, EdgeReport, EdgeStanding
from funnelvec.bench.knobs import S, Traces, Tried
from funnelvec.bench.peers_report import PeersReport
from funnelvec.bench.report import BenchReport, Standing
from funnelvec.bench.stats import percentile
from funnelvec.bench.tuning_report import TuneBasis, TuneBench
from funnelvec.pages.drawing import BLUE, GREY, ORANGE, TEXT

__all__ = ["Drawn", "figures", "frontier"]

#: Told apart on white and on black; every family has a marker of its own, too.
_COLOURS = (BLUE, ORANGE, "#4a9e5c", "#b04ac2", "#c23b3b", "#8c6d4f", "#2aa5a5", "#a08a1a", GREY)
_MARKERS = "osD^vP*Xh"


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A figure, a name for it in file names, its title, and what it shows in words."""

    topic: str
    title: str
    figure: Figure
    alt: str


@dataclass(frozen=True, slots=True)
class _Mark:
    """A contestant where it was measured in turns."""

    family: str
    name: str
    ms: float
    recall: float


def figures(report: object) -> Iterator[Drawn]:
    """Draw what a report holds; one without plots gives none."""
    if isinstance(report, PeersReport):
        for basis in report.bases:
            marks = _marks((*basis.standings, *basis.bounds))
            yield _recall(basis.basis, basis.traces, marks, k=report.k, target=report.target)
            # Bounds stay out: a library would make bars of all others too short to compare.
            yield _standings(
                basis.standings, f"{basis.basis} basis", basis.basis, clients=report.clients
            )
    elif isinstance(report, BenchReport):
        yield _standings(report.standings, "side by side", "search", clients=1)
    elif isinstance(report, EdgeReport):
        for edge in report.bases:
            marks = _marks(edge.standings)
            yield _recall(edge.basis, edge.traces, marks, k=report.k, target=report.target)
            yield _edge(edge)
    elif isinstance(report, TuneBench):
        for tuned in report.bases:
            yield _grid(tuned, k=report.k, target=report.target)


def _marks(standings: Sequence[Standing] | Sequence[EdgeStanding]) -> list[_Mark]:
    return [
        _Mark(each.family, each.name, percentile(each.milliseconds, 0.5), each.recall)
        for each in standings
    ]


def frontier(tried: Sequence[Tried[S]]) -> list[Tried[S]]:
    """Those that nobody beats in both: faster ones first, each finding more than the last."""
    best: list[Tried[S]] = []
    for each in sorted(tried, key=lambda one: (one.ms, -one.recall)):
        if not best or each.recall > best[-1].recall:
            best.append(each)
    return best


def _recall(
    basis: str,
    traces: Traces[S],
    marks: Sequence[_Mark],
    *,
    k: int,
    target: float,
) -> Drawn:
    """Every setting that was tried, the first of the marks as ours."""
    families: dict[str, list[Tried[S]]] = {}
    for _, family, trace in traces:
        families.setdefault(family, []).extend(trace)
    figure, axes = _plane(k, target, low=min(each.recall for each in marks))
    for number, (family, tried) in enumerate(families.items()):
        line = frontier(tried)
        axes.plot(
            [each.ms for each in line],
            [each.recall for each in line],
            f"{_MARKERS[number % len(_MARKERS)]}-",
            color=_COLOURS[number % len(_COLOURS)],
            label=family,
            linewidth=2.6 if not number else 1.4,
            markersize=4,
            markerfacecolor="none",
        )
    for each in marks:
        number = list(families).index(each.family)
        axes.plot(
            each.ms,
            each.recall,
            _MARKERS[number % len(_MARKERS)],
            color=_COLOURS[number % len(_COLOURS)],
            markersize=11 if each is marks[0] else 8,
        )
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    said = "; ".join(f"{each.name} {each.recall:.3f} in {each.ms:.2f} ms" for each in marks)
    return Drawn(
        f"recall-{basis}",
        f"Recall against time, {basis} basis",
        figure,
        f"Recall at the median time of a search, every setting that was tried: {said}.",
    )


def _plane(k: int, target: float, *, low: float) -> tuple[Figure, Any]:
    """Axes for recall against time."""
    figure = Figure(figsize=(9.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(target, color=TEXT, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(max(0.0, min(low, 2 * target - 1) - 0.02), 1.004)
    axes.set_xlabel("milliseconds of a search, median (filled: measured in turns)")
    axes.set_ylabel(f"recall@{k}")
    return figure, axes


def _grid(tuned: TuneBasis, *, k: int, target: float) -> Drawn:
    """The grid as points, and what the tuner chose among them."""
    figure, axes = _plane(k, target, low=target)
    axes.plot(
        [each.milliseconds for each in tuned.grid],
        [each.recall for each in tuned.grid],
        "o",
        color=GREY,
        markersize=3.5,
        markerfacecolor="none",
        label="the grid",
    )
    shown = (tuned.best, "its best", "s", ORANGE), (tuned.chosen, "the tuner's", "o", BLUE)
    for cell, name, marker, colour in shown:
        axes.plot(
            cell.milliseconds, cell.recall, marker, color=colour, markersize=9,
            label=f"{name}: {cell.funnel}",
        )  # fmt: skip
    axes.legend(loc="lower right", fontsize=9)
    said = "; ".join(
        f"{name} {cell.funnel} {cell.recall:.3f} in {cell.milliseconds:.2f} ms"
        for cell, name, _, _ in shown
    )
    return Drawn(
        f"grid-{tuned.basis}",
        f"The tuner beside {tuned.settings} settings, {tuned.basis} basis",
        figure,
        f"Recall at the median time of a search, every setting of the grid: {said}.",
    )


def _edge(basis: EdgeBasis) -> Drawn:
    standings = basis.standings
    return _bars(
        standings,
        [
            ("queries per second, one client", [mean(each.rates) for each in standings]),
            ("resident, MB", [each.resident / 1e6 for each in standings]),
            ("load and index, s", [each.built.seconds for each in standings]),
        ],
        title=f"Speed, memory and build, {basis.basis} basis",
        topic=f"bars-{basis.basis}",
        alt="; ".join(
            f"{each.name}: {mean(each.rates):,.0f} queries a second, {each.resident / 1e6:.0f} MB"
            for each in standings
        ),
    )


def _standings(standings: Sequence[Standing], title: str, topic: str, *, clients: int) -> Drawn:
    panels = [("queries per second, one client", [1000 / mean(s.milliseconds) for s in standings])]
    if clients > 1:
        panels.append(
            (
                f"with {clients} clients",
                [median(s.together) if s.together else 0 for s in standings],
            )
        )
    panels += [
        ("index, MB", [s.index_bytes / 1e6 for s in standings]),
        ("build, s", [median(s.build_seconds) if s.build_seconds else 0 for s in standings]),
    ]
    return _bars(
        standings,
        panels,
        title=f"Speed, size and build, {title}",
        topic=f"bars-{topic}",
        alt="; ".join(
            f"{each.name}: {1000 / mean(each.milliseconds):,.0f} queries a second, index "
            f"{each.index_bytes / 1e6:.1f} MB"
            for each in standings
        ),
    )


def _bars(
    shown: Sequence[Standing] | Sequence[EdgeStanding],
    panels: Sequence[tuple[str, Sequence[float]]],
    *,
    title: str,
    topic: str,
    alt: str,
) -> Drawn:
    """A panel for each measure, a bar for each contestant, ours in blue."""
    figure = Figure(
        figsize=(3.2 + 2.6 * len(panels), 0.9 + 0.36 * len(shown)), layout="constrained"
    )
    grid: Any = figure.subplots(1, len(panels), sharey=True)
    places = list(range(len(shown)))[::-1]
    colours = [BLUE if each.ours else GREY for each in shown]
    for axes, (name, values) in zip(grid, panels, strict=True):
        axes.barh(places, values, color=colours, height=0.62)
        for place, value in zip(places, values, strict=True):
            said = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            axes.annotate(
                said if value else "-",
                (value, place),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.set_xlim(0, max(values, default=0) * 1.25 or 1)
        axes.set_xlabel(name)
        axes.xaxis.set_ticks([])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
    grid[0].set_yticks(places, [_short(each.label) for each in shown])
    return Drawn(topic, title, figure, f"{alt}.")


def _short(label: str) -> str:
    return label if len(label) <= 34 else f"{label[:33]}…"
