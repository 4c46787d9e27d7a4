"""A server, or the client's local mode, through `qdrant_client`."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal

from funnelvec.engines.qdrant.answers import TIED, levelled, record_of, scored, without_params
from funnelvec.engines.qdrant.banks import KeptHub
from funnelvec.engines.qdrant.compile import Template
from funnelvec.engines.qdrant.conditions import holding_filter
from funnelvec.engines.qdrant.copying import recover
from funnelvec.engines.qdrant.definition import Definition
from funnelvec.engines.qdrant.deployment import (
    Found,
    Info,
    Names,
    Points,
    Record,
    Scored,
    Search,
    Told,
)
from funnelvec.engines.qdrant.failing import errors
from funnelvec.engines.qdrant.features import ADD_VECTOR, CONDITIONAL, UNLINKED, check_version
from funnelvec.engines.qdrant.indexes import index_schema
from funnelvec.engines.qdrant.names import DEFINITION, PointId, chunk_id
from funnelvec.engines.qdrant.reserved import (
    DEFINITION_KEY,
    PART_KEY,
    definition_change,
    definition_point,
    info_of,
    joined,
    standing_at,
)
from funnelvec.types import ColumnKind

__all__ = ["ClientDeployment"]

#: Payload key of the reserved point for loads.
_LOADS = "_fv_loads"

#: Bytes in a part of a fitted rotation: servers take requests of 32 MB.
_PART_BYTES = 1 << 20
#: Seconds between two looks at a server that builds indexes.
_LOOK = 0.2


class ClientDeployment:
    """Collections behind a `QdrantClient`; see `Deployment`."""

    def __init__(self, client: QdrantClient, *, owned: bool) -> None:
        self.client, self._owned = client, owned
        self._local = isinstance(client._client, (QdrantLocal, AsyncQdrantLocal))
        self.persistent = not self._local or getattr(client._client, "location", "") != ":memory:"
        self.name = "qdrant-local" if self._local else "qdrant"
        self.slack = TIED if self._local else 0.0
        self.one_writer = "it is in this process" if self._local else None
        with errors():
            self.version = check_version(client.info().version)

    def collections(self) -> list[str]:
        """Names of all collections."""
        with errors():
            return [each.name for each in self.client.get_collections().collections]

    def info(self, collection: str) -> Info | None:
        """What a collection is."""
        with errors():
            if not self.client.collection_exists(collection) and not self._recovered(collection):
                return None
            found = info_of(self.client.get_collection(collection))
        return replace(found, tells_indexes=not self._local)

    def _recovered(self, collection: str) -> bool:
        """Whether a finished copy of it waited for its name; see `copying`."""

        def is_whole(copy: str) -> bool:
            text = self.read(copy)
            return text is not None and Definition.from_text(text).copying is None

        return recover(self.client, collection, is_whole)

    def create(
        self,
        collection: str,
        vectors: Mapping[str, models.VectorParams],
        *,
        indexes: Mapping[str, ColumnKind],
        unique: str | None,
        definition: str,
    ) -> None:
        """Make a collection; where something fails on the way, it is removed again."""
        unlinked = unique if self.version >= UNLINKED else None
        with errors():
            self.client.create_collection(collection, vectors_config=dict(vectors))
            try:
                for path, kind in {} if self._local else indexes.items():
                    schema = index_schema(kind, unique=path == unlinked)
                    if schema is not None:
                        self.client.create_payload_index(collection, path, schema)
                self._first(collection, definition)  # nobody else knows of it yet
            except BaseException:
                self.client.delete_collection(collection)
                raise

    def add_vector(self, collection: str, name: str, params: models.VectorParams) -> None:
        """Add a vector in place, which servers can from 1.18 on."""
        self.version.require(
            ADD_VECTOR,
            f"adding the vector {name!r} to a collection",
            "upgrade the server, or create the collection anew",
        )
        dense = models.DenseVectorConfig(
            size=params.size, distance=params.distance, datatype=cast("Any", params.datatype)
        )
        with errors():
            self.client.create_vector_name(
                collection, name, models.DenseVectorNameConfig(dense=dense)
            )
        self.configure(collection, name, params)

    def configure(self, collection: str, name: str, params: models.VectorParams) -> None:
        """Change the index of a vector."""
        changed = models.VectorParamsDiff(
            hnsw_config=cast("models.HnswConfigDiff", params.hnsw_config),
            quantization_config=cast("Any", params.quantization_config),
            on_disk=params.on_disk,
        )
        with errors():
            self.client.update_collection(collection, vectors_config={name: changed})

    def drop_vector(self, collection: str, name: str) -> None:
        """Remove a vector of all points."""
        self.version.require(
            ADD_VECTOR,
            f"removing the vector {name!r} from a collection",
            "upgrade the server, or create the collection anew",
        )
        with errors():
            self.client.delete_vector_name(collection, name)

    def upsert(self, collection: str, points: Points) -> None:
        """Write whole points."""
        # The numbers are ours: checking every one of them again takes as long as reading them.
        listed = [
            models.PointStruct.model_construct(
                id=id, vector=points.vector(row), payload=dict(payload)
            )
            for row, (id, payload) in enumerate(zip(points.ids, points.payloads, strict=True))
        ]
        with errors():
            self.client.upsert(collection, listed, wait=True)

    def fill(self, collection: str, points: Points) -> None:
        """Write vectors of points that do not have them yet."""
        (name,) = points.vectors
        listed = [
            models.PointVectors(id=id, vector=vector)
            for id, vector in ((id, points.vector(row)) for row, id in enumerate(points.ids))
            if vector
        ]
        if not listed:
            return
        lacking = models.Filter(must_not=[models.HasVectorCondition(has_vector=name)])
        with errors():
            self.client.update_vectors(collection, listed, wait=True, update_filter=lacking)

    def delete(self, collection: str, ids: Sequence[PointId]) -> None:
        """Remove points."""
        with errors():
            self.client.delete(collection, models.PointIdsList(points=list(ids)), wait=True)

    def add_number(self, collection: str, hub: KeptHub) -> None:
        """Have an index on a number; local mode has none."""
        if not self._local:
            schema = index_schema("number", unique=self.version >= UNLINKED)
            with errors():
                self.client.create_payload_index(collection, hub.path, schema, wait=True)

    def set_numbers(self, collection: str, hub: KeptHub, numbers: Mapping[PointId, float]) -> None:
        """Write numbers, each into a payload of its own."""
        with errors():
            operations = [
                models.SetPayloadOperation(
                    set_payload=models.SetPayload(
                        payload={hub.key: number}, **self._only(id, hub.path)
                    )
                )
                for id, number in numbers.items()
            ]
            self.client.batch_update_points(collection, cast("Any", operations), wait=True)

    def _only(self, id: PointId, path: str) -> dict[str, Any]:
        """Say which point, if nobody has written a number meanwhile, as only a server lets them."""
        if self._local:  # it goes through all points for a filter
            return {"points": [id]}
        own = models.HasIdCondition(has_id=[id])
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
        return {"filter": models.Filter(must=[own, empty])}

    def drop_number(self, collection: str, hub: KeptHub, but: Sequence[PointId]) -> None:
        """Remove a number of all payloads, and its index."""
        with errors():
            self.client.delete_payload(
                collection, [hub.path], points=holding_filter(hub.path, but), wait=True
            )
            if not self._local:
                self.client.delete_payload_index(collection, hub.path, wait=True)

    def retrieve(
        self, collection: str, ids: Sequence[PointId], *, payload: bool, vectors: Names
    ) -> list[Record]:
        """Read points by id."""
        with errors():
            found = self.client.retrieve(
                collection, list(ids), with_payload=payload, with_vectors=list(vectors) or False
            )
        return [record_of(each) for each in found]

    def query(self, collection: str, requests: Sequence[models.QueryRequest]) -> list[list[Scored]]:
        """Run searches in one call."""
        if self._local:
            requests = [without_params(request) for request in requests]
        with errors():
            answers = self.client.query_batch_points(collection, list(requests))
        found = [[scored(point) for point in answer.points] for answer in answers]
        return [levelled(each) for each in found] if self._local else found

    def prepare(self, collection: str, template: Template) -> Search:
        """Have a search ready that is asked over and over."""
        if self._local:
            bare = [stage.model_copy(update={"params": None}) for stage in template.stages]
            search = template.search.model_copy(update={"params": None})
            template = replace(template, stages=tuple(bare), search=search)

        def ask(
            vectors: Sequence[npt.NDArray[np.float32]], threshold: float | None
        ) -> Sequence[Found]:
            asked = template.request(vectors, threshold)
            with errors():  # the client copies what is in a batch number by number
                answer = self.client.query_points(
                    collection,
                    query=asked.query,
                    using=asked.using,
                    prefetch=asked.prefetch,
                    query_filter=asked.filter,
                    search_params=asked.params,
                    limit=asked.limit or 10,
                    with_payload=cast("Any", asked.with_payload),
                    with_vectors=False,
                    score_threshold=asked.score_threshold,
                )
            if self._local:
                return levelled([scored(point) for point in answer.points])
            return answer.points

        return ask

    def count(self, collection: str, filter: models.Filter | None) -> int:
        """Count the points that match."""
        with errors():
            return self.client.count(collection, count_filter=filter, exact=True).count

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
        with errors():
            found, after = self.client.scroll(
                collection,
                scroll_filter=filter,
                limit=limit,
                offset=offset,
                with_payload=False,
                with_vectors=list(vectors) or False,
            )
        return [record_of(each) for each in found], cast("PointId | None", after)

    def read(self, collection: str) -> str | None:
        """The definition, from the reserved point."""
        return cast("str | None", self._reserved(collection).get(DEFINITION_KEY))

    def write(self, collection: str, text: str, *, version: int) -> None:
        """Keep a definition on the condition that the version before stands."""
        with errors():
            if version > 1:
                payload, standing = definition_change(text, version)
                self.client.set_payload(collection, payload, points=standing, wait=True)
            else:  # nothing has version 0, so this inserts, and changes no point that is there
                self.version.require(
                    CONDITIONAL,
                    f"using {collection!r}, which another program has made,",
                    "upgrade the server, or make collections with create",
                )
                self._first(collection, text, models.Filter(must=[standing_at(0)]))

    def _first(self, collection: str, text: str, condition: models.Filter | None = None) -> None:
        point = definition_point(text)
        self.client.upsert(collection, [point], wait=True, update_filter=condition)

    def read_load(self, collection: str, load: str) -> str | None:
        """What is remembered of a load."""
        return cast("str | None", self._reserved(collection).get(_LOADS, {}).get(load))

    def write_load(self, collection: str, load: str, text: str) -> None:
        """Remember how far a load has come; other loads are not touched."""
        with errors():
            self.client.set_payload(
                collection, {load: text}, points=[DEFINITION], key=_LOADS, wait=True
            )

    def parts(self, size: int) -> int:
        """How many reserved points so many bytes take."""
        return -(-size // _PART_BYTES)

    def keep_bytes(self, collection: str, token: str, content: bytes) -> None:
        """Keep bytes in the payload of reserved points."""
        for number in range(self.parts(len(content))):
            some = content[number * _PART_BYTES : (number + 1) * _PART_BYTES]
            payload = {PART_KEY: base64.b64encode(some).decode()}
            point = models.PointStruct(id=chunk_id(token, number), vector={}, payload=payload)
            with errors():
                self.client.upsert(collection, [point], wait=True)

    def read_bytes(self, collection: str, token: str, parts: int) -> bytes | None:
        """Read what `keep_bytes` kept."""
        wanted: list[PointId] = [chunk_id(token, number) for number in range(parts)]
        found = self.retrieve(collection, wanted, payload=True, vectors=())
        return joined(wanted, {record.id: record.payload for record in found})

    def drop_bytes(self, collection: str, token: str, parts: int) -> None:
        """Forget what `keep_bytes` kept."""
        self.delete(collection, [chunk_id(token, number) for number in range(parts)])

    def _reserved(self, collection: str) -> dict[str, Any]:
        found = self.retrieve(collection, [DEFINITION], payload=True, vectors=())
        return found[0].payload if found else {}

    def settle(self, collection: str, told: Told = lambda seconds: None) -> None:
        """Wait until the server has nothing left to optimize."""
        started = time.monotonic()
        while not self._local:
            with errors():
                status = self.client.get_collection(collection).status
            if status != models.CollectionStatus.YELLOW:
                return
            told(time.monotonic() - started)
            time.sleep(_LOOK)

    def close(self) -> None:
        """Close the client if it was opened here."""
        if self._owned:
            self.client.close()
