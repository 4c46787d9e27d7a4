"""Writing rows into a table in Qdrant: `add`, `upsert`, `delete` and `load`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.engines import checks, options
from funnelvec.engines.base import Progress
from funnelvec.engines.keys import check_ids, key_names
from funnelvec.engines.loads import Record, Run, check_parallel, check_size
from funnelvec.engines.progress import reporting
from funnelvec.engines.qdrant import names
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.definition import Definition, Vector
from funnelvec.engines.qdrant.deployment import BATCH, Points
from funnelvec.engines.qdrant.payload import to_payload
from funnelvec.engines.qdrant.sending import Course, Range, in_turn, side_by_side
from funnelvec.engines.sources import Options, Target
from funnelvec.errors import Conflict, FunnelvecError, InvalidInput
from funnelvec.reports import LoadReport, Upserted
from funnelvec.types import Key

__all__ = ["QdrantLoading"]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows that have been checked, not encoded yet."""

    keys: Sequence[Any]
    ids: Sequence[names.PointId]
    vectors: npt.NDArray[np.float32]
    columns: Mapping[str, Sequence[Any]]

    def part(self, start: int, end: int) -> _Rows:
        columns = {name: values[start:end] for name, values in self.columns.items()}
        return _Rows(self.keys[start:end], self.ids[start:end], self.vectors[start:end], columns)


@dataclass(frozen=True, slots=True)
class _Doing:
    """What a load does with its batches."""

    table: QdrantLoading
    run: Run
    course: Course
    upsert: bool

    def refuse(self, rows: _Rows, fresh: Sequence[Range]) -> None:
        if not self.upsert:
            for start, end in fresh:
                self.table._refuse_present(rows.part(start, end))

    def write(self, rows: _Rows, *, undo: bool) -> Upserted:
        return self.table._write(rows, upsert=self.upsert, undo=undo and not self.upsert)

    def keep(self) -> None:
        self.table._keep(self.run, self.course)


