"""Plots of a diagnosis as SVG text that takes the colours of the page it stands in."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from funnelvec.doctor.prefixes import KEEPS, TARGET
from funnelvec.doctor.rows import K
from funnelvec.doctor.values import Histogram, digits, share

if TYPE_CHECKING:
    from funnelvec.doctor.bits import Bits
    from funnelvec.doctor.diagnosis import Diagnosis
    from funnelvec.doctor.hubness import Hubness
    from funnelvec.doctor.lid import Lid
    from funnelvec.doctor.norms import Norms
    from funnelvec.doctor.pairs import Pairs
    from funnelvec.doctor.prefixes import Prefixes, Stage
    from funnelvec.doctor.rank import Rank

__all__ = ["BLUE", "GREY", "ORANGE", "TEXT", "Plot", "as_svg", "draw", "styled"]

#: Stands for the colour of text until the page gives one; no series has it.
_TEXT = "#010203"
#: Told apart on white, on black, and without colours (each has a marker of its own).
_BLUE, _ORANGE, _GREY = "#3d85c6", "#d9730d", "#8a8a8a"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": _TEXT,
    "axes.edgecolor": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _TEXT,
    "hatch.color": _TEXT,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


#: The colours for drawings of others on such a page.
BLUE, ORANGE, GREY, TEXT = _BLUE, _ORANGE, _GREY, _TEXT


def styled() -> Any:
    """The look of all drawings, as a context; the same figures give the same file."""
    return matplotlib.rc_context({**_STYLE, "svg.hashsalt": "funnelvec"})


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing for a topic: its SVG, and what it shows in words."""

    topic: str
    svg: str
    alt: str


def draw(diagnosis: Diagnosis) -> Iterator[Plot]:
    """Draw what was measured; a topic without figures has no plot."""
    found = diagnosis.measures
    with styled():
        if found.prefixes:
            yield _prefixes(found.prefixes, diagnosis)
        if found.pairs:
            yield _pairs(found.pairs)
        if found.norms.variation > 1e-3:
            yield _norms(found.norms)
        if found.rank:
            yield _rank(found.rank, diagnosis)
        if found.bits:
            yield _bits(found.bits)
        if found.lid:
            yield _lid(found.lid)
        if found.hubness:
            yield _hubness(found.hubness)


def _figure(columns: int = 1) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.6 * columns if columns > 1 else 6.4, 3.3), layout="constrained")
    return figure, figure.subplots(1, columns)


def as_svg(figure: Figure, topic: str) -> str:
    """Write a drawing as SVG text whose text has the colour of the page."""
    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :].replace(_TEXT, "currentColor")
    # Several drawings share a page, and names in it are global.
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{topic}-", svg)
    # It grows and shrinks with the page; the words beside it say the same.
    return re.sub(r'<svg (.*?)height="[^"]*" (.*?)width="[^"]*"', r"<svg \1\2", svg, count=1)


