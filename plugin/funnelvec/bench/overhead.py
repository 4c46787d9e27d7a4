"""What the typed function of a funnel costs over the bare SQL in it.

Both go over one connection with the same settings and take turns, so that the difference of each
pair is free of what the machine does meanwhile. Without a filter the SQL is prepared, as the
function's static statement is; with one both are planned for every call, as the function has to.

Beside the time that a client waits stands the processor's time that the server's process spent,
where its operating system tells us: other programs hardly change that.
"""

from __future__ import annotations

import gc
import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from funnelvec.bench.stage import binary_cursor
from funnelvec.bench.stats import Ratio
from funnelvec.calibration.listed import QUERY_SETS
from funnelvec.calibration.row_stats import QUERY_FEATURES, SAMPLE, RowStats

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "ALLOWED",
    "ALLOWED_MS",
    "MADE_UP",
    "Overhead",
    "asking",
    "measure",
    "measure_relevance",
    "summarize",
]

#: The targets: this share of the bare SQL's time, and with a filter so many milliseconds more.
ALLOWED, ALLOWED_MS = 0.05, 0.1
#: What relevance and a cutoff may add to a search.
ALLOWED_RELEVANCE = 0.03


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
    cpu
        The same of the time that the server's process was on a processor; None where that cannot
        be read.
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
    cpu: Ratio | None = None

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


def measure_relevance(
    connection: psycopg.Connection[Any],
    function: str,
    calibrated: str,
    queries: Sequence[object],
    *,
    k: int,
    rounds: int,
) -> tuple[Overhead, ...]:
    """Measure what relevance and a cutoff add, for a map of each kind that searches apply.

    Parameters
    ----------
    function, calibrated
        Two functions of the same stages; the second gets made-up maps, one after the other. Their
        numbers make no difference to the time, and the cutoff leaves every row, so that both
        answer the same.
    """
    cursor = binary_cursor(connection)
    # Plans and settings that the comparison before has left would be those of another statement.
    _set(connection, {"hnsw.iterative_scan": "off", "enable_seqscan": "on"})
    plain = _caller(cursor, f"select id from {function}(%(query)s, %(k)s)", prepare=True, k=k)
    cut = f"select id from {calibrated}(%(query)s, %(k)s, 1e-9)"
    found = []
    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        **{name: partial(dict, made) for name, made in MADE_UP.items()},
        "adapter of the query too": lambda: asking(connection, calibrated),
        "platt with a hub column": lambda: _add_hub(connection, calibrated),
    }
    for name, kind in kinds.items():
        parameters = kind()
        connection.execute(
            "select funnelvec._keep_calibration(funnelvec._funnel(%s), %s, %s::jsonb, '', 0, 0, 0)",
            [calibrated, name.partition(" ")[0], json.dumps(parameters)],
        )
        found.append(
            _compare(
                f"relevance and a cutoff, {name}",
                _caller(cursor, cut, prepare=True, k=k),
                plain,
                queries,
                rounds=rounds,
                allowed_ms=0.0,
                allowed=ALLOWED_RELEVANCE,
                target=f"at most {ALLOWED_RELEVANCE:.0%} over the same function without them",
            )
        )
    return tuple(found)


def _add_hub(connection: Any, function: str) -> dict[str, Any]:
    """Add a hub column, measured with few rows since searches do not mind; return a map with it.

    The numbers of rows are real ones, and so little is taken off that the order stays.
    """
    table, column = connection.execute(
        "select f.table_name::text, f.column_name from funnelvec._funnel(%s) as f", [function]
    ).fetchone()
    connection.execute(
        "select funnelvec.add_hub(%s, %s, sample => 20, allow_rewrite => true)", [table, column]
    )
    connection.execute(f"vacuum (analyze) {table}")
    (known,) = connection.execute(
        "select h.id from funnelvec._hub(%s, %s) as h", [table, column]
    ).fetchone()
    return {**MADE_UP["platt"], "hub": known, "alpha": 1e-12}


