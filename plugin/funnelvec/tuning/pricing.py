"""Measuring what an engine charges: a few funnels over a small table of the sample's rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.funnel import Funnel, Stage
from funnelvec.resolution import Resolution
from funnelvec.tuning.calls import Call, Steps
from funnelvec.tuning.candidates import Template
from funnelvec.tuning.cost import Design, Prices, fitted, usual
from funnelvec.tuning.ground import Ground
from funnelvec.types import Storage

__all__ = ["measure_prices"]

#: Rows of the small table, queries that are asked, and how often.
_ROWS, _QUERIES, _TURNS = 2_000, 12, 2
_SHORT, _MIDDLE, _LONG = 20, 100, 400
#: Narrower columns and smaller samples tell nothing.
_FEWEST_DIMS, _FEWEST_ROWS = 16, 500

Matrix = npt.NDArray[np.float32]


def measure_prices(
    ground: Ground, rows: Matrix, queries: Matrix, *, indexed: bool, storage: Storage | None
) -> Steps[Prices]:
    """Time some funnels over a small table beside the user's, and drop it again."""
    about = ground.about
    known = usual(about.engine, about.base.dims)
    if len(rows) < _FEWEST_ROWS or about.base.dims < _FEWEST_DIMS:
        return known
    name = ground.names.scratch
    table = yield Call("_scratch", (name,))
    if table is None:  # an engine without a place for it
        return known
    few = rows[:_ROWS]
    try:
        yield Call("add", (range(len(few)), few), on=table)
        encode_row, index_row = yield from _build(about.base, table, len(few), storage)
        designs, scan_ms = yield from _time(about.base, table, queries[:_QUERIES])
    finally:
        yield Call("_drop_scratch", (name,))
    return fitted(
        designs, known, rows=len(few), scan_ms=scan_ms, encode_row=encode_row,
        index_row=index_row if indexed else 0.0,
    )  # fmt: skip


def _resolutions(base: Resolution) -> tuple[Resolution, Resolution, Resolution | None]:
    """Floats and bits to begin with, and a stage between where there is room for one."""
    narrow = min(128, base.dims // 2)
    middle = min(512, base.dims // 2)
    between = Resolution(middle, "f16") if middle > narrow else None
    return Resolution(narrow, "f16"), Resolution(base.dims, "bit", "random"), between


def _build(
    base: Resolution, table: Any, rows: int, storage: Storage | None
) -> Steps[tuple[float, float]]:
    """Store the codes; seconds a row to store one, and to index one of 1 kB."""
    floats, in_bits, between = _resolutions(base)
    needed = list(filter(None, (floats, in_bits, between)))
    # All at once, as a run stores them: one by one would write the table anew for each.
    stages = Funnel((*(Stage(each, 1) for each in needed), Stage(base)))
    stored = yield from _spent(table, "add_resolutions", stages, index=False, storage=storage)
    indexed = yield from _spent(table, "add_resolution", floats, index=True, storage=storage)
    yield from _spent(table, "add_resolution", in_bits, index=True, storage=storage)
    scale = 0.5 + 0.5 * floats.dims * 2 / 1024
    return stored / 1e3 / rows / len(needed), indexed / 1e3 / rows / scale


def _spent(
    table: Any, method: str, what: Any, *, index: bool, storage: Storage | None
) -> Steps[float]:
    """Store or index, where the run would: rows of a side table are joined; milliseconds."""
    options = {"index": index, "storage": storage}
    _, spent = yield Call(method, (what,), options, on=table, timed=True)
    if storage == "side":
        _, filled = yield Call("backfill", on=table, timed=True)
        spent += filled
    return float(spent)


def _designs(base: Resolution) -> Iterator[tuple[Template, tuple[int, ...]]]:
    floats, in_bits, between = _resolutions(base)
    for keep in (_SHORT, _MIDDLE, _LONG):
        yield Template((floats, base)), (keep,)
    for keep in (_SHORT, _LONG):
        yield Template((in_bits, base)), (keep,)
    if between is not None:
        for keeps in ((_LONG, _SHORT), (_LONG, _MIDDLE), (_MIDDLE, _SHORT)):
            yield Template((floats, between, base)), keeps


def _time(base: Resolution, table: Any, queries: Matrix) -> Steps[tuple[list[Design], float]]:
    chosen = list(_designs(base))
    for number, (template, keeps) in enumerate(chosen):
        yield Call("create_funnel", (f"{table.name}_{number}", template.funnel(keeps)), on=table)
    exact = f"{table.name}_exact"
    yield Call("create_funnel", (exact, Template((base,)).funnel(())), on=table)
    times: list[list[float]] = [[] for _ in chosen]
    scans: list[float] = []
    for turn in range(1 + _TURNS):
        for query in queries:
            for number in range(len(chosen)):
                options = {"k": 10, "funnel": f"{table.name}_{number}"}
                _, spent = yield Call("search", (query,), options, on=table, timed=True)
                if turn:
                    times[number].append(spent)
    for query in queries[:4]:
        _, spent = yield Call("search", (query,), {"k": 10, "funnel": exact}, on=table, timed=True)
        scans.append(spent)
    found = [
        Design(template, keeps, float(np.median(each)))
        for (template, keeps), each in zip(chosen, times, strict=True)
    ]
    return found, float(np.median(scans))
