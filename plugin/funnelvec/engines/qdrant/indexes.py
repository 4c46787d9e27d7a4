"""Payload indexes, by what columns hold. Pure."""

from __future__ import annotations

from collections.abc import Callable

from qdrant_client import models

from funnelvec.types import ColumnKind

__all__ = ["index_schema"]

_SCHEMAS: dict[str, models.PayloadSchemaType] = {
    "integer": models.PayloadSchemaType.INTEGER,
    "number": models.PayloadSchemaType.FLOAT,
    "text": models.PayloadSchemaType.KEYWORD,
    "boolean": models.PayloadSchemaType.BOOL,
    "date": models.PayloadSchemaType.DATETIME,
    "timestamp": models.PayloadSchemaType.DATETIME,
    "uuid": models.PayloadSchemaType.UUID,
}
_UNLINKED: dict[models.PayloadSchemaType, Callable[[], models.PayloadSchemaParams]] = {
    models.PayloadSchemaType.INTEGER: lambda: models.IntegerIndexParams(
        type=models.IntegerIndexType.INTEGER, enable_hnsw=False
    ),
    models.PayloadSchemaType.FLOAT: lambda: models.FloatIndexParams(
        type=models.FloatIndexType.FLOAT, enable_hnsw=False
    ),
    models.PayloadSchemaType.KEYWORD: lambda: models.KeywordIndexParams(
        type=models.KeywordIndexType.KEYWORD, enable_hnsw=False
    ),
    models.PayloadSchemaType.UUID: lambda: models.UuidIndexParams(
        type=models.UuidIndexType.UUID, enable_hnsw=False
    ),
    models.PayloadSchemaType.DATETIME: lambda: models.DatetimeIndexParams(
        type=models.DatetimeIndexType.DATETIME, enable_hnsw=False
    ),
}


def index_schema(
    kind: ColumnKind, *, unique: bool = False
) -> models.PayloadSchemaType | models.PayloadSchemaParams | None:
    """The payload index that serves filters on a column; JSON has none, since it has no type.

    Of a field with an index Qdrant links the points of each range of values among themselves, in
    every graph that it builds, for searches that are filtered by it. Where every point has a value
    of its own (`unique`) that is wanted of no search, and it takes as long as the graph itself.
    """
    schema = _SCHEMAS.get(kind.removesuffix("[]"))
    known = "enable_hnsw" in models.IntegerIndexParams.model_fields  # not of a client before 1.17
    return _UNLINKED[schema]() if unique and known and schema in _UNLINKED else schema
