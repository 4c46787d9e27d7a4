"""Plots of a calibration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from funnelvec.evaluation.report.words import number, share, spread
from funnelvec.pages.drawing import BLUE, GREY, ORANGE, TEXT, Plot, legend, png, style, svg

if TYPE_CHECKING:
    from funnelvec.evaluation.calibration_report import CalibrationReport
    from funnelvec.evaluation.curves import Counts, Quantiles

__all__ = ["draw", "sheet"]

_MARKERS = "osD^vP*X"


def draw(report: CalibrationReport) -> Iterator[Plot]:
    """Draw each plot for the page."""
    with style():
        for topic, (columns, paint) in _PLOTS.items():
            figure = Figure(
                figsize=(4.6 * columns if columns > 1 else 6.4, 3.5), layout="constrained"
            )
            alt = paint(figure, report)
            yield Plot(topic, svg(figure, topic), alt)


def sheet(report: CalibrationReport) -> bytes:
    """All plots on one PNG, each with its heading."""
    titles = ("Relevance and what is so", "Scores by label", "Precision and recall")
    with style():
        figure = Figure(figsize=(13.2, 11.4), layout="constrained")
        rows: Any = figure.subfigures(3, 1, hspace=0.05)
        upper, middle = rows[0].subfigures(1, 2, wspace=0.05), rows[1].subfigures(1, 2, wspace=0.05)
        places = {
            "reliability": upper[0],
            "density": upper[1],
            "curve": middle[0],
            "spread": middle[1],
            "cutoff": rows[2],
        }
        named = (*titles, "What single queries get", "Cutoffs and the rows they keep")
        for (topic, place), title in zip(places.items(), named, strict=True):
            _PLOTS[topic][1](place, report)
            place.suptitle(title, fontsize=11, fontweight="bold")
        return png(figure)


def _reliability(figure: Any, report: CalibrationReport) -> str:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    said = [each.said for each in report.bins]
    found = [each.found for each in report.bins]
    errors = [
        [each.found - each.low for each in report.bins],
        [each.high - each.found for each in report.bins],
    ]
    upper.plot([0, 1], [0, 1], "--", color=GREY, label="as it should be")
    upper.errorbar(
        said,
        found,
        yerr=errors,
        fmt="o-",
        color=BLUE,
        capsize=2,
        label="found, 95 %",
        linewidth=1.4,
    )
    upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share relevant")
    legend(upper)
    _bars(lower, report.said)
    lower.set(xlabel="relevance as it is said", ylabel="pairs")
    pairs = ", ".join(
        f"{number(each.said)} said, {number(each.found)} found" for each in report.bins
    )
    return f"Reliability by steps of relevance: {pairs}."


def _bars(axes: Any, found: Counts) -> None:
    """How many pairs lie where."""
    axes.stairs(found.counts, found.edges, fill=True, color=BLUE, alpha=0.6)
    axes.set_yscale("symlog", linthresh=10)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _density(figure: Any, report: CalibrationReport) -> str:
    axes = figure.subplots()
    _steps(axes, report.density.others, GREY, "others", hatch="")
    _steps(axes, report.density.relevant, ORANGE, "relevant", hatch="///")
    for each in report.points:
        if each.name == "one half" and math.isfinite(each.cutoff.p50):
            axes.axvline(each.cutoff.p50, color=TEXT, linewidth=0.8, linestyle=":")
    axes.set(xlabel="raw score", ylabel="density", ylim=(0, None))
    axes.yaxis.set_major_locator(NullLocator())
    edges = report.density.relevant.edges
    axes.set_xlim(edges[0], edges[-1])
    legend(axes)
    return (
        f"Densities of the scores of relevant rows and of others, {number(edges[0])} to "
        f"{number(edges[-1])}."
    )


def _steps(axes: Any, found: Counts, colour: str, label: str, *, hatch: str) -> None:
    total = sum(found.counts)
    if not total:
        return
    shares = [
        count / total / (right - left)
        for count, left, right in zip(found.counts, found.edges[:-1], found.edges[1:], strict=True)
    ]
    axes.stairs(shares, found.edges, fill=True, color=colour, alpha=0.45, label=label, hatch=hatch)


def _curve(figure: Any, report: CalibrationReport) -> str:
    axes = figure.subplots()
    recall, precision = zip(*report.curve, strict=True)
    axes.plot(recall, precision, "-", color=BLUE)
    for each, marker in zip(report.points, _MARKERS, strict=False):
        axes.plot(
            [each.recall], [each.precision], marker, color=ORANGE, markersize=8, linestyle="none",
            markeredgecolor=TEXT, label=f"{each.name} ({number(each.relevance)})",
        )  # fmt: skip
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xlabel="recall", ylabel="precision")
    legend(axes)
    area = report.evaluation["pr_auc"].value
    return f"Precision over recall of one threshold for all queries; the area is {number(area)}."


def _spread(figure: Any, report: CalibrationReport) -> str:
    axes = figure.subplots()
    names = []
    for row, each in enumerate(reversed(report.points)):
        for shift, found, colour in ((0.14, each.precisions, BLUE), (-0.14, each.recalls, ORANGE)):
            _bar(axes, row + shift, found, colour)
        names.append(f"{each.name}\n{share(each.empty)} empty")
    axes.plot([], [], color=BLUE, linewidth=7, alpha=0.5, label="precision")
    axes.plot([], [], color=ORANGE, linewidth=7, alpha=0.5, label="recall")
    axes.set_yticks(range(len(names)), names)
    axes.set(
        xlim=(-0.02, 1.02), ylim=(-0.5, len(names) - 0.5), xlabel="share, p10 to p90 of the queries"
    )
    axes.grid(visible=False, axis="y")
    legend(axes)
    said = "; ".join(
        f"{each.name}: precision {spread(each.precisions)}, recall {spread(each.recalls)}, "
        f"{share(each.empty)} empty"
        for each in report.points
    )
    return f"Per query, p10 / p50 / p90. {said}."


def _bar(axes: Any, height: float, found: Quantiles, colour: str) -> None:
    if math.isfinite(found.p50):
        axes.barh(
            height, max(found.p90 - found.p10, 0.004), left=found.p10, height=0.22, color=colour,
            alpha=0.5,
        )  # fmt: skip
        axes.plot([found.p50] * 2, [height - 0.13, height + 0.13], color=TEXT, linewidth=1.6)


def _cutoff(figure: Any, report: CalibrationReport) -> str:
    left, right = figure.subplots(1, 2)
    colours = (BLUE, ORANGE, GREY)
    names = []
    for row, each in enumerate(reversed(report.points)):
        if each.cutoffs is not None:
            _rug(left, row, each.cutoffs, colours[0], each.cutoff)
        _bar(right, row, each.sizes, colours[1])
        names.append(each.name)
    for axes, label in ((left, "raw score of the cutoff"), (right, "rows kept, p10 to p90")):
        axes.set_yticks(range(len(names)), names if axes is left else [""] * len(names))
        axes.set(xlabel=label, ylim=(-0.5, len(names) - 0.2))
        axes.grid(visible=False, axis="y")
    right.set_xlim(0, None)
    said = "; ".join(
        f"{each.name}: cutoff {spread(each.cutoff)}, rows {spread(each.sizes)}"
        for each in report.points
    )
    return f"Cutoffs and rows kept per query, p10 / p50 / p90. {said}."


def _rug(axes: Any, row: int, found: Counts, colour: str, at: Quantiles) -> None:
    """A small histogram over its line; one score for all queries is a mark."""
    if at.p10 == at.p90:
        axes.plot([at.p50], [row], "D", color=colour, markersize=7)
        return
    most = max(found.counts)
    heights = [row - 0.3 + 0.75 * count / most for count in found.counts]
    axes.stairs(heights, found.edges, baseline=row - 0.3, fill=True, color=colour, alpha=0.5)
    axes.plot([at.p50] * 2, [row - 0.3, row + 0.45], color=TEXT, linewidth=1.2)


_PLOTS: dict[str, tuple[int, Any]] = {
    "reliability": (1, _reliability),
    "density": (1, _density),
    "curve": (1, _curve),
    "spread": (1, _spread),
    "cutoff": (2, _cutoff),
}
