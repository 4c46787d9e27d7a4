"""Folders for Edge: in memory where the system has such a place, since it writes much to disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """Lend a folder that does not exist yet, and remove what was put there."""
    place = _MEMORY if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="funnelvec-", dir=place) as made:
        yield f"{made}/edge"
