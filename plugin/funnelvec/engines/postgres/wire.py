"""Rows in the format of binary COPY, written a block at a time. Pure.

A row is the number of its fields (2 bytes), then for each field its length (4 bytes, -1 for NULL)
and its bytes, all numbers big-endian; around the rows stand a header and a trailer. A ``vector`` or
``halfvec`` is its width and a zero (2 bytes each), then its numbers.

What has the same length in every row becomes columns of one structured array, so that numpy swaps
the bytes of whole blocks; texts, `numeric` and columns with NULLs are put between, row by row.
"""

from __future__ import annotations

import datetime
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.adapt import PyFormat

from funnelvec.errors import CapabilityError, InvalidInput

__all__ = ["HEADER", "TRAILER", "Field", "Fixed", "Loose", "blocks", "field", "order", "vectors"]

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

#: Most bytes and most rows of a block: enough that a call per block costs nothing, and few enough
#: that progress is seen and other tasks have their turn.
_BLOCK_BYTES, _BLOCK_ROWS = 1 << 18, 1000

_NULL = b"\xff\xff\xff\xff"
_DAY_0 = datetime.date(2000, 1, 1).toordinal()
_MOMENT_0 = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
_MICROSECOND = datetime.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """A field of one length: `values` has a row per row, `dtype` is what it is on the wire."""

    dtype: np.dtype[Any]
    values: npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Loose:
    """A field whose length differs: each cell is its length and its bytes."""

    cells: list[bytes]


Field: TypeAlias = Fixed | Loose


def vectors(matrix: npt.NDArray[Any]) -> Fixed:
    """The field of a vector column: (n, d) float32 for ``vector``, float16 for ``halfvec``."""
    number = np.dtype(matrix.dtype).newbyteorder(">")
    parts = [("width", ">i2"), ("zero", ">i2"), ("numbers", number, (matrix.shape[1],))]
    return Fixed(np.dtype(parts), matrix)


def field(values: Sequence[Any], type_name: str, *, what: str, encoding: str, first: int) -> Field:
    """Put the checked values of one column on the wire; None is NULL.

    Parameters
    ----------
    type_name
        The type of the column as ``format_type`` writes it; of a domain, what it is made of.
    what, first
        Name of the column and number of the first row, for messages.
    encoding
        Python's name of the encoding that the connection speaks.

    Raises
    ------
    InvalidInput
        If a number is out of range of the type, or a text has no form in the encoding.
    CapabilityError
        If the type is none that this can write.
    """
    if type_name.endswith("[]"):
        return Loose(_arrays(values, type_name[:-2], what, encoding, first))
    if type_name in _JSON:
        texts = [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]
        return Loose(_texts(texts, what, encoding, first, before=_JSON[type_name]))
    if type_name in _TEXTS:
        return Loose(_texts(values, what, encoding, first))
    if type_name == "numeric":
        dump = psycopg.adapters.get_dumper(Decimal, PyFormat.BINARY)(Decimal).dump
        return Loose([_NULL if v is None else _cell(bytes(dump(v) or b"")) for v in values])
    if type_name not in _FIXED:
        raise CapabilityError(
            f"{what} has the type {type_name}, which this cannot write; insert such rows with SQL"
        )
    dtype, encode = _FIXED[type_name]
    wire = np.dtype(dtype)
    present = [value for value in values if value is not None]
    array = encode(present)
    if wire.kind in "if":
        _check_range(array, wire, values, f"{what}, row", type_name, first)
    if len(present) == len(values):
        return Fixed(wire, array)
    cells = iter(_cells(Fixed(wire, array)))
    return Loose([_NULL if value is None else next(cells) for value in values])


def blocks(fields: Sequence[Field], rows: int) -> Iterator[tuple[int, bytes | memoryview]]:
    """Write all rows: pairs of how many are done with this block, and the block.

    The fields of one length come first in a row, whatever their places in `fields`; see `order`.
    """
    fixed = [each for each in fields if isinstance(each, Fixed)]
    loose = [each for each in fields if isinstance(each, Loose)]
    parts: list[Any] = [("fields", ">i2")]
    for i, each in enumerate(fixed):
        parts += [(f"n{i}", ">i4"), (f"v{i}", each.dtype)]
    layout = np.dtype(parts)
    step = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // layout.itemsize))
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        part = np.empty(stop - start, layout)
        part["fields"] = len(fields)
        for i, each in enumerate(fixed):
            part[f"n{i}"] = each.dtype.itemsize
            _fill(part[f"v{i}"], each.values[start:stop])
        yield stop, _joined(part, [each.cells[start:stop] for each in loose])


