"""The shards of an Edge folder, while several threads search, write and build indexes.

Who searches takes a shard as it stands. Who writes, opens or closes one holds a lock, and whoever
changes its vectors or builds its indexes holds another one before that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import qdrant_edge as edge
from qdrant_client import models

from funnelvec.engines.qdrant import building, translate
from funnelvec.engines.qdrant.deployment import Told
from funnelvec.engines.qdrant.folder import Folder
from funnelvec.errors import EngineError

__all__ = ["FLUSH_SECONDS", "Shards", "config_of", "errors"]

_T = TypeVar("_T")

#: How long a point may be safe from the death of the process only.
FLUSH_SECONDS = 5.0


class Shards:
    """The shards of a folder, each opened when it is first wanted."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        #: Who writes, opens or closes a shard holds it.
        self.guard = threading.RLock()
        self._shards: dict[str, edge.EdgeShard] = {}
        self._process = os.getpid()
        self._changing: dict[str, threading.RLock] = defaultdict(threading.RLock)
        self._journals: dict[str, building.Journal] = {}
        self._written: set[str] = set()
        self._closing = threading.Event()
        self._flusher: threading.Thread | None = None

    @property
    def forked(self) -> bool:
        """Whether this is another process than the one that opened the folder."""
        return os.getpid() != self._process

    def changing(self, collection: str) -> threading.RLock:
        """The lock of whoever changes the vectors of a collection or builds its indexes."""
        return self._changing[collection]

    def opened(self, collection: str) -> edge.EdgeShard:
        """The shard of a collection, opened when it is first wanted."""
        if self.forked:
            raise EngineError(
                "this Edge engine was opened before the process was forked, and would hang; open "
                "it after the fork, or start processes by spawning them"
            )
        shard = self._shards.get(collection)
        if shard is None:
            with self.guard:
                shard = self._shards.get(collection)
                if shard is None:
                    if self._closing.is_set():
                        raise EngineError("this Edge engine is closed; connect again")
                    self._folder.content(collection, "definition.json")  # is it there at all?
                    path = str(self._folder.shard(collection))
                    shard = self._shards[collection] = _loaded(path)
        return shard

    def read(self, collection: str, ask: Callable[[edge.EdgeShard], _T]) -> _T:
        """Ask a shard; where another takes its place at that moment, ask that one."""
        while True:
            shard = None
            try:
                shard = self.opened(collection)
                return ask(shard)
            except Exception as error:
                if shard is not None and self._shards.get(collection) is not shard:
                    continue
                if type(error) is not Exception:
                    raise
                raise _ours(error) from error

    def query(self, collection: str, request: edge.QueryRequest) -> list[edge.ScoredPoint]:
        """Search; what `read` does, without what only a search that fails needs."""
        shard = self._shards.get(collection)
        try:
            if shard is not None and not self.forked:
                return shard.query(request)
        except Exception:
            pass
        return self.read(collection, lambda shard: shard.query(request))

    def reload(self, collection: str, vectors: Mapping[str, models.VectorParams]) -> None:
        """Close a shard and open it with another configuration."""
        with self.guard, errors():
            shard = self.opened(collection)
            shard.flush()
            del self._shards[collection]
            shard.close()
            path = str(self._folder.shard(collection))
            self._folder.note_due(collection, due=True)
            self._shards[collection] = _loaded(path, config_of(vectors))

    def update(self, collection: str, operation: edge.UpdateOperation) -> None:
        """Write; the copy whose indexes are being built gets it too, when it is built."""
        with self.guard, errors():
            journal = self._journals.get(collection)
            if journal is not None:
                journal.wait_for_room()
            self.opened(collection).update(operation)
            journal = self._journals.get(collection)  # it may be over by now
            if journal is not None:
                journal.add(operation)
            self._written.add(collection)
            if self._flusher is None:
                self._flusher = threading.Thread(target=self._flush_often, daemon=True)
                self._flusher.start()

    def _flush_often(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            self.flush()

    def flush(self) -> None:
        """Have everything that was written reach the disk."""
        with self.guard, errors():
            for collection in tuple(self._written):
                self.opened(collection).flush()
                self._written.discard(collection)

    def settle(
        self, collection: str, vectors: Mapping[str, models.VectorParams], told: Told
    ) -> None:
        """Build what indexes are due, in another process where that takes long."""
        with self._changing[collection]:
            with self.guard, errors():
                shard, changed = self.opened(collection), self._folder.is_due(collection)
                work = building.work(shard.info(), vectors, changed=changed)
                if work is building.Work.LITTLE:
                    shard.optimize()
                shard.flush()
                self._written.discard(collection)
                if work is not building.Work.MUCH:
                    self._folder.note_due(collection, due=False)
                    return
                place = self._folder.copy(collection)
                journal = building.Journal(threading.Condition(self.guard))
                self._journals[collection] = journal
            try:
                building.build(place, stop=self._closing, told=told)
                self._switch(collection, place, journal)
                self._folder.note_due(collection, due=False)
            finally:
                with self.guard:
                    del self._journals[collection]
                journal.close()
                self._folder.clear(collection)

    def _switch(self, collection: str, place: Path, journal: building.Journal) -> None:
        """Have a shard whose indexes are built take the place of its original."""
        with errors():
            built = _loaded(str(place))
            try:
                building.catch_up(journal, built)
                with self.guard:
                    journal.replay(built)
                    built.flush()
                    self._folder.replace(collection, place)
                    original = self._shards[collection]
                    self._shards[collection] = built
                    with contextlib.suppress(Exception):  # what is in it is not needed any more
                        original.close()
            except BaseException:
                if self._shards.get(collection) is not built:
                    built.close()
                raise

    def close(self) -> None:
        """Flush and close all of them."""
        self._closing.set()
        for changing in tuple(self._changing.values()):
            with changing:  # whoever builds indexes stops, and removes its copy
                pass
        if self._flusher is not None:
            self._flusher.join()
        with self.guard:
            while self._shards:
                _, shard = self._shards.popitem()
                with errors():
                    shard.flush()
                    shard.close()


def _loaded(path: str, config: edge.EdgeConfig | None = None) -> edge.EdgeShard:
    """Open a shard. What its log took in memory while it was read again goes back to the system."""
    shard = edge.EdgeShard.load(path, config)
    with contextlib.suppress(OSError, AttributeError):  # the C library of GNU has it
        ctypes.CDLL(None).malloc_trim(0)
    return shard


def config_of(vectors: Mapping[str, models.VectorParams]) -> edge.EdgeConfig:
    """What a shard of these vectors is opened with."""
    return edge.EdgeConfig(
        vectors={name: translate.params_of(each) for name, each in vectors.items()},
        optimizers=edge.EdgeOptimizersConfig(default_segment_number=1),
        max_search_threads=1,
    )


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Turn Edge's errors, which have no types, into ours."""
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise _ours(error) from error


def _ours(error: Exception) -> EngineError:
    return EngineError(f"Qdrant Edge refused: {error}")
