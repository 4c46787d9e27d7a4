"""What the rows of a table say about their own scores, without any label.

Some rows are close to everything (hubs): a score with them means less. A query may lie where all
rows are close. Both are measured on the rows alone: the bias of a row is its mean cosine with
the rows of a sample that are closest to it (NNN; Chowdhury et al., EMNLP 2024, with a sample of
the rows as the bank), the setting of a query is its mean cosine with the rows and the deviation
of that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.logistic import Floats
from funnelvec.errors import InvalidInput

__all__ = ["BANDS", "BANK", "NEIGHBOURS", "CorpusStats", "bands", "hub_bias", "pull"]

BANK = 3_000
NEIGHBOURS = 128
#: The best candidates that make up the centre of an answer, and how fast their weights fall.
CENTRE, WARMTH = 50, 0.05

#: Where the bands of main directions end, from the direction that holds most on. What lies
#: behind the last is what is left of the score, and has no weight of its own.
BANDS = (4, 16, 48, 128)

_BLOCK = 1_024
_DIRECTIONS = 32


def hub_bias(
    rows: npt.NDArray[np.float32],
    bank: npt.NDArray[np.float32],
    *,
    k: int = NEIGHBOURS,
    own: npt.NDArray[np.intp] | None = None,
) -> Floats:
    """Return the mean of the `k` largest inner products of each row with a bank of vectors.

    Parameters
    ----------
    rows, bank
        (N, d) and (m, d) unit vectors.
    k
        At most m - 1.
    own
        (N,) the place of each row in the bank, -1 where it is not there: a row does not count
        as its own neighbour.
    """
    k = min(k, len(bank) - 1)
    if k < 1:
        raise InvalidInput(f"a bank of {len(bank)} vectors has no neighbours; give at least 2")
    result = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        near = rows[start : start + _BLOCK] @ bank.T
        if own is not None:
            places = own[start : start + _BLOCK]
            inside = np.flatnonzero(places >= 0)
            near[inside, places[inside]] = -np.inf
        result[start : start + _BLOCK] = np.partition(near, -k, axis=1)[:, -k:].mean(axis=1)
    return result


def pull(
    vectors: npt.NDArray[np.float32], scores: Floats, *, best: int = CENTRE, warmth: float = WARMTH
) -> Floats:
    """Return the inner products of candidates with the centre of the best of them.

    The centre is the mean of the `best` first candidates, weighted by
    ``exp((score - best score) / warmth)``: relevance feedback without a person (Rocchio 1971). As
    ``<q, d> + g * <c, d> = <q + g * c, d>`` it is no more than another query vector.

    Parameters
    ----------
    vectors
        (K, d) the candidates of one query, best first.
    scores
        (K,) their scores, falling.
    """
    weights = np.exp((scores[:best] - scores[0]) / warmth)
    centre = (weights / weights.sum()).astype(np.float32) @ vectors[:best]
    result: Floats = (vectors @ centre).astype(np.float64)
    return result


def bands(turned: npt.NDArray[np.float32], query: npt.NDArray[np.float32]) -> Floats:
    """Return what each band of main directions contributes to the score of a query.

    ``<q, d>`` is a sum over directions. Weights of the bands are weights of the query's own
    components, so a score that weighs them is the inner product with another query vector.

    Parameters
    ----------
    turned, query
        (K, m) rows and (m,) query in the main directions (`CorpusStats.axes`).

    Returns
    -------
    contributions
        (K, 4); 0 for bands that a narrow vector does not reach.
    """
    found = np.zeros((len(turned), len(BANDS)))
    start = 0
    for band, end in enumerate(BANDS):
        found[:, band] = turned[:, start:end].astype(np.float64) @ query[start:end]
        start = end
    return found


@dataclass(frozen=True, slots=True, eq=False)
class CorpusStats:
    """Measures of a table's rows.

    Attributes
    ----------
    mean
        (d,) of the rows.
    covariance
        (d, d) of the rows.
    bias
        (N,) hub bias of every row, less its mean over the rows.
    directions
        (d, 32) the eigenvectors of the largest eigenvalues of the covariance (fewer if d is).
    """

    mean: Floats
    covariance: Floats
    bias: Floats
    directions: Floats

    @classmethod
    def measure(cls, rows: npt.NDArray[np.float32], *, seed: int = 0) -> CorpusStats:
        """Measure (N, d) unit vectors, with a bank of at most 3,000 of them drawn by `seed`."""
        size = min(BANK, len(rows))
        drawn = np.random.default_rng(seed).choice(len(rows), size, replace=False)
        own = np.full(len(rows), -1, dtype=np.intp)
        own[drawn] = np.arange(size)
        bias = hub_bias(rows, rows[drawn], own=own)
        wide = rows.astype(np.float64)
        covariance = np.cov(wide.T)
        return cls(
            mean=wide.mean(axis=0),
            covariance=covariance,
            bias=bias - float(bias.mean()),
            directions=np.linalg.eigh(covariance)[1][:, ::-1][:, :_DIRECTIONS],
        )

    def axes(self) -> Floats:
        """Return (d, at most 128) the main directions that `bands` are made of."""
        vectors: Floats = np.linalg.eigh(self.covariance)[1][:, ::-1][:, : BANDS[-1]]
        return vectors

    def setting(self, queries: npt.NDArray[np.float32]) -> Floats:
        """Return (n, 2): the mean and the deviation of each query's scores with all rows."""
        wide = queries.astype(np.float64)
        spread = np.einsum("nd,nd->n", wide @ self.covariance, wide)
        return np.stack([wide @ self.mean, np.sqrt(np.maximum(spread, 1e-12))], axis=1)
