"""What an application reads: its points and its vectors, not ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest

from funnelvec.engines.qdrant.conditions import without_ids
from funnelvec.engines.qdrant.hook.hubbing import unnumbered
from funnelvec.engines.qdrant.hook.known import Hook, Known
from funnelvec.engines.qdrant.hook.steps import Call, Given, Steps
from funnelvec.engines.qdrant.names import DEFINITION

__all__ = ["but_ours", "collection", "filtered", "hidden", "retrieve", "scroll", "wanted"]


def wanted(known: Known, with_vectors: Any) -> Any:
    """Which vectors to ask for: those of the application, or those that it names."""
    return known.shown if with_vectors is True and known.hidden else with_vectors


def hidden(known: Known, records: Iterable[Any], with_vectors: Any) -> None:
    """Give points the form that they have in a collection without our vectors and numbers."""
    records = list(records)
    unnumbered(known, records)
    if with_vectors is not True or not known.hidden or known.shown != [""]:
        return
    for record in records:  # the unnamed vector alone is no mapping
        if isinstance(record.vector, dict):
            record.vector = record.vector.get("", {})


def but_ours(known: Known, filter: Any) -> models.Filter:
    """What matches a filter but the points that are ours."""
    if isinstance(filter, grpc.Filter):
        filter = GrpcToRest.convert_filter(filter)
    return without_ids(known.reserved, filter)


def filtered(hook: Hook, method: str, name: str, given: Given) -> Steps[Any]:
    """Make a call that has a filter so that the definition does not count."""
    known = yield from hook.find(given["collection_name"])
    if known.definition is not None:
        given = {**given, name: but_ours(known, given.get(name))}
    return (yield Call(method, given))


def scroll(hook: Hook, given: Given) -> Steps[Any]:
    """Read points page by page."""
    with_vectors = given.get("with_vectors", False)
    known = yield from hook.find(given["collection_name"], detail=with_vectors is True)
    if known.definition is None:
        return (yield Call("scroll", given))
    given = {
        **given,
        "scroll_filter": but_ours(known, given.get("scroll_filter")),
        "with_vectors": wanted(known, with_vectors),
    }
    records, after = yield Call("scroll", given)
    hidden(known, records, with_vectors)
    return records, after


def retrieve(hook: Hook, given: Given) -> Steps[Any]:
    """Read points by id."""
    ids = list(given["ids"])
    if DEFINITION in ids:
        given = {**given, "ids": [id for id in ids if id != DEFINITION]}
    with_vectors = given.get("with_vectors", False)
    if with_vectors is not True and not given.get("with_payload", True):
        return (yield Call("retrieve", given))
    known = yield from hook.find(given["collection_name"], detail=with_vectors is True)
    records = yield Call("retrieve", {**given, "with_vectors": wanted(known, with_vectors)})
    hidden(known, records, with_vectors)
    return records


def collection(hook: Hook, given: Given) -> Steps[Any]:
    """Describe a collection as the application made it."""
    known = yield from hook.find(given["collection_name"], detail=True)
    found = yield Call("get_collection", given)
    if known.definition is None:
        return found
    params, vectors = found.config.params, found.config.params.vectors
    if isinstance(vectors, dict):
        rest = {name: each for name, each in vectors.items() if name not in known.hidden}
        alone = list(rest) == [""] and len(rest) < len(vectors)
        params = params.model_copy(update={"vectors": rest[""] if alone else rest})
    count = found.points_count
    ours = {v.hub.path for v in known.vectors.values() if v.hub is not None}
    schema = {path: each for path, each in found.payload_schema.items() if path not in ours}
    return found.model_copy(
        update={
            "payload_schema": schema,
            "config": found.config.model_copy(update={"params": params}),
            "points_count": None if count is None else max(0, count - len(known.reserved)),
        }
    )
