"""Writes of an application, with which every resolution keeps step."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice, repeat
from typing import Any, TypeVar

import numpy as np
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest

from funnelvec.engines.qdrant.conditions import without_ids
from funnelvec.engines.qdrant.deployment import BATCH
from funnelvec.engines.qdrant.hook.encoding import Banks, Written, as_points, with_codes
from funnelvec.engines.qdrant.hook.hubbing import (
    banks,
    measured,
    replaces_payloads,
    set_operations,
)
from funnelvec.engines.qdrant.hook.known import Hook, Known
from funnelvec.engines.qdrant.hook.steps import Call, Given, Steps, run
from funnelvec.errors import InvalidInput

__all__ = [
    "apply_all",
    "change_some",
    "delete_vectors",
    "update_vectors",
    "upload_collection",
    "upload_points",
    "upsert",
]

_T = TypeVar("_T")
#: Makes a call at once, which a generator that the client draws points from cannot leave to others.
Do = Callable[[Call], Any]


def upsert(hook: Hook, given: Given) -> Steps[Any]:
    """Write points with their codes."""
    known = yield from _writable(hook, given["collection_name"])
    if known.vectors:
        found = yield from banks(hook, known, given["collection_name"])
        given = {**given, "points": _points(known, given["points"], found)}
    return (yield Call("upsert", given))


def _writable(hook: Hook, collection: str) -> Steps[Known]:
    known = yield from hook.find(collection, fresh=True)
    if known.definition is None:
        hook.tell(collection, NOT_OURS)
    else:  # what is written while it is being copied would be lost with it
        known.definition.check_free(collection, "writes")
    return known


#: Why calls go to a collection as they are.
NOT_OURS = (
    "funnelvec keeps nothing of it, so calls pass as they are; "
    "fv.wrap(client).table(name).add_resolution(...) and create_funnel(...) lay a funnel over it"
)


def _there(known: Known) -> set[str] | None:
    """Vectors that the collection has by now; None where nobody is adding any."""
    if not known.filling or known.info is None:
        return None
    return {*known.info.vectors, *known.info.others}


def _encoded(known: Known, points: list[Any], found: Banks) -> Written:
    ids = [point.id for point in points]
    _check_ids(known, ids)
    vectors = [point.vector for point in points]
    return with_codes(known.vectors, _there(known), ids, vectors, found)


def _points(known: Known, given: Any, found: Banks) -> list[Any]:
    points = as_points(given)
    written = _encoded(known, points, found)
    points = _renewed(points, written) if written.changed else points
    return [
        point.model_copy(update={"payload": {**(point.payload or {}), **number}})
        if number
        else point
        for point, number in zip(points, written.numbers, strict=True)
    ]


def _renewed(points: list[Any], written: Written) -> list[Any]:
    # A copy is not validated again: pydantic would look at every number.
    return [
        point.model_copy(update={"vector": vector})
        for point, vector in zip(points, written.vectors, strict=True)
    ]


# -- vectors of points that are there --------------------------------------------------------------


def update_vectors(hook: Hook, given: Given) -> Steps[Any]:
    """Change vectors with their codes; a code that there is none of any more goes before."""
    collection = given["collection_name"]
    known = yield from _writable(hook, collection)
    if not known.vectors:
        return (yield Call("update_vectors", given))
    points, within = as_points(given["points"]), given.get("update_filter")
    written = _encoded(known, points, (yield from banks(hook, known, collection)))
    if written.changed:
        for name, ids in written.lacking.items():
            stale = _within(ids, within)
            yield Call("delete_vectors", _like(given, vectors=[name], points=stale))
        given = {**given, "points": _renewed(points, written)}
    answer = yield Call("update_vectors", given)
    rest = None if within is None else _rest(within)
    numbers = set_operations([point.id for point in points], written.numbers, rest)
    if numbers:
        yield Call("batch_update_points", _like(given, update_operations=numbers))
    return answer


def _within(ids: list[Any], filter: Any) -> models.Filter:
    conditions: list[Any] = [models.HasIdCondition(has_id=ids)]
    return models.Filter(must=[*conditions, *([] if filter is None else [_rest(filter)])])


def _like(given: Given, **changed: Any) -> Given:
    """Arguments of a call beside another: what they have in common stays."""
    common = ["collection_name", "wait", "ordering", "timeout"]
    common += [] if "update_operations" in changed else ["shard_key_selector"]
    return {name: given[name] for name in common if name in given} | changed


def delete_vectors(hook: Hook, given: Given) -> Steps[Any]:
    """Remove vectors with their codes."""
    known = yield from _writable(hook, given["collection_name"])
    return (yield Call("delete_vectors", {**given, "vectors": _with_ours(known, given["vectors"])}))


def _with_ours(known: Known, names: Iterable[str]) -> list[str]:
    found = list(names)
    for name in tuple(found):
        if name in known.vectors:
            vector = known.vectors[name]
            found += [vector.column.stored(r).name for r in vector.resolutions]
    return list(dict.fromkeys(found))


# -- the definition is no point of the application's -----------------------------------------------


#: Calls after which nothing is left of a payload.
_REPLACING = ("overwrite_payload", "clear_payload")


def change_some(hook: Hook, method: str, given: Given) -> Steps[Any]:
    """Delete points or change payloads, never those of the point with the definition."""
    name = "points" if "points" in given else "points_selector"
    selector = _rest(given.get(name))
    known = yield from _writable(hook, given["collection_name"])
    if known.definition is None:
        return (yield Call(method, given))
    given = {**given, name: _but_ours(known, selector)}
    if method not in _REPLACING or not known.definition.hub_keys:
        return (yield Call(method, given))
    answer = yield Call(method, {**given, "wait": True})
    yield from measured(hook, known, given["collection_name"])
    return answer


def _but_ours(known: Known, selector: Any) -> Any:
    if isinstance(selector, models.FilterSelector):
        rest = without_ids(known.reserved, selector.filter)
        return selector.model_copy(update={"filter": rest})
    if isinstance(selector, models.Filter):
        return without_ids(known.reserved, selector)
    _check_ids(known, getattr(selector, "points", selector))
    return selector


def _check_ids(known: Known, ids: Any) -> None:
    reserved = set(known.reserved)
    for id in ids if isinstance(ids, (list, tuple)) else ():
        if id in reserved:
            raise InvalidInput(f"the point {id} holds the definition of the collection")


def _rest(given: Any) -> Any:
    """A model of the client's, where one of gRPC's was given."""
    if isinstance(given, grpc.Filter):
        return GrpcToRest.convert_filter(given)
    if isinstance(given, grpc.PointsSelector):
        return GrpcToRest.convert_points_selector(given)
    return given


# -- many operations in one call -------------------------------------------------------------------


def apply_all(hook: Hook, given: Given) -> Steps[Any]:
    """Do each operation of a batch as the call of its name is done."""
    known = yield from _writable(hook, given["collection_name"])
    if known.definition is None:
        return (yield Call("batch_update_points", given))
    found = yield from banks(hook, known, given["collection_name"])
    operations: list[Any] = []
    for operation in given["update_operations"]:
        operations += _operation(known, operation, found)
    given = {**given, "update_operations": operations}
    if not known.definition.hub_keys or not any(map(replaces_payloads, operations)):
        return (yield Call("batch_update_points", given))
    answer = yield Call("batch_update_points", {**given, "wait": True})
    yield from measured(hook, known, given["collection_name"])
    return answer


def _operation(known: Known, operation: Any, found: Banks) -> list[Any]:
    match operation:
        case models.UpsertOperation(upsert=part):
            given = part.batch if isinstance(part, models.PointsBatch) else part.points
            kept = {
                name: getattr(part, name) for name in ("shard_key", "update_filter", "update_mode")
            }
            listed = models.PointsList.model_construct(points=_points(known, given, found), **kept)
            return [models.UpsertOperation.model_construct(upsert=listed)]
        case models.UpdateVectorsOperation(update_vectors=part):
            return _updated(known, part, found)
        case models.DeleteVectorsOperation(delete_vectors=part):
            names = _with_ours(known, part.vector)
            return [_copied(operation, part, {"vector": names})]
        case _:
            return [_guarded(known, operation)]


def _updated(known: Known, part: models.UpdateVectors, found: Banks) -> list[Any]:
    written = _encoded(known, part.points, found)
    points = _renewed(part.points, written) if written.changed else part.points
    made: list[Any] = [
        models.DeleteVectorsOperation(
            delete_vectors=models.DeleteVectors(
                filter=_within(ids, part.update_filter), vector=[name], shard_key=part.shard_key
            )
        )
        for name, ids in written.lacking.items()
    ]
    changed = part.model_copy(update={"points": points})
    numbers = set_operations([p.id for p in points], written.numbers, part.update_filter)
    if part.shard_key is not None:
        for each in numbers:
            each.set_payload.shard_key = part.shard_key
    return [*made, models.UpdateVectorsOperation.model_construct(update_vectors=changed), *numbers]


def _guarded(known: Known, operation: Any) -> Any:
    """Keep the definition out of deletes and changes of payloads; each has one field."""
    (name,) = type(operation).model_fields
    part = getattr(operation, name)
    filter = getattr(part, "filter", None)
    if filter is None:
        _check_ids(known, getattr(part, "points", None))
        return operation
    return _copied(operation, part, {"filter": without_ids(known.reserved, filter)})


def _copied(operation: Any, part: Any, update: Given) -> Any:
    (name,) = type(operation).model_fields
    return operation.model_copy(update={name: part.model_copy(update=update)})


# -- uploads: the client draws points while it sends others ----------------------------------------


def upload_points(hook: Hook, given: Given, do: Do) -> Any:
    """Send points with their codes, which are made as the client draws points."""
    collection = given["collection_name"]
    if run(_writable(hook, collection), do).definition is None:
        return do(Call("upload_points", given))

    def points() -> Iterator[Any]:
        for some in _some(given["points"]):
            known = run(_writable(hook, collection), do)
            yield from _points(known, some, run(banks(hook, known, collection), do))

    return do(Call("upload_points", {**given, "points": points()}))


def upload_collection(hook: Hook, given: Given, do: Do) -> Any:
    """Send vectors with their codes, which are made as the client draws vectors."""
    collection = given["collection_name"]
    known = run(_writable(hook, collection), do)
    if known.definition is None:
        return do(Call("upload_collection", given))
    if known.definition.hub_keys:
        return _upload_numbered(hook, given, do)

    def vectors() -> Iterator[Any]:
        first = 0
        for some in _some(_each(given["vectors"])):
            known = run(_writable(hook, collection), do)
            rows = range(first, first + len(some))
            written = with_codes(known.vectors, _there(known), rows, some, {})
            yield from written.vectors if written.changed else some
            first += len(some)

    return do(Call("upload_collection", {**given, "vectors": vectors()}))


def _upload_numbered(hook: Hook, given: Given, do: Do) -> Any:
    """Send vectors as points: their payloads get numbers that hang on the vectors."""
    ids, payloads = given.get("ids"), given.get("payload")
    listed = (str(uuid.uuid4()) for _ in count()) if ids is None else iter(ids)
    held = repeat(None) if payloads is None else iter(payloads)
    points = (
        models.PointStruct.model_construct(id=id, vector=vector, payload=payload)
        for vector, id, payload in zip(_each(given["vectors"]), listed, held, strict=False)
    )
    rest = {n: v for n, v in given.items() if n not in ("vectors", "ids", "payload")}
    return upload_points(hook, {**rest, "points": points}, do)


def _each(vectors: Any) -> Iterator[Any]:
    """Vectors of one point after the other; arrays, or arrays by name, may be on disk."""
    if isinstance(vectors, np.ndarray):
        yield from (row.tolist() for row in vectors)
    elif isinstance(vectors, dict):
        counts = {len(each) for each in vectors.values()}
        if len(counts) != 1:
            raise ValueError("Each named vector should have the same number of vectors")
        for row in range(counts.pop()):
            yield {name: np.asarray(each[row]).tolist() for name, each in vectors.items()}
    else:
        for each in vectors:
            yield each.tolist() if isinstance(each, np.ndarray) else each


def _some(given: Iterable[_T]) -> Iterator[list[_T]]:
    source = iter(given)
    while some := list(islice(source, BATCH)):
        yield some
