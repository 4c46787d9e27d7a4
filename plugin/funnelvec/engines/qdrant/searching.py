"""Searching a table in Qdrant: one query, many in one call, page after page."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec import filters
from funnelvec.calibration.quick import Curve, QuickAdapter
from funnelvec.engines import checks
from funnelvec.engines.asking import PROMISED, check_cutoff, check_many
from funnelvec.engines.base import After
from funnelvec.engines.keys import key_names
from funnelvec.engines.qdrant import names
from funnelvec.engines.qdrant.answering import QdrantAnswering
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.compile import Plan, Template
from funnelvec.engines.qdrant.conditions import compile_filter
from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.deployment import Scored
from funnelvec.engines.qdrant.questions import (
    Asked,
    Question,
    beginning,
    check_best_f1,
    check_one,
    cutoff_of,
    glance,
    promised,
    reader,
    rows_asked,
)
from funnelvec.engines.qdrant.vectors import unsigned
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import FilterError, NotCalibrated
from funnelvec.types import Answer, Cutoff, bare_hits

__all__ = ["QdrantSearching"]


#: Kinds of searches that are remembered, once checked and compiled; with a cutoff of their own,
#: of which an application may have any number, up to half as many.
_REMEMBERED = 64
#: Payloads of so many times the rows of an answer take as long as a call for those of the answer.
_SOME = 3


class QdrantSearching(QdrantAnswering):
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
        # Values that equal one of another type would find what was made for that.
        simple = filter is None and after is None and type(k) is int
        simple = simple and (min_relevance is None or type(min_relevance) is float)
        simple = simple and (cutoff is None or type(cutoff) is str)
        simple = simple and (funnel is None or type(funnel) is str)
        kind: Hashable = ("search", self.vector, funnel, k, min_relevance, cutoff)
        if simple:
            asked = made.get(kind)
            if asked is not None:
                return cast("Answer", asked(query))
        asked_for = Asked(k, min_relevance, filter, after, cutoff)
        question = self._question(self._funnel(funnel), asked_for)
        room = _REMEMBERED if min_relevance is None else _REMEMBERED // 2
        if simple and len(made) < room:
            made[kind] = self._asking(question)
        return self._answer(question, check_one(question.vector.column, query))

    def _asking(self, question: Question) -> Callable[[npt.ArrayLike], Answer]:
        """Return the search of this kind without what does not depend on its query."""
        bare = not (question.named.returns or question.paths or question.best_f1)
        if question.calibration is None and bare:
            return self._asking_plainly(question)
        if bare and question.cutoff != np.inf:
            return self._asking_judged(question)
        column, answer = question.vector.column, self._answer
        is_plain = glance(column)

        def asked(query: npt.ArrayLike) -> Answer:
            if is_plain(query):
                return answer(question, cast("npt.NDArray[np.float32]", query))
            return answer(question, check_one(column, query))

        return asked

    def _asking_plainly(self, question: Question) -> Callable[[npt.ArrayLike], Answer]:
        """Return the search of a kind that tells no relevance and no columns.

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
                    return self._answer(question, vector, found)
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

    def _asking_judged(self, question: Question) -> Callable[[npt.ArrayLike], Answer]:
        """Return the search of a kind that tells relevance too: as plainly as can be.

        Of a shortlist no more scores are looked at than its adapter wants, and those of the answer.
        """
        column, vectors = question.vector.column, question.template.vectors
        search, score, key, k = question.search, question.score, question.key, question.k
        adapter, fixed = question.adapter, question.cutoff
        line = None if adapter is None else adapter.line(question.least)
        threshold, is_plain = question.template.threshold(fixed), glance(column)
        own = score is unsigned

        def asked(query: npt.ArrayLike) -> Answer:
            seen = is_plain(query)
            vector = cast("npt.NDArray[np.float32]", query) if seen else check_one(column, query)
            found = search(vectors(vector, seen=seen), threshold)
            if not found:
                return self._answer(question, vector, found)
            if adapter is None:
                least, worth = fixed, question.worth(vector)
                assert worth is not None  # those without a calibration are asked plainly
            else:
                places = adapter.places(len(found))
                curve = adapter.curve(vector, [score(found[place].score) for place in places])
                least, worth = None if line is None else curve.reaching(line), curve.relevance
            some = found[: k + 1]
            scores = [point.score + 0.0 if own else score(point.score) for point in some]
            before = np.inf
            for similarity in scores:
                if not similarity < before:  # as in `_asking_plainly`
                    return self._answer(question, vector, found)
                before = similarity
            del scores[k:]
            if least is not None and scores[-1] < least:
                scores = [each for each in scores if each >= least]
            if not scores:
                return self._answer(question, vector, found)
            keys = [key(point) for point in some[: len(scores)]]
            return Answer(bare_hits(keys, scores, relevances=worth(scores)))

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
        least, template = question.cutoff, question.template
        if least == np.inf:
            return [self._answer(question, vector) for vector in matrix]
        first = self._query([template.ask(vector, cutoff=least) for vector in matrix])
        return [
            self._answer(question, vector, found)
            for vector, found in zip(matrix, first, strict=True)
        ]

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
        paths = tuple(names.payload_path(name) for name in wanted)
        rows = rows_asked(named, asked, calibration, k)
        late = rows > _SOME * k
        template = Template.of(
            plan,
            limit=min(rows + 1, plan.limits.rows),
            filter=compiled,
            payload=() if late else paths,
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
            cutoff=cutoff_of(calibration, threshold, certificate),
            paths=paths if late else (),
            certificate=certificate,
            best_f1=chosen == "best_f1",
            curve=None if calibration is None else Curve.of(calibration),
            adapter=QuickAdapter.of(calibration),
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

    def _query(self, requests: Sequence[models.QueryRequest]) -> list[list[Scored]]:
        most, found = self._collection.info.limits.queries, []
        for start in range(0, len(requests), most):
            some = requests[start : start + most]
            found += self._collection.deployment.query(self.name, some)
        return found
