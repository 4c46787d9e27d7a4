"""Shortlists by the codes of a rotation, beside those of others with the same bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from funnelvec.codes import bits, compared_by, encode, is_bits
from funnelvec.codes.maps import Rotation
from funnelvec.codes.rotations import rotate
from funnelvec.doctor.neighbours import Matrix, Space, space
from funnelvec.fitting.report import Comparison
from funnelvec.resolution import Resolution
from funnelvec.types import BaseCode, Metric

__all__ = ["KEEP", "K", "Trial", "bytes_of", "compare", "resolutions"]

#: What is looked for, and in how many of the best by code.
K, KEEP = 10, 100

_Shares = npt.NDArray[np.float64]


class Trial:
    """Rows, queries that are none of them, and the exact answers.

    Parameters
    ----------
    rows, queries
        (n, d) and (m, d) float32; n must be more than `K`.
    """

    def __init__(self, rows: Matrix, queries: Matrix, *, metric: Metric, base: BaseCode) -> None:
        self.rows, self.metric, self.base = len(rows), metric, base
        self.vectors = np.concatenate([rows, queries])
        self.places = np.arange(len(rows), len(self.vectors))
        self.truth = space(self.vectors, metric).nearest(self.places, K, among=self.rows)

    def kept(self, resolution: Resolution, rotation: Rotation | None = None) -> _Shares:
        """(m,) share of the exact top 10 among the best 100 by the codes of a resolution."""
        coded = [
            encode(
                resolution, part, metric=self.metric, base=self.base, rotation=rotation, asked=asked
            )
            for part, asked in (
                (self.vectors[: self.rows], False),
                (self.vectors[self.rows :], True),
            )
        ]
        return self.shares(points(resolution, np.concatenate(coded), self.metric, rotation))

    def shares(self, coded: Space, keep: int = KEEP) -> _Shares:
        """(m,) share of the exact top 10 among the best `keep` of other points."""
        return coded.places(self.places, self.truth, among=self.rows).kept(keep)

    def turned(self) -> Trial:
        """The same behind a random rotation."""
        other = object.__new__(Trial)
        other.rows, other.metric, other.base = self.rows, self.metric, "f32"
        other.places, other.truth = self.places, self.truth
        other.vectors = rotate("random", self.vectors)
        return other


def points(
    resolution: Resolution,
    coded: npt.NDArray[np.generic],
    metric: Metric,
    rotation: Rotation | None = None,
) -> Space:
    """Make codes comparable as their index compares them."""
    if is_bits(resolution.code):
        count = resolution.dims * bits.levels(resolution.code)
        signs = np.unpackbits(coded.view(np.uint8), axis=1, count=count).astype(np.float32) * 2 - 1
        return Space(signs, np.zeros(len(coded), np.float32))
    return space(coded.astype(np.float32), compared_by(metric, rotation))


def bytes_of(resolution: Resolution) -> int:
    """Bytes of one code, without what a database adds."""
    if is_bits(resolution.code):
        return -(-resolution.dims * bits.levels(resolution.code) // 8)
    return resolution.dims * (4 if resolution.code == "f32" else 2)


def resolutions(rotation: Rotation) -> list[Resolution]:
    """Codes that are worth a look: signs of a chain, prefixes of all others."""
    if not rotation.cuttable:
        return [Resolution(rotation.width, code, rotation.name) for code in ("bit", "f16")]
    powers = [1 << i for i in range(4, 14) if 1 << i < rotation.width]
    return [
        Resolution(dims, "f16", rotation.name)
        for dims in (*(powers[-4:] or [max(1, rotation.width // 2)]), rotation.width)
    ]


def compare(rotation: Rotation, trial: Trial, *, tell: Callable[[], object]) -> list[Comparison]:
    """Measure every code that is worth it behind the rotation, truncated, and turned at random."""
    turned = trial.turned()
    found = []
    for resolution in resolutions(rotation):
        plain = Resolution(resolution.dims, resolution.code)
        fitted = trial.kept(resolution, rotation)
        truncated, random = trial.kept(plain), turned.kept(plain)
        better = truncated if truncated.mean() >= random.mean() else random
        gains = fitted - better
        found.append(
            Comparison(
                resolution=str(resolution),
                bytes=bytes_of(resolution),
                fitted=float(fitted.mean()),
                truncated=float(truncated.mean()),
                random=float(random.mean()),
                gain=float(gains.mean()),
                margin=2 * float(gains.std(ddof=1)) / len(gains) ** 0.5,
            )
        )
        tell()
    return found
