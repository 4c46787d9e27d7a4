"""Vectors to measure with: a file of the user's, or a generator with a stated spectrum.

Queries never stand in the table they search: a stored vector finds itself, which flatters every
contestant (PEERS.md, pitfall 14). They come from a file of their own, or are held out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.engines import checks
from funnelvec.errors import InvalidInput, MissingDependency, NotFound
from funnelvec.fitting.axes import random_orthogonal

__all__ = [
    "SPECTRUM",
    "Dataset",
    "generate",
    "load",
    "read_spectrum",
    "read_vectors",
    "rotated",
    "spectrum",
]

Matrix = npt.NDArray[np.float32]

#: Variance of dimension i, from 1. The first 64, 128, 256 and 512 of 1,536 dimensions then hold
#: 0.59, 0.77, 0.91 and 0.98 of it; a PCA of real 1,536-dimension text embeddings has 0.61, 0.77,
#: 0.93 and 0.99. Independent equal dimensions would test nothing: no prefix says anything then.
SPECTRUM = "variance(i) ~ i^-0.5 * exp(-i/170)"

_BATCH = 4096
_DIMS = 1_536


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


def rotated(dataset: Dataset, *, seed: int = 0) -> Dataset:
    """The same vectors under a random orthogonal matrix.

    It changes no cosine, and takes from a prefix what it knew.
    """
    turn = random_orthogonal(dataset.dims, seed).astype(np.float32)
    return replace(
        dataset,
        rows=dataset.rows @ turn,
        queries=dataset.queries @ turn,
        note=f"{dataset.note}; under a random rotation",
    )


def spectrum(dims: int) -> npt.NDArray[np.float64]:
    """Variance of each of `dims` dimensions, summing to 1; see `SPECTRUM`."""
    i = np.arange(1, dims + 1, dtype=np.float64)
    variance = np.exp(-i / 170) / np.sqrt(i)
    share: npt.NDArray[np.float64] = variance / variance.sum()
    return share


def read_spectrum(text: str, *, dims: int | None = None) -> tuple[npt.NDArray[np.float64], str]:
    """Variances summing to 1, and what they are.

    Parameters
    ----------
    text
        ``power`` or ``power:EXPONENT``, where dimension i has the variance ``i ** -EXPONENT``
        (1 if none is given); else an ``.npy`` file of eigenvalues.
    dims
        How many: as many as the file has if None, and 1,536 for a power. The largest of a file.

    Raises
    ------
    NotFound
        If there is no such file.
    InvalidInput
        If it does not hold finite numbers, none below zero and some above, or too few.
    """
    if text == "power" or text.startswith("power:"):
        given = text.partition(":")[2] or "1"
        try:
            exponent = float(given)
        except ValueError:
            exponent = np.nan
        if not 0 <= exponent <= 10:
            raise InvalidInput(f"the exponent of a power is a number from 0 to 10, not {given!r}")
        values = np.arange(1, (dims or _DIMS) + 1, dtype=np.float64) ** -exponent
        return values / values.sum(), f"variance(i) ~ i^-{exponent:g}"
    file = Path(text)
    if not file.is_file():
        raise NotFound(f"there is no file {text!r}, and a spectrum is a file or 'power'")
    found = _read_npy(file)
    if found.ndim != 1 or found.dtype.kind not in "fiu":
        raise InvalidInput(f"{file} must hold one row of eigenvalues, not shape {found.shape}")
    values = np.sort(found.astype(np.float64))[::-1]
    if not (np.isfinite(values).all() and len(values) and values[-1] >= 0 and values[0] > 0):
        raise InvalidInput(f"{file} must hold finite eigenvalues, none below 0 and some above")
    if dims is not None and dims > len(values):
        raise InvalidInput(f"{file} holds {len(values):,} eigenvalues, fewer than {dims:,}")
    values = values[:dims]
    return values / values.sum(), f"eigenvalues of {file.name}"


def generate(
    rows: int = 20_000,
    queries: int = 100,
    *,
    dims: int | None = None,
    seed: int = 0,
    spectrum_of: str | None = None,
) -> Dataset:
    """Draw rows and queries independently from one normal distribution, scaled to unit length.

    The same arguments give the same vectors.

    Parameters
    ----------
    dims
        Width; 1,536 if None, or what the spectrum has.
    spectrum_of
        Variances of the dimensions, as `read_spectrum` takes them; None takes `SPECTRUM`.
    """
    if min(rows, queries, 1 if dims is None else dims) < 1:
        raise InvalidInput(
            f"cannot generate {rows} rows and {queries} queries of {dims} dimensions"
        )
    if spectrum_of is None:
        variances, said = spectrum(dims or _DIMS), SPECTRUM
    else:
        variances, said = read_spectrum(spectrum_of, dims=dims)
    rng = np.random.default_rng(seed)
    deviation = np.sqrt(variances).astype(np.float32)
    return Dataset(
        name=f"generated, {len(variances):,} dimensions",
        rows=_draw(rng, rows, deviation),
        queries=_draw(rng, queries, deviation),
        note=f"normal, {said}, unit length, seed {seed}; queries are draws of their own",
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
        found = _read_npy(file)
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


def _read_npy(file: Path) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInput(f"{file} is not a NumPy array file: {error}") from None
    return found


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
