"""Checks of switches, choices, mappings and columns, which Python takes in any shape. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from funnelvec import kinds as _kinds
from funnelvec.engines.keys import plain
from funnelvec.errors import InvalidInput, NotFound
from funnelvec.types import Family, Storage

__all__ = [
    "HUB_SAMPLE",
    "LEAST_HUB_SAMPLE",
    "check_batch",
    "check_columns",
    "check_family",
    "check_flag",
    "check_graph",
    "check_hub_sample",
    "check_levels",
    "check_mapping",
    "check_progress",
    "check_storage",
]


#: Rows that a hub column is measured with: by default, and at the least and the most.
HUB_SAMPLE, LEAST_HUB_SAMPLE, _MOST_HUB_SAMPLE = 3_000, 20, 20_000


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


def check_graph(m: Any, ef_construction: Any) -> tuple[int | None, int | None]:
    """Return the settings of an index; None leaves one to the database.

    Raises
    ------
    InvalidInput
        If one is not a whole number that an index takes.
    """
    for value, name, least, most in (
        (m, "m", 2, 100),
        (ef_construction, "ef_construction", max(4, 2 * (m if type(m) is int else 16)), 1000),
    ):
        number = plain(value)
        whole = isinstance(number, int) and not isinstance(number, bool)
        if value is not None and not (whole and least <= number <= most):
            raise InvalidInput(f"{name} must be from {least} to {most}, not {value!r:.100}")
    return plain(m), plain(ef_construction)


def check_levels(levels: Any) -> int | None:
    """Return how many levels of windows are wanted; None leaves it to the table.

    Raises
    ------
    InvalidInput
        If it is not a whole number from 1 to 6.
    """
    if levels is None:
        return None
    number = plain(levels)
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= 6:
        raise InvalidInput(f"levels must be 1 to 6, not {levels!r:.100}")
    return number


def check_hub_sample(sample: Any) -> int:
    """Return how many rows a hub column is to be measured with.

    Raises
    ------
    InvalidInput
        If it is not a whole number from 20 to 20,000.
    """
    number = plain(sample)
    if (
        not isinstance(number, int)
        or isinstance(number, bool)
        or not LEAST_HUB_SAMPLE <= number <= _MOST_HUB_SAMPLE
    ):
        raise InvalidInput(
            f"sample must be {LEAST_HUB_SAMPLE} to {_MOST_HUB_SAMPLE} rows to compare each row "
            f"with, not {sample!r:.100}"
        )
    return number


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


def check_columns(
    columns: Mapping[str, Sequence[Any]] | None,
    *,
    kinds: Mapping[str, _kinds.Kind],
    rows: int,
    first: int = 0,
    known: Iterable[str] = (),
) -> dict[str, list[_kinds.Value | None]]:
    """Return the values of every column in `kinds`, converted; what is not given is missing.

    `first` is the number of the first row, and `known` are the columns there are if those are more
    than `kinds`, both for messages.

    Raises
    ------
    NotFound
        If a column does not exist.
    InvalidInput
        If a column has another length than `rows`, or a value is not of the column's kind.
    """
    given = check_mapping(columns)
    for name in given:
        if name not in kinds:
            others = ", ".join(sorted(known or kinds)) or "none"
            raise NotFound(f"column {name!r} does not exist; other columns of the table: {others}")
    converted: dict[str, list[_kinds.Value | None]] = {}
    for name, kind in kinds.items():
        values: Any = given.get(name)
        if values is None:
            converted[name] = [None] * rows
            continue
        if isinstance(values, (str, bytes)) or len(values) != rows:
            raise InvalidInput(f"column {name!r}: expected a sequence of {rows} values, one per id")
        converted[name] = [
            None if value is None else _cell(name, kind, row, plain(value))
            for row, value in enumerate(values, first)
        ]
    return converted


def _cell(name: str, kind: _kinds.Kind, row: int, value: Any) -> _kinds.Value:
    try:
        return _kinds.convert(value, kind)
    except ValueError as error:
        raise InvalidInput(f"column {name!r}, row {row}: {error}") from None


def check_storage(storage: Storage | None) -> Storage | None:
    """Return where a resolution is to be kept, or None where that is left open."""
    given: Any = storage
    if given is not None and not (isinstance(given, str) and given in get_args(Storage)):
        raise InvalidInput(
            f"unknown storage {storage!r}; known are {', '.join(get_args(Storage))}, and None for "
            "where it is already, else a column"
        )
    return storage


def check_family(family: Family) -> Family:
    """Return which family of maps is to be fitted."""
    given: Any = family
    if not (isinstance(given, str) and given in get_args(Family)):
        raise InvalidInput(
            f"unknown family {family!r:.100}; known are {', '.join(get_args(Family))}"
        )
    return family


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
