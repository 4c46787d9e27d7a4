"""One contestant of `bench qdrant`, in a process of its own: so memory is its own, too.

It is told by pickled tuples on standard input what to do, and answers on standard output. Nobody
but the process that started it can reach these.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from funnelvec import entry
from funnelvec.bench.edge_recipes import Recipe, Setting
from funnelvec.funnel import Funnel
from funnelvec.resolution import Resolution

__all__ = ["Answer", "Built", "Memory", "Process", "main"]

_BATCH = 1_000
_TABLE = "rows"
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from funnelvec.bench.edge_worker import main; main()"
)


@dataclass(frozen=True, slots=True)
class Built:
    """Seconds until all rows were in, and until the last index was built; bytes on disk."""

    load_seconds: float
    index_seconds: float
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """From an empty folder to a collection that is ready."""
        return self.load_seconds + self.index_seconds


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes beyond those of a process that has opened nothing."""

    anonymous: int
    file: int

    @property
    def resident(self) -> int:
        """Both together."""
        return self.anonymous + self.file


@dataclass(frozen=True, slots=True)
class Answer:
    """Row numbers found for each query, the milliseconds it took, and seconds of CPU for all."""

    ids: list[list[int]]
    milliseconds: list[float]
    cpu_seconds: float


class Process:
    """A worker as its parent sees it; a context manager."""

    def __init__(self) -> None:
        import json

        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def call(self, name: str, *args: Any) -> Any:
        """Have a function of `_Worker` called there, and return or raise what it does."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        pickle.dump((name, args), process.stdin)
        process.stdin.flush()
        try:
            failed, result = pickle.load(process.stdout)
        except EOFError:
            raise RuntimeError(f"the process of a contestant died in {name}") from None
        if failed:
            raise result
        return result

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


def main() -> None:
    """Do what standard input says until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print does not get between the answers
    worker, given = _Worker(), cast("BinaryIO", sys.stdin.buffer)
    while True:
        try:
            name, args = pickle.load(given)
        except EOFError:
            break
        try:
            found = (False, getattr(worker, name)(*args))
        except Exception as error:
            found = (True, error)
        pickle.dump(found, answers)
        answers.flush()
    worker.close()


class _Worker:
    """What is done there."""

    def __init__(self) -> None:
        self._shard: Any = None
        self._engine: Any = None
        self._table: Any = None
        self._base = (0, 0)

    def build(self, recipe: Recipe, folder: str, rows: str) -> Built:
        """Load and index all rows; the process is of no use for measuring memory after that."""
        vectors = np.load(rows, mmap_mode="r")
        loaded, indexed = (_build_ours if recipe.ours else _build_theirs)(recipe, folder, vectors)
        return Built(loaded, indexed, _bytes_in(Path(folder)))

    def open(self, recipe: Recipe, folder: str, queries: str) -> None:
        """Open what was built."""
        import qdrant_edge as edge

        self._queries = np.load(queries)
        if recipe.ours:  # modules count as the bare process
            with tempfile.TemporaryDirectory() as empty:
                entry.connect(f"edge:{empty}/edge").close()
        self._recipe, self._base = recipe, _resident()
        if recipe.ours:
            self._engine = entry.connect(f"edge:{folder}")
            self._table = self._engine.table(_TABLE)
        else:
            self._shard = edge.EdgeShard.load(folder)

    def ask(self, setting: Setting, k: int) -> Answer:
        """Ask all queries."""
        ask = self._asker(setting, k)
        ids, milliseconds, cpu = [], [], time.process_time()
        for query in self._queries:
            started = time.perf_counter_ns()
            found = ask(query)
            milliseconds.append((time.perf_counter_ns() - started) / 1e6)
            ids.append(found)
        return Answer(ids, milliseconds, time.process_time() - cpu)

    def memory(self) -> Memory:
        """What is resident now."""
        anonymous, file = _resident()
        return Memory(anonymous - self._base[0], file - self._base[1])

    def _asker(self, setting: Setting, k: int) -> Callable[[npt.NDArray[np.float32]], list[int]]:
        if self._recipe.ours:
            self._table.create_funnel("f", self._recipe.funnel(setting), replace=True)
            search = self._table.search
            return lambda query: [hit.id for hit in search(query, k=k, funnel="f")]
        return _by_hand(self._shard, self._recipe, setting, k)

    def close(self) -> None:
        """Let go of what was opened."""
        for opened in (self._engine, self._shard):
            if opened is not None:
                opened.close()
        self._engine = self._shard = None


