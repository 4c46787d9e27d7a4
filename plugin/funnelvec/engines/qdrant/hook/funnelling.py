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
from funnelvec.engines.qdrant.vectors import Stored
from funnelvec.errors import CapabilityError
from funnelvec.funnel import Funnel, Stage

__all__ = ["Asked", "Way", "funnelled", "query_of", "within"]

#: What Qdrant brings where nothing is said.
_LIMIT = 10
#: How many forms of requests are kept; applications use few.
_TEMPLATES = 256


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


@dataclass(frozen=True, slots=True)
class Template:
    """A funnel as a request, but for the query and the filter: models take long to make.

    Attributes
    ----------
    stages
        What is searched before the vector itself, coarse first, none of it inside another yet.
    params
        Those of the last stage.
    """

    stages: tuple[tuple[Stored, models.Prefetch], ...]
    params: models.SearchParams | None


def funnelled(hook: Hook, known: Known, asked: Asked, way: Way) -> Asked:
    """Put the stages of a funnel before a search, where it leaves them room."""
    given = asked.params
    if asked.prefetch or (given is not None and given.exact):
        return asked
    template = _template(hook, known, way, asked.rows)
    if template is None:
        return asked
    inner: Any = None
    for stored, stage in template.stages:
        encoded = stored.encode_one(way.query)
        if not stored.has_code(encoded[np.newaxis, :])[0]:
            return asked  # only the vector itself can tell rows apart then
        update: dict[str, Any] = {"query": encoded.tolist(), "prefetch": inner}
        if inner is None:
            update["filter"] = asked.filter
            if given is not None and not hook.local:
                update["params"] = _as_asked(stage.params, given)
        inner = stage.model_copy(update=update)
    return replace(asked, prefetch=inner, filter=None, params=template.params)


def _template(hook: Hook, known: Known, way: Way, rows: int) -> Template | None:
    """Return how a funnel is sent for so many rows; None where the collection has no way for it."""
    limits = Limits() if known.info is None else known.info.limits
    key = (known.text, way.vector.column.name, way.funnel, rows, limits)
    if key not in hook.templates:
        if len(hook.templates) >= _TEMPLATES:
            hook.templates.clear()
        hook.templates[key] = _compiled(hook, way, rows, limits)
    found: Template | None = hook.templates[key]
    return found


def _compiled(hook: Hook, way: Way, rows: int, limits: Limits) -> Template | None:
    vector = way.vector
    ready = {resolution for resolution, kept in vector.resolutions.items() if kept.ready}
    needed = {stage.resolution for stage in way.funnel.stages[:-1]}
    if not needed or needed - ready:
        return None
    plan = Plan(vector.column, _widened(way.funnel, rows, limits), vector.indexed, limits)
    some = np.ones(vector.column.base.dims, np.float32)
    try:
        request = compile_search(plan, some, limit=min(rows, limits.rows))
    except CapabilityError:
        return None
    stages: list[tuple[Stored, models.Prefetch]] = []
    level: Any = request
    for stage in reversed(plan.funnel.stages[:-1]):
        level = level.prefetch
        update = {"params": None} if hook.local else {}
        stages.insert(0, (vector.column.stored(stage.resolution), level.model_copy(update=update)))
    return Template(tuple(stages), None if hook.local else request.params)


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
