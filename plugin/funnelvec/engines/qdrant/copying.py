"""A collection copied into a new one with more vectors, for servers that can add none in place.

The new collection gets the configuration, the indexes and the points of the old one, and codes
beside them; then the name becomes an alias of it. Writes of ours are refused meanwhile. What other
programs write is caught up with: the two are compared point by point until they do not differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from qdrant_client import QdrantClient, models

from funnelvec.engines.qdrant.names import PointId
from funnelvec.engines.qdrant.vectors import Stored
from funnelvec.errors import CapabilityError, Conflict

__all__ = ["Copy", "recover", "target_of"]

#: Points in one page: they come with all their vectors and payload.
_PAGE = 250
#: Comparisons after which other programs write faster than can be caught up with.
_MOST_PASSES = 20
_MARK = "__fv"
#: What the progress is remembered as, among loads.
_LOADS, _LOAD = "_fv_loads", "_copy"


def target_of(name: str, taken: Sequence[str]) -> str:
    """Return a name for the copy of a collection that no other one has."""
    number = 1
    while f"{name}{_MARK}{number}" in taken:
        number += 1
    return f"{name}{_MARK}{number}"


def recover(client: QdrantClient, name: str, is_whole: Callable[[str], bool]) -> bool:
    """Make the alias of a finished copy whose client was stopped before it could; tell if so."""
    known = [each.name for each in client.get_collections().collections]
    ours = [each for each in known if each.rpartition(_MARK)[0] == name and is_whole(each)]
    if name in known or not ours:
        return False
    _point(client, {name: max(ours, key=lambda each: (len(each), each))})
    return True


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that is being made.

    Attributes
    ----------
    source, target
        Names of the collections; the source may be an alias.
    added
        What the target has beside the vectors of the source, and the index of each (`Kept.graph`).
    reserved
        Points that are no rows.
    """

    client: QdrantClient
    source: str
    target: str
    added: Mapping[Stored, Mapping[str, Any]]
    reserved: Sequence[PointId]

    def begin(self) -> None:
        """Make the target, with the definition of the source; nothing happens where it is there."""
        if self.client.collection_exists(self.target):
            if self._point_of(self.target, self.reserved[0]) is not None:
                return
            self.client.delete_collection(self.target)  # of somebody who was stopped in between
        found = self.client.get_collection(self.source)
        params = found.config.params
        if params.sharding_method == models.ShardingMethod.CUSTOM:
            raise CapabilityError(
                f"{self.source!r} has shards by key, which a copy would not have; upgrade the "
                "server to 1.18, which adds vectors in place"
            )
        self.client.create_collection(self.target, **_config(found, self.added))
        for path, index in found.payload_schema.items():
            schema: Any = index.params or index.data_type
            self.client.create_payload_index(self.target, path, schema)
        # The definition comes last of the reserved points: it says that the target is made.
        for id in reversed(self.reserved):
            point = self._point_of(self.source, id)
            if point is not None:
                (point.payload or {}).get(_LOADS, {}).pop(_LOAD, None)  # of the copy before
                self._write([point])

    def _point_of(self, collection: str, id: PointId) -> models.Record | None:
        found = self.client.retrieve(collection, [id], with_payload=True, with_vectors=True)
        return found[0] if found else None

    def fill(self, told: Callable[[int, int], None]) -> None:
        """Copy all points, from where this stopped before."""
        reserved = self._point_of(self.target, self.reserved[0])
        kept = ((reserved and reserved.payload) or {}).get(_LOADS, {}).get(_LOAD)
        offset, done = (None, 0) if kept is None else json.loads(kept)
        total = self.client.count(self.source, exact=True).count - len(self.reserved)
        if done < 0:
            return
        while True:
            page, after = self._page(self.source, offset)
            self._write(page)
            offset, done = after, done + len(page)
            self._remember(offset, done if after is not None else -1)
            told(done, max(total, done))
            if after is None:
                return

    def _remember(self, offset: PointId | None, done: int) -> None:
        # Told of the offset as text, since numbers of JSON are not exact in Qdrant.
        text = json.dumps([offset, done])
        self.client.set_payload(
            self.target, {_LOAD: text}, points=[self.reserved[0]], key=_LOADS, wait=True
        )

    def catch_up(self, told: Callable[[int], None]) -> None:
        """Compare until nothing differs.

        Raises
        ------
        Conflict
            If other programs write faster.
        """
        for number in range(_MOST_PASSES):
            changed = self._changed() + self._gone()
            told(changed)
            if changed == 0 and self._count(self.source) == self._count(self.target):
                return
            if number == _MOST_PASSES - 1:
                break
        raise Conflict(
            f"other programs write to {self.source!r} faster than the copy follows; stop them, "
            "then backfill() goes on with it"
        )

    def _changed(self) -> int:
        """Copy points that are not in the target as they are in the source."""
        count = 0
        for page in self._pages(self.source):
            ids = [record.id for record in page]
            found = self.client.retrieve(self.target, ids, with_payload=True, with_vectors=True)
            there = {record.id: record for record in found}
            other = [r for r in page if r.id not in there or not _same(r, there[r.id])]
            self._write(other)
            count += len(other)
        return count

    def _gone(self) -> int:
        """Remove points that are not in the source any more."""
        count = 0
        for page in self._pages(self.target, whole=False):
            ids = [record.id for record in page]
            found = self.client.retrieve(self.source, ids, with_payload=False)
            gone = list(set(ids) - {record.id for record in found})
            if gone:
                self.client.delete(self.target, models.PointIdsList(points=gone), wait=True)
            count += len(gone)
        return count

    def switch(self) -> None:
        """Remove the source, and have its name and its aliases stand for the target."""
        known = {a.alias_name: a.collection_name for a in self.client.get_aliases().aliases}
        source = known.get(self.source, self.source)
        wanted = {name: self.target for name, each in known.items() if each == source}
        if source != self.source:  # the name is an alias already: nobody sees a gap
            _point(self.client, wanted)
            self.client.delete_collection(source)
            return
        self.client.delete_collection(source)
        _point(self.client, {**wanted, source: self.target})

    def _count(self, collection: str) -> int:
        return self.client.count(collection, exact=True).count

    def _page(
        self, collection: str, offset: Any, *, whole: bool = True
    ) -> tuple[list[models.Record], PointId | None]:
        left_out = models.HasIdCondition(has_id=list(self.reserved))
        found, after = self.client.scroll(
            collection,
            scroll_filter=models.Filter(must_not=[left_out]),
            limit=_PAGE,
            offset=offset,
            with_payload=whole,
            with_vectors=whole,
        )
        return found, cast("PointId | None", after)

    def _pages(self, collection: str, *, whole: bool = True) -> Iterator[list[models.Record]]:
        offset = None
        while True:
            page, offset = self._page(collection, offset, whole=whole)
            if page:
                yield page
            if offset is None:
                return

    def _write(self, records: Sequence[models.Record]) -> None:
        if not records:
            return
        vectors = [_named(record) for record in records]
        for stored in self.added:
            base = stored.column.name
            rows = [row for row, each in enumerate(vectors) if each.get(base) is not None]
            if not rows:
                continue
            matrix = np.asarray([vectors[row][base] for row in rows], np.float32)
            encoded = stored.encode(matrix)
            there = stored.has_code(encoded)
            for place, row in enumerate(rows):
                if there[place]:
                    vectors[row] = {**vectors[row], stored.name: encoded[place].tolist()}
        points = [
            models.PointStruct(id=record.id, vector=vector, payload=record.payload or {})
            for record, vector in zip(records, vectors, strict=True)
        ]
        self.client.upsert(self.target, points, wait=True)


