"""Ridge logistic regression where log-odds are a line over the score, one line per query.

The line of a query is affine in the query's features: ``z[i, j] = a[i] + b[i] * g[i, j]`` with
``a = phi @ A`` and ``b = phi @ B``. The Hessian of such a model is a sum of per-query sums times
outer products of `phi`, so a Newton step over n * K pairs costs three passes over the pairs and
three (P, P) products over the queries, however many features there are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from funnelvec.errors import CalibrationError

__all__ = ["MAX_LOGIT", "Floats", "fit_flat", "fit_lines", "log_loss", "log_losses", "sigmoid"]

Floats = npt.NDArray[np.float64]

#: exp(700) is still finite in double precision.
MAX_LOGIT = 700.0
_MAX_STEPS = 100


def sigmoid(z: Floats) -> Floats:
    """1 / (1 + exp(-z)), the logit held in [-700, 700]."""
    result: Floats = 1.0 / (1.0 + np.exp(-np.clip(z, -MAX_LOGIT, MAX_LOGIT)))
    return result


def log_loss(z: Floats, labels: npt.NDArray[np.bool_], weights: Floats | None = None) -> float:
    """Mean cross-entropy of logits `z`, weighted where weights are given."""
    return float(np.average(log_losses(z, labels), weights=weights))


def log_losses(z: Floats, labels: npt.NDArray[np.bool_]) -> Floats:
    """Cross-entropy of each of the logits `z`."""
    losses: Floats = np.logaddexp(0.0, z) - np.where(labels, z, 0.0)
    return losses


def fit_lines(
    g: Floats,
    phi: Floats,
    labels: npt.NDArray[np.bool_],
    *,
    weights: Floats,
    ridge: float,
) -> Floats:
    """Fit one line over the score per query, affine in the features of the query.

    Parameters
    ----------
    g
        (n, K) standardised scores.
    phi
        (n, P) features of the queries, the first column all ones.
    labels
        (n, K) bool.
    weights
        (n, K) non-negative; 0 leaves a pair out.
    ridge
        Penalty on the squares of all coefficients but the two of the plain line, in pairs: more
        judgments outweigh it.

    Returns
    -------
    coefficients
        (2, P): offsets `A` in row 0, slopes `B` in row 1.

    Raises
    ------
    CalibrationError
        If Newton's method does not settle.
    """
    width = phi.shape[1]
    total = float(weights.sum())
    penalty = np.full(2 * width, ridge)
    # A trace of penalty on the plain line keeps the fit finite where the labels are separable.
    penalty[[0, width]] = 1e-7 * total
    positive = float(weights[labels].sum())
    theta = np.zeros(2 * width)
    theta[0] = np.log((positive + 1.0) / (total - positive + 1.0))
    state = _evaluate(theta, g, phi, labels, weights, penalty)
    for _ in range(_MAX_STEPS):
        step = np.linalg.solve(*_newton_system(theta, g, phi, state, weights, penalty))
        size = 1.0
        while True:
            trial = theta - size * step
            new = _evaluate(trial, g, phi, labels, weights, penalty)
            # Near the minimum the loss no longer resolves a step, hence the slack.
            if new.loss <= state.loss + 1e-12 * abs(state.loss) or size < 1e-8:
                break
            size /= 2.0
        theta, state = trial, new
        if size * float(np.abs(step).max()) < 1e-5:
            result: Floats = theta.reshape(2, width)
            return result
    raise CalibrationError(
        f"the adapter did not settle within {_MAX_STEPS} steps; the features may be constant or "
        "the labels separated by a few extreme values"
    )


class _State(NamedTuple):
    """Where the fit stands: probabilities, weighted residuals and the penalised loss."""

    p: Floats
    residual: Floats
    loss: float


def _evaluate(
    theta: Floats,
    g: Floats,
    phi: Floats,
    labels: npt.NDArray[np.bool_],
    weights: Floats,
    penalty: Floats,
) -> _State:
    width = phi.shape[1]
    z = (phi @ theta[width:])[:, None] * g
    z += (phi @ theta[:width])[:, None]
    shrunk = np.exp(-np.abs(z))
    p = np.where(z >= 0, 1.0, shrunk) / (1.0 + shrunk)
    losses = np.log1p(shrunk) + np.maximum(z, 0.0) - np.where(labels, z, 0.0)
    loss = float(np.vdot(weights, losses)) + 0.5 * float((penalty * theta**2).sum())
    return _State(p, weights * (p - labels), loss)


def _newton_system(
    theta: Floats, g: Floats, phi: Floats, state: _State, weights: Floats, penalty: Floats
) -> tuple[Floats, Floats]:
    width = phi.shape[1]
    curvature = weights * state.p * (1.0 - state.p)
    sums = (
        curvature.sum(axis=1),
        np.einsum("nk,nk->n", curvature, g),
        np.einsum("nk,nk,nk->n", curvature, g, g),
    )
    gradient = np.concatenate(
        [phi.T @ state.residual.sum(axis=1), phi.T @ np.einsum("nk,nk->n", state.residual, g)]
    )
    blocks = [(phi * column[:, None]).T @ phi for column in sums]
    hessian = np.block([[blocks[0], blocks[1]], [blocks[1], blocks[2]]])
    hessian[np.diag_indices(2 * width)] += penalty + 1e-9
    result: Floats = gradient + penalty * theta
    return hessian, result


def fit_flat(columns: Floats, labels: npt.NDArray[np.bool_] | Floats, *, penalty: Floats) -> Floats:
    """Fit plain ridge logistic regression.

    Parameters
    ----------
    columns
        (m, p) with a column of ones where an intercept is wanted.
    labels
        (m,) bool, or targets in [0, 1].
    penalty
        (p,) factor of the square of each coefficient.

    Returns
    -------
    coefficients
        (p,)
    """
    theta = np.zeros(columns.shape[1])
    loss = np.inf
    for _ in range(_MAX_STEPS):
        z = columns @ theta
        p = sigmoid(z)
        gradient = columns.T @ (p - labels) + penalty * theta
        hessian = (columns * (p * (1.0 - p))[:, None]).T @ columns
        hessian[np.diag_indices(len(theta))] += penalty + 1e-9
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while True:
            trial = theta - size * step
            z = columns @ trial
            losses = np.logaddexp(0.0, z) - labels * z
            new = float(losses.sum() + 0.5 * (penalty * trial**2).sum())
            if new <= loss + 1e-12 * abs(loss) or size < 1e-8:
                break
            size /= 2.0
        theta, loss = trial, new
        if size * float(np.abs(step).max()) < 1e-7:
            return theta
    raise CalibrationError(
        f"logistic regression did not settle within {_MAX_STEPS} steps; its columns may be "
        "constant, or the labels separated by a few extreme values"
    )
