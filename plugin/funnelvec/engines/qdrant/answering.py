"""From what Qdrant finds to an answer: which rows, where it ends, what they are worth."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import neg
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec.engines.asking import Place
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.deployment import Found, Scored
from funnelvec.engines.qdrant.questions import Question, Worth, window
from funnelvec.types import Answer, Hit

__all__ = ["QdrantAnswering"]

#: A row that may be of the answer: score, key, and what was found.
_Row: TypeAlias = tuple[float, Any, Found]


def _place(row: _Row) -> tuple[float, Any]:
    return -row[0], row[1]


class QdrantAnswering:
    """How `QdrantTable` comes from a question and a query to an answer."""

    name: str
    _collection: Collection

    if TYPE_CHECKING:

        def _for(self, question: Question, k: int) -> Question: ...
        def _query(self, requests: Sequence[models.QueryRequest]) -> list[list[Scored]]: ...

    def _answer(
        self,
        question: Question,
        vector: npt.NDArray[np.float32],
        first: Sequence[Found] | None = None,
    ) -> Answer:
        return self._ended(question, vector, first)[0]

    def _ended(
        self,
        question: Question,
        vector: npt.NDArray[np.float32],
        first: Sequence[Found] | None = None,
    ) -> tuple[Answer, float | None]:
        """The answer, and the score that it ends at; None where there is no cutoff.

        `first` is what its first request has found, where that has been made.
        """
        if question.listed:
            return self._listed(question, vector, first)
        rows = self._fetched(question, vector, first)
        hits = self._hits(question, question.worth(vector), rows)
        nearest = None
        if not hits and question.cuts and question.after is None:
            nearest = next(iter(self._answer(self._for(question.uncut, 1), vector)), None)
        return Answer(hits, nearest=nearest), question.cutoff

    def _fetched(
        self,
        question: Question,
        vector: npt.NDArray[np.float32],
        first: Sequence[Found] | None,
    ) -> list[_Row]:
        """Fetch rows until the best `k` are certain, ties by key among them."""
        cutoff = question.cutoff
        vectors = [] if first else question.template.vectors(vector)
        if cutoff == np.inf:
            return []
        threshold = question.template.threshold(cutoff)
        found = question.search(vectors, threshold) if first is None else first
        limit, most = question.template.search.limit or 0, question.plan.limits.rows
        while True:
            ranked = self._ranked(question, found, cutoff)
            if len(found) < limit or limit >= most:
                break
            lowest = question.score(found[-1].score)
            if len(ranked) >= question.k and ranked[question.k - 1][0] > lowest:
                break
            # More rows have the score of the last one, or the page begins behind these.
            limit = min(4 * limit, most)
            (found,) = self._query([question.longer(limit).ask(vector, cutoff=cutoff)])
        return ranked[: question.k]

    def _listed(
        self,
        question: Question,
        vector: npt.NDArray[np.float32],
        first: Sequence[Found] | None,
    ) -> tuple[Answer, float | None]:
        """What is read off the shortlist, of which the answer is a part."""
        score, slack = question.score, self._collection.deployment.slack
        found = question.search(question.template.vectors(vector), None) if first is None else first
        limit, most = question.template.search.limit or 0, question.plan.limits.rows
        while found:
            scores = [score(point.score) for point in found]
            worth, least = question.ending(vector, scores)
            passed = len(scores) if least is None else bisect_right(scores, -least, key=neg)
            start, stop = window(scores, question.k, question.after, passed=passed, slack=slack)
            if stop < len(found) or len(found) < limit or limit >= most:
                break
            limit = min(4 * limit, most)  # more rows may have the score of the last one
            (found,) = self._query([question.longer(limit).ask(vector)])
        else:
            return Answer(), None
        if passed or not question.cuts or question.after is not None:
            return Answer(self._shown(question, worth, found[start:stop])), least
        ties = found[: bisect_right(scores, -scores[0], key=neg)]
        return Answer(nearest=next(iter(self._shown(question, worth, ties)), None)), least

    def _shown(
        self,
        question: Question,
        worth: Worth | None,
        found: Sequence[Found],
    ) -> list[Hit]:
        """The rows of a shortlist that may be of the answer, as its hits."""
        if question.paths and found:
            deployment, ids = self._collection.deployment, [point.id for point in found]
            read = deployment.retrieve(self.name, ids, payload=True, vectors=())
            payloads = {str(each.id): each.payload for each in read}
            found = [
                Scored(point.id, point.score, payloads[str(point.id)])
                for point in found
                if str(point.id) in payloads  # somebody may have deleted it meanwhile
            ]
        rows = self._ranked(question, found, None)[: question.k]
        return self._hits(question, worth, rows)

    def _ranked(
        self, question: Question, found: Sequence[Found], cutoff: float | None
    ) -> list[_Row]:
        """Rows in the order of the answer, from where it begins."""
        score, key, after = question.score, question.key, question.after
        rows = [(score(point.score), key(point), point) for point in found]
        if cutoff is not None:
            rows = [row for row in rows if row[0] >= cutoff]
        if after is not None:
            rows = [row for row in rows if self._behind(row[0], row[1], after)]
        rows.sort(key=_place)
        return rows

    def _behind(self, score: float, key: Any, place: Place) -> bool:
        slack = self._collection.deployment.slack * max(1.0, abs(place.score))
        if abs(score - place.score) <= slack:
            return bool(key > place.key)
        return score < place.score

    def _hits(
        self,
        question: Question,
        worth: Worth | None,
        rows: Sequence[_Row],
    ) -> list[Hit]:
        if worth is None and not question.named.returns:
            return [Hit(key, score, None) for score, key, _ in rows]
        relevance: Sequence[float | None] = [None] * len(rows)
        if worth is not None and rows:
            relevance = worth([score for score, _, _ in rows])
        return [
            Hit(
                key,
                score,
                value,
                {name: question.value(point, name) for name in question.named.returns},
            )
            for (score, key, point), value in zip(rows, relevance, strict=True)
        ]
