"""Adaptive and funnel retrieval of Matryoshka Representation Learning (Kusupati et al. 2022).

Their protocol (github.com/RAIVNLab/MRL): every prefix gets unit length, the search is exact, mAP@k
divides by k, and a query costs N times the dimensions of its first pass, plus what is ranked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from funnelvec.bench.papers import sets
from funnelvec.bench.papers.finding import Finding
from funnelvec.errors import NotFound

__all__ = ["CASCADES", "cascade", "mean_average_precision", "measure", "operations", "retrieve"]

Ids = npt.NDArray[np.intp]

#: The three published shortlists of funnel retrieval; a step ranks so many rows again.
CASCADES = ((200, 100, 50, 25, 10), (400, 200, 50, 25, 10), (800, 400, 200, 50, 10))
_PAPER, _SOURCE = "Matryoshka retrieval", "NeurIPS 2022, arXiv 2205.13147"
_K, _SHORTLIST, _LONGEST = 10, 200, 800
_PAPER_ROWS = 1_281_167
_BLOCK = 256
#: mAP@10 on ImageNet-1K (figure 8 of the paper): exact, and by the first pass of each way.
_EXACT, _ADAPTIVE, _FUNNEL = "65.20", {16: "65.27"}, {16: "65.19", 32: "65.21"}


def retrieve(rows: sets.Matrix, queries: sets.Matrix, *, dims: int, count: int) -> Ids:
    """The nearest rows (m, count) by the cosine of a prefix, best first, exactly."""
    short = sets.units(rows[:, :dims])
    found = np.empty((len(queries), count), dtype=np.intp)
    for start in range(0, len(queries), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores = queries[part, :dims] @ short.T  # the length of a query changes no order
        best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        found[part] = np.take_along_axis(best, order, axis=1)
    return found


def cascade(
    rows: sets.Matrix, queries: sets.Matrix, ids: Ids, steps: Sequence[tuple[int, int]]
) -> Ids:
    """Rank shortlists again, step by step: the first `keep` of the list, by `dims` numbers.

    The list that comes in stays as it is. In the authors' notebook it does not: it is ranked
    through a view, so that what follows starts from a list that is ranked already.
    """
    current: Ids = ids.copy()
    for dims, keep in steps:
        near = current[:, :keep]
        ranked = np.empty_like(near)
        for i, listed in enumerate(near):
            scores = sets.units(rows[listed, :dims]) @ queries[i, :dims]
            ranked[i] = listed[np.argsort(-scores, kind="stable")]
        current[:, :keep] = ranked
    return current


def mean_average_precision(right: npt.NDArray[np.bool_], k: int) -> float:
    """mAP@k as they have it: precision at every hit, summed and divided by k, never by the hits.

    `right` is (m, >= k): whether the j-th answer is what the query wants.
    """
    hits = right[:, :k].astype(np.float64)
    precision = np.cumsum(hits, axis=1) / np.arange(1, k + 1)
    return float((precision * hits).sum(axis=1).mean() / k)


def operations(rows: int, first: int, steps: Sequence[tuple[int, int]]) -> int:
    """Multiplications of one query: the first pass over all rows, and what is ranked again."""
    return rows * first + sum(dims * keep for dims, keep in steps)


def measure(
    folder: Path | None, *, quick: bool, say: Callable[[str], None]
) -> tuple[list[Finding], list[str]]:
    """Both ways on classes of CLINC150 with two models, and on vectors without classes."""
    findings, skipped = [], []
    count = 300 if quick else 1_000
    makers: list[Callable[[], sets.Plain]] = [
        lambda: sets.labelled(folder, "wordllama256.i8.npy", queries=count),
        lambda: sets.labelled(folder, "minilm384.f16.npy", queries=count),
        lambda: sets.plain(
            folder, "highdim1536", rows=5_000 if quick else 50_000, queries=count // 3
        ),
    ]
    if folder is None:
        makers.append(lambda: sets.generated(rows=5_000, queries=100, dims=512))
    for make in makers:
        try:
            data = make()
        except NotFound as error:
            skipped.append(f"{_PAPER}: {error}")
            continue
        say(f"{_PAPER}: {data.name}")
        findings.append(_measured(data))
    return findings, skipped


def _steps(first: int, dims: int, shortlists: Sequence[int]) -> list[tuple[int, int]]:
    """Twice as wide with every step, and the last step by all: 16 > 32 > 64 > 128 > 256 > all."""
    widths = [min(first << i, dims) for i in range(1, len(shortlists))]
    return list(zip([*widths, dims], shortlists, strict=True))


def _measured(data: sets.Plain) -> Finding:
    dims, rows = data.rows.shape[1], data.rows
    exact = retrieve(rows, data.queries, dims=dims, count=_K)
    lines = [_line(data, f"exact, {dims}", exact, exact, dims, (), _EXACT)]
    for first in (width for width in (8, 16, 32, 64, 128) if width < dims):
        ids = retrieve(rows, data.queries, dims=first, count=_SHORTLIST)
        steps = [(dims, _SHORTLIST)]
        found = cascade(rows, data.queries, ids, steps)
        name = f"adaptive, {first} > {dims}, shortlist {_SHORTLIST}"
        lines.append(_line(data, name, exact, found, first, steps, _ADAPTIVE.get(first, "-")))
    for first in (16, 32):
        ids = retrieve(rows, data.queries, dims=first, count=_LONGEST)
        for number, shortlists in enumerate(CASCADES):
            steps = _steps(first, dims, shortlists)
            found = cascade(rows, data.queries, ids, steps)
            name = f"funnel, {first}, {' > '.join(map(str, shortlists))}"
            said = "-" if number else _FUNNEL[first]
            lines.append(_line(data, name, exact, found, first, steps, said))
    labelled = isinstance(data, sets.Labelled)
    return Finding(
        paper=_PAPER,
        source=_SOURCE,
        title=f"{data.name}, {len(rows):,} rows, {len(data.queries):,} queries",
        claim="at 16 of 2,048 dimensions with a shortlist of 200 mAP@10 65.27 against 65.20 by "
        "all, with 128 times fewer operations (ImageNet-1K, 1,281,167 rows, trained for it); the "
        "14 times by wall clock are HNSW against HNSW (here: bench peers)",
        head=(
            *("", *(("mAP@10",) if labelled else ()), "exact top 10 kept"),
            *("Mop a query", "fewer", f"fewer at {_PAPER_ROWS:,} rows", "paper's mAP@10"),
        ),
        rows=tuple(lines),
        notes=(_trap(data),) if labelled else (),
    )


def _line(
    data: sets.Plain,
    name: str,
    exact: Ids,
    found: Ids,
    first: int,
    steps: Sequence[tuple[int, int]],
    paper: str,
) -> tuple[str, ...]:
    dims, count = data.rows.shape[1], len(data.rows)
    kept = np.mean([np.isin(a, b[:_K]).mean() for a, b in zip(exact, found, strict=True)])
    needed = operations(count, first, steps)
    large = _PAPER_ROWS * dims / operations(_PAPER_ROWS, first, steps)
    score = [f"{100 * _score(data, found):.2f}"] if isinstance(data, sets.Labelled) else []
    return (
        name,
        *score,
        f"{kept:.4f}",
        f"{needed / 1e6:.3f}",
        f"{count * dims / needed:.1f}",
        f"{large:.1f}",
        paper if isinstance(data, sets.Labelled) else "-",
    )


def _score(data: sets.Labelled, found: Ids) -> float:
    right = data.row_labels[found[:, :_K]] == data.query_labels[:, np.newaxis]
    return mean_average_precision(right, _K)


def _trap(data: sets.Plain) -> str:
    """What the notebook's view does to its figures: ranked in place, list after list."""
    assert isinstance(data, sets.Labelled)
    dims, first = data.rows.shape[1], 16
    start = retrieve(data.rows, data.queries, dims=first, count=_LONGEST)

    def scores(cascades: Sequence[Sequence[int]]) -> list[float]:
        ids, found = start, []
        for shortlists in cascades:
            ids = cascade(data.rows, data.queries, ids, _steps(first, dims, shortlists))
            found.append(100 * _score(data, ids))
        return found

    fresh = [scores([each])[0] for each in CASCADES]
    growing, shrinking = scores(CASCADES), scores(CASCADES[::-1])[::-1]

    def shown(values: Sequence[float]) -> str:
        return ", ".join(f"{value:.2f}" for value in values)

    return (
        f"{data.name}: the authors' notebook ranks the list in place, so that a second cascade "
        f"starts from a ranked one. The three from 16 dimensions: {shown(fresh)} each from its own "
        f"list, {shown(growing)} in place from short to long, {shown(shrinking)} from long to short"
    )
