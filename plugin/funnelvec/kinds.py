"""What the columns of a table hold, and how values become them.

A kind is what a filter needs to know about a column. The rules are strict on purpose: databases
would cast silently, each in its own way, and the same filter would mean different things.
"""

from __future__ import annotations

import datetime
import math
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, TypeAlias, cast, get_args

from funnelvec.types import ColumnKind

__all__ = ["KINDS", "Kind", "Value", "convert", "describe", "element_kind"]

#: What a value is after conversion; timestamps are aware and in UTC. Lists and dictionaries are
#: those of arrays and JSON.
Value: TypeAlias = (
    int
    | float
    | Decimal
    | str
    | bool
    | datetime.date
    | datetime.datetime
    | uuid.UUID
    | list[Any]
    | dict[str, Any]
)

#: What a column can be, to whoever writes into it. A ``number`` is a double, as filters take it;
#: a ``numeric`` column keeps every digit that it is given.
Kind: TypeAlias = ColumnKind | Literal["numeric", "numeric[]"]

KINDS: tuple[ColumnKind, ...] = get_args(ColumnKind)

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?"
    r"(?:Z|([+-])([0-9]{2})(?::?([0-9]{2}))?)?)?"
)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

#: How deep JSON may be nested.
_MAX_DEPTH = 100

_MEANING: dict[Kind, str] = {
    "integer": "a whole number of at most 64 bits",
    "number": "a number",
    "numeric": "a number",
    "text": "text without the character NUL",
    "boolean": "true or false",
    "date": "a date such as '2024-05-31'",
    "timestamp": "a date and time such as '2024-05-31T12:00:00Z'",
    "uuid": "a UUID such as '123e4567-e89b-12d3-a456-426614174000'",
    "json": "a JSON value: text, finite numbers, booleans, None, lists and dictionaries of these",
}


def describe(kind: Kind) -> str:
    """Say what a column of this kind holds, for error messages."""
    element = element_kind(kind)
    return _MEANING[kind] if element is None else f"a list, each of it {_MEANING[element]} or None"


def element_kind(kind: Kind) -> Kind | None:
    """Return what the elements of an array are, or None for a kind that is no array."""
    return cast("Kind", kind[:-2]) if kind.endswith("[]") else None


def convert(value: Any, kind: Kind) -> Value:
    """Turn `value` into what a column of `kind` holds.

    Accepted: the Python type itself, and ISO text for dates, timestamps (without an offset: UTC;
    a bare date is its midnight) and UUIDs. Nothing else is cast: ``True`` is not a number, 5.0 is
    not an integer.

    Raises
    ------
    ValueError
        If the value is not of that kind; the text says what was expected.
    """
    element = element_kind(kind)
    converted = _CONVERTERS[kind](value) if element is None else _list(value, element)
    if converted is None:
        raise ValueError(f"expected {describe(kind)}, not {value!r}")
    return converted


def _integer(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return int(value) if -(2**63) <= value < 2**63 else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    # An infinite float may be stored; a finite number too large for a double may not become one.
    return number if isinstance(value, float) or math.isfinite(number) else None


def _numeric(value: Any) -> Decimal | None:
    if _number(value) is None:
        return None
    # A float means the shortest decimal that is read back as it.
    return Decimal(repr(float(value))) if isinstance(value, float) else Decimal(value)


def _text(value: Any) -> str | None:
    if not isinstance(value, str) or "\0" in value:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8 form
        return None
    return str(value)


def _boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _date(value: Any) -> datetime.date | None:
    if isinstance(value, datetime.datetime):
        return None
    if isinstance(value, datetime.date):
        return value
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return None
    try:
        return datetime.date.fromisoformat(value)
    except ValueError:
        return None


def _timestamp(value: Any) -> datetime.datetime | None:
    try:
        if isinstance(value, datetime.datetime):
            aware = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        elif isinstance(value, datetime.date):
            aware = datetime.datetime(
                value.year, value.month, value.day, tzinfo=datetime.timezone.utc
            )
        elif isinstance(value, str) and (parts := _TIMESTAMP.fullmatch(value)):
            aware = _from_parts(*parts.groups())
        else:
            return None
        return aware.astimezone(datetime.timezone.utc)
    except (ValueError, OverflowError):
        return None


def _from_parts(
    year: str,
    month: str,
    day: str,
    hour: str | None,
    minute: str | None,
    second: str | None,
    fraction: str | None,
    sign: str | None,
    offset_hours: str | None,
    offset_minutes: str | None,
) -> datetime.datetime:
    # datetime.fromisoformat of Python 3.10 knows neither "Z" nor fractions of other than 3 or 6
    # digits, and that of 3.11 accepts forms (weeks, no dashes) that no database does.
    offset = datetime.timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
    if int(offset_hours or 0) > 15 or int(offset_minutes or 0) > 59:
        raise ValueError("the offset from UTC is out of range")
    return datetime.datetime(
        int(year),
        int(month),
        int(day),
        int(hour or 0),
        int(minute or 0),
        int(second or 0),
        int((fraction or "").ljust(6, "0")),
        tzinfo=datetime.timezone(-offset if sign == "-" else offset),
    )


def _uuid(value: Any) -> uuid.UUID | None:
    if isinstance(value, uuid.UUID):
        return value
    return uuid.UUID(value) if isinstance(value, str) and _UUID.fullmatch(value) else None


def _list(value: Any, element: Kind) -> list[Any] | None:
    if hasattr(value, "tolist"):  # an array of numpy's
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        return None
    return [None if item is None else convert(item, element) for item in value]


def _json(value: Any, depth: int = 0) -> Value | None:
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, dict):
        items = {_text(key): _inside(item, depth) for key, item in value.items()}
        return None if None in items else cast("dict[str, Any]", items)
    if isinstance(value, (list, tuple)):
        return [_inside(item, depth) for item in value]
    if isinstance(value, (bool, str)):
        return _boolean(value) if isinstance(value, bool) else _text(value)
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) and math.isfinite(value) else None


def _inside(item: Any, depth: int) -> Value | None:
    if item is None:
        return None
    if (converted := _json(item, depth + 1)) is None:
        raise ValueError(f"expected {describe('json')}; found {item!r:.100}")
    return converted


_CONVERTERS: dict[Kind, Callable[[Any], Value | None]] = {
    "integer": _integer,
    "number": _number,
    "numeric": _numeric,
    "text": _text,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
    "uuid": _uuid,
    "json": _json,
}
