"""Searching a table in Qdrant: one query, many in one call, page after page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec import filters
from funnelvec.calibration.f1 import best_f1_cutoff
from funnelvec.engines import checks
from funnelvec.engines.asking import PROMISED, Place, check_cutoff, check_many
from funnelvec.engines.base import After
from funnelvec.engines.keys import key_names
from funnelvec.engines.qdrant import names
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.compile import Plan, Template
from funnelvec.engines.qdrant.conditions import compile_filter
from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.deployment import Found, Scored
from funnelvec.engines.qdrant.questions import (
    Asked,
    Question,
    beginning,
    check_best_f1,
    check_one,
    glance,
    promised,
    reader,
)
from funnelvec.engines.qdrant.vectors import unsigned
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import FilterError, NotCalibrated
from funnelvec.types import Answer, Cutoff, Hit, bare_hits

__all__ = ["QdrantSearching"]


#: Kinds of searches that are remembered, once checked and compiled.
_REMEMBERED = 64


def _place(row: tuple[float, Any, Found]) -> tuple[float, Any]:
    return -row[0], row[1]


class QdrantSearching:
    """The methods of `QdrantTable` that search."""

    name: str
    vector: str
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
        collection = self._collection
        collection.definition()  # looks for changes from time to time
        made = collection.made  # before the question: what is made of an old one stays in the old
        plain = filter is None and after is None and min_relevance is None and cutoff is None
        plain = plain and type(k) is int and (funnel is None or type(funnel) is str)
        kind = ("plain", self.vector, funnel, k)
        if plain:
            asked = made.get(kind)
            if asked is not None:
                return cast("Answer", asked(query))
        asked_for = Asked(k, min_relevance, filter, after, cutoff)
        question = self._question(self._funnel(funnel), asked_for)
        plain = plain and not question.calibration and not question.named.returns
        if plain and len(made) < _REMEMBERED:
            made[kind] = self._asking(question)
        vector = check_one(question.vector.column, query)
        return self._whole(question, vector, self._answer(question, vector))

    def _asking(self, question: Question) -> Callable[[npt.ArrayLike], Answer]:
        """Return the search of this kind without what does not depend on its query.

        What a request by hand does not do is a few percent of it, so this is written for speed.
        """
        column, vectors = question.vector.column, question.template.vectors
        search, score, key, k = question.search, question.score, question.key, question.k
        integers, own = question.definition.key_kind == "integer", score is unsigned
        is_plain = glance(column)

        def asked(query: npt.ArrayLike) -> Answer:
            seen = is_plain(query)
            vector = cast("npt.NDArray[np.float32]", query) if seen else check_one(column, query)
            found = search(vectors(vector, seen=seen), None)
            scores = [point.score + 0.0 if own else score(point.score) for point in found]
            before = np.inf
            for similarity in scores:
                if not similarity < before:  # a tie, which keys decide, and rows not fetched yet
                    return Answer(self._answer(question, vector, found))
                before = similarity
            some = found[:k] if len(found) > k else found
            if integers:  # other programs may have put UUIDs between them
                ids = [point.id for point in some]
                keys = [
                    id if type(id) is int else key(point)
                    for id, point in zip(ids, some, strict=True)
                ]
            else:
                keys = [key(point) for point in some]
            return Answer(bare_hits(keys, scores))

        return asked

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
        question = self._question(
            self._funnel(funnel), Asked(k, min_relevance, filter, cutoff=cutoff)
        )
        column = question.vector.column
        matrix = check_many(
            queries, dims=column.base.dims, code=column.code, directed=column.directed
        )
        asked = [row for row in range(len(matrix)) if question.cutoff(matrix[row]) != np.inf]
        requests = [
            question.template.ask(matrix[row], cutoff=question.cutoff(matrix[row])) for row in asked
        ]
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
        plain = replace(question, threshold=None, certificate=None)
        found = self._answer(self._for(plain, 1), vector)
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
            check_best_f1(named, asked, calibration)
        elif chosen is not None:
            certificate = promised(vector, named, asked, PROMISED[chosen])
        plan, compiled = self._plan(vector, named), self._filter(asked.filter)
        wanted = list(named.returns)
        if names.needs_payload(definition.key_kind):
            wanted += key_names(definition.key)
        template = Template.of(
            plan,
            limit=min(k + 1, plan.limits.rows),
            filter=compiled,
            payload=[names.payload_path(name) for name in wanted],
        )
        return Question(
            definition=definition,
            vector=vector,
            named=named,
            plan=plan,
            template=template,
            k=k,
            filter=compiled,
            threshold=threshold,
            calibration=calibration,
            after=beginning(asked, definition),
            key=reader(definition),
            score=plan.scorer(plan.last),
            search=self._collection.deployment.prepare(self.name, template),
            certificate=certificate,
            best_f1=chosen == "best_f1",
        )

    def _for(self, question: Question, k: int) -> Question:
        """The same question for another number of rows."""
        template = question.longer(k + 1)
        search = self._collection.deployment.prepare(self.name, template)
        return replace(question, k=k, template=template, search=search)

    def _plan(self, vector: Vector, named: NamedFunnel) -> Plan:
        limits, correction = self._collection.info.limits, vector.correction(named)
        return Plan(vector.column, named.funnel, vector.indexed, limits, correction)

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
        kinds = definition.filterable
        if not definition.foreign:  # of others, what has no index is no column
            columns = {filters.column_of(field, kinds)[0] for field in filters.fields(bound)}
            self._collection.check_indexed(columns)
        return compile_filter(bound, kinds)

    def _request(
        self, question: Question, vector: npt.NDArray[np.float32], limit: int
    ) -> models.QueryRequest:
        return question.longer(limit).ask(vector, cutoff=question.cutoff(vector))

    def _query(self, requests: Sequence[models.QueryRequest]) -> list[list[Scored]]:
        most, found = self._collection.info.limits.queries, []
        for start in range(0, len(requests), most):
            some = requests[start : start + most]
            found += self._collection.deployment.query(self.name, some)
        return found

    def _answer(
        self,
        question: Question,
        vector: npt.NDArray[np.float32],
        first: Sequence[Found] | None = None,
    ) -> list[Hit]:
        """Fetch rows until the best `k` are certain, ties by key among them."""
        if question.best_f1:
            return self._best_answer(question, vector)
        cutoff = question.cutoff(vector)
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
            (found,) = self._query([self._request(question, vector, limit)])
        return self._hits(question, vector, ranked[: question.k])

    def _best_answer(self, question: Question, vector: npt.NDArray[np.float32]) -> list[Hit]:
        """Those of the best `k` rows that promise the best F1, by all rows of the last stage."""
        calibration, keep = question.calibration, question.named.funnel.narrowest_keep
        plain = replace(question, best_f1=False)
        whole = self._for(replace(plain, after=None), keep or question.k)
        shortlist = self._answer(whole, vector)
        assert calibration is not None  # the question was refused without
        scores = np.array([hit.score for hit in shortlist])
        least = best_f1_cutoff(scores, calibration.apply(vector, scores))
        hits = shortlist if question.after is None else self._answer(plain, vector)
        return [hit for hit in hits if hit.score >= least][: question.k]

    def _ranked(
        self, question: Question, found: Sequence[Found], cutoff: float | None
    ) -> list[tuple[float, Any, Found]]:
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
        vector: npt.NDArray[np.float32],
        rows: Sequence[tuple[float, Any, Found]],
    ) -> list[Hit]:
        if question.calibration is None and not question.named.returns:
            return [Hit(key, score, None) for score, key, _ in rows]
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
