"""The open evaluation sets that papers are measured on; what is not there is skipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from funnelvec.bench.data import generate
from funnelvec.bench.relevance_data import read_columns
from funnelvec.errors import NotFound

__all__ = [
    "Graded",
    "Labelled",
    "Matrix",
    "Plain",
    "generated",
    "graded",
    "labelled",
    "plain",
    "units",
]

Matrix = npt.NDArray[np.float32]

#: Where each set of vectors without judgments lies: rows, queries.
_PLAIN = {
    "highdim1536": ("docs.i8.npy", "queries.f16.npy"),
    "scale_arxiv": ("docs.wordllama256.i8.npy", "queries.wordllama256.f16.npy"),
    "dbpedia_entity": ("docs.minilm384.i8.npy", "queries.minilm384.f16.npy"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """Unit vectors (n, d) and queries (m, d), float32."""

    name: str
    rows: Matrix
    queries: Matrix


@dataclass(frozen=True, slots=True, eq=False)
class Labelled(Plain):
    """The same with a class (n,) and (m,): what has the query's class is what it wants."""

    row_labels: npt.NDArray[np.int64]
    query_labels: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Graded(Plain):
    """The same with human grades: (j, 3) of query, row and grade."""

    judged: npt.NDArray[np.int64]


def units(vectors: npt.NDArray[np.generic]) -> Matrix:
    """Scaled to unit length; a zero vector stays one."""
    wide = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    found: Matrix = wide / np.where(lengths > 0, lengths, np.float32(1))
    return found


def generated(*, rows: int, queries: int, dims: int) -> Plain:
    """Drawn vectors, where no file is given."""
    drawn = generate(rows, queries, dims=dims)
    return Plain(drawn.name, drawn.rows, drawn.queries)


def plain(folder: Path | None, name: str, *, rows: int, queries: int) -> Plain:
    """The first rows and queries of a set.

    Raises
    ------
    NotFound
        If it is not there.
    """
    of_rows, of_queries = _PLAIN[name]
    return Plain(
        name,
        units(_array(folder, name, of_rows)[:rows]),
        units(_array(folder, name, of_queries)[:queries]),
    )


def labelled(folder: Path | None, vectors: str, *, queries: int) -> Labelled:
    """CLINC150 by intent: the training split is searched with the test split.

    Raises
    ------
    NotFound
        If it is not there.
    """
    found = units(_array(folder, "clinc", vectors))
    intents, split, outside = read_columns(
        _file(folder, "clinc", "texts.parquet"), "intent", "split", "oos"
    )
    numbers = np.unique(intents, return_inverse=True)[1].astype(np.int64)
    rows = np.flatnonzero((split == "train") & ~outside)
    asked = np.flatnonzero((split == "test") & ~outside)
    asked = asked[np.linspace(0, len(asked) - 1, min(queries, len(asked))).astype(np.intp)]
    name = f"clinc by intent, {vectors.partition('.')[0]}"
    return Labelled(name, found[rows], found[asked], numbers[rows], numbers[asked])


def graded(folder: Path | None) -> Graded:
    """CSFCube: papers judged by people from 0 to 3.

    Raises
    ------
    NotFound
        If it is not there.
    """
    rows = units(_array(folder, "csfcube", "docs.minilm384.f16.npy"))
    queries = units(_array(folder, "csfcube", "queries.minilm384.f16.npy"))
    file = _file(folder, "csfcube", "qrels.tsv")
    judged = np.loadtxt(file, skiprows=1, dtype=np.int64, delimiter="\t")
    return Graded("csfcube, minilm384", rows, queries, judged)


def _array(folder: Path | None, name: str, file: str) -> npt.NDArray[np.generic]:
    found: npt.NDArray[np.generic] = np.load(_file(folder, name, file), mmap_mode="r")
    return found


def _file(folder: Path | None, name: str, file: str) -> Path:
    if folder is None:
        raise NotFound(f"{name} needs the folder of the open sets: --data DIR")
    path = folder / name / file
    if not path.is_file():
        raise NotFound(f"{name}: there is no file {path}")
    return path
