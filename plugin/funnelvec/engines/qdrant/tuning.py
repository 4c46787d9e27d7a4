"""The part of a table in Qdrant that a tuning run asks for what only the engine knows."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.codes import Rotation
from funnelvec.doctor.fit import Found, Tuned
from funnelvec.engines.qdrant.compile import scan_request
from funnelvec.engines.qdrant.names import point_id
from funnelvec.engines.recall import bootstrap_interval
from funnelvec.engines.store import long_funnel
from funnelvec.engines.tuned import Tuning, rule_of
from funnelvec.tuning.ground import KeptFunnel, ScoreRule

if TYPE_CHECKING:
    from qdrant_client import models

    from funnelvec.engines.qdrant.collection import Collection
    from funnelvec.engines.qdrant.compile import Plan
    from funnelvec.engines.qdrant.definition import Vector
    from funnelvec.engines.qdrant.names import PointId
    from funnelvec.engines.store import NamedFunnel

__all__ = ["QdrantTuning"]


class QdrantTuning(Tuning):
    """`tune`; see `funnelvec.engines.base.Table`."""

    _collection: Collection

    if TYPE_CHECKING:

        def count(self) -> int: ...
        def _vector(self, *, fresh: bool = False) -> Vector: ...
        def _funnel(self, name: str | None) -> NamedFunnel: ...
        def _change(self, how: Callable[[Vector], Vector]) -> None: ...
        def _ids(self) -> list[PointId]: ...
        def _plan(self, vector: Vector, named: NamedFunnel) -> Plan: ...
        def _timed(self, request: models.QueryRequest) -> tuple[list[Any], float]: ...
        def _drawn(
            self, vector: Vector, named: NamedFunnel, matrix: None, *, size: int, seed: int,
            among: list[PointId] | None = None,
        ) -> list[tuple[npt.NDArray[np.float32], PointId | None]]: ...  # fmt: skip
        def _compared(
            self, plan: Plan, query: npt.NDArray[np.float32], itself: PointId | None, *, k: int,
            rows: int, filter: None,
        ) -> tuple[list[float], tuple[float, float]] | None: ...  # fmt: skip

    def _engine_name(self) -> str:
        return "qdrant"

    def _funnels_now(self) -> dict[str, KeptFunnel]:
        return {
            name: KeptFunnel(str(each.funnel), each.model, each.returns)
            for name, each in self._vector(fresh=True).funnels.items()
        }

    def _score_rule(self, model: str | None) -> ScoreRule:
        """What a funnel of this model that is made now takes from its calibrations."""
        vector = self._vector(fresh=True)
        return rule_of(vector.calibration(long_funnel(vector.column.base, model)))

    def _worst(
        self, query: npt.NDArray[np.float32], k: int, *, own: Any, model: str | None
    ) -> float:
        """The corrected score of the k-th point of an exact search."""
        vector = self._vector()
        plan = self._plan(vector, long_funnel(vector.column.base, model))
        more = k + (own is not None)
        found, _ = self._timed(scan_request(plan, query, limit=more, rows=self.count()))
        kind = self._collection.definition().key_kind
        itself = None if own is None else point_id(own, kind)
        scores = [point.score for point in found if point.id != itself][:k]
        return float(plan.scorer(vector.column.stored(vector.column.base))(scores[-1]))

    def _tuned_now(self) -> dict[str, Tuned]:
        """What tuning runs have found of funnels that are what they were."""
        kept = self._vector(fresh=True)
        return {
            name: Tuned(**each["found"])
            for name, each in kept.tuned.items()
            if name in kept.funnels and str(kept.funnels[name].funnel) == each["funnel"]
        }

    def _keep_tuned(self, name: str, *, prices: object = None, **found: Any) -> None:
        """Keep what a run has found beside its funnel, with the rows that there are now."""
        now, ids = datetime.datetime.now(datetime.timezone.utc), self._ids()
        said = {**found, "rows": len(ids), "at": f"{now:%Y-%m-%dT%H:%M:%SZ}"}

        def keep(vector: Vector) -> Vector:
            if name not in vector.funnels:  # dropped meanwhile
                return vector
            funnel = str(vector.funnels[name].funnel)
            entry = {"funnel": funnel, "last": _newest(ids), "found": said}
            return replace(vector, tuned={**vector.tuned, name: entry})

        self._change(keep)

    def _recall_since(self, name: str, *, recent: bool, sample: int, k: int, seed: int) -> Found:
        """Recall on rows of all, or on those that came since the funnel was tuned."""
        vector, named = self._vector(fresh=True), self._funnel(name)
        found, among = Found(), None
        if recent:
            tuned = self._tuned_now().get(name)
            known = None if tuned is None else (tuned.rows, vector.tuned[name]["last"])
            found, among = _since(self._ids(), known)
            if not among:
                return found
        plan = self._plan(vector, named)
        drawn = self._drawn(vector, named, None, size=sample, seed=seed, among=among)
        rows = self.count()
        asked = [
            self._compared(plan, query, own, k=k, rows=rows, filter=None) for query, own in drawn
        ]
        answered = [each for each in asked if each is not None]
        if not answered:
            return found
        shares = np.array([shares[-1] for shares, _ in answered])
        low, high = bootstrap_interval(shares, seed=seed)
        return replace(
            found, recall=float(shares.mean()), low=low, high=high, queries=len(shares),
            ms=float(np.mean([sum(times) for _, times in answered])),
        )  # fmt: skip

    def _rotations_now(self) -> dict[str, Rotation]:
        kept = self._vector(fresh=True).rotations
        return {name: self._collection.map_of(each) for name, each in kept.items() if each.ready}

    def _scratch(self, name: str) -> None:
        """None: a collection beside the user's is not ours to make."""

    def _drop_scratch(self, name: str) -> None:
        """Nothing was made."""


def _growing(ids: list[PointId]) -> list[PointId]:
    """Ids that tell in which order rows came, in that order: numbers, or UUIDs with a time.

    Other keys have UUIDs made from them (version 5) or drawn (version 4), which tell nothing.
    """
    numbers = sorted(each for each in ids if isinstance(each, int))
    if numbers:
        return [*numbers]
    return sorted(e for e in ids if isinstance(e, str) and uuid.UUID(e).version == 7)


def _newest(ids: list[PointId]) -> PointId | None:
    return _growing(ids)[-1] if _growing(ids) else None


def _since(ids: list[PointId], known: tuple[int, Any] | None) -> tuple[Found, list[PointId]]:
    """Points that came since there were so many up to an id; without one the newest tenth."""
    order, count = _growing(ids), len(ids)
    rows, last = (count * 9 // 10, None) if known is None else known
    grown = count - rows
    newer = order[len(order) * 9 // 10 :]
    if known is not None:
        newer = [each for each in order if type(each) is type(last) and each > last]
    if newer and 2 * len(newer) >= grown:  # else ids do not grow, and few lie beyond the largest
        text = f"their ids are from {newer[0]} on"
        return Found(rows=count, since=len(newer), decided=text), newer
    if known is None or grown <= 0:
        text = "no row came since" if known is not None else "ids do not tell which are new"
        return Found(rows=count, since=None if known is None else 0, decided=text), []
    text = "counted; ids do not grow, so which rows they are is not known"
    return Found(rows=count, since=grown, decided=text), []
