"""What a table in Qdrant has no place for yet: windows, fitted rotations, certified cutoffs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy.typing as npt

from funnelvec.codes.rotations import is_random
from funnelvec.engines.asking import check_cutoff
from funnelvec.engines.base import Progress
from funnelvec.errors import CapabilityError
from funnelvec.resolution import Resolution
from funnelvec.types import Cutoff, Family, Judgments, Key, Metric

if TYPE_CHECKING:
    from funnelvec.calibration import Certificate
    from funnelvec.calibration.drift import Drift
    from funnelvec.calibration.online import OnlinePlatt
    from funnelvec.fitting.report import RotationReport, RotationStatus
    from funnelvec.judging import Unjudged

__all__ = ["QdrantRefusing", "check_applied", "check_certified", "check_rotation"]

_WINDOWS = (
    "Qdrant has no indexes over ranges of a column; a filter goes through its own index there. A "
    "postgresql:// table has windows"
)


_CERTIFIED = (
    "this version certifies no cutoffs in Qdrant; calibrate and min_relevance are there, and a "
    "postgresql:// or memory: table certifies"
)


_FOLLOWED = (
    "this version keeps no feedback and no scores of judged queries in Qdrant; a postgresql:// or "
    "memory: table does, and funnelvec.calibration.online and .drift work on arrays"
)


def check_certified(cutoff: Cutoff | None, min_relevance: float | None) -> None:
    """Refuse a certified cutoff.

    Raises
    ------
    CapabilityError
        If one is asked for.
    """
    if check_cutoff(cutoff, min_relevance=min_relevance) is not None:
        raise CapabilityError(_CERTIFIED)


def check_applied(family: Family) -> None:
    """Refuse a family that a search in Qdrant cannot apply.

    Raises
    ------
    CapabilityError
        If it is an adapter, whose line needs the scores of the whole shortlist.
    """
    if family == "adapter":
        raise CapabilityError(
            "Qdrant answers with the rows asked for, not with the shortlist that an adapter reads; "
            "family='auto' takes the best of platt, beta and isotonic, and a postgresql:// or "
            "memory: table applies adapters"
        )


def check_rotation(resolution: Resolution) -> None:
    """Refuse a resolution whose rotation would have to be fitted.

    Raises
    ------
    CapabilityError
        If its rotation is not a random one.
    """
    if resolution.rotation is not None and not is_random(resolution.rotation):
        raise CapabilityError(
            f"resolution {resolution}: this version keeps no fitted rotations in Qdrant; "
            "~random needs no fitting, and a postgresql:// or memory: table keeps them"
        )


class QdrantRefusing:
    """The methods of `QdrantTable` that say which engine can."""

    def certify(
        self,
        judgments: Judgments,
        *,
        max_miss: float | None = None,
        min_precision: float | None = None,
        confidence: float = 0.95,
        k: int | None = None,
        unjudged: Unjudged = "irrelevant",
        funnel: str | None = None,
    ) -> Certificate:
        """Refused: this version certifies no cutoffs in Qdrant."""
        raise CapabilityError(_CERTIFIED)

    def feedback(
        self,
        relevant: bool,
        *,
        score: float | None = None,
        query: npt.ArrayLike | None = None,
        id: Key | None = None,
        funnel: str | None = None,
    ) -> OnlinePlatt:
        """Refused: this version keeps no feedback in Qdrant."""
        raise CapabilityError(_FOLLOWED)

    def feedback_state(self, *, funnel: str | None = None) -> OnlinePlatt:
        """Refused, as `feedback` is."""
        raise CapabilityError(_FOLLOWED)

    def adopt_feedback(self, *, funnel: str | None = None) -> int:
        """Refused, as `feedback` is."""
        raise CapabilityError(_FOLLOWED)

    def check_drift(
        self, queries: npt.ArrayLike | None = None, *, funnel: str | None = None
    ) -> Drift:
        """Refused: this version keeps no scores of judged queries in Qdrant."""
        raise CapabilityError(_FOLLOWED)

    def add_window(
        self,
        resolution: Resolution | str,
        by: str,
        *,
        levels: int | None = None,
        allow_rewrite: bool = False,
        concurrently: bool = False,
    ) -> None:
        """Refused: a filter of Qdrant's goes through an index of its own."""
        raise CapabilityError(_WINDOWS)

    def drop_window(self, resolution: Resolution | str, by: str) -> None:
        """Refused, as `add_window` is."""
        raise CapabilityError(_WINDOWS)

    def fit_rotation(
        self,
        name: str = "pca",
        *,
        kind: str = "pca",
        dims: int | None = None,
        then: str | None = None,
        queries: npt.ArrayLike | None = None,
        metric: Metric | None = None,
        sample: int = 10_000,
        seed: int = 0,
        dry_run: bool = False,
        progress: Progress = False,
    ) -> RotationReport:
        """Refused: this version has no place for fitted rotations in Qdrant."""
        raise CapabilityError(
            "this version keeps no fitted rotations in Qdrant; ~random needs no fitting, and a "
            "postgresql:// or memory: table keeps them"
        )

    def rotations(self) -> list[RotationStatus]:
        """None are kept."""
        return []

    def drop_rotation(self, name: str) -> None:
        """Refused, as `fit_rotation` is."""
        raise CapabilityError(
            "this version keeps no fitted rotations in Qdrant; a postgresql:// or memory: one does"
        )
