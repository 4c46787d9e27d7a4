"""Searches of an application: once, many at a time, and by groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest
from qdrant_client.http.models import QueryResponse  # models.QueryResponse is that of fastembed

from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.hook.funnelling import Asked, Way, funnelled, query_of, within
from funnelvec.engines.qdrant.hook.hubbing import corrected, correction_of
from funnelvec.engines.qdrant.hook.judging import Judge, judge_of
from funnelvec.engines.qdrant.hook.known import Hook, Known
from funnelvec.engines.qdrant.hook.listing import Page, Shortlist
from funnelvec.engines.qdrant.hook.reading import but_ours, hidden, wanted
from funnelvec.engines.qdrant.hook.steps import Call, Given, Steps
from funnelvec.engines.qdrant.hook.writing import NOT_OURS

__all__ = ["query_batch_points", "query_points", "query_points_groups"]

#: Queries that go through points whether or not they have a vector.
_UNRANKED = (models.OrderByQuery, models.SampleQuery)


@dataclass(frozen=True, slots=True)
class Sent:
    """A search as it is sent, what judges its hits, and whether none can pass.

    `shortlist` is what it is cut out of where that has to come whole.
    """

    asked: Asked
    judge: Judge | None = None
    shortlist: Shortlist | None = None

    @property
    def hopeless(self) -> bool:
        """Whether no score reaches the least relevance."""
        return self.judge is not None and self.judge.cutoff == np.inf

    @property
    def limits(self) -> Given:
        """What is sent in place of the application's own limits."""
        return {} if self.shortlist is None else self.shortlist.limits

    def hits(
        self, known: Known, found: list[models.ScoredPoint], with_vectors: Any
    ) -> Steps[list[models.ScoredPoint]]:
        """Turn what came back into what the application sees."""
        if self.shortlist is not None:
            return (yield from self.shortlist.shown(known, found))
        hidden(known, found, with_vectors)
        return found if self.judge is None else self.judge.passed(found)


def query_points(hook: Hook, given: Given) -> Steps[Any]:
    """Search once."""
    known = yield from _known(hook, given["collection_name"])
    if known.definition is None:
        return (yield Call("query_points", given))
    rows, first = given.get("limit") or 10, given.get("offset") or 0
    asked = _asked(given, rows)
    page = Page(first, rows, given.get("with_payload", True), asked.with_vectors)
    sent = yield from _sent(hook, known, asked, page)
    if sent.hopeless:
        return QueryResponse(points=[])
    answer = yield Call("query_points", {**given, **_arguments(sent.asked), **sent.limits})
    answer.points = yield from sent.hits(known, answer.points, asked.with_vectors)
    return answer


def query_points_groups(hook: Hook, given: Given) -> Steps[Any]:
    """Search for the best of several groups."""
    known = yield from _known(hook, given["collection_name"])
    given = yield from _looking_up(hook, given)
    if known.definition is None:
        return (yield Call("query_points_groups", given))
    asked = _asked(given, (given.get("limit") or 10) * (given.get("group_size") or 3))
    sent = yield from _sent(hook, known, asked)
    if sent.hopeless:
        return models.GroupsResult(groups=[])
    answer = yield Call("query_points_groups", {**given, **_arguments(sent.asked)})
    for group in answer.groups:
        group.hits = yield from sent.hits(known, group.hits, asked.with_vectors)
    answer.groups = [group for group in answer.groups if group.hits]
    return answer


def query_batch_points(hook: Hook, given: Given) -> Steps[Any]:
    """Search many times in one call."""
    known = yield from _known(hook, given["collection_name"])
    if known.definition is None:
        return (yield Call("query_batch_points", given))
    routing: Given = {n: given[n] for n in ("consistency", "timeout") if n in given}
    searches: list[Sent] = []
    for request in given["requests"]:
        asked = _asked_of(given["collection_name"], request, routing)
        first = request.offset or 0
        page = Page(first, asked.rows - first, request.with_payload, asked.with_vectors)
        searches.append((yield from _sent(hook, known, asked, page)))
    requests = [
        request.model_copy(update={**_fields(sent.asked), **sent.limits})
        for request, sent in zip(given["requests"], searches, strict=True)
        if not sent.hopeless
    ]
    found: list[Any] = []
    if requests:
        found = yield Call("query_batch_points", {**given, "requests": requests})
    return (yield from _answers(known, given["requests"], searches, found))


def _answers(
    known: Known, requests: Sequence[Any], searches: Sequence[Sent], found: Sequence[Any]
) -> Steps[list[Any]]:
    """Give each answer to its search; some may not have been sent."""
    rest, answers = iter(found), []
    for request, sent in zip(requests, searches, strict=True):
        answer = QueryResponse(points=[]) if sent.hopeless else next(rest)
        answer.points = yield from sent.hits(known, answer.points, request.with_vector)
        answers.append(answer)
    return answers


def _known(hook: Hook, collection: str) -> Steps[Known]:
    known = yield from hook.find(collection, detail=True)
    if known.definition is None:
        hook.tell(collection, NOT_OURS)
    return known


# -- the three forms of a search -------------------------------------------------------------------


def _asked(given: Given, rows: int) -> Asked:
    return Asked(
        collection=given["collection_name"],
        query=given.get("query"),
        using=given.get("using") or "",
        prefetch=given.get("prefetch"),
        filter=_rest(given.get("query_filter")),
        params=_rest(given.get("search_params")),
        threshold=given.get("score_threshold"),
        with_vectors=given.get("with_vectors", False),
        lookup_from=given.get("lookup_from"),
        rows=rows + (given.get("offset") or 0),
        routing={
            name: given[name]
            for name in ("consistency", "shard_key_selector", "timeout")
            if name in given
        },
    )


