"""What a table in Qdrant says of itself: explain, measure_recall, status, samples."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec.codes import bits
from funnelvec.engines import checks
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.compile import (
    Plan,
    compile_search,
    rescore_request,
    scan_request,
)
from funnelvec.engines.qdrant.conditions import without_ids
from funnelvec.engines.qdrant.definition import Kept, Vector
from funnelvec.engines.qdrant.names import PointId
from funnelvec.engines.qdrant.questions import Asked, Question
from funnelvec.engines.recall import bootstrap_interval, check_queries, check_recall_arguments
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import CapabilityError, InvalidInput
from funnelvec.reports import (
    Explanation,
    RecallReport,
    ResolutionStatus,
    StageRecall,
    StageReport,
)
from funnelvec.resolution import Resolution
from funnelvec.types import Answer, Cutoff

__all__ = ["QdrantObserving"]

_MONTH = datetime.timedelta(days=30)
#: Rows whose bits are looked at for their balance.
_BALANCED = 10_000
_NO_LOG = "Qdrant keeps no query log; a postgresql:// table does"


class QdrantObserving:
    """The methods of `QdrantTable` that look and change nothing."""

    name: str
    vector: str
    _collection: Collection

    if TYPE_CHECKING:

        def count(self) -> int: ...
        def _vector(self, *, fresh: bool = False) -> Vector: ...
        def _funnel(self, name: str | None) -> NamedFunnel: ...
        def _question(self, named: NamedFunnel, asked: Asked) -> Question: ...
        def _ended(
            self,
            question: Question,
            vector: npt.NDArray[np.float32],
            first: Any = None,
        ) -> tuple[Answer, float | None]: ...
        def _filter(self, given: Mapping[str, Any] | None) -> models.Filter | None: ...
        def _plan(self, vector: Vector, named: NamedFunnel) -> Plan: ...
        def _ids(self) -> list[PointId]: ...
        def _read_vectors(
            self, ids: Sequence[PointId], name: str
        ) -> dict[PointId, npt.NDArray[np.float32]]: ...

    def explain(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        cutoff: Cutoff | None = None,
        funnel: str | None = None,
    ) -> Explanation:
        """Run one search, and its stages again one by one, to see what each lets through.

        The time in all is that of the search itself. That of a stage alone also holds the way to
        the server and back and, from the second on, the ids of the rows that reach it.
        """
        named = self._funnel(funnel)
        column = self._vector().column
        vector = checks.check_query(
            query, dims=column.base.dims, code=column.code, directed=column.directed
        )
        question = self._question(named, Asked(k, min_relevance, filter, cutoff=cutoff))
        start = perf_counter()
        hits, least = self._ended(question, vector)
        total_ms = 1e3 * (perf_counter() - start)
        reports, notes = self._stages(question, vector, len(hits))
        if question.plan.correction is not None:
            alpha = question.plan.correction.alpha
            notes.append(f"scores are less {alpha:.6g} times the hub of the row")
        if least is not None:
            said = cutoff if min_relevance is None else f"min_relevance {min_relevance:g}"
            notes.append(f"{said} is a score of at least {least:.6g}")
        if hits.nearest is not None:
            notes.append(
                f"no row passes the cutoff: the best has the score {hits.nearest.score:.6f}, "
                f"relevance {hits.nearest.relevance:.4f}"
            )
        if self._collection.info.shards > 1:
            notes.append(
                f"the collection has {self._collection.info.shards} shards, and each keeps so many "
                "rows of every stage but the last"
            )
        return Explanation(str(named.funnel), tuple(reports), total_ms, tuple(notes))

    def _stages(
        self, question: Question, vector: npt.NDArray[np.float32], answered: int
    ) -> tuple[list[StageReport], list[str]]:
        deployment, plan = self._collection.deployment, question.plan
        outside = without_ids(self._collection.reserved, question.filter)
        rows_in = deployment.count(self.name, outside)
        ids: list[PointId] = []
        reports: list[StageReport] = []
        notes: list[str] = []
        for number, stage in enumerate(plan.funnel.stages, 1):
            stored = plan.column.stored(stage.resolution)
            last = number == len(plan.funnel.stages)
            keep = question.k if stage.keep is None else stage.keep
            if number == 1:
                request = compile_search(plan.upto(1), vector, limit=keep, filter=question.filter)
            else:
                request = rescore_request(plan, stored, vector, ids=ids, limit=keep)
            start = perf_counter()
            (found,) = deployment.query(self.name, [request])
            ms = 1e3 * (perf_counter() - start)
            ids = [point.id for point in found]
            rows_out = answered if last else len(ids)
            if not last and rows_out < min(keep, rows_in):
                notes.append(
                    f"stage {number} keeps {keep} rows and found {rows_out} of {rows_in}: the "
                    f"others have no code {stage.resolution} (see status), or its index stopped "
                    "before; keep more rows there"
                )
            index = stage.resolution in plan.indexed
            access = ("index hnsw" if index else "scan") if number == 1 else "rescore"
            reports.append(
                StageReport(
                    number, str(stage.resolution), stage.keep, rows_in, rows_out, ms, access
                )
            )
            rows_in = len(ids)
        return reports, notes

    def measure_recall(
        self,
        *,
        sample: int | None = None,
        k: int = 10,
        funnel: str | None = None,
        seed: int = 0,
        queries: npt.ArrayLike | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> RecallReport:
        """Measure the funnel against exact search."""
        named, vector = self._funnel(funnel), self._vector()
        matrix = None if queries is None else check_queries(queries, vector.column.base)
        rows = self.count()
        size = check_recall_arguments(
            sample=sample, k=k, seed=seed, funnel=named.funnel, rows=rows,
            given=None if matrix is None else len(matrix),
        )  # fmt: skip
        compiled = self._filter(filter)
        drawn = self._drawn(vector, named, matrix, size=size, seed=seed)
        plan = self._plan(vector, named)
        alive: list[list[float]] = []
        times: list[tuple[float, float]] = []
        for query, itself in drawn:
            measured = self._compared(plan, query, itself, k=k, rows=rows, filter=compiled)
            if measured is not None:
                alive.append(measured[0])
                times.append(measured[1])
        if not alive:
            raise InvalidInput("nothing to compare: beside the query itself no row matches")
        recalls = [
            StageRecall(
                number, str(stage.resolution), stage.keep, float(shares.mean()),
                *bootstrap_interval(shares, seed=seed),
            )
            for number, (stage, shares) in enumerate(
                zip(named.funnel.stages, np.array(alive).T, strict=True), 1
            )
        ]  # fmt: skip
        funnel_ms, exact_ms = np.median(times, axis=0)
        return RecallReport(k, len(alive), tuple(recalls), float(funnel_ms), float(exact_ms))

    def _drawn(
        self,
        vector: Vector,
        named: NamedFunnel,
        matrix: npt.NDArray[np.float32] | None,
        *,
        size: int,
        seed: int,
        among: list[PointId] | None = None,
    ) -> list[tuple[npt.NDArray[np.float32], PointId | None]]:
        """Queries that can be asked at every stage, each with the row that it is, if any.

        Rows are drawn of all, or of the points `among`.
        """
        rng = np.random.default_rng(seed)
        stages = {stage.resolution for stage in named.funnel.stages} | {vector.column.base}
        stored = [vector.column.stored(resolution) for resolution in stages]

        def askable(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
            asked = [np.array([each.encode_one(row) for row in rows]) for each in stored]
            found = [each.has_code(q) for each, q in zip(stored, asked, strict=True)]
            return np.asarray(np.logical_and.reduce(found))

        if matrix is not None:
            usable = np.flatnonzero(askable(matrix))
            picked = rng.choice(usable, min(size, len(usable)), replace=False)
            found: list[Any] = [(matrix[row], None) for row in picked]
        else:
            ids = self._ids() if among is None else among
            chosen = [ids[row] for row in rng.choice(len(ids), min(size, len(ids)), replace=False)]
            read = self._read_vectors(chosen, vector.column.name)
            found = [(v, id) for id, v in read.items() if askable(v[np.newaxis, :])[0]]
        if not found:
            what = "every row is" if matrix is None else "every query is"
            raise InvalidInput(f"{what} zero at some stage of '{named.funnel}'; widen that stage")
        return found

    def _compared(
        self,
        plan: Plan,
        query: npt.NDArray[np.float32],
        itself: PointId | None,
        *,
        k: int,
        rows: int,
        filter: models.Filter | None,
    ) -> tuple[list[float], tuple[float, float]] | None:
        """Share of the exact top k that each stage lets through, and both times in ms."""
        limit = k + (itself is not None)
        request = scan_request(plan, query, limit=4 * limit, rows=rows, filter=filter)
        truth, exact_ms = self._timed(request)
        best = [point for point in truth if point.id != itself]
        if not best:
            return None
        wanted = min(k, len(best))
        worst = best[wanted - 1].score
        falls = plan.correction is None and plan.column.stored(plan.column.base).falls
        top = {p.id for p in best if (p.score <= worst if falls else p.score >= worst)}
        shares = []
        for count, stage in enumerate(plan.funnel.stages, 1):
            last = count == len(plan.funnel.stages)
            keep = limit if stage.keep is None else stage.keep
            request = compile_search(plan.upto(count), query, limit=keep, filter=filter)
            found, ms = self._timed(request)
            ids = [point.id for point in found if point.id != itself]
            shares.append(min(wanted, len(top & set(ids[:k] if last else ids))) / wanted)
        return shares, (ms, exact_ms)

    def _timed(self, request: models.QueryRequest) -> tuple[list[Any], float]:
        start = perf_counter()
        (found,) = self._collection.deployment.query(self.name, [request])
        return found, 1e3 * (perf_counter() - start)

    def status(self) -> list[ResolutionStatus]:
        """Report every resolution that was added."""
        vector = self._vector(fresh=True)
        return [
            self._status(vector, resolution, kept)
            for resolution, kept in vector.resolutions.items()
            if resolution != vector.column.base
        ]

    def _status(self, vector: Vector, resolution: Resolution, kept: Kept) -> ResolutionStatus:
        stored, rows = vector.column.stored(resolution), self.count()
        has = models.Filter(must=[models.HasVectorCondition(has_vector=stored.name)])
        filled = self._collection.deployment.count(self.name, has)
        balance = None
        if resolution.code == "bit" and filled:
            ids = self._ids()[:_BALANCED]
            read = self._read_vectors(ids, stored.name)
            balance = bits.balance(
                stored.unpack(np.array(list(read.values()))), dims=resolution.dims
            )
        advice = ""
        if not kept.ready:
            advice = "its codes are not all there; backfill() goes on where it stopped"
        elif filled < rows:
            advice = (
                f"{rows - filled} rows have no code and cannot be found by it: their numbers are "
                "zero there, or another program wrote them; upsert those"
            )
        return ResolutionStatus(
            table=self.name,
            vector=self.vector,
            resolution=str(resolution),
            column=stored.name,
            rows=rows,
            filled=filled,
            coverage=filled / rows if rows else 1.0,
            code_bytes=filled * stored.bytes,
            bit_balance=balance,
            index="hnsw" if kept.index else None,
            advice=advice,
        )

    def log_queries(
        self,
        *,
        share: float = 0.01,
        keep_for: datetime.timedelta = _MONTH,
        max_rows: int = 100_000,
        roles: bool = False,
        funnel: str | None = None,
    ) -> None:
        """Refused: Qdrant has no place for it."""
        raise CapabilityError(_NO_LOG)

    def stop_logging(self, *, forget: bool = False, funnel: str | None = None) -> None:
        """Refused, as `log_queries` is."""
        raise CapabilityError(_NO_LOG)

    def logged_queries(
        self, limit: int = 1000, *, funnel: str | None = None
    ) -> npt.NDArray[np.float32]:
        """Refused, as `log_queries` is."""
        raise CapabilityError(_NO_LOG)
