"""Codes for the vectors that an application writes. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest

from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.names import PointId
from funnelvec.errors import CapabilityError, InvalidInput

__all__ = ["Written", "as_names", "as_points", "with_codes"]

_INFERRED = (models.Document, models.Image, models.InferenceObject)


@dataclass(slots=True)
class Written:
    """Points with their codes, and which codes some of them cannot have, by name."""

    vectors: list[dict[str, Any]]
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
) -> Written:
    """Add codes to the vectors of points.

    Parameters
    ----------
    vectors
        What is made of the vectors of the collection.
    there
        Names of the vectors that the collection has; None where it has all.
    ids, given
        Points and what each of them has: a vector, or vectors by name.

    Raises
    ------
    InvalidInput
        If a number is not finite, which no search could find again.
    CapabilityError
        If a vector is left to the server to make.
    """
    written = Written([as_names(each) for each in given])
    for name, vector in vectors.items():
        rows = [row for row, each in enumerate(written.vectors) if each.get(name) is not None]
        matrix = _matrix(vector, [written.vectors[row][name] for row in rows])
        if matrix is None:
            continue
        _check(matrix, name, [ids[row] for row in rows])
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


def _matrix(vector: Vector, given: Sequence[Any]) -> npt.NDArray[np.float32] | None:
    """Stack vectors; None where some are none of the width, which is for Qdrant to refuse."""
    if not given or not vector.resolutions:
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
