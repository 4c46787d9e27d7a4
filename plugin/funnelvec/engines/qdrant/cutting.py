"""Cutoffs of a search in Qdrant beyond a score threshold: the best F1, and what came closest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.calibration import StoredCalibration
from funnelvec.calibration.f1 import best_f1_cutoff
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import InvalidInput, NotCalibrated
from funnelvec.types import Answer, Hit

if TYPE_CHECKING:
    from funnelvec.engines.qdrant.collection import Collection
    from funnelvec.engines.qdrant.deployment import Found
    from funnelvec.engines.qdrant.searching import Question

__all__ = ["QdrantCutting", "check_best_f1"]


class QdrantCutting:
    """Methods of `QdrantSearching`."""

    name: str
    _collection: Collection

    if TYPE_CHECKING:

        def _answer(
            self,
            question: Question,
            vector: npt.NDArray[np.float32],
            first: Sequence[Found] | None = None,
        ) -> list[Hit]: ...

    def _resized(self, question: Question, k: int, **changes: Any) -> Question:
        """The same question for another number of rows."""
        template = question.longer(k + 1)
        search = self._collection.deployment.prepare(self.name, template)
        return replace(question, k=k, template=template, search=search, **changes)

    def _whole(
        self, question: Question, vector: npt.NDArray[np.float32], hits: list[Hit]
    ) -> Answer:
        return Answer(hits, nearest=None if hits else self._nearest(question, vector))

    def _nearest(self, question: Question, vector: npt.NDArray[np.float32]) -> Hit | None:
        """The best row of a first page that nothing passed; None where there is no cutoff."""
        cuts = question.threshold is not None or question.certificate is not None
        if not cuts or question.after is not None:
            return None
        plain = self._resized(question, 1, threshold=None, certificate=None)
        found = self._answer(plain, vector)
        return found[0] if found else None

    def _best_answer(self, question: Question, vector: npt.NDArray[np.float32]) -> list[Hit]:
        """Those of the best `k` rows that promise the best F1, by all rows of the last stage."""
        calibration, keep = question.calibration, question.named.funnel.narrowest_keep
        whole = self._resized(question, keep or question.k, best_f1=False, after=None)
        shortlist = self._answer(whole, vector)
        assert calibration is not None  # the question was refused without
        scores = np.array([hit.score for hit in shortlist])
        least = best_f1_cutoff(scores, calibration.apply(vector, scores))
        hits = shortlist
        if question.after is not None:
            hits = self._answer(replace(question, best_f1=False), vector)
        return [hit for hit in hits if hit.score >= least][: question.k]


def check_best_f1(
    named: NamedFunnel, calibration: StoredCalibration | None, *, continued: bool
) -> None:
    """Refuse the cutoff of the best F1 where there is none.

    Raises
    ------
    NotCalibrated
        If the funnel has no calibration.
    InvalidInput
        If it is about a later page of a single stage.
    """
    if calibration is None:
        raise NotCalibrated(
            f"funnel {named.name!r} has no calibration, so nothing is known of the F1 of an "
            f"answer; call calibrate(judgments, funnel={named.name!r}) first"
        )
    if continued and len(named.funnel.stages) == 1:
        raise InvalidInput(
            "best_f1 of a single stage is about its first page; use a funnel of two stages, or "
            "min_relevance"
        )
