"""Keys of rows: of one column, or of several, which are tuples in the order of the columns. Pure.

A key of one column is written without a tuple everywhere: its name is text, its kind one kind,
its value one value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from funnelvec import kinds as _kinds
from funnelvec.errors import InvalidInput
from funnelvec.types import ColumnKind, Key

__all__ = [
    "KeyKind",
    "KeyName",
    "check_ids",
    "check_key",
    "check_key_kinds",
    "key_kind",
    "key_name",
    "key_names",
    "plain",
]

#: Name of the key column, or the names of its columns.
KeyName: TypeAlias = str | tuple[str, ...]
#: What a key holds: one kind, or one for each of its columns.
KeyKind: TypeAlias = _kinds.Kind | tuple[_kinds.Kind, ...]


def key_name(names: Sequence[str]) -> KeyName:
    """Return the columns of a key in the form that ``Table.key`` has."""
    return names[0] if len(names) == 1 else tuple(names)


def key_names(key: KeyName) -> tuple[str, ...]:
    """Return the columns of a key, also if it is one."""
    return (key,) if isinstance(key, str) else key


def key_kind(key: KeyName, kinds: Mapping[str, _kinds.Kind]) -> KeyKind:
    """Look up what a key holds."""
    return kinds[key] if isinstance(key, str) else tuple(kinds[name] for name in key)


def check_key_kinds(kinds: Sequence[ColumnKind]) -> Sequence[ColumnKind]:
    """Return the kinds of a new key.

    Raises
    ------
    InvalidInput
        If one has no order that would say which row comes first.
    """
    for kind in kinds:
        if str(kind) == "json" or str(kind).endswith("[]"):
            raise InvalidInput(f"a key cannot be of kind {kind}: that has no order")
    return kinds


def check_ids(ids: Sequence[Key], *, kind: KeyKind, first: int = 0) -> list[Any]:
    """Return the keys as what a key of `kind` holds; `first` is the number of the first row.

    Raises
    ------
    InvalidInput
        If one is missing, is not of that kind, is NaN, or occurs twice.
    """
    given: Any = ids
    if isinstance(given, (str, bytes)) or not hasattr(given, "__len__"):
        raise InvalidInput(f"ids must be a sequence of keys, not {ids!r}")
    try:
        listed = list(given)
    except Exception as error:  # an object may say that it has a length and then not be a sequence
        raise InvalidInput(f"ids must be a sequence of keys: {error}") from None
    if kind == "integer" and isinstance(given, (range, np.ndarray)) and _whole(given):
        keys = listed if isinstance(given, range) else given.tolist()
    else:
        keys = [check_key(k, kind=kind, where=f"ids, row {r}") for r, k in enumerate(listed, first)]
    if len(set(keys)) != len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise InvalidInput(f"ids: {twice!r} occurs more than once; keys must differ")
    return keys


def _whole(ids: range | np.ndarray[Any, Any]) -> bool:
    """Whether these are whole numbers of 64 bits, so that nobody has to look at each."""
    if isinstance(ids, range):
        return not ids or all(abs(end) < 2**63 for end in (ids[0], ids[-1]))
    return ids.ndim == 1 and ids.dtype.kind in "iu" and ids.dtype != np.uint64


def check_key(key: Key | None, *, kind: KeyKind, where: str = "ids") -> Any:
    """Return one key as what a key of `kind` holds; `where` is for the message.

    Raises
    ------
    InvalidInput
        If it or a part of it is missing, is not of that kind, or is NaN.
    """
    if isinstance(kind, str):
        return _part(key, kind, where)
    parts: Any = key
    if not isinstance(parts, (tuple, list)) or len(parts) != len(kind):
        raise InvalidInput(
            f"{where}: a key of this table is a tuple of {len(kind)} values "
            f"({', '.join(kind)}), not {key!r}"
        )
    return tuple(
        _part(part, part_kind, f"{where}, part {number}")
        for number, (part, part_kind) in enumerate(zip(parts, kind, strict=True), 1)
    )


def _part(value: Any, kind: _kinds.Kind, where: str) -> _kinds.Value:
    if value is None:
        raise InvalidInput(f"{where}: the key is None; every row needs one")
    try:
        converted = _kinds.convert(plain(value), kind)
    except ValueError as error:
        raise InvalidInput(f"{where}: {error}") from None
    if converted != converted:
        raise InvalidInput(f"{where}: NaN equals no key, not even itself")
    return converted


def plain(value: Any) -> Any:
    """Turn a numpy scalar into the Python value it stands for."""
    return value.item() if isinstance(value, np.generic) else value
