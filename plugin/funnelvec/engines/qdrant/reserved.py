"""Points that are no rows, and what a collection is, in the client's models. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, cast

from qdrant_client import models

from funnelvec.engines.qdrant.compile import Limits
from funnelvec.engines.qdrant.deployment import Info
from funnelvec.engines.qdrant.names import DEFINITION, PointId
from funnelvec.types import ColumnKind

__all__ = [
    "DEFINITION_KEY",
    "PART_KEY",
    "definition_change",
    "definition_point",
    "info_of",
    "joined",
    "standing_at",
]

#: Payload keys: of the definition and its version, and of a part of a fitted rotation.
DEFINITION_KEY, _VERSION_KEY, PART_KEY = "_fv_definition", "_fv_version", "_fv_part"

_KINDS: dict[models.PayloadSchemaType, ColumnKind] = {
    models.PayloadSchemaType.INTEGER: "integer",
    models.PayloadSchemaType.FLOAT: "number",
    models.PayloadSchemaType.KEYWORD: "text",
    models.PayloadSchemaType.BOOL: "boolean",
    models.PayloadSchemaType.DATETIME: "timestamp",
    models.PayloadSchemaType.UUID: "uuid",
}


def info_of(found: models.CollectionInfo) -> Info:
    """Read what a collection is off what the client says of it."""
    params = found.config.params
    given = params.vectors or {}
    vectors = {"": given} if isinstance(given, models.VectorParams) else dict(given)
    many = [name for name, each in vectors.items() if each.multivector_config is not None]
    return Info(
        vectors={name: each for name, each in vectors.items() if name not in many},
        others=(*many, *(params.sparse_vectors or {})),
        kinds={
            path: _KINDS[schema.data_type]
            for path, schema in found.payload_schema.items()
            if schema.data_type in _KINDS
        },
        limits=Limits.of(cast("Any", found.config.strict_mode_config)),
        shards=params.shard_number or 1,
    )


def definition_point(text: str) -> models.PointStruct:
    """Return the reserved point of a first definition; it has no vector."""
    payload = {DEFINITION_KEY: text, _VERSION_KEY: 1}
    return models.PointStruct(id=DEFINITION, vector={}, payload=payload)


def definition_change(text: str, version: int) -> tuple[dict[str, Any], models.Filter]:
    """Return what to set, and of which point: none but the reserved one at the version before."""
    own = models.HasIdCondition(has_id=[DEFINITION])
    standing = models.Filter(must=[own, standing_at(version - 1)])
    return {DEFINITION_KEY: text, _VERSION_KEY: version}, standing


def standing_at(version: int) -> models.FieldCondition:
    """Return what a definition of a version matches."""
    return models.FieldCondition(key=_VERSION_KEY, match=models.MatchValue(value=version))


def joined(ids: Sequence[PointId], payloads: Mapping[PointId, Mapping[str, Any]]) -> bytes | None:
    """Put the parts of some bytes together; None where one is not there."""
    parts = [payloads.get(id, {}).get(PART_KEY) for id in ids]
    if any(part is None for part in parts):
        return None
    return b"".join(base64.b64decode(str(part)) for part in parts)
