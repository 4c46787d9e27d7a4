"""The frontier as a picture, and the page of a tuning run: one HTML file with nothing outside."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funnelvec.errors import InvalidInput
from funnelvec.pages import check_available, render, write_file

if TYPE_CHECKING:
    from funnelvec.tuning.report import Option, TuningReport

__all__ = ["check_format", "render_page", "write_page", "write_plot"]

_FORMATS = ("png", "svg", "pdf")
#: Areas of the smallest and the largest bubble, in points.
_SMALL, _LARGE = 30.0, 500.0


def write_plot(report: TuningReport, path: str | os.PathLike[str]) -> Path:
    """Write the frontier as a picture; see `TuningReport.write_plot`."""
    check_available()
    kind = check_format(path)
    from funnelvec.pages.drawing import TEXT, style

    written = io.BytesIO()
    with style():
        _drawn(report, colour=TEXT).savefig(written, format=kind, dpi=160)
    return write_file(path, written.getvalue())


def check_format(path: str | os.PathLike[str]) -> str:
    """Return the kind of picture that a file is to hold, by its ending.

    Raises
    ------
    InvalidInput
        If no picture is written in that form.
    """
    kind = Path(path).suffix.lstrip(".").lower()
    if kind not in _FORMATS:
        raise InvalidInput(f"a plot is written to a file {', '.join(_FORMATS)}, not to {path!s}")
    return kind


def write_page(report: TuningReport, path: str | os.PathLike[str]) -> Path:
    """Write the page; see `TuningReport.write_report`."""
    return write_file(path, render_page(report))


def render_page(report: TuningReport) -> str:
    """The whole page as text.

    Raises
    ------
    MissingDependency
        If matplotlib or jinja2 is not installed.
    """
    check_available()
    from funnelvec.pages.drawing import TEXT, style, svg

    with style():
        drawn = svg(_drawn(report, colour=TEXT), "frontier")
    return render("funnelvec.tuning", report=report, svg=drawn, alt=_said(report))


def _drawn(report: TuningReport, *, colour: str) -> Any:
    """Time across, share lost upwards and falling: the lower left corner is the best."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    from funnelvec.pages.drawing import BLUE, GREY, ORANGE

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    largest = max((each.memory for each in report.options), default=1) or 1
    for measured, fill, label in ((True, BLUE, "measured"), (False, "none", "simulated")):
        some = [each for each in report.options if each.measured == measured]
        if some:
            axes.scatter(
                [each.milliseconds for each in some],
                [_lost(each) for each in some],
                s=[_area(each, largest) for each in some],
                c=fill, edgecolors=BLUE if measured else GREY, alpha=0.6, label=label,
            )  # fmt: skip
    line = _line(report)
    axes.plot([e.milliseconds for e in line], [_lost(e) for e in line], "-", color=BLUE, alpha=0.4)
    axes.plot(
        [report.milliseconds], [max(1e-4, 1 - report.recall)], "*", color=ORANGE, markersize=15,
        label="chosen",
    )  # fmt: skip
    axes.axhline(1 - report.target, color=colour, linewidth=0.8, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="milliseconds a search, median")
    axes.set_ylabel(f"recall@{report.k} (dotted: the target)")
    axes.invert_yaxis()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{1 - value:.4g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, fontsize=9, markerscale=0.6)
    return figure


def _line(report: TuningReport) -> list[Option]:
    """Of what was measured (else of what was simulated) that which nothing faster finds as much as.

    Memory is left out: with it the line would go back and forth.
    """
    measured = [each for each in report.options if each.measured] or list(report.options)
    found: list[Option] = []
    for each in sorted(measured, key=lambda each: (each.milliseconds, -each.recall)):
        if not found or each.recall > found[-1].recall:
            found.append(each)
    return found


def _lost(option: Option) -> float:
    return max(1e-4, 1.0 - option.recall)


def _area(option: Option, largest: int) -> float:
    return _SMALL + (_LARGE - _SMALL) * option.memory / largest


def _said(report: TuningReport) -> str:
    best = [each for each in report.options if each.best and each.measured]
    shown = "; ".join(f"{e.funnel} {e.recall:.4f} in {e.milliseconds:.2f} ms" for e in best)
    return f"Recall against time, bubbles by memory. Measured and not beaten: {shown}."
