"""The part of a table in Qdrant that draws samples and examines them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.doctor.diagnosis import Diagnosis
from funnelvec.doctor.examine import STEPS, examine
from funnelvec.doctor.limits import check, check_whole
from funnelvec.engines import options
from funnelvec.engines.base import Progress
from funnelvec.engines.keys import key_names
from funnelvec.engines.progress import reporting
from funnelvec.engines.qdrant import names
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.conditions import without_ids
from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.deployment import BATCH
from funnelvec.engines.qdrant.payload import from_payload
from funnelvec.reports import Sample

__all__ = ["PAGE", "QdrantExamining"]

#: Ids of points in one answer.
PAGE = 10_000


class QdrantExamining:
    """`sample` and `doctor`; see `funnelvec.engines.base.Table`."""

    name: str
    vector: str
    _collection: Collection

    if TYPE_CHECKING:

        def _vector(self, *, fresh: bool = False) -> Vector: ...
        def _with_funnels(self, found: Diagnosis, *, seed: int) -> Diagnosis: ...

    def sample(self, count: int = 10_000, *, seed: int = 0) -> Sample:
        """Draw rows at random: the ids of all are read, and the vectors of those drawn."""
        count, _, seed = check(sample=check_whole(count, "count", 1, 1_000_000), seed=seed, least=1)
        there, vectors, rows = self._random_rows(count, seed=seed)
        hubs = self._hubs_of(there)
        return Sample(
            ids=tuple(self._keys(there)),
            vectors=vectors,
            rows=rows,
            exact=True,
            hubs=None if hubs is None else hubs.astype(np.float32),
        )

    def _random_rows(
        self, count: int, *, seed: int
    ) -> tuple[list[names.PointId], npt.NDArray[np.float32], int]:
        """Some points at random, their vectors, and how many points there are."""
        column, ids = self._vector().column, self._ids()
        rng = np.random.default_rng(seed)
        picked = [ids[row] for row in rng.choice(len(ids), min(count, len(ids)), replace=False)]
        read = self._read_vectors(picked, column.name)
        there = [id for id in picked if id in read]
        matrix = [read[id] for id in there] or np.empty((0, column.base.dims))
        return there, np.asarray(matrix, np.float32), len(ids)

    def doctor(
        self,
        *,
        sample: int = 10_000,
        queries: int = 500,
        seed: int = 0,
        funnels: bool = True,
        progress: Progress = False,
    ) -> Diagnosis:
        """Examine a sample of the vectors; under cosine Qdrant keeps them without their length."""
        check(sample=sample, queries=queries, seed=seed)
        options.check_progress(progress)
        options.check_flag(funnels, "funnels")
        column = self._vector().column
        with reporting(progress, STEPS + 1, "examining", unit="steps") as tell:
            drawn = self.sample(sample, seed=seed)
            tell(1)
            found = examine(
                drawn.vectors,
                metric=column.metric,
                sample=sample,
                queries=queries,
                seed=seed,
                ids=drawn.ids,
                code=column.code,
                table=self.name,
                vector=self.vector,
                rows=drawn.rows,
                rows_exact=drawn.exact,
                progress=lambda done, total: tell(done + 1),
            )
            return self._with_funnels(found, seed=seed) if funnels else found

    def _ids(self) -> list[names.PointId]:
        """Ids of all points that are rows."""
        found: list[names.PointId] = []
        outside, offset = without_ids(self._collection.reserved), None
        size = min(PAGE, self._collection.info.limits.rows)
        while True:
            page, offset = self._collection.deployment.scroll(
                self.name, filter=outside, limit=size, offset=offset, vectors=()
            )
            found += [record.id for record in page]
            if offset is None:
                return found

    def _hubs_of(self, ids: Sequence[names.PointId]) -> npt.NDArray[np.float64] | None:
        """How much of a hub each of some points is; None where nobody measures that."""
        hub = self._vector().hub
        if hub is None or hub.state != "ready":
            return None
        found: dict[names.PointId, float] = {}
        wanted = list(dict.fromkeys(ids))
        for start in range(0, len(wanted), BATCH):
            records = self._collection.deployment.retrieve(
                self.name, wanted[start : start + BATCH], payload=True, vectors=()
            )
            found |= {each.id: float(each.payload.get(hub.key) or 0.0) for each in records}
        return np.array([found.get(id, 0.0) for id in ids])

    def _read_vectors(
        self, ids: Sequence[names.PointId], name: str
    ) -> dict[names.PointId, npt.NDArray[np.float32]]:
        """Read one vector of some points, those that have it."""
        found: dict[names.PointId, npt.NDArray[np.float32]] = {}
        for start in range(0, len(ids), BATCH):
            some = ids[start : start + BATCH]
            records = self._collection.deployment.retrieve(
                self.name, some, payload=False, vectors=[name]
            )
            for record in records:
                if record.vectors.get(name) is not None:
                    found[record.id] = np.asarray(record.vectors[name], np.float32)
        return {id: found[id] for id in ids if id in found}

    def _keys(self, ids: Sequence[names.PointId]) -> list[Any]:
        """Keys of rows, by the ids of their points."""
        definition = self._collection.definition()
        kind = definition.key_kind
        if not names.needs_payload(kind):
            return [names.key_of(id, kind) for id in ids]
        keys: dict[names.PointId, Any] = {}
        columns = key_names(definition.key)
        for start in range(0, len(ids), BATCH):
            for record in self._collection.deployment.retrieve(
                self.name, ids[start : start + BATCH], payload=True, vectors=()
            ):
                parts = tuple(
                    from_payload(record.payload.get(names.payload_key(c)), definition.kinds[c])
                    for c in columns
                )
                keys[record.id] = parts[0] if isinstance(kind, str) else parts
        return [keys[id] for id in ids]
