"""The part of a table in memory that fits rotations."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy.typing as npt

from funnelvec.engines import checks
from funnelvec.engines.base import Progress
from funnelvec.engines.rotating import check_fit, check_unkept, check_unused, fit_drawn
from funnelvec.engines.store import Store
from funnelvec.fitting.report import RotationReport, RotationStatus
from funnelvec.reports import Sample
from funnelvec.types import BaseCode, Metric

__all__ = ["MemoryRotating"]


class MemoryRotating:
    """`fit_rotation`, `rotations`, `drop_rotation`; see `funnelvec.engines.base.Table`."""

    name: str
    vector: str
    dims: int
    _store: Store
    _fits: dict[str, tuple[RotationReport, datetime.datetime]]

    if TYPE_CHECKING:  # what the table has and these methods use

        @property
        def code(self) -> BaseCode: ...
        def _metric_for(self, wanted: Metric | None) -> Metric: ...
        def sample(self, count: int = 10_000, *, seed: int = 0) -> Sample: ...

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
        """Fit a rotation to a sample of the rows, measure it, and keep it."""
        asked = check_fit(
            name=name, kind=kind, width=dims, then=then, queries=queries, sample=sample, seed=seed,
            dry_run=dry_run, progress=progress, dims=self.dims,
            metric=self._metric_for(checks.check_metric(metric)), code=self.code,
        )  # fmt: skip
        if not asked.dry_run:
            check_unkept(
                kept=name in self._store.rotations, column=f"{self.name}.{self.vector}", name=name
            )
        rotation, report = fit_drawn(asked, self.sample, progress)
        if asked.dry_run:
            return report
        report = replace(report, kept=True)
        self._store.rotations[name] = rotation
        self._fits[name] = report, datetime.datetime.now(datetime.timezone.utc)
        return report

    def rotations(self) -> list[RotationStatus]:
        """List the fitted rotations."""
        found = []
        for name, rotation in sorted(self._store.rotations.items()):
            report, moment = self._fits[name]
            found.append(
                RotationStatus(
                    rotation=name,
                    kind=" > ".join(filter(None, (rotation.kind, rotation.chain))),
                    dims=rotation.dims,
                    width=rotation.width,
                    cuttable=rotation.cuttable,
                    metric=rotation.metric,
                    prefix_metric=rotation.prefix_metric,
                    recommended=report.recommended,
                    rows=rotation.rows,
                    queries=rotation.queries,
                    fitted_on=rotation.fitted_on,
                    fitted_at=moment,
                    used_by=self._users(name),
                )
            )
        return found

    def drop_rotation(self, name: str) -> None:
        """Forget a fitted rotation that no resolution uses."""
        checks.check_name(name, "the name of a rotation")
        check_unused(name, known=self._store.rotations, users=self._users(name))
        del self._store.rotations[name], self._fits[name]

    def _users(self, name: str) -> tuple[str, ...]:
        return tuple(sorted(str(each) for each in self._store.codes if each.rotation == name))
