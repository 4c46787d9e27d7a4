"""Codes: numpy twins of what the databases store for a resolution, and of how they compare it.

``f32`` is the prefix itself and ``bit`` one sign per number, packed; ``bit2`` to ``bit4`` say
above how many levels each number of a rotated vector is. ``f16`` is the prefix in
16-bit floats: divided by its norm under cosine; under dot and euclidean as it is, shortened to
the length 65504 where it is longer, since 16 bits hold no larger number. ``int8`` is the direction
of the prefix in one byte a number; the other codes of `OWN_CODES` have no twin here. Scores are
higher for what is more similar. Inputs are never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from funnelvec.codes import bits, floats, int8, rotations
from funnelvec.codes.maps import Rotation
from funnelvec.errors import CapabilityError, InvalidInput, SpecError
from funnelvec.resolution import OWN_CODES, Resolution
from funnelvec.types import METRICS, BaseCode, Metric

__all__ = [
    "Codes",
    "Rotation",
    "check_compared",
    "compared_by",
    "encode",
    "encode_rotated",
    "is_bits",
    "prepare_query",
    "score",
]

#: (n, dims) float32 or float16; (n, ceil(dims / 8)) uint8 for ``bit``.
Codes: TypeAlias = npt.NDArray[Any]

_SCORES: Mapping[Metric, Callable[[Codes, Codes], npt.NDArray[np.float64]]] = {
    "cosine": floats.cosine,
    "dot": floats.dot,
    "euclidean": floats.euclidean,
}


def is_bits(code: str) -> bool:
    """Whether codes are bits, which are compared by Hamming distance."""
    return code.startswith("bit")


def encode(
    resolution: Resolution,
    x: npt.ArrayLike,
    *,
    metric: Metric = "cosine",
    base: BaseCode = "f32",
    rotation: Rotation | None = None,
    asked: bool = False,
) -> Codes:
    """Encode vectors as the database stores them.

    Parameters
    ----------
    x
        (n, D) numbers, D >= ``resolution.dims`` the width of the column; taken as float32, and
        rounded to float16 where that is what the column holds.
    metric
        What the column is compared by.
    base
        The code of the column itself: ``f32`` or, for ``halfvec``, ``f16``.
    rotation
        What the resolution's rotation is, where it is a fitted one.
    asked
        Whether these are queries, for which a rotation may have a map of its own.

    Returns
    -------
    (n, dims) float32 for ``f32``, (n, dims) float16 for ``f16``, (n, ceil(dims / 8)) uint8 for
    ``bit``. Always a new array. The resolution that is the column itself is not changed: not
    normalised, not shortened.

    Raises
    ------
    InvalidInput
        If the array has another shape, or numbers that the column cannot hold.
    SpecError
        If the resolution holds more digits than the column.
    CapabilityError
        If the resolution has a rotation that is neither random nor given, or a code that has no
        twin here.
    """
    if metric not in METRICS:
        raise InvalidInput(f"unknown metric {metric!r}; known are {', '.join(METRICS)}")
    if base == "f16" and resolution.code == "f32":
        raise SpecError(
            f"resolution {resolution} holds more digits than the column of 16-bit floats; write "
            f"{resolution.dims}:f16"
        )
    if resolution.rotation is not None:
        rotated = _rotated(resolution, x, base, rotation, asked)
        return encode_rotated(resolution, rotated, metric=compared_by(metric, rotation))
    prefix = _numbers(resolution, x, base)
    if resolution.code == "bit":
        return bits.encode(prefix)
    if is_bits(resolution.code):
        raise SpecError(
            f"resolution {resolution} has no rotation, and {resolution.code} compares numbers with "
            f"levels that fit all of them alike; write {resolution}~random"
        )
    if resolution.code in OWN_CODES:
        return _own(resolution, prefix, metric)
    if resolution.code == "f32":
        return prefix
    is_column = base == "f16" and np.shape(x)[1] == resolution.dims
    if metric == "cosine" and not is_column:
        return floats.encode_direction(prefix)
    return prefix.astype(np.float16) if base == "f16" else floats.encode_saturated(prefix)


def encode_rotated(
    resolution: Resolution, rotated: npt.NDArray[np.float32], *, metric: Metric
) -> Codes:
    """Encode vectors that are rotated already, (n, dims) float32, as `encode` does.

    `metric` is what codes behind the rotation are compared by, see `compared_by`.

    Raises
    ------
    InvalidInput
        If they hold a number that is not finite.
    """
    _finite(rotated)
    if resolution.code in bits.LEVELS:
        return bits.encode_levels(floats.directions(rotated), resolution.code)
    return encode(Resolution(resolution.dims, resolution.code), rotated, metric=metric)


def prepare_query(
    resolution: Resolution,
    query: npt.ArrayLike,
    *,
    metric: Metric = "cosine",
    base: BaseCode = "f32",
    rotation: Rotation | None = None,
) -> Codes:
    """Encode one query: (D,) numbers become one code, without the leading axis of `encode`.

    Raises
    ------
    InvalidInput, SpecError, CapabilityError
        As `encode`.
    """
    vector = np.asarray(query)
    if vector.ndim != 1:
        raise InvalidInput(f"a query must have the shape (d,), not {vector.shape}")
    code: Codes = encode(
        resolution,
        vector[np.newaxis, :],
        metric=metric,
        base=base,
        rotation=rotation,
        asked=True,
    )[0]
    return code


def compared_by(metric: Metric, rotation: Rotation | None) -> Metric:
    """What codes are compared by in a column of that metric, behind that rotation."""
    return metric if rotation is None else rotation.prefix_metric


def score(
    resolution: Resolution, query_code: Codes, codes: Codes, *, metric: Metric = "cosine"
) -> npt.NDArray[np.float64]:
    """Compare one query code with n codes.

    Returns
    -------
    (n,) float64, higher is better. For ``f32`` and ``f16``: the cosine in [-1, 1], NaN where one
    side is zero and there is none; the inner product; or the negative Euclidean distance. For
    ``bit``, whatever the metric: ``1 - 2 * hamming / dims``, the cosine of the sign vectors.
    Equal codes get equal scores, wherever they stand.
    """
    if is_bits(resolution.code):
        count = resolution.dims * bits.levels(resolution.code)
        return bits.score(query_code, codes, dims=count)
    if resolution.code == "int8":
        return int8.score(query_code, codes)
    return _SCORES[metric](query_code, codes)


def _own(resolution: Resolution, prefix: npt.NDArray[np.float32], metric: Metric) -> Codes:
    if resolution.code != "int8":
        raise CapabilityError(
            f"resolution {resolution}: {resolution.code} is what Qdrant makes of a vector, and has "
            f"no twin in numpy; take {resolution.dims}:int8 or {resolution.dims}:bit"
        )
    check_compared(resolution, metric)
    return int8.encode(prefix)


def check_compared(resolution: Resolution, metric: Metric) -> None:
    """Refuse a code that cannot be compared by a metric.

    Raises
    ------
    CapabilityError
        If it keeps directions only, and lengths count.
    """
    if resolution.code == "int8" and metric != "cosine":
        raise CapabilityError(
            f"resolution {resolution}: int8 keeps directions, and under {metric} lengths count; "
            f"take {resolution.dims}:f16"
        )


def _rotated(
    resolution: Resolution,
    x: npt.ArrayLike,
    base: BaseCode,
    rotation: Rotation | None,
    asked: bool,
) -> npt.NDArray[np.float32]:
    given = _numbers(resolution, x, base)
    if rotation is not None and rotation.name == resolution.rotation:
        if given.shape[1] != rotation.dims:
            raise InvalidInput(
                f"the rotation {rotation.name} takes vectors of {rotation.dims} dimensions, not "
                f"{given.shape[1]}"
            )
        return _finite(rotation.apply(given, dims=resolution.dims, asked=asked))
    if given.shape[1] > resolution.dims:
        raise SpecError(
            f"resolution {resolution} cuts a random rotation, whose prefixes say no more than any "
            f"other numbers of it; write {given.shape[1]}:{resolution.code}~{resolution.rotation}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        return _finite(rotations.rotate(str(resolution.rotation), given))


def _finite(rotated: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if not np.isfinite(rotated).all():
        raise InvalidInput("vectors longer than a 32-bit float can say cannot be rotated")
    return rotated


def _numbers(resolution: Resolution, x: npt.ArrayLike, base: BaseCode) -> npt.NDArray[np.float32]:
    given = np.asarray(x)
    if given.ndim != 2 or given.dtype.kind not in "iuf":
        raise InvalidInput(
            f"vectors must be numbers of the shape (n, d), not {given.dtype} {given.shape}"
        )
    if given.shape[1] < resolution.dims:
        raise InvalidInput(
            f"resolution {resolution} is wider than the vectors, which have {given.shape[1]} "
            "dimensions"
        )
    with np.errstate(over="ignore"):
        width = given.shape[1] if resolution.rotation else resolution.dims
        numbers = np.array(given[:, :width], dtype=np.float32, order="C")
        if base == "f16":
            numbers = numbers.astype(np.float16).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise InvalidInput(f"vectors must hold finite float{base[1:]} numbers")
    return numbers
