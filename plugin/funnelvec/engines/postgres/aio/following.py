"""Feedback and drift of an asynchronous table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.drift import Drift
from funnelvec.calibration.online import OnlinePlatt
from funnelvec.engines import options
from funnelvec.engines.asking import check_feedback, key_to_json
from funnelvec.engines.postgres.adapt import VectorParameter, quoted, statement
from funnelvec.engines.postgres.aio.connection import Connection, atomic, fetch_one

if TYPE_CHECKING:
    from funnelvec.engines.postgres.aio.engine import AsyncPostgresEngine
    from funnelvec.engines.postgres.aio.table import StoredFunnel
    from funnelvec.types import Answer, Key

__all__ = ["AsyncFollowing"]


class AsyncFollowing:
    """The methods of `AsyncPostgresTable` that follow what people ask and say."""

    if TYPE_CHECKING:  # what the table has and these methods use
        _engine: AsyncPostgresEngine
        _schema: str

        def _query(self, query: npt.ArrayLike) -> npt.NDArray[np.float32]: ...
        async def _known_funnel(
            self, connection: Connection, name: str | None
        ) -> tuple[str, StoredFunnel]: ...
        async def search_many(
            self, queries: npt.ArrayLike, *, k: int = 10, funnel: str | None = None
        ) -> list[Answer]: ...

    async def feedback(
        self,
        relevant: bool,
        *,
        score: float | None = None,
        query: npt.ArrayLike | None = None,
        id: Key | None = None,
        funnel: str | None = None,
    ) -> OnlinePlatt:
        """Take in what somebody said of one row: one update in the database."""
        said = options.check_flag(relevant, "relevant")
        given = check_feedback(score=score, query=query, id=id)
        asked = {
            "relevant": said,
            "score": given,
            "query": None if query is None else VectorParameter(self._query(query)),
            "key": None if id is None else key_to_json(id),
        }
        return await self._followed("feedback", funnel, asked)

    async def feedback_state(self, *, funnel: str | None = None) -> OnlinePlatt:
        """Return what feedback has come to since the calibration."""
        return await self._followed("feedback_state", funnel, {})

    async def _followed(self, what: str, funnel: str | None, asked: dict[str, Any]) -> OnlinePlatt:
        async with self._engine._calling() as connection, atomic(connection):
            name, _ = await self._known_funnel(connection, funnel)
            row = await fetch_one(
                connection, statement(what), {"funnel": quoted(self._schema, name), **asked}
            )
        assert row is not None  # one row, or an error
        slope, offset, seen, means, counts, h = row
        return OnlinePlatt(slope, offset, tuple(h), tuple(means), tuple(counts), seen)

    async def adopt_feedback(self, *, funnel: str | None = None) -> int:
        """Make the line of the feedback part of the calibration."""
        async with self._engine._calling() as connection, atomic(connection):
            name, _ = await self._known_funnel(connection, funnel)
            row = await fetch_one(
                connection, statement("adopt_feedback"), {"funnel": quoted(self._schema, name)}
            )
        assert row is not None  # one row, or an error
        return int(row[0])

    async def check_drift(
        self, queries: npt.ArrayLike | None = None, *, funnel: str | None = None
    ) -> Drift:
        """Compare the best scores of queries, or of the log, with those of the judged ones."""
        live = None
        if queries is not None:
            answers = await self.search_many(queries, k=1, funnel=funnel)
            live = [hits[0].score for hits in answers if hits]
        async with self._engine._calling() as connection:
            name, _ = await self._known_funnel(connection, funnel)
            row = await fetch_one(
                connection,
                statement("check_drift"),
                {"funnel": quoted(self._schema, name), "live": live},
            )
        assert row is not None  # one row, or an error
        return Drift(*row)
