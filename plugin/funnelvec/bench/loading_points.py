"""How fast points get into Qdrant: the client's own upload, or Edge's upsert, and `load`.

Every contestant fills a collection of its own with the same vectors, round by round in rotating
order, in the same number of points per request. Ratios pair the runs of one round.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from funnelvec import entry
from funnelvec.bench.data import Dataset
from funnelvec.bench.report import Section
from funnelvec.bench.stats import Ratio, ratio

__all__ = ["TARGET", "PointLoads", "PointPace", "compare_point_loads"]

#: Least share of the points per second of a bare upload that `load` is to reach.
TARGET = 0.9

_BATCH = 1_000
_LOAD, _CODES, _THERE = "load()", "load() with codes", "upsert(), points are there"


@dataclass(frozen=True, slots=True)
class PointPace:
    """One contestant: seconds of every round, and its points per second against the bare one's."""

    name: str
    seconds: tuple[float, ...]
    versus: Ratio | None


@dataclass(frozen=True, slots=True)
class PointLoads:
    """What a run has measured."""

    place: str
    dataset: str
    rows: int
    dims: int
    resolution: str
    parallel: int
    paces: tuple[PointPace, ...]

    @property
    def passed(self) -> bool:
        """Whether `load` reaches its target, in a run that is steady enough to say."""
        versus = self._versus
        return versus.stable and versus.value >= TARGET

    @property
    def _versus(self) -> Ratio:
        found = next(each.versus for each in self.paces if each.name == _LOAD)
        assert found is not None  # the bare upload has taken some time
        return found

    def section(self) -> Section:
        """The figures as a table."""
        rows = tuple(
            (
                each.name,
                f"{median(self.rows / s for s in each.seconds):,.0f}",
                f"{min(self.rows / s for s in each.seconds):,.0f}",
                f"{max(self.rows / s for s in each.seconds):,.0f}",
                f"{1e6 * median(each.seconds) / self.rows:.0f}",
                "" if each.versus is None else each.versus.text(),
            )
            for each in self.paces
        )
        head = ("", "points/s", "lowest", "highest", "µs/point", "points/s, divided by the first")
        return Section(f"Loading into {self.place}", head, rows)

    def lines(self) -> list[str]:
        """What follows from the figures."""
        said = "reached" if self.passed else "missed"
        if not self._versus.stable:
            said = "this run is too unsteady to say"
        return [
            f"load() loads {self._versus.text()} times the points per second of "
            f"{self.paces[0].name} (target {TARGET}: {said})",
            f"{self.rows:,} points of {self.dims:,} dimensions, {self.dataset}; codes: "
            f"{self.resolution}; {_BATCH:,} points in a request, all waited for, "
            f"{self.parallel} at once",
        ]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "place": self.place,
            "dataset": self.dataset,
            "rows": self.rows,
            "dims": self.dims,
            "resolution": self.resolution,
            "parallel": self.parallel,
            "target": TARGET,
            "passed": self.passed,
            "contestants": [
                {
                    "name": each.name,
                    "points_per_second": median(self.rows / s for s in each.seconds),
                    "seconds": list(each.seconds),
                    "versus_bare": None if each.versus is None else each.versus.as_json(),
                }
                for each in self.paces
            ],
        }


def compare_point_loads(
    url: str,
    dataset: Dataset,
    *,
    resolution: str = "128:f16",
    rounds: int = 5,
    parallel: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> PointLoads:
    """Measure on a server, in local mode or on Edge, in collections that are removed at the end.

    `parallel` is that of `upload_points`, which takes processes, and of `load`, which takes
    threads; `upsert` is not parallel.
    """
    seconds: dict[str, list[float]] = {}
    with _place(url) as place:
        runs = place.runs(dataset, resolution, parallel)
        names = list(runs)
        for turn in range(-1, rounds):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                say(f"{'warm-up' if turn < 0 else f'round {turn + 1} of {rounds}'}: {name}")
                took = runs[name]()
                if turn >= 0:
                    seconds.setdefault(name, []).append(took)
    rows, bare = len(dataset.rows), next(iter(runs))
    rates = {name: [rows / each for each in of] for name, of in seconds.items()}
    paces = tuple(
        PointPace(
            name,
            tuple(seconds[name]),
            None if name == bare else ratio(rates[name], rates[bare]),
        )
        for name in names
    )
    return PointLoads(place.name, dataset.name, rows, dataset.dims, resolution, parallel, paces)


@contextlib.contextmanager
def _place(url: str) -> Iterator[_Place]:
    with contextlib.ExitStack() as stack:
        if url.startswith("edge:"):
            # A folder of our own beside the one that is named, whose collections are not touched.
            parent = url.removeprefix("edge:") or None
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=parent))
            engine = stack.enter_context(entry.connect(f"edge:{folder}/ours"))
            yield _Edge("Edge", engine, f"{folder}/bare")
        else:
            from qdrant_client import QdrantClient

            local = url.removeprefix("qdrant-local:")
            client = (
                QdrantClient(url=url, timeout=60, check_compatibility=False)
                if local == url
                else QdrantClient(location=":memory:")
            )
            stack.enter_context(contextlib.closing(client))
            engine = stack.enter_context(entry.wrap(client))
            yield _Client("local mode" if local != url else url, engine, client)


