# Made from aio/loading.py by tools/write_sync.py: change that file, then `make sync`.

"""Writing rows into a table: `add`, `upsert` and `load`; see `funnelvec.engines.base.Table`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from psycopg import sql
from psycopg.types.json import Jsonb

from funnelvec.engines import options
from funnelvec.engines.base import Progress
from funnelvec.engines.keys import KeyName, key_names
from funnelvec.engines.loads import Record, Run, check_parallel, check_size
from funnelvec.engines.postgres.adapt import escaped, quoted, statement, translated
from funnelvec.engines.postgres.load import Layout, Rows, prepare, prepared
from funnelvec.engines.postgres.load import target as target_of
from funnelvec.engines.postgres.sync import copy
from funnelvec.engines.postgres.sync.connection import (
    Connection,
    atomic,
    cursor,
    fetch_one,
)
from funnelvec.engines.postgres.twins import Ahead, in_place
from funnelvec.engines.progress import reporting
from funnelvec.engines.sources import Options
from funnelvec.errors import Conflict
from funnelvec.reports import LoadReport, Upserted
from funnelvec.types import BaseCode, Key, Metric, needs_direction

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync.engine import PostgresEngine

__all__ = ["Loading"]


class Loading:
    """What writes rows; the table it is part of brings the rest."""

    _engine: PostgresEngine
    _key: KeyName
    _vector: str
    _dims: int
    _code: BaseCode
    _metric: Metric

    if TYPE_CHECKING:

        @property
        def _identifier(self) -> sql.Identifier: ...

        @property
        def _regclass(self) -> str: ...

    def add(
        self,
        ids: Sequence[Key],
        vectors: npt.ArrayLike,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        progress: Progress = False,
    ) -> int:
        """Add rows by binary COPY, all or none."""
        written = self._write_all(ids, vectors, columns, progress, upsert=False)
        return written.inserted

    def upsert(
        self,
        ids: Sequence[Key],
        vectors: npt.ArrayLike,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        progress: Progress = False,
    ) -> Upserted:
        """Add rows or change those of the same key, all or none, in one statement."""
        return self._write_all(ids, vectors, columns, progress, upsert=True)

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
        """Load rows from files, Arrow data, arrays or an iterator, and commit each batch."""
        options.check_progress(progress)
        options.check_flag(upsert, "upsert")
        options.check_flag(dry_run, "dry_run")
        check_parallel(
            parallel, engine="postgres", why="the batches of a connection are its transactions"
        )
        size = check_size(batch_size, self._dims)
        with self._engine._calling() as connection:
            layout = self._layout(connection)
            target, given = target_of(layout), Options(ids, vectors, columns)
            run = in_place(partial(Run.open, source, target, given, resume=resume, batch_size=size))
            # The bar and the caller's own code stand inside, so that what they raise is explained.
            try:
                with translated():
                    self._find(connection, run, layout, resume=resume is not False)
                    with reporting(progress, run.source.total, self._loading) as advance:
                        advance(run.rows)
                        self._run(connection, run, layout, advance, upsert, dry_run)
            except BaseException as error:
                raise run.explain(error, dry_run=dry_run) from error.__cause__
        return run.report(dry_run=dry_run)

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
        with self._engine._calling() as connection:
            layout = self._layout(connection)
            rows = in_place(partial(prepare, layout, ids=ids, vectors=vectors, columns=columns))
            with reporting(progress, len(rows.keys), self._loading) as advance:
                return self._write_atomic(connection, rows, advance, upsert=upsert)

    def _write_atomic(
        self, connection: Connection, rows: Rows, advance: copy.Advance, *, upsert: bool
    ) -> Upserted:
        with atomic(connection):
            return self._write(connection, rows, advance, upsert=upsert)

    def _find(self, connection: Connection, run: Run, layout: Layout, *, resume: bool) -> None:
        """Find out whether the load was interrupted, and where it goes on."""
        found = fetch_one(connection, statement("read_load"), self._load_of(run))
        record = None if found is None else Record(*found)
        if record is not None and not resume:
            run.before = record
            return
        in_place(partial(run.begin, record))
        if run.skipped:
            self._check_ends(connection, run, layout)

    def _check_ends(self, connection: Connection, run: Run, layout: Layout) -> None:
        """Make sure that the first and the last row are still there, where we may look."""
        row = fetch_one(connection, statement("row_security"), {"table": self._regclass})
        if row is None or row[0] or not row[1]:
            return
        names = key_names(self._key)
        # Cast: 0.1 as a number of 4 bytes is not the 0.1 of 8 that a parameter would be.
        marks = ", ".join(f"%s::{escaped(layout.known[name].declared)}" for name in names)
        columns = ", ".join(escaped(quoted(name)) for name in names)
        query = sql.SQL(
            f"select count(*) from {escaped(self._regclass)} "
            f"where ({columns}) in (({marks}), ({marks}))"
        )
        ends = [part for end in run.ends for part in (end if isinstance(end, tuple) else [end])]
        found = fetch_one(connection, query, ends)
        run.check_present(found is not None and found[0] == len(set(run.ends)))

    def _run(
        self,
        connection: Connection,
        run: Run,
        layout: Layout,
        advance: copy.Advance,
        upsert: bool,
        dry_run: bool,
    ) -> None:
        # While one batch is sent, the next is read and checked, if no code of the caller's is in
        # that: what may be used in one thread only stays in it.
        batches = Ahead(partial(next, prepared(layout, run), None), threaded=run.source.own)
        try:
            while (rows := batches.take()) is not None:
                done = run.rows
                if dry_run:
                    run.committed(rows.keys, inserted=0, updated=0)
                    advance(run.rows)
                    continue
                with atomic(connection):
                    if not done:
                        cursor(connection).execute(
                            statement("begin_load"),
                            {**self._load_of(run), "source": Jsonb(run.described)},
                        )
                    written = self._write(
                        connection, rows, partial(_add, advance, done), upsert=upsert
                    )
                    self._advance(connection, run, rows.keys, finished=False)
                run.committed(rows.keys, inserted=written.inserted, updated=written.updated)
            if run.rows and not dry_run:
                with atomic(connection):
                    self._advance(connection, run, [], finished=True)
                    cursor(connection).execute(statement("forget_loads"), self._load_of(run))
        finally:
            in_place(batches.close)

    def _advance(
        self, connection: Connection, run: Run, keys: Sequence[Any], *, finished: bool
    ) -> None:
        found = fetch_one(
            connection,
            statement("advance_load"),
            {**self._load_of(run), **run.step(keys), "finished": finished},
        )
        if found is None:
            raise Conflict(f"another session goes on with the load {run.name!r}; leave it to one")

    def _load_of(self, run: Run) -> dict[str, Any]:
        return {"table": self._regclass, "vector": self._vector, "name": run.name}

    def _layout(self, connection: Connection) -> Layout:
        known = copy.read_columns(connection, self._regclass)
        encoding = connection.info.encoding
        return Layout(
            known,
            key=self._key,
            vector=self._vector,
            dims=self._dims,
            code=self._code,
            directed=needs_direction(self._metric),
            # A server of SQL_ASCII takes any bytes.
            encoding="utf-8" if encoding == "ascii" else encoding,
        )

    def _secured(self, connection: Connection) -> bool:
        row = fetch_one(connection, statement("row_security"), {"table": self._regclass})
        return row is not None and bool(row[0])

    def _write(
        self, connection: Connection, rows: Rows, advance: copy.Advance, *, upsert: bool
    ) -> Upserted:
        if upsert:
            return copy.upsert_rows(
                connection, self._identifier, rows, advance, key=key_names(self._key)
            )
        secured = self._secured(connection)
        copy.copy_rows(connection, self._identifier, rows, advance, secured=secured)
        return Upserted(inserted=len(rows.keys), updated=0)

    @property
    def _loading(self) -> str:
        return f"loading {self._regclass}"


def _add(advance: copy.Advance, before: int, done: int) -> None:
    advance(before + done)
