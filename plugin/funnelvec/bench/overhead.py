"""What the typed function of a funnel costs over the bare SQL in it.

Both go over one connection with the same settings and take turns, so that the difference of each
pair is free of what the machine does meanwhile. Without a filter the SQL is prepared, as the
function's static statement is; with one both are planned for every call, as the function has to.
"""

from __future__ import annotations

import gc
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from funnelvec.bench.stage import binary_cursor
from funnelvec.bench.stats import Ratio

if TYPE_CHECKING:
    import psycopg

__all__ = ["ALLOWED", "ALLOWED_MS", "Overhead", "measure", "summarize"]

#: The targets: this share of the bare SQL's time, and with a filter so many milliseconds more.
ALLOWED, ALLOWED_MS = 0.05, 0.1


@dataclass(frozen=True, slots=True)
class Overhead:
    """Function against bare SQL.

    Attributes
    ----------
    function_ms, sql_ms
        Median times of a search.
    difference_ms
        Median over the repeats of the median difference of the pairs.
    ratio
        1 + difference / SQL, with its spread over the repeats.
    allowed_ms
        What the difference may be at most.
    same
        Whether both returned the same rows for every query.
    """

    name: str
    function_ms: float
    sql_ms: float
    difference_ms: float
    ratio: Ratio
    allowed_ms: float
    target: str
    same: bool

    @property
    def passed(self) -> bool:
        """Whether the target is met."""
        return self.same and self.difference_ms <= self.allowed_ms


def measure(
    connection: psycopg.Connection[Any],
    function: str,
    queries: Sequence[object],
    *,
    keep: int,
    k: int,
    rounds: int,
    filter: Mapping[str, Any],
) -> tuple[Overhead, ...]:
    """Measure without a filter and with one.

    Parameters
    ----------
    function
        Name of the funnel's function, as SQL writes it.
    keep
        How many rows its first stage keeps.
    """
    text = json.dumps(filter)
    cursor = binary_cursor(connection)
    typed = f"select * from {function}(%(query)s, %(k)s)"
    filtered = f"select * from {function}(%(query)s, %(k)s, filter => %(filter)s::jsonb)"
    _set(connection, {"hnsw.ef_search": str(max(1, min(keep, 1000))), "enable_seqscan": "off"})
    plain = _compare(
        "without a filter",
        _caller(cursor, typed, prepare=True, k=k),
        _caller(cursor, _search_sql(connection, function, None), prepare=True, k=k),
        queries,
        rounds=rounds,
        allowed_ms=0.0,
        target=f"at most {ALLOWED:.0%} over the same SQL, prepared",
    )
    bare = _search_sql(connection, function, text)
    exact = ") + 0" in bare  # the filter is narrow, so neither goes for the index
    _set(
        connection,
        {"hnsw.iterative_scan": "relaxed_order", "enable_seqscan": "on" if exact else "off"},
    )
    with_filter = _compare(
        f"with the filter {text}",
        _caller(cursor, filtered, prepare=True, k=k, filter=text),
        _caller(cursor, bare, prepare=False, k=k),
        queries,
        rounds=rounds,
        allowed_ms=ALLOWED_MS,
        target=f"at most {ALLOWED:.0%} + {ALLOWED_MS} ms over the same SQL, planned per call",
    )
    return plain, with_filter


def _search_sql(connection: Any, function: str, filter: str | None) -> str:
    row = connection.execute(
        "select funnelvec.search_sql(%s, %s::jsonb)", [function, filter]
    ).fetchone()
    text = str(row[0]).replace("%", "%%")
    return re.sub(r"\$2\b", "%(k)s", re.sub(r"\$1\b", "%(query)s", text))


def _set(connection: Any, settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        connection.execute("select set_config(%s, %s, false)", [name, value])


Caller = Callable[[object], list[Any]]


def _caller(cursor: Any, text: str, *, prepare: bool, **others: object) -> Caller:
    def call(query: object) -> list[Any]:
        rows: list[Any] = cursor.execute(
            text, {"query": query, **others}, prepare=prepare
        ).fetchall()
        return rows

    return call


def _compare(
    name: str,
    function: Caller,
    bare: Caller,
    queries: Sequence[object],
    *,
    rounds: int,
    allowed_ms: float,
    target: str,
) -> Overhead:
    same = all(function(query) == bare(query) for query in queries)  # and a warm-up
    pairs: list[list[tuple[float, float]]] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            each = []
            for i, query in enumerate(queries):
                if (i + turn) % 2:
                    first = _time(function, query)
                    each.append((first, _time(bare, query)))
                else:
                    second = _time(bare, query)
                    each.append((_time(function, query), second))
            pairs.append(each)
    finally:
        if collecting:
            gc.enable()
    return summarize(name, pairs, allowed_ms=allowed_ms, target=target, same=same)


def _time(call: Caller, query: object) -> float:
    started = time.perf_counter_ns()
    call(query)
    return (time.perf_counter_ns() - started) / 1e6


def summarize(
    name: str,
    pairs: Sequence[Sequence[tuple[float, float]]],
    *,
    allowed_ms: float,
    target: str,
    same: bool,
) -> Overhead:
    """Reduce (function, SQL) milliseconds per round and query to medians.

    `allowed_ms` comes on top of `ALLOWED` times the SQL's own time.
    """
    bare = [median(sql for _, sql in each) for each in pairs]
    differences = [median(function - sql for function, sql in each) for each in pairs]
    ratios = [1 + d / b for d, b in zip(differences, bare, strict=True)]
    sql_ms = median(sql for each in pairs for _, sql in each)
    return Overhead(
        name=name,
        function_ms=median(function for each in pairs for function, _ in each),
        sql_ms=sql_ms,
        difference_ms=median(differences),
        ratio=Ratio(median(ratios), min(ratios), max(ratios), len(ratios)),
        allowed_ms=ALLOWED * sql_ms + allowed_ms,
        target=target,
        same=same,
    )
