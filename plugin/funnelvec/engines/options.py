"""Checks of switches and mappings, which Python itself would take in any shape. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from funnelvec.errors import InvalidInput

__all__ = ["check_flag", "check_mapping", "check_progress"]


def check_flag(value: bool, name: str) -> bool:
    """Return a switch.

    Raises
    ------
    InvalidInput
        If it is neither True nor False: ``index="no"`` would count as yes.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidInput(f"{name} must be True or False, not {value!r}")
    return bool(value)


def check_progress(progress: Any) -> Any:
    """Return `progress`: a switch, or a callable that is told (rows done, rows in all)."""
    return progress if callable(progress) else check_flag(progress, "progress")


def check_mapping(columns: Any, name: str = "columns") -> dict[Any, Any]:
    """Return a copy of a mapping by column name; None is an empty one.

    Raises
    ------
    InvalidInput
        If it is no mapping.
    """
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise InvalidInput(f"{name} must be a mapping by column name, not {columns!r:.100}")
    return dict(columns)
