"""Asking judged queries and measuring the answers: what the engines share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.engines import checks, options
from funnelvec.engines.base import Progress
from funnelvec.engines.keys import plain
from funnelvec.engines.progress import reporting
from funnelvec.errors import InvalidInput
from funnelvec.evaluation import Answers, Evaluation, JudgedQueries, Unjudged, evaluate_answers
from funnelvec.evaluation.answers import check_unjudged
from funnelvec.evaluation.ranking import check_available
from funnelvec.funnel import Funnel
from funnelvec.types import Answer, Hit, Judgments

if TYPE_CHECKING:
    from funnelvec.engines.store import NamedFunnel

__all__ = ["Evaluating", "Measuring", "Plan", "plan"]

_TOP = 100
#: Queries per call of `search_many`.
_BLOCK = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask, checked."""

    queries: JudgedQueries
    k: int
    unjudged: Unjudged

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Queries, some at a time."""
        for start in range(0, len(self.queries), _BLOCK):
            yield self.queries.vectors[start : start + _BLOCK]

    def answers(self, found: Sequence[Sequence[Hit]]) -> Answers:
        """Label what was found."""
        return Answers.of(self.queries, found, unjudged=self.unjudged)


@dataclass(frozen=True, slots=True)
class Measuring:
    """How to measure, checked before anything is asked."""

    min_relevance: float | None
    times: int
    seed: int

    @classmethod
    def of(cls, *, min_relevance: Any, times: Any, seed: Any) -> Measuring:
        """Check the arguments, and that the package for measures of order is there."""
        check_available()
        return cls(
            checks.check_min_relevance(min_relevance),
            _whole(times, "times", 20, 10_000),
            _whole(seed, "seed", 0, 2**63 - 1),
        )

    def evaluate(self, answers: Answers, asked: Plan, *, table: str, funnel: str) -> Evaluation:
        """Measure answers."""
        return evaluate_answers(
            answers,
            k=asked.k,
            table=table,
            funnel=funnel,
            unjudged=asked.unjudged,
            min_relevance=self.min_relevance,
            times=self.times,
            seed=self.seed,
        )


def plan(judgments: Judgments, funnel: Funnel, *, k: int | None, unjudged: Unjudged) -> Plan:
    """Check what is to be asked of a funnel.

    Raises
    ------
    InvalidInput
        If `k` is more than reaches the last stage, or `unjudged` is neither of the two.
    """
    given: Any = judgments
    if not isinstance(given, Judgments):
        raise InvalidInput(f"judgments must be Judgments, not {given!r:.80}")
    keep = funnel.narrowest_keep
    wanted = min(_TOP, keep or _TOP) if k is None else checks.check_k(k, funnel=funnel)
    return Plan(JudgedQueries.of(judgments), wanted, check_unjudged(unjudged))


def _whole(value: Any, name: str, least: int, most: int) -> int:
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise InvalidInput(f"{name} is a whole number from {least:,} to {most:,}, not {value!r}")
    return number


class Evaluating:
    """`evaluate` and `answers` of a table that does not await; see `engines.base.Table`."""

    if TYPE_CHECKING:  # what the table has and these methods use
        name: str

        def _funnel(self, name: str | None) -> NamedFunnel: ...
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
        """Ask every judged query and measure the answers: order, cutoffs, calibration."""
        named = self._funnel(funnel)
        measuring = Measuring.of(min_relevance=min_relevance, times=times, seed=seed)
        asked = plan(judgments, named.funnel, k=k, unjudged=unjudged)
        found = self._asked(asked, named.name, progress)
        return measuring.evaluate(found, asked, table=self.name, funnel=str(named.funnel))

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
        named = self._funnel(funnel)
        asked = plan(judgments, named.funnel, k=k, unjudged=unjudged)
        return self._asked(asked, named.name, progress)

    def _asked(self, asked: Plan, funnel: str, progress: Progress) -> Answers:
        options.check_progress(progress)
        found: list[Answer] = []
        with reporting(progress, len(asked.queries), "asking", unit="queries") as tell:
            for block in asked.blocks():
                found += self.search_many(block, k=asked.k, funnel=funnel)
                tell(len(found))
        return asked.answers(found)