class _Place:
    """Where points go."""

    bare = ""

    def __init__(self, name: str, engine: Any) -> None:
        self.name, self._engine = name, engine

    def runs(
        self, dataset: Dataset, resolution: str, parallel: int
    ) -> dict[str, Callable[[], float]]:
        """What fills a new collection and takes so many seconds, by name; the bare one first."""
        vectors, dims = dataset.rows, dataset.dims
        ids = range(len(vectors))

        def load(table: Any) -> None:
            table.load(vectors, ids=ids, batch_size=_BATCH, resume=False, parallel=parallel)

        def ours(*codes: str, there: bool = False) -> float:
            name = f"funnelvec_bench_{uuid.uuid4().hex}"
            table = self._engine.create(name, dims=dims)
            try:
                for each in codes:
                    table.add_resolution(each)
                if there:
                    load(table)
                started = time.perf_counter()
                if there:
                    table.upsert(ids, vectors)
                else:
                    load(table)
                return time.perf_counter() - started
            finally:
                self.drop(name)

        return {
            self.bare: lambda: self.upload(vectors, parallel),
            _LOAD: ours,
            _CODES: lambda: ours(resolution),
            _THERE: lambda: ours(there=True),
        }

    def upload(self, vectors: Any, parallel: int) -> float:
        """Fill a collection as a program does it that does not know us; seconds."""
        raise NotImplementedError

    def drop(self, name: str) -> None:
        """Remove a collection of ours."""


class _Client(_Place):
    """Behind a `QdrantClient`."""

    bare = "bare upload_points"

    def __init__(self, name: str, engine: Any, client: Any) -> None:
        super().__init__(name, engine)
        self._client = client

    def upload(self, vectors: Any, parallel: int) -> float:
        from qdrant_client import models

        name = f"funnelvec_bench_{uuid.uuid4().hex}"
        params = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
        self._client.create_collection(name, vectors_config=params)
        try:
            started = time.perf_counter()
            self._client.upload_points(
                name,
                (models.PointStruct(id=i, vector=each.tolist()) for i, each in enumerate(vectors)),
                batch_size=_BATCH,
                parallel=parallel,
                wait=True,
            )
            return time.perf_counter() - started
        finally:
            self._client.delete_collection(name)

    def drop(self, name: str) -> None:
        self._client.delete_collection(name)


class _Edge(_Place):
    """In this process."""

    bare = "bare upsert"

    def __init__(self, name: str, engine: Any, folder: str) -> None:
        super().__init__(name, engine)
        self._folder = folder

    def upload(self, vectors: Any, parallel: int) -> float:
        import qdrant_edge as edge

        params = edge.EdgeVectorParams(vectors.shape[1], edge.Distance.Cosine)
        with tempfile.TemporaryDirectory(prefix=f"{self._folder}-") as folder:
            shard = edge.EdgeShard.create(folder, edge.EdgeConfig(vectors=params))
            started = time.perf_counter()
            for start in range(0, len(vectors), _BATCH):
                listed = np.asarray(vectors[start : start + _BATCH], np.float32).tolist()
                points = [edge.Point(id, vector, {}) for id, vector in enumerate(listed, start)]
                shard.update(edge.UpdateOperation.upsert_points(points))
            shard.flush()
            took = time.perf_counter() - started
            shard.close()
            return took
