"""Between Python and Postgres: named statements, vectors on the wire, and errors. No I/O."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Generator, Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import psycopg
from pgvector import HalfVector, Vector
from psycopg import pq, sql
from psycopg.adapt import Dumper
from psycopg.waiting import Ready, Wait

from funnelvec import errors
from funnelvec.engines.base import Capabilities
from funnelvec.resolution import CODES
from funnelvec.types import METRICS, BaseCode, ColumnKind

if TYPE_CHECKING:
    from typing_extensions import LiteralString  # in typing from Python 3.11 on

__all__ = [
    "CAPABILITIES",
    "COLUMN_TYPES",
    "DTYPES",
    "SQL_NAME",
    "WIRE",
    "VectorArray",
    "VectorParameter",
    "escaped",
    "flushing",
    "milliseconds",
    "quoted",
    "register",
    "statement",
    "translated",
    "vector_dumper",
]

CAPABILITIES = Capabilities(
    name="postgres", codes=CODES, metrics=METRICS, filters=True, persistent=True
)

_IDENTIFIER = r"([[:alpha:]_][[:alnum:]_$]*|\"([^\"]|\"\")+\")"

#: Text that `regclass` may read as a name: identifiers, quoted or not, with dots between them.
SQL_NAME = rf"^{_IDENTIFIER}(\.{_IDENTIFIER})*$"

#: The Postgres type of each kind, for tables that `create` makes.
COLUMN_TYPES: dict[ColumnKind, LiteralString] = {
    "integer": "bigint",
    "number": "double precision",
    "text": "text",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamptz",
    "uuid": "uuid",
    "integer[]": "bigint[]",
    "number[]": "double precision[]",
    "text[]": "text[]",
    "boolean[]": "boolean[]",
    "date[]": "date[]",
    "timestamp[]": "timestamptz[]",
    "uuid[]": "uuid[]",
    "json": "jsonb",
}

#: What the vectors of a column are on the wire, by the code of the column.
DTYPES: dict[BaseCode, type[np.float32] | type[np.float16]] = {"f32": np.float32, "f16": np.float16}

#: The same in the byte order of the wire, as ``vector_send`` and ``halfvec_send`` give it.
WIRE: dict[BaseCode, str] = {"f32": ">f4", "f16": ">f2"}

_BY_SQLSTATE: dict[str, type[errors.FunnelvecError]] = {
    "FV001": errors.SpecError,
    "FV002": errors.InvalidInput,
    "FV003": errors.FilterError,
    "FV004": errors.InvalidInput,
    "FV005": errors.NotFound,
    "FV006": errors.NotCalibrated,
    "FV007": errors.CalibrationError,
    "FV008": errors.Conflict,
    "FV009": errors.CapabilityError,
    "FV010": errors.InstallError,
    "23502": errors.InvalidInput,  # not_null_violation
    "23503": errors.InvalidInput,  # foreign_key_violation
    "23505": errors.Conflict,  # unique_violation: the key is in the table already
    "23514": errors.InvalidInput,  # check_violation
    "3F000": errors.NotFound,  # invalid_schema_name
    "42P01": errors.NotFound,  # undefined_table
    "42703": errors.NotFound,  # undefined_column
    "42P07": errors.Conflict,  # duplicate_table
    "55P03": errors.Timeout,  # lock_not_available: lock_timeout
}


@cache
def _statements() -> dict[str, LiteralString]:
    text = resources.files(__package__).joinpath("queries.sql").read_text("utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    # The file is part of this package and takes no input, which is what LiteralString asserts.
    bodies = [cast("LiteralString", body.strip()) for body in parts[1::2]]
    return dict(zip(parts[::2], bodies, strict=True))


def statement(name: str) -> LiteralString:
    """Return the text of a statement of ``queries.sql``."""
    return _statements()[name]


class VectorParameter:
    """A (d,) array on its way to Postgres: float32 as ``vector``, float16 as ``halfvec``."""

    __slots__ = ("array",)

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array


class _VectorDumper(Dumper):
    # The type is left open: the server takes it from the function or column, so it does not matter
    # which schema pgvector lives in, and nothing has to be asked beforehand.
    oid = 0
    format = pq.Format.BINARY

    def dump(self, obj: VectorParameter) -> bytes:
        wire = HalfVector if obj.array.dtype == np.float16 else Vector
        return wire(obj.array).to_binary()


class VectorArray:
    """An (n, d) array on its way to Postgres as an array of vectors of the type with this oid."""

    __slots__ = ("array", "oid")

    def __init__(self, array: npt.NDArray[Any], oid: int) -> None:
        self.array, self.oid = array, oid


class _VectorArrayDumper(Dumper):
    # The statement casts it; the binary form of an array also names the type of its elements.
    oid = 0
    format = pq.Format.BINARY

    def dump(self, obj: VectorArray) -> bytes:
        wire = HalfVector if obj.array.dtype == np.float16 else Vector
        head = struct.pack("!iiI", 1 if len(obj.array) else 0, 0, obj.oid)
        if not len(obj.array):
            return head
        elements = [wire(row).to_binary() for row in obj.array]
        lengths = (struct.pack("!i", len(element)) for element in elements)
        parts = (part for pair in zip(lengths, elements, strict=True) for part in pair)
        return b"".join((head, struct.pack("!ii", len(elements), 1), *parts))


def vector_dumper(oid: int) -> type[Dumper]:
    """Return a dumper that says it makes values of this type, as COPY needs to know."""
    return type("VectorDumper", (_VectorDumper,), {"oid": oid})


def register(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Teach one connection our own parameter class; other types are left as they are."""
    connection.adapters.register_dumper(VectorParameter, _VectorDumper)
    connection.adapters.register_dumper(VectorArray, _VectorArrayDumper)


