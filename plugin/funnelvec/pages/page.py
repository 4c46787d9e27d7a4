"""Rendering a page from a template of ours, and writing it whole or not at all."""

from __future__ import annotations

import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from funnelvec.errors import InvalidInput, MissingDependency

__all__ = ["check_available", "render", "write_file"]


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


def render(package: str, **values: Any) -> str:
    """Fill in ``page.html.j2`` of a package, which extends ``base.html.j2`` of this one.

    Values are escaped: what comes from a table stays text.

    Raises
    ------
    MissingDependency
        If matplotlib or jinja2 is not installed.
    """
    check_available()
    import jinja2

    homes = {"page.html.j2": package, "base.html.j2": __package__}
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: resources.files(homes[name]).joinpath(name).read_text("utf-8")
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bound"] = _bound
    return environment.get_template("page.html.j2").render(**values)


def _bound(text: str) -> str:
    """Keep a number and its percent sign on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def write_file(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write a file, whole or not at all.

    Raises
    ------
    InvalidInput
        If the file cannot be written.
    """
    target = Path(path).absolute()
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        handle, beside = tempfile.mkstemp(dir=target.parent, prefix=".funnelvec-")
        try:
            with open(handle, "wb") as file:
                file.write(data)
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
