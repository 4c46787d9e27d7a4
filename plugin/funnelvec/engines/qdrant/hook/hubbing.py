"""Hub columns behind the hook: numbers in what is written, formulas in what is asked.

The numbers stand in the payload, so what replaces payloads takes them away; they are measured
anew then. What an application reads has none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from qdrant_client import models

from funnelvec.engines.hubs import HubBank
from funnelvec.engines.qdrant.banks import unpacked_bank
from funnelvec.engines.qdrant.conditions import unmeasured_filter
from funnelvec.engines.qdrant.correcting import Correction
from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.deployment import BATCH
from funnelvec.engines.qdrant.hook.encoding import Banks, as_names
from funnelvec.engines.qdrant.hook.funnelling import Asked
from funnelvec.engines.qdrant.hook.known import Hook, Known, kept_bytes
from funnelvec.engines.qdrant.hook.steps import Call, Steps
from funnelvec.engines.store import NamedFunnel

__all__ = [
    "banks",
    "corrected",
    "correction_of",
    "measured",
    "replaces_payloads",
    "set_operations",
    "unnumbered",
]


def banks(hook: Hook, known: Known, collection: str) -> Steps[Banks]:
    """What hubs of rows that are written are measured with, by vector; each is read once."""
    found: dict[str, HubBank] = {}
    for name, vector in known.vectors.items():
        hub = vector.hub
        if hub is not None and hub.measures:
            if hub.id not in hook.banks:
                data = yield from kept_bytes(collection, hub.id, hub.parts)
                hook.banks[hub.id] = unpacked_bank(hub, data)
            found[name] = hook.banks[hub.id]
    return found


def set_operations(
    ids: Iterable[Any], numbers: Iterable[Mapping[str, float]], within: models.Filter | None = None
) -> list[models.SetPayloadOperation]:
    """Return what writes numbers into payloads that are there, of points that match."""
    found = []
    for id, payload in zip(ids, numbers, strict=True):
        if payload:
            only: dict[str, Any] = {"points": [id]}
            if within is not None:
                own = models.HasIdCondition(has_id=[id])
                only = {"filter": models.Filter(must=[own, within])}
            part = models.SetPayload(payload=dict(payload), **only)
            found.append(models.SetPayloadOperation(set_payload=part))
    return found


def replaces_payloads(operation: Any) -> bool:
    """Whether an operation of a batch leaves nothing of a payload."""
    return isinstance(operation, (models.OverwritePayloadOperation, models.ClearPayloadOperation))


def measured(hook: Hook, known: Known, collection: str) -> Steps[None]:
    """Measure the points that have no number any more."""
    found: Banks = yield from banks(hook, known, collection)
    for name, bank in found.items():
        hub = known.vectors[name].hub
        if hub is None or hub.state != "ready":  # backfill comes by all of them
            continue
        offset: Any = None
        while True:
            records, offset = yield Call(
                "scroll",
                {
                    "collection_name": collection,
                    "scroll_filter": unmeasured_filter(hub.path, name, known.reserved),
                    "limit": BATCH,
                    "offset": offset,
                    "with_payload": False,
                    "with_vectors": [name],
                },
            )
            given = {r.id: as_names(r.vector).get(name) for r in records}
            ids = [id for id, vector in given.items() if vector is not None]
            if ids:
                matrix = np.asarray([given[id] for id in ids], np.float32)
                numbers = [{hub.key: each} for each in bank.measure(ids, matrix).tolist()]
                yield Call(
                    "batch_update_points",
                    {
                        "collection_name": collection,
                        "update_operations": set_operations(ids, numbers),
                        "wait": True,
                    },
                )
            if offset is None:
                break


def unnumbered(known: Known, records: Iterable[Any]) -> None:
    """Take our numbers out of the payloads of what was read."""
    keys = () if known.definition is None else known.definition.hub_keys
    for record in records if keys else ():
        for key in keys:
            if record.payload:
                record.payload.pop(key, None)


# -- searches --------------------------------------------------------------------------------------


def correction_of(vector: Vector, named: NamedFunnel) -> Correction | None:
    """What scores of a funnel behind the hook are less.

    Under Euclid nothing: an application that reads distances would find scores there.
    """
    base = vector.column.stored(vector.column.base)
    return None if base.falls else vector.correction(named)


def corrected(asked: Asked, vector: Vector, correction: Correction) -> Asked:
    """Have the rows of a funnel's last shortlist ordered by the corrected score."""
    stage = models.Prefetch(
        using=asked.using or None, params=asked.params, limit=asked.prefetch.limit
    )
    last = stage.model_copy(update={"query": asked.query, "prefetch": asked.prefetch})
    formula = correction.formula(vector.column.stored(vector.column.base))
    return replace(asked, query=formula, prefetch=last, params=None)
