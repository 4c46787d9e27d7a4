"""The part of a table in memory that a tuning run asks for what only the engine knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funnelvec.codes import Rotation
from funnelvec.engines.store import NamedFunnel, Store
from funnelvec.engines.tuned import Tuning
from funnelvec.resolution import Resolution
from funnelvec.tuning.ground import KeptFunnel

if TYPE_CHECKING:
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

    if TYPE_CHECKING:

        @property
        def metric(self) -> Metric: ...

    def _engine_name(self) -> str:
        return "memory"

    def _funnels_now(self) -> dict[str, KeptFunnel]:
        return {
            name: KeptFunnel(str(each.funnel), each.model, each.returns)
            for name, each in self._funnels.items()
        }

    def _rotations_now(self) -> dict[str, Rotation]:
        return dict(self._store.rotations)

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
