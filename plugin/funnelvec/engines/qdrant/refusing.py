"""What a table in Qdrant has no place for: windows, feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy.typing as npt

from funnelvec.errors import CapabilityError
from funnelvec.resolution import Resolution
from funnelvec.types import Key

if TYPE_CHECKING:
    from funnelvec.calibration.drift import Drift
    from funnelvec.calibration.online import OnlinePlatt

__all__ = ["QdrantRefusing"]

_WINDOWS = (
    "Qdrant has no indexes over ranges of a column; a filter goes through its own index there. A "
    "postgresql:// table has windows"
)


_FOLLOWED = (
    "this version keeps no feedback and no scores of judged queries in Qdrant; a postgresql:// or "
    "memory: table does, and funnelvec.calibration.online and .drift work on arrays"
)


class QdrantRefusing:
    """The methods of `QdrantTable` that say which engine can."""

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