def _legend(axes: Any) -> None:
    """Above the axes, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=9)


def _by_width(axes: Any, widths: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(widths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.tick_params(axis="x", labelrotation=45 if len(widths) > 7 else 0)
    axes.set_xlabel("dimensions")


def _prefixes(found: Prefixes, diagnosis: Diagnosis) -> Plot:
    figure, (left, right) = _figure(2)
    keep = KEEPS.index(100)
    floats = [stage for stage in found.stages if stage.code == "f16"]
    signs = [stage for stage in found.stages if stage.code == "bit"]
    rotated = [stage for stage in found.stages if stage.code == "bit~random"]
    for stages, colour, marker, label in (
        (floats, _BLUE, "o", "prefix, f16"),
        (signs, _ORANGE, "s", "prefix, signs"),
        (rotated, _ORANGE, "D", "rotated signs"),
    ):
        widths = [stage.width for stage in stages]
        left.plot(widths, [s.recall[keep] for s in stages], marker + "-", color=colour, label=label)
        low, high = zip(*(s.intervals[keep] for s in stages), strict=True)
        left.fill_between(widths, low, high, color=colour, alpha=0.2, linewidth=0)
        _lists(right, stages, diagnosis, colour, marker)
    control = [(s.width, s.control[keep]) for s in floats if s.control]
    if control:
        left.plot(*zip(*control, strict=True), "x--", color=_GREY, label="random dimensions")
    left.axhline(TARGET, color=_TEXT, linewidth=0.8, linestyle=":")
    left.set(ylim=(0, 1.04), ylabel="share of the top 10 kept by 100 rows")
    right.set_yscale("log")
    right.set_ylabel(f"rows to keep for {TARGET:g}")
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for axes in (left, right):
        _by_width(axes, sorted({stage.width for stage in found.stages}))
        _legend(axes)
    said = ", ".join(f"{s.resolution} {share(s.recall[keep])}" for s in found.stages)
    alt = f"Share of the exact top 10 that a shortlist of 100 keeps, by first stage: {said}."
    return Plot("prefixes", as_svg(figure, "prefixes"), alt)


def _lists(axes: Any, stages: list[Stage], diagnosis: Diagnosis, colour: str, marker: str) -> None:
    widths = [s.width for s in stages]
    code = {"f16": "f16", "bit": "signs"}.get(stages[0].code, "rotated signs")
    label = f"{code}, {diagnosis.sample:,} rows"
    axes.plot(widths, [s.keep for s in stages], marker + "-", color=colour, label=label)
    if diagnosis.rows > diagnosis.sample and diagnosis.measures.prefixes:
        rows = diagnosis.measures.prefixes.rows
        grown = [s.keep_at(rows, diagnosis.rows) for s in stages]
        label = f"{code}, {diagnosis.rows:,} (estimate)"
        axes.plot(widths, grown, marker + ":", color=colour, label=label, markerfacecolor="none")


def _steps(axes: Any, found: Histogram, colour: str, label: str, *, hatch: str = "") -> None:
    total = sum(found.counts)
    shares = [
        count / total / (right - left)
        for count, left, right in zip(found.counts, found.edges[:-1], found.edges[1:], strict=True)
    ]
    axes.stairs(shares, found.edges, fill=True, color=colour, alpha=0.45, label=label, hatch=hatch)
    axes.set_ylabel("density")
    axes.yaxis.set_major_locator(NullLocator())


def _pairs(found: Pairs) -> Plot:
    figure, axes = _figure()
    _steps(axes, found.histogram, _BLUE, "two random rows")
    alt = (
        f"Cosines of random pairs: mean {digits(found.mean)}, one in a hundred above "
        f"{digits(found.high)}."
    )
    if found.neighbours and found.neighbour is not None:
        _steps(axes, found.neighbours, _ORANGE, "a row and its nearest neighbour", hatch="///")
        alt += f" Nearest neighbours: median {digits(found.neighbour)}."
    axes.axvline(found.high, color=_TEXT, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, None)
    axes.set_xlabel("cosine (dotted: one random pair in a hundred is above)")
    _legend(axes)
    return Plot("pairs", as_svg(figure, "pairs"), alt)


def _norms(found: Norms) -> Plot:
    figure, axes = _figure()
    _steps(axes, found.histogram, _BLUE, "rows")
    axes.set_xlabel("length of the vector")
    alt = (
        f"Lengths from {digits(found.smallest)} to {digits(found.largest)}, mean "
        f"{digits(found.mean)}, standard deviation {digits(found.sd)}."
    )
    return Plot("norms", as_svg(figure, "norms"), alt)


def _rank(found: Rank, diagnosis: Diagnosis) -> Plot:
    figure, axes = _figure()
    total, cumulated = 0.0, []
    for value in found.spectrum:
        total += value
        cumulated.append(total)
    axes.plot(range(1, len(cumulated) + 1), cumulated, "-", color=_BLUE, label="these rows")
    even = [number / found.limit for number in range(1, len(cumulated) + 1)]
    axes.plot(range(1, len(even) + 1), even, "--", color=_GREY, label="all directions alike")
    axes.axvline(found.effective, color=_TEXT, linewidth=0.8, linestyle=":")
    axes.set(
        ylim=(0, 1.04),
        xlabel="eigenvectors (dotted: effective rank)",
        ylabel="share of the variance",
    )
    _legend(axes)
    alt = (
        f"Variance held by the first eigenvectors: {found.half} hold half, {found.most} hold 90 % "
        f"of it; effective rank {digits(found.effective)} of {diagnosis.dims}."
    )
    return Plot("rank", as_svg(figure, "rank"), alt)


def _bits(found: Bits) -> Plot:
    figure, axes = _figure()
    edges, counts = found.histogram.edges, found.histogram.counts
    axes.stairs(counts, edges, fill=True, color=_BLUE, alpha=0.6)
    axes.axvline(found.balance, color=_TEXT, linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="balance of one bit: 1 splits the rows in half (dotted: mean)",
        ylabel="bits",
        ylim=(0, None),
    )
    alt = (
        f"Balance of single bits: mean {digits(found.balance)}, {found.lopsided} below 0.2, "
        f"{found.constant} constant."
    )
    return Plot("bits", as_svg(figure, "bits"), alt)


def _lid(found: Lid) -> Plot:
    figure, axes = _figure()
    widths = [each.width for each in found.widths]
    low, _, high = zip(*(each.quartiles for each in found.widths), strict=True)
    axes.fill_between(widths, low, high, color=_BLUE, alpha=0.2, linewidth=0, label="half of them")
    axes.plot(widths, [each.mean for each in found.widths], "o-", color=_BLUE, label="mean")
    _by_width(axes, widths)
    axes.set(ylabel="local intrinsic dimension", ylim=(0, None))
    _legend(axes)
    said = ", ".join(f"{each.width}: {digits(each.mean)}" for each in found.widths)
    alt = f"Local intrinsic dimension by width of the prefix: {said}."
    return Plot("lid", as_svg(figure, "lid"), alt)


def _hubness(found: Hubness) -> Plot:
    figure, axes = _figure()
    last = len(found.counts) - 1
    axes.stairs(found.counts, range(len(found.counts) + 1), fill=True, color=_BLUE, alpha=0.6)
    chance = [
        found.rows * math.exp(count * math.log(K) - K - math.lgamma(count + 1))
        for count in range(last)
    ]
    shown = [(count + 0.5, value) for count, value in enumerate(chance) if value >= 0.5]
    axes.plot(*zip(*shown, strict=True), "--", color=_GREY, label="by chance")
    axes.set_yscale("log")
    axes.set(
        ylim=(0.5, None),
        xlabel=f"top tens that a row is in ({last}: so many or more)",
        ylabel="rows",
    )
    _legend(axes)
    alt = (
        f"How many top tens a row is in: {share(found.never)} are in none, the most frequent in "
        f"{found.hubs[0].count}; skewness {digits(found.skewness)}."
    )
    return Plot("hubness", as_svg(figure, "hubness"), alt)
