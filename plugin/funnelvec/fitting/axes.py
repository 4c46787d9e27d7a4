"""The maps themselves: principal axes, sphering, and what turns the axes that are kept.

All are uncentred, so that inner products stay what they are: a mean that is taken off changes the
order of rows under cosine and dot.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from funnelvec.errors import InvalidInput

__all__ = ["Wide", "principal", "quantized", "random_orthogonal", "sphering"]

Wide = npt.NDArray[np.float64]

#: Rows that are summed at a time.
_BLOCK = 4096
#: What is added to the variances of queries, as a share of their mean: a direction that no query
#: of the sample has would else be stretched without bound.
_RIDGE = 0.01
#: Rounds of iterative quantization, as in its paper, and rows that it learns from.
_ROUNDS, _LEARN = 50, 4_000


def principal(rows: npt.NDArray[np.float32], width: int) -> Wide:
    """Find the axes that hold most of the squared lengths of (n, d) rows.

    Returns
    -------
    (width, d) float64 with orthonormal rows, the strongest first.
    """
    return _strongest(_moments(rows), width)


def sphering(
    rows: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], width: int
) -> tuple[Wide, Wide]:
    """Find the maps whose prefixes lose least of the inner products of these queries and rows.

    With ``W`` the root of the second moments of the queries and ``P`` the principal axes of the
    rows behind ``W``, queries take ``A = P' W^-1`` and rows ``B = P' W``: at full width
    ``<Aq, Bx> = <q, x>``. This is LeanVec-Sphering (Tepper et al., arXiv 2410.22347), after
    LeanVec (arXiv 2312.16335). Rows of ``B`` get the length 1 here, so that what is stored is
    never longer than the vector; ``A`` takes what they had.

    Returns
    -------
    The map of queries and the map of rows, (width, d) float64 each.
    """
    asked = _moments(queries)
    asked += _RIDGE * np.trace(asked) / len(asked) * np.eye(len(asked))
    values, vectors = np.linalg.eigh(asked)
    root = np.sqrt(values)
    there, back = (vectors * root) @ vectors.T, (vectors / root) @ vectors.T
    axes = _strongest(there @ _moments(rows) @ there, width)
    of_queries, of_rows = axes @ back, axes @ there
    lengths = np.linalg.norm(of_rows, axis=1, keepdims=True)
    return of_queries * lengths, of_rows / lengths


def random_orthogonal(width: int, seed: int) -> Wide:
    """Draw a (width, width) orthogonal matrix, all of them alike likely."""
    drawn = np.random.default_rng(seed).standard_normal((width, width))
    axes, triangle = np.linalg.qr(drawn)
    turned: Wide = axes * np.sign(np.diag(triangle))
    return turned


def quantized(rows: npt.NDArray[np.float32], axes: Wide, seed: int) -> Wide:
    """Turn (width, d) axes so that what rows have along them lies close to its signs.

    Iterative quantization (Gong and Lazebnik, CVPR 2011), on some of the rows: signs of all, then
    the rotation that brings the numbers closest to them, and so on.

    Returns
    -------
    (width, d) float64 with orthonormal rows.
    """
    values = rows[:_LEARN].astype(np.float64) @ axes.T
    turn = random_orthogonal(len(axes), seed)
    for _ in range(_ROUNDS):
        left, _, right = np.linalg.svd(np.sign(values @ turn).T @ values)
        turn = (left @ right).T
    turned: Wide = turn.T @ axes
    return turned


def _moments(rows: npt.NDArray[np.float32]) -> Wide:
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK].astype(np.float64)
        with np.errstate(all="ignore"):  # some builds of BLAS warn of what is in no operand
            total += part.T @ part
    total /= max(1, len(rows))
    if not np.isfinite(total).all():
        raise InvalidInput("the vectors are too long to fit a rotation to: their squares overflow")
    return total


def _strongest(moments: Wide, width: int) -> Wide:
    """(width, d) eigenvectors of the largest eigenvalues; their largest number is positive."""
    axes = np.linalg.eigh(moments)[1][:, ::-1][:, :width].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, np.newaxis], axis=1)
    signed: Wide = axes * np.where(largest < 0, -1.0, 1.0)
    return signed
