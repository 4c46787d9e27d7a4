"""PCA-RAG: search by a few principal components, as fast and small, and what people think of it.

Khaledian et al. 2025 (arXiv 2504.08386) cut embeddings of 3,072 dimensions to 110.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from funnelvec.bench.papers import sets
from funnelvec.bench.papers.finding import Finding
from funnelvec.bench.papers.matryoshka import cascade, retrieve
from funnelvec.bench.stats import ratio
from funnelvec.errors import NotFound
from funnelvec.fitting.axes import principal

__all__ = ["measure", "ndcg", "spearman"]

_PAPER, _SOURCE = "PCA-RAG", "arXiv 2504.08386"
_CLAIM = (
    "3,072 to 110 dimensions: retrieval up to 60 times faster, an index 28.6 times smaller, "
    "'moderate' decline of the correlation with human scores (abstract; its tables were not read)"
)
_SHARE = 110 / 3_072
_DEEP, _KEEP = 20, 100
_ROUNDS = 5


def spearman(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Rank correlation of two rows of numbers, ties at their mean rank; NaN where one is flat."""
    ranks = []
    for values in (a, b):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        ranks.append((ends - (counts - 1) / 2)[inverse])
    if min(ranks[0].std(), ranks[1].std()) == 0:
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def ndcg(found: npt.NDArray[np.intp], grades: npt.NDArray[np.float64], k: int) -> float:
    """nDCG@k of one answer; `grades` (n,) of all rows, 0 where nobody judged."""
    worth = 2.0**grades - 1
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.sort(worth)[::-1][:k]
    ideal = float((best * discount[: len(best)]).sum())
    given = worth[found[:k]]
    return float((given * discount[: len(given)]).sum()) / ideal if ideal else float("nan")


def measure(
    folder: Path | None, *, quick: bool, say: Callable[[str], None]
) -> tuple[list[Finding], list[str]]:
    """Agreement on judged papers; speed and size on wide vectors."""
    findings, skipped = [], []
    makers: list[Callable[[], Finding]] = [
        lambda: _agreement(sets.graded(folder)),
        lambda: _speed(
            sets.plain(folder, "highdim1536", rows=10_000 if quick else 50_000, queries=50)
        ),
    ]
    if folder is None:
        makers[1] = lambda: _speed(sets.generated(rows=4_000, queries=50, dims=768))
    for what, make in zip(("agreement", "speed"), makers, strict=True):
        say(f"{_PAPER}: {what}")
        try:
            findings.append(make())
        except NotFound as error:
            skipped.append(f"{_PAPER}: {error}")
    return findings, skipped


def _components(rows: sets.Matrix, width: int) -> Callable[[sets.Matrix], sets.Matrix]:
    """Their map: centred principal components; cosines are taken of what it gives."""
    mean = rows.mean(axis=0)
    axes = principal(rows - mean, width).astype(np.float32)
    return lambda vectors: sets.units((vectors - mean) @ axes.T)


