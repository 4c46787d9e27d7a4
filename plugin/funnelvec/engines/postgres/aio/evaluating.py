"""The part of the asynchronous table that measures what answers are worth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from funnelvec.engines import options
from funnelvec.engines.base import Progress
from funnelvec.engines.evaluating import Measuring, Plan, plan
from funnelvec.engines.postgres.aio.connection import Connection
from funnelvec.engines.postgres.twins import in_thread
from funnelvec.engines.progress import reporting
from funnelvec.evaluation import Answers, Evaluation, Unjudged
from funnelvec.funnel import Funnel
from funnelvec.types import Answer, Judgments

if TYPE_CHECKING:
    from funnelvec.engines.postgres.aio.engine import AsyncPostgresEngine
    from funnelvec.engines.postgres.aio.table import StoredFunnel

__all__ = ["AsyncEvaluating"]


class AsyncEvaluating:
    """`evaluate` and `answers`; see `funnelvec.engines.base.Table`."""

    if TYPE_CHECKING:  # what the table has and these methods use
        _engine: AsyncPostgresEngine
        _name: str

        async def _known_funnel(
            self, connection: Connection, name: str | None
        ) -> tuple[str, StoredFunnel]: ...
        async def search_many(
            self,
            queries: npt.ArrayLike,
            *,
            k: int = 10,
            min_relevance: float | None = None,
            filter: Mapping[str, Any] | None = None,
            cutoff: Any = None,
            funnel: str | None = None,
        ) -> list[Answer]: ...

    async def evaluate(
        self,
        judgments: Judgments,
        *,
        k: int | None = None,
        min_relevance: float | None = None,
        unjudged: Unjudged = "irrelevant",
        funnel: str | None = None,
        times: int = 200,
        seed: int = 0,
        progress: Progress = False,
    ) -> Evaluation:
        """Ask every judged query and measure the answers; the connection is free meanwhile."""
        measuring = Measuring.of(min_relevance=min_relevance, times=times, seed=seed)
        name, stages = await self._stages(funnel)
        asked = plan(judgments, stages, k=k, unjudged=unjudged)
        found = await self._asked(asked, name, progress)
        return await in_thread(
            partial(measuring.evaluate, found, asked, table=self._name, funnel=str(stages))
        )

    async def answers(
        self,
        judgments: Judgments,
        *,
        k: int | None = None,
        unjudged: Unjudged = "irrelevant",
        funnel: str | None = None,
        progress: Progress = False,
    ) -> Answers:
        """Ask every judged query, and return scores, relevance and labels."""
        name, stages = await self._stages(funnel)
        asked = plan(judgments, stages, k=k, unjudged=unjudged)
        return await self._asked(asked, name, progress)

    async def _stages(self, funnel: str | None) -> tuple[str, Funnel]:
        async with self._engine._calling() as connection:
            name, stored = await self._known_funnel(connection, funnel)
        return name, Funnel.parse(stored.funnel)

    async def _asked(self, asked: Plan, funnel: str, progress: Progress) -> Answers:
        options.check_progress(progress)
        found: list[Answer] = []
        with reporting(progress, len(asked.queries), "asking", unit="queries") as tell:
            for block in asked.blocks():
                answered = await self.search_many(block, k=asked.k, funnel=funnel)
                found += answered
                tell(len(found))
        return asked.answers(found)
