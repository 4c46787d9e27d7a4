"""The judged sets of the relevance figures: candidates, labels and what cannot be answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.candidates import Candidates
from funnelvec.calibration.corpus import CorpusStats
from funnelvec.calibration.row_stats import SAMPLE, RowStats
from funnelvec.errors import InvalidInput, MissingDependency

__all__ = ["SETS", "RelevanceSet", "load_set", "read_columns"]

SETS = ("csfcube", "csfcube grade 2", "dbpedia_entity", "clinc", "clinc imbalanced", "squad")


@dataclass(frozen=True, slots=True, eq=False)
class RelevanceSet:
    """One judged set.

    Attributes
    ----------
    candidates
        The exact top 200 of every query.
    judged
        (n,) bool: queries that relevance is measured on.
    answered
        (n,) bool: what abstention is to tell, or None.
    intents
        (n,) numbers of what the query wants, -1 for nothing; None where it has no such name.
    """

    name: str
    candidates: Candidates
    judged: npt.NDArray[np.bool_]
    answered: npt.NDArray[np.bool_] | None = None
    intents: npt.NDArray[np.int64] | None = None


def load_set(name: str, folder: Path, *, limit: int | None = None) -> RelevanceSet:
    """Read one of `SETS` from the folder of the open evaluation data.

    With a `limit`, no more than so many of its queries, spread over all of them.

    Raises
    ------
    InvalidInput
        If there is no such set, or one of its files is not there.
    """
    loaders: dict[str, Callable[[Path], RelevanceSet]] = {
        "csfcube": lambda at: _graded(name, at / "csfcube", 1, "f16", limit=limit),
        "csfcube grade 2": lambda at: _graded(name, at / "csfcube", 2, "f16", limit=limit),
        "dbpedia_entity": lambda at: _graded(name, at / "dbpedia_entity", 1, "i8", limit=limit),
        "clinc": lambda at: _clinc(name, at / "clinc", imbalanced=False, limit=limit),
        "clinc imbalanced": lambda at: _clinc(name, at / "clinc", imbalanced=True, limit=limit),
        "squad": lambda at: _squad(name, at / "squad", limit=limit),
    }
    if name not in loaders:
        raise InvalidInput(f"there is no judged set {name!r}; choose from {', '.join(SETS)}")
    try:
        return loaders[name](folder)
    except FileNotFoundError as error:
        raise InvalidInput(
            f"the judged set {name!r} needs {error.filename}; pass the folder of the sets as --data"
        ) from error


def _vectors(path: Path) -> npt.NDArray[np.float32]:
    vectors = np.load(path).astype(np.float32)
    result: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return result


def read_columns(path: Path, *names: str) -> list[npt.NDArray[Any]]:
    """Columns of a Parquet file."""
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingDependency.of("pyarrow", extra="bench") from error
    table = parquet.read_table(path, columns=list(names)).to_pydict()
    return [np.array(table[name]) for name in names]


def _some(n: int, limit: int | None) -> npt.NDArray[np.intp]:
    size = n if limit is None else min(limit, n)
    return np.linspace(0, n - 1, size).astype(np.intp)


def _collect(
    rows: npt.NDArray[np.float32],
    queries: npt.NDArray[np.float32],
    relevant: list[npt.NDArray[np.int64]],
) -> Candidates:
    found = Candidates.collect(rows, queries, relevant, stats=CorpusStats.measure(rows))
    # As `calibrate` does: of a sample.
    some = np.random.default_rng(0).permutation(len(rows))[:SAMPLE]
    return replace(found, queries=queries, rows=RowStats.measure(rows[some], metric="cosine"))


def _graded(name: str, folder: Path, grade: int, code: str, *, limit: int | None) -> RelevanceSet:
    rows = _vectors(folder / f"docs.minilm384.{code}.npy")
    queries = _vectors(folder / "queries.minilm384.f16.npy")
    judged = np.loadtxt(folder / "qrels.tsv", skiprows=1, dtype=np.int64, delimiter="\t")
    judged = judged[judged[:, 2] >= grade]
    some = _some(len(queries), limit)
    relevant = [judged[judged[:, 0] == i, 1] for i in some]
    return RelevanceSet(
        name, _collect(rows, queries[some], relevant), judged=np.ones(len(some), dtype=np.bool_)
    )


def _clinc(name: str, folder: Path, *, imbalanced: bool, limit: int | None) -> RelevanceSet:
    vectors = _vectors(folder / "minilm384.f16.npy")
    intent, split, outside, subset = read_columns(
        folder / "texts.parquet", "intent", "split", "oos", "train_imbalanced"
    )
    numbers = np.unique(intent, return_inverse=True)[1].astype(np.int64)
    numbers[outside] = -1
    inside = (split == "train") & ~outside
    if imbalanced:
        inside &= subset
    asked = np.flatnonzero(split == "test")
    asked = asked[_some(len(asked), limit)]
    rows = numbers[inside]
    relevant = [np.flatnonzero((rows == wanted) & (wanted >= 0)) for wanted in numbers[asked]]
    return RelevanceSet(
        name,
        _collect(vectors[inside], vectors[asked], relevant),
        judged=np.ones(len(asked), dtype=np.bool_),
        answered=~outside[asked],
        intents=numbers[asked],
    )


def _squad(name: str, folder: Path, *, limit: int | None) -> RelevanceSet:
    gold, answerable = read_columns(folder / "questions.parquet", "gold_pid", "answerable")
    some = _some(len(gold), limit)
    candidates = _collect(
        _vectors(folder / "paragraphs.minilm384.f16.npy"),
        _vectors(folder / "questions.minilm384.f16.npy")[some],
        [np.array([place], dtype=np.int64) for place in gold[some]],
    )
    # Of all questions, whether an answer exists or not: is the nearest paragraph the one that
    # the question was written about?
    return RelevanceSet(
        name,
        candidates,
        judged=answerable[some].astype(np.bool_),
        answered=candidates.labels[:, 0].copy(),
    )
