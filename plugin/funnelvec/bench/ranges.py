"""Vectors with a number each, and queries that ask for a range of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.bench.data import Dataset, generate, read_vectors
from funnelvec.errors import InvalidInput, MissingDependency, NotFound

__all__ = ["SHARES", "Case", "RangeSet", "generate_ranges", "load_ranges"]

#: Shares of the rows that generated ranges hold.
SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

# Databases add up float32 products, so rows closer than this are a tie to them.
_TIE = 1e-6


@dataclass(frozen=True, slots=True)
class Case:
    """One search: a query by its row number, and the range, both ends in it.

    `aim` is what share of the rows the range was made for; `share` is what it holds.
    """

    query: int
    low: int
    high: int
    aim: float
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class RangeSet:
    """Rows with `values` (n,) int64, and cases over them."""

    data: Dataset
    values: npt.NDArray[np.int64]
    cases: tuple[Case, ...]

    def truth(self, k: int) -> Truth:
        """Search every case exhaustively."""
        units = _units(self.data.rows)
        queries = _units(self.data.queries)
        scores = []
        for case in self.cases:
            matching = self.matching(case)
            near = units[matching].astype(np.float64) @ queries[case.query].astype(np.float64)
            wanted = min(k, len(near))
            scores.append(float(np.partition(near, -wanted)[-wanted]) if wanted else np.inf)
        return Truth(self, units, queries, k, tuple(scores))

    def matching(self, case: Case) -> npt.NDArray[np.intp]:
        """Rows that lie in the range of a case."""
        return np.flatnonzero((self.values >= case.low) & (self.values <= case.high))


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The score of the k-th best row of every case, or of the last where fewer match."""

    ranges: RangeSet
    units: npt.NDArray[np.float32]
    queries: npt.NDArray[np.float32]
    k: int
    worst: tuple[float, ...]

    def recall(self, number: int, ids: list[int]) -> float:
        """Share of the exact top k in an answer; a row that ties with the k-th counts as right.

        Raises
        ------
        InvalidInput
            If a row of the answer is not in the range: then there is nothing to measure.
        """
        case = self.ranges.cases[number]
        wanted = min(self.k, len(self.ranges.matching(case)))
        found = np.unique(np.asarray(ids, dtype=np.intp))
        values = self.ranges.values[found]
        if ((values < case.low) | (values > case.high)).any():
            raise InvalidInput(f"an answer holds rows that are not in {case.low} to {case.high}")
        if wanted == 0:
            return 1.0
        query = self.queries[case.query].astype(np.float64)
        right = (self.units[found].astype(np.float64) @ query >= self.worst[number] - _TIE).sum()
        return min(int(right), wanted) / wanted


def _units(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    units: npt.NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units


def generate_ranges(
    rows: int = 20_000,
    *,
    dims: int = 256,
    per_share: int = 20,
    seed: int = 0,
    spectrum_of: str | None = None,
) -> RangeSet:
    """Vectors of `bench.data.generate`; the number of a row says nothing about its vector."""
    dataset = generate(rows, per_share, dims=dims, seed=seed, spectrum_of=spectrum_of)
    rng = np.random.default_rng([seed, 1])
    cases = []
    for share in SHARES:
        width = max(1, round(share * rows))
        for query in range(per_share):
            low = int(rng.integers(0, rows - width + 1))
            cases.append(Case(query, low, low + width - 1, share, width / rows))
    return RangeSet(dataset, rng.permutation(rows).astype(np.int64), tuple(cases))


def load_ranges(
    path: str | os.PathLike[str],
    *,
    queries: str | os.PathLike[str],
    values: str | os.PathLike[str],
    by: str,
    ranges: str | os.PathLike[str],
    rows: int | None = None,
    per_share: int | None = None,
    seed: int = 0,
) -> RangeSet:
    """Read vectors, a number for each of them, queries, and the ranges that these ask for.

    Parameters
    ----------
    path, queries
        Vectors, as `bench.load` reads them.
    values, by
        A Parquet file with a row per vector, and its column of whole numbers.
    ranges
        A Parquet file with the columns ``qid`` (a row of `queries`), ``lo`` and ``hi`` (both in
        the range) and, if there is one, ``target_selectivity``.
    rows, per_share
        At most so many rows, and cases of each target, drawn at random; None takes all.

    Raises
    ------
    NotFound, InvalidInput
        If a file or column is not there, or does not fit the others.
    """
    vectors, kind = read_vectors(path)
    asked, _ = read_vectors(queries)
    numbers = _integers(values, by)
    if len(numbers) != len(vectors) or asked.shape[1] != vectors.shape[1]:
        raise InvalidInput(
            f"{path} has {len(vectors)} vectors of {vectors.shape[1]} dimensions; {values} has "
            f"{len(numbers)} rows, {queries} {asked.shape[1]} dimensions"
        )
    qids, lows, highs = (_integers(ranges, name) for name in ("qid", "lo", "hi"))
    if len(qids) and (qids.min() < 0 or qids.max() >= len(asked)):
        raise InvalidInput(f"{ranges} names queries that {queries} does not have")
    rng = np.random.default_rng(seed)
    if rows is not None and rows < len(vectors):
        drawn = np.sort(rng.choice(len(vectors), max(2, rows), replace=False))
        vectors, numbers = vectors[drawn], numbers[drawn]
    aims = _aims(ranges, count=len(qids))
    ordered = np.sort(numbers)
    held = np.searchsorted(ordered, highs, "right") - np.searchsorted(ordered, lows, "left")
    cases = [
        Case(int(q), int(low), int(high), float(aim), float(share))
        for q, low, high, aim, share in zip(
            qids, lows, highs, aims, held / len(ordered), strict=True
        )
    ]
    name = Path(path).name
    dataset = Dataset(name, vectors, asked, f"{kind}; ranges of {by} from {Path(ranges).name}")
    return RangeSet(dataset, numbers, tuple(_drawn(cases, per_share, rng)))


def _drawn(cases: list[Case], per_share: int | None, rng: np.random.Generator) -> list[Case]:
    result = []
    for aim in sorted({case.aim for case in cases}):
        alike = [case for case in cases if case.aim == aim]
        if per_share is not None and per_share < len(alike):
            alike = [alike[i] for i in np.sort(rng.choice(len(alike), per_share, replace=False))]
        result += alike
    return result


def _integers(file: str | os.PathLike[str], name: str) -> npt.NDArray[np.int64]:
    found = _column(file, name)
    if found is None:
        raise NotFound(f"{file} has no column {name!r}")
    if found.dtype.kind not in "iu":
        raise InvalidInput(f"column {name!r} of {file} must hold whole numbers without gaps")
    return found.astype(np.int64)


def _aims(file: str | os.PathLike[str], *, count: int) -> npt.NDArray[Any]:
    found = _column(file, "target_selectivity")
    return np.zeros(count) if found is None else found


def _column(file: str | os.PathLike[str], name: str) -> npt.NDArray[Any] | None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependency.of("pyarrow", extra="bench") from error
    if not Path(file).is_file():
        raise NotFound(f"there is no file {str(file)!r}")
    try:
        if name not in pq.read_schema(file).names:
            return None
        values: npt.NDArray[Any] = pq.read_table(file, columns=[name]).column(name).to_numpy()
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"{file} is not a Parquet file: {error}") from None
    return values
