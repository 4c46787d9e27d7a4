"""Rows from Arrow tables and Parquet files, checked against the columns they are meant for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.engines.keys import key_names
from funnelvec.engines.pieces import Naming
from funnelvec.engines.sources import Chunk, Options, Source, Target
from funnelvec.errors import InvalidInput, MissingDependency, NotFound
from funnelvec.kinds import Kind, element_kind

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingDependency.of("pyarrow", extra="arrow") from error

__all__ = ["ParquetSource", "TableSource", "as_table", "chunk", "reader_of"]

#: Parquet is read through a buffer of this size: else a whole column of a row group is, at once.
_BUFFER = 4 << 20


def as_table(data: Any) -> Any:
    """Return a ``pyarrow.Table`` of what is Arrow data."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    return reader_of(data).read_all()


def reader_of(data: Any) -> Any:
    """Return a ``pyarrow.RecordBatchReader`` of what hands over an Arrow stream."""
    if isinstance(data, pa.RecordBatchReader):
        return data
    try:
        if hasattr(data, "__arrow_c_stream__"):
            return pa.RecordBatchReader.from_stream(data)
        return pa.Table.from_batches([pa.record_batch(data)]).to_reader()
    except Exception as error:  # the object's own code runs here
        raise InvalidInput(f"{type(data).__name__} holds no rows of Arrow: {error}") from None


def chunk(table: Any, naming: Naming, target: Target, *, first: int) -> Chunk:
    """Turn an Arrow table into a chunk; `first` is the number of its first row, for messages.

    Raises
    ------
    InvalidInput
        If a column has a type that the table's column cannot take, a vector is missing, has a
        missing number or another width.
    """
    kinds = dict(zip(key_names(target.key), _key_kinds(target), strict=True))
    parts = [
        _values(table.column(origin), origin, kinds[name], first)
        for name, origin in zip(kinds, naming.ids, strict=True)
    ]
    columns = {
        name: _values(table.column(origin), origin, target.kinds[name], first)
        for name, origin in naming.columns.items()
    }
    vectors = _vectors(table.column(naming.vector), naming.vector, target.dims, first)
    ids = parts[0] if len(parts) == 1 else list(zip(*parts, strict=True))
    return Chunk(ids, vectors, columns)


def _key_kinds(target: Target) -> Sequence[Kind]:
    return (target.key_kind,) if isinstance(target.key_kind, str) else target.key_kind


def _vectors(column: Any, name: str, dims: int, first: int) -> npt.NDArray[Any]:
    array = _plain(column)
    kind = array.type
    if not _is_list(kind) or not pa.types.is_floating(kind.value_type):
        raise InvalidInput(
            f"column {name!r} of the source is {kind}; vectors are lists of float32, float64 or "
            "float16, of a fixed size or not"
        )
    for row in _rows(pc.is_null(array)):
        raise InvalidInput(f"column {name!r}, row {first + row}: the vector is null")
    lengths = pc.list_value_length(array)
    for row in _rows(pc.not_equal(lengths, dims)):
        raise InvalidInput(
            f"column {name!r}, row {first + row}: the vector has {lengths[row]} numbers, the "
            f"table's column has {dims} dimensions"
        )
    flat = array.flatten()
    for place in _rows(pc.is_null(flat))[:1] if flat.null_count else ():
        row, position = divmod(int(place), dims)
        raise InvalidInput(
            f"column {name!r}, row {first + row}: the number at position {position} is null"
        )
    numbers: npt.NDArray[Any] = flat.to_numpy(zero_copy_only=False)
    return numbers.reshape(len(array), dims)


