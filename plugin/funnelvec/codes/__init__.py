"""Codes: numpy twins of what the databases store for a resolution, and of how they compare it.

``f32`` is the prefix itself; ``f16`` the prefix divided by its norm, in 16-bit floats; ``bit`` one
sign per number, packed. Scores are cosines, higher is better. Inputs are never changed.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from funnelvec.codes import bits, floats
from funnelvec.errors import CapabilityError, InvalidInput
from funnelvec.resolution import Resolution

__all__ = ["Codes", "encode", "prepare_query", "score"]

#: (n, dims) float32 or float16; (n, ceil(dims / 8)) uint8 for ``bit``.
Codes: TypeAlias = npt.NDArray[Any]


def encode(resolution: Resolution, x: npt.ArrayLike) -> Codes:
    """Encode vectors as the database stores them.

    Parameters
    ----------
    x
        (n, D) numbers, D >= ``resolution.dims``; taken as float32.

    Returns
    -------
    (n, dims) float32 for ``f32``, (n, dims) float16 for ``f16``, (n, ceil(dims / 8)) uint8 for
    ``bit``. Always a new array.

    Raises
    ------
    InvalidInput
        If the array has another shape, or numbers that float32 cannot hold.
    CapabilityError
        If the resolution has a rotation.
    """
    if resolution.rotation is not None:
        raise CapabilityError(
            f"resolution {resolution}: this version stores no rotations; "
            f"write {resolution.dims}:{resolution.code}"
        )
    prefix = _prefix(resolution, x)
    if resolution.code == "bit":
        return bits.encode(prefix)
    return floats.encode_f16(prefix) if resolution.code == "f16" else prefix


def prepare_query(resolution: Resolution, query: npt.ArrayLike) -> Codes:
    """Encode one query: (D,) numbers become one code, without the leading axis of `encode`.

    Raises
    ------
    InvalidInput, CapabilityError
        As `encode`.
    """
    vector = np.asarray(query)
    if vector.ndim != 1:
        raise InvalidInput(f"a query must have the shape (d,), not {vector.shape}")
    code: Codes = encode(resolution, vector[np.newaxis, :])[0]
    return code


def score(resolution: Resolution, query_code: Codes, codes: Codes) -> npt.NDArray[np.float64]:
    """Compare one query code with n codes.

    Returns
    -------
    (n,) float64 in [-1, 1]: the cosine for ``f32`` and ``f16``, NaN where one side is zero and
    there is none; ``1 - 2 * hamming / dims`` for ``bit``, the cosine of the sign vectors. Equal
    codes get equal scores, wherever they stand.
    """
    if resolution.code == "bit":
        return bits.score(query_code, codes, dims=resolution.dims)
    return floats.cosine(query_code, codes)


def _prefix(resolution: Resolution, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
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
        prefix = np.array(given[:, : resolution.dims], dtype=np.float32, order="C")
    if not np.isfinite(prefix).all():
        raise InvalidInput("vectors must hold finite float32 numbers")
    return prefix
