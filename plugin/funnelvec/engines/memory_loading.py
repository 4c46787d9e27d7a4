"""Writing rows into a table in memory: `add`, `upsert` and `load`, as databases do it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from funnelvec.engines import checks, options
from funnelvec.engines.base import Progress
from funnelvec.engines.keys import check_ids, key_names
from funnelvec.engines.loads import Record, Run, check_parallel, check_size
from funnelvec.engines.progress import reporting
from funnelvec.engines.sources import Options, Target
from funnelvec.engines.store import Store
from funnelvec.errors import Conflict, InvalidInput
from funnelvec.reports import LoadReport, Upserted
from funnelvec.types import BaseCode, Key

__all__ = ["MemoryLoading"]


class MemoryLoading:
    """What writes rows; the table it is part of brings the rest."""

    name: str
    vector: str
    dims: int
    _store: Store
    _loads: dict[str, Record]

    if TYPE_CHECKING:

        @property
        def code(self) -> BaseCode: ...

    def add(
        self,
        ids: Sequence[Key],
        vectors: npt.ArrayLike,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        progress: Progress = False,
    ) -> int:
        """Add rows, all or none."""
        written = self._write_one(ids, vectors, columns, progress, upsert=False)
        return written.inserted

    def upsert(
        self,
        ids: Sequence[Key],
        vectors: npt.ArrayLike,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        progress: Progress = False,
    ) -> Upserted:
        """Add rows or change those of the same key, all or none."""
        return self._write_one(ids, vectors, columns, progress, upsert=True)

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
        check_parallel(parallel, engine="memory", why="rows are copied in this process")
        size = check_size(batch_size, self.dims)
        store = self._store
        target = Target(store.key, store.key_kind, self.vector, self.dims, store.other_kinds)
        given = Options(ids, vectors, columns)
        run = Run.open(source, target, given, resume=resume, batch_size=size)
        try:
            self._find(run, resume=resume is not False)
            with reporting(progress, run.source.total, f"loading {self.name}") as advance:
                advance(run.rows)
                for keys, written in self._batches(run, upsert=upsert, dry_run=dry_run):
                    run.committed(keys, inserted=written.inserted, updated=written.updated)
                    if not dry_run:
                        self._keep(run, finished=False)
                    advance(run.rows)
        except BaseException as error:
            raise run.explain(error, dry_run=dry_run) from error.__cause__
        if run.rows and not dry_run:
            self._keep(run, finished=True)
        return run.report(dry_run=dry_run)

    def _find(self, run: Run, *, resume: bool) -> None:
        record = self._loads.get(run.name)
        if record is not None and not resume:
            run.before = record
            return
        run.begin(record)
        if run.skipped:
            run.check_present(all(self._store.row_of(key) is not None for key in run.ends))

    def _keep(self, run: Run, *, finished: bool) -> None:
        self._loads[run.name] = Record(run.described, run.rows, run.keys_crc, finished)

    def _batches(
        self, run: Run, *, upsert: bool, dry_run: bool
    ) -> Iterator[tuple[list[Any], Upserted]]:
        first = run.rows
        for chunk in run.chunks():
            keys, matrix, values = self._checked(*chunk, first)
            first += len(keys)
            if dry_run:
                yield keys, Upserted(0, 0)
            else:
                yield keys, self._write(keys, matrix, values, upsert=upsert)

    def _write_one(
        self,
        ids: Sequence[Key],
        vectors: npt.ArrayLike,
        columns: Mapping[str, Sequence[Any]] | None,
        progress: Progress,
        *,
        upsert: bool,
    ) -> Upserted:
        options.check_progress(progress)
        keys, matrix, values = self._checked(ids, vectors, columns, 0)
        with reporting(progress, len(keys), f"loading {self.name}") as advance:
            written = self._write(keys, matrix, values, upsert=upsert)
            advance(len(keys))
        return written

    def _checked(
        self, ids: Any, vectors: Any, columns: Any, first: int
    ) -> tuple[list[Any], npt.NDArray[Any], dict[str, list[Any]]]:
        store = self._store
        given = options.check_mapping(columns)
        for name in (*key_names(store.key), self.vector):
            if name in given:
                raise InvalidInput(
                    f"column {name!r} is given twice: in columns, and as ids or vectors"
                )
        keys = check_ids(ids, kind=store.key_kind, first=first)
        matrix = checks.check_matrix(
            vectors, dims=self.dims, rows=len(keys), code=self.code,
            directed=store.directed, first=first,
        )  # fmt: skip
        kinds = {name: kind for name, kind in store.other_kinds.items() if name in given}
        values = options.check_columns(
            given, kinds=kinds, rows=len(keys), first=first, known=store.other_kinds
        )
        return keys, matrix, values

    def _write(
        self,
        keys: list[Any],
        matrix: npt.NDArray[Any],
        values: dict[str, list[Any]],
        *,
        upsert: bool,
    ) -> Upserted:
        store = self._store
        found = [store.row_of(key) for key in keys]
        present = [place for place, row in enumerate(found) if row is not None]
        if present and not upsert:
            raise Conflict(
                f"a row with the key {keys[present[0]]!r} is in table {self.name!r} already"
            )
        fresh = [place for place, row in enumerate(found) if row is None]
        missing = {name: [None] * len(fresh) for name in store.other_kinds if name not in values}
        added = {name: [each[place] for place in fresh] for name, each in values.items()}
        if present:
            changed = {name: [each[place] for place in present] for name, each in values.items()}
            rows = [row for row in found if row is not None]
            store.replace(rows, matrix[present], changed)
        store.append([keys[place] for place in fresh], matrix[fresh], {**missing, **added})
        return Upserted(inserted=len(fresh), updated=len(present))
