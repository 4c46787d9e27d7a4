"""What the rows of a table say about a query before a search, in a form that a calibration keeps.

The mean and the deviation of a query's scores with all rows need no look at the table: they follow
from the mean of the rows and their covariance. That is kept as its main directions and one variance
for all others, measured on a sample of the rows. The same directions are a low-rank projection of
the query, which is what the Cosine Adapter (Lin et al., CIKM 2024) reads.

Vectors are kept as whole numbers, and the direction of a query is rounded to whole numbers too, so
short that all products and sums are whole numbers below 2^24. 32-bit arithmetic holds those
exactly, in whatever order it adds, so databases and numpy have the same features to the last digit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.logistic import Floats
from funnelvec.errors import CalibrationError, InvalidInput
from funnelvec.types import METRICS, Metric

__all__ = ["QUERY_FEATURES", "SAMPLE", "RowStats"]

#: Rows that are measured, main directions that are kept, and how many of them are features: more
#: cost a search more, and gained nothing.
SAMPLE, DIRECTIONS, _PLACES = 5_000, 8, 4
#: What is known of a query: the mean of its scores with all rows, their deviation, and where it
#: lies along the main directions.
QUERY_FEATURES = ("query_mean", "query_sd", *(f"place{i}" for i in range(_PLACES)))

#: Lengths in whole numbers of a query's direction and of the vectors of the rows. Rounding adds at
#: most half the root of the dimensions to each, and (4096 + 63.3) * (3900 + 63.3) is below 2^24.
_ASKED, _KEPT = 4096, 3900
_UNIT = 1.0 / (_ASKED * _KEPT)
_TINY = 1e-100
_ROUNDS, _SPARE = 12, 16
_WHOLE = re.compile(r"\[-?\d{1,4}(,-?\d{1,4})*\]")


@dataclass(frozen=True, slots=True)
class RowStats:
    """Mean and main directions of the rows of a table.

    Attributes
    ----------
    metric
        By which rows are compared. Under cosine rows and queries have the length 1.
    mean, mean_length
        The mean of the rows: its direction in whole numbers, and how long it is.
    square
        The mean of the squared lengths of the rows.
    directions
        The main directions of the rows around their mean, in whole numbers: the first is 3900
        long, and the others are shorter as the deviation of the rows along them is smaller.
    spread
        The variance of the rows along the first one. Of each it counts what is over `rest`.
    rest
        Their variance along any other direction.
    middle, middle_length, middle_square
        Under euclidean alone: where the mean of the rows lies among their main directions, as a
        direction in whole numbers and how long it is, and the squared length of the mean in
        those directions, each of them weighed like `directions`.
    format
        Of what is kept.
    """

    metric: Metric
    mean: str
    mean_length: float
    square: float
    directions: tuple[str, ...]
    spread: float
    rest: float
    middle: str | None = None
    middle_length: float = 0.0
    middle_square: float = 0.0
    format: int = 1

    def __post_init__(self) -> None:
        numbers = (self.mean_length, self.square, self.spread, self.rest, self.middle_length)
        if (
            self.format != 1
            or self.metric not in METRICS
            or len(self.directions) > DIRECTIONS
            or not np.isfinite((*numbers, self.middle_square)).all()
            or min((*numbers, self.middle_square)) < 0
            or (self.middle is None) == (self.metric == "euclidean")
            or not all(_WHOLE.fullmatch(text) for text in self._vectors)
            or len({text.count(",") for text in self._vectors}) != 1
        ):
            raise CalibrationError(
                f"not statistics of rows that this version of funnelvec reads: {self!r:.200}"
            )

    @property
    def _vectors(self) -> tuple[str, ...]:
        return (self.mean, *self.directions, *(() if self.middle is None else (self.middle,)))

    @property
    def dims(self) -> int:
        """Width of the vectors."""
        return self.mean.count(",") + 1

    @classmethod
    def of(cls, content: Any) -> RowStats:
        """Make one of its parts as JSON has them.

        Raises
        ------
        CalibrationError
            If parts are missing, unknown or of the wrong type.
        """
        try:
            parts: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in dict(content).items()
            }
            return cls(**parts)
        except (TypeError, ValueError) as error:
            raise CalibrationError(f"statistics of rows of the wrong form: {error}") from None

    @classmethod
    def measure(
        cls, rows: npt.NDArray[np.float32], *, metric: Metric, seed: int = 0
    ) -> RowStats | None:
        """Measure (N, d) rows; None of fewer than two with a direction.

        Parameters
        ----------
        seed
            Of the start of the iteration that finds the main directions.
        """
        wide = rows.astype(np.float64)
        if metric == "cosine":
            lengths = np.sqrt((wide * wide).sum(axis=1))
            wide = wide[lengths > 0] / lengths[lengths > 0, np.newaxis]
        if len(wide) < 2:
            return None
        mean, square = wide.mean(axis=0), float((wide * wide).sum(axis=1).mean())
        wide -= mean
        vectors, variances = _strongest(wide, min(DIRECTIONS, wide.shape[1]), seed)
        left = wide.shape[1] - len(variances)
        total = float((wide * wide).sum()) / len(wide)
        rest = max(0.0, total - float(variances.sum())) / left if left else 0.0
        spreads = np.maximum(variances - rest, 0.0)
        weights = np.sqrt(spreads / max(spreads[0], _TINY))
        about: dict[str, Any] = {}
        if metric == "euclidean":
            places = vectors @ mean
            middle, length = _direction((weights**2 * places) @ vectors)
            about = {
                "middle": middle,
                "middle_length": length,
                "middle_square": _plain(float(((weights * places) ** 2).sum())),
            }
        kept, length = _direction(mean)
        return cls(
            metric=metric,
            mean=kept,
            mean_length=length,
            square=_plain(square),
            directions=tuple(map(_whole, vectors * weights[:, np.newaxis])),
            spread=_plain(float(spreads[0])),
            rest=_plain(rest),
            **about,
        )

    def needed(self, features: Sequence[str]) -> RowStats | None:
        """Return no more directions than these features read; None where they read nothing."""
        if not set(features) & set(QUERY_FEATURES):
            return None
        width = len(self.directions) if "query_sd" in features else _furthest(features)
        return replace(self, directions=self.directions[:width])

    def check(self, features: Sequence[str]) -> None:
        """Refuse features that these statistics have nothing for."""
        least = max(_furthest(features), int("query_sd" in features))
        if least > len(self.directions):
            raise CalibrationError(
                f"the adapter reads {least} main directions of the rows, and its statistics have "
                f"{len(self.directions)}"
            )

    def features(self, names: Sequence[str], queries: npt.NDArray[np.float32]) -> Floats:
        """Read features of queries.

        Parameters
        ----------
        names
            Of `QUERY_FEATURES`.
        queries
            (n, d) as they are asked.

        Returns
        -------
        features
            (n, len(names)) float64.

        Raises
        ------
        InvalidInput
            If the queries have another width than the rows.
        """
        if queries.shape[1] != self.dims:
            raise InvalidInput(
                f"a query of {queries.shape[1]} dimensions, and the calibration was fitted to "
                f"rows of {self.dims}"
            )
        length, whole = _asked(queries, normalized=self.metric == "cosine")
        products = whole @ _numbers(self._vectors).T * _UNIT * length[:, np.newaxis]
        along, places = products[:, 0] * self.mean_length, products[:, 1 : 1 + len(self.directions)]
        known = {f"place{i}": places[:, i] for i in range(places.shape[1])}
        spread = (places**2).sum(axis=1)
        if self.metric == "euclidean":
            # The root of the mean squared distance, and the deviation of distances to first order:
            # that of the rows along the line from their mean to the query.
            away = np.sqrt(np.maximum(length**2 - 2 * along + self.square, _TINY))
            reach = length**2 - 2 * along + self.mean_length**2
            spread += self.middle_square - 2 * self.middle_length * products[:, -1]
            known["query_mean"] = -away
            inside = self.rest * reach + self.spread * spread
            known["query_sd"] = np.sqrt(np.maximum(inside, 0.0)) / away
        else:
            known["query_mean"] = along
            known["query_sd"] = np.sqrt(self.rest * length**2 + self.spread * spread)
        return np.stack([known[name] for name in names], axis=1)

    def reader(self, names: Sequence[str]) -> Callable[[npt.NDArray[np.float32]], list[float]]:
        """Return what reads the features of one query (d,), as `features` does, in fewer steps."""
        numbers, count = _numbers(self._vectors), len(self.directions)
        far, cosine = self.metric == "euclidean", self.metric == "cosine"
        mean, rest, spread = self.mean_length, self.rest, self.spread

        def read(query: npt.NDArray[np.float32]) -> list[float]:
            wide = query.astype(np.float64)
            length = math.sqrt((wide * wide).sum())
            unit = (wide / (length or 1.0)).astype(np.float32) * np.float32(_ASKED)
            size = 1.0 if cosine else length
            products = (numbers @ np.rint(unit).astype(np.float64)).tolist()
            first, *places = [product * _UNIT * size for product in products]
            along, inside = first * mean, sum(place * place for place in places[:count])
            known = {f"place{i}": place for i, place in enumerate(places[:count])}
            if far:
                away = math.sqrt(max(size**2 - 2 * along + self.square, _TINY))
                reach = size**2 - 2 * along + mean**2
                inside += self.middle_square - 2 * self.middle_length * places[-1]
                known["query_mean"] = -away
                known["query_sd"] = math.sqrt(max(rest * reach + spread * inside, 0.0)) / away
            else:
                known["query_mean"] = along
                known["query_sd"] = math.sqrt(rest * size**2 + spread * inside)
            return [known[name] for name in names]

        return read


def _furthest(features: Sequence[str]) -> int:
    """Return how many main directions the places among some features lie along."""
    places = (int(name[5:]) + 1 for name in features if name.startswith("place"))
    return max(places, default=0)


def _plain(number: float) -> float:
    """Databases refuse what is nearly nothing but not 0."""
    return number if abs(number) > _TINY else 0.0


def _direction(vector: Floats) -> tuple[str, float]:
    """Return the direction of a vector in whole numbers, and its length."""
    length = float(np.sqrt(vector @ vector))
    return _whole(vector / length if length > _TINY else 0.0 * vector), _plain(length)


def _whole(direction: Floats) -> str:
    return "[" + ",".join(str(int(x)) for x in np.rint(direction * _KEPT)) + "]"


@lru_cache(maxsize=32)
def _numbers(texts: tuple[str, ...]) -> Floats:
    return np.stack([np.array(text[1:-1].split(","), dtype=np.float64) for text in texts])


def _asked(queries: npt.NDArray[np.float32], *, normalized: bool) -> tuple[Floats, Floats]:
    """Return what (n, d) queries count as long, (n,), and their directions in whole numbers.

    The roundings are those of pgvector's ``l2_normalize``: the norm in double precision, the
    quotient to 32 bits.
    """
    wide = queries.astype(np.float64)
    lengths = np.sqrt((wide * wide).sum(axis=1))
    units = (wide / np.where(lengths > 0, lengths, 1.0)[:, np.newaxis]).astype(np.float32)
    whole = np.rint(units * np.float32(_ASKED)).astype(np.float64)
    return np.ones(len(wide)) if normalized else lengths, whole


def _strongest(centred: Floats, width: int, seed: int) -> tuple[Floats, Floats]:
    """Return (width, d) main directions of centred rows, and the variance along each.

    Subspace iteration: a covariance of thousands of dimensions takes minutes to decompose.
    """
    n, dims = centred.shape
    block = min(dims, width + _SPARE)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(dims, block)))[0]
    for _ in range(_ROUNDS if block < dims else 1):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    values, inside = np.linalg.eigh((centred @ basis).T @ (centred @ basis) / n)
    vectors: Floats = (basis @ inside[:, ::-1])[:, :width].T
    # Whichever of its two signs an iteration ends in, a direction is the same.
    signs = np.sign(vectors[np.arange(len(vectors)), np.abs(vectors).argmax(axis=1)])
    return vectors * signs[:, np.newaxis], np.maximum(values[::-1][:width], 0.0)
