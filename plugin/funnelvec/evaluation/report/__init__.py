"""The page of a calibration: one HTML file with its plots inside, or a sheet of plots as PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funnelvec.pages import check_available, render

if TYPE_CHECKING:
    from funnelvec.evaluation.calibration_report import CalibrationReport

__all__ = ["check_available", "render_page", "render_png"]


def render_page(report: CalibrationReport) -> str:
    """The whole page as text.

    Raises
    ------
    MissingDependency
        If matplotlib or jinja2 is not installed.
    """
    check_available()
    from funnelvec.evaluation.report import plots, words

    return render(
        __name__,
        report=report,
        sections=words.sections(report),
        plots={plot.topic: plot for plot in plots.draw(report)},
        number=words.number,
        share=words.share,
    )


def render_png(report: CalibrationReport) -> bytes:
    """All plots on one sheet.

    Raises
    ------
    MissingDependency
        If matplotlib or jinja2 is not installed.
    """
    check_available()
    from funnelvec.evaluation.report import plots

    return plots.sheet(report)