def _plain(column: Any) -> Any:
    """One array of the storage type: chunks joined, dictionaries and extensions resolved."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # of no chunk, or too large for one
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _rows(test: Any) -> npt.NDArray[np.intp]:
    found: npt.NDArray[np.bool_] = test.to_numpy(zero_copy_only=False).astype(np.bool_)
    return np.flatnonzero(found)


def _values(column: Any, name: str, kind: Kind, first: int) -> Sequence[Any]:
    array = _plain(column)
    if pa.types.is_null(array.type):
        return [None] * len(array)
    if not _fits(array.type, kind):
        raise InvalidInput(
            f"column {name!r} of the source is {array.type}, the table's holds {kind} values"
        )
    if pa.types.is_fixed_size_binary(array.type):
        return [None if value is None else _uuid(value) for value in array.to_pylist()]
    if pa.types.is_timestamp(array.type):
        try:
            array = array.cast(pa.timestamp("us", array.type.tz))
        except pa.ArrowInvalid:
            raise InvalidInput(
                f"column {name!r}, rows from {first} on: times finer than a microsecond; cast "
                "them first"
            ) from None
    if kind == "json" and _is_text(array.type):
        return [_parsed(text, name, row) for row, text in enumerate(array.to_pylist(), first)]
    if array.null_count == 0 and (pa.types.is_integer(array.type)):
        numbers: Sequence[Any] = array.to_numpy(zero_copy_only=False)
        return numbers
    listed: list[Any] = array.to_pylist()
    return listed


def _parsed(text: str | None, name: str, row: int) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"column {name!r}, row {row}: no JSON: {error}") from None


def _uuid(value: bytes) -> uuid.UUID | bytes:
    return uuid.UUID(bytes=value) if len(value) == 16 else value


def _is_text(kind: Any) -> bool:
    views = getattr(pa.types, "is_string_view", lambda _: False)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or views(kind))


def _is_uuid(kind: Any) -> bool:
    return bool(pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16)


def _fits(given: Any, kind: Kind) -> bool:
    element = element_kind(kind)
    if element is None:
        return any(test(given) for test in _FITS[kind])
    if not _is_list(given):
        return False
    inside = given.value_type
    # What Arrow gives as bytes, or finer than a microsecond, is only converted column by column.
    if _is_uuid(inside) or (pa.types.is_timestamp(inside) and inside.unit == "ns"):
        return False
    return any(test(inside) for test in _FITS[element])


def _is_list(kind: Any) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)

#: Kind of the table's column: the Arrow types that it takes. Texts are read as ISO, or as JSON,
#: where they are no texts.
_FITS: dict[Kind, tuple[Any, ...]] = {
    "integer": (pa.types.is_integer,),
    "number": _NUMBERS,
    "numeric": _NUMBERS,
    "json": (
        _is_text,
        _is_list,
        pa.types.is_struct,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
    ),
    "text": (_is_text,),
    "boolean": (pa.types.is_boolean,),
    "date": (pa.types.is_date, _is_text),
    "timestamp": (pa.types.is_timestamp, pa.types.is_date, _is_text),
    "uuid": (_is_uuid, _is_text),
}


class TableSource(Source):
    """An Arrow table or record batch in memory."""

    def __init__(self, table: Any, target: Target, options: Options) -> None:
        self._table, self._target = table, target
        self._naming = Naming(table.column_names, target, options)
        self.what, self.total = "Arrow table", table.num_rows
        self.mapping, self.unused = self._naming.mapping, self._naming.unused
        chunk(table.slice(0, 0), self._naming, target, first=0)  # the types, before any row

    def first_key(self) -> Any:
        """Key of the first row."""
        return _first(self.keys(1, 1))

    def keys(self, stop: int, size: int) -> Iterator[Sequence[Any]]:
        """Yield the keys of the first rows."""
        table = self._table.select(list(dict.fromkeys(self._naming.ids)))
        for start in range(0, min(stop, table.num_rows), size):
            part = table.slice(start, min(size, stop - start))
            yield _keys(part, self._naming, self._target, start)

    def chunks(self, start: int, size: int) -> Iterator[Chunk]:
        """Yield the rows from one on."""
        for at in range(start, self._table.num_rows, size):
            yield chunk(self._table.slice(at, size), self._naming, self._target, first=at)


def _keys(table: Any, naming: Naming, target: Target, first: int) -> Sequence[Any]:
    parts = [
        _values(table.column(origin), origin, kind, first)
        for origin, kind in zip(naming.ids, _key_kinds(target), strict=True)
    ]
    return parts[0] if len(parts) == 1 else list(zip(*parts, strict=True))


def _first(chunks: Iterator[Sequence[Any]]) -> Any:
    return next((ids[0] for ids in chunks if len(ids)), None)


class ParquetSource(Source):
    """Parquet files, one after the other.

    `files` are pairs of a path and the values that a partitioned data set has in its folders'
    names.
    """

    def __init__(
        self, files: Sequence[tuple[Path, dict[str, Any]]], target: Target, options: Options
    ) -> None:
        self._target, self._constants = target, [constants for _, constants in files]
        self.files, self.what = tuple(path for path, _ in files), "Parquet files"
        self._counts: list[int] = []
        self._naming: Naming | None = None
        for path, constants in files:
            schema, rows = self._look(path)
            names = [*schema.names, *(name for name in constants if name not in schema.names)]
            try:
                naming = Naming(names, target, options)
                if self._naming is not None and naming.mapping != self._naming.mapping:
                    raise InvalidInput("other columns than the files before it")
                chunk(_constant(schema.empty_table(), constants), naming, target, first=0)
            except (InvalidInput, NotFound) as error:
                raise type(error)(f"{path}: {error}") from None
            self._naming = naming
            self._counts.append(rows)
        assert self._naming is not None
        self.total = sum(self._counts)
        self.mapping, self.unused = self._naming.mapping, self._naming.unused

    @staticmethod
    def _look(path: Path) -> tuple[Any, int]:
        with _opened(path) as file:
            return file.schema_arrow, file.metadata.num_rows

    def first_key(self) -> Any:
        """Key of the first row."""
        return _first(self.keys(1, 1))

    def keys(self, stop: int, size: int) -> Iterator[Sequence[Any]]:
        """Yield the keys of the first rows."""
        assert self._naming is not None
        names = list(dict.fromkeys(self._naming.ids))
        for at, table in self._tables(0, stop, size, names):
            yield _keys(table, self._naming, self._target, at)

    def chunks(self, start: int, size: int) -> Iterator[Chunk]:
        """Yield the rows from one on."""
        naming = self._naming
        assert naming is not None and self.total is not None
        names = list(dict.fromkeys([*naming.ids, naming.vector, *naming.columns.values()]))
        for at, table in _gathered(self._tables(start, self.total, size, names), size):
            yield chunk(table, naming, self._target, first=at)

    def _tables(
        self, start: int, stop: int, size: int, names: list[str]
    ) -> Iterator[tuple[int, Any]]:
        """Yield pieces of the rows from `start` to `stop`, with the number of their first row."""
        first = 0
        for path, constants, count in zip(self.files, self._constants, self._counts, strict=True):
            last, at = first + count, max(first, start)
            if last > start and first < stop:
                present = [name for name in names if name not in constants]
                for table in _read(path, present, at - first, size):
                    part = table.slice(0, stop - at)
                    if part.num_rows:
                        yield at, _constant(part, constants)
                    at += part.num_rows
                    if at >= stop:
                        return
            first = last


def _gathered(pieces: Iterator[tuple[int, Any]], size: int) -> Iterator[tuple[int, Any]]:
    """Cut pieces anew into `size` rows, as long as they are of one type: files may be small."""
    first, held = 0, None
    for at, piece in pieces:
        if held is not None and held.schema != piece.schema:
            yield first, held
            held = None
        first = at if held is None else first
        held = piece if held is None else pa.concat_tables([held, piece])
        while held.num_rows >= size:
            yield first, held.slice(0, size)
            first, held = first + size, held.slice(size)
    if held is not None and held.num_rows:
        yield first, held


def _constant(table: Any, constants: dict[str, Any]) -> Any:
    for name, value in constants.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.array([value] * table.num_rows, _type_of(value)))
    return table


def _type_of(value: Any) -> Any:
    return pa.scalar(value).type


def _opened(path: Path) -> Any:
    try:
        return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"{path} is not a Parquet file: {error}") from None


def _read(path: Path, names: list[str], start: int, size: int) -> Iterator[Any]:
    """Yield tables of at most `size` rows from row `start` on; row groups before are not read."""
    with _opened(path) as file:
        groups = list(range(file.metadata.num_row_groups))
        while groups and start >= file.metadata.row_group(groups[0]).num_rows:
            start -= file.metadata.row_group(groups.pop(0)).num_rows
        if not groups:
            return
        for batch in file.iter_batches(size, row_groups=groups, columns=names):
            table = pa.Table.from_batches([batch]).slice(min(start, batch.num_rows))
            start -= min(start, batch.num_rows)
            if table.num_rows:
                yield table
