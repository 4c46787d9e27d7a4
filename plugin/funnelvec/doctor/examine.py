"""Examine a sample of vectors: every measure in turn, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.doctor import (
    bits,
    duplicates,
    hubness,
    lid,
    norms,
    order,
    pairs,
    prefixes,
    rank,
    stages,
)
from funnelvec.doctor.diagnosis import Diagnosis, Measures
from funnelvec.doctor.intervals import Bootstrap
from funnelvec.doctor.limits import check
from funnelvec.doctor.neighbours import space
from funnelvec.doctor.rows import FEWEST, Prepared, prepare
from funnelvec.doctor.values import Finding, counted
from funnelvec.errors import InvalidInput
from funnelvec.types import METRICS, BaseCode, Key, Metric

__all__ = ["STEPS", "examine"]

#: How many steps `progress` is told of.
STEPS = 9

Progress = Callable[[int, int], None]


def examine(
    vectors: npt.ArrayLike,
    *,
    metric: Metric = "cosine",
    sample: int = 10_000,
    queries: int = 500,
    seed: int = 0,
    ids: Sequence[Key] | None = None,
    code: BaseCode = "f32",
    table: str = "",
    vector: str = "",
    rows: int | None = None,
    rows_exact: bool = True,
    progress: Progress | None = None,
) -> Diagnosis:
    """Say what kind of vectors these are and what to do about it.

    Parameters
    ----------
    vectors
        (n, d) numbers, taken as float32; n at least 2. Not changed.
    metric
        What they are compared by.
    sample
        At most so many rows are examined, drawn at random.
    queries
        At most so many of them are asked for, each against all others.
    seed
        Of all that is drawn: the same seed gives the same diagnosis.
    ids
        n keys, to name rows by; without them rows are numbered from 0.
    code
        What the column stores: ``f32`` or ``f16``.
    table, vector, rows, rows_exact
        For the report: where the vectors come from, and of how many rows, if they are a sample
        themselves.
    progress
        Told (steps done, `STEPS`) after each step.

    Returns
    -------
    Diagnosis

    Raises
    ------
    InvalidInput
        If an argument cannot be used.

    Notes
    -----
    Memory is a few times that of the sample as float32. 10,000 rows of 1,536 dimensions take
    some ten seconds on two cores.
    """
    wanted: Any = metric
    if not isinstance(wanted, str) or wanted not in METRICS:
        raise InvalidInput(f"unknown metric {metric!r}; known are {', '.join(METRICS)}")
    sample, queries, seed = check(sample=sample, queries=queries, seed=seed)
    given, names, population = _drawn(vectors, ids, sample, seed, rows)
    prepared = prepare(
        given,
        ids=names,
        metric=metric,
        base=code,
        population=population,
        queries=queries,
        seed=seed,
    )
    measured = _measure(prepared, progress or _silent)
    return Diagnosis(
        table=table,
        vector=vector,
        dims=prepared.dims,
        code=code,
        metric=metric,
        rows=prepared.population,
        rows_exact=rows_exact,
        sample=len(prepared),
        queries=len(prepared.queries),
        seed=seed,
        findings=_findings(measured, prepared),
        measures=measured,
    )


def _silent(done: int, total: int) -> None:
    pass


def _drawn(
    vectors: npt.ArrayLike, ids: Any, sample: int, seed: int, rows: int | None
) -> tuple[npt.ArrayLike, Sequence[Key] | None, int | None]:
    """Take `sample` rows of what was given, and say how many rows they stand for."""
    try:
        count = np.asarray(vectors).shape[0] if np.ndim(vectors) == 2 else 0
    except Exception:  # the array is checked, and its fault named, in `prepare`
        return vectors, None, rows
    names = None if ids is None else list(ids)
    if names is not None and len(names) != count:
        raise InvalidInput(f"{len(names)} ids but {count} vectors; give one id per vector")
    if count <= sample:
        return vectors, names, rows
    picked = np.random.default_rng(seed).choice(count, sample, replace=False)
    kept = list(map(int, picked)) if names is None else [names[row] for row in picked]
    return np.asarray(vectors)[picked], kept, max(count, rows or 0)


def _measure(rows: Prepared, progress: Progress) -> Measures:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, STEPS)

    found: dict[str, Any] = dict.fromkeys(Measures.__dataclass_fields__)
    enough = len(rows.order) >= FEWEST
    found["norms"] = norms.measure(rows)
    found["duplicates"] = duplicates.measure(rows, with_neighbours=enough)
    step()
    if len(rows.order) >= 3:
        directions = rows.space if rows.metric == "cosine" else space(rows.vectors, "cosine")
        found["pairs"] = pairs.measure(rows, directions, with_neighbours=enough)
        step()
        found["rank"] = rank.measure(rows, rows.space)
        step()
        found["bits"] = bits.measure(rows)
        step()
    if enough:
        bootstrap = Bootstrap(len(rows.queries), rows.rng)
        found["prefixes"] = prefixes.measure(rows, bootstrap)
        found["stage"] = stages.choose(found["prefixes"], rows)
        step()
        found["lid"] = lid.measure(rows, bootstrap)
        step()
        found["hubness"] = hubness.measure(rows)
        step()
        found["order"] = order.measure(rows, directions, bootstrap)
    while done < STEPS:
        step()
    return Measures(**found)


def _findings(found: Measures, rows: Prepared) -> tuple[Finding, ...]:
    few = f"not measured: {counted(len(rows.order), 'different row')} with neighbours are too few"
    if len(rows.order) >= FEWEST:
        few = "not measured: the rows are too much alike"
    return (
        norms.describe(found.norms, rows),
        order.describe(found.order, found.norms, rows) if found.order else _none("order", few),
        pairs.describe(found.pairs, rows) if found.pairs else _none("pairs", few),
        duplicates.describe(found.duplicates, rows),
        stages.describe(found.prefixes, found.stage, rows)
        if found.prefixes
        else _none("prefixes", few),
        bits.describe(found.bits, found.prefixes, rows) if found.bits else _none("bits", few),
        rank.describe(found.rank, rows) if found.rank else _none("rank", few),
        lid.describe(found.lid, rows) if found.lid else _none("lid", few),
        hubness.describe(found.hubness, rows) if found.hubness else _none("hubness", few),
    )


_TITLES = {
    "order": "Cosine and dot order",
    "pairs": "Cosine of random pairs",
    "prefixes": "Prefix curve",
    "bits": "Balance of the signs",
    "rank": "Effective rank",
    "lid": "Local intrinsic dimension",
    "hubness": "Hubs",
}


def _none(topic: str, why: str) -> Finding:
    return Finding(
        topic=topic,
        title=_TITLES[topic],
        level="note",
        number=None,
        unit="",
        interval=None,
        basis=why,
        found=f"{why[0].upper()}{why[1:]}.",
        normal="",
        advice=f"Load at least {FEWEST} different rows, a few thousand for figures to rely on.",
    )
