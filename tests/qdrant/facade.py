"""A Qdrant server for tests: its REST interface, as far as funnelvec uses it, over Edge.

It takes what `QdrantClient(url=...)` sends, checks that a server of its `version` knows all of it
(see `shapes`; not where applications send what they like), reads it into the client's models and
has Edge do it. So requests really travel as JSON.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import qdrant_edge as edge
from qdrant_client import models

from funnelvec.engines.qdrant import translate
from tests.qdrant import facade_more as more
from tests.qdrant import shapes

Body = dict[str, Any]


class Collection:
    """One collection and what a server would know of it."""

    def __init__(self, folder: Path, vectors: dict[str, models.VectorParams]) -> None:
        self.path, self.vectors = str(folder), vectors
        self.schema: dict[str, str] = {}
        self.strict: Body | None = None
        self.shards = 1
        self.shard = edge.EdgeShard.create(self.path, self.config())

    def config(self) -> edge.EdgeConfig:
        made = {name: translate.params_of(each) for name, each in self.vectors.items()}
        return edge.EdgeConfig(vectors=made, max_search_threads=1)

    def reload(self) -> None:
        self.shard.flush()
        self.shard.close()
        self.shard = edge.EdgeShard.load(self.path, self.config())

    def update(self, operation: edge.UpdateOperation) -> None:
        self.shard.update(operation)


class _Http(ThreadingHTTPServer):
    request_queue_size = 128  # many tasks may connect at once
    daemon_threads = True


class Server:
    """Collections in a folder behind HTTP; `log` holds (method, path, body) of every call."""

    version = "1.20.0"

    def __init__(self, folder: Path, *, checked: bool = True) -> None:
        self.folder, self.checked = folder, checked
        self.collections: dict[str, Collection] = {}
        self.aliases: dict[str, str] = {}
        self.log: list[tuple[str, str, Any]] = []
        self.fail_after: int | None = None
        #: Where calls of that method that end so wait for each other, so that none of them gets on alone.
        self.together: tuple[str, str, threading.Barrier] | None = None
        self.gone_after: int | None = None
        self._guard = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        for collection in self.collections.values():
            collection.shard.close()

    def is_gone(self, writes: bool) -> bool:
        """Whether the server is away, as it is for good after so many writes."""
        with self._guard:
            if self.gone_after is None:
                return False
            if writes and self.gone_after > 0:
                self.gone_after -= 1
                return False
            return self.gone_after == 0

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def handle_any(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                writes = self.command == "PUT" and "/points" in self.path
                if server.together is not None:
                    method, ending, barrier = server.together
                    if self.command == method and self.path.partition("?")[0].endswith(ending):
                        barrier.wait()
                if server.is_gone(writes):
                    self.close_connection = True
                    return
                status, result = server.answer(
                    self.command, self.path.partition("?")[0], json.loads(raw) if raw else None
                )
                failed = {"status": {"error": result}}
                answer = failed if status >= 400 else {"result": result, "status": "ok", "time": 0}
                if self.path == "/":
                    answer = result
                content = json.dumps(answer, default=str).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any

        return Handler

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        with self._guard:
            self.log.append((method, path, body))
            if self.fail_after is not None and method == "PUT" and path.endswith("/points"):
                if self.fail_after == 0:
                    return 500, "the disk is full"
                self.fail_after -= 1
            if path == "/":
                return 200, {"title": "qdrant - vector search engine", "version": self.version}
            if path == "/collections":
                return 200, {"collections": [{"name": name} for name in self.collections]}
            if path == "/aliases":
                pairs = self.aliases.items()
                found = [{"alias_name": a, "collection_name": c} for a, c in pairs]
                return 200, {"aliases": found}
            name, _, rest = path.removeprefix("/collections/").partition("/")
            try:
                if self.checked:
                    shapes.check(method, path, body, version=self.version)
                return 200, self.routed(method, name, rest, body)
            except LookupError as error:
                return 404, f"Not found: {error}"
            except Exception as error:
                return 400, str(error)

    def renamed(self, body: Body) -> bool:
        for operation in body["actions"]:
            made = models.CreateAliasOperation.model_validate(operation).create_alias
            if made.alias_name in self.collections:
                raise ValueError(f"Collection `{made.alias_name}` already exists!")
            if made.collection_name not in self.collections:
                raise LookupError(f"Collection `{made.collection_name}` doesn't exist!")
            self.aliases[made.alias_name] = made.collection_name
        return True

    def routed(self, method: str, name: str, rest: str, body: Any) -> Any:
        if (method, name, rest) == ("POST", "aliases", ""):
            return self.renamed(body)
        name = self.aliases.get(name, name)
        if rest == "exists":
            return {"exists": name in self.collections}
        if rest == "" and method == "PUT":
            return self.created(name, body)
        if name not in self.collections:
            raise LookupError(f"Collection `{name}` doesn't exist!")
        collection = self.collections[name]
        vector = re.fullmatch(r"vectors/(.*)", rest)
        if vector is not None:
            return self.vector(collection, method, vector[1], body)
        field = re.fullmatch(r"index/(.*)", rest)
        if field is not None and method == "DELETE":
            return unindexed(collection, unquote(field[1]))
        routes: dict[tuple[str, str], Callable[[Collection, Any], Any]] = {
            ("GET", ""): info,
            ("PATCH", ""): configured,
            ("PUT", "index"): indexed,
            ("PUT", "points"): upserted,
            ("POST", "points"): retrieved,
            ("PUT", "points/vectors"): filled,
            ("POST", "points/payload"): payload_set,
            ("POST", "points/delete"): more.deleted,
            ("PUT", "points/payload"): more.overwritten,
            ("POST", "points/payload/delete"): more.payload_deleted,
            ("POST", "points/payload/clear"): more.payload_cleared,
            ("POST", "points/vectors/delete"): more.vectors_deleted,
            ("POST", "points/batch"): batched,
            ("POST", "points/query"): more.asked,
            ("POST", "points/query/groups"): more.grouped,
            ("POST", "points/scroll"): scrolled,
            ("POST", "points/count"): counted,
            ("POST", "points/query/batch"): more.asked_many,
        }
        if (method, rest) == ("DELETE", ""):
            self.collections.pop(name).shard.close()
            self.aliases = {a: c for a, c in self.aliases.items() if c != name}
            return True
        overstepped(collection, f"{method} {rest}", body)
        return routes[method, rest](collection, body)

    def created(self, name: str, body: Body) -> bool:
        if name in self.collections:
            raise ValueError(f"Collection `{name}` already exists!")
        given = models.CreateCollection.model_validate(body).vectors or {}
        vectors = {"": given} if isinstance(given, models.VectorParams) else dict(given)
        place = self.folder / f"collection {len(list(self.folder.iterdir()))}"
        self.collections[name] = Collection(place, vectors)
        return True

    def vector(self, collection: Collection, method: str, name: str, body: Any) -> Body:
        if tuple(int(part) for part in self.version.split(".")[:2]) < (1, 18):
            raise LookupError(f"no route to vectors/{name}")
        if method == "DELETE":
            collection.update(edge.UpdateOperation.delete_vector_name(name))
            collection.vectors.pop(name, None)
        else:
            dense = models.DenseVectorNameConfig.model_validate(body).dense
            params = models.VectorParams(
                size=dense.size, distance=dense.distance, datatype=models.Datatype(dense.datatype)
            )
            made = translate.params_of(params)
            collection.update(
                edge.UpdateOperation.create_dense_vector(
                    name, made.size, made.distance, None, made.datatype
                )
            )
            collection.vectors[name] = params
        return DONE


DONE: Body = {"operation_id": 0, "status": "completed"}


def info(collection: Collection, _: Any) -> Body:
    vectors = {
        n: v.model_dump(mode="json", exclude_none=True) for n, v in collection.vectors.items()
    }
    count = collection.shard.info().points_count
    config: Body = {
        "params": {"vectors": vectors, "shard_number": collection.shards},
        "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
        "optimizer_config": {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        },
    }
    if collection.strict is not None:
        config["strict_mode_config"] = collection.strict
    return {
        "status": "green",
        "optimizer_status": "ok",
        "segments_count": 1,
        "points_count": count,
        "config": config,
        "payload_schema": {
            path: {"data_type": kind, "points": count} for path, kind in collection.schema.items()
        },
    }


def configured(collection: Collection, body: Body) -> bool:
    for name, diff in (models.UpdateCollection.model_validate(body).vectors or {}).items():
        changed = {k: v for k, v in diff if v is not None}
        collection.vectors[name] = collection.vectors[name].model_copy(update=changed)
    collection.reload()
    return True


def indexed(collection: Collection, body: Body) -> Body:
    given = models.CreateFieldIndex.model_validate(body)
    assert given.field_schema is not None
    made = translate.index_of(given.field_schema)
    schema = models.PayloadSchemaType(getattr(given.field_schema, "type", given.field_schema))
    collection.update(edge.UpdateOperation.create_field_index(given.field_name, made))
    collection.schema[given.field_name] = schema.value
    return DONE


def unindexed(collection: Collection, path: str) -> Body:
    collection.update(edge.UpdateOperation.delete_field_index(path))
    collection.schema.pop(path, None)
    return DONE


def condition(given: models.Filter | None) -> edge.Filter | None:
    return None if given is None else translate.filter_of(given)


def overstepped(collection: Collection, call: str, body: Any) -> None:
    """Refuse what the strict mode of a collection does not allow."""
    searches = body["searches"] if call == "POST points/query/batch" else []
    points = body["points"] if call in ("PUT points", "PUT points/vectors") else []
    pages = [body] if call == "POST points/scroll" else searches
    sizes = {
        "search_max_batchsize": len(searches),
        "upsert_max_batchsize": len(points),
        "max_query_limit": max((page.get("limit") or 10 for page in pages), default=0),
    }
    for limit, size in sizes.items():
        most = (collection.strict or {}).get(limit)
        if most is not None and size > most:
            raise ValueError(f"{limit} is {most}, not {size}")


def upserted(collection: Collection, body: Body) -> Body:
    given = models.PointsList.model_validate(body)
    points = [
        edge.Point(translate.id_of(p.id), p.vector, p.payload or {})  # type: ignore[arg-type]
        for p in given.points
    ]
    filter = condition(given.update_filter)
    collection.update(edge.UpdateOperation.upsert_points(points, filter))
    return DONE


def filled(collection: Collection, body: Body) -> Body:
    given = models.UpdateVectors.model_validate(body)
    points = [edge.PointVectors(translate.id_of(p.id), p.vector) for p in given.points]  # type: ignore[arg-type]
    filter = condition(given.update_filter)
    collection.update(edge.UpdateOperation.update_vectors(points, filter))
    return DONE


def payload_set(collection: Collection, body: Body) -> Body:
    given = models.SetPayload.model_validate(body)
    if given.filter is not None:
        made = edge.UpdateOperation.set_payload_by_filter(
            translate.filter_of(given.filter), given.payload, given.key
        )
    else:
        ids: Any = [translate.id_of(id) for id in given.points or []]
        made = edge.UpdateOperation.set_payload(ids, given.payload, given.key)
    collection.update(made)
    return DONE


def record(found: Any) -> Body:
    return {"id": found.id, "payload": found.payload, "vector": found.vector}


def retrieved(collection: Collection, body: Body) -> list[Body]:
    given = models.PointRequest.model_validate(body)
    ids: Any = [translate.id_of(id) for id in given.ids]
    payload, vectors = bool(given.with_payload), given.with_vector or False
    return [record(each) for each in collection.shard.retrieve(ids, payload, vectors)]


def scrolled(collection: Collection, body: Body) -> Body:
    given = models.ScrollRequest.model_validate(body)
    request = edge.ScrollRequest(
        offset=None if given.offset is None else translate.id_of(given.offset),
        limit=given.limit,
        filter=condition(given.filter),
        with_payload=bool(given.with_payload),
        with_vector=given.with_vector or False,
    )
    found, after = collection.shard.scroll(request)
    return {"points": [record(each) for each in found], "next_page_offset": after}


def counted(collection: Collection, body: Body) -> Body:
    given = models.CountRequest.model_validate(body)
    request = edge.CountRequest(exact=bool(given.exact), filter=condition(given.filter))
    return {"count": collection.shard.count(request)}


def batched(collection: Collection, body: Body) -> list[Body]:
    """The operations of a batch, one after the other."""
    doing: dict[str, Callable[[Collection, Any], Body]] = {
        "upsert": upserted,
        "update_vectors": filled,
        "delete_vectors": more.vectors_deleted,
        "set_payload": payload_set,
        "overwrite_payload": more.overwritten,
        "delete_payload": more.payload_deleted,
        "clear_payload": more.payload_cleared,
        "delete": more.deleted,
    }
    given = models.UpdateOperations.model_validate(body)
    assert len(given.operations) == len(body["operations"])
    return [
        doing[name](collection, part)
        for operation in body["operations"]
        for name, part in operation.items()
    ]


if __name__ == "__main__":  # a server for `funnelvec bench`, until standard input ends
    with tempfile.TemporaryDirectory() as place:
        running = Server(Path(place))
        print(running.url, flush=True)
        sys.stdin.read()
        running.close()
