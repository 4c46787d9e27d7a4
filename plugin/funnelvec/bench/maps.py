"""Linear maps that the benchmark of codes tries beside those that are offered.

Very sparse projections (Li, Hastie and Church 2006) and whitening (Su et al. 2021, Huang et al.
2021), from their formulas.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Wide", "sparse_projection", "whitening"]

Wide = npt.NDArray[np.float64]
_Rows = npt.NDArray[np.float32]


def sparse_projection(dims: int, width: int, seed: int) -> Wide:
    """(width, dims): sqrt(s) times 1, 0 or -1, of which 1 in s is not 0; s is the root of dims."""
    rng = np.random.default_rng(seed)
    s = np.sqrt(dims)
    signs = rng.choice([-1.0, 1.0], (width, dims))
    return np.where(rng.random((width, dims)) < 1 / s, signs * np.sqrt(s / width), 0.0)


def whitening(rows: _Rows, width: int, ridge: float) -> tuple[Wide, Wide]:
    """Mean, and the map (width, dims) that gives each direction the same variance.

    `ridge`, a share of the mean variance, is added to all: without it directions of noise count
    as much as those that tell rows apart.
    """
    mean = rows.mean(axis=0, dtype=np.float64)
    centred = rows.astype(np.float64) - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
    values = np.maximum(values, 0.0) + ridge * values.mean() + 1e-12
    kept: Wide = (vectors / np.sqrt(values)).T[::-1][:width]
    return mean, kept
