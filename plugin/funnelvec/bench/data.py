"""Vectors to measure with: a file of the user's, or a generator with a stated spectrum.

Queries never stand in the table they search: a stored vector finds itself, which flatters every
contestant (PEERS.md, pitfall 14). They come from a file of their own, or are held out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.engines import checks
from funnelvec.errors import InvalidInput, MissingDependency, NotFound

__all__ = ["SPECTRUM", "Dataset", "generate", "load", "read_vectors", "spectrum"]

Matrix = npt.NDArray[np.float32]

#: Variance of dimension i, from 1. The first 64, 128, 256 and 512 of 1,536 dimensions then hold
#: 0.59, 0.77, 0.91 and 0.98 of it; a PCA of real 1,536-dimension text embeddings has 0.61, 0.77,
#: 0.93 and 0.99. Independent equal dimensions would test nothing: no prefix says anything then.
SPECTRUM = "variance(i) ~ i^-0.5 * exp(-i/170)"

_BATCH = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Rows (n, d) and queries (m, d), float32; `note` says where they come from."""

    name: str
    rows: Matrix
    queries: Matrix
    note: str

    @property
    def dims(self) -> int:
        """Width of the vectors."""
        return int(self.rows.shape[1])


def spectrum(dims: int) -> npt.NDArray[np.float64]:
    """Variance of each of `dims` dimensions, summing to 1; see `SPECTRUM`."""
    i = np.arange(1, dims + 1, dtype=np.float64)
    variance = np.exp(-i / 170) / np.sqrt(i)
    share: npt.NDArray[np.float64] = variance / variance.sum()
    return share


def generate(
    rows: int = 20_000, queries: int = 100, *, dims: int = 1_536, seed: int = 0
) -> Dataset:
    """Draw rows and queries independently from one normal distribution, scaled to unit length.

    The same arguments give the same vectors.
    """
    if min(rows, queries, dims) < 1:
        raise InvalidInput(
            f"cannot generate {rows} rows and {queries} queries of {dims} dimensions"
        )
    rng = np.random.default_rng(seed)
    deviation = np.sqrt(spectrum(dims)).astype(np.float32)
    return Dataset(
        name=f"generated, {dims:,} dimensions",
        rows=_draw(rng, rows, deviation),
        queries=_draw(rng, queries, deviation),
        note=f"normal, {SPECTRUM}, unit length, seed {seed}; queries are draws of their own",
    )


def _draw(rng: np.random.Generator, count: int, deviation: npt.NDArray[np.float32]) -> Matrix:
    drawn = np.empty((count, len(deviation)), dtype=np.float32)
    for start in range(0, count, _BATCH):
        part = drawn[start : start + _BATCH]
        rng.standard_normal(out=part, dtype=np.float32)
        part *= deviation
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return drawn


def load(
    path: str | os.PathLike[str],
    *,
    column: str | None = None,
    queries_path: str | os.PathLike[str] | None = None,
    rows: int | None = None,
    queries: int = 100,
    seed: int = 0,
) -> Dataset:
    """Read vectors from a file, and queries from another or held out of the same.

    Parameters
    ----------
    path, queries_path
        ``.npy`` (n, d), or Parquet with a column of lists.
    column
        Which column of the Parquet files; not needed where there is only one of lists.
    rows
        At most so many rows, drawn at random; None takes all.
    queries
        At most so many queries, drawn at random.

    Raises
    ------
    NotFound
        If there is no such file or column.
    InvalidInput
        If it does not hold finite vectors of one width, none of them zero, or holds too few.
    """
    vectors, kind = read_vectors(path, column=column)
    name = Path(path).name
    rng = np.random.default_rng(seed)
    if queries_path is not None:
        asked, _ = read_vectors(queries_path, column=column)
        if asked.shape[1] != vectors.shape[1]:
            raise InvalidInput(
                f"{queries_path} has {asked.shape[1]} dimensions, {path} has {vectors.shape[1]}"
            )
        asked, vectors = _sample(rng, asked, queries), _sample(rng, vectors, rows)
        origin = f"queries from {Path(queries_path).name}"
    else:
        count = min(queries, len(vectors) // 2)
        order = rng.permutation(len(vectors))
        asked, rest = vectors[order[:count]], np.sort(order[count:])
        vectors = _sample(rng, vectors[rest], rows)
        origin = "queries are rows held out"
    if len(vectors) < 2 or len(asked) < 1:
        raise InvalidInput(f"{path} holds too few vectors to search among ({len(vectors)} rows)")
    return Dataset(name, vectors, asked, f"{kind}; {origin}; seed {seed}")


def _sample(rng: np.random.Generator, vectors: Matrix, count: int | None) -> Matrix:
    if count is None or count >= len(vectors):
        return vectors
    if count < 1:
        raise InvalidInput(f"cannot take {count} rows; take at least 2")
    return vectors[np.sort(rng.choice(len(vectors), count, replace=False))]


def read_vectors(path: str | os.PathLike[str], *, column: str | None = None) -> tuple[Matrix, str]:
    """Read one file as (n, d) float32, with a word on what was in it."""
    file = Path(path)
    if not file.is_file():
        raise NotFound(f"there is no file {str(path)!r}")
    if file.suffix == ".npy":
        try:
            found: Any = np.load(file, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InvalidInput(f"{file} is not a NumPy array file: {error}") from None
    elif file.suffix in (".parquet", ".pq"):
        found = _read_parquet(file, column)
    else:
        raise InvalidInput(f"{file} is neither .npy nor .parquet; convert it to one of them")
    if found.ndim != 2 or 0 in found.shape:
        raise InvalidInput(f"{file} holds an array of shape {found.shape}; it must be (rows, dims)")
    try:
        matrix = checks.check_matrix(found, dims=found.shape[1], rows=len(found))
    except InvalidInput as error:
        raise InvalidInput(f"{file}: {error}") from None
    kind = f"{file.suffix[1:]} of {found.dtype}"
    if found.dtype.kind in "iu":
        kind += ", taken as they are (cosine ignores a scale)"
    return matrix, kind


def _read_parquet(file: Path, column: str | None) -> npt.NDArray[Any]:
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependency.of("pyarrow", extra="bench") from error
    try:
        schema = pq.read_schema(file)
        kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        lists = [field.name for field in schema if any(kind(field.type) for kind in kinds)]
        name = _pick(file, lists, column)
        values = pq.read_table(file, columns=[name]).column(name).combine_chunks()
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"{file} is not a Parquet file: {error}") from None
    widths = pc.unique(pc.list_value_length(values)).to_pylist()
    if len(values) == 0 or values.null_count or len(widths) != 1:
        raise InvalidInput(
            f"column {name!r} of {file} must hold lists of one length and no nulls; "
            f"lengths found: {', '.join(map(str, widths[:5])) or 'none'}"
        )
    flat: npt.NDArray[Any] = np.asarray(values.flatten().to_numpy(zero_copy_only=False))
    return flat.reshape(len(values), widths[0])


def _pick(file: Path, lists: list[str], column: str | None) -> str:
    if column is None and len(lists) == 1:
        return lists[0]
    known = ", ".join(lists) or "none"
    if column is None:
        raise InvalidInput(f"{file} has several columns of lists or none ({known}): use --column")
    if column not in lists:
        raise NotFound(f"{file} has no column {column!r} of lists; it has: {known}")
    return column