class QdrantLoading:
    """What writes rows; the table it is part of brings the rest."""

    name: str
    vector: str
    _collection: Collection

    if TYPE_CHECKING:

        def _vector(self, *, fresh: bool = False) -> Vector: ...

    def add(
        self,
        ids: Sequence[Key],
        vectors: npt.ArrayLike,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        progress: Progress = False,
    ) -> int:
        """Add rows, all or none: what is in when a write fails is removed again."""
        return self._write_all(ids, vectors, columns, progress, upsert=False).inserted

    def upsert(
        self,
        ids: Sequence[Key],
        vectors: npt.ArrayLike,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        progress: Progress = False,
    ) -> Upserted:
        """Add rows or change those of the same key.

        Qdrant has no transactions: everything is checked before the first of the writes, of 1,000
        points each, but where the server goes away between two, the first are in.
        """
        return self._write_all(ids, vectors, columns, progress, upsert=True)

    def delete(self, ids: Sequence[Key]) -> int:
        """Remove rows with all that was made of their vectors; return how many there were."""
        kind = self._collection.definition(fresh=True).key_kind
        self._collection.check_free("writes")
        points = [names.point_id(key, kind) for key in check_ids(ids, kind=kind)]
        deployment, there = self._collection.deployment, 0
        for start in range(0, len(points), BATCH):
            some = points[start : start + BATCH]
            there += len(deployment.retrieve(self.name, some, payload=False, vectors=()))
            deployment.delete(self.name, some)
        return there

    def load(
        self,
        source: Any,
        *,
        ids: Any = None,
        vectors: str | None = None,
        columns: Any = None,
        batch_size: int | None = None,
        upsert: bool = False,
        resume: bool | str = True,
        dry_run: bool = False,
        progress: Progress = False,
        parallel: int = 1,
    ) -> LoadReport:
        """Load rows from files, Arrow data, arrays or an iterator, batch by batch."""
        options.check_progress(progress)
        options.check_flag(upsert, "upsert")
        options.check_flag(dry_run, "dry_run")
        deployment = self._collection.deployment
        workers = check_parallel(parallel, engine=deployment.name, why=deployment.one_writer)
        definition, vector = self._collection.definition(fresh=True), self._vector()
        size, course = check_size(batch_size, vector.column.base.dims), Course()
        if batch_size is None and workers > 1:
            size = BATCH  # every worker holds two of them
        target = Target(
            definition.key,
            definition.key_kind,
            self.vector,
            vector.column.base.dims,
            definition.others,
        )
        given = Options(ids, vectors, columns)
        run = Run.open(source, target, given, resume=resume, batch_size=size)
        try:
            course.before = self._find(run, definition, resume=resume is not False)
            with (
                reporting(progress, run.source.total, f"loading {self.name}") as advance,
                contextlib.closing(
                    self._batches(run, course, upsert=upsert, dry_run=dry_run, workers=workers)
                ) as batches,
            ):
                advance(run.rows)
                for keys, written in batches:
                    run.committed(keys, inserted=written.inserted, updated=written.updated)
                    advance(run.rows)
        except BaseException as error:
            beyond = course.beyond(run.rows)
            run.beyond = sum(end - start for start, end in beyond)
            if course.kept is not None and course.kept != (run.rows, beyond):
                with contextlib.suppress(FunnelvecError):  # without it a batch is gone over again
                    self._keep(run, course)
            raise run.explain(error, dry_run=dry_run) from error.__cause__
        if run.rows and not dry_run:
            self._keep(run, course, finished=True)
            if any(each.indexed for each in definition.vectors.values()):
                deployment.settle(self.name)
        return run.report(dry_run=dry_run)

    def _find(self, run: Run, definition: Definition, *, resume: bool) -> list[Range]:
        """Go on where the load stopped; return which rows after that may be in already."""
        text = self._collection.deployment.read_load(self.name, run.name)
        if text is None:
            return []
        content = json.loads(text)
        pending = [(int(start), int(end)) for start, end in content.pop("pending")]
        record = Record(**content)
        if not resume:
            run.before = record
            return []
        run.begin(record)
        if run.skipped:
            ends = {names.point_id(key, definition.key_kind) for key in run.ends}
            found = self._collection.deployment.retrieve(
                self.name, list(ends), payload=False, vectors=()
            )
            run.check_present(len(found) == len(ends))
        return [] if record.finished else pending

    def _keep(self, run: Run, course: Course, *, finished: bool = False) -> None:
        pending = [] if finished else course.beyond(run.rows)
        content = {
            "source": run.described,
            "rows": run.rows,
            "keys_crc": run.keys_crc,
            "finished": finished,
            "pending": pending,
        }
        self._collection.deployment.write_load(self.name, run.name, json.dumps(content))
        course.kept = (run.rows, pending)

    def _batches(
        self, run: Run, course: Course, *, upsert: bool, dry_run: bool, workers: int
    ) -> Generator[tuple[Sequence[Any], Upserted], None, None]:
        """Write what is not in yet; yield the keys of every batch that is in."""
        checked, doing = self._all_checked(run), _Doing(self, run, course, upsert)
        if dry_run:
            for rows in checked:
                yield rows.keys, Upserted(0, 0)
        elif workers == 1:
            yield from in_turn(checked, run, course, doing)
        else:
            yield from side_by_side(checked, run, course, doing, workers=workers)

    def _all_checked(self, run: Run) -> Iterator[_Rows]:
        first = run.rows
        for chunk in run.chunks():
            rows = self._checked(*chunk, first)
            first += len(rows.keys)
            yield rows

    def _write_all(
        self,
        ids: Sequence[Key],
        vectors: npt.ArrayLike,
        columns: Mapping[str, Sequence[Any]] | None,
        progress: Progress,
        *,
        upsert: bool,
    ) -> Upserted:
        options.check_progress(progress)
        rows = self._checked(ids, vectors, columns, 0)
        with reporting(progress, len(rows.keys), f"loading {self.name}") as advance:
            if not upsert:
                self._refuse_present(rows)
            written = self._write(rows, upsert=upsert, undo=not upsert)
            advance(len(rows.keys))
        return written

    def _checked(self, ids: Any, vectors: Any, columns: Any, first: int) -> _Rows:
        definition = self._collection.definition(fresh=True)
        self._collection.check_free("writes")
        column = self._vector().column
        given = options.check_mapping(columns)
        for name in (*key_names(definition.key), self.vector):
            if name in given:
                raise InvalidInput(
                    f"column {name!r} is given twice: in columns, and as ids or vectors"
                )
        keys = check_ids(ids, kind=definition.key_kind, first=first)
        if definition.foreign and definition.key_kind == "integer" and min(keys, default=0) < 0:
            raise InvalidInput(f"the ids of points in Qdrant begin with 0, not {min(keys)}")
        matrix = checks.check_matrix(
            vectors, dims=column.base.dims, rows=len(keys), code=column.code,
            directed=column.directed, first=first,
        )  # fmt: skip
        others = definition.others
        kinds = {name: kind for name, kind in others.items() if name in given}
        values = options.check_columns(
            given, kinds=kinds, rows=len(keys), first=first, known=others
        )
        for name, listed in values.items():
            values[name] = [None if v is None else to_payload(v, kinds[name]) for v in listed]
        points = [names.point_id(key, definition.key_kind) for key in keys]
        return _Rows(keys, points, matrix, values)

    def _write(self, rows: _Rows, *, upsert: bool, undo: bool) -> Upserted:
        """Write checked rows; where that fails, remove them again if `undo`."""
        deployment = self._collection.deployment
        fresh = updated = sent = 0
        try:
            size = min(BATCH, self._collection.info.limits.points)
            for start in range(0, len(rows.keys), size):
                part = rows.part(start, start + size)
                points, present = self._encoded(part, merge=upsert)
                sent = start + len(part.keys)
                deployment.upsert(self.name, points)
                updated += present
                fresh += len(part.keys) - present
        except BaseException:
            if undo:
                for start in range(0, sent, BATCH):
                    with contextlib.suppress(FunnelvecError):  # the first error says more
                        deployment.delete(self.name, rows.ids[start : min(start + BATCH, sent)])
            raise
        return Upserted(inserted=fresh, updated=updated)

    def _refuse_present(self, rows: _Rows) -> None:
        for start in range(0, len(rows.keys), BATCH):
            part = rows.part(start, start + BATCH)
            found = self._collection.deployment.retrieve(
                self.name, part.ids, payload=False, vectors=()
            )
            if found:
                there = {record.id for record in found}
                key = next(k for k, id in zip(part.keys, part.ids, strict=True) if id in there)
                raise Conflict(f"a row with the key {key!r} is in table {self.name!r} already")

    def _encoded(self, rows: _Rows, *, merge: bool) -> tuple[Points, int]:
        """Put the points of rows together, with what those that are there keep; count these."""
        definition, vector = self._collection.definition(), self._vector()
        known = [vector.column.stored(r) for r in (vector.column.base, *vector.resolutions)]
        if any(each.name not in self._collection.info.vectors for each in known):
            self._collection.renew()  # one more by another client, or one that waits for a copy
        stored = [each for each in known if each.name in self._collection.info.vectors]
        vectors = {}
        for each in stored:
            codes = each.encode(rows.vectors)
            vectors[each.name] = (codes, each.has_code(codes))
        before: dict[names.PointId, Any] = {}
        others = self._others(vectors) if merge else ()
        if merge:
            found = self._collection.deployment.retrieve(
                self.name, rows.ids, payload=True, vectors=others
            )
            before = {record.id: record for record in found}
        payloads = [
            self._payload(definition, rows, row, before.get(id)) for row, id in enumerate(rows.ids)
        ]
        if vector.hub is not None and vector.hub.measures:
            hubs = self._collection.bank(vector.hub).measure(rows.ids, rows.vectors)
            for payload, number in zip(payloads, hubs.tolist(), strict=True):
                payload[vector.hub.key] = number
        kept = [
            {n: v for n, v in before[id].vectors.items() if n in others} if id in before else {}
            for id in rows.ids
        ]
        return Points(rows.ids, vectors, payloads, kept if others else ()), len(before)

    def _others(self, ours: Mapping[str, Any]) -> list[str]:
        """Vectors that are not of this column, which rows keep when they are changed."""
        info = self._collection.info
        return [name for name in (*info.vectors, *info.others) if name not in ours]

    def _payload(
        self, definition: Definition, rows: _Rows, row: int, before: Any
    ) -> dict[str, Any]:
        payload: dict[str, Any] = {} if before is None else dict(before.payload)
        if not definition.foreign:
            key, kind = rows.keys[row], definition.key_kind
            parts = (key,) if isinstance(kind, str) else key
            for name, part in zip(key_names(definition.key), parts, strict=True):
                payload[names.payload_key(name)] = to_payload(part, definition.kinds[name])
        for name, values in rows.columns.items():
            path = name if definition.foreign else names.payload_key(name)
            if values[row] is None:
                payload.pop(path, None)
            else:
                payload[path] = values[row]
        return payload
