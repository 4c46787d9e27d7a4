"""Which source is meant by what a caller of `load` passes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from funnelvec.engines.pieces import is_arrow
from funnelvec.engines.sources import (
    ArraySource,
    IteratorSource,
    Options,
    Source,
    Target,
    open_array,
)
from funnelvec.errors import InvalidInput, NotFound
from funnelvec.kinds import Kind

__all__ = ["open_source"]

_PARQUET = (".parquet", ".pq")
_KNOWN = (
    "a Parquet file or a folder of them, an .npy file, a list of files, Arrow data, an array (n, "
    "d), or an iterator of rows or batches"
)


def open_source(source: Any, target: Target, options: Options) -> Source:
    """Open a source and check its columns.

    Raises
    ------
    InvalidInput
        If it is nothing that rows can be read from, or its columns do not fit.
    NotFound
        If a file or column does not exist.
    MissingDependency
        If it takes pyarrow, which is not installed.
    """
    if isinstance(source, (str, os.PathLike)):
        return _files([source], target, options)
    if isinstance(source, (list, tuple)) and source:
        if all(isinstance(each, (str, os.PathLike)) for each in source):
            return _files(source, target, options)
        if options.ids is not None and not isinstance(options.ids, str):
            return _array(source, options)
    if isinstance(source, np.ndarray):
        return _array(source, options)
    if is_arrow(source):
        from funnelvec.engines import arrow

        if type(source).__name__ in ("Table", "RecordBatch"):
            return arrow.TableSource(arrow.as_table(source), target, options)
        # Some hand over a new stream each time, but not all: it is read once.
        return IteratorSource(arrow.reader_of(source), target, options, what="Arrow stream")
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray, memoryview)):
        try:
            return IteratorSource(source, target, options, what="iterator")
        except TypeError as error:  # an object may say that it can be iterated and then refuse
            raise InvalidInput(f"cannot read rows from {source!r:.100}: {error}") from None
    raise InvalidInput(f"cannot read rows from {source!r:.100}; known are {_KNOWN}")


def _array(source: Any, options: Options) -> ArraySource:
    if isinstance(source, np.memmap) and isinstance(source.filename, (str, os.PathLike)):
        path = Path(source.filename)
        if path.is_file() and source.offset < 4096 and path.suffix == ".npy":
            return ArraySource([source], options, files=(path.resolve(),))
    try:
        return ArraySource([np.asarray(source)], options, files=())
    except (ValueError, TypeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"vectors cannot be read as an array: {error}") from None


def _files(names: Sequence[Any], target: Target, options: Options) -> Source:
    try:
        paths = [Path(name).expanduser().resolve() for name in names]
        found = [each for path in paths for each in _expanded(path, target)]
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL in it, no such user
        if isinstance(error, InvalidInput):
            raise
        raise NotFound(f"cannot open {names!r:.200}: {error}") from None
    suffixes = {path.suffix.lower() for path, _ in found}
    if suffixes <= set(_PARQUET):
        from funnelvec.engines.arrow import ParquetSource

        return ParquetSource(found, target, options)
    if suffixes == {".npy"}:
        arrays = [open_array(path) for path, _ in found]
        return ArraySource(arrays, options, files=tuple(path for path, _ in found))
    raise InvalidInput(
        f"cannot read {', '.join(str(path) for path, _ in found[:3])}: files are all Parquet "
        "(.parquet, .pq) or all .npy"
    )


def _expanded(path: Path, target: Target) -> list[tuple[Path, dict[str, Any]]]:
    """A file itself, or the Parquet files below a folder in the order of their paths."""
    if path.is_file():
        return [(path, {})]
    if not path.is_dir():
        raise NotFound(f"there is no file {str(path)!r}")
    inside = sorted(each for suffix in _PARQUET for each in path.rglob(f"*{suffix}"))
    if not inside:
        raise NotFound(f"there is no Parquet file in {str(path)!r}")
    return [(each, _partition(each.relative_to(path), target)) for each in inside]


def _partition(relative: Path, target: Target) -> dict[str, Any]:
    """Values in names of folders such as ``lang=de``, as data sets in partitions have them."""
    pairs = (folder.split("=", 1) for folder in relative.parts[:-1] if "=" in folder)
    return {name: _read_value(text, target.kinds.get(name)) for name, text in pairs}


def _read_value(text: str, kind: Kind | None) -> Any:
    from urllib.parse import unquote

    text = unquote(text)
    if text == "__HIVE_DEFAULT_PARTITION__":
        return None
    number = kind != "text" and text.removeprefix("-").isdecimal() and text.isascii()
    return int(text) if number else text
