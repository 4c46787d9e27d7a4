"""The part of the `Table` protocol that measures what answers are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from funnelvec.engines.protocols import Progress
    from funnelvec.evaluation import Answers, Evaluation, Unjudged
    from funnelvec.types import Judgments

__all__ = ["Evaluated"]


class Evaluated(Protocol):
    """Judged queries, asked and measured."""

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
        """Ask every judged query and measure the answers: order, cutoffs, calibration.

        nDCG and recall, precision over recall of all pairs, what one threshold that keeps 95 % of
        the relevant rows does, calibration error (of all rows, of the best 20, by quarters of the
        queries), Brier score and log loss, each with a 95 % bootstrap interval over queries.

        Parameters
        ----------
        judgments
            Other ones than the calibration was fitted to, if it is to say what new queries get.
        k
            Rows per query. Default: 100, or as many as reach the last stage if those are fewer.
        min_relevance
            A cutoff to measure too: rows kept, precision, share missed, F1, empty answers.
        unjudged
            Rows that come back and that nobody judged count as ``irrelevant``, or are ``ignored``.
        times, seed
            Of the bootstrap.
        progress
            True shows a bar; a callable is told (queries done, queries in all).

        Raises
        ------
        InvalidInput
            If an argument cannot be used, or no judged row came back.
        MissingDependency
            If ir-measures is not installed: ``pip install 'funnelvec[evaluate]'``.
        """

    def answers(
        self,
        judgments: Judgments,
        *,
        k: int | None = None,
        unjudged: Unjudged = "irrelevant",
        funnel: str | None = None,
        progress: Progress = False,
    ) -> Answers:
        """Ask every judged query, and return scores, relevance and labels for measures of yours."""
