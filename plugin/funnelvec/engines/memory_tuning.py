"""The part of a table in memory that a tuning run asks for what only the engine knows."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.codes import Rotation
from funnelvec.doctor.fit import Found, Tuned
from funnelvec.engines.memory_observing import compare
from funnelvec.engines.store import NamedFunnel, Store, long_funnel
from funnelvec.engines.tuned import Tuning, rule_of
from funnelvec.funnel import Funnel, Stage
from funnelvec.resolution import Resolution
from funnelvec.tuning.ground import KeptFunnel, ScoreRule

if TYPE_CHECKING:
    from funnelvec.calibration.stored import StoredCalibration
    from funnelvec.engines.memory_table import MemoryTable
    from funnelvec.types import Metric

__all__ = ["MemoryTuning"]


class MemoryTuning(Tuning):
    """`tune`; see `funnelvec.engines.base.Table`."""

    vector: str
    _base: Resolution
    _store: Store
    _funnels: dict[str, NamedFunnel]
    _funnel_owners: dict[str, str]
    _tuned: dict[str, tuple[NamedFunnel, Tuned]]

    if TYPE_CHECKING:

        @property
        def metric(self) -> Metric: ...
        def _alpha(self, named: NamedFunnel) -> float: ...
        def _calibration(self, named: NamedFunnel) -> StoredCalibration | None: ...

    def _engine_name(self) -> str:
        return "memory"

    def _funnels_now(self) -> dict[str, KeptFunnel]:
        return {
            name: KeptFunnel(str(each.funnel), each.model, each.returns)
            for name, each in self._funnels.items()
        }

    def _rotations_now(self) -> dict[str, Rotation]:
        return dict(self._store.rotations)

    def _score_rule(self, model: str | None) -> ScoreRule:
        """What a funnel of this model that is made now takes from its calibrations."""
        return rule_of(self._calibration(long_funnel(self._base, model)))

    def _worst(
        self, query: npt.NDArray[np.float32], k: int, *, own: Any, model: str | None
    ) -> float:
        """The corrected score of the k-th row of an exact search."""
        store, exact = self._store, Funnel((Stage(self._base),))
        alpha = self._alpha(long_funnel(self._base, model))
        (found,) = store.descend(query, exact, store.matching(None), alpha=alpha)
        others = found.rows != store.row_of(own)
        return float(found.scores[others][:k][-1])

    def _tuned_now(self) -> dict[str, Tuned]:
        """What tuning runs have found of funnels that are what they were."""
        return {
            name: tuned
            for name, (named, tuned) in self._tuned.items()
            if self._funnels.get(name) == named
        }

    def _keep_tuned(self, name: str, *, prices: object = None, **found: Any) -> None:
        """Keep what a run has found beside its funnel."""
        now = datetime.datetime.now(datetime.timezone.utc)
        tuned = Tuned(**found, rows=len(self._store), at=f"{now:%Y-%m-%dT%H:%M:%SZ}")
        self._tuned[name] = self._funnels[name], tuned

    def _recall_since(self, name: str, *, recent: bool, sample: int, k: int, seed: int) -> Found:
        """Recall on rows of all, or on those that came since; rows stay in the order they came."""
        store, named, rows = self._store, self._funnels[name], len(self._store)
        funnel = named.funnel
        tuned = self._tuned_now().get(name)
        start = rows * 9 // 10 if tuned is None else tuned.rows
        usable = store.comparable(funnel)
        found = Found()
        if recent:
            usable = usable[usable >= start]
            found = Found(rows=rows, since=rows - start, decided="in the order they were added")
        if not len(usable):
            return found
        picked = np.random.default_rng(seed).choice(usable, min(sample, len(usable)), replace=False)
        drawn = [(store.codes[store.base][row], int(row)) for row in picked]
        report = compare(
            store, funnel, drawn, rows=store.matching(None), k=k, seed=seed,
            alpha=self._alpha(named),
        )  # fmt: skip
        return replace(
            found, recall=report.recall, low=report.low, high=report.high, queries=report.queries,
            ms=report.funnel_ms + report.exact_ms,
        )  # fmt: skip

    def _scratch(self, name: str) -> MemoryTable:
        """An empty table of the same vectors, which no engine lists."""
        return type(self)(  # type: ignore[return-value]
            name,  # type: ignore[call-arg]
            base=self._base,
            vector=self.vector,
            metric=self.metric,
            key="id",
            kinds={"id": "integer"},
            funnel_owners={},
        )

    def _drop_scratch(self, name: str) -> None:
        """Nothing: it goes with whoever holds it."""
