"""The part of the asynchronous table that draws samples and examines them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from psycopg import sql

from funnelvec.doctor.diagnosis import Diagnosis
from funnelvec.doctor.examine import STEPS, examine
from funnelvec.doctor.limits import check, check_whole
from funnelvec.engines import options
from funnelvec.engines.base import Progress
from funnelvec.engines.keys import KeyName, key_names
from funnelvec.engines.postgres.adapt import WIRE, statement
from funnelvec.engines.postgres.aio.connection import Connection, atomic, cursor, fetch_one
from funnelvec.engines.postgres.twins import in_thread
from funnelvec.engines.progress import reporting
from funnelvec.reports import Sample
from funnelvec.types import BaseCode, Key, Metric

if TYPE_CHECKING:
    from funnelvec.engines.postgres.aio.engine import AsyncPostgresEngine

__all__ = ["AsyncExamining"]

#: Pages that are read for each row that is wanted. Rows of one page were mostly written together
#: and are alike, so a sample that takes whole pages would see copies and near neighbours that the
#: table as a whole does not have.
_PAGES = 4
#: How much more is read when too few rows were found: many are null, or not the caller's to see.
_GROWTH = 16


class AsyncExamining:
    """`sample` and `doctor`; see `funnelvec.engines.base.Table`."""

    _engine: AsyncPostgresEngine
    _name: str
    _vector: str
    _dims: int
    _code: BaseCode
    _metric: Metric
    _key: KeyName

    if TYPE_CHECKING:

        @property
        def _identifier(self) -> sql.Identifier: ...

        @property
        def _regclass(self) -> str: ...

        async def _with_funnels(self, found: Diagnosis, *, seed: int) -> Diagnosis: ...

    async def sample(self, count: int = 10_000, *, seed: int = 0) -> Sample:
        """Draw rows from random pages: four pages are read for each row, or the whole table."""
        count = check_whole(count, "count", 1, 1_000_000)
        _, _, seed = check(sample=count, seed=seed, least=1)
        async with self._engine._calling() as connection, atomic(connection):
            return await self._sample_by(connection, count, seed)

    async def _sample_by(self, connection: Connection, count: int, seed: int) -> Sample:
        """Draw a sample in the transaction of a caller."""
        where = {"table": self._regclass, "code": self._code}
        plan = await fetch_one(connection, statement("sample"), where)
        assert plan is not None  # an aggregate has one row
        send, pages = plan
        percent = 100.0 * _PAGES * count / max(1, pages)
        rows = await self._count_in(connection, percent, seed)
        while rows < count and percent < 100:
            percent *= _GROWTH
            rows = await self._count_in(connection, percent, seed)
        query = self._drawing(send, _part(percent, seed), count, seed)
        ids, vectors = await self._draw(connection, query)
        if percent < 100:
            return Sample(ids, vectors, max(len(ids), round(100 * rows / percent)), exact=False)
        return Sample(ids, vectors, max(len(ids), rows), exact=True)

    async def _count_in(self, connection: Connection, percent: float, seed: int) -> int:
        query = sql.SQL("select count(t.{}) from {} as t {}").format(
            sql.Identifier(self._vector), self._identifier, _part(percent, seed)
        )
        row = await fetch_one(connection, query)
        return int(row[0]) if row else 0

    async def _draw(
        self, connection: Connection, query: sql.Composed
    ) -> tuple[tuple[Key, ...], npt.NDArray[np.float32]]:
        """Read keys and vectors row by row: text for all of them at once would take much room."""
        ids: list[Key] = []
        vectors: list[npt.NDArray[np.float32]] = []
        async for *parts, sent in cursor(connection).stream(query):
            ids.append(parts[0] if isinstance(self._key, str) else tuple(parts))
            # Two numbers of 16 bits come first: the width, and one that means nothing.
            vectors.append(np.frombuffer(sent, WIRE[self._code], offset=4).astype(np.float32))
        matrix = np.stack(vectors) if vectors else np.empty((0, self._dims), np.float32)
        return tuple(ids), matrix

    def _drawing(self, send: str, part: sql.Composable, count: int, seed: int) -> sql.Composed:
        key = [sql.SQL("t.{}").format(sql.Identifier(name)) for name in key_names(self._key)]
        names = [sql.Identifier(f"key_{number}") for number in range(len(key))]
        # The limit stands inside, so that wide vectors are read for the rows that are drawn alone.
        return sql.SQL(
            "select {given}, {send}(d.drawn) from ("
            "select {key}, t.{vector} from {table} as t {part} where t.{vector} is not null"
            " order by hashtextextended(row({key})::text, {seed}), {key} limit {count}"
            ") as d ({given}, drawn)"
        ).format(
            given=sql.SQL(", ").join(names),
            send=sql.SQL(send),
            key=sql.SQL(", ").join(key),
            vector=sql.Identifier(self._vector),
            table=self._identifier,
            part=part,
            seed=sql.Literal(seed),
            count=sql.Literal(count),
        )

    async def doctor(
        self,
        *,
        sample: int = 10_000,
        queries: int = 500,
        seed: int = 0,
        funnels: bool = True,
        progress: Progress = False,
    ) -> Diagnosis:
        """Examine a sample of the vectors; the connection is free while figures are computed."""
        check(sample=sample, queries=queries, seed=seed)
        options.check_progress(progress)
        options.check_flag(funnels, "funnels")
        with reporting(progress, STEPS + 1, "examining", unit="steps") as tell:
            drawn = await self.sample(sample, seed=seed)
            tell(1)
            found = await in_thread(
                partial(
                    examine, drawn.vectors, metric=self._metric, sample=sample, queries=queries,
                    seed=seed, ids=drawn.ids, code=self._code, table=self._name,
                    vector=self._vector, rows=drawn.rows, rows_exact=drawn.exact,
                    progress=lambda done, total: tell(done + 1),
                )
            )  # fmt: skip
        return await self._with_funnels(found, seed=seed) if funnels else found


def _part(percent: float, seed: int) -> sql.Composable:
    """The pages to read; all of them where that is no saving, by whatever index serves then."""
    if percent >= 100:
        return sql.SQL("")
    return sql.SQL("tablesample system ({}) repeatable ({})").format(
        sql.Literal(percent), sql.Literal(seed)
    )
