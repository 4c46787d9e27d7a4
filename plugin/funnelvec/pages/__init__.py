"""Pages for people: one HTML file with its plots inside, nothing loaded from anywhere."""

from __future__ import annotations

from funnelvec.pages.page import check_available, render, write_file

__all__ = ["check_available", "render", "write_file"]
