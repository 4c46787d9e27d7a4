"""Qdrant as an engine: opening one, and its collections as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from qdrant_client import QdrantClient

from funnelvec.engines import checks, options
from funnelvec.engines.base import Capabilities
from funnelvec.engines.keys import key_name
from funnelvec.engines.qdrant import names
from funnelvec.engines.qdrant.client import ClientDeployment
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.definition import Definition, Vector
from funnelvec.engines.qdrant.deployment import Deployment
from funnelvec.engines.qdrant.failing import errors
from funnelvec.engines.qdrant.features import codes_of
from funnelvec.engines.qdrant.hook.client import unhooked
from funnelvec.engines.qdrant.table import QdrantTable
from funnelvec.engines.qdrant.vectors import Column
from funnelvec.errors import Conflict, InvalidInput, MissingDependency
from funnelvec.reports import Problem, Repair
from funnelvec.resolution import Resolution
from funnelvec.types import METRICS, BaseCode, ColumnKind, Metric

__all__ = ["QdrantEngine", "QdrantTable", "connect", "connect_edge", "connect_local", "wrap"]


def connect(url: str, **given: Any) -> QdrantEngine:
    """Open a server; `given` is what `QdrantClient` takes (``api_key``, ``prefer_grpc``, ...)."""
    with errors():
        client = QdrantClient(url=url, check_compatibility=False, **client_options(given))
        return QdrantEngine(ClientDeployment(client, owned=True))


def client_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a client is opened with, beside its URL."""
    if any(name in given for name in ("url", "location", "path", "host", "check_compatibility")):
        raise InvalidInput("the URL says where the server is; options say how to talk to it")
    # The client's own five seconds are short for a thousand wide vectors and a busy server.
    return {"timeout": 60, **given}


def connect_local(path: str, **given: Any) -> QdrantEngine:
    """Open the client's local mode: ``:memory:`` or a folder. It checks meaning, not speed."""
    with errors():
        place: dict[str, Any] = {"location": path} if path == ":memory:" else {"path": path}
        return QdrantEngine(ClientDeployment(QdrantClient(**place, **given), owned=True))


def connect_edge(path: str) -> QdrantEngine:
    """Open a folder of collections that the engine in this process serves."""
    return QdrantEngine(edge_deployment(path))


def edge_deployment(path: str) -> Deployment:
    """Open a folder of collections.

    Raises
    ------
    MissingDependency
        If Edge is not installed.
    """
    try:
        from funnelvec.engines.qdrant.edge import EdgeDeployment  # another extra
    except ModuleNotFoundError as error:
        if error.name not in ("qdrant_edge", "portalocker"):
            raise
        raise MissingDependency.of(error.name, extra="edge") from error
    return EdgeDeployment(path)


def wrap(client: QdrantClient) -> QdrantEngine:
    """Use a client that the application has, or the one below its hook; closing leaves it open."""
    return QdrantEngine(ClientDeployment(unhooked(client), owned=False))


class QdrantEngine:
    """Collections as tables; see `funnelvec.engines.base.Engine` for the contract."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._collections: dict[str, Collection] = {}
        self.capabilities = Capabilities(
            name=deployment.name,
            codes=codes_of(deployment.version),
            metrics=METRICS,
            filters=True,
            persistent=deployment.persistent,
        )

    def table(self, name: str, *, vector: str | None = None) -> QdrantTable:
        """Open a collection by one of its vectors; ``""`` is the one without a name."""
        names.check_collection(checks.check_name(name, "the name of a table"))
        given: Any = vector
        if given is not None and not (isinstance(given, str) and not given):  # "" is one too
            checks.check_name(given, "the name of a column")
        collection = self._collections.get(name)
        if collection is None:
            collection = self._collections[name] = Collection(self._deployment, name)
        else:
            collection.renew()
        collection.definition(fresh=True)
        return QdrantTable(collection, collection.vector(vector).column.name)

    #: What Qdrant calls a table.
    collection = table

    def create(
        self,
        name: str,
        *,
        dims: int,
        vector: str = "embedding",
        dtype: BaseCode = "f32",
        metric: Metric = "cosine",
        id: str | Sequence[str] = "id",
        id_kind: ColumnKind | Sequence[ColumnKind] = "integer",
        columns: Mapping[str, ColumnKind] | None = None,
    ) -> QdrantTable:
        """Create an empty collection; its columns have payload indexes, but JSON."""
        checks.check_name(name, "the name of a table")
        base = Resolution(checks.check_dims(dims), checks.check_dtype(dtype))
        chosen = checks.check_metric(metric) or "cosine"
        key, others = checks.check_schema(vector=vector, id=id, id_kind=id_kind, columns=columns)
        for column in (*key, *others):
            if column.startswith("_fv_"):
                raise InvalidInput(f"the column {column!r}: names with _fv_ before are ours")
        names.check_collection(name)
        if self._deployment.info(name) is not None:
            raise Conflict(f"table {name!r} exists already; open it with table({name!r})")
        kinds: dict[str, ColumnKind] = {**key, **others}
        made = Column(vector, base, chosen)
        definition = Definition(key_name(list(key)), kinds, {vector: Vector(made)})
        self._deployment.create(
            name,
            {vector: made.stored(base).params(index=False)},
            indexes={names.payload_path(column): kind for column, kind in kinds.items()},
            unique=names.payload_path(next(iter(key))) if len(key) == 1 else None,
            definition=replace(definition, version=1, token="created").to_text(),
        )
        self._collections.pop(name, None)
        return self.table(name, vector=vector)

    def problems(self) -> list[Problem]:
        """List hub columns that other programs' writes have left behind.

        What funnelvec knows of a collection is part of it, and goes where it goes; resolutions
        that are not filled are in `Table.status`.
        """
        return [Problem(f"{table.name}.{table.vector}", fault) for table, fault in self._faults()]

    def repair(self, *, dry_run: bool = False) -> list[Repair]:
        """Measure rows that their hub columns do not know."""
        options.check_flag(dry_run, "dry_run")
        done = []
        for table, _ in self._faults():
            if table.mend_hub(dry_run=dry_run):
                done.append(Repair(f"{table.name}.{table.vector}", "measure rows without a hub"))
        return done

    def _faults(self) -> Iterator[tuple[QdrantTable, str]]:
        for name in sorted(self._deployment.collections()):
            if self._deployment.read(name) is None:
                continue
            collection = self._collections.get(name) or Collection(self._deployment, name)
            for vector in collection.definition(fresh=True).vectors:
                table = QdrantTable(collection, vector)
                fault = table.hub_fault()
                if fault is not None:
                    yield table, fault

    def close(self) -> None:
        """Release what was opened here."""
        self._collections.clear()
        self._deployment.close()

    def __enter__(self) -> QdrantEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
