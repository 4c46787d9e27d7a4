"""The page of a diagnosis: one HTML file with its plots inside, nothing loaded from anywhere."""

from __future__ import annotations

import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from funnelvec.errors import InvalidInput, MissingDependency

if TYPE_CHECKING:
    from funnelvec.doctor.diagnosis import Diagnosis

__all__ = ["check_available", "render_page", "write_bytes", "write_page"]


def check_available() -> None:
    """Refuse early where the packages are missing.

    Raises
    ------
    MissingDependency
        If matplotlib or jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependency.of(error.name or "matplotlib", extra="report") from error


def render_page(diagnosis: Diagnosis) -> str:
    """The whole page as text.

    Raises
    ------
    MissingDependency
        If matplotlib or jinja2 is not installed.
    """
    check_available()
    import jinja2

    from funnelvec.doctor.report import plots

    template = resources.files(__package__).joinpath("page.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["bound"] = _bound
    drawn = {plot.topic: plot for plot in plots.draw(diagnosis)}
    return environment.from_string(template).render(diagnosis=diagnosis, plots=drawn)


def _bound(text: str) -> str:
    """Keep a number and its percent sign on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def write_page(diagnosis: Diagnosis, path: str | os.PathLike[str]) -> Path:
    """Write the page to a file, whole or not at all.

    Raises
    ------
    InvalidInput
        If the file cannot be written.
    MissingDependency
        If matplotlib or jinja2 is not installed.
    """
    return write_bytes(render_page(diagnosis).encode("utf-8"), path)


def write_bytes(content: bytes, path: str | os.PathLike[str]) -> Path:
    """Write a file, whole or not at all.

    Raises
    ------
    InvalidInput
        If it cannot be written.
    """
    target = Path(path).absolute()
    try:
        handle, beside = tempfile.mkstemp(dir=target.parent, prefix=".funnelvec-")
        try:
            with open(handle, "wb") as file:
                file.write(content)
            os.chmod(beside, 0o666 & ~_umask())  # mkstemp gives it to the owner alone
            os.replace(beside, target)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise InvalidInput(f"cannot write the report to {path}: {error.strerror}") from None
    return target


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
