"""What applications ask of a Qdrant server beyond what funnelvec does, for `facade`."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from funnelvec.engines.qdrant import translate

Body = dict[str, Any]
DONE: Body = {"operation_id": 0, "status": "completed"}
U = edge.UpdateOperation


def condition(given: models.Filter | None) -> edge.Filter | None:
    return None if given is None else translate.filter_of(given)


def ids_of(collection: Any, given: Any) -> list[Any]:
    """Points that a selector means; Edge has no filter in every operation."""
    if given.filter is None:
        return [translate.id_of(id) for id in given.points or []]
    everything = edge.ScrollRequest(limit=100_000, filter=condition(given.filter))
    return [point.id for point in collection.shard.scroll(everything)[0]]


class Selector(models.FilterSelector):
    """Either kind of selector."""

    filter: models.Filter | None = None  # type: ignore[assignment]
    points: list[Any] | None = None


def deleted(collection: Any, body: Body) -> Body:
    collection.update(U.delete_points(ids_of(collection, Selector.model_validate(body))))
    return DONE


def overwritten(collection: Any, body: Body) -> Body:
    given = models.SetPayload.model_validate(body)
    collection.update(U.overwrite_payload(ids_of(collection, given), given.payload, given.key))
    return DONE


def payload_deleted(collection: Any, body: Body) -> Body:
    given = models.DeletePayload.model_validate(body)
    collection.update(U.delete_payload(ids_of(collection, given), given.keys))
    return DONE


def payload_cleared(collection: Any, body: Body) -> Body:
    collection.update(U.clear_payload(ids_of(collection, Selector.model_validate(body))))
    return DONE


def vectors_deleted(collection: Any, body: Body) -> Body:
    given = models.DeleteVectors.model_validate(body)
    collection.update(U.delete_vectors(ids_of(collection, given), given.vector))
    return DONE


def query_of(given: Any, using: str | None) -> Any:
    """A query by a vector, or by two lists."""
    if isinstance(given, models.FusionQuery):
        return edge.Fusion.Rrf(k=2) if given.fusion == models.Fusion.RRF else edge.Fusion.Dbsf()
    if isinstance(given, models.FormulaQuery):
        return translate._query(given, using)
    nearest, mmr = getattr(given, "nearest", given), getattr(given, "mmr", None)
    if nearest is None:
        return None
    assert isinstance(nearest, list), f"the facade searches by vectors, not by {nearest!r}"
    if mmr is not None:
        return edge.Mmr(nearest, 1 - (mmr.diversity or 0.5), mmr.candidates_limit or 10, using)
    return edge.Query.Nearest(nearest, using=using)


def prefetches(given: Any) -> list[edge.Prefetch]:
    listed = given if isinstance(given, list) else [] if given is None else [given]
    return [
        edge.Prefetch(
            limit=10 if each.limit is None else each.limit,
            query=query_of(each.query, each.using),
            prefetches=prefetches(each.prefetch),
            filter=condition(each.filter),
            params=translate._params(each.params),
            score_threshold=each.score_threshold,
        )
        for each in listed
    ]


def found(collection: Any, given: models.QueryRequest) -> list[Body]:
    request = edge.QueryRequest(
        limit=10 if given.limit is None else given.limit,
        offset=given.offset or 0,
        query=query_of(given.query, given.using),
        prefetches=prefetches(given.prefetch),
        filter=condition(given.filter),
        params=translate._params(given.params),
        score_threshold=given.score_threshold,
        with_payload=bool(given.with_payload),
        with_vector=given.with_vector or False,  # type: ignore[arg-type]
    )
    return [
        {
            "id": p.id,
            "version": p.version,
            "score": p.score,
            "payload": p.payload,
            "vector": p.vector,
        }
        for p in collection.shard.query(request)
    ]


def asked(collection: Any, body: Body) -> Body:
    return {"points": found(collection, models.QueryRequest.model_validate(body))}


def asked_many(collection: Any, body: Body) -> list[Body]:
    given = models.QueryRequestBatch.model_validate(body)
    return [{"points": found(collection, request)} for request in given.searches]


def grouped(collection: Any, body: Body) -> Body:
    """Groups as a server makes them: from all that match, best first."""
    given = models.QueryGroupsRequest.model_validate(body)
    request = models.QueryRequest.model_validate(
        {
            **{k: v for k, v in body.items() if k not in ("group_by", "group_size", "with_lookup")},
            "limit": 1_000,
            "with_payload": True,
        }
    )
    groups: dict[Any, list[Body]] = {}
    for point in found(collection, request):
        value = (point["payload"] or {}).get(given.group_by)
        if value is not None and len(groups.setdefault(value, [])) < (given.group_size or 3):
            groups[value].append(point)
    listed = list(groups.items())[: given.limit or 10]
    return {"groups": [{"id": value, "hits": hits} for value, hits in listed]}
