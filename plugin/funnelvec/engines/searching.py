"""The part of the `Table` protocol that searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

from funnelvec.reports import Explanation
from funnelvec.types import Answer, Cutoff, Hit

__all__ = ["After", "Searching"]

#: Where a page begins: behind a hit, or its cursor as text or as the JSON in it.
After: TypeAlias = Hit | str | Mapping[str, Any]


class Searching(Protocol):
    """One query, many in one call, and one search explained."""

    def search(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        after: After | None = None,
        cutoff: Cutoff | None = None,
        funnel: str | None = None,
    ) -> Answer:
        """Find the `k` rows most similar to `query`, best first, ties by key.

        Parameters
        ----------
        query
            (dims,) float32 or what converts to it; finite, and not zero under cosine. Rounded to
            what the column stores.
        k
            At least 1 and at most what reaches the last stage. Fewer rows come back when fewer
            match; none is an answer.
        min_relevance
            Leave out rows below this calibrated probability, in [0, 1].
        filter
            See `funnelvec.filters`; applied before the first stage counts.
        after
            Where the answer begins: behind this hit, the last of the page before, or its
            ``cursor``. Pages go on through the rows that reach the last stage, and are empty
            behind the last of them.
        cutoff
            "certified" and "precise" leave out rows below the score that `certify` found for
            ``max_miss`` and for ``min_precision``. What is promised is about answers of its `k`
            rows without a filter, and nothing less is asked with it. "best_f1" keeps the rows that
            promise the best F1 for this query, by the relevances of all rows of the last stage:
            it promises nothing, and keeps at least one.
        funnel
            Name of the funnel; None means ``<table>_search``.

        Raises
        ------
        InvalidInput, FilterError
            If an argument cannot be used.
        NotFound
            If the funnel does not exist.
        NotCalibrated
            If `min_relevance` is given and the funnel has no calibration, or a `cutoff` and it has
            no certificate (or calibration) for it.

        Returns
        -------
        Answer
            The hits, a list. Empty where nothing passes; then its `nearest` is the row that came
            closest to the cutoff.
        """

    def search_many(
        self,
        queries: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        cutoff: Cutoff | None = None,
        funnel: str | None = None,
    ) -> list[Answer]:
        """Answer several queries in one call: what `search` gives for each, in their order.

        Parameters
        ----------
        queries
            (n, dims) float32 or what converts to it; n may be 0.
        """

    def explain(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        cutoff: Cutoff | None = None,
        funnel: str | None = None,
    ) -> Explanation:
        """Run one search and report what survived each stage, with times.

        Where nothing passes the cutoff, a note says how close the best row came.
        """
