"""Funnels as requests of Qdrant's: nested prefetch, coarse stage innermost. Pure.

Every level says its own limit, vector and parameters; what is left out would be Qdrant's default
of ten rows, or its choice of rescoring. Limits of prefetches count per shard, so a collection of
n shards rescores up to n times as many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec.engines.qdrant.correcting import Correction
from funnelvec.engines.qdrant.vectors import Column, Stored, unsigned
from funnelvec.errors import CapabilityError, InvalidInput
from funnelvec.funnel import Funnel, Stage
from funnelvec.resolution import Resolution

__all__ = [
    "NO_LIMITS",
    "Limits",
    "Plan",
    "Template",
    "compile_search",
    "rescore_request",
    "scan_request",
]

#: Fewer candidates than this while a graph is walked cost recall and save nothing.
_LEAST_EF = 64
#: Rows that a graph of Qdrant's walks to at most, where the collection does not say.
_NO_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What the strict mode of a collection allows.

    Rows of one query or page, its ef, exact search; queries and points in one call.
    """

    rows: int = _NO_LIMIT
    ef: int = _NO_LIMIT
    exact: bool = True
    queries: int = _NO_LIMIT
    points: int = _NO_LIMIT

    @classmethod
    def of(cls, strict: models.StrictModeConfig | None) -> Limits:
        """Read the configuration of a collection; one that is not enabled limits nothing."""
        if strict is None or not strict.enabled:
            return cls()
        return cls(
            rows=strict.max_query_limit or _NO_LIMIT,
            ef=strict.search_max_hnsw_ef or _NO_LIMIT,
            exact=strict.search_allow_exact is not False,
            queries=strict.search_max_batchsize or _NO_LIMIT,
            points=strict.upsert_max_batchsize or _NO_LIMIT,
        )

    def check(self, rows: int, what: str) -> int:
        """Return a number of rows.

        Raises
        ------
        CapabilityError
            If the collection does not allow so many.
        """
        if rows > self.rows:
            raise CapabilityError(
                f"{what} takes {rows} rows, and the strict mode of the collection allows "
                f"{self.rows} (max_query_limit); ask for fewer, or have it raised"
            )
        return rows


NO_LIMITS = Limits()

#: Stands for a vector while a request is checked: pydantic would look at every number of it, once
#: for each kind of query that Qdrant has, which takes longer than the search.
_EMPTY: list[float] = []


@dataclass(frozen=True, slots=True)
class Plan:
    """A funnel over a column, which of its resolutions have an index, what its scores are less."""

    column: Column
    funnel: Funnel
    indexed: frozenset[Resolution] = frozenset()
    limits: Limits = NO_LIMITS
    correction: Correction | None = None

    @property
    def last(self) -> Stored:
        """The resolution whose scores order the answer."""
        return self.column.stored(self.funnel.last.resolution)

    def upto(self, count: int) -> Plan:
        """Return the funnel of the first `count` stages."""
        *before, last = self.funnel.stages[:count]
        whole = count == len(self.funnel.stages)
        shorter = self.funnel if whole else Funnel((*before, Stage(last.resolution)))
        return replace(self, funnel=shorter, correction=self.correction if whole else None)

    def scorer(self, stored: Stored) -> Callable[[float], float]:
        """Return what makes our score of Qdrant's, of a search that ends in `stored`."""
        return stored.scorer() if self.correction is None else unsigned


_Encoder = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32] | None]


