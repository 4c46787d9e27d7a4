"""Calibrations in plain floats: for the few rows of one answer arrays take longer than the sums.

The formulas are those of the families; what does not depend on the query is worked out before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import exp, log1p
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.adapter import CLIP
from funnelvec.calibration.beta import BetaCalibration, BetaMap
from funnelvec.calibration.listed import AdapterCalibration
from funnelvec.calibration.logistic import MAX_LOGIT, Floats, sigmoid
from funnelvec.calibration.platt import PlattCalibration
from funnelvec.calibration.row_stats import QUERY_FEATURES
from funnelvec.calibration.stored import StoredCalibration, log_odds

__all__ = ["Curve", "QuickAdapter"]


#: Mean and deviation of a feature, and what it adds to offset and slope.
_Term: TypeAlias = tuple[float, float, float, float]


@lru_cache(maxsize=256)
def _inverted(end: BetaMap, logit: float) -> float:
    return end.invert(logit) if math.isfinite(logit) else logit


class Curve(NamedTuple):
    """The map of one query, or of all: a line over the score, and a beta map behind it."""

    slope: float
    offset: float
    end: BetaMap

    @classmethod
    def of(cls, fitted: StoredCalibration) -> Curve | None:
        """Return that of a family with one such map for all queries."""
        if isinstance(fitted, PlattCalibration):
            return cls(fitted.slope, fitted.offset, BetaMap())
        if isinstance(fitted, BetaCalibration):
            return cls(fitted.slope, fitted.offset, BetaMap(fitted.a, fitted.b, fitted.c))
        return None

    def relevance(self, scores: Iterable[float]) -> list[float]:
        """Return the relevance of each score."""
        slope, offset, end = self
        a, b, c = end.a, end.b, end.c
        found = []
        for score in scores:
            z = slope * score + offset
            if z > 0.0:  # on either side of zero what does not overflow
                z = z if z < MAX_LOGIT else MAX_LOGIT
                rest = log1p(exp(-z))
                logit = b * (z + rest) - a * rest + c
            else:
                z = z if z > -MAX_LOGIT else -MAX_LOGIT
                rest = log1p(exp(z))
                logit = b * rest - a * (rest - z) + c
            if not -MAX_LOGIT < logit < MAX_LOGIT:
                logit = math.copysign(MAX_LOGIT, logit)
            found.append(1.0 / (1.0 + exp(-logit)))
        return found

    def apply(self, scores: Floats) -> Floats:
        """Return the relevance of many scores, same shape."""
        line = np.clip(self.slope * scores + self.offset, -MAX_LOGIT, MAX_LOGIT)
        return sigmoid(self.end.apply(line))

    def cutoff(self, relevance: float) -> float:
        """Return the score that reaches a relevance; -inf at 0 and below, +inf from 1."""
        return self.reaching(_inverted(self.end, log_odds(relevance)))

    def reaching(self, line: float) -> float:
        """Return the score at which the line, before the beta map, has this value."""
        return (line - self.offset) / self.slope


class QuickAdapter:
    """What makes the `Curve` of a query of its shortlist."""

    def __init__(self, fitted: AdapterCalibration) -> None:
        self._fitted, self.depth = fitted, fitted.depth
        self._end = BetaMap(fitted.a, fitted.b, fitted.c)
        asked = tuple(name for name in fitted.features if name in QUERY_FEATURES)
        self._read = fitted.rows.reader(asked) if asked and fitted.rows is not None else None
        terms: list[_Term] = list(
            zip(
                *(fitted.feature_means, fitted.feature_scales),
                *(fitted.offsets[1:], fitted.slopes[1:]),
                strict=True,
            )
        )
        # Those of the list first: `places` are in this order.
        named = list(zip(fitted.features, terms, strict=True))
        listed = [(name, term) for name, term in named if name not in asked]
        last = fitted.depth - 1
        ranks = [last if n == "last" else int(n.removeprefix("rank")) for n, _ in listed]
        self._places = [min(rank, last) for rank in ranks]
        self._terms = [term for _, term in listed]
        self._terms += [term for name, term in named if name in asked]

    def line(self, relevance: float | None) -> float | None:
        """Return the value of all lines that a relevance means; None for none."""
        return None if relevance is None else _inverted(self._end, log_odds(relevance))

    @classmethod
    def of(cls, fitted: StoredCalibration | None) -> QuickAdapter | None:
        """Return that of an adapter; None of other families."""
        return cls(fitted) if isinstance(fitted, AdapterCalibration) else None

    def places(self, length: int) -> Sequence[int]:
        """Return which scores of a falling list of this length, not 0, `curve` wants."""
        if length >= self.depth:
            return self._places
        return [min(place, length - 1) for place in self._places]

    def curve(self, query: npt.NDArray[np.float32], values: Sequence[float]) -> Curve:
        """Return the map of a query.

        Parameters
        ----------
        query
            (d,) as it was asked.
        values
            The scores at `places`.
        """
        fitted = self._fitted
        if self._read is not None:
            values = [*values, *self._read(query)]
        offset, slope = fitted.offsets[0], fitted.slopes[0]
        for value, (mean, scale, of_offset, of_slope) in zip(values, self._terms, strict=True):
            standard = (value - mean) / scale
            if not -CLIP < standard < CLIP:
                standard = CLIP if standard > 0.0 else -CLIP
            offset += of_offset * standard
            slope += of_slope * standard
        slope = max(slope, fitted.floor) / fitted.score_scale
        return Curve(slope, offset - slope * fitted.score_mean, self._end)
