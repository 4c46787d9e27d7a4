"""What engines share of ``tune``: its arguments, and its run on a table that answers at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from funnelvec.doctor.diagnosis import Diagnosis
from funnelvec.doctor.limits import check_whole
from funnelvec.engines import checks, options
from funnelvec.engines.asking import check_many, check_max_miss
from funnelvec.engines.base import Progress, default_funnel
from funnelvec.engines.progress import reporting
from funnelvec.errors import InvalidInput
from funnelvec.resolution import Resolution
from funnelvec.tuning.calls import Say, drive
from funnelvec.tuning.drift import fits
from funnelvec.tuning.ground import About, ScoreRule
from funnelvec.tuning.report import TuningReport
from funnelvec.tuning.run import STEPS, tune
from funnelvec.tuning.wanted import Budget, Wanted, check_wanted
from funnelvec.types import BaseCode, Judgments, Metric, Storage

if TYPE_CHECKING:
    from funnelvec.calibration.stored import StoredCalibration

__all__ = ["Tuning", "prepare", "rule_of", "telling"]


def prepare(table: Any, engine: str, recall: Any, given: Mapping[str, Any]) -> tuple[About, Wanted]:
    """Check the arguments of ``tune`` before anything is read.

    Raises
    ------
    InvalidInput
        If one cannot be used.
    """
    dims, code, metric = table.dims, table.code, table.metric
    queries, from_log = given["queries"], None
    if isinstance(queries, str):
        if queries not in ("log", "rows"):
            raise InvalidInput(f"queries are an array, 'log' or 'rows', not {queries!r:.50}")
        queries, from_log = None, queries == "log"
    if queries is not None:
        queries = check_many(queries, dims=dims, code=code, directed=metric == "cosine")
    name, miss, step = given["funnel"], given["max_miss"], given["on_step"]
    if step is not None and not callable(step):
        raise InvalidInput(f"on_step is called with a text, so not {step!r:.50}")
    options.check_progress(given["progress"])
    wanted = check_wanted(
        recall=recall,
        k=check_whole(given["k"], "k", 1, 1000),
        queries=queries,
        from_log=from_log,
        budget=given["budget"],
        max_miss=None if miss is None else check_max_miss(miss),
        judgments=given["judgments"],
        funnel=default_funnel(table.name)
        if name is None
        else checks.check_name(name, "the name of a funnel"),
        storage=options.check_storage(given["storage"]),
        allow_rewrite=options.check_flag(given["allow_rewrite"], "allow_rewrite"),
        sample=given["sample"],
        on_copy=given["on_copy"],
        dry_run=options.check_flag(given["dry_run"], "dry_run"),
        measure_again=options.check_flag(given["measure_again"], "measure_again"),
        seed=check_whole(given["seed"], "seed", 0, 2**31 - 1),
    )
    base = Resolution(dims, code)
    return About(table.name, table.vector, base, metric, table.key, engine), wanted


def rule_of(calibration: StoredCalibration | None) -> ScoreRule:
    """Return what a calibration asks of a funnel, and what its scores are less."""
    if calibration is None:
        return ScoreRule()
    return ScoreRule(int(getattr(calibration, "depth", 0)), calibration.alpha)


@contextlib.contextmanager
def telling(
    progress: Progress, on_step: Callable[[str], object] | None
) -> Iterator[Callable[[Say], None]]:
    """Lend a function that passes on what a run says."""
    with reporting(progress, STEPS, "tuning", unit="%") as tell:

        def say(step: Say) -> None:
            tell(step.done)
            if on_step is not None:
                on_step(step.text)

        yield say
        tell(STEPS)


class Tuning:
    """`tune` of a table that answers at once; see `funnelvec.engines.tunable.Tunable`."""

    if TYPE_CHECKING:  # what the table has and this method uses

        @property
        def code(self) -> BaseCode: ...
        @property
        def metric(self) -> Metric: ...

    def _engine_name(self) -> str:
        raise NotImplementedError

    def _machine(self) -> str | None:
        """What prices are kept by; None: they take no time here, or cannot be measured."""
        return None

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
        """Choose resolutions, rotations, stages and keeps for a recall at the least time."""
        given = {
            "k": k, "queries": queries, "budget": budget, "max_miss": max_miss,
            "judgments": judgments, "funnel": funnel, "storage": storage,
            "allow_rewrite": allow_rewrite, "sample": sample, "on_copy": on_copy,
            "dry_run": dry_run, "measure_again": measure_again, "seed": seed, "progress": progress,
            "on_step": on_step,
        }  # fmt: skip
        about, wanted = prepare(self, self._engine_name(), recall, given)
        with telling(progress, on_step) as say:
            return drive(tune(about, wanted), self, say=say)

    def _with_funnels(self, found: Diagnosis, *, seed: int) -> Diagnosis:
        """Add to a diagnosis whether the table's funnels still fit it."""
        steps = fits(found, seed=seed)
        return replace(found, funnels=drive(steps, self, say=lambda step: None))
