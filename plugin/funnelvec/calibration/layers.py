"""A small network with a gradient, in numpy: layers, dropout, and Adam with weight decay.

LayerNorm -> Linear -> ReLU -> Dropout, twice, then Linear: the network of the Cosine Adapter. Its
training sets are thousands of queries, for which a framework of a gigabyte would be much.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Adam", "Network"]

Floats = npt.NDArray[np.float64]
Weights = dict[str, Floats]

EPSILON = 1e-5
_BLOCKS = (1, 2)


@dataclass(slots=True)
class Network:
    """Weights by name, and what a forward pass leaves for the backward one.

    Attributes
    ----------
    weights
        For each block b ``gain_b``, ``shift_b`` (the norm), ``matrix_b``, ``bias_b``; ``matrix_3``
        and ``bias_3`` at the end.
    """

    weights: Weights
    _kept: Weights = field(default_factory=dict)

    @classmethod
    def start(cls, dims: int, hidden: int, ends: Floats, *, seed: int) -> Network:
        """Draw weights; the last layer gives `ends` for every query, so that training starts there.

        Parameters
        ----------
        dims, hidden
            Widths of the input and of the two hidden layers.
        ends
            (p,) the output at the start.
        """
        rng = np.random.default_rng(seed)
        weights: Weights = {}
        for block, width in zip(_BLOCKS, (dims, hidden), strict=True):
            weights[f"gain_{block}"], weights[f"shift_{block}"] = np.ones(width), np.zeros(width)
            scale = np.sqrt(2.0 / width)
            weights[f"matrix_{block}"] = rng.normal(0.0, scale, (width, hidden))
            weights[f"bias_{block}"] = np.zeros(hidden)
        weights["matrix_3"] = np.zeros((hidden, len(ends)))
        weights["bias_3"] = np.array(ends, dtype=np.float64)
        return cls(weights)

    def forward(
        self, x: Floats, *, dropout: float = 0.0, rng: np.random.Generator | None = None
    ) -> Floats:
        """Return (n, p) outputs of (n, d) inputs; with `rng` hidden values are dropped."""
        w, kept = self.weights, self._kept
        for block in _BLOCKS:
            centred = x - x.mean(axis=1, keepdims=True)
            inverse = 1.0 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
            normal = centred * inverse
            entered = normal * w[f"gain_{block}"] + w[f"shift_{block}"]
            z = entered @ w[f"matrix_{block}"] + w[f"bias_{block}"]
            mask = (z > 0).astype(np.float64)
            if rng is not None and dropout > 0.0:
                mask *= (rng.random(z.shape) >= dropout) / (1.0 - dropout)
            kept |= {
                f"normal_{block}": normal,
                f"inverse_{block}": inverse,
                f"entered_{block}": entered,
                f"mask_{block}": mask,
            }
            x = z * mask
        kept["last"] = x
        result: Floats = x @ w["matrix_3"] + w["bias_3"]
        return result

    def backward(self, slope: Floats) -> Weights:
        """Return the gradient by every weight, from (n, p) by the outputs of the last `forward`."""
        w, kept = self.weights, self._kept
        found: Weights = {"matrix_3": kept["last"].T @ slope, "bias_3": slope.sum(axis=0)}
        flow = slope @ w["matrix_3"].T
        for block in reversed(_BLOCKS):
            flow = flow * kept[f"mask_{block}"]
            found[f"matrix_{block}"] = kept[f"entered_{block}"].T @ flow
            found[f"bias_{block}"] = flow.sum(axis=0)
            flow = flow @ w[f"matrix_{block}"].T
            normal = kept[f"normal_{block}"]
            found[f"gain_{block}"] = (flow * normal).sum(axis=0)
            found[f"shift_{block}"] = flow.sum(axis=0)
            flow = flow * w[f"gain_{block}"]
            flow = kept[f"inverse_{block}"] * (
                flow
                - flow.mean(axis=1, keepdims=True)
                - normal * (flow * normal).mean(axis=1, keepdims=True)
            )
        return found


class Adam:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019), on matrices alone."""

    def __init__(self, weights: Weights, *, rate: float, decay: float) -> None:
        self._weights, self._rate, self._decay = weights, rate, decay
        self._first = {name: np.zeros_like(value) for name, value in weights.items()}
        self._second = {name: np.zeros_like(value) for name, value in weights.items()}
        self._steps = 0

    def step(self, gradient: Weights, *, share: float = 1.0) -> None:
        """Take one step; `share` of the learning rate."""
        self._steps += 1
        for name, slope in gradient.items():
            first, second, value = self._first[name], self._second[name], self._weights[name]
            first += 0.1 * (slope - first)
            second += 0.001 * (slope**2 - second)
            mean = first / (1.0 - 0.9**self._steps)
            spread = second / (1.0 - 0.999**self._steps)
            if name.startswith("matrix"):
                value -= share * self._rate * self._decay * value
            value -= share * self._rate * mean / (np.sqrt(spread) + 1e-8)
