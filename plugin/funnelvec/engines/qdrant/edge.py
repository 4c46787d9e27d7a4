"""Qdrant Edge: collections in a folder, served by the engine inside this process.

What Edge leaves to its caller is done here: a lock on the folder, checks that nothing is written
that could not be found again (`funnelvec.engines.checks`), writes of at most 1,000 points, a flush
every few seconds and at close. Between two flushes points are safe from the death of the process,
but not from a power cut. Indexes of more than some thousand rows are built by another process, in
a copy (`funnelvec.engines.qdrant.building`), while this one goes on searching and writing.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge
from qdrant_client import models

from funnelvec.engines.qdrant import translate
from funnelvec.engines.qdrant.banks import KeptHub
from funnelvec.engines.qdrant.compile import Template
from funnelvec.engines.qdrant.conditions import holding_filter
from funnelvec.engines.qdrant.deployment import (
    BATCH,
    Found,
    Info,
    Names,
    Points,
    Record,
    Scored,
    Search,
    Told,
)
from funnelvec.engines.qdrant.folder import Folder, write
from funnelvec.engines.qdrant.indexes import index_schema
from funnelvec.engines.qdrant.names import PointId
from funnelvec.engines.qdrant.shards import Shards, config_of, errors
from funnelvec.types import ColumnKind

__all__ = ["EdgeDeployment"]


class EdgeDeployment:
    """Collections in a folder; see `Deployment`."""

    name, persistent, slack = "edge", True, 0.0
    version: None = None
    one_writer = "the engine in this process holds all of it while it writes"

    def __init__(self, path: str) -> None:
        self._folder = Folder(path)
        self._shards = Shards(self._folder)

    # -- collections -------------------------------------------------------------------------

    def collections(self) -> list[str]:
        """Names of all collections."""
        return self._folder.collections()

    def info(self, collection: str) -> Info | None:
        """What a collection is, from what it was made with."""
        if collection not in self.collections():
            return None
        return Info(vectors=self._configured(collection))

    def _configured(self, collection: str) -> dict[str, models.VectorParams]:
        kept = self._folder.content(collection, "vectors.json")
        return {name: models.VectorParams.model_validate(each) for name, each in kept.items()}

    def _configure(self, collection: str, vectors: Mapping[str, models.VectorParams]) -> None:
        self._folder.keep(collection, "vectors.json", _dumped(vectors))

    def create(
        self,
        collection: str,
        vectors: Mapping[str, models.VectorParams],
        *,
        indexes: Mapping[str, ColumnKind],
        unique: str | None,
        definition: str,
    ) -> None:
        """Make a collection; it appears when it is whole."""
        draft = self._folder.draft()
        try:
            with errors(), self._shards.guard:
                shard = edge.EdgeShard.create(str(draft / "shard"), config_of(vectors))
                for path, kind in indexes.items():
                    schema = index_schema(kind, unique=path == unique)
                    if schema is not None:
                        made = translate.index_of(schema)
                        shard.update(edge.UpdateOperation.create_field_index(path, made))
                shard.flush()
                shard.close()
            write(draft / "vectors.json", _dumped(vectors))
            write(draft / "definition.json", {"version": 1, "text": definition})
            self._folder.admit(draft, collection)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def add_vector(self, collection: str, name: str, params: models.VectorParams) -> None:
        """Add a vector in place; its index and quantization come with a reload."""
        kind = translate.params_of(params)
        made = edge.UpdateOperation.create_dense_vector(
            name, kind.size, kind.distance, None, kind.datatype
        )
        with self._shards.changing(collection):
            self._shards.update(collection, made)
            self.configure(collection, name, params)

    def configure(self, collection: str, name: str, params: models.VectorParams) -> None:
        """Change the index of a vector, which takes closing the collection and opening it."""
        with self._shards.changing(collection):
            vectors = {**self._configured(collection), name: params}
            self._configure(collection, vectors)
            self._shards.reload(collection, vectors)

    def drop_vector(self, collection: str, name: str) -> None:
        """Remove a vector of all points."""
        with self._shards.changing(collection):
            self._shards.update(collection, edge.UpdateOperation.delete_vector_name(name))
            vectors = self._configured(collection)
            vectors.pop(name, None)
            self._configure(collection, vectors)

    # -- points ------------------------------------------------------------------------------

    def upsert(self, collection: str, points: Points) -> None:
        """Write whole points."""
        for start in range(0, len(points.ids), BATCH):
            some = [
                edge.Point(
                    translate.id_of(points.ids[row]),
                    points.vector(row),
                    dict(points.payloads[row]),
                )
                for row in range(start, min(start + BATCH, len(points.ids)))
            ]
            self._shards.update(collection, edge.UpdateOperation.upsert_points(some))

    def fill(self, collection: str, points: Points) -> None:
        """Write vectors of points that do not have them yet."""
        (name,) = points.vectors
        listed = [
            edge.PointVectors(translate.id_of(id), vector)
            for id, vector in ((id, points.vector(row)) for row, id in enumerate(points.ids))
            if vector
        ]
        lacking = edge.Filter(must_not=[edge.HasVectorCondition(name)])
        if listed:
            self._shards.update(collection, edge.UpdateOperation.update_vectors(listed, lacking))

    def delete(self, collection: str, ids: Sequence[PointId]) -> None:
        """Remove points."""
        gone = [translate.id_of(id) for id in ids]
        self._shards.update(collection, edge.UpdateOperation.delete_points(cast("Any", gone)))

    def add_number(self, collection: str, hub: KeptHub) -> None:
        """Have an index on a number."""
        schema = index_schema("number", unique=True)
        assert schema is not None  # numbers have one
        made = edge.UpdateOperation.create_field_index(hub.path, translate.index_of(schema))
        self._shards.update(collection, made)

    def set_numbers(self, collection: str, hub: KeptHub, numbers: Mapping[PointId, float]) -> None:
        """Write numbers, each into a payload of its own."""
        empty = edge.IsEmptyCondition(hub.path)
        for id, number in numbers.items():
            only = edge.Filter(must=[edge.HasIdCondition({translate.id_of(id)}), empty])
            self._shards.update(
                collection, edge.UpdateOperation.set_payload_by_filter(only, {hub.key: number})
            )

    def drop_number(self, collection: str, hub: KeptHub, but: Sequence[PointId]) -> None:
        """Remove a number of all payloads, and its index."""
        held = translate.filter_of(holding_filter(hub.path, but))
        gone = edge.UpdateOperation.delete_payload_by_filter(held, [hub.path])
        self._shards.update(collection, gone)
        self._shards.update(collection, edge.UpdateOperation.delete_field_index(hub.path))

    def retrieve(
        self, collection: str, ids: Sequence[PointId], *, payload: bool, vectors: Names
    ) -> list[Record]:
        """Read points by id."""
        wanted: Any = [translate.id_of(id) for id in ids]
        found = self._shards.read(
            collection, lambda shard: shard.retrieve(wanted, payload, list(vectors) or False)
        )
        return [_record(each) for each in found]

    def query(self, collection: str, requests: Sequence[models.QueryRequest]) -> list[list[Scored]]:
        """Run searches in one call."""
        asked = [translate.request_of(request) for request in requests]

        def ask(shard: edge.EdgeShard) -> list[list[edge.ScoredPoint]]:
            if len(asked) == 1:
                return [shard.query(asked[0])]
            return shard.query_batch(edge.QueryBatchRequest(asked)) if asked else []

        return [
            [Scored(_id(p.id), p.score, p.payload or {}) for p in each]
            for each in self._shards.read(collection, ask)
        ]

    def prepare(self, collection: str, template: Template) -> Search:
        """Have a search ready that is asked over and over."""
        request_of, ask = translate.prepared(template), self._shards.query

        def search(
            vectors: Sequence[npt.NDArray[np.float32]], threshold: float | None
        ) -> Sequence[Found]:
            return ask(collection, request_of(vectors, threshold))

        return search

    def count(self, collection: str, filter: models.Filter | None) -> int:
        """Count the points that match."""
        wanted = None if filter is None else translate.filter_of(filter)
        request = edge.CountRequest(exact=True, filter=wanted)
        return self._shards.read(collection, lambda shard: shard.count(request))

    def scroll(
        self,
        collection: str,
        *,
        filter: models.Filter | None,
        limit: int,
        offset: PointId | None,
        vectors: Names,
    ) -> tuple[list[Record], PointId | None]:
        """Read points in the order of ids."""
        request = edge.ScrollRequest(
            offset=None if offset is None else translate.id_of(offset),
            limit=limit,
            filter=None if filter is None else translate.filter_of(filter),
            with_payload=False,
            with_vector=list(vectors) or False,
        )
        found, after = self._shards.read(collection, lambda shard: shard.scroll(request))
        return [_record(each) for each in found], None if after is None else _id(after)

    # -- what is kept beside the points ------------------------------------------------------

    def read(self, collection: str) -> str | None:
        """The definition, from its file."""
        return cast("str", self._folder.content(collection, "definition.json")["text"])

    def write(self, collection: str, text: str, *, version: int) -> None:
        """Keep a definition; nobody but this process can have changed it meanwhile."""
        with self._shards.guard:
            kept = self._folder.content(collection, "definition.json")
            if kept["version"] == version - 1:
                content = {"version": version, "text": text}
                self._folder.keep(collection, "definition.json", content)

    def read_load(self, collection: str, load: str) -> str | None:
        """What is remembered of a load."""
        return cast("str | None", self._loads(collection).get(load))

    def write_load(self, collection: str, load: str, text: str) -> None:
        """Remember how far a load has come."""
        with self._shards.guard:
            self._folder.keep(collection, "loads.json", {**self._loads(collection), load: text})

    def _loads(self, collection: str) -> dict[str, Any]:
        return cast("dict[str, Any]", self._folder.content(collection, "loads.json") or {})

    def parts(self, size: int) -> int:
        """None: bytes are kept in files."""
        return 0

    def keep_bytes(self, collection: str, token: str, content: bytes) -> None:
        """Keep bytes in a file beside the points."""
        with self._shards.guard:
            self._folder.keep_bytes(collection, token, content)

    def read_bytes(self, collection: str, token: str, parts: int) -> bytes | None:
        """Read what `keep_bytes` kept."""
        return self._folder.bytes_of(collection, token)

    def drop_bytes(self, collection: str, token: str, parts: int) -> None:
        """Forget what `keep_bytes` kept."""
        with self._shards.guard:
            self._folder.drop_bytes(collection, token)

    def settle(self, collection: str, told: Told = lambda seconds: None) -> None:
        """Build what indexes are due, in another process where that takes long."""
        self._shards.settle(collection, self._configured(collection), told)

    def flush(self) -> None:
        """Have everything that was written reach the disk."""
        self._shards.flush()

    def close(self) -> None:
        """Flush and close all collections, and let others have the folder."""
        if not self._shards.forked:
            self._shards.close()
            self._folder.close()


def _dumped(vectors: Mapping[str, models.VectorParams]) -> dict[str, Any]:
    return {name: each.model_dump(mode="json") for name, each in vectors.items()}


def _id(id: Any) -> PointId:
    return id if isinstance(id, int) else str(id)


def _record(found: Any) -> Record:
    given: Any = found.vector or {}
    vectors = given if isinstance(given, dict) else {"": given}
    return Record(_id(found.id), found.payload or {}, vectors)
