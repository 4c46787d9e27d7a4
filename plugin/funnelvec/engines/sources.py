"""Where `load` takes rows from: arrays, files of arrays, iterators. Files of Arrow are in `arrow`.

A source is read forward, a chunk at a time, and can say the keys of its first rows again, so that
a load which was interrupted can make sure that it goes on with the same rows.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from funnelvec.engines.keys import KeyKind, KeyName
from funnelvec.errors import InvalidInput, NotFound
from funnelvec.kinds import Kind

__all__ = ["ArraySource", "Chunk", "IteratorSource", "Options", "Source", "Target", "fingerprint"]

#: A file up to this size is hashed whole, of a larger one so many blocks of that size.
_WHOLE, _BLOCKS, _BLOCK = 16 << 20, 64, 64 << 10


class Chunk(NamedTuple):
    """Some rows: keys, vectors (n, d), and values of further columns by the table's names."""

    ids: Sequence[Any]
    vectors: Any
    columns: Mapping[str, Sequence[Any]]


class Target(NamedTuple):
    """The table that rows are meant for; `kinds` are those of its further columns."""

    key: KeyName
    key_kind: KeyKind
    vector: str
    dims: int
    kinds: Mapping[str, Kind]


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller says of the columns of a source; None leaves it to the names."""

    ids: Any = None
    vectors: Any = None
    columns: Any = None


class Source(ABC):
    """Rows in an order of their own.

    Attributes
    ----------
    what
        What it is, for messages and names.
    files
        The files it reads, if any.
    total
        How many rows there are, if that is known beforehand.
    own
        Whether only our code runs while it is read, so that another thread may.
    mapping
        Which column of the table comes from which of the source.
    unused
        Columns of the source that the table does not get.
    """

    what: str = "rows"
    files: tuple[Path, ...] = ()
    total: int | None = None
    own: bool = True
    mapping: Mapping[str, str] = {}
    unused: tuple[str, ...] = ()

    @abstractmethod
    def first_key(self) -> Any:
        """Key of the first row as it was given; None without rows."""

    @abstractmethod
    def keys(self, stop: int, size: int) -> Iterator[Sequence[Any]]:
        """Yield the keys of the first `stop` rows; an iterator has then passed them."""

    @abstractmethod
    def chunks(self, start: int, size: int) -> Iterator[Chunk]:
        """Yield all rows from row `start` on, at most `size` at a time."""


class ArraySource(Source):
    """Vectors in an array (n, d), in memory or mapped from files, with keys beside it."""

    def __init__(self, arrays: Sequence[Any], options: Options, *, files: tuple[Path, ...]) -> None:
        if options.vectors is not None:
            raise InvalidInput("vectors= names a column; an array of vectors has none")
        if options.ids is None:
            raise InvalidInput("an array holds vectors alone: give their keys with ids=")
        for array in arrays:
            if array.ndim != 2:
                raise InvalidInput(f"vectors must have the shape (n, d), not {array.shape}")
        self._starts = [0, *itertools.accumulate(len(array) for array in arrays)]
        self._arrays, self.files = arrays, files
        self.what, self.total = ("array files" if files else "array"), self._starts[-1]
        self._ids = _keys_of(options.ids)
        self._columns = _columns_of(options.columns)
        self.mapping = {name: name for name in self._columns}
        for name, values in (("ids", self._ids), *self._columns.items()):
            if len(values) != self.total:
                raise InvalidInput(
                    f"{self.total} vectors, but {len(values)} values of {name}; give one per vector"
                )

    def first_key(self) -> Any:
        """Key of the first row."""
        return self._ids[0] if len(self._ids) else None

    def keys(self, stop: int, size: int) -> Iterator[Sequence[Any]]:
        """Yield the keys of the first rows."""
        for start in range(0, min(stop, len(self._ids)), size):
            yield self._ids[start : min(start + size, stop)]

    def chunks(self, start: int, size: int) -> Iterator[Chunk]:
        """Yield the rows from one on."""
        assert self.total is not None
        for at in range(start, self.total, size):
            to = min(at + size, self.total)
            parts = [
                array[max(0, at - first) : max(0, to - first)]
                for array, first in zip(self._arrays, self._starts, strict=False)
            ]
            parts = [part for part in parts if len(part)]
            vectors = parts[0] if len(parts) == 1 else np.concatenate(parts)
            columns = {name: values[at:to] for name, values in self._columns.items()}
            yield Chunk(self._ids[at:to], vectors, columns)


def _keys_of(ids: Any) -> Any:
    if isinstance(ids, (str, os.PathLike)):
        return open_array(Path(ids))
    if isinstance(ids, bytes) or not hasattr(ids, "__len__") or not hasattr(ids, "__getitem__"):
        raise InvalidInput(f"ids must be a sequence of keys, not {ids!r:.100}")
    return ids


def _columns_of(columns: Any) -> dict[str, Any]:
    if columns is None:
        return {}
    if not isinstance(columns, Mapping) or any(
        isinstance(values, (str, bytes)) or not hasattr(values, "__len__")
        for values in columns.values()
    ):
        raise InvalidInput(
            f"columns beside an array are a mapping of names to sequences, not {columns!r:.100}"
        )
    return dict(columns)


def open_array(path: Path) -> npt.NDArray[Any]:
    """Map the array of an .npy file into memory."""
    if not path.is_file():
        raise NotFound(f"there is no file {str(path)!r}")
    try:
        found: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInput(f"{path} is not a NumPy array file: {error}") from None
    return found


class IteratorSource(Source):
    """An iterator of rows or batches that `piece_of` understands; it can be read once."""

    def __init__(self, items: Any, target: Target, options: Options, *, what: str) -> None:
        from funnelvec.engines.pieces import Pieces

        self.what, self.own = what, False
        self._pieces = Pieces(items, target, options)
        self._pending: deque[Chunk] = deque()
        self._rows = 0  # in `_pending`

    @property
    def unused(self) -> tuple[str, ...]:  # type: ignore[override]
        """Columns that the items so far had and the table does not get."""
        return self._pieces.unused

    @property
    def mapping(self) -> Mapping[str, str]:  # type: ignore[override]
        """As its first item that has names has it; nothing for tuples."""
        return self._pieces.mapping

    def first_key(self) -> Any:
        """Key of the first row."""
        return self._pending[0].ids[0] if self._fill(1) else None

    def keys(self, stop: int, size: int) -> Iterator[Sequence[Any]]:
        """Yield the keys of the first rows."""
        while stop > 0 and self._fill(min(stop, size)):
            chunk = self._take(min(stop, size))
            stop -= len(chunk.ids)
            yield chunk.ids

    def chunks(self, start: int, size: int) -> Iterator[Chunk]:
        """Yield the rows from one on."""
        while self._fill(size):
            yield self._take(size)

    def _fill(self, rows: int) -> bool:
        """Pull items until so many rows are pending, or the end; whether there are any."""
        while self._rows < rows and (piece := self._pieces.pull(rows - self._rows)) is not None:
            self._pending.append(piece)
            self._rows += len(piece.ids)
        return self._rows > 0

    def _take(self, rows: int) -> Chunk:
        parts: list[Chunk] = []
        while rows and self._pending:
            piece = self._pending.popleft()
            if parts and piece.columns.keys() != parts[0].columns.keys():
                self._pending.appendleft(piece)
                break
            if len(piece.ids) > rows:
                self._pending.appendleft(_slice(piece, rows, len(piece.ids)))
                piece = _slice(piece, 0, rows)
            parts.append(piece)
            rows -= len(piece.ids)
            self._rows -= len(piece.ids)
        return _merge(parts)


def _slice(chunk: Chunk, start: int, stop: int) -> Chunk:
    columns = {name: values[start:stop] for name, values in chunk.columns.items()}
    return Chunk(chunk.ids[start:stop], chunk.vectors[start:stop], columns)


def _merge(parts: list[Chunk]) -> Chunk:
    if len(parts) == 1:
        return parts[0]
    return Chunk(
        list(itertools.chain.from_iterable(part.ids for part in parts)),
        np.concatenate([part.vectors for part in parts]),
        {
            name: list(itertools.chain.from_iterable(part.columns[name] for part in parts))
            for name in parts[0].columns
        },
    )


def fingerprint(path: Path) -> dict[str, Any]:
    """What a file is recognised by: name, size, and a hash of its content or of samples of it."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for number in range(_BLOCKS):
                file.seek(number * (size - _BLOCK) // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return {"file": path.name, "bytes": size, "sha256": digest.hexdigest()}
