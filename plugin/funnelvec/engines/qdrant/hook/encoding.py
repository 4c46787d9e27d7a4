"""Codes for the vectors that an application writes. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest

from funnelvec.engines.hubs import HubBank
from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.names import PointId
from funnelvec.errors import CapabilityError, InvalidInput

__all__ = ["Banks", "Written", "as_names", "as_points", "with_codes"]

#: What hubs are measured with, by the name of the vector.
Banks: TypeAlias = Mapping[str, HubBank]

_INFERRED = (models.Document, models.Image, models.InferenceObject)


@dataclass(slots=True)
class Written:
    """Points with their codes, and which codes some of them cannot have, by name.

    `numbers` are what their payloads get: how much of a hub each of them is.
    """

    vectors: list[dict[str, Any]]
    numbers: list[dict[str, float]]
    changed: bool = False
    lacking: dict[str, list[PointId]] = field(default_factory=dict)


def as_points(given: Any) -> list[Any]:
    """Points as a list of models, whatever form the client takes them in."""
    if isinstance(given, models.Batch):
        return _rows(given)
    points = list(given)
    if points and isinstance(points[0], grpc.PointStruct):
        return [GrpcToRest.convert_point_struct(point) for point in points]
    if points and isinstance(points[0], grpc.PointVectors):
        return [GrpcToRest.convert_point_vectors(point) for point in points]
    return points


def _rows(batch: models.Batch) -> list[models.PointStruct]:
    many: Any = batch.vectors
    if isinstance(many, Mapping):
        names = list(many)
        vectors: list[Any] = [
            dict(zip(names, row, strict=True)) for row in zip(*many.values(), strict=True)
        ]
    else:
        vectors = list(many)
    payloads: Sequence[Any] = batch.payloads or [None] * len(batch.ids)
    return [
        models.PointStruct.model_construct(id=id, vector=vector, payload=payload)
        for id, vector, payload in zip(batch.ids, vectors, payloads, strict=True)
    ]


def as_names(vector: Any) -> dict[str, Any]:
    """Vectors of a point by name; a bare one has the name ``""``."""
    if isinstance(vector, Mapping):
        return dict(vector)
    return {} if vector is None else {"": vector}


def with_codes(
    vectors: Mapping[str, Vector],
    there: Collection[str] | None,
    ids: Sequence[PointId],
    given: Sequence[Any],
    banks: Banks,
) -> Written:
    """Add codes to the vectors of points, and measure hubs.

    Parameters
    ----------
    vectors
        What is made of the vectors of the collection.
    there
        Names of the vectors that the collection has; None where it has all.
    ids, given
        Points and what each of them has: a vector, or vectors by name.
    banks
        What hubs are measured with, by the name of the vector.

    Raises
    ------
    InvalidInput
        If a number is not finite, which no search could find again.
    CapabilityError
        If a vector is left to the server to make.
    """
    written = Written([as_names(each) for each in given], [{} for _ in given])
    for name, vector in vectors.items():
        rows = [row for row, each in enumerate(written.vectors) if each.get(name) is not None]
        matrix = _matrix(vector, [written.vectors[row][name] for row in rows])
        if matrix is None:
            continue
        _check(matrix, name, [ids[row] for row in rows])
        if vector.hub is not None and name in banks:
            own = [_known_as(ids[row]) for row in rows]
            for row, hub in zip(rows, banks[name].measure(own, matrix).tolist(), strict=True):
                written.numbers[row][vector.hub.key] = hub
        for resolution in vector.resolutions:
            stored = vector.column.stored(resolution)
            if stored.is_base or (there is not None and stored.name not in there):
                continue
            encoded = stored.encode(matrix)
            has, listed = stored.has_code(encoded), encoded.tolist()
            written.changed = True
            for place, row in enumerate(rows):
                if has[place]:
                    written.vectors[row][stored.name] = listed[place]
                else:
                    written.lacking.setdefault(stored.name, []).append(ids[row])
    return written


def _known_as(id: Any) -> PointId:
    """An id as Qdrant gives it back: applications write UUIDs in several forms."""
    if isinstance(id, int):
        return id
    try:
        return str(uuid.UUID(str(id)))
    except ValueError:  # for Qdrant to refuse
        return str(id)


def _matrix(vector: Vector, given: Sequence[Any]) -> npt.NDArray[np.float32] | None:
    """Stack vectors; None where some are none of the width, which is for Qdrant to refuse."""
    if not given or not (vector.resolutions or vector.hub):
        return None
    if any(isinstance(each, _INFERRED) for each in given):
        raise CapabilityError(
            f"the vector {vector.column.name!r} is left to the server to make, and its resolutions "
            "are made here; embed before writing, or write with cloud_inference=False"
        )
    try:
        with np.errstate(over="ignore"):  # what is too large is found to be so
            matrix = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        return None
    return matrix if matrix.shape == (len(given), vector.column.base.dims) else None


def _check(matrix: npt.NDArray[np.float32], name: str, ids: Sequence[PointId]) -> None:
    finite = np.isfinite(matrix)
    if not finite.all():
        row, place = np.argwhere(~finite)[0]
        raise InvalidInput(
            f"point {ids[row]}: number {place} of the vector {name!r} is {matrix[row, place]}, "
            "which nothing can be compared with; nothing was written"
        )
