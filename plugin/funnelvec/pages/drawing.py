"""Plots as SVG text that takes the colours of the page it stands in, or as PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

__all__ = ["BLUE", "GREY", "ORANGE", "TEXT", "Plot", "legend", "panels", "png", "style", "svg"]

#: Stands for the colour of text until the page gives one; no series has it.
TEXT = "#010203"
#: Told apart on white, on black, and without colours (each has a marker of its own).
BLUE, ORANGE, GREY = "#3d85c6", "#d9730d", "#8a8a8a"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": TEXT,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": TEXT,
    "hatch.color": TEXT,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing for a topic: its SVG, and what it shows in words."""

    topic: str
    svg: str
    alt: str


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of our pages."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "funnelvec"}):
        yield


def panels(columns: int = 1) -> tuple[Figure, Any]:
    """A figure, and its axes: one, or as many side by side."""
    drawn = Figure(figsize=(4.6 * columns if columns > 1 else 6.4, 3.3), layout="constrained")
    return drawn, drawn.subplots(1, columns)


def svg(drawn: Figure, topic: str) -> str:
    """The figure as SVG; `topic` is part of every name in it."""
    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    drawn.savefig(written, format="svg", transparent=True, metadata=nothing)
    text = written.getvalue()
    text = text[text.index("<svg") :].replace(TEXT, "currentColor")
    # Several drawings share a page, and names in it are global.
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{topic}-", text)
    # It grows and shrinks with the page; the words beside it say the same.
    return re.sub(r'<svg (.*?)height="[^"]*" (.*?)width="[^"]*"', r"<svg \1\2", text, count=1)


def legend(axes: Any) -> None:
    """Above the axes, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=9)


def png(drawn: Figure, *, dots_per_inch: int = 150) -> bytes:
    """The figure as a PNG file on white."""
    written = io.BytesIO()
    drawn.savefig(written, format="png", dpi=dots_per_inch, facecolor="white", metadata={})
    return written.getvalue()
