"""When to answer nothing: the chance that a table has an answer to a query, read off its scores.

A cutoff looks at one row at a time. Whether a query has an answer at all shows in the whole list:
how far the best row stands out, how fast the scores fall, and where the query lies among the rows.
`Abstention` is a linear head over that (`funnelvec.calibration.abstain`), fitted to judged queries
with and without an answer. It needs the scores and a sample of the rows, so it works on every
engine; it is applied in Python.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.abstain import AbstainHead, fit_abstain
from funnelvec.calibration.candidates import Candidates
from funnelvec.calibration.logistic import sigmoid
from funnelvec.errors import CalibrationError, InvalidInput
from funnelvec.types import Answer, Hit, Judgments

__all__ = ["Abstention"]

_Floats = npt.NDArray[np.float64]
_LEAST_DEPTH, _DIRECTIONS = 20, 32


@dataclass(frozen=True, slots=True)
class Abstention:
    """The chance that a query has an answer among the rows of a table.

    Attributes
    ----------
    depth
        How many rows it looks at; searches for it ask for as many.
    mean, directions, spreads, rest
        Of a sample of the rows: their mean (d,), the directions in which they vary most (up to 32
        of (d,)), the variances along them, and the mean variance along all others.
    head
        The fitted weights.
    """

    depth: int
    mean: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    spreads: tuple[float, ...]
    rest: float
    head: AbstainHead

    @classmethod
    def fit(
        cls,
        table: Any,
        judgments: Judgments,
        *,
        depth: int = 50,
        sample: int = 5_000,
        seed: int = 0,
        funnel: str | None = None,
    ) -> Abstention:
        """Fit to judged queries: one with a relevant row has an answer, one without has none.

        Parameters
        ----------
        table
            Of any synchronous engine. With an asynchronous one, await `search_many` and `sample`
            and call `fit_answers`.
        judgments
            Of at least 10 queries with an answer and 10 without.
        depth
            At least 20, and at most what reaches the last stage.

        Raises
        ------
        CalibrationError
            If there are too few queries of either kind.
        InvalidInput
            If `depth` is below 20, or answers are shorter than 20 rows.
        """
        queries = judgments.unique_queries
        answers = table.search_many(queries, k=depth, funnel=funnel)
        rows = table.sample(sample, seed=seed).vectors
        return cls.fit_answers(judgments, answers, rows, depth=depth, seed=seed)

    @classmethod
    def fit_answers(
        cls,
        judgments: Judgments,
        answers: Sequence[Sequence[Hit]],
        rows: npt.NDArray[np.float32],
        *,
        depth: int = 50,
        seed: int = 0,
    ) -> Abstention:
        """Fit to answers of `depth` rows to ``judgments.unique_queries``, and a sample of rows."""
        if type(depth) is not int or depth < _LEAST_DEPTH:
            raise InvalidInput(
                f"depth must be a whole number from {_LEAST_DEPTH} on: {depth!r:.60}"
            )
        queries = judgments.unique_queries
        if len(answers) != len(queries):
            raise InvalidInput(f"{len(queries)} different queries, but {len(answers)} answers")
        place = {query.tobytes(): row for row, query in enumerate(queries)}
        answerable = np.zeros(len(queries), dtype=np.bool_)
        for query, label in zip(judgments.queries, judgments.labels, strict=True):
            answerable[place[query.tobytes()]] |= bool(label)
        mean, directions, spreads, rest = _measured(rows)
        empty = AbstainHead(with_projection=False, means=(), scales=(), weights=())
        bare = cls(
            depth=depth,
            mean=tuple(map(float, mean)),
            directions=tuple(tuple(map(float, each)) for each in directions.T),
            spreads=tuple(map(float, spreads)),
            rest=rest,
            head=empty,
        )
        head = fit_abstain(bare._candidates(queries, answers), answerable, seed=seed)
        return replace(bare, head=head)

    def probability(self, query: npt.ArrayLike, hits: Sequence[Hit]) -> float:
        """Return the chance that the query has an answer, given its `depth` best rows.

        Raises
        ------
        InvalidInput
            If there are fewer than 20 rows.
        """
        matrix = np.asarray(query, dtype=np.float32)[np.newaxis]
        return float(sigmoid(self.head.logits(self._candidates(matrix, [hits])))[0])

    def search(
        self,
        table: Any,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        at_least: float = 0.5,
        funnel: str | None = None,
    ) -> Answer:
        """Search, and answer nothing where the chance of an answer is below `at_least`.

        Returns
        -------
        Answer
            The `k` best rows, or none; then its `nearest` is the best of them.
        """
        hits = table.search(query, k=max(k, self.depth), funnel=funnel)
        if self.probability(query, hits[: self.depth]) >= at_least:
            return Answer(hits[:k])
        return Answer(nearest=hits[0])

    def to_json(self) -> str:
        """Write it as one JSON object; floats keep every digit."""
        return json.dumps({"format": "abstention", "version": 1, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Abstention:
        """Read what `to_json` wrote.

        Raises
        ------
        CalibrationError
            If the text is not such an object.
        """
        try:
            content: Any = json.loads(text)
            if content.pop("format") != "abstention" or content.pop("version") != 1:
                raise CalibrationError(f"not an abstention of version 1: {text!r:.80}")
            head = {name: _tuple(value) for name, value in content.pop("head").items()}
            parts = {name: _tuple(value) for name, value in content.items()}
            return cls(**parts, head=AbstainHead(**head))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CalibrationError(f"an abstention is a JSON object: {error}") from None

    def _candidates(
        self, queries: npt.NDArray[np.float32], answers: Sequence[Sequence[Hit]]
    ) -> Candidates:
        """What a head is fitted to and applied to, without what only vectors of hits could say."""
        scores = np.stack([_padded(hits, self.depth) for hits in answers])
        unit = _unit(queries)
        place = unit @ np.array(self.directions).T
        along = (place**2 * np.array(self.spreads)).sum(axis=1)
        across = self.rest * np.maximum(0.0, 1.0 - (place**2).sum(axis=1))
        setting = np.stack([unit @ np.array(self.mean), np.sqrt(along + across + 1e-12)], axis=1)
        nothing = np.zeros_like(scores)
        return Candidates(
            scores=scores,
            labels=np.zeros(scores.shape, dtype=np.bool_),
            totals=np.zeros(len(scores), dtype=np.int64),
            bias=nothing,
            pull=nothing,
            setting=setting,
            coherence=np.zeros((len(scores), 2)),
            place=place,
            groups=np.arange(len(scores)),
        )


def _measured(rows: npt.NDArray[np.float32]) -> tuple[_Floats, _Floats, _Floats, float]:
    """Mean, main directions (d, m), variances along them and along the others, of unit rows."""
    if rows.ndim != 2 or len(rows) < 2:
        raise InvalidInput(f"a sample of rows has the shape (n, d) with n >= 2, not {rows.shape}")
    wide = _unit(rows)
    values, vectors = np.linalg.eigh(np.cov(wide.T))
    kept = min(_DIRECTIONS, len(values))
    rest = (
        float(np.maximum(values[: len(values) - kept], 0.0).mean()) if kept < len(values) else 0.0
    )
    spreads = np.maximum(values[::-1][:kept], 0.0)
    return wide.mean(axis=0), vectors[:, ::-1][:, :kept], spreads, rest


def _unit(vectors: npt.NDArray[np.float32]) -> _Floats:
    wide = vectors.astype(np.float64)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return wide


def _padded(hits: Sequence[Hit], depth: int) -> _Floats:
    """The scores of an answer; where rows are missing, the last one stands for them."""
    if len(hits) < _LEAST_DEPTH:
        raise InvalidInput(
            f"an answer has {len(hits)} rows; it takes at least {_LEAST_DEPTH} to say whether "
            "there is one"
        )
    scores = np.array([hit.score for hit in hits[:depth]])
    return np.append(scores, np.full(depth - len(scores), scores[-1]))


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value