def _named(record: models.Record) -> dict[str, Any]:
    given: Any = record.vector or {}
    return given if isinstance(given, dict) else {"": given}


def _same(one: models.Record, other: models.Record) -> bool:
    """Whether a point of the target is that of the source, but for vectors that were added."""
    vectors, copied = _named(one), _named(other)
    return _equal(one.payload or {}, other.payload or {}) and all(
        name in copied and _alike(vector, copied[name]) for name, vector in vectors.items()
    )


def _equal(one: Any, other: Any) -> bool:
    """Whether two payloads are the same, up to the last bit of numbers, which Qdrant may change."""
    if isinstance(one, dict):
        same = isinstance(other, dict) and one.keys() == other.keys()
        return same and all(_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        same = isinstance(other, list) and len(one) == len(other)
        return same and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-15)
    return type(one) is type(other) and bool(one == other)


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, models.SparseVector):
        pairs = [sorted(zip(v.indices, v.values, strict=True)) for v in (one, other)]
        return bool(pairs[0] == pairs[1])
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    # Under cosine a vector is divided by its length once more, which may change the last bit.
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-6, atol=1e-7))


def _config(
    found: models.CollectionInfo, added: Mapping[Stored, Mapping[str, Any]]
) -> dict[str, Any]:
    """What `create_collection` takes for a collection like that one, with more vectors."""
    config, params = found.config, found.config.params
    given = params.vectors or {}
    vectors = {"": given} if isinstance(given, models.VectorParams) else dict(given)
    vectors |= {stored.name: stored.params(**graph) for stored, graph in added.items()}
    known: dict[str, Any] = {
        "vectors_config": vectors,
        "sparse_vectors_config": params.sparse_vectors,
        "shard_number": params.shard_number,
        "replication_factor": params.replication_factor,
        "write_consistency_factor": params.write_consistency_factor,
        "on_disk_payload": params.on_disk_payload,
        "hnsw_config": _diff(models.HnswConfigDiff, config.hnsw_config),
        "optimizers_config": _diff(models.OptimizersConfigDiff, config.optimizer_config),
        "wal_config": _diff(models.WalConfigDiff, config.wal_config),
        "quantization_config": config.quantization_config,
        "strict_mode_config": _diff(models.StrictModeConfig, config.strict_mode_config),
        "metadata": config.metadata,
    }
    return {name: value for name, value in known.items() if value is not None}


def _diff(kind: Any, given: Any) -> Any:
    if given is None:
        return None
    wanted = given.model_dump(exclude_none=True)
    return kind(**{name: value for name, value in wanted.items() if name in kind.model_fields})


def _point(client: QdrantClient, aliases: Mapping[str, str]) -> None:
    """Have aliases stand for collections, all at once."""
    client.update_collection_aliases(
        [
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(alias_name=alias, collection_name=collection)
            )
            for alias, collection in aliases.items()
        ]
    )
