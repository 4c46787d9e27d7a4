"""Making collections with the vectors of a funnel, and taking vectors away."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from qdrant_client import models

from funnelvec.codes.rotations import is_random
from funnelvec.engines.base import default_funnel
from funnelvec.engines.qdrant.conditions import holding_filter
from funnelvec.engines.qdrant.definition import Definition, Kept, Vector
from funnelvec.engines.qdrant.features import Version, check_code, check_version
from funnelvec.engines.qdrant.hook.known import Hook
from funnelvec.engines.qdrant.hook.steps import Call, Given, Steps
from funnelvec.engines.qdrant.names import PointId
from funnelvec.engines.qdrant.reserved import definition_change, definition_point
from funnelvec.engines.qdrant.vectors import DISTANCES, Column
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import CapabilityError, Conflict, InvalidInput
from funnelvec.funnel import Funnel
from funnelvec.resolution import Resolution

__all__ = ["create", "drop_vector", "planned"]

#: How often a change of a definition is tried while others change it too.
_TRIES = 5


def create(hook: Hook, method: str, given: Given) -> Steps[Any]:
    """Make a collection, with the vectors that its funnels need and their definition."""
    name = given["collection_name"]
    hook.forget(name)
    vectors = _by_name(given.get("vectors_config"))
    funnels = planned(hook, name, vectors)
    if funnels and given.get("sharding_method") == models.ShardingMethod.CUSTOM:
        hook.tell(name, "its shards have keys, which a definition has no place in; no funnel")
        funnels = {}
    if not funnels:
        return (yield Call(method, given))
    version = check_version((yield Call("info", {})).version)
    made = {n: _vector(name, n, vectors[n], funnel) for n, funnel in funnels.items()}
    for vector in made.values():
        for resolution in vector.resolutions:
            _check_code(resolution, None if hook.local else version)
    config = dict(vectors)
    for each, vector in made.items():
        config[each] = _rescored(vectors[each], funnels[each])
        for resolution, kept in vector.resolutions.items():
            stored = vector.column.stored(resolution)
            if stored.name in config or stored.name in (given.get("sparse_vectors_config") or {}):
                raise Conflict(
                    f"resolution {resolution} of collection {name!r} needs the name "
                    f"{stored.name!r}, which is taken; rename that vector"
                )
            config[stored.name] = stored.params(index=kept.index)
    answer = yield Call(method, {**given, "vectors_config": config})
    definition = Definition("id", {}, made, foreign=True, version=1, token=uuid.uuid4().hex)
    point = definition_point(definition.to_text())
    try:
        yield Call("upsert", {"collection_name": name, "points": [point], "wait": True})
    except BaseException:
        yield Call("delete_collection", {"collection_name": name})
        raise
    return answer


def planned(
    hook: Hook, collection: str, vectors: Mapping[str, models.VectorParams]
) -> dict[str, Funnel]:
    """Return the funnel of each vector that is to have one.

    Raises
    ------
    InvalidInput
        If a funnel that was given for this collection does not fit.
    """
    wanted = hook.wanted
    if isinstance(wanted, Funnel):
        found = {name: wanted for name, params in vectors.items() if not _misfit(params, wanted)}
        if not found:
            hook.tell(
                collection,
                f"no vector of it is what the funnel {wanted} ends in, so it is made without one",
            )
        return found
    chosen = (wanted or {}).get(collection)
    if chosen is None:
        return {}
    if isinstance(chosen, Funnel):
        fits = [name for name, params in vectors.items() if not _misfit(params, chosen)]
        if len(fits) > 1:
            raise InvalidInput(
                f"collection {collection!r} has several vectors for the funnel {chosen}: "
                f"{', '.join(map(repr, fits))}; say which, as in {{{collection!r}: "
                f"{{{fits[0]!r}: '...'}}}}"
            )
        chosen = {name: chosen for name in fits or vectors}
    for name, funnel in chosen.items():
        if name not in vectors:
            known = ", ".join(map(repr, vectors)) or "none"
            raise InvalidInput(f"collection {collection!r} has no vector {name!r}, but {known}")
        why = _misfit(vectors[name], funnel)
        if why:
            raise InvalidInput(
                f"the funnel {funnel} does not fit the vector {name!r} of {collection!r}: {why}"
            )
    return dict(chosen)


def _by_name(given: Any) -> dict[str, models.VectorParams]:
    """Vectors by name; the unnamed one has the name ``""`` beside ours."""
    if isinstance(given, models.VectorParams):
        return {"": given}
    if not isinstance(given, Mapping):
        return {}
    return {name: each for name, each in given.items() if isinstance(each, models.VectorParams)}


def _misfit(params: models.VectorParams, funnel: Funnel) -> str:
    """Why a funnel cannot end in a vector; empty where it can."""
    if params.multivector_config is not None:
        return "it has several rows for each point"
    if params.distance not in DISTANCES.values():
        return f"it is compared by {params.distance.value}"
    if params.datatype not in (None, models.Datatype.FLOAT32, models.Datatype.FLOAT16):
        return f"it is stored as {params.datatype.value}"
    base = _base(params)
    if funnel.last.resolution != base:
        return f"it is {base}, and the funnel ends in {funnel.last.resolution}"
    return ""


def _base(params: models.VectorParams) -> Resolution:
    halves = params.datatype == models.Datatype.FLOAT16
    return Resolution(params.size, "f16" if halves else "f32")


def _vector(collection: str, name: str, params: models.VectorParams, funnel: Funnel) -> Vector:
    metric = next(metric for metric, each in DISTANCES.items() if each == params.distance)
    base = _base(params)
    funnel.check(dims=base.dims, code="f16" if base.code == "f16" else "f32")
    column = Column(name, base, metric)
    resolutions = {}
    for number, stage in enumerate(funnel.stages[:-1]):
        _ = column.stored(stage.resolution).size  # refused here if it is too wide
        resolutions[stage.resolution] = Kept(index=number == 0)
    named = NamedFunnel(default_funnel(collection), funnel, None)
    return Vector(column, resolutions, {named.name: named})


def _check_code(resolution: Resolution, version: Version | None) -> None:
    check_code(resolution, version)
    if resolution.rotation is not None and not is_random(resolution.rotation):
        raise CapabilityError(
            f"resolution {resolution}: a rotation is fitted to rows, and a new collection has "
            "none; make the collection, load it, and have fit_rotation and add_resolution of "
            "fv.wrap(client).table(name) lay the funnel over it; ~random needs no fitting"
        )


def _rescored(params: models.VectorParams, funnel: Funnel) -> models.VectorParams:
    """Leave the graph out of a vector that only rescores, unless the application asks for one."""
    if len(funnel.stages) == 1:
        return params
    update: Given = {}
    if params.hnsw_config is None:
        update["hnsw_config"] = models.HnswConfigDiff(m=0)
    if params.on_disk is None and getattr(params, "memory", None) is None:
        update["on_disk"] = True
    return params.model_copy(update=update)


def drop_vector(hook: Hook, given: Given) -> Steps[Any]:
    """Take away a vector of the application's with everything that was made of it."""
    collection, name = given["collection_name"], given["vector_name"]
    known = yield from hook.find(collection, fresh=True)
    if name in known.hidden:
        raise Conflict(
            f"the vector {name!r} of {collection!r} is a resolution; drop_resolution removes it"
        )
    vector = known.vectors.get(name)
    if vector is not None:  # first of all nobody is to write codes any more
        yield from _undefine(hook, collection, name)
        for resolution in vector.resolutions:
            stored = vector.column.stored(resolution)
            if not stored.is_base:
                yield Call("delete_vector_name", {**given, "vector_name": stored.name})
        yield from _clear(hook, collection, vector, known.reserved)
    answer = yield Call("delete_vector_name", given)
    hook.forget(collection)
    return answer


