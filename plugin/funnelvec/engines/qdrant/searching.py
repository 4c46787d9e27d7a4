"""Searching a table in Qdrant: one query, many in one call, page after page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec import filters
from funnelvec.calibration import Certificate, StoredCalibration
from funnelvec.engines import checks
from funnelvec.engines.asking import PROMISED, Place, check_after, check_cutoff, check_many
from funnelvec.engines.base import After
from funnelvec.engines.keys import check_key, key_names
from funnelvec.engines.qdrant import names
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.compile import Plan, Template
from funnelvec.engines.qdrant.conditions import compile_filter
from funnelvec.engines.qdrant.cutting import QdrantCutting, check_best_f1
from funnelvec.engines.qdrant.definition import Definition, Vector
from funnelvec.engines.qdrant.deployment import Found, Scored, Search
from funnelvec.engines.qdrant.payload import from_payload
from funnelvec.engines.qdrant.vectors import Column
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import FilterError, NotCalibrated
from funnelvec.types import Answer, Cutoff, Hit

__all__ = ["Asked", "QdrantSearching", "Question"]


#: Kinds of searches that are remembered, once checked and compiled.
_REMEMBERED = 64


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
    """A search but its query, checked; `template` asks for one row more than `k`."""

    definition: Definition
    vector: Vector
    named: NamedFunnel
    plan: Plan
    template: Template
    k: int
    filter: models.Filter | None
    threshold: float | None
    calibration: StoredCalibration | None
    after: Place | None
    key: Callable[[Found], Any]
    score: Callable[[float], float]
    search: Search
    certificate: Certificate | None = None
    best_f1: bool = False

    def longer(self, limit: int) -> Template:
        """The same for another number of rows."""
        paths: Any = self.template.search.with_payload
        most = min(limit, self.plan.limits.rows)
        return Template.of(self.plan, limit=most, filter=self.filter, payload=paths or ())

    def cutoff(self, query: npt.NDArray[np.float32]) -> float | None:
        """The lowest score of an answer; None where there is none, or where all pass."""
        if self.certificate is not None:
            found = self.certificate.cutoff
        elif self.calibration is None or self.threshold is None:
            return None
        else:
            found = self.calibration.cutoff(query, self.threshold)
        return None if found == -np.inf else found

    def value(self, point: Found, name: str) -> Any:
        """What a point has in a column."""
        return _value(self.definition, point, name)


def _value(definition: Definition, point: Found, name: str) -> Any:
    payload = point.payload or {}
    return from_payload(payload.get(names.payload_key(name)), definition.kinds[name])


def _reader(definition: Definition) -> Callable[[Found], Any]:
    """Return what tells the key of the row that a point is."""
    kind = definition.key_kind
    if not names.needs_payload(kind):
        integers = kind == "integer"

        def key(point: Found) -> Any:
            id = point.id
            return id if integers and type(id) is int else names.key_of(id, kind)

        return key
    columns = key_names(definition.key)
    if isinstance(kind, str):
        return lambda point: _value(definition, point, columns[0])
    return lambda point: tuple(_value(definition, point, name) for name in columns)


def _query(column: Column, query: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Check a query; one that is what embedding models give is seen to be good at a glance."""
    if (
        type(query) is np.ndarray
        and query.dtype == np.float32
        and query.shape == (column.base.dims,)
        and column.code == "f32"
        and 1e-30 < query.dot(query) < 1e30
    ):
        return query
    return checks.check_query(
        query, dims=column.base.dims, code=column.code, directed=column.directed
    )


def _place(row: tuple[float, Any, Found]) -> tuple[float, Any]:
    return -row[0], row[1]


class QdrantSearching(QdrantCutting):
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
        self._collection.definition()  # looks for changes from time to time
        plain = filter is None and after is None and type(k) is int
        plain = plain and (funnel is None or type(funnel) is str)
        if plain and min_relevance is None and cutoff is None:
            asked = self._collection.made.get(("plain", self.vector, funnel, k))
            if asked is not None:
                return cast("Answer", asked(query))
        asked_for = Asked(k, min_relevance, filter, after, cutoff)
        question = self._question(self._funnel(funnel), asked_for)
        if plain and min_relevance is None and cutoff is None:
            self._remember(question, funnel)
        vector = _query(question.vector.column, query)
        return self._whole(question, vector, self._answer(question, vector))

    def _remember(self, question: Question, funnel: str | None) -> None:
        """Have the next search of this kind go without what does not depend on its query."""
        made = self._collection.made
        if question.calibration or question.named.returns or len(made) >= _REMEMBERED:
            return
        column, template, score, key = (
            question.vector.column,
            question.template,
            question.score,
            question.key,
        )
        vectors, search, k = template.vectors, question.search, question.k

        def asked(query: npt.ArrayLike) -> Answer:
            vector = _query(column, query)
            found = search(vectors(vector), None)
            hits, before = [], np.inf
            for point in found:
                similarity = score(point.score)
                if not similarity < before:  # a tie, which keys decide, and rows not fetched yet
                    return Answer(self._answer(question, vector, found))
                before = similarity
                hits.append(Hit(key(point), similarity, None))
            return Answer(hits[:k])

        made["plain", self.vector, funnel, k] = asked

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
        certificate = self._promise(vector, named, asked)
        place = check_after(asked.after)
        if place is not None:
            given: Any = place.key[0] if len(place.key) == 1 else place.key
            checked = check_key(given, kind=definition.key_kind, where="after")
            place = Place(place.score, checked)
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
            after=place,
            key=_reader(definition),
            score=plan.last.scorer(),
            search=self._collection.deployment.prepare(self.name, template),
            certificate=certificate,
            best_f1=chosen == "best_f1",
        )

    def _promise(self, vector: Vector, named: NamedFunnel, asked: Asked) -> Certificate | None:
        """The certificate that a cutoff goes by, if it goes by one; refuses what cannot be."""
        continued = asked.after is not None
        if asked.cutoff == "best_f1":
            check_best_f1(named, vector.calibration(named), continued=continued)
        if asked.cutoff not in PROMISED:
            return None
        certificate = vector.certificate(named, PROMISED[asked.cutoff])
        filtered = filters.parse(asked.filter) is not None
        certificate.check_asked(k=asked.k, filtered=filtered, continued=continued)
        return certificate

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
