"""Plots of a diagnosis as SVG text that takes the colours of the page it stands in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from funnelvec.doctor.prefixes import KEEPS, TARGET
from funnelvec.doctor.rows import K
from funnelvec.doctor.values import Histogram, digits, share
from funnelvec.pages.drawing import BLUE, GREY, ORANGE, TEXT, Plot, legend, panels, style, svg

if TYPE_CHECKING:
    from funnelvec.doctor.bits import Bits
    from funnelvec.doctor.diagnosis import Diagnosis
    from funnelvec.doctor.hubness import Hubness
    from funnelvec.doctor.lid import Lid
    from funnelvec.doctor.norms import Norms
    from funnelvec.doctor.pairs import Pairs
    from funnelvec.doctor.prefixes import Prefixes, Stage
    from funnelvec.doctor.rank import Rank

__all__ = ["Plot", "draw"]


def draw(diagnosis: Diagnosis) -> Iterator[Plot]:
    """Draw what was measured; a topic without figures has no plot."""
    found = diagnosis.measures
    with style():
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


def _by_width(axes: Any, widths: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(widths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.tick_params(axis="x", labelrotation=45 if len(widths) > 7 else 0)
    axes.set_xlabel("dimensions")


def _prefixes(found: Prefixes, diagnosis: Diagnosis) -> Plot:
    figure, (left, right) = panels(2)
    keep = KEEPS.index(100)
    floats = [stage for stage in found.stages if stage.code == "f16"]
    signs = [stage for stage in found.stages if stage.code == "bit"]
    rotated = [stage for stage in found.stages if stage.code == "bit~random"]
    for stages, colour, marker, label in (
        (floats, BLUE, "o", "prefix, f16"),
        (signs, ORANGE, "s", "prefix, signs"),
        (rotated, ORANGE, "D", "rotated signs"),
    ):
        widths = [stage.width for stage in stages]
        left.plot(widths, [s.recall[keep] for s in stages], marker + "-", color=colour, label=label)
        low, high = zip(*(s.intervals[keep] for s in stages), strict=True)
        left.fill_between(widths, low, high, color=colour, alpha=0.2, linewidth=0)
        _lists(right, stages, diagnosis, colour, marker)
    control = [(s.width, s.control[keep]) for s in floats if s.control]
    if control:
        left.plot(*zip(*control, strict=True), "x--", color=GREY, label="random dimensions")
    left.axhline(TARGET, color=TEXT, linewidth=0.8, linestyle=":")
    left.set(ylim=(0, 1.04), ylabel="share of the top 10 kept by 100 rows")
    right.set_yscale("log")
    right.set_ylabel(f"rows to keep for {TARGET:g}")
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for axes in (left, right):
        _by_width(axes, sorted({stage.width for stage in found.stages}))
        legend(axes)
    said = ", ".join(f"{s.resolution} {share(s.recall[keep])}" for s in found.stages)
    alt = f"Share of the exact top 10 that a shortlist of 100 keeps, by first stage: {said}."
    return Plot("prefixes", svg(figure, "prefixes"), alt)


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
    figure, axes = panels()
    _steps(axes, found.histogram, BLUE, "two random rows")
    alt = (
        f"Cosines of random pairs: mean {digits(found.mean)}, one in a hundred above "
        f"{digits(found.high)}."
    )
    if found.neighbours and found.neighbour is not None:
        _steps(axes, found.neighbours, ORANGE, "a row and its nearest neighbour", hatch="///")
        alt += f" Nearest neighbours: median {digits(found.neighbour)}."
    axes.axvline(found.high, color=TEXT, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, None)
    axes.set_xlabel("cosine (dotted: one random pair in a hundred is above)")
    legend(axes)
    return Plot("pairs", svg(figure, "pairs"), alt)


def _norms(found: Norms) -> Plot:
    figure, axes = panels()
    _steps(axes, found.histogram, BLUE, "rows")
    axes.set_xlabel("length of the vector")
    alt = (
        f"Lengths from {digits(found.smallest)} to {digits(found.largest)}, mean "
        f"{digits(found.mean)}, standard deviation {digits(found.sd)}."
    )
    return Plot("norms", svg(figure, "norms"), alt)


def _rank(found: Rank, diagnosis: Diagnosis) -> Plot:
    figure, axes = panels()
    total, cumulated = 0.0, []
    for value in found.spectrum:
        total += value
        cumulated.append(total)
    axes.plot(range(1, len(cumulated) + 1), cumulated, "-", color=BLUE, label="these rows")
    even = [number / found.limit for number in range(1, len(cumulated) + 1)]
    axes.plot(range(1, len(even) + 1), even, "--", color=GREY, label="all directions alike")
    axes.axvline(found.effective, color=TEXT, linewidth=0.8, linestyle=":")
    axes.set(
        ylim=(0, 1.04),
        xlabel="eigenvectors (dotted: effective rank)",
        ylabel="share of the variance",
    )
    legend(axes)
    alt = (
        f"Variance held by the first eigenvectors: {found.half} hold half, {found.most} hold 90 % "
        f"of it; effective rank {digits(found.effective)} of {diagnosis.dims}."
    )
    return Plot("rank", svg(figure, "rank"), alt)


def _bits(found: Bits) -> Plot:
    figure, axes = panels()
    edges, counts = found.histogram.edges, found.histogram.counts
    axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.6)
    axes.axvline(found.balance, color=TEXT, linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="balance of one bit: 1 splits the rows in half (dotted: mean)",
        ylabel="bits",
        ylim=(0, None),
    )
    alt = (
        f"Balance of single bits: mean {digits(found.balance)}, {found.lopsided} below 0.2, "
        f"{found.constant} constant."
    )
    return Plot("bits", svg(figure, "bits"), alt)


def _lid(found: Lid) -> Plot:
    figure, axes = panels()
    widths = [each.width for each in found.widths]
    low, _, high = zip(*(each.quartiles for each in found.widths), strict=True)
    axes.fill_between(widths, low, high, color=BLUE, alpha=0.2, linewidth=0, label="half of them")
    axes.plot(widths, [each.mean for each in found.widths], "o-", color=BLUE, label="mean")
    _by_width(axes, widths)
    axes.set(ylabel="local intrinsic dimension", ylim=(0, None))
    legend(axes)
    said = ", ".join(f"{each.width}: {digits(each.mean)}" for each in found.widths)
    alt = f"Local intrinsic dimension by width of the prefix: {said}."
    return Plot("lid", svg(figure, "lid"), alt)


def _hubness(found: Hubness) -> Plot:
    figure, axes = panels()
    last = len(found.counts) - 1
    axes.stairs(found.counts, range(len(found.counts) + 1), fill=True, color=BLUE, alpha=0.6)
    chance = [
        found.rows * math.exp(count * math.log(K) - K - math.lgamma(count + 1))
        for count in range(last)
    ]
    shown = [(count + 0.5, value) for count, value in enumerate(chance) if value >= 0.5]
    axes.plot(*zip(*shown, strict=True), "--", color=GREY, label="by chance")
    axes.set_yscale("log")
    axes.set(
        ylim=(0.5, None),
        xlabel=f"top tens that a row is in ({last}: so many or more)",
        ylabel="rows",
    )
    legend(axes)
    alt = (
        f"How many top tens a row is in: {share(found.never)} are in none, the most frequent in "
        f"{found.hubs[0].count}; skewness {digits(found.skewness)}."
    )
    return Plot("hubness", svg(figure, "hubness"), alt)