def _clear(hook: Hook, collection: str, vector: Vector, reserved: Sequence[PointId]) -> Steps[None]:
    """Remove the points and numbers that were kept for a vector."""
    common: Given = {"collection_name": collection, "wait": True}
    if vector.hub is not None:
        held = holding_filter(vector.hub.path, reserved)
        yield Call("delete_payload", {**common, "keys": [vector.hub.path], "points": held})
        if not hook.local:  # which has no indexes
            yield Call("delete_payload_index", {**common, "field_name": vector.hub.path})
    if vector.reserved:
        gone = models.PointIdsList(points=[*vector.reserved])
        yield Call("delete", {**common, "points_selector": gone})


def _undefine(hook: Hook, collection: str, name: str) -> Steps[None]:
    for _ in range(_TRIES):
        known = yield from hook.find(collection, fresh=True)
        if known.definition is None or name not in known.vectors:
            return
        known.definition.check_free(collection, "changes")
        rest = {each: vector for each, vector in known.vectors.items() if each != name}
        changed = replace(known.definition, vectors=rest).next()
        payload, standing = definition_change(changed.to_text(), changed.version)
        yield Call(
            "set_payload",
            {"collection_name": collection, "payload": payload, "points": standing, "wait": True},
        )
    raise Conflict(f"others keep changing the definition of {collection!r}; try again")
