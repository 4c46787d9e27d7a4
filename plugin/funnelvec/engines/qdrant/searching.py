"""Searching a table in Qdrant: one query, many in one call, page after page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec import filters
from funnelvec.calibration import Certificate, StoredCalibration
from funnelvec.calibration.f1 import best_f1_cutoff
from funnelvec.engines import checks
from funnelvec.engines.asking import PROMISED, Place, check_after, check_cutoff, check_many
from funnelvec.engines.base import After
from funnelvec.engines.keys import check_key, key_names
from funnelvec.engines.qdrant import names
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.compile import Plan, compile_search
from funnelvec.engines.qdrant.conditions import compile_filter
from funnelvec.engines.qdrant.definition import Definition, Vector
from funnelvec.engines.qdrant.deployment import Scored
from funnelvec.engines.qdrant.payload import from_payload
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import FilterError, InvalidInput, NotCalibrated
from funnelvec.types import Answer, Cutoff, Hit

__all__ = ["Asked", "QdrantSearching", "Question"]


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of a search but its query, as the caller wrote them."""

    k: int
    min_relevance: float | None
    filter: Mapping[str, Any] | None
    after: After | None = None
    cutoff: Cutoff | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A search but its query, checked."""

    definition: Definition
    vector: Vector
    named: NamedFunnel
    plan: Plan
    k: int
    filter: models.Filter | None
    threshold: float | None
    calibration: StoredCalibration | None
    after: Place | None
    certificate: Certificate | None = None
    best_f1: bool = False

    @property
    def paths(self) -> list[str]:
        """What points are to bring along."""
        wanted = list(self.named.returns)
        if names.needs_payload(self.definition.key_kind):
            wanted += key_names(self.definition.key)
        return [names.payload_path(name) for name in wanted]

    def cutoff(self, query: npt.NDArray[np.float32]) -> float | None:
        """The lowest score of an answer; None where there is none, or where all pass."""
        if self.certificate is not None:
            found = self.certificate.cutoff
        elif self.calibration is None or self.threshold is None:
            return None
        else:
            found = self.calibration.cutoff(query, self.threshold)
        return None if found == -np.inf else found

    def reader(self) -> Callable[[Scored], Any]:
        """Return what tells the key of the row that a point is."""
        kind = self.definition.key_kind
        if not names.needs_payload(kind):
            return lambda point: names.key_of(point.id, kind)
        columns = key_names(self.definition.key)
        if isinstance(kind, str):
            return lambda point: self.value(point, columns[0])
        return lambda point: tuple(self.value(point, name) for name in columns)

    def value(self, point: Scored, name: str) -> Any:
        """What a point has in a column."""
        found = point.payload.get(names.payload_key(name))
        return from_payload(found, self.definition.kinds[name])


class QdrantSearching:
    """The methods of `QdrantTable` that search."""

    name: str
    _collection: Collection

    if TYPE_CHECKING:

        def _vector(self, *, fresh: bool = False) -> Vector: ...
        def _funnel(self, name: str | None) -> NamedFunnel: ...

    def search(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        after: After | None = None,
        cutoff: Cutoff | None = None,
        funnel: str | None = None,
    ) -> Answer:
        """Find the `k` most similar rows."""
        named = self._funnel(funnel)
        column = self._vector().column
        vector = checks.check_query(
            query, dims=column.base.dims, code=column.code, directed=column.directed
        )
        question = self._question(named, Asked(k, min_relevance, filter, after, cutoff))
        return self._whole(question, vector, self._answer(question, vector))

    def search_many(
        self,
        queries: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        cutoff: Cutoff | None = None,
        funnel: str | None = None,
    ) -> list[Answer]:
        """Find the `k` rows most similar to each query, in one request."""
        named = self._funnel(funnel)
        column = self._vector().column
        matrix = check_many(
            queries, dims=column.base.dims, code=column.code, directed=column.directed
        )
        question = self._question(named, Asked(k, min_relevance, filter, cutoff=cutoff))
        asked = [row for row in range(len(matrix)) if question.cutoff(matrix[row]) != np.inf]
        requests = [self._request(question, matrix[row], k + 1) for row in asked]
        first = dict(zip(asked, self._query(requests), strict=True))
        return [
            self._whole(question, vector, self._answer(question, vector, first.get(row)))
            for row, vector in enumerate(matrix)
        ]

    def _whole(
        self, question: Question, vector: npt.NDArray[np.float32], hits: list[Hit]
    ) -> Answer:
        return Answer(hits, nearest=None if hits else self._nearest(question, vector))

    def _nearest(self, question: Question, vector: npt.NDArray[np.float32]) -> Hit | None:
        """The best row of a first page that nothing passed; None where there is no cutoff."""
        cuts = question.threshold is not None or question.certificate is not None
        if not cuts or question.after is not None:
            return None
        plain = replace(question, threshold=None, certificate=None, k=1)
        found = self._answer(plain, vector)
        return found[0] if found else None

    def _question(self, named: NamedFunnel, asked: Asked) -> Question:
        """Check what is asked, but for the query."""
        definition, vector = self._collection.definition(), self._vector()
        k = checks.check_k(asked.k, funnel=named.funnel)
        self._collection.info.limits.check(k, "the search")
        threshold = checks.check_min_relevance(asked.min_relevance)
        calibration = vector.calibration(named)
        if threshold is not None and calibration is None:
            raise NotCalibrated(
                f"funnel {named.name!r} has no calibration, so min_relevance means nothing; "
                f"call calibrate(judgments, funnel={named.name!r}) first"
            )
        chosen = check_cutoff(asked.cutoff, min_relevance=asked.min_relevance)
        certificate = None
        if chosen == "best_f1":
            _check_best_f1(named, asked, calibration)
        elif chosen is not None:
            certificate = vector.certificate(named, PROMISED[chosen])
            certificate.check_asked(
                k=k,
                filtered=filters.parse(asked.filter) is not None,
                continued=asked.after is not None,
            )
        place = check_after(asked.after)
        if place is not None:
            given: Any = place.key[0] if len(place.key) == 1 else place.key
            checked = check_key(given, kind=definition.key_kind, where="after")
            place = Place(place.score, checked)
        return Question(
            definition=definition,
            vector=vector,
            named=named,
            plan=self._plan(vector, named),
            k=k,
            filter=self._filter(asked.filter),
            threshold=threshold,
            calibration=calibration,
            after=place,
            certificate=certificate,
            best_f1=chosen == "best_f1",
        )

    def _plan(self, vector: Vector, named: NamedFunnel) -> Plan:
        limits = self._collection.info.limits
        return Plan(vector.column, named.funnel, vector.indexed, limits)

    def _filter(self, given: Mapping[str, Any] | None) -> models.Filter | None:
        parsed = filters.parse(given)
        if parsed is None:
            return None
        definition = self._collection.definition()
        try:
            bound = filters.check(parsed, definition.filterable)
        except FilterError as error:
            if not definition.foreign:
                raise
            raise FilterError(
                f"{error}; a field of a collection that another program has made can be filtered "
                "on when it has a payload index, which also says what it holds"
            ) from None
        return compile_filter(bound, definition.filterable)

    def _request(
        self, question: Question, vector: npt.NDArray[np.float32], limit: int
    ) -> models.QueryRequest:
        return compile_search(
            question.plan,
            vector,
            limit=min(limit, question.plan.limits.rows),
            filter=question.filter,
            cutoff=question.cutoff(vector),
            payload=question.paths,
        )

    def _query(self, requests: Sequence[models.QueryRequest]) -> list[list[Scored]]:
        if not requests:
            return []
        return self._collection.deployment.query(self.name, requests)

    def _answer(
        self,
        question: Question,
        vector: npt.NDArray[np.float32],
        first: list[Scored] | None = None,
    ) -> list[Hit]:
        """Fetch rows until the best `k` are certain, ties by key among them."""
        if question.best_f1:
            return self._best_answer(question, vector)
        cutoff = question.cutoff(vector)
        limit, found = question.k + 1, first
        request = None if found else self._request(question, vector, limit)
        if cutoff == np.inf:
            return []
        while True:
            if found is None:
                (found,) = self._query([request or self._request(question, vector, limit)])
            ranked = self._ranked(question, found, cutoff)
            complete = len(found) < min(limit, question.plan.limits.rows)
            if complete or limit >= question.plan.limits.rows:
                break
            lowest = question.plan.last.score(found[-1].score)
            if len(ranked) >= question.k and ranked[question.k - 1][0] > lowest:
                break
            # More rows have the score of the last one, or the page begins behind these.
            limit, found, request = 4 * limit, None, None
        return self._hits(question, vector, ranked[: question.k])

    def _best_answer(self, question: Question, vector: npt.NDArray[np.float32]) -> list[Hit]:
        """Those of the best `k` rows that promise the best F1, by all rows of the last stage."""
        calibration, keep = question.calibration, question.named.funnel.narrowest_keep
        plain = replace(question, best_f1=False)
        shortlist = self._answer(replace(plain, k=keep or question.k, after=None), vector)
        assert calibration is not None  # the question was refused without
        scores = np.array([hit.score for hit in shortlist])
        least = best_f1_cutoff(scores, calibration.apply(vector, scores))
        hits = shortlist if question.after is None else self._answer(plain, vector)
        return [hit for hit in hits if hit.score >= least][: question.k]

    def _ranked(
        self, question: Question, found: Sequence[Scored], cutoff: float | None
    ) -> list[tuple[float, Any, Scored]]:
        """Rows in the order of the answer, from where it begins."""
        last, key = question.plan.last, question.reader()
        scored = [(last.score(point.score), key(point), point) for point in found]
        kept = [
            row
            for row in scored
            if (cutoff is None or row[0] >= cutoff)
            and (question.after is None or self._behind(row[0], row[1], question.after))
        ]
        return sorted(kept, key=lambda row: (-row[0], row[1]))

    def _behind(self, score: float, key: Any, place: Place) -> bool:
        slack = self._collection.deployment.slack * max(1.0, abs(place.score))
        if abs(score - place.score) <= slack:
            return bool(key > place.key)
        return score < place.score

    def _hits(
        self,
        question: Question,
        vector: npt.NDArray[np.float32],
        rows: Sequence[tuple[float, Any, Scored]],
    ) -> list[Hit]:
        relevance: list[float | None] = [None] * len(rows)
        if question.calibration is not None:
            scores = [score for score, _, _ in rows]
            relevance = [float(each) for each in question.calibration.apply(vector, scores)]
        return [
            Hit(
                key,
                score,
                value,
                {name: question.value(point, name) for name in question.named.returns},
            )
            for (score, key, point), value in zip(rows, relevance, strict=True)
        ]


def _check_best_f1(named: NamedFunnel, asked: Asked, calibration: StoredCalibration | None) -> None:
    if calibration is None:
        raise NotCalibrated(
            f"funnel {named.name!r} has no calibration, so nothing is known of the F1 of an "
            f"answer; call calibrate(judgments, funnel={named.name!r}) first"
        )
    if asked.after is not None and len(named.funnel.stages) == 1:
        raise InvalidInput(
            "best_f1 of a single stage is about its first page; use a funnel of two stages, or "
            "min_relevance"
        )
