"""Checks of switches, choices and mappings, which Python itself would take in any shape. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from funnelvec.errors import InvalidInput
from funnelvec.types import Storage

__all__ = ["check_batch", "check_flag", "check_mapping", "check_progress", "check_storage"]


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


def check_storage(storage: Storage | None) -> Storage | None:
    """Return where a resolution is to be kept, or None where that is left open."""
    given: Any = storage
    if given is not None and not (isinstance(given, str) and given in get_args(Storage)):
        raise InvalidInput(
            f"unknown storage {storage!r}; known are {', '.join(get_args(Storage))}, and None for "
            "where it is already, else a column"
        )
    return storage


def check_batch(batch: int | None) -> int | None:
    """Return how many rows one transaction takes, or None where that is left open."""
    given: Any = batch
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)):
        raise InvalidInput(f"batch must be a whole number of rows, not {batch!r:.100}")
    if not 1 <= given <= 1_000_000:
        raise InvalidInput(f"batch must be 1 to 1000000 rows, not {batch!r:.100}")
    return int(given)
