"""Features of a list of scores that need no label: its shape, its setting, its coherence.

A query whose best scores stand out from the rest has few relevant rows; one whose scores fall
slowly has many, or none. Lists of features are named, so that a fitted adapter says what it needs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from funnelvec.calibration.logistic import Floats

__all__ = ["FEATURE_SETS", "shape_features"]

_CURVE = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120)
_SMALL = (
    *("top", "gap", "mean10", "sd10", "sd", "tail", "query_mean", "query_sd"),
    *("top_z", "tail_z", "entropy02", "entropy05"),
)
_COHERENT = (*_SMALL, "coherence10", "coherence20")

#: Feature sets that a fit chooses from. The empty one is plain Platt.
FEATURE_SETS: dict[str, tuple[str, ...]] = {
    "none": (),
    "setting": ("query_mean", "query_sd", "last"),
    "levels": ("top", "mean10", "mean50", "tail", "query_mean", "query_sd"),
    "shape": _SMALL,
    "coherent": _COHERENT,
    "curve": (
        *("top", *(f"rank{rank}" for rank in _CURVE), "last", "query_mean", "query_sd"),
        *("entropy02", "entropy05", "top_z", "tail_z", "coherence10", "coherence20"),
    ),
}


def shape_features(
    names: tuple[str, ...],
    scores: Floats,
    *,
    raw_top: Floats,
    setting: Floats,
    coherence: Floats,
) -> Floats:
    """Compute features by name.

    Parameters
    ----------
    names
        As in `FEATURE_SETS`.
    scores
        (n, K) scores as they are calibrated, falling in each row; K at least 20. Where a rank is
        beyond K, the last score stands for it.
    raw_top
        (n,) the best raw score.
    setting, coherence
        (n, 2) each; see `Candidates`.

    Returns
    -------
    features
        (n, len(names)) float64.
    """
    last = scores.shape[1] - 1
    middle = scores[:, min(100, last // 2 + 1) :].mean(axis=1)
    top = scores[:, 0]
    known: dict[str, Callable[[], Floats]] = {
        "top": lambda: top,
        "gap": lambda: top - scores[:, 4],
        "gap1": lambda: top - scores[:, 1],
        "mean10": lambda: scores[:, :10].mean(axis=1),
        "mean50": lambda: scores[:, :50].mean(axis=1),
        "sd10": lambda: scores[:, :10].std(axis=1),
        "sd": lambda: scores.std(axis=1),
        "tail": lambda: middle,
        "last": lambda: scores[:, -1],
        "query_mean": lambda: setting[:, 0],
        "query_sd": lambda: setting[:, 1],
        "top_z": lambda: (raw_top - setting[:, 0]) / setting[:, 1],
        "tail_z": lambda: (middle - setting[:, 0]) / setting[:, 1],
        "entropy02": lambda: _entropy(scores, 0.02),
        "entropy05": lambda: _entropy(scores, 0.05),
        "coherence10": lambda: coherence[:, 0],
        "coherence20": lambda: coherence[:, 1],
    }

    def column(name: str) -> Floats:
        if name.startswith("rank"):
            return scores[:, min(int(name.removeprefix("rank")), last)]
        return known[name]()

    if not names:
        return np.empty((len(scores), 0))
    return np.stack([column(name) for name in names], axis=1)


def _entropy(scores: Floats, temperature: float) -> Floats:
    """Of the softmax of each row: how many candidates share the top."""
    weights = np.exp((scores - scores[:, :1]) / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    result: Floats = -(weights * np.log(np.maximum(weights, 1e-300))).sum(axis=1)
    return result