def milliseconds(timeout: float | None) -> str | None:
    """Return a time limit in seconds as a setting of Postgres.

    Raises
    ------
    InvalidInput
        If it is not a positive number that the server can take.
    """
    if timeout is None:
        return None
    given: Any = timeout
    longest = (2**31 - 1) / 1000  # the server counts in 32 bits
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given <= longest:
        raise errors.InvalidInput(
            f"statement_timeout is a number of seconds, above 0 and up to {longest:.0f}, not "
            f"{timeout!r}; None is no limit"
        )
    return f"{max(1, round(given * 1000))}ms"


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn errors of the driver into ours; the driver's own stays as the cause."""
    try:
        yield
    except psycopg.Error as error:
        raise _translate(error) from error


def _translate(error: psycopg.Error) -> errors.FunnelvecError:
    diagnostic = error.diag
    message = diagnostic.message_primary or str(error).strip() or type(error).__name__
    state = error.sqlstate or ""
    # The detail of these two is the whole row, vector and all.
    detail = None if state in ("23502", "23514") else diagnostic.message_detail
    for further in (detail, diagnostic.message_hint):
        if further:
            message = f"{message}; {further}"
    if state == "57014" and "user request" not in message:  # query_canceled
        # A server that speaks another language does not say which; a time limit is likelier.
        return errors.Timeout(f"{message}; give it more time with statement_timeout, or do less")
    if type(error).__name__ == "PoolTimeout":
        return errors.Timeout(f"{message}; give the pool more connections or a longer timeout")
    if state == "42P01" and '"funnelvec.' in message:  # undefined_table, one of ours
        return errors.VersionMismatch(
            f"the database has an older version of funnelvec: {message}; run: funnelvec install URL"
        )
    if state in _BY_SQLSTATE:
        return _BY_SQLSTATE[state](message)
    if state == "42883" and "funnelvec." in message:  # undefined_function
        return errors.VersionMismatch(
            f"the database has another version of funnelvec: {message}; run: funnelvec install URL"
        )
    if state == "42883":
        return errors.NotFound(f"{message}; the funnel may have been dropped meanwhile")
    if isinstance(error, psycopg.OperationalError) and (
        not state or state[:2] in ("08", "28", "3D")
    ):
        return errors.Unreachable(f"cannot use the server: {message}")
    return errors.EngineError(message)


def flushing(pgconn: pq.abc.PGconn) -> Generator[Wait, Ready | int, None]:
    """Wait until libpq has handed over to the socket what it was given, for ``Connection.wait``."""
    while True:
        yield Wait.W
        if pgconn.flush() == 0:
            return


def quoted(*names: str) -> str:
    """Quote names as SQL text, for arguments that SQL functions read as an identifier."""
    return sql.Identifier(*names).as_string(None)


def escaped(text: str) -> LiteralString:
    """Quoted SQL text as part of a statement with parameters, where a per cent sign stands twice.

    It comes from `quoted` or from the catalogue, which is what LiteralString asserts.
    """
    return text.replace("%", "%%")
