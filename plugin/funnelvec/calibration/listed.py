"""The adapter that searches apply: a line per query, read off its shortlist and the query itself.

What a search has at hand, without a second look at the table, are the scores of the rows that
reached the last stage. A few of them, by rank, say how the list falls; the offset and the slope of
the query's line are affine in those, and in what `RowStats` make of the query. The database does
the same with one sort of the shortlist and a few inner products.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.adapter import Adapter
from funnelvec.calibration.beta import BetaCalibration, BetaMap
from funnelvec.calibration.logistic import Floats
from funnelvec.calibration.row_stats import QUERY_FEATURES, RowStats
from funnelvec.calibration.stored import StoredCalibration
from funnelvec.errors import CalibrationError, InvalidInput

__all__ = [
    "DEPTH",
    "LEAST_DEPTH",
    "LIST_SETS",
    "MOST_FEATURES",
    "QUERY_SETS",
    "AdapterCalibration",
    "list_features",
    "padded",
]

#: No more of a shortlist is looked at, and less than that says too little.
DEPTH, LEAST_DEPTH = 200, 20

#: Ranks to read, from 0; "last" is the last of the depth. What lies beyond a short list is its end.
LIST_SETS: dict[str, tuple[str, ...]] = {
    "ends": ("rank0", "last"),
    "levels": ("rank0", "rank4", "rank19", "rank49", "last"),
    "curve": ("rank0", "rank1", "rank4", "rank9", "rank19", "rank49", "rank99", "last"),
}

#: The same with features of the query, where the rows were measured.
_SETTING = ("query_mean", "query_sd")
QUERY_SETS: dict[str, tuple[str, ...]] = {
    "setting": (*_SETTING, "last"),
    "levels+setting": (*LIST_SETS["levels"], *_SETTING),
    "curve+setting": ("rank0", "rank1", "rank4", "rank19", "last", *_SETTING),
    "places": ("last", *QUERY_FEATURES),
}
#: No more than that is read, of means of several sets too, and one less where the query is: each
#: costs a search something.
MOST_FEATURES = 8

_READ = re.compile(r"last|rank\d{1,3}|" + "|".join(QUERY_FEATURES))


def list_features(
    names: tuple[str, ...], lists: Floats, asked: Mapping[str, Floats] | None = None
) -> Floats:
    """Read features of queries.

    Parameters
    ----------
    names
        ``rank<number>``, from 0, ``last``, or one of `QUERY_FEATURES`.
    lists
        (n, depth) falling scores.
    asked
        (n,) each: features of the queries by name.

    Returns
    -------
    features
        (n, len(names)) float64.
    """
    end = lists.shape[1] - 1

    def column(name: str) -> Floats:
        if asked is not None and name in asked:
            return asked[name]
        return lists[:, end if name == "last" else min(int(name.removeprefix("rank")), end)]

    if not names:
        return np.empty((len(lists), 0))
    return np.stack([column(name) for name in names], axis=1)


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
        As in `Adapter`; features are those of `LIST_SETS` and `QUERY_SETS`.
    a, b, c
        Of the `BetaMap` from the line to the log-odds of relevance.
    rows
        What features of the query are read off; None where there are none of them.
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
    rows: RowStats | None = None

    def __post_init__(self) -> None:
        _ = self._adapter, BetaMap(self.a, self.b, self.c)
        odd = [name for name in self.features if not _READ.fullmatch(str(name))]
        if odd or not LEAST_DEPTH <= self.depth <= DEPTH:
            raise CalibrationError(
                f"an adapter looks at {LEAST_DEPTH} to {DEPTH} rows and reads 'last', 'rank0' to "
                f"'rank999', 'query_mean', 'query_sd' and 'place0' to 'place3', not "
                f"{self.depth!r} rows and {', '.join(map(repr, odd)):.200}"
            )
        if bool(self._of_query) != (self.rows is not None):
            raise CalibrationError(
                "an adapter has statistics of rows if, and only if, it reads something of the "
                f"query; this one reads {', '.join(self.features)}"
            )
        if self.rows is not None:
            self.rows.check(self.features)

    @property
    def _of_query(self) -> tuple[str, ...]:
        """Features that hang on the query alone."""
        return tuple(name for name in self.features if name in QUERY_FEATURES)

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
        query
            As it is asked, (d,); where `rows` is None it makes no difference.
        shortlist
            Scores of the rows that reached the last stage, at least the `depth` best of them.
        """
        lists = padded(shortlist, self.depth)[np.newaxis]
        values = list_features(self.features, lists, self._asked(query))
        (offset,), (slope,) = self._adapter.lines_of(values)
        return BetaCalibration(
            slope=float(slope), offset=float(offset), a=self.a, b=self.b, c=self.c,
            **self.provenance,
        )  # fmt: skip

    def _asked(self, query: npt.NDArray[np.float32] | None) -> dict[str, Floats] | None:
        """Return features of the query by name."""
        if self.rows is None:
            return None
        if query is None:
            raise InvalidInput(
                f"the adapter reads {', '.join(self._of_query)} off the query: pass the query too"
            )
        asked = np.asarray(query, dtype=np.float32).ravel()[np.newaxis]
        names = self._of_query
        return dict(zip(names, self.rows.features(names, asked).T, strict=True))

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

    @classmethod
    def _part(cls, name: str, value: Any) -> Any:
        if name == "rows" and value is not None:
            return RowStats.of(value)
        return StoredCalibration._part(name, value)
