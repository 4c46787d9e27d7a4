"""The part of a table in Qdrant that a tuning run asks for what only the engine knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funnelvec.codes import Rotation
from funnelvec.engines.tuned import Tuning
from funnelvec.tuning.ground import KeptFunnel

if TYPE_CHECKING:
    from funnelvec.engines.qdrant.collection import Collection
    from funnelvec.engines.qdrant.definition import Vector

__all__ = ["QdrantTuning"]


class QdrantTuning(Tuning):
    """`tune`; see `funnelvec.engines.base.Table`."""

    _collection: Collection

    if TYPE_CHECKING:

        def _vector(self, *, fresh: bool = False) -> Vector: ...

    def _engine_name(self) -> str:
        return "qdrant"

    def _funnels_now(self) -> dict[str, KeptFunnel]:
        return {
            name: KeptFunnel(str(each.funnel), each.model, each.returns)
            for name, each in self._vector(fresh=True).funnels.items()
        }

    def _rotations_now(self) -> dict[str, Rotation]:
        kept = self._vector(fresh=True).rotations
        return {name: self._collection.map_of(each) for name, each in kept.items() if each.ready}

    def _scratch(self, name: str) -> None:
        """None: a collection beside the user's is not ours to make."""

    def _drop_scratch(self, name: str) -> None:
        """Nothing was made."""
