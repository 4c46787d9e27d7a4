"""Values of columns as JSON in the payload, and back. Pure.

A missing value is a key that is not there. JSON has no NaN and no infinity, so a number that is
not finite is one of three words; dates, timestamps (UTC, microseconds) and UUIDs are text. Qdrant
takes an empty list for a missing value, hence one is written as ``[[]]``.
"""

from __future__ import annotations

import datetime
import math
import uuid
from typing import Any

from funnelvec.errors import CapabilityError
from funnelvec.kinds import Kind, convert, element_kind

__all__ = ["NAN", "NEGATIVE", "POSITIVE", "from_payload", "to_payload"]

NAN, POSITIVE, NEGATIVE = "NaN", "Infinity", "-Infinity"


def to_payload(value: Any, kind: Kind) -> Any:
    """Write a value of a column, converted by `funnelvec.kinds`, as JSON.

    Raises
    ------
    CapabilityError
        If it holds a whole number of more than 64 bits.
    """
    element = element_kind(kind)
    if element is not None:
        listed = [None if item is None else to_payload(item, element) for item in value]
        return listed or [[]]
    if kind == "json":
        return _deeper(value)
    if isinstance(value, float) and not math.isfinite(value):
        return NAN if math.isnan(value) else POSITIVE if value > 0 else NEGATIVE
    if isinstance(value, datetime.datetime):
        utc = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return f"{utc.isoformat(timespec='microseconds')}Z"
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value) if isinstance(value, uuid.UUID) else value


def from_payload(value: Any, kind: Kind) -> Any:
    """Read what `to_payload` wrote, or what another program did; None where it is missing."""
    if value is None:
        return None
    element = element_kind(kind)
    if element is not None:
        listed = value if isinstance(value, list) else [value]
        return [] if listed == [[]] else [from_payload(item, element) for item in listed]
    if kind == "json":
        return _shallower(value)
    if kind == "number":
        return float(value)
    if kind in ("date", "timestamp", "uuid"):
        return convert(value, kind)
    return value


def _hollow(value: Any) -> bool:
    """Whether it is an empty list, or a list of nothing but such a one."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return isinstance(value, list) and not value


def _deeper(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _deeper(item) for key, item in value.items()}
    if isinstance(value, list):
        return [value] if _hollow(value) else [_deeper(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise CapabilityError(
            f"Qdrant holds whole numbers of 64 bits in JSON, not {value}; a postgresql:// or "
            "memory: table holds any"
        )
    return value


def _shallower(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shallower(item) for key, item in value.items()}
    if isinstance(value, list):
        return value[0] if value and _hollow(value) else [_shallower(item) for item in value]
    return value