@dataclass(frozen=True, slots=True)
class Template:
    """A search that has been compiled but for its query and its cutoff.

    Attributes
    ----------
    stages, search
        Its requests, coarse stage first; their vectors are empty.
    stored, encoders
        What each of them compares, the last one's too, and what makes it of a query.
    bare
        Whether the last one compares with the query as it is.
    correction
        What `search` takes off the scores of the last of `stages`; None where it compares itself.
    """

    stages: tuple[models.Prefetch, ...]
    search: models.QueryRequest
    stored: tuple[Stored, ...]
    encoders: tuple[_Encoder, ...]
    bare: bool
    correction: Correction | None = None

    @classmethod
    def of(
        cls,
        plan: Plan,
        *,
        limit: int,
        filter: models.Filter | None = None,
        payload: Sequence[str] = (),
    ) -> Template:
        """Compile what all searches of a plan have in common; see `compile_search`."""
        limits, last = plan.limits, plan.last
        stored = [plan.column.stored(stage.resolution) for stage in plan.funnel.stages[:-1]]
        stages = [
            models.Prefetch(
                query=_EMPTY,
                using=each.name,
                filter=filter if number == 0 else None,
                params=_params(plan, each, first=number == 0, keep=stage.keep),
                limit=limits.check(stage.keep or 0, f"stage {stage}"),
            )
            for number, (stage, each) in enumerate(
                zip(plan.funnel.stages[:-1], stored, strict=True)
            )
        ]
        search = models.QueryRequest(
            query=_EMPTY,
            using=last.name,
            filter=None if stages else filter,
            params=_params(plan, last, first=not stages, keep=limit, last=True),
            limit=limits.check(limit, "the search"),
            with_payload=list(payload) if payload else False,
            with_vector=False,
        )
        encoders = [each.encoder() for each in (*stored, last)]
        bare = last.is_base and last.column.code == "f32" and last.metric == "cosine"
        found = cls(tuple(stages), search, (*stored, last), tuple(encoders), bare)
        return found if plan.correction is None else found._corrected(plan, plan.correction)

    def _corrected(self, plan: Plan, correction: Correction) -> Template:
        """Return the search as one by the corrected score of all rows of the last shortlist."""
        keep = plan.funnel.narrowest_keep or self.search.limit or 0
        search = correction.over(self.search, plan.last, rows=keep)
        last: Any = search.prefetch
        bare = search.model_copy(update={"prefetch": None})
        return replace(self, stages=(*self.stages, last), search=bare, correction=correction)

    def vectors(
        self, query: npt.NDArray[np.float32], *, seen: bool = False
    ) -> list[npt.NDArray[np.float32]]:
        """What each stage compares with; `seen`: `questions.glance` has seen it."""
        found: list[npt.NDArray[np.float32]] = []
        short = seen and self.bare
        for encode in self.encoders[:-1] if short else self.encoders:
            vector = encode(query)
            if vector is None:
                raise _undirected(self.stored[len(found)])
            found.append(vector)
        if short:
            found.append(query)
        return found

    def threshold(self, cutoff: float | None) -> float | None:
        """What Qdrant is told of the lowest score of the last stage."""
        if cutoff is None:
            return None
        return (self.correction or self.stored[-1]).threshold(cutoff)

    def request(
        self, vectors: Sequence[npt.NDArray[np.float32]], threshold: float | None
    ) -> models.QueryRequest:
        """Put vectors in; copies of models are not validated again."""
        inner: models.Prefetch | None = None
        for stage, vector in zip(self.stages, vectors, strict=False):
            inner = stage.model_copy(update={"prefetch": inner, "query": vector.tolist()})
        changed: dict[str, Any] = {"prefetch": inner, "score_threshold": threshold}
        if self.correction is None:
            changed["query"] = vectors[-1].tolist()
        return self.search.model_copy(update=changed)

    def ask(
        self, query: npt.NDArray[np.float32], *, cutoff: float | None = None
    ) -> models.QueryRequest:
        """Return the search for a query."""
        return self.request(self.vectors(query), self.threshold(cutoff))


def compile_search(
    plan: Plan,
    query: npt.NDArray[np.float32],
    *,
    limit: int,
    filter: models.Filter | None = None,
    cutoff: float | None = None,
    payload: Sequence[str] = (),
) -> models.QueryRequest:
    """Compile one search.

    Parameters
    ----------
    query
        (dims,) float32, checked.
    limit
        How many rows to answer with.
    filter
        Stands in the innermost stage: what it leaves out reaches none.
    cutoff
        Lowest score of the last stage; it goes down as ``score_threshold``.
    payload
        Paths of what the rows are to bring along.

    Raises
    ------
    InvalidInput
        If the query has no direction at some stage.
    CapabilityError
        If the collection does not allow it.
    """
    template = Template.of(plan, limit=limit, filter=filter, payload=payload)
    return template.ask(query, cutoff=cutoff)


