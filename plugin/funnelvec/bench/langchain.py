"""LangChain's two stores for Postgres, called as their manual calls them (langchain-postgres).

What a user of theirs gets counts: SQLAlchemy, the query as text, whole vectors in the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from funnelvec.bench import stage
from funnelvec.bench.contestants import EF_SEARCH, PLAIN_TABLE, Contestant
from funnelvec.bench.data import Dataset
from funnelvec.bench.entrants import Entrant
from funnelvec.bench.knobs import Setting
from funnelvec.bench.published import EXACT_EVERY
from funnelvec.errors import CapabilityError, MissingDependency

__all__ = ["NewStore", "OldStore", "StoreLane"]

#: Rows that their own call adds, to see how fast it is; the rest is copied from the loaded table.
_ADDED = 300
_HNSW = "m 16, ef_construction 64"
#: What pgvector's HNSW takes of `vector`, the only type that the store has.
_INDEXED = 2_000


@dataclass(frozen=True, slots=True)
class StoreLane:
    """A store as a contestant."""

    contestant: Contestant
    store: Any
    k: int
    connection: Any

    def search(self, query: Any) -> list[tuple[Any, ...]]:
        """Rows and distances; `query` comes from `stage.parameters`."""
        found = self.store.similarity_search_with_score_by_vector(query.array.tolist(), k=self.k)
        return [(int(document.page_content), distance) for document, distance in found]

    def sizes(self, schema: str) -> stage.Sizes:
        """Measured as everybody's."""
        lane = stage.Lane(self.contestant, self.connection, self.connection.cursor(), self.k)
        return lane.sizes(schema)


@dataclass(frozen=True, slots=True)
class _Store:
    """A store, and what closes its connections."""

    store: Any
    close: Callable[[], None]


class _Stores(Entrant):
    """What both stores share: where they connect to, and how they are filled."""

    table: str
    every = 1

    def __init__(
        self, dataset: Dataset, *, connection: Any, schema: str, k: int, notes: list[str]
    ) -> None:
        try:
            import langchain_postgres  # noqa: F401
            import sqlalchemy
        except ImportError as error:
            raise MissingDependency.of("langchain-postgres", extra="peers") from error
        info = connection.info
        # A socket's folder is no host to SQLAlchemy: it travels among the options.
        beside = {"host": info.host} if info.host.startswith("/") else {}
        self._url = sqlalchemy.URL.create(
            "postgresql+psycopg",
            username=info.user,
            password=info.password or None,
            host=None if beside else info.host,
            port=info.port,
            database=info.dbname,
            query={**beside, "options": f"-csearch_path={schema},public"},
        )
        self._dataset, self._connection, self._schema = dataset, connection, schema
        self._k, self._notes = k, notes
        self._filled = False
        self._stores: dict[Setting, _Store] = {}

    @abstractmethod
    def _fill(self, add: Callable[[_Store], None], rest: str) -> None:
        """Make the tables, add some rows by `add`, and the `rest` of the loaded table."""

    @abstractmethod
    def _store(self, setting: Setting) -> _Store:
        """Connect."""

    def _fill_once(self) -> None:
        if self._filled:
            return
        self._filled = True
        count = min(_ADDED, len(self._dataset.rows))
        seconds = 0.0

        def add(found: _Store) -> None:
            nonlocal seconds
            rows = self._dataset.rows[:count].tolist()
            started = time.perf_counter()
            found.store.add_embeddings([str(i) for i in range(count)], rows)
            seconds = time.perf_counter() - started
            found.close()

        rest = f"from {self._schema}.{PLAIN_TABLE} where id >= {count} order by id"
        self._fill(add, rest)
        self._connection.execute(f"vacuum analyze {self._schema}.{self.table}")
        self.load_seconds = seconds / count * len(self._dataset.rows)
        self._notes.append(
            f"{self.name}: its load rate is that of its own call for the first {count} rows"
        )

    def open(self, stack: contextlib.ExitStack) -> StoreLane:
        """One store serves all clients from its pool, as in an application."""
        stack.callback(self._close)
        setting = tuple(values[-1] for _, values in self.knobs)
        return StoreLane(self._contestant(setting), self._at(setting), self._k, self._connection)

    def turned(self, lane: stage.Runner, setting: Setting, *, ready: bool = True) -> StoreLane:
        """Another list is another store: it is given one when it is made."""
        assert isinstance(lane, StoreLane)
        return replace(lane, contestant=self._contestant(setting), store=self._at(setting))

    def _at(self, setting: Setting) -> Any:
        if setting not in self._stores:
            self._stores[setting] = self._store(setting)
        return self._stores[setting].store

    def _close(self) -> None:
        for each in self._stores.values():
            each.close()
        self._stores.clear()

    def _model(self) -> Any:
        """What a store asks for and nobody calls: vectors are given."""
        from langchain_core.embeddings import DeterministicFakeEmbedding

        return DeterministicFakeEmbedding(size=self._dataset.dims)

    def _contestant(self, setting: Setting) -> Contestant:
        shown = f", ef_search {setting[0]}" if setting else ""
        return Contestant(
            name=f"{self.name}{shown}",
            label=self.name,
            table=self.table,
            statement="store.similarity_search_with_score_by_vector(query, k)",
            index=bool(setting),
            every=self.every,
            remark=_HNSW if setting else "it makes no index",
        )