def asking(connection: Any, function: str) -> dict[str, Any]:
    """Return an adapter that reads everything that can be read, for the width of the table."""
    (dims,) = connection.execute(
        "select (funnelvec._base(f.table_name, f.column_name)).dims"
        " from funnelvec._funnel(%s) as f",
        [function],
    ).fetchone()
    draw = np.random.default_rng(0).normal(size=(SAMPLE // 5, dims)).astype(np.float32)
    rows = RowStats.measure(draw, metric="cosine")
    assert rows is not None
    names = QUERY_SETS["curve+setting"]
    return {
        **MADE_UP["adapter"],
        "features": names,
        "feature_means": [0.0 if name in QUERY_FEATURES else 0.5 for name in names],
        "feature_scales": [0.1] * len(names),
        "offsets": [-2.0, *([0.1] * len(names))],
        "slopes": [1.5, *([0.05] * len(names))],
        "rows": asdict(rows),
    }


_STEPS = [number / 100 for number in range(1, 100)]
_RANKS = (0, 1, 4, 9, 19, 49, 99)
#: A map of each kind that searches apply, the dearest: fifty steps, and every feature that an
#: adapter reads.
MADE_UP: dict[str, dict[str, Any]] = {
    "platt": {"slope": 12.0, "offset": -6.0},
    "beta": {"slope": 12.0, "offset": -6.0, "a": 0.8, "b": 1.2, "c": 0.1},
    "isotonic": {
        "low": _STEPS[::2],
        "high": [low + 0.005 for low in _STEPS[::2]],
        "levels": [0.01 + 0.9 * low for low in _STEPS[::2]],
    },
    "adapter": {
        "depth": 200,
        "features": [*(f"rank{rank}" for rank in _RANKS), "last"],
        "feature_means": [0.5] * 8,
        "feature_scales": [0.1] * 8,
        "score_mean": 0.4,
        "score_scale": 0.1,
        "offsets": [-2.0, *([0.1] * 8)],
        "slopes": [1.5, *([0.05] * 8)],
        "floor": 0.1,
        "a": 0.8,
        "b": 1.2,
        "c": 0.1,
    },
}


def _search_sql(connection: Any, function: str, filter: str | None) -> str:
    row = connection.execute(
        "select funnelvec.search_sql(%s, %s::jsonb)", [function, filter]
    ).fetchone()
    text = str(row[0]).replace("%", "%%")
    return re.sub(r"\$2\b", "%(k)s", re.sub(r"\$1\b", "%(query)s", text))


def _set(connection: Any, settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        connection.execute("select set_config(%s, %s, false)", [name, value])


#: Milliseconds that a search took, and of those that the server's process was on a processor.
_Spent = tuple[float, float]
#: What a pair of searches took: the function's, and what it is compared with.
_Pair = tuple[_Spent, _Spent]


@dataclass(frozen=True, slots=True)
class _Caller:
    """Asks one statement with one query after the other."""

    cursor: Any
    text: str
    prepare: bool
    others: Mapping[str, object]
    used: Callable[[], float]

    def __call__(self, query: object) -> list[Any]:
        rows: list[Any] = self.cursor.execute(
            self.text, {"query": query, **self.others}, prepare=self.prepare
        ).fetchall()
        return rows


def _caller(cursor: Any, text: str, *, prepare: bool, **others: object) -> _Caller:
    return _Caller(cursor, text, prepare, others, _processor(cursor.connection))


def _processor(connection: Any) -> Callable[[], float]:
    """What reads the processor time of the server's process, in ms; NaN where nothing tells it."""
    said = Path(f"/proc/{connection.info.backend_pid}/schedstat")
    # By a socket of this machine, so that the number is a process of this machine.
    if connection.info.host.startswith("/") and os.access(said, os.R_OK):
        return lambda: int(said.read_text().split()[0]) / 1e6
    return lambda: math.nan


def _compare(
    name: str,
    function: _Caller,
    bare: _Caller,
    queries: Sequence[object],
    *,
    rounds: int,
    allowed_ms: float,
    target: str,
    allowed: float = ALLOWED,
) -> Overhead:
    same = all(function(query) == bare(query) for query in queries)  # and a warm-up
    pairs: list[list[_Pair]] = []
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
    waits, used = (
        [[(mine[kind], other[kind]) for mine, other in each] for each in pairs] for kind in (0, 1)
    )
    found = summarize(name, waits, allowed_ms=allowed_ms, target=target, same=same, allowed=allowed)
    return found if math.isnan(used[0][0][0]) else replace(found, cpu=_ratio(used))


def _ratio(pairs: Sequence[Sequence[tuple[float, float]]]) -> Ratio:
    ratios = [
        1 + median(mine - other for mine, other in each) / median(other for _, other in each)
        for each in pairs
    ]
    return Ratio(median(ratios), min(ratios), max(ratios), len(ratios))


def _time(call: _Caller, query: object) -> _Spent:
    before, started = call.used(), time.perf_counter_ns()
    call(query)
    waited = (time.perf_counter_ns() - started) / 1e6
    return waited, call.used() - before


def summarize(
    name: str,
    pairs: Sequence[Sequence[tuple[float, float]]],
    *,
    allowed_ms: float,
    target: str,
    same: bool,
    allowed: float = ALLOWED,
) -> Overhead:
    """Reduce (function, SQL) milliseconds per round and query to medians.

    `allowed_ms` comes on top of `allowed` times the SQL's own time.
    """
    differences = [median(function - sql for function, sql in each) for each in pairs]
    sql_ms = median(sql for each in pairs for _, sql in each)
    return Overhead(
        name=name,
        function_ms=median(function for each in pairs for function, _ in each),
        sql_ms=sql_ms,
        difference_ms=median(differences),
        ratio=_ratio(pairs),
        allowed_ms=allowed * sql_ms + allowed_ms,
        target=target,
        same=same,
    )
