"""What Qdrant tables do not offer yet; each call names the engines that do."""

from __future__ import annotations

import numpy.typing as npt

from funnelvec.calibration import Certificate
from funnelvec.engines.base import Progress
from funnelvec.errors import CapabilityError
from funnelvec.fitting.report import RotationReport, RotationStatus
from funnelvec.resolution import Resolution
from funnelvec.types import Judgments, Metric

__all__ = ["QdrantLacking", "lacking"]


class QdrantLacking:
    """`fit_rotation`, `add_window` and what goes with them; see `funnelvec.engines.base.Table`."""

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
        """Not on Qdrant yet."""
        raise lacking("fitted rotations", "~random needs no fitting and is there")

    def rotations(self) -> list[RotationStatus]:
        """List the fitted rotations: there are none."""
        return []

    def drop_rotation(self, name: str) -> None:
        """Not on Qdrant yet."""
        raise lacking("fitted rotations", "there is none to drop")

    def certify(
        self,
        judgments: Judgments,
        *,
        max_miss: float = 0.05,
        k: int | None = None,
        funnel: str | None = None,
    ) -> Certificate:
        """Not on Qdrant yet."""
        raise lacking("certified cutoffs", "calibrate and min_relevance are there")

    def add_window(
        self,
        resolution: Resolution | str,
        by: str,
        *,
        levels: int | None = None,
        allow_rewrite: bool = False,
        concurrently: bool = False,
    ) -> None:
        """Not on Qdrant: its graph has edges for the payload indexes that are filtered on."""
        raise lacking("windows", "a payload index on the column serves ranges: name it in create")

    def drop_window(self, resolution: Resolution | str, by: str) -> None:
        """Not on Qdrant."""
        raise lacking("windows", "there is none to drop")


def lacking(what: str, way_out: str) -> CapabilityError:
    """Return the error for something that Qdrant tables do not offer."""
    return CapabilityError(f"Qdrant tables have no {what}, Postgres and memory do; {way_out}")