def _agreement(data: sets.Graded) -> Finding:
    dims = data.rows.shape[1]
    least = max(2, round(dims * _SHARE))
    lines: list[tuple[str, ...]] = []
    for width in (dims, dims // 4, dims // 8, least):
        if width == dims:
            rows, queries = data.rows, data.queries
        else:
            into = _components(data.rows, width)
            rows, queries = into(data.rows), into(data.queries)
        answer = retrieve(rows, queries, dims=width, count=_DEEP)
        name = f"all {dims}" if width == dims else f"{width} principal components"
        paper = "28.6 times smaller, 'moderate' decline" if width == least else "-"
        correlated = f"{_correlation(data, rows, queries):.3f}"
        lines.append(
            (name, correlated, f"{_judged(data, answer):.3f}", f"{dims / width:.1f}", paper)
        )
    for width in (dims // 8, least):
        lines.append(_funnel(data, width))
    return Finding(
        paper=_PAPER,
        source=_SOURCE,
        title=f"agreement with people on {data.name}",
        claim=_CLAIM,
        head=("", "rank correlation with grades", f"nDCG@{_DEEP}", "fewer numbers", "paper"),
        rows=tuple(lines),
        notes=(
            f"{len(data.judged):,} judged pairs of {len(data.queries)} queries, grades 0 to 3; the "
            "correlation is Spearman's over the judged rows of a query, then the mean of queries; "
            f"a funnel ranks its best {_KEEP} again by all {dims}, so it has no score of its own",
        ),
    )


def _funnel(data: sets.Graded, width: int) -> tuple[str, ...]:
    """What our stages make of the same components: the best of them, ranked again by all."""
    dims = data.rows.shape[1]
    into = _components(data.rows, width)
    ids = retrieve(into(data.rows), into(data.queries), dims=width, count=_KEEP)
    answer = cascade(data.rows, data.queries, ids, [(dims, _KEEP)])
    return (
        f"funnel: {width} components keep {_KEEP}, then all {dims}",
        "-",
        f"{_judged(data, answer):.3f}",
        f"{dims / width:.1f} in the first stage",
        "-",
    )


def _correlation(data: sets.Graded, rows: sets.Matrix, queries: sets.Matrix) -> float:
    found = []
    for query in range(len(queries)):
        mine = data.judged[data.judged[:, 0] == query]
        scores = (rows[mine[:, 1]] @ queries[query]).astype(np.float64)
        found.append(spearman(scores, mine[:, 2].astype(np.float64)))
    return float(np.nanmean(found))


def _judged(data: sets.Graded, answers: npt.NDArray[np.intp]) -> float:
    found = []
    for query, answer in enumerate(answers):
        grades = np.zeros(len(data.rows))
        mine = data.judged[data.judged[:, 0] == query]
        grades[mine[:, 1]] = mine[:, 2]
        found.append(ndcg(answer, grades, _DEEP))
    return float(np.nanmean(found))


def _speed(data: sets.Plain) -> Finding:
    dims = data.rows.shape[1]
    widths = (dims, max(2, round(dims * _SHARE)))
    into = _components(data.rows, widths[1])
    sides = [
        (data.rows, data.queries),
        (np.ascontiguousarray(into(data.rows)), into(data.queries)),
    ]
    times: list[list[float]] = [[], []]
    for turn in range(_ROUNDS + 1):  # the first warms up
        for side, (rows, queries) in enumerate(sides):
            each = []
            for query in queries:
                started = time.perf_counter_ns()
                scores = rows @ query
                np.argpartition(-scores, 9)
                each.append((time.perf_counter_ns() - started) / 1e6)
            if turn:
                times[side].append(median(each))
    exact = retrieve(data.rows, data.queries, dims=dims, count=10)
    short = retrieve(sides[1][0], sides[1][1], dims=widths[1], count=10)
    same = np.mean([np.isin(a, b).mean() for a, b in zip(exact, short, strict=True)])
    faster = ratio(times[0], times[1])
    assert faster is not None  # no search takes no time
    lines = (
        (f"all {dims}", f"{median(times[0]):.3f}", "1", "1", "1.0000", "-"),
        (
            f"{widths[1]} principal components",
            f"{median(times[1]):.3f}",
            faster.text(1),
            f"{dims / widths[1]:.1f}",
            f"{same:.4f}",
            "up to 60 times faster, 28.6 times smaller",
        ),
    )
    return Finding(
        paper=_PAPER,
        source=_SOURCE,
        title=f"speed and size on {data.name}, {len(data.rows):,} rows",
        claim=_CLAIM,
        head=("", "ms a query", "faster", "smaller", "exact top 10 found", "paper"),
        rows=lines,
        notes=(
            "exact search in numpy on one core, in turns; 28 times fewer numbers are read, so that "
            "more than that is not due to the dimensions. With an index: bench peers",
        ),
    )
