"""The part of a table in Qdrant that learns from judgments: calibrations and certificates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec import codes
from funnelvec.calibration import Certificate, StoredCalibration
from funnelvec.calibration.choosing import LEAST_QUERIES, JudgedScores, fit_family
from funnelvec.calibration.hub import JudgedHubs
from funnelvec.calibration.listed import AdapterCalibration
from funnelvec.calibration.precision import Shown
from funnelvec.calibration.row_stats import SAMPLE, RowStats
from funnelvec.calibration.stored import provenance_of
from funnelvec.engines import checks, options, shortlists
from funnelvec.engines.asking import check_promise
from funnelvec.engines.judged import TOP, certified, precise
from funnelvec.engines.keys import check_key
from funnelvec.engines.qdrant import names
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.compile import Plan, Template, rescore_request, scan_request
from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.deployment import Scored
from funnelvec.engines.qdrant.questions import Asked, Question
from funnelvec.engines.qdrant.vectors import Stored
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import CalibrationError, Conflict, NotCalibrated
from funnelvec.types import Answer, Family, Judgments

if TYPE_CHECKING:
    from funnelvec.judging import Unjudged

__all__ = ["QdrantJudging"]

#: Judged queries of which so many are asked in one call.
_TOGETHER = 25

_Vector = npt.NDArray[np.float32]


class QdrantJudging:
    """`calibrate` and `certify`; see `funnelvec.engines.base.Table`."""

    name: str
    vector: str
    _collection: Collection

    if TYPE_CHECKING:

        def count(self) -> int: ...
        def _vector(self, *, fresh: bool = False) -> Vector: ...
        def _change(self, how: Callable[[Vector], Vector]) -> None: ...
        def _funnel(self, name: str | None) -> NamedFunnel: ...
        def _question(self, named: NamedFunnel, asked: Asked) -> Question: ...
        def _query(self, requests: Sequence[models.QueryRequest]) -> list[list[Scored]]: ...
        def _plan(self, vector: Vector, named: NamedFunnel) -> Plan: ...
        def _answer(self, question: Question, vector: _Vector, first: Any = None) -> Answer: ...
        def _read_vectors(
            self, ids: Sequence[names.PointId], name: str
        ) -> dict[names.PointId, _Vector]: ...
        def _random_rows(
            self, count: int, *, seed: int
        ) -> tuple[list[names.PointId], _Vector, int]: ...
        def _hubs_of(self, ids: Sequence[names.PointId]) -> npt.NDArray[np.float64] | None: ...

    def calibrate(
        self, judgments: Judgments, *, family: Family = "platt", funnel: str | None = None
    ) -> StoredCalibration:
        """Fit relevance to judged pairs and use it from now on.

        For an adapter every judged query is asked too, for its shortlist.
        """
        family = options.check_family(family)
        named, column = self._funnel(funnel), self._vector().column
        queries = checks.check_judgments(
            judgments, dims=column.base.dims, code=column.code, directed=column.directed
        )
        kind = self._collection.definition().key_kind
        ids = [names.point_id(check_key(key, kind=kind), kind) for key in judgments.ids]
        stored = column.stored(named.funnel.last.resolution)
        read = self._read_vectors(list(dict.fromkeys(ids)), stored.name)
        kept = [pair for pair, id in enumerate(ids) if id in read]
        if not kept:
            raise CalibrationError(
                f"none of the {len(judgments)} judged rows is in the table; judge rows that it has"
            )
        present = Judgments(
            queries[kept], [judgments.ids[pair] for pair in kept], judgments.labels[kept]
        )
        scores = np.array([_score(stored, queries[p], read[ids[p]], pair=p) for p in kept])
        judged = JudgedScores.of(present, scores)
        hubs = self._judged_hubs(named, [ids[pair] for pair in kept])
        if family in ("adapter", "auto"):
            firsts = np.unique(judged.query_of, return_index=True)[1]
            judged, hubs = self._with_lists(named, present.queries[firsts], judged, hubs)
            if judged.lists is not None and judged.queries >= LEAST_QUERIES:
                _, drawn, _ = self._random_rows(SAMPLE, seed=0)
                rows = RowStats.measure(drawn, metric=column.metric)
                judged = judged.measured(rows, present.queries[firsts])
        fitted = fit_family(
            judged,
            family,
            hubs=hubs,
            **provenance_of(
                present,
                model=named.model,
                vector=self.vector,
                metric=column.metric,
                last_stage=str(stored.resolution),
            ),
        )
        self._change(lambda vector: vector.calibrated(fitted))
        return fitted

    def _judged_hubs(self, named: NamedFunnel, ids: Sequence[names.PointId]) -> JudgedHubs | None:
        """Hubs of judged rows; None where there is nothing to correct."""
        hub = self._vector().hub
        if hub is None or named.funnel.narrowest_keep is None:
            return None
        hubs = self._hubs_of(ids)
        return None if hubs is None else JudgedHubs(hub.id, hubs)

    def _with_lists(
        self, named: NamedFunnel, queries: _Vector, judged: JudgedScores, hubs: JudgedHubs | None
    ) -> tuple[JudgedScores, JudgedHubs | None]:
        """Add the shortlist of each query, as `MemoryCalibrating` does, where there is one.

        Scores are those before a correction, which is yet to be found.
        """
        keep = named.funnel.narrowest_keep
        depth = shortlists.depth_of(keep)
        if not depth or keep is None:
            return judged, hubs
        hub = self._vector().hub if hubs is not None else None
        plan = replace(self._plan(self._vector(), named), correction=None)
        template = Template.of(
            plan, limit=depth if hub is None else keep, payload=[] if hub is None else [hub.path]
        )
        found: list[list[Scored]] = []
        for start in range(0, len(queries), _TOGETHER):
            found += self._query([template.ask(q) for q in queries[start : start + _TOGETHER]])
        score = plan.scorer(plan.last)
        lists = [[score(point.score) for point in each] for each in found]
        if hub is None or hubs is None:
            return replace(judged, lists=shortlists.best_of(lists, depth)), hubs
        numbers = [[float(p.payload.get(hub.key) or 0.0) for p in each] for each in found]
        return (
            replace(judged, lists=shortlists.whole(lists, keep)),
            replace(hubs, lists=shortlists.whole(numbers, keep)),
        )

    def certify(
        self,
        judgments: Judgments,
        *,
        max_miss: float | None = None,
        min_precision: float | None = None,
        confidence: float = 0.95,
        k: int | None = None,
        unjudged: Unjudged = "irrelevant",
        funnel: str | None = None,
    ) -> Certificate:
        """Find a cutoff by judgments of whole queries, and promise something of it.

        For ``max_miss`` every judged query is asked three times: exactly, about its relevant rows
        alone, and through the funnel; for ``min_precision`` through the funnel alone.
        """
        wanted = check_promise(
            max_miss=max_miss, min_precision=min_precision, confidence=confidence, unjudged=unjudged
        )
        named = self._funnel(funnel)
        calibration = self._vector(fresh=True).calibration(named)
        if calibration is None:
            raise NotCalibrated(
                f"funnel {named.name!r} has no calibration; call calibrate(judgments, "
                f"funnel={named.name!r}) first"
            )
        keep = named.funnel.narrowest_keep
        top = min(TOP, keep or TOP) if k is None else checks.check_k(k, funnel=named.funnel)
        belongs: dict[str, Any] = {
            "k": top, "funnel": named.funnel, "calibration": calibration, "judgments": judgments,
        }  # fmt: skip
        if wanted.kind == "max_miss":
            answers = self._judged_answers(named, judgments, top)
            certificate = certified(answers, level=wanted.level, **belongs)
        else:
            shown = self._judged_shown(named, judgments, top, unjudged)
            certificate = precise(shown, wanted=wanted, **belongs)

        def promise(vector: Vector) -> Vector:
            if vector.funnels.get(named.name) != named or vector.calibration(named) != calibration:
                raise Conflict(
                    f"the funnel {named.name!r} or its calibration has changed meanwhile; certify "
                    "again"
                )
            return vector.certified(named.name, certificate)

        self._change(promise)
        return certificate

    def _judged_shown(
        self, named: NamedFunnel, judgments: Judgments, k: int, unjudged: Unjudged
    ) -> list[Shown]:
        """Per query what it is shown at `k` rows: relevances, and labels."""
        column, kind = self._vector().column, self._collection.definition().key_kind
        queries = checks.check_judgments(
            judgments, dims=column.base.dims, code=column.code, directed=column.directed
        )
        judged: dict[bytes, tuple[_Vector, dict[Any, int]]] = {}
        for query, id, label in zip(queries, judgments.ids, judgments.labels, strict=True):
            _, rows = judged.setdefault(query.tobytes(), (query, {}))
            key = check_key(id, kind=kind)
            rows[key] = max(int(label), rows.get(key, 0))
        question = self._question(named, Asked(k, None, None))
        unknown = -1 if unjudged == "ignored" else 0
        found = []
        for query, rows in judged.values():
            hits = self._answer(question, query)
            shown = np.array([hit.relevance for hit in hits], dtype=np.float64)
            labels = [rows.get(hit.id, unknown) for hit in hits]
            found.append(Shown(shown, np.array(labels, dtype=np.int8)))
        return found

    def _judged_answers(
        self, named: NamedFunnel, judgments: Judgments, k: int
    ) -> list[list[float]]:
        """Per query its relevant rows among the exact top k: scores, -inf where they are lost."""
        column, kind = self._vector().column, self._collection.definition().key_kind
        queries = checks.check_judgments(
            judgments, dims=column.base.dims, code=column.code, directed=column.directed
        )
        relevant: dict[bytes, dict[names.PointId, Any]] = {}
        vectors: dict[bytes, _Vector] = {}
        for query, id, label in zip(queries, judgments.ids, judgments.labels, strict=True):
            rows = relevant.setdefault(query.tobytes(), {})
            vectors[query.tobytes()] = query
            key = check_key(id, kind=kind)
            if label:
                rows[names.point_id(key, kind)] = key
        asked = [name for name, rows in relevant.items() if rows]
        found: dict[bytes, list[float]] = {}
        for start in range(0, len(asked), _TOGETHER):
            some = {name: vectors[name] for name in asked[start : start + _TOGETHER]}
            found |= self._found(named, some, relevant, k)
        return [found.get(name, []) for name in relevant]

    def _found(
        self,
        named: NamedFunnel,
        queries: Mapping[bytes, _Vector],
        relevant: Mapping[bytes, Mapping[names.PointId, Any]],
        k: int,
    ) -> dict[bytes, list[float]]:
        """Scores of those relevant rows that are among the exact top k, -inf where lost.

        By an adapter their relevances, since one score is another relevance for each query.
        """
        question = self._question(named, Asked(k, None, None))
        plan, base = question.plan, question.plan.column.stored(question.plan.column.base)
        requests, rows, score = [], self.count(), plan.scorer(base)
        for name, query in queries.items():
            own = list(relevant[name])
            alone = rescore_request(plan, base, query, ids=own, limit=len(own))
            if plan.correction is not None:
                alone = plan.correction.over(alone, base, rows=len(own))
            requests.append(scan_request(plan, query, limit=k, rows=rows))
            requests.append(alone)
            requests.append(question.template.ask(query))
        answers, slack = iter(self._query(requests)), self._collection.deployment.slack
        by_query = isinstance(question.calibration, AdapterCalibration)
        found = {}
        for name, query in queries.items():
            exact, judged, first = next(answers), next(answers), next(answers)
            # Rows that are as near as the k-th count as well, as in SQL.
            least = min((score(point.score) for point in exact), default=np.inf)
            least -= slack * max(1.0, abs(least)) if np.isfinite(least) else 0.0
            within = [point.id for point in judged if score(point.score) >= least]
            hits = self._answer(question, query, first)
            reached = {h.id: h.relevance or 0.0 if by_query else h.score for h in hits}
            keys = [relevant[name][id] for id in within]
            found[name] = [reached.get(key, -np.inf) for key in keys]
        return found


def _score(stored: Stored, query: _Vector, row: _Vector, *, pair: int) -> float:
    """The score of a judged pair."""
    wanted = codes.prepare_query(
        stored.resolution,
        query,
        metric=stored.column.metric,
        base=stored.column.code,
        rotation=stored.rotation,
    )
    unpacked = stored.unpack(row[np.newaxis, :])
    found = float(codes.score(stored.resolution, wanted, unpacked, metric=stored.metric)[0])
    if np.isnan(found):
        raise CalibrationError(f"judgments: pair {pair} is zero at {stored.resolution}: no score")
    return found
