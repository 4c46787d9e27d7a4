"""The part of the `Table` protocol that chooses a funnel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt

    from funnelvec.engines.protocols import Progress
    from funnelvec.tuning.report import TuningReport
    from funnelvec.tuning.wanted import Budget
    from funnelvec.types import Judgments, Storage

__all__ = ["Tunable"]


class Tunable(Protocol):
    """What a table chooses for itself."""

    def tune(
        self,
        recall: float | None = None,
        *,
        k: int = 10,
        queries: npt.ArrayLike | Literal["log", "rows"] | None = None,
        budget: Budget | Mapping[str, float] | None = None,
        max_miss: float | None = None,
        judgments: Judgments | None = None,
        funnel: str | None = None,
        storage: Storage | None = None,
        allow_rewrite: bool = False,
        sample: int = 50_000,
        on_copy: int | None = None,
        dry_run: bool = False,
        measure_again: bool = False,
        seed: int = 0,
        progress: Progress = False,
        on_step: Callable[[str], object] | None = None,
    ) -> TuningReport:
        """Choose resolutions, rotations, stages and keeps for a recall at the least time.

        A sample is searched exactly, every funnel that could be made is simulated on it, the few
        that are worth it are built and measured on the table, and the best becomes the funnel.
        What lost and was built for this goes again; what was there before stays. A run that is
        stopped goes on where it was when it is called again.

        Parameters
        ----------
        recall
            Share of the exact top `k` to be found, 0.5 to below 1; None is 0.99.
        queries
            (n, dims) float32 or what converts to it; half choose (at most 200, more for recalls
            above 0.995), the others check. ``"log"`` takes
            those that were logged, ``"rows"`` rows of the table. None takes the log where it has
            enough, else rows, and says so: rows are not queries.
        budget
            Limits: a `Budget`, or a mapping with some of ``memory`` and ``storage`` (bytes),
            ``build`` (seconds) and ``latency`` (milliseconds; then the funnel that finds most
            within it is chosen).
        max_miss, judgments
            Choose stages and cutoff together: both lose at most this share of the relevant rows
            among the exact top `k`, and the funnel is certified. It must have a calibration.
        funnel
            Its name; None is ``<table>_search``. One of that name is replaced, and keeps its
            model and returned columns.
        storage, allow_rewrite
            As for `add_resolution`.
        sample
            Rows that are simulated with; all of them where the table has no more.
        on_copy
            Build and measure on a copy of so many rows, and change nothing in the table.
        dry_run
            Simulate and build nothing; times are then what a run before has measured on the
            machine, else those of a usual one.
        measure_again
            Measure anew what the engine charges, which a run before has kept.
        progress
            True shows a bar; a callable is told (steps done, steps in all).
        on_step
            Told of each step in words.

        Raises
        ------
        InvalidInput
            If an argument cannot be used, the queries are too few (the message has the number),
            or nothing keeps to the budget.
        CalibrationError, NotCalibrated
            If no funnel can carry `max_miss`.
        """