class NewStore(_Stores):
    """``PGVectorStore`` with its own ``HNSWIndex``, cosine."""

    family = name = "LangChain PGVectorStore"
    table = "langchain_new"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self._dataset.dims > _INDEXED:
            raise CapabilityError(f"its index takes {_INDEXED:,} dimensions at most")
        self.knobs = (("ef_search", EF_SEARCH),)
        self._index = f"{self.table}_hnsw"
        self._built = False

    def build(self) -> float:
        """Let the store make its index, with the memory and the workers that everybody has."""
        from langchain_postgres.v2.indexes import HNSWIndex

        self._fill_once()
        settings = ("maintenance_work_mem", "max_parallel_maintenance_workers")
        row = self._connection.execute(
            "select " + ", ".join(f"current_setting('{name}')" for name in settings)
        ).fetchone()
        options = "".join(f" -c{name}={value}" for name, value in zip(settings, row, strict=True))
        table = f"{self._schema}.{self.table}"
        self._connection.execute(f"alter table {table} set (parallel_workers = {row[1]})")
        found = self._store((), options)
        try:
            if self._built:
                found.store.drop_vector_index(self._index)
            started = time.perf_counter()
            found.store.apply_vector_index(HNSWIndex(name=self._index, m=16, ef_construction=64))
            seconds = time.perf_counter() - started
        finally:
            found.close()
        self._built = True
        self._connection.execute(f"alter table {table} reset (parallel_workers)")
        self._connection.execute(f"vacuum analyze {table}")
        return seconds

    def _fill(self, add: Callable[[_Store], None], rest: str) -> None:
        engine = self._engine()
        engine.init_vectorstore_table(
            self.table, self._dataset.dims, schema_name=self._schema, store_metadata=True
        )
        asyncio.run(engine.close())
        add(self._store(()))
        self._connection.execute(
            f"insert into {self._schema}.{self.table} "
            "(langchain_id, content, embedding, langchain_metadata) "
            f"select gen_random_uuid(), id::text, embedding, '{{}}' {rest}"
        )

    def _engine(self, options: str = "") -> Any:
        from langchain_postgres import PGEngine

        query = self._url.query
        given = {**query, "options": f"{query['options']}{options}"}
        return PGEngine.from_connection_string(self._url.set(query=given))

    def _store(self, setting: Setting, options: str = "") -> _Store:
        from langchain_postgres import PGVectorStore
        from langchain_postgres.v2.indexes import HNSWQueryOptions

        engine = self._engine(options)
        store = PGVectorStore.create_sync(
            engine,
            self._model(),
            self.table,
            schema_name=self._schema,
            index_query_options=HNSWQueryOptions(ef_search=setting[0]) if setting else None,
        )
        return _Store(store, lambda: asyncio.run(engine.close()))


class OldStore(_Stores):
    """``PGVector``, as most tutorials have it: it makes no index over the vectors."""

    family = name = "LangChain PGVector"
    table = "langchain_pg_embedding"
    every = EXACT_EVERY

    def build(self) -> float:
        """Fill it; there is nothing to build."""
        self._fill_once()
        return 0.0

    def _fill(self, add: Callable[[_Store], None], rest: str) -> None:
        add(self._store(()))
        self._connection.execute(
            f"insert into {self._schema}.{self.table} "
            "(id, collection_id, embedding, document, cmetadata) "
            "select id::text, (select collection_id from "
            f"{self._schema}.{self.table} limit 1), embedding, id::text, '{{}}' {rest}"
        )

    def _store(self, setting: Setting) -> _Store:
        import sqlalchemy
        from langchain_postgres import PGVector

        engine = sqlalchemy.create_engine(self._url)
        store = PGVector(
            self._model(),
            connection=engine,
            embedding_length=self._dataset.dims,
            collection_name="bench",
            create_extension=False,
        )
        return _Store(store, engine.dispose)
