"""How things are called in Qdrant: vectors, payload keys, points. Pure.

A resolution is a named vector: ``embedding_128_f16`` beside ``embedding``, ``128_f16`` beside the
unnamed vector. A column is a payload key of its own name. Whole numbers from 0 on and UUIDs are
point ids as they are; other keys have a UUID made from them, and stand in the payload.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from typing import Any, TypeAlias

from funnelvec.engines.keys import KeyKind
from funnelvec.engines.qdrant.payload import to_payload
from funnelvec.errors import CapabilityError, InvalidInput
from funnelvec.resolution import Resolution

__all__ = [
    "DEFINITION",
    "PointId",
    "check_collection",
    "chunk_id",
    "key_of",
    "needs_payload",
    "payload_key",
    "payload_path",
    "point_id",
    "vector_name",
]

#: Point ids as the client takes and gives them: UUIDs are text.
PointId: TypeAlias = int | str

_SPACE = uuid.UUID("8d1f7f5e-5d0e-5a8b-9a37-6c1f0e6b7a10")
#: The point that holds the definition: it has no vector, so no vector search finds it.
DEFINITION = str(uuid.uuid5(_SPACE, "definition"))
#: Upper half of the UUIDs that stand for whole numbers below 0.
_BELOW_ZERO = uuid.uuid5(_SPACE, "below zero").int >> 64

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPED = re.compile(r'["\\]|%(?=22|25|5C)')
_NOT_IN_NAMES = '<>:"/\\|?*\0\x1f'


def vector_name(resolution: Resolution, vector: str) -> str:
    """Name of the vector that stores a resolution of `vector`, which may be the unnamed one."""
    return resolution.column_name(vector).removeprefix("" if vector else "_")


def chunk_id(token: str, number: int) -> str:
    """Id of the point that holds a part of what `token` stands for; it has no vector either."""
    return str(uuid.uuid5(_SPACE, f"{token} {number}"))


def check_collection(name: str) -> str:
    """Return the name of a collection.

    Raises
    ------
    CapabilityError
        If Qdrant takes no such name.
    """
    for odd in _NOT_IN_NAMES:
        if odd in name:
            raise CapabilityError(
                f"Qdrant takes no collection name with {odd!r} in it, as {name!r} has; choose "
                "another, or use a postgresql:// table"
            )
    return name


def payload_key(column: str) -> str:
    """Key of a column in the payload: its name, with what no path can hold percent-encoded."""
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", column)


def payload_path(column: str, steps: Sequence[str] = ()) -> str:
    """Path to a column, or to what stands in its JSON behind some steps.

    Raises
    ------
    CapabilityError
        If a step has a character that no path of Qdrant's can hold.
    """
    for step in steps:
        if '"' in step or "\\" in step:
            raise CapabilityError(
                f"Qdrant has no path to the key {step!r} in the JSON of column {column!r}, which "
                "holds a quote or a backslash; a postgresql:// or memory: table has"
            )
    keys = (payload_key(column), *steps)
    return ".".join(key if _PLAIN.fullmatch(key) else f'"{key}"' for key in keys)


def point_id(key: Any, kind: KeyKind) -> PointId:
    """Id of the point of a row whose key has been checked.

    Raises
    ------
    InvalidInput
        If it is that of the point which holds the definition.
    """
    if kind == "integer":
        return int(key) if key >= 0 else str(uuid.UUID(int=_BELOW_ZERO << 64 | key % 2**64))
    if kind == "uuid":
        if str(key) == DEFINITION:
            raise InvalidInput(f"the key {key} is that of the point which holds the definition")
        return str(key)
    if isinstance(kind, str):
        parts: list[Any] = [to_payload(key, kind)]
    else:
        parts = [to_payload(part, each) for part, each in zip(key, kind, strict=True)]
    return str(uuid.uuid5(_SPACE, json.dumps(parts)))


def needs_payload(kind: KeyKind) -> bool:
    """Whether keys cannot be told from the ids of points."""
    return kind not in ("integer", "uuid")


def key_of(id: PointId | uuid.UUID, kind: KeyKind) -> int | uuid.UUID:
    """Key of the row that a point is, where `needs_payload` is false."""
    if kind == "uuid":
        return uuid.UUID(str(id))
    if isinstance(id, int):
        return id
    number = uuid.UUID(str(id)).int
    if number >> 64 != _BELOW_ZERO:
        raise InvalidInput(
            f"the point {id} is no row of this table, whose keys are whole numbers; somebody else "
            "has written it"
        )
    return number % 2**64 - 2**64
