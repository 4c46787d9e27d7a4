"""Plots of `bench` and `bench peers`: recall against time, sizes and builds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from funnelvec.bench.knobs import Tried
from funnelvec.bench.peers_report import BasisReport, PeersReport
from funnelvec.bench.report import BenchReport, Standing
from funnelvec.bench.stats import percentile
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


def figures(report: object) -> Iterator[Drawn]:
    """Draw what a report holds; one without plots gives none."""
    if isinstance(report, PeersReport):
        for basis in report.bases:
            yield _recall(basis, report)
            # Bounds stay out: a library would make bars of all others too short to compare.
            yield _bars(
                list(basis.standings), f"{basis.basis} basis", basis.basis, clients=report.clients
            )
    elif isinstance(report, BenchReport):
        yield _bars(list(report.standings), "side by side", "search", clients=1)


def frontier(tried: Sequence[Tried]) -> list[Tried]:
    """Those that nobody beats in both: faster ones first, each finding more than the last."""
    best: list[Tried] = []
    for each in sorted(tried, key=lambda one: (one.ms, -one.recall)):
        if not best or each.recall > best[-1].recall:
            best.append(each)
    return best


def _recall(basis: BasisReport, report: PeersReport) -> Drawn:
    figure = Figure(figsize=(9.2, 4.4), layout="constrained")
    axes = figure.subplots()
    families: dict[str, list[Tried]] = {}
    for _, family, trace in basis.traces:
        families.setdefault(family, []).extend(trace)
    low = min(each.recall for each in basis.standings)
    for number, (family, tried) in enumerate(families.items()):
        line = frontier(tried)
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(
            [each.ms for each in line],
            [each.recall for each in line],
            f"{_MARKERS[number % len(_MARKERS)]}-",
            color=colour,
            label=family,
            linewidth=2.6 if not number else 1.4,
            markersize=4,
            markerfacecolor="none",
        )
    for each in (*basis.standings, *basis.bounds):
        number = list(families).index(each.family)
        axes.plot(
            percentile(each.milliseconds, 0.5),
            each.recall,
            _MARKERS[number % len(_MARKERS)],
            color=_COLOURS[number % len(_COLOURS)],
            markersize=11 if each.ours else 8,
        )
    axes.axhline(report.target, color=TEXT, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(max(0.0, min(low, 2 * report.target - 1) - 0.02), 1.004)
    axes.set_xlabel("milliseconds of a search, median (filled: measured in turns)")
    axes.set_ylabel(f"recall@{report.k}")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    said = "; ".join(
        f"{each.name} {each.recall:.3f} in {percentile(each.milliseconds, 0.5):.2f} ms"
        for each in basis.standings
    )
    return Drawn(
        f"recall-{basis.basis}",
        f"Recall against time, {basis.basis} basis",
        figure,
        f"Recall at the median time of a search, every setting that was tried: {said}.",
    )


def _bars(standings: list[Standing], title: str, topic: str, *, clients: int) -> Drawn:
    panels: list[tuple[str, list[float]]] = [
        ("queries per second, one client", [1000 / mean(s.milliseconds) for s in standings])
    ]
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
    figure = Figure(
        figsize=(3.2 + 2.6 * len(panels), 0.9 + 0.36 * len(standings)), layout="constrained"
    )
    grid: Any = figure.subplots(1, len(panels), sharey=True)
    places = list(range(len(standings)))[::-1]
    colours = [BLUE if each.ours else GREY for each in standings]
    for axes, (name, values) in zip(grid, panels, strict=True):
        axes.barh(places, values, color=colours, height=0.62)
        for place, value in zip(places, values, strict=True):
            shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            axes.annotate(
                shown if value else "-",
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
    grid[0].set_yticks(places, [_short(each.label) for each in standings])
    said = "; ".join(
        f"{each.name}: {1000 / mean(each.milliseconds):,.0f} queries a second, index "
        f"{each.index_bytes / 1e6:.1f} MB"
        for each in standings
    )
    return Drawn(f"bars-{topic}", f"Speed, size and build, {title}", figure, f"{said}.")


def _short(label: str) -> str:
    return label if len(label) <= 34 else f"{label[:33]}…"
