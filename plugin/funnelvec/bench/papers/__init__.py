"""Papers as recipes: what each says, beside what the same does here.

numpy where the point is recall or operations; a real index where it is the index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from funnelvec.bench.papers import leanvec, matryoshka, ordering, pca_rag
from funnelvec.bench.papers.finding import Finding, PapersReport
from funnelvec.errors import InvalidInput, NotFound

__all__ = ["PAPERS", "Finding", "PapersReport", "measure_papers"]

#: In the order in which they are measured.
PAPERS = ("matryoshka", "pca-rag", "leanvec", "lid-order")


def measure_papers(
    folder: Path | None = None,
    *,
    names: Sequence[str] = PAPERS,
    url: str | None = None,
    quick: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> PapersReport:
    """Measure what papers say on the open evaluation sets, and on drawn vectors.

    Parameters
    ----------
    folder
        The open evaluation sets; what needs one that is not there is skipped, and said.
    names
        Which of `PAPERS`.
    url
        A Postgres for those that need an index; None starts a server for this run.
    quick
        Fewer rows, queries and builds.

    Raises
    ------
    InvalidInput
        If there is no such paper.
    NotFound
        If the folder does not exist.
    """
    if unknown := set(names) - set(PAPERS):
        raise InvalidInput(f"there is no paper {min(unknown)!r}; choose from {', '.join(PAPERS)}")
    if folder is not None and not folder.is_dir():
        raise NotFound(f"there is no folder {str(folder)!r}")
    started = time.perf_counter()
    measures: dict[str, Callable[..., tuple[list[Finding], list[str]]]] = {
        "matryoshka": matryoshka.measure,
        "pca-rag": pca_rag.measure,
        "leanvec": leanvec.measure,
        "lid-order": partial(ordering.measure, url=url),
    }
    findings, skipped = [], []
    for name in PAPERS:
        if name in names:
            found, missing = measures[name](folder, quick=quick, say=say)
            findings += found
            skipped += missing
    return PapersReport(tuple(findings), tuple(skipped), time.perf_counter() - started)
