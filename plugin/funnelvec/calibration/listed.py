"""The adapter that searches apply: a line per query, read off a few places of its shortlist.

What a search has at hand, without a second look at the table, are the scores of the rows that
reached the last stage. A few of them, by rank, say how the list falls; the offset and the slope of
the query's line are affine in those. The database does the same with one sort of the shortlist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.adapter import Adapter
from funnelvec.calibration.beta import BetaCalibration, BetaMap
from funnelvec.calibration.logistic import Floats
from funnelvec.calibration.stored import StoredCalibration
from funnelvec.errors import CalibrationError, InvalidInput

__all__ = ["DEPTH", "LEAST_DEPTH", "LIST_SETS", "AdapterCalibration", "list_features", "padded"]

#: No more of a shortlist is looked at, and less than that says too little.
DEPTH, LEAST_DEPTH = 200, 20

#: Ranks to read, from 0; "last" is the last of the depth. What lies beyond a short list is its end.
LIST_SETS: dict[str, tuple[str, ...]] = {
    "ends": ("rank0", "last"),
    "levels": ("rank0", "rank4", "rank19", "rank49", "last"),
    "curve": ("rank0", "rank1", "rank4", "rank9", "rank19", "rank49", "rank99", "last"),
}

_READ = re.compile(r"last|rank\d{1,3}")


def list_features(names: tuple[str, ...], lists: Floats) -> Floats:
    """Read features of lists.

    Parameters
    ----------
    names
        ``rank<number>``, from 0, or ``last``.
    lists
        (n, depth) falling scores.

    Returns
    -------
    features
        (n, len(names)) float64.
    """
    end = lists.shape[1] - 1
    places = [end if name == "last" else min(int(name.removeprefix("rank")), end) for name in names]
    return lists[:, places]


def padded(shortlist: npt.ArrayLike, depth: int) -> Floats:
    """Return the `depth` best of a shortlist, falling; the last of a shorter one is repeated.

    Raises
    ------
    InvalidInput
        If there is no score.
    """
    scores = np.asarray(shortlist, dtype=np.float64).ravel()
    scores = np.sort(scores[~np.isnan(scores)])[::-1][:depth]
    if not len(scores):
        raise InvalidInput("a shortlist without a row says nothing about its query")
    result: Floats = np.concatenate([scores, np.full(depth - len(scores), scores[-1])])
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterCalibration(StoredCalibration):
    """A line over the score for each query, with a beta map behind it.

    Attributes
    ----------
    depth
        How many rows of the shortlist are looked at; funnels with fewer cannot use it.
    features, feature_means, feature_scales, score_mean, score_scale, offsets, slopes, floor
        As in `Adapter`; features are those of `LIST_SETS`.
    a, b, c
        Of the `BetaMap` from the line to the log-odds of relevance.
    """

    kind: ClassVar[str] = "adapter"

    depth: int
    features: tuple[str, ...]
    feature_means: tuple[float, ...]
    feature_scales: tuple[float, ...]
    score_mean: float
    score_scale: float
    offsets: tuple[float, ...]
    slopes: tuple[float, ...]
    floor: float
    a: float
    b: float
    c: float

    def __post_init__(self) -> None:
        _ = self._adapter, BetaMap(self.a, self.b, self.c)
        odd = [name for name in self.features if not _READ.fullmatch(str(name))]
        if odd or not LEAST_DEPTH <= self.depth <= DEPTH:
            raise CalibrationError(
                f"an adapter looks at {LEAST_DEPTH} to {DEPTH} rows and reads 'last' and 'rank0' "
                f"to 'rank999', not {self.depth!r} rows and {', '.join(map(repr, odd)):.200}"
            )

    @property
    def _adapter(self) -> Adapter:
        return Adapter(
            features=self.features,
            feature_means=self.feature_means,
            feature_scales=self.feature_scales,
            score_mean=self.score_mean,
            score_scale=self.score_scale,
            offsets=self.offsets,
            slopes=self.slopes,
            floor=self.floor,
        )

    def serves(self, keep: int | None) -> bool:
        """Whether the last shortlist of a funnel is long enough."""
        return keep is not None and keep >= self.depth

    def at(
        self, query: npt.NDArray[np.float32] | None, shortlist: npt.ArrayLike
    ) -> BetaCalibration:
        """Return the map of one query.

        Parameters
        ----------
        shortlist
            Scores of the rows that reached the last stage, at least the `depth` best of them.
        """
        lists = padded(shortlist, self.depth)[np.newaxis]
        (offset,), (slope,) = self._adapter.lines_of(list_features(self.features, lists))
        return BetaCalibration(
            slope=float(slope), offset=float(offset), a=self.a, b=self.b, c=self.c,
            **self.provenance,
        )  # fmt: skip

    def apply(
        self, query: npt.NDArray[np.float32] | None, scores: npt.ArrayLike
    ) -> npt.NDArray[np.float64]:
        """Return the relevance of each score, which together are the shortlist of the query."""
        if np.size(scores) == 0:
            return np.empty(np.shape(scores))
        return self.at(query, scores).apply(query, scores)

    def cutoff(self, query: npt.NDArray[np.float32] | None, relevance: float) -> float:
        """Refused: the cutoff of a query depends on its shortlist; see `at`."""
        raise InvalidInput(
            "an adapter has another cutoff for each query, which depends on its shortlist: write "
            "calibration.at(query, scores).cutoff(query, relevance)"
        )
