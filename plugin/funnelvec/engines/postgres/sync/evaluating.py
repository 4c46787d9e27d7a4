# Made from aio/evaluating.py by tools/write_sync.py: change that file, then `make sync`.

"""The part of the synchronous table that measures what answers are worth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from funnelvec.engines import options
from funnelvec.engines.base import Progress
from funnelvec.engines.evaluating import Measuring, Plan, plan
from funnelvec.engines.postgres.sync.connection import Connection
from funnelvec.engines.postgres.twins import in_place
from funnelvec.engines.progress import reporting
from funnelvec.evaluation import Answers, Evaluation, Unjudged
from funnelvec.funnel import Funnel
from funnelvec.types import Answer, Judgments

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync.engine import PostgresEngine
    from funnelvec.engines.postgres.sync.table import StoredFunnel

__all__ = ["Evaluating"]


class Evaluating:
    """`evaluate` and `answers`; see `funnelvec.engines.base.Table`."""

    if TYPE_CHECKING:  # what the table has and these methods use
        _engine: PostgresEngine
        _name: str

        def _known_funnel(
            self, connection: Connection, name: str | None
        ) -> tuple[str, StoredFunnel]: ...
        def search_many(
            self,
            queries: npt.ArrayLike,
            *,
            k: int = 10,
            min_relevance: float | None = None,
            filter: Mapping[str, Any] | None = None,
            cutoff: Any = None,
            funnel: str | None = None,
        ) -> list[Answer]: ...

    def evaluate(
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
        name, stages = self._stages(funnel)
        asked = plan(judgments, stages, k=k, unjudged=unjudged)
        found = self._asked(asked, name, progress)
        return in_place(
            partial(measuring.evaluate, found, asked, table=self._name, funnel=str(stages))
        )

    def answers(
        self,
        judgments: Judgments,
        *,
        k: int | None = None,
        unjudged: Unjudged = "irrelevant",
        funnel: str | None = None,
        progress: Progress = False,
    ) -> Answers:
        """Ask every judged query, and return scores, relevance and labels."""
        name, stages = self._stages(funnel)
        asked = plan(judgments, stages, k=k, unjudged=unjudged)
        return self._asked(asked, name, progress)

    def _stages(self, funnel: str | None) -> tuple[str, Funnel]:
        with self._engine._calling() as connection:
            name, stored = self._known_funnel(connection, funnel)
        return name, Funnel.parse(stored.funnel)

    def _asked(self, asked: Plan, funnel: str, progress: Progress) -> Answers:
        options.check_progress(progress)
        found: list[Answer] = []
        with reporting(progress, len(asked.queries), "asking", unit="queries") as tell:
            for block in asked.blocks():
                answered = self.search_many(block, k=asked.k, funnel=funnel)
                found += answered
                tell(len(found))
        return asked.answers(found)