def _build_ours(recipe: Recipe, folder: str, vectors: npt.NDArray[Any]) -> tuple[float, float]:
    funnel = Funnel.parse(
        recipe.funnel(tuple(values[-1] for _, values in recipe.knobs))
        if recipe.knobs
        else recipe.template
    )
    with entry.connect(f"edge:{folder}") as engine:
        table: Any = engine.create(_TABLE, dims=vectors.shape[1])
        first, *middle = [stage.resolution for stage in funnel.stages[:-1]] or [
            funnel.last.resolution
        ]
        fitted = [
            name
            for name in dict.fromkeys(each.rotation for each in (first, *middle))
            if name is not None and not name.startswith("random")
        ]
        started = time.perf_counter()
        if not fitted:  # as theirs: everything is declared before the first row
            _add(table, first, middle)
        table.load(vectors, ids=range(len(vectors)), resume=False)
        loaded = time.perf_counter()
        for name in fitted:
            widest = max(each.dims for each in (first, *middle) if each.rotation == name)
            table.fit_rotation(name, dims=widest, then="random" if name[-1] == "r" else None)
        if fitted:
            _add(table, first, middle)
        table.backfill()
        return loaded - started, time.perf_counter() - loaded


def _add(table: Any, first: Resolution, middle: Sequence[Resolution]) -> None:
    for each in middle:
        table.add_resolution(each)
    table.add_resolution(first, index=True)  # last: then indexes are built once


def _build_theirs(recipe: Recipe, folder: str, vectors: npt.NDArray[Any]) -> tuple[float, float]:
    import qdrant_edge as edge

    quantization = _quantization(recipe.quantization)
    params = edge.EdgeVectorParams(
        vectors.shape[1],
        edge.Distance.Cosine,
        quantization_config=quantization,
        # As Qdrant's manual advises: codes in memory, what rescores on disk.
        memory=None if quantization is None else edge.Memory.Cold,
        hnsw_config=edge.HnswIndexConfig(16, 100, 10_000, max_indexing_threads=1),
    )
    config = edge.EdgeConfig(
        vectors=params,
        optimizers=edge.EdgeOptimizersConfig(default_segment_number=1),
        max_search_threads=1,
    )
    shard = edge.EdgeShard.create(folder, config)
    started = time.perf_counter()
    for start in range(0, len(vectors), _BATCH):
        listed = np.asarray(vectors[start : start + _BATCH], np.float32).tolist()
        points = [edge.Point(id, vector, {}) for id, vector in enumerate(listed, start)]
        shard.update(edge.UpdateOperation.upsert_points(points))
    shard.flush()
    loaded = time.perf_counter()
    shard.optimize()
    shard.flush()
    ready = time.perf_counter()
    shard.close()
    return loaded - started, ready - loaded


def _quantization(given: Sequence[str]) -> Any:
    import qdrant_edge as edge

    pinned = edge.Memory.Pinned
    match given:
        case ("scalar",):
            return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, memory=pinned)
        case ("binary", encoding, query):
            encodings = {
                "one_bit": edge.BinaryQuantizationEncoding.OneBit,
                "one_and_half_bits": edge.BinaryQuantizationEncoding.OneAndHalfBits,
                "two_bits": edge.BinaryQuantizationEncoding.TwoBits,
            }
            queries = {
                "default": edge.BinaryQuantizationQueryEncoding.Default,
                "scalar8bits": edge.BinaryQuantizationQueryEncoding.Scalar8Bits,
            }
            return edge.BinaryQuantizationConfig(
                encoding=encodings[encoding], query_encoding=queries[query], memory=pinned
            )
        case ("turbo", bits):
            sizes = {
                "bits1": edge.TurboQuantBitSize.Bits1,
                "bits1_5": edge.TurboQuantBitSize.Bits1_5,
                "bits2": edge.TurboQuantBitSize.Bits2,
                "bits4": edge.TurboQuantBitSize.Bits4,
                "bits8": edge.TurboQuantBitSize.Bits8,
            }
            return edge.TurboQuantQuantizationConfig(bits=sizes[bits], memory=pinned)
        case _:
            return None


def _by_hand(
    shard: Any, recipe: Recipe, setting: Setting, k: int
) -> Callable[[npt.NDArray[np.float32]], list[int]]:
    """A search as a program writes it that uses Edge by itself."""
    import qdrant_edge as edge

    codes = None
    if recipe.quantization:
        codes = edge.QuantizationSearchParams(
            ignore=False, rescore=True, oversampling=float(setting[0])
        )
    params = edge.SearchParams(hnsw_ef=int(setting[-1]), exact=False, quantization=codes)

    def ask(query: npt.NDArray[np.float32]) -> list[int]:
        request = edge.QueryRequest(
            limit=k, query=edge.Query.Nearest(query.tolist()), params=params
        )
        return [point.id for point in shard.query(request)]

    return ask


def _resident() -> tuple[int, int]:
    """Anonymous and file pages of this process, in bytes."""
    kinds = {"RssAnon:": 0, "RssFile:": 0}
    for line in Path("/proc/self/status").read_text().splitlines():
        kind, _, rest = line.partition("\t")
        if kind in kinds:
            kinds[kind] = 1024 * int(rest.split()[0])
    return kinds["RssAnon:"], kinds["RssFile:"]


def _bytes_in(folder: Path) -> int:
    """Size of what is in a folder but the log of writes, which Qdrant cuts off by and by."""
    return sum(
        file.stat().st_size
        for file in folder.rglob("*")
        if file.is_file() and "wal" not in file.relative_to(folder).parts
    )
