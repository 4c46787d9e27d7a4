"""Qdrant Edge: collections in a folder, served by the engine inside this process.

What Edge leaves to its caller is done here: a lock on the folder, checks that nothing is written
that could not be found again (`funnelvec.engines.checks`), writes of at most 1,000 points, a flush
every few seconds and at close. Between two flushes points are safe from the death of the process,
but not from a power cut.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import qdrant_edge as edge
from qdrant_client import models

from funnelvec.engines.qdrant import translate
from funnelvec.engines.qdrant.client import index_schema
from funnelvec.engines.qdrant.deployment import BATCH, Info, Names, Points, Record, Scored
from funnelvec.engines.qdrant.folder import Folder, write
from funnelvec.engines.qdrant.names import PointId
from funnelvec.errors import EngineError, FunnelvecError
from funnelvec.types import ColumnKind

__all__ = ["FLUSH_SECONDS", "EdgeDeployment"]

#: How long a point may be safe from the death of the process only.
FLUSH_SECONDS = 5.0


class EdgeDeployment:
    """Collections in a folder; see `Deployment`."""

    name, persistent, slack = "edge", True, 0.0
    version: None = None

    def __init__(self, path: str) -> None:
        self._folder = Folder(path)
        self._shards: dict[str, edge.EdgeShard] = {}
        self._process = os.getpid()
        self._guard = threading.RLock()
        self._written: set[str] = set()
        self._closing = threading.Event()
        self._flusher: threading.Thread | None = None

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
        definition: str,
    ) -> None:
        """Make a collection; it appears when it is whole."""
        draft = self._folder.draft()
        try:
            with errors(), self._guard:
                shard = edge.EdgeShard.create(str(draft / "shard"), _config(vectors))
                for path, kind in indexes.items():
                    schema = index_schema(kind)
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
        with self._shard(collection) as shard:
            made = edge.UpdateOperation.create_dense_vector(
                name, kind.size, kind.distance, None, kind.datatype
            )
            shard.update(made)
        self.configure(collection, name, params)

    def configure(self, collection: str, name: str, params: models.VectorParams) -> None:
        """Change the index of a vector, which takes closing the collection and opening it."""
        vectors = {**self._configured(collection), name: params}
        self._configure(collection, vectors)
        self._reload(collection, vectors)

    def drop_vector(self, collection: str, name: str) -> None:
        """Remove a vector of all points."""
        with self._shard(collection) as shard:
            shard.update(edge.UpdateOperation.delete_vector_name(name))
        vectors = self._configured(collection)
        vectors.pop(name, None)
        self._configure(collection, vectors)

    def _reload(self, collection: str, vectors: Mapping[str, models.VectorParams]) -> None:
        with self._guard:
            with self._shard(collection) as shard:
                shard.flush()
                shard.close()
                del self._shards[collection]
            path = str(self._folder.of(collection) / "shard")
            with errors():
                self._shards[collection] = edge.EdgeShard.load(path, _config(vectors))

    @contextlib.contextmanager
    def _shard(self, collection: str) -> Iterator[edge.EdgeShard]:
        """The shard of a collection, opened when it is first wanted."""
        if os.getpid() != self._process:
            raise EngineError(
                "this Edge engine was opened before the process was forked, and would hang; open "
                "it after the fork, or start processes by spawning them"
            )
        with errors():
            shard = self._shards.get(collection)
            if shard is None:
                with self._guard:
                    shard = self._shards.get(collection)
                    if shard is None:
                        self._folder.content(collection, "definition.json")  # is it there at all?
                        path = str(self._folder.of(collection) / "shard")
                        shard = self._shards[collection] = edge.EdgeShard.load(path)
            yield shard

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
            self._update(collection, edge.UpdateOperation.upsert_points(some))

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
            self._update(collection, edge.UpdateOperation.update_vectors(listed, lacking))

    def delete(self, collection: str, ids: Sequence[PointId]) -> None:
        """Remove points."""
        gone = [translate.id_of(id) for id in ids]
        self._update(collection, edge.UpdateOperation.delete_points(cast("Any", gone)))

    def _update(self, collection: str, operation: edge.UpdateOperation) -> None:
        with self._guard, self._shard(collection) as shard:
            shard.update(operation)
            self._written.add(collection)
            if self._flusher is None:
                self._flusher = threading.Thread(target=self._flush_often, daemon=True)
                self._flusher.start()

    def _flush_often(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            self.flush()

    def flush(self) -> None:
        """Have everything that was written reach the disk."""
        with self._guard:
            for collection in tuple(self._written):
                with self._shard(collection) as shard:
                    shard.flush()
                self._written.discard(collection)

    def retrieve(
        self, collection: str, ids: Sequence[PointId], *, payload: bool, vectors: Names
    ) -> list[Record]:
        """Read points by id."""
        wanted: Any = [translate.id_of(id) for id in ids]
        with self._shard(collection) as shard:
            found = shard.retrieve(wanted, payload, list(vectors) or False)
        return [_record(each) for each in found]

    def query(self, collection: str, requests: Sequence[models.QueryRequest]) -> list[list[Scored]]:
        """Run searches in one call."""
        asked = [translate.request_of(request) for request in requests]
        with self._shard(collection) as shard:
            if len(asked) == 1:
                answers = [shard.query(asked[0])]
            else:
                answers = shard.query_batch(edge.QueryBatchRequest(asked)) if asked else []
        return [[Scored(_id(p.id), p.score, p.payload or {}) for p in each] for each in answers]

    def count(self, collection: str, filter: models.Filter | None) -> int:
        """Count the points that match."""
        wanted = None if filter is None else translate.filter_of(filter)
        with self._shard(collection) as shard:
            return shard.count(edge.CountRequest(exact=True, filter=wanted))

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
        with self._shard(collection) as shard:
            found, after = shard.scroll(request)
        return [_record(each) for each in found], None if after is None else _id(after)

    # -- what is kept beside the points ------------------------------------------------------

    def read(self, collection: str) -> str | None:
        """The definition, from its file."""
        return cast("str", self._folder.content(collection, "definition.json")["text"])

    def write(self, collection: str, text: str, *, version: int) -> None:
        """Keep a definition; nobody but this process can have changed it meanwhile."""
        with self._guard:
            kept = self._folder.content(collection, "definition.json")
            if kept["version"] == version - 1:
                content = {"version": version, "text": text}
                self._folder.keep(collection, "definition.json", content)

    def read_load(self, collection: str, load: str) -> str | None:
        """What is remembered of a load."""
        return cast("str | None", self._loads(collection).get(load))

    def write_load(self, collection: str, load: str, text: str) -> None:
        """Remember how far a load has come."""
        with self._guard:
            self._folder.keep(collection, "loads.json", {**self._loads(collection), load: text})

    def _loads(self, collection: str) -> dict[str, Any]:
        return cast("dict[str, Any]", self._folder.content(collection, "loads.json") or {})

    def parts(self, size: int) -> int:
        """None: bytes are kept in files."""
        return 0

    def keep_bytes(self, collection: str, token: str, content: bytes) -> None:
        """Keep bytes in a file beside the points."""
        with self._guard:
            self._folder.keep_bytes(collection, token, content)

    def read_bytes(self, collection: str, token: str, parts: int) -> bytes | None:
        """Read what `keep_bytes` kept."""
        return self._folder.bytes_of(collection, token)

    def drop_bytes(self, collection: str, token: str, parts: int) -> None:
        """Forget what `keep_bytes` kept."""
        with self._guard:
            self._folder.drop_bytes(collection, token)

    def settle(self, collection: str) -> None:
        """Build what indexes are due. Edge does that in this call and holds the whole process."""
        with self._guard, self._shard(collection) as shard:
            shard.optimize()
            shard.flush()
            self._written.discard(collection)

    def close(self) -> None:
        """Flush and close all collections, and let others have the folder."""
        if os.getpid() != self._process:
            return
        self._closing.set()
        if self._flusher is not None:
            self._flusher.join()
        with self._guard:
            while self._shards:
                _, shard = self._shards.popitem()
                with errors():
                    shard.flush()
                    shard.close()
            self._folder.close()


def _dumped(vectors: Mapping[str, models.VectorParams]) -> dict[str, Any]:
    return {name: each.model_dump(mode="json") for name, each in vectors.items()}


def _config(vectors: Mapping[str, models.VectorParams]) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={name: translate.params_of(each) for name, each in vectors.items()},
        optimizers=edge.EdgeOptimizersConfig(default_segment_number=1),
        max_search_threads=1,
    )


def _id(id: Any) -> PointId:
    return id if isinstance(id, int) else str(id)


def _record(found: Any) -> Record:
    given: Any = found.vector or {}
    vectors = given if isinstance(given, dict) else {"": given}
    return Record(_id(found.id), found.payload or {}, vectors)


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Turn Edge's errors, which have no types, into ours."""
    try:
        yield
    except FunnelvecError:
        raise
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise EngineError(f"Qdrant Edge refused: {error}") from error
