"""The page of a diagnosis: one HTML file with its plots inside, nothing loaded from anywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from funnelvec.pages import check_available, render, write_file

if TYPE_CHECKING:
    from funnelvec.doctor.diagnosis import Diagnosis

__all__ = ["check_available", "render_page", "write_page"]


def render_page(diagnosis: Diagnosis) -> str:
    """The whole page as text.

    Raises
    ------
    MissingDependency
        If matplotlib or jinja2 is not installed.
    """
    check_available()
    from funnelvec.doctor.report import plots

    drawn = {plot.topic: plot for plot in plots.draw(diagnosis)}
    return render(__name__, diagnosis=diagnosis, plots=drawn)


def write_page(diagnosis: Diagnosis, path: str | os.PathLike[str]) -> Path:
    """Write the page to a file, whole or not at all.

    Raises
    ------
    InvalidInput
        If the file cannot be written.
    MissingDependency
        If matplotlib or jinja2 is not installed.
    """
    return write_file(path, render_page(diagnosis))