def _arguments(asked: Asked) -> Given:
    return {
        "query": asked.query,
        "prefetch": asked.prefetch,
        "query_filter": asked.filter,
        "search_params": asked.params,
        "score_threshold": asked.threshold,
        "with_vectors": asked.with_vectors,
        **_using(asked),
    }


def _using(asked: Asked) -> Given:
    """A formula compares no vector."""
    return {"using": None} if isinstance(asked.query, models.FormulaQuery) else {}


def _asked_of(collection: str, request: models.QueryRequest, routing: Given) -> Asked:
    return Asked(
        collection=collection,
        query=request.query,
        using=request.using or "",
        prefetch=request.prefetch,
        filter=request.filter,
        params=request.params,
        threshold=request.score_threshold,
        with_vectors=request.with_vector,
        lookup_from=request.lookup_from,
        rows=(10 if request.limit is None else request.limit) + (request.offset or 0),
        routing={**routing, "shard_key_selector": request.shard_key},
    )


def _fields(asked: Asked) -> Given:
    return {
        "query": asked.query,
        "prefetch": asked.prefetch,
        "filter": asked.filter,
        "params": asked.params,
        "score_threshold": asked.threshold,
        "with_vector": asked.with_vectors,
        **_using(asked),
    }


def _rest(given: Any) -> Any:
    if isinstance(given, grpc.Filter):
        return GrpcToRest.convert_filter(given)
    if isinstance(given, grpc.SearchParams):
        return GrpcToRest.convert_search_params(given)
    return given


# -- from a search to a funnel ---------------------------------------------------------------------


def _sent(hook: Hook, known: Known, asked: Asked, page: Page | None = None) -> Steps[Sent]:
    """Work out how a search is sent; without a `page` it comes back in groups."""
    sent = replace(asked, with_vectors=wanted(known, asked.with_vectors))
    vector = known.vectors.get(asked.using)
    if vector is not None and _is_nearest(asked):
        return (yield from _nearest(hook, known, sent, vector, page))
    if _meets_ours(asked):
        sent = replace(sent, filter=but_ours(known, asked.filter))
    return Sent(replace(sent, prefetch=within(hook, known, sent)))


def _nearest(
    hook: Hook, known: Known, asked: Asked, vector: Vector, page: Page | None
) -> Steps[Sent]:
    """Work out how a search for what is nearest to a vector of ours is sent."""
    named, own = known.funnel(asked.collection, vector), asked.prefetch
    if named is None:
        hook.tell(asked.collection, f"the vector {asked.using!r} has no funnel to go by")
    else:
        asked = yield from _by_vector(asked)
    query = query_of(vector, asked.query.nearest)
    sent, correction = asked, None
    if own:
        sent = replace(asked, prefetch=within(hook, known, asked))
    elif named is not None and query is not None:
        sent = funnelled(hook, known, asked, Way(vector, named.funnel, query))
        correction = None if sent is asked else correction_of(vector, named)
    judge, shortlist = None, None
    if query is not None:
        whole = page is not None and not own
        judge = judge_of(hook, vector, named, query, correction, whole=whole)
    if judge is not None and judge.depth and page is not None:
        shortlist = Shortlist.of(known, judge, sent, page)
        sent = shortlist.sent
    elif judge is not None and judge.cutoff != np.inf:
        sent = replace(sent, threshold=judge.threshold(asked.threshold))
    sent = sent if correction is None else corrected(sent, vector, correction)
    return Sent(sent, judge, shortlist)


def _is_nearest(asked: Asked) -> bool:
    query = asked.query
    return isinstance(query, models.NearestQuery) and query.mmr is None


def _by_vector(asked: Asked) -> Steps[Asked]:
    """Put the vector of a point in the place of its id; the point itself is no answer then."""
    id = asked.query.nearest
    if not isinstance(id, (int, str)) or asked.lookup_from is not None or asked.prefetch:
        return asked
    records: list[models.Record] = yield Call(
        "retrieve",
        {
            "collection_name": asked.collection,
            "ids": [id],
            "with_payload": False,
            "with_vectors": [asked.using],
            **asked.routing,
        },
    )
    found: Any = records[0].vector if records else None
    vector = found.get(asked.using) if isinstance(found, dict) else found
    if not vector:  # Qdrant says best what is wrong with it
        return asked
    others = models.Filter(
        must_not=[models.HasIdCondition(has_id=[id])],
        must=None if asked.filter is None else [asked.filter],
    )
    return replace(asked, query=models.NearestQuery.model_construct(nearest=vector), filter=others)


def _meets_ours(asked: Asked) -> bool:
    """Whether a search may come upon the point with the definition, which has no vector."""
    return _unranked(asked.query, asked.prefetch)


def _unranked(query: Any, prefetch: Any) -> bool:
    inner = prefetch if isinstance(prefetch, list) else [] if prefetch is None else [prefetch]
    if isinstance(query, _UNRANKED) or (query is None and not inner):
        return True
    return any(_unranked(getattr(p, "query", None), getattr(p, "prefetch", None)) for p in inner)


def _looking_up(hook: Hook, given: Given) -> Steps[Given]:
    """Keep our vectors out of the points of another collection that groups are looked up in."""
    lookup = given.get("with_lookup")
    if not isinstance(lookup, models.WithLookup) or lookup.with_vectors is not True:
        return given
    other = yield from hook.find(lookup.collection, detail=True)
    shown = wanted(other, True)
    return {**given, "with_lookup": lookup.model_copy(update={"with_vectors": shown})}