def order(fields: Sequence[Field]) -> list[int]:
    """Return the places of `fields` in the order that `blocks` writes them in."""
    return sorted(range(len(fields)), key=lambda place: isinstance(fields[place], Loose))


def _fill(target: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    if target.dtype.names is None:
        target[:] = values
    else:
        target["width"], target["zero"] = values.shape[1], 0
        target["numbers"] = values


def _joined(part: npt.NDArray[Any], loose: list[list[bytes]]) -> bytes | memoryview:
    raw: npt.NDArray[np.uint8] = part.view(np.uint8)
    if not loose:
        return raw.data
    text, size = raw.tobytes(), part.dtype.itemsize
    pieces = [b""] * (len(part) * (1 + len(loose)))
    pieces[:: 1 + len(loose)] = [text[at : at + size] for at in range(0, len(text), size)]
    for place, cells in enumerate(loose, 1):
        pieces[place :: 1 + len(loose)] = cells
    return b"".join(pieces)


def _cell(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _arrays(
    values: Sequence[Any], type_name: str, what: str, encoding: str, first: int
) -> list[bytes]:
    """An array is its dimensions, whether it has NULLs, the type, length and origin; then cells."""
    info = psycopg.adapters.types.get(type_name)
    oid = 0 if info is None else info.oid  # `field` refuses what it does not know
    cells = []
    for row, value in enumerate(values, first):
        if value is None:
            cells.append(_NULL)
            continue
        place = f"{what}, row {row}, element"
        elements = _cells(field(value, type_name, what=place, encoding=encoding, first=0))
        head = struct.pack("!iiI", 1 if elements else 0, None in value, oid)
        size = struct.pack("!ii", len(elements), 1) if elements else b""
        cells.append(_cell(b"".join((head, size, *elements))))
    return cells


def _cells(one: Field) -> list[bytes]:
    if isinstance(one, Loose):
        return one.cells
    raw, size = one.values.astype(one.dtype).tobytes(), one.dtype.itemsize
    return [_cell(raw[place : place + size]) for place in range(0, len(raw), size)]


def _texts(
    values: Sequence[Any], what: str, encoding: str, first: int, before: bytes = b""
) -> list[bytes]:
    cells = []
    for row, value in enumerate(values, first):
        try:
            cells.append(_NULL if value is None else _cell(before + value.encode(encoding)))
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{what}, row {row}: {value!r:.100} cannot be written in {error.encoding}, the "
                "client_encoding of this connection; set it to UTF8"
            ) from None
    return cells


def _check_range(
    array: npt.NDArray[Any],
    wire: np.dtype[Any],
    values: Sequence[Any],
    what: str,
    type_name: str,
    first: int,
) -> None:
    with np.errstate(over="ignore"):
        stored = array.astype(wire)
    # A number that the type cannot hold wraps, or becomes infinite.
    wrong = stored != array if wire.kind == "i" else np.isinf(stored) & np.isfinite(array)
    if wrong.any():
        value = array[int(np.flatnonzero(wrong)[0])].item()
        row = next(place for place, given in enumerate(values, first) if given == value)
        raise InvalidInput(f"{what} {row}: {value!r} is out of range for the type {type_name}")


def _numbers(dtype: str) -> Callable[[list[Any]], npt.NDArray[Any]]:
    return lambda values: np.array(values, dtype)


def _days(values: list[datetime.date]) -> npt.NDArray[Any]:
    return np.array([value.toordinal() - _DAY_0 for value in values], np.int64)


def _moments(values: list[datetime.datetime]) -> npt.NDArray[Any]:
    return np.array([(value - _MOMENT_0) // _MICROSECOND for value in values], np.int64)


def _uuids(values: list[Any]) -> npt.NDArray[Any]:
    return np.frombuffer(b"".join(value.bytes for value in values), "V16")


#: What stands before the text: the binary format of ``jsonb`` has a version.
_JSON = {"json": b"", "jsonb": b"\1"}

_TEXTS = frozenset({"text", "character varying", "character", "bpchar"})

#: Type: what it is on the wire, and how values become an array. All times are in UTC.
_FIXED: dict[str, tuple[str, Callable[[list[Any]], npt.NDArray[Any]]]] = {
    "smallint": (">i2", _numbers("i8")),
    "integer": (">i4", _numbers("i8")),
    "bigint": (">i8", _numbers("i8")),
    "real": (">f4", _numbers("f8")),
    "double precision": (">f8", _numbers("f8")),
    "boolean": ("u1", _numbers("u1")),
    "date": (">i4", _days),
    "timestamp with time zone": (">i8", _moments),
    "timestamp without time zone": (">i8", _moments),
    "uuid": ("V16", _uuids),
}
