"""Full-vector HNSW, a funnel and exact search, side by side in one run.

Everything goes through plain SQL on one connection, as an application would send it: prepared
statements, the query vector as a binary parameter. The three take turns, query by query, so that
a busy machine slows all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.errors import InvalidInput, MissingDependency

if TYPE_CHECKING:
    import psycopg

FULL, FUNNEL, EXACT = "full HNSW", "funnel", "exact"
_WARM_UP = 6  # Postgres plans a prepared statement anew five times before it keeps a plan


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant's figures.

    `recall` is the share of the exact top k that it returned, on average over the queries;
    `index_bytes` and `build_seconds` are 0 for exact search, which needs no index; `median_ms`
    is the time of one search in milliseconds, over the connection and back.
    """

    name: str
    recall: float
    index_bytes: int
    build_seconds: float
    median_ms: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The figures of all contestants on one table, from the same interleaved queries.

    `code_bytes` is what the funnel's codes take in the table, besides its index.
    """

    title: str
    rows: int
    dims: int
    funnel: str
    ef_search: int
    k: int
    queries: int
    code_bytes: int
    results: tuple[Row, ...]

    def result(self, name: str) -> Row:
        """The figures of one contestant."""
        return next(row for row in self.results if row.name == name)


@dataclass(frozen=True, slots=True)
class Case:
    """A table that has its funnel already, and how to search it.

    Attributes
    ----------
    table, vector, key
        Names of the table, its vector column and its key column.
    function, funnel
        Name and text of the funnel.
    code_column, funnel_index
        Name of the column that stores the first stage, and of the index that serves it.
    funnel_seconds
        How long storing the resolution and building its index took.
    ef_search
        Length of HNSW's candidate list for the full-vector index.
    """

    title: str
    table: str
    vector: str
    key: str
    function: str
    funnel: str
    code_column: str
    funnel_index: str
    funnel_seconds: float
    ef_search: int


@dataclass(frozen=True, slots=True)
class FullIndex:
    """The contestant's index: its name, and how long building it took."""

    name: str
    seconds: float


def build_full_index(connection: psycopg.Connection[Any], case: Case) -> FullIndex:
    """Build HNSW over the whole vectors, with pgvector's default parameters."""
    name = f"{case.table}_{case.vector}_full_hnsw"
    start = time.perf_counter()
    connection.execute(
        f"create index {_quoted(name)} on {_quoted(case.table)} "
        f"using hnsw ({_quoted(case.vector)} vector_cosine_ops)"
    )
    return FullIndex(name, time.perf_counter() - start)


def compare(
    connection: psycopg.Connection[Any],
    case: Case,
    queries: npt.NDArray[np.float32],
    *,
    full_index: FullIndex,
    k: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Time all three on the same queries.

    Parameters
    ----------
    connection
        In autocommit mode. Its `hnsw.ef_search` is changed.
    queries
        (m, dims) float32, m at least 1.
    full_index
        What `build_full_index` built.
    progress
        Called as ``progress(queries done, queries)``.
    """
    if len(queries) == 0:
        raise InvalidInput("a comparison needs at least one query")
    statements = _statements(case, k)
    connection.execute(f"set hnsw.ef_search = {case.ef_search:d}")
    times, found = _take_turns(connection, statements, queries, progress)
    sizes = {FULL: _size(connection, full_index.name), FUNNEL: _size(connection, case.funnel_index)}
    seconds = {FULL: full_index.seconds, FUNNEL: case.funnel_seconds}
    rows, dims, code_bytes = connection.execute(
        f"select count(*), max(vector_dims({_quoted(case.vector)})), "
        f"sum(pg_column_size({_quoted(case.code_column)})) from {_quoted(case.table)}"
    ).fetchone() or (0, 0, 0)
    results = tuple(
        Row(
            name,
            _recall(found[name], found[EXACT]),
            sizes.get(name, 0),
            seconds.get(name, 0.0),
            median(times[name]) * 1e3,
        )
        for name in statements
    )
    return Comparison(
        title=case.title,
        rows=rows,
        dims=dims,
        funnel=case.funnel,
        ef_search=case.ef_search,
        k=k,
        queries=len(queries),
        code_bytes=int(code_bytes),
        results=results,
    )


def _statements(case: Case, k: int) -> dict[str, str]:
    table, vector, key = _quoted(case.table), _quoted(case.vector), _quoted(case.key)
    distance = f"{vector} <=> %(query)b"
    plain = f"select {key}, 1 - ({distance}) from {table} order by "
    return {
        FULL: f"{plain}{distance} limit {k:d}",
        FUNNEL: f"select {key}, score from {_quoted(case.function)}(%(query)b, k => {k:d})",
        # An index serves the bare distance only, so the sum makes this a scan of all rows.
        EXACT: f"{plain}({distance}) + 0, {key} limit {k:d}",
    }


def _take_turns(
    connection: psycopg.Connection[Any],
    statements: dict[str, str],
    queries: npt.NDArray[np.float32],
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, list[float]], dict[str, list[set[Any]]]]:
    """Run every statement on every query; the order rotates, so nobody always follows another."""
    vectors = _parameters(connection, queries)
    names = list(statements)
    times: dict[str, list[float]] = {name: [] for name in names}
    found: dict[str, list[set[Any]]] = {name: [] for name in names}
    with connection.cursor(binary=True) as cursor:
        for vector in vectors[:_WARM_UP]:
            for name in names:
                cursor.execute(statements[name], {"query": vector}, prepare=True).fetchall()
        for turn, vector in enumerate(vectors):
            for shift in range(len(names)):
                name = names[(turn + shift) % len(names)]
                start = time.perf_counter()
                rows = cursor.execute(statements[name], {"query": vector}, prepare=True).fetchall()
                times[name].append(time.perf_counter() - start)
                found[name].append({row[0] for row in rows})
            if progress is not None:
                progress(turn + 1, len(vectors))
    return times, found


def _parameters(connection: psycopg.Connection[Any], queries: npt.NDArray[np.float32]) -> list[Any]:
    try:
        from pgvector import Vector
        from pgvector.psycopg import register_vector
    except ImportError as error:
        raise MissingDependency.of("pgvector", extra="postgres") from error
    register_vector(connection)
    return [Vector(query) for query in queries]


def _size(connection: psycopg.Connection[Any], index: str) -> int:
    row = connection.execute("select pg_relation_size(%s::regclass)", [_quoted(index)]).fetchone()
    return int(row[0]) if row else 0


def _recall(found: list[set[Any]], exact: list[set[Any]]) -> float:
    shares = [len(a & b) / len(b) for a, b in zip(found, exact, strict=True)]
    return sum(shares) / len(shares)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
