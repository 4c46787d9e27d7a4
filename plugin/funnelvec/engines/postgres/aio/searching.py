"""Searching an asynchronous table: one query, many in one call, page after page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psycopg import sql
from psycopg.errors import UndefinedColumn, UndefinedFunction
from psycopg.rows import TupleRow

from funnelvec import filters
from funnelvec.engines import checks
from funnelvec.engines.asking import check_after, check_cutoff, check_many
from funnelvec.engines.base import After
from funnelvec.engines.keys import KeyName, key_names
from funnelvec.engines.postgres.adapt import DTYPES, VectorArray, VectorParameter
from funnelvec.engines.postgres.aio.connection import Connection, fetch_all
from funnelvec.types import Answer, BaseCode, Cutoff, Hit

if TYPE_CHECKING:
    from funnelvec.engines.postgres.aio.engine import AsyncPostgresEngine
    from funnelvec.engines.postgres.aio.table import StoredFunnel

__all__ = ["AsyncSearching"]

# Columns by name: whoever replaces the funnel meanwhile may have given it more of them, and a
# statement that the driver has prepared may not change its columns.
_ONE = sql.SQL("select {} from {}(%s, %s, %s, %s, %s, %s{}) as s")

# What has been mapped, and by which maps; the function does it itself where those are others.
_GIVEN = sql.SQL(", _fv_mapped => {}, _fv_maps => %s")

# The place of a hit in its answer is counted by the function's own order, so no text here knows it.
_MANY = sql.SQL(
    "select q.number, {} from unnest(%s::{}[]{}) with ordinality as q (query{}, number) "
    "cross join lateral {}(q.query, %s, %s, %s, null, %s{}) with ordinality as s "
    "order by q.number, s.ordinality"
)


class AsyncSearching:
    """The methods of `AsyncPostgresTable` that search."""

    if TYPE_CHECKING:  # what the table has and these methods use
        _engine: AsyncPostgresEngine
        _schema: str
        _dims: int
        _code: BaseCode
        _key: KeyName
        _funnels: dict[str, StoredFunnel]

        async def _mapped(
            self,
            connection: Connection,
            ids: Sequence[str],
            dims: Sequence[int],
            queries: npt.NDArray[np.float32],
        ) -> list[npt.NDArray[np.float32]]: ...
        async def _known_funnel(
            self, connection: Connection, name: str | None
        ) -> tuple[str, StoredFunnel]: ...

    async def search(
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
        """Return at most `k` rows, best first, by calling the SQL function of the funnel."""
        # The function takes what the column holds; what has no direction it refuses itself.
        vector = VectorParameter(self._query(query).astype(DTYPES[self._code], copy=False))
        arguments = self._arguments(k, min_relevance, filter)
        place = check_after(after)
        chosen = check_cutoff(cutoff, min_relevance=min_relevance)
        async with self._engine._calling() as connection:
            name, stored = await self._known_funnel(connection, funnel)
            asked = vector.array[np.newaxis].astype(np.float32)
            mapped = await self._mapped(connection, stored.maps, stored.map_dims, asked)
            each = [sql.SQL("%s::{}").format(sql.SQL(stored.map_type)) for _ in mapped]
            vectors = [VectorParameter(part[0]) for part in mapped]
            command = _ONE.format(
                self._columns(stored), sql.Identifier(self._schema, name), _given(each)
            )
            tail = _with_key(vectors, stored)
            rows = await self._found(
                connection,
                command,
                (vector, *arguments, None if place is None else place.to_json(), chosen, *tail),
            )
            nearest: list[TupleRow] = []
            if not rows and place is None and _cuts(arguments, chosen):
                nearest = await self._unlogged(
                    connection, command, (vector, 1, None, arguments[2], None, None, *tail)
                )
        hits = [self._hit(row, stored.returns) for row in (rows or nearest)]
        return Answer(hits) if rows else Answer(nearest=hits[0] if hits else None)

    async def search_many(
        self,
        queries: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        cutoff: Cutoff | None = None,
        funnel: str | None = None,
    ) -> list[Answer]:
        """Return an answer per query, all in one statement."""
        matrix = check_many(queries, dims=self._dims, code=self._code, directed=False)
        arguments = self._arguments(k, min_relevance, filter)
        chosen = check_cutoff(cutoff, min_relevance=min_relevance)
        async with self._engine._calling() as connection:
            name, stored = await self._known_funnel(connection, funnel)
            vectors = VectorArray(matrix.astype(DTYPES[self._code], copy=False), stored.vector_oid)
            mapped = await self._mapped(connection, stored.maps, stored.map_dims, vectors.array)
            names = [f"mapped_{number}" for number in range(len(mapped))]
            cast = sql.SQL(", %s::{}[]").format(sql.SQL(stored.map_type))
            command = _MANY.format(
                self._columns(stored),
                sql.SQL(stored.vector_type),
                sql.SQL("").join([cast] * len(mapped)),
                sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier(each)) for each in names),
                sql.Identifier(self._schema, name),
                _given([sql.Identifier("q", each) for each in names]),
            )
            arrays = [VectorArray(part, stored.map_oid) for part in mapped]
            key = _with_key(arrays, stored)[len(arrays) :]
            rows = await self._found(
                connection, command, (vectors, *arrays, *arguments, chosen, *key)
            )
            found = self._grouped(rows, stored, len(matrix))
            empty = [place for place, hits in enumerate(found) if not hits]
            if empty and _cuts(arguments, chosen):
                parts = [VectorArray(array.array[empty], array.oid) for array in (vectors, *arrays)]
                best = await self._unlogged(
                    connection, command, (*parts, 1, None, arguments[2], None, *key)
                )
                for place, hits in zip(empty, self._grouped(best, stored, len(empty)), strict=True):
                    found[place] = Answer(nearest=hits[0] if hits else None)
        return found

    def _grouped(self, rows: list[TupleRow], stored: StoredFunnel, queries: int) -> list[Answer]:
        found = [Answer() for _ in range(queries)]
        for number, group in groupby(rows, key=lambda row: int(row[0])):
            found[number - 1] = Answer(self._hit(row[1:], stored.returns) for row in group)
        return found

    async def _unlogged(
        self, connection: Connection, command: sql.Composed, arguments: Sequence[Any]
    ) -> list[TupleRow]:
        """Ask again, without a cutoff, for what came closest; nobody has asked that."""
        async with connection.transaction(force_rollback=True):
            return await self._found(connection, command, arguments)

    def _columns(self, stored: StoredFunnel) -> sql.Composed:
        names = (*key_names(self._key), *stored.returns, "score", "relevance")
        return sql.SQL(", ").join(sql.Identifier("s", name) for name in names)

    async def _found(
        self, connection: Connection, command: sql.Composed, arguments: Sequence[Any]
    ) -> list[TupleRow]:
        try:
            return await fetch_all(connection, command, arguments)
        except (UndefinedColumn, UndefinedFunction):
            self._funnels = {}  # somebody has replaced or dropped it; the next call asks again
            raise

    def _query(self, query: npt.ArrayLike) -> npt.NDArray[np.float32]:
        return checks.check_query(query, dims=self._dims, code=self._code, directed=False)

    def _arguments(
        self, k: int, min_relevance: float | None, filter: Mapping[str, Any] | None
    ) -> tuple[int, float | None, str | None]:
        parsed = filters.parse(filter)
        return (
            checks.check_k(k),
            checks.check_min_relevance(min_relevance),
            None if parsed is None else filters.to_json(parsed),
        )

    def _hit(self, row: Sequence[Any], returns: Sequence[str]) -> Hit:
        """Read a row of the function: the key, the returned columns, score and relevance."""
        width = len(key_names(self._key))
        *values, score, relevance = row
        id = values[0] if isinstance(self._key, str) else tuple(values[:width])
        return Hit(id, score, relevance, dict(zip(returns, values[width:], strict=True)))


def _cuts(arguments: Sequence[Any], chosen: Cutoff | None) -> bool:
    """Whether rows are left out by a cutoff: a least relevance, or one by its name."""
    return arguments[1] is not None or chosen is not None


def _given(mapped: Sequence[sql.Composable]) -> sql.Composable:
    """SQL for what was mapped already; nothing where there is nothing."""
    if not mapped:
        return sql.SQL("")
    return _GIVEN.format(sql.SQL("array[{}]").format(sql.SQL(", ").join(mapped)))


def _with_key(mapped: Sequence[Any], stored: StoredFunnel) -> list[Any]:
    """The same as parameters: the vectors, and by which maps."""
    return [*mapped, " ".join(stored.maps)] if mapped else []
