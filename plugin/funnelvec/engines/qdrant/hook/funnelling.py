"""From a search to a funnel, where it leaves room for one.

A search is a funnel when it asks for what is nearest to a vector, or to a point, and says nothing
that a funnel could not do: no prefetch of its own, no diversity, no exact search. So is each part
of a search that goes by several. Everything else goes to the database as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec.engines.qdrant.compile import Limits, Plan, compile_search
from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.hook.known import Hook, Known
from funnelvec.engines.qdrant.hook.steps import Given
from funnelvec.errors import CapabilityError, InvalidInput
from funnelvec.funnel import Funnel, Stage

__all__ = ["Asked", "Way", "funnelled", "query_of", "within"]

#: What Qdrant brings where nothing is said.
_LIMIT = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """One search, in whichever of the three forms it came.

    Attributes
    ----------
    rows
        How many rows have to reach the last stage: a page, and all pages before it.
    routing
        What reading a point that a search names has to say too.
    """

    collection: str
    query: Any
    using: str
    prefetch: Any
    filter: Any
    params: models.SearchParams | None
    threshold: float | None
    with_vectors: Any
    lookup_from: Any
    rows: int
    routing: Given


@dataclass(frozen=True, slots=True)
class Way:
    """How a search may go: the vector that it is about, its funnel, and the query as an array."""

    vector: Vector
    funnel: Funnel
    query: npt.NDArray[np.float32]


def query_of(vector: Vector, given: Any) -> npt.NDArray[np.float32] | None:
    """Read a query as a vector; None where it is none, or none that Qdrant would take."""
    if not isinstance(given, list) or len(given) != vector.column.base.dims:
        return None
    try:
        with np.errstate(over="ignore"):  # Qdrant says best what is wrong with it
            found = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        return None
    return found if found.ndim == 1 and np.isfinite(found).all() else None


def funnelled(hook: Hook, known: Known, asked: Asked, way: Way) -> Asked:
    """Put the stages of a funnel before a search, where it leaves them room."""
    given, vector = asked.params, way.vector
    limits = Limits() if known.info is None else known.info.limits
    ready = {r for r, kept in vector.resolutions.items() if kept.ready}
    needed = {stage.resolution for stage in way.funnel.stages[:-1]}
    if asked.prefetch or (given is not None and given.exact) or not needed or needed - ready:
        return asked
    plan = Plan(vector.column, _widened(way.funnel, asked.rows, limits), vector.indexed, limits)
    try:
        request = compile_search(
            plan, way.query, limit=min(asked.rows, limits.rows), filter=asked.filter
        )
    except (InvalidInput, CapabilityError):  # zero at some stage: only the vector itself can tell
        return asked
    prefetch: Any = request.prefetch
    params = request.params
    if hook.local:
        prefetch, params = _without_params(prefetch), None
    elif given is not None:
        _first(prefetch).params = _as_asked(_first(prefetch).params, given)
    return replace(asked, prefetch=prefetch, filter=None, params=params)


def within(hook: Hook, known: Known, asked: Asked) -> Any:
    """Have the parts of a search that goes by several be funnels, each with its own limit."""
    prefetch = asked.prefetch
    if isinstance(prefetch, list):
        return [_part(hook, known, asked, each) for each in prefetch]
    return prefetch if prefetch is None else _part(hook, known, asked, prefetch)


def _part(hook: Hook, known: Known, asked: Asked, part: Any) -> Any:
    if not isinstance(part, models.Prefetch):  # one of gRPC's
        return part
    if part.prefetch:
        inner = within(hook, known, replace(asked, prefetch=part.prefetch))
        return part.model_copy(update={"prefetch": inner})
    nearest, vector = part.query, known.vectors.get(part.using or "")
    if isinstance(nearest, models.NearestQuery):
        nearest = None if nearest.mmr is not None else nearest.nearest
    named = None if vector is None else known.funnel(asked.collection, vector)
    query = None if vector is None else query_of(vector, nearest)
    if vector is None or named is None or query is None or part.lookup_from is not None:
        return part
    rows = _LIMIT if part.limit is None else part.limit
    alone = replace(asked, prefetch=None, filter=part.filter, params=part.params, rows=rows)
    sent = funnelled(hook, known, alone, Way(vector, named.funnel, query))
    if sent is alone:
        return part
    update = {"prefetch": sent.prefetch, "filter": sent.filter, "params": sent.params}
    return part.model_copy(update={**update, "limit": rows})


def _widened(funnel: Funnel, rows: int, limits: Limits) -> Funnel:
    """Have every stage keep twice what a search asks for, and no more than is allowed.

    A page of more rows than a stage keeps would come back short; all stages grow alike.
    """
    narrowest = funnel.narrowest_keep or rows
    factor = max(1.0, 2 * rows / narrowest)
    stages = [
        Stage(stage.resolution, min(int(np.ceil((stage.keep or 0) * factor)), limits.rows))
        for stage in funnel.stages[:-1]
    ]
    return Funnel((*stages, funnel.last))


def _as_asked(ours: models.SearchParams | None, given: models.SearchParams) -> models.SearchParams:
    """Parameters of the first stage, the only one that goes through an index, as they were asked.

    Not those of quantization: they are about the vector itself, which the last stage reads.
    """
    asked = {
        name: value
        for name in ("hnsw_ef", "indexed_only", "acorn")
        if (value := getattr(given, name)) is not None
    }
    return (ours or models.SearchParams()).model_copy(update=asked)


def _first(prefetch: Any) -> Any:
    while prefetch.prefetch is not None:
        prefetch = prefetch.prefetch
    return prefetch


def _without_params(prefetch: Any) -> Any:
    if prefetch is None:
        return None
    inner = _without_params(prefetch.prefetch)
    return prefetch.model_copy(update={"params": None, "prefetch": inner})