def rescore_request(
    plan: Plan,
    stored: Stored,
    query: npt.NDArray[np.float32],
    *,
    ids: Sequence[int | str],
    limit: int,
) -> models.QueryRequest:
    """Compile one stage by itself, over the points that reach it; scores are not corrected."""
    return models.QueryRequest(
        query=_nearest(stored, query),
        using=stored.name,
        filter=models.Filter(must=[models.HasIdCondition(has_id=list(ids))]),
        params=_scan(plan.limits),
        limit=plan.limits.check(limit, f"stage {stored.resolution}"),
        with_payload=False,
        with_vector=False,
    )


def scan_request(
    plan: Plan,
    query: npt.NDArray[np.float32],
    *,
    limit: int,
    rows: int,
    filter: models.Filter | None = None,
) -> models.QueryRequest:
    """Compile exact search over the column itself, by the corrected score where there is one.

    Any of the `rows` of the table may be the best of that.

    Raises
    ------
    CapabilityError
        If the collection does not allow exact search.
    """
    if not plan.limits.exact:
        raise CapabilityError(
            "the strict mode of the collection allows no exact search (search_allow_exact), so "
            "there is nothing to compare with; have it allowed, or measure on a copy"
        )
    base = plan.column.stored(plan.column.base)
    search = models.QueryRequest(
        query=_nearest(base, query),
        using=base.name,
        filter=filter,
        params=_scan(plan.limits),
        limit=plan.limits.check(limit, "exact search"),
        with_payload=False,
        with_vector=False,
    )
    if plan.correction is None:
        return search
    most = plan.limits.check(max(1, rows), "exact search by a corrected score")
    return plan.correction.over(search, base, rows=most)


def _nearest(stored: Stored, query: npt.NDArray[np.float32]) -> list[float]:
    encoded = stored.encoder()(query)
    if encoded is None:
        raise _undirected(stored)
    found: list[float] = encoded.tolist()
    return found


def _undirected(stored: Stored) -> InvalidInput:
    return InvalidInput(
        f"the first {stored.resolution.dims} numbers of the query are zero at "
        f"{stored.resolution}, which leaves no direction to compare; use a funnel without "
        "that stage"
    )


def _params(
    plan: Plan, stored: Stored, *, first: bool, keep: int | None, last: bool = False
) -> models.SearchParams:
    """Parameters of one stage: only the first goes through an index, and only where it has one."""
    limits = plan.limits
    if first and stored.resolution in plan.indexed:
        ef: int | None = min(max(_LEAST_EF, keep or 0), limits.ef)
        return models.SearchParams(hnsw_ef=ef, exact=False, quantization=_codes(stored, last=last))
    if stored.is_quantized and (first or not stored.is_bits):  # exact would take the originals
        return models.SearchParams(exact=False, quantization=_codes(stored, last=last))
    return _scan(limits) if first else _rescore()


def _codes(stored: Stored, *, last: bool) -> models.QuantizationSearchParams:
    if not stored.is_quantized:  # a collection may quantize all its vectors
        return models.QuantizationSearchParams(ignore=True)
    # Bits order the rows as their originals do, so rescoring changes the scores, not the order.
    return models.QuantizationSearchParams(ignore=False, rescore=last, oversampling=1.0)


def _scan(limits: Limits) -> models.SearchParams:
    ignored = models.QuantizationSearchParams(ignore=True)
    return models.SearchParams(exact=limits.exact, quantization=ignored)


def _rescore() -> models.SearchParams:
    ignored = models.QuantizationSearchParams(ignore=True)
    return models.SearchParams(exact=False, quantization=ignored)
