"""Training the network form of the Cosine Adapter, and writing it as ONNX.

The network begins as plain Platt and is kept as it was when the queries that are held out were
predicted best, so on those it is never worse than Platt. Its slope goes through a softplus, which
makes it positive for every query; in the authors' code nothing does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.layers import EPSILON, Adam, Network, Weights
from funnelvec.calibration.logistic import Floats, sigmoid
from funnelvec.calibration.network import FAMILIES, Family, NetworkAdapter
from funnelvec.calibration.platt import fit_platt
from funnelvec.errors import CalibrationError, InvalidInput, MissingDependency

__all__ = ["Training", "train_network", "write_onnx"]

Labels = npt.NDArray[np.bool_]

_LEAST = 20
_POWERS = {"linear": 1.0, "sqrt": 0.5, "quadratic": 2.0, "power": 1.0}


@dataclass(frozen=True, slots=True)
class Training:
    """How to train.

    Attributes
    ----------
    hidden
        Width of the two hidden layers; the paper's is 3,072, for millions of queries.
    epochs, batch
        Passes over the queries at most, and queries per step.
    rate, decay, dropout
        Of Adam, of its weight decay, and of hidden values.
    held_out
        Share of the queries that says when to stop.
    patience
        Epochs without a better held-out loss before it ends.
    """

    hidden: int = 128
    epochs: int = 60
    batch: int = 128
    rate: float = 1e-3
    decay: float = 1e-2
    dropout: float = 0.5
    held_out: float = 0.2
    patience: int = 10

    def __post_init__(self) -> None:
        whole = (self.hidden, self.epochs, self.batch, self.patience)
        if min(whole) < 1 or not 0 <= self.dropout < 1 or not 0 < self.held_out < 1:
            raise InvalidInput(
                f"{self!r}: sizes are at least 1, dropout is below 1, held_out between 0 and 1"
            )
        if not self.rate > 0 or self.decay < 0:
            raise InvalidInput(f"{self!r}: the rate is above 0 and the decay not below")


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """Queries with their candidates: scores as they enter, labels, and weights of pairs."""

    queries: Floats
    scores: Floats
    labels: Floats
    weights: Floats

    def take(self, index: npt.NDArray[np.intp]) -> _Judged:
        """Some of the queries."""
        parts = (self.queries, self.scores, self.labels, self.weights)
        return _Judged(*(part[index] for part in parts))


def train_network(
    queries: npt.ArrayLike,
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    counted: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    family: Family = "power",
    training: Training | None = None,
    seed: int = 0,
    progress: Callable[[int, float], object] = lambda epoch, loss: None,
) -> NetworkAdapter:
    """Train a network from judged queries.

    Parameters
    ----------
    queries
        (n, d) vectors.
    scores, labels
        (n, K) scores of their candidates, and whether those are relevant.
    counted
        (n, K) which places are filled and judged; by default all.
    groups
        (n,) queries of one group are held out together (`alike`); by default each by itself.
    family
        How the score enters; see `NetworkAdapter`. The paper found ``power`` best.
    progress
        Told (epoch, held-out loss), from epoch 0 on, which is Platt.

    Raises
    ------
    CalibrationError
        If there are fewer than 20 queries, or plain Platt cannot be fitted to them.
    MissingDependency
        If onnx is not installed.
    """
    how = training or Training()
    if family not in FAMILIES:
        raise InvalidInput(f"there is no family {family!r}; choose from {', '.join(FAMILIES)}")
    _check_available()
    everything, width = _judged(queries, scores, labels, counted, family)
    names = np.arange(len(everything.queries)) if groups is None else np.asarray(groups)
    if len(names) != len(everything.queries):
        raise InvalidInput(f"{len(everything.queries)} queries and {len(names)} groups")
    fit, held = _split(names, how.held_out, seed)
    start = _Start.of(everything.take(fit), family)
    network = Network.start(width, how.hidden, start.ends, seed=seed)
    best = _descend(
        network, start, everything.take(fit), everything.take(held), how, seed, progress
    )
    there = everything.weights > 0
    return NetworkAdapter(
        onnx=write_onnx(best, mean=start.mean, scale=start.scale, family=family),
        family=family,
        dims=width,
        n_pairs=int(there.sum()),
        n_relevant=int(everything.labels[there].sum()),
        n_queries=len(everything.queries),
    )


def _judged(
    queries: npt.ArrayLike,
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    counted: npt.ArrayLike | None,
    family: Family,
) -> tuple[_Judged, int]:
    matrix = np.asarray(queries, dtype=np.float64)
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.bool_)
    there = np.ones(values.shape) if counted is None else np.asarray(counted, dtype=np.float64)
    shapes = values.shape == truth.shape == there.shape
    if matrix.ndim != 2 or values.ndim != 2 or not shapes or len(values) != len(matrix):
        raise InvalidInput(
            f"queries (n, d), scores and labels (n, K) do not fit: {matrix.shape}, "
            f"{values.shape}, {truth.shape}, {there.shape}"
        )
    if len(matrix) < _LEAST:
        raise CalibrationError(
            f"a network needs at least {_LEAST} judged queries and there are {len(matrix)}; plain "
            "Platt does with 5"
        )
    values = np.where(there > 0, values, 0.0)
    if not np.isfinite(values).all() or not np.isfinite(matrix).all():
        raise InvalidInput("a query or a score is not finite")
    if family != "linear":
        values = np.maximum(values, 0.0)
    return _Judged(matrix, values, truth.astype(np.float64), there), matrix.shape[1]


def _split(
    groups: npt.NDArray[np.generic], share: float, seed: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Numbers of the queries to fit to and of those held out; a group is on one side."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    if len(names) < 2:
        raise CalibrationError("training needs at least two groups of judged queries")
    out = names[: min(len(names) - 1, max(1, round(share * len(names))))]
    held = np.isin(groups, out)
    return np.flatnonzero(~held), np.flatnonzero(held)


@dataclass(frozen=True, slots=True)
class _Start:
    """Where training begins: the plain curve, on standardised scores.

    Log-odds are ``softplus(t0) * (g - mean) / scale + t1`` with g = score ** power.
    """

    mean: float
    scale: float
    ends: Floats
    family: Family

    @classmethod
    def of(cls, fit: _Judged, family: Family) -> _Start:
        there = fit.weights > 0
        g = fit.scores[there] ** _POWERS[family] if family != "linear" else fit.scores[there]
        line = fit_platt(g, fit.labels[there] > 0.5)
        mean, scale = float(g.mean()), float(g.std())
        slope = line.slope * scale
        ends = [float(np.log(np.expm1(slope))) if slope < 30 else slope]
        ends.append(line.offset + line.slope * mean)
        # The power begins at 1: twice the sigmoid of 0.
        return cls(mean, scale, np.array([*ends, 0.0] if family == "power" else ends), family)

    def losses(self, ends: Floats, some: _Judged) -> tuple[float, Floats]:
        """Mean cross-entropy over pairs, and its gradient by the outputs of the network."""
        power = _POWERS[self.family] * np.ones(len(ends))
        if self.family == "power":
            power = 2.0 * sigmoid(ends[:, 2])
        g = some.scores if self.family == "linear" else some.scores ** power[:, None]
        slope, standard = np.logaddexp(0.0, ends[:, 0]), (g - self.mean) / self.scale
        z = slope[:, None] * standard + ends[:, [1]]
        total = max(float(some.weights.sum()), 1.0)
        loss = float((some.weights * (np.logaddexp(0.0, z) - some.labels * z)).sum()) / total
        residual = some.weights * (sigmoid(z) - some.labels) / total
        found = np.empty_like(ends)
        found[:, 0] = (residual * standard).sum(axis=1) * sigmoid(ends[:, 0])
        found[:, 1] = residual.sum(axis=1)
        if self.family == "power":
            logs = np.log(np.where(some.scores > 0, some.scores, 1.0))
            by_power = (residual * g * logs).sum(axis=1) * slope / self.scale
            found[:, 2] = by_power * power * (1.0 - power / 2.0)
        return loss, found


def _descend(
    network: Network,
    start: _Start,
    fit: _Judged,
    held: _Judged,
    how: Training,
    seed: int,
    progress: Callable[[int, float], object],
) -> Weights:
    """Train, and return the weights of the epoch with the best held-out loss."""
    rng, adam = np.random.default_rng(seed), Adam(network.weights, rate=how.rate, decay=how.decay)
    loss, _ = start.losses(network.forward(held.queries), held)
    best, weights, at = loss, _copied(network.weights), 0
    progress(0, loss)
    for epoch in range(1, how.epochs + 1):
        for index in np.array_split(
            rng.permutation(len(fit.queries)), -(-len(fit.queries) // how.batch)
        ):
            some = fit.take(index)
            ends = network.forward(some.queries, dropout=how.dropout, rng=rng)
            _, slope = start.losses(ends, some)
            adam.step(network.backward(slope), share=1.0 - (epoch - 1) / how.epochs)
        loss, _ = start.losses(network.forward(held.queries), held)
        progress(epoch, loss)
        if loss < best:
            best, weights, at = loss, _copied(network.weights), epoch
        elif epoch - at >= how.patience:
            break
    return weights


def _copied(weights: Weights) -> Weights:
    return {name: value.copy() for name, value in weights.items()}


def _check_available() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependency.of("onnx", extra="train") from error


def write_onnx(weights: Weights, *, mean: float, scale: float, family: Family) -> bytes:
    """Write a network as the ONNX model that `NetworkAdapter` runs.

    Parameters
    ----------
    weights
        See `Network`.
    mean, scale
        Of the scores that it was trained with; the model gives curves over raw scores.
    """
    _check_available()
    from onnx import TensorProto, checker, helper, numpy_helper

    constants: dict[str, npt.NDArray[np.float32]] = {
        name: value.astype(np.float32) for name, value in weights.items()
    }
    constants |= {
        "per_scale": np.array([1.0 / scale], np.float32),
        "mean": np.array([mean], np.float32),
        "two": np.array([2.0], np.float32),
    }
    width = 3 if family == "power" else 2
    dims = len(weights["gain_1"])
    graph = helper.make_graph(
        _nodes(width),
        "cosine_adapter",
        [helper.make_tensor_value_info("query", TensorProto.FLOAT, ["n", dims])],
        [helper.make_tensor_value_info("curve", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    # Opset 18 is the first in which Split counts its outputs; IR 10 is read from onnxruntime 1.18.
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name="funnelvec"
    )
    checker.check_model(model, full_check=True)
    written: bytes = model.SerializeToString()
    return written


def _nodes(width: int) -> list[Any]:
    """The graph: two blocks, the last layer, and a slope and power that are positive."""
    from onnx import helper

    node = helper.make_node
    nodes, given = [], "query"
    for block in (1, 2):
        ends = [f"gain_{block}", f"shift_{block}"]
        normal, dense, hidden = (f"{what}_{block}" for what in ("normal", "dense", "hidden"))
        nodes += [
            node("LayerNormalization", [given, *ends], [normal], axis=-1, epsilon=EPSILON),
            node("Gemm", [normal, f"matrix_{block}", f"bias_{block}"], [dense]),
            node("Relu", [dense], [hidden]),
        ]
        given = hidden
    parts = ["steep", "level", "bend"][:width]
    nodes += [
        node("Gemm", [given, "matrix_3", "bias_3"], ["ends"]),
        node("Split", ["ends"], parts, axis=1, num_outputs=width),
        node("Softplus", ["steep"], ["rise"]),
        node("Mul", ["rise", "per_scale"], ["slope"]),
        node("Mul", ["slope", "mean"], ["shift"]),
        node("Sub", ["level", "shift"], ["offset"]),
    ]
    found = ["slope", "offset"]
    if width == 3:
        nodes += [node("Sigmoid", ["bend"], ["half"]), node("Mul", ["half", "two"], ["power"])]
        found.append("power")
    return [*nodes, node("Concat", found, ["curve"], axis=1)]
