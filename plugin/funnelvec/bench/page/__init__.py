"""The page of a measurement: one HTML file with its tables and plots, or the plots as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from funnelvec.errors import InvalidInput
from funnelvec.pages import check_available, render, write_file

if TYPE_CHECKING:
    from funnelvec.bench.report import Section

__all__ = ["Reported", "check_path", "write_report"]


class Reported(Protocol):
    """What every measurement gives: tables, and lines below them."""

    def sections(self) -> list[Section]:
        """The tables, in the order to be read."""

    def lines(self) -> list[str]:
        """What to say below the tables."""


def check_path(path: str) -> None:
    """Refuse early what could not be written at the end of a long run.

    Raises
    ------
    InvalidInput
        If the name does not say what it is to be, or its folder is not there.
    MissingDependency
        If matplotlib or jinja2 is not installed.
    """
    check_available()
    target = Path(path)
    if target.suffix not in (".html", ".png"):
        raise InvalidInput(f"a report is an .html or a .png file, unlike {path!r}")
    if not target.absolute().parent.is_dir():
        raise InvalidInput(f"there is no folder {str(target.absolute().parent)!r}")


def write_report(report: Reported, path: str, *, title: str) -> list[Path]:
    """Write the page, or with a name that ends in ``.png`` each plot beside the others.

    Returns
    -------
    The files that were written.

    Raises
    ------
    InvalidInput
        If a file cannot be written, or there is no plot to write.
    """
    check_path(path)
    from funnelvec.bench.page import plots
    from funnelvec.pages import drawing

    target = Path(path)
    with drawing.style():
        drawn = list(plots.figures(report))
        if target.suffix == ".png":
            if not drawn:
                raise InvalidInput("this measurement has no plots; ask for an .html page")
            return [
                write_file(
                    target.with_stem(f"{target.stem}-{each.topic}"), drawing.png(each.figure)
                )
                for each in drawn
            ]
        pictures = [
            {"svg": drawing.svg(each.figure, each.topic), "alt": each.alt, "title": each.title}
            for each in drawn
        ]
    page = render(
        __name__,
        title=title,
        sections=report.sections(),
        lines=report.lines(),
        pictures=pictures,
    )
    return [write_file(target, page)]
