"""What the items of an iterator mean: rows and batches, as tuples, mappings or Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from funnelvec.engines.keys import key_names
from funnelvec.engines.sources import Chunk, Options, Target
from funnelvec.errors import InvalidInput, NotFound

__all__ = ["Naming", "Pieces", "is_arrow"]

_SHAPES = (
    "(key, vector), (key, vector, {column: value}), a mapping by column name, the same with many "
    "rows (keys, vectors (n, d), {column: values}), or an Arrow RecordBatch"
)


class Naming:
    """Which column of a source goes where, by the caller's words or by equal names.

    Attributes
    ----------
    ids, vector
        Columns of the source with the parts of the key, and with the vectors.
    columns
        Further columns of the source, by the table's name for them.
    unused
        Columns of the source that the table does not get.
    """

    def __init__(self, present: Sequence[str], target: Target, options: Options) -> None:
        names = key_names(target.key)
        self.ids = _names(options.ids, names, "ids")
        if len(self.ids) != len(names):
            raise InvalidInput(
                f"ids names {len(self.ids)} columns, the key has {len(names)} ({', '.join(names)})"
            )
        self.vector = _names(options.vectors, (target.vector,), "vectors")[0]
        for option, name in (*(("ids", name) for name in self.ids), ("vectors", self.vector)):
            if name not in present:
                raise NotFound(
                    f"the source has no column {name!r}; say which one it is with {option}= "
                    f"(columns: {', '.join(map(str, present))})"
                )
        self.columns = _further(present, target, options.columns, {*self.ids, self.vector})
        used = {*self.ids, self.vector, *self.columns.values()}
        self.unused = tuple(name for name in present if name not in used)

    @property
    def mapping(self) -> dict[str, str]:
        """All of it, for the record of a load."""
        return {"ids": ", ".join(self.ids), "vectors": self.vector, **self.columns}


def _names(given: Any, default: Sequence[str], option: str) -> tuple[str, ...]:
    listed = default if given is None else (given,) if isinstance(given, str) else given
    if not isinstance(listed, (tuple, list)) or not all(isinstance(n, str) for n in listed):
        raise InvalidInput(f"{option} names columns of the source here, not {given!r:.100}")
    if not listed:
        raise InvalidInput(f"{option} names no column")
    return tuple(listed)


def _further(present: Sequence[str], target: Target, given: Any, taken: set[str]) -> dict[str, str]:
    if given is None:
        return {name: name for name in present if name in target.kinds and name not in taken}
    if not isinstance(given, Mapping):
        given = {name: name for name in _names(given, (), "columns")} if given else {}
    own = (*key_names(target.key), target.vector)
    for name, origin in given.items():
        if name in own:
            raise InvalidInput(f"column {name!r} is given twice: in columns, and as ids or vectors")
        if name not in target.kinds:
            known = ", ".join(sorted(target.kinds)) or "none"
            raise NotFound(f"column {name!r} does not exist; other columns of the table: {known}")
        if origin not in present:
            raise NotFound(
                f"the source has no column {origin!r} (columns: {', '.join(map(str, present))})"
            )
    return dict(given)


class Pieces:
    """Turns the items of an iterator into chunks, whole batches or rows gathered."""

    def __init__(self, items: Any, target: Target, options: Options) -> None:
        self._items: Iterator[Any] = iter(items)
        self._target, self._options = target, options
        self._naming: Naming | None = None
        self._shape: tuple[str, ...] = ()
        self._next: Any = None  # an item that was pulled and not used yet
        self._row = 0
        self._names: frozenset[str] | None = None  # columns of single rows: the same in all
        self.unused: tuple[str, ...] = ()
        self.mapping: Mapping[str, str] = {}

    def pull(self, rows: int) -> Chunk | None:
        """Return the next batch, or up to so many single rows; None at the end."""
        gathered: list[tuple[Any, Any, Mapping[str, Any]]] = []
        while len(gathered) < rows:
            item = self._next if self._next is not None else next(self._items, None)
            self._next = None
            if item is None:
                break
            found = self._read(item)
            if isinstance(found, Chunk) and gathered:
                self._next = item
                break
            if isinstance(found, Chunk):
                if not len(found.ids):
                    continue
                self._row += len(found.ids)
                return found
            names = frozenset(found[2])
            if self._names not in (None, names):
                raise InvalidInput(
                    f"row {self._row}: columns {sorted(names)}, in the row before "
                    f"{sorted(self._names or ())}; give every row the same, None for a missing "
                    "value"
                )
            self._names = names
            gathered.append(found)
            self._row += 1
        if not gathered:
            return None
        ids, vectors, columns = zip(*gathered, strict=True)
        given = {name: [row[name] for row in columns] for name in columns[0]}
        return Chunk(ids, np.stack(vectors), given)

    def _read(self, item: Any) -> Any:
        if is_arrow(item):
            from funnelvec.engines import arrow

            table = arrow.as_table(item)
            naming = self._named(table.column_names)
            return arrow.chunk(table, naming, self._target, first=self._row)
        if isinstance(item, Mapping):
            naming = self._named(list(item))
            parts = [item[name] for name in naming.ids]
            vector = item[naming.vector]
            columns = {name: item[origin] for name, origin in naming.columns.items()}
            many = _dimensions(vector) == 2
            if len(parts) == 1:
                ids = parts[0]
            else:
                ids = list(zip(*parts, strict=True)) if many else tuple(parts)
            return self._piece(ids, vector, columns)
        if isinstance(item, (tuple, list)) and len(item) in (2, 3):
            columns = item[2] if len(item) == 3 and item[2] is not None else {}
            if not isinstance(columns, Mapping):
                raise InvalidInput(
                    f"row {self._row}: the third part is no mapping: {columns!r:.80}"
                )
            return self._piece(item[0], item[1], columns)
        raise InvalidInput(f"row {self._row}: {item!r:.80} is no row; an item is {_SHAPES}")

    def _named(self, present: Sequence[str]) -> Naming:
        shape = tuple(present)
        if self._naming is None or shape != self._shape:
            try:
                self._naming = Naming(shape, self._target, self._options)
            except NotFound as error:
                raise NotFound(f"row {self._row}: {error}") from None
            self._shape, self.unused = shape, self._naming.unused
            self.mapping = self.mapping or self._naming.mapping
        return self._naming

    def _piece(self, ids: Any, vectors: Any, columns: Mapping[str, Any]) -> Any:
        dims = self._target.dims
        try:
            array = np.asarray(vectors)
        except Exception as error:  # numpy asks the object itself, which may answer with any error
            raise InvalidInput(f"row {self._row}: no vector: {error}") from None
        if array.ndim not in (1, 2) or array.shape[-1] != dims:
            raise InvalidInput(
                f"row {self._row}: the vector has the shape {array.shape}, the column has {dims} "
                "dimensions"
            )
        if array.ndim == 1:
            return ids, array, columns
        for name, values in (("keys", ids), *columns.items()):
            if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
                raise InvalidInput(f"row {self._row}: {name} of a batch are no sequence")
            if len(values) != len(array):
                raise InvalidInput(
                    f"row {self._row}: a batch of {len(array)} vectors with {len(values)} {name}"
                )
        return Chunk(ids, array, columns)


def _dimensions(vector: Any) -> int:
    try:
        return int(np.ndim(vector))
    except Exception:  # ragged, or an object that answers with any error; `_piece` says so
        return 1


def is_arrow(item: Any) -> bool:
    """Whether it is Arrow data, from any library that can hand it over."""
    return hasattr(item, "__arrow_c_stream__") or hasattr(item, "__arrow_c_array__")
