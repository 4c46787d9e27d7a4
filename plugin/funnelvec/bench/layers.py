"""What this package costs over the same Qdrant request built by hand: Edge, local mode, a server.

Both ask the same collection through the same shard or client and take turns, so that the
difference of each pair is free of what the machine does meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from funnelvec import entry
from funnelvec.bench.data import Dataset
from funnelvec.bench.stats import Ratio

__all__ = ["ALLOWED", "Layer", "measure_layers"]

#: The target: this share of the time of the request by hand.
ALLOWED = 0.05

#: Rows and queries at most: local mode goes through all rows in numpy.
_ON_EDGE, _IN_LOCAL_MODE, _ON_SERVER = (20_000, 300), (1_000, 40), (5_000, 100)
_KEEP = 100

_Vector = npt.NDArray[np.float32]
_Answers = list[tuple[int, float]]
#: Hits of ours, or pairs of id and score: what a program goes on with.
_Ask = Callable[[_Vector], Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """Our search against the request by hand.

    Attributes
    ----------
    ours_ms, hand_ms
        Median times of a search.
    difference_ms
        Median over the rounds of the median difference of the pairs.
    ratio
        1 + difference / by hand, with its spread over the rounds.
    same
        Whether both found the same rows for every query.
    """

    HEAD: ClassVar[tuple[str, ...]] = (
        *("", "funnel", "rows", "ours ms", "by hand ms", "difference ms", "ours / by hand", "same"),
    )

    name: str
    funnel: str
    rows: int
    ours_ms: float
    hand_ms: float
    difference_ms: float
    ratio: Ratio
    same: bool

    @property
    def passed(self) -> bool:
        """Whether the target is met."""
        return self.same and self.ratio.value <= 1 + ALLOWED

    def row(self) -> tuple[str, ...]:
        """The figures below `HEAD`."""
        return (
            self.name,
            self.funnel,
            f"{self.rows:,}",
            f"{self.ours_ms:.3f}",
            f"{self.hand_ms:.3f}",
            f"{self.difference_ms:+.3f}",
            self.ratio.text(3),
            "yes" if self.same else "NO",
        )

    def verdict(self) -> str:
        """Whether the target is met, in words."""
        said = "reached" if self.passed else "missed"
        return (
            f"{self.name}: {self.ratio.value - 1:+.1%} over the same request by hand, target at "
            f"most {ALLOWED:.0%}: {said}"
        )

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.name,
            "funnel": self.funnel,
            "rows": self.rows,
            "ours_ms": self.ours_ms,
            "by_hand_ms": self.hand_ms,
            "difference_ms": self.difference_ms,
            "ratio": self.ratio.as_json(),
            "same": self.same,
            "passed": self.passed,
        }


def measure_layers(
    dataset: Dataset, *, url: str | None, k: int, rounds: int, say: Callable[[str], None]
) -> tuple[Layer, ...]:
    """Measure on Edge, in local mode, and on the server of `url` if one is given."""
    narrow = min(128, dataset.dims // 2)
    funnel = f"{narrow}:f16@{max(_KEEP, k)} > {dataset.dims}:f32"
    places: list[tuple[str, tuple[int, int], Any]] = [
        ("Edge", _ON_EDGE, _on_edge),
        ("local mode", _IN_LOCAL_MODE, _in_local_mode),
    ]
    if url is not None:
        places.append((url, _ON_SERVER, _on_server))
    found = []
    for name, (most, asked), place in places:
        say(f"what this package costs: {name}")
        rows, queries = dataset.rows[:most], dataset.queries[:asked]
        with place(url, rows, funnel, k) as (ours, by_hand):
            found.append(_compared(name, funnel, len(rows), ours, by_hand, queries, rounds=rounds))
    return tuple(found)


def _compared(
    name: str,
    funnel: str,
    rows: int,
    ours: _Ask,
    by_hand: _Ask,
    queries: _Vector,
    *,
    rounds: int,
) -> Layer:
    pairs: list[list[tuple[float, float]]] = []
    same = True
    for turn in range(-1, rounds):
        times = []
        gc.collect()
        gc.disable()
        try:
            for number, query in enumerate(queries):
                if number % 2:
                    (theirs, hand), (mine, our) = _timed(by_hand, query), _timed(ours, query)
                else:
                    (mine, our), (theirs, hand) = _timed(ours, query), _timed(by_hand, query)
                times.append((our, hand))
                same = same and _alike([(hit.id, hit.score) for hit in mine], theirs)
        finally:
            gc.enable()
        if turn >= 0:
            pairs.append(times)
    differences = [median(our - hand for our, hand in each) for each in pairs]
    hands = [median(hand for _, hand in each) for each in pairs]
    ratios = [1 + d / h for d, h in zip(differences, hands, strict=True)]
    return Layer(
        name,
        funnel,
        rows,
        median(our for each in pairs for our, _ in each),
        median(hands),
        median(differences),
        Ratio(median(ratios), min(ratios), max(ratios), rounds),
        same,
    )


def _timed(ask: _Ask, query: _Vector) -> tuple[Any, float]:
    started = time.perf_counter_ns()
    found = ask(query)
    return found, (time.perf_counter_ns() - started) / 1e6


def _alike(a: _Answers, b: _Answers) -> bool:
    """Whether two answers have the same scores, up to what a 32-bit float says, and rows."""
    near = len(a) == len(b) and np.allclose([s for _, s in a], [s for _, s in b], atol=1e-5)
    return near and ({id for id, _ in a} == {id for id, _ in b} or len({s for _, s in a}) < len(a))


def _filled(engine: Any, name: str, rows: _Vector, funnel: str) -> Any:
    table = engine.create(name, dims=rows.shape[1])
    table.load(rows, ids=range(len(rows)), resume=False)
    table.add_resolution(funnel.partition("@")[0], index=True)
    table.create_funnel("f", funnel)
    return table


def _ours(table: Any, k: int) -> _Ask:
    return lambda query: table.search(query, k=k, funnel="f")


def _unit(query: _Vector, dims: int) -> list[float]:
    """The direction of a prefix, as our vectors of 16-bit floats are compared by."""
    prefix = query[:dims]
    found: list[float] = (prefix / np.linalg.norm(prefix)).astype(np.float16).tolist()
    return found


@contextlib.contextmanager
def _on_edge(url: str | None, rows: _Vector, funnel: str, k: int) -> Iterator[tuple[_Ask, _Ask]]:
    import qdrant_edge as edge

    narrow, keep = int(funnel.partition(":")[0]), int(funnel.partition("@")[2].partition(" ")[0])
    codes = edge.QuantizationSearchParams(ignore=True)
    params = edge.SearchParams(hnsw_ef=keep, exact=False, quantization=codes)
    rescore = edge.SearchParams(exact=False, quantization=codes)
    with tempfile.TemporaryDirectory() as folder:
        engine: Any
        with entry.connect(f"edge:{folder}/edge") as engine:
            table = _filled(engine, "rows", rows, funnel)
            shard = engine._deployment._shards.opened("rows")  # the very same: one cache for both

            def by_hand(query: _Vector) -> _Answers:
                nearest, first = edge.Query.Nearest, _unit(query, narrow)
                request = edge.QueryRequest(
                    limit=k,
                    query=nearest(query.tolist(), using="embedding"),
                    prefetches=[
                        edge.Prefetch(
                            limit=keep,
                            query=nearest(first, using=f"embedding_{narrow}_f16"),
                            params=params,
                        )
                    ],
                    params=rescore,
                )
                return [(point.id, point.score) for point in shard.query(request)]

            yield _ours(table, k), by_hand


@contextlib.contextmanager
def _in_local_mode(
    url: str | None, rows: _Vector, funnel: str, k: int
) -> Iterator[tuple[_Ask, _Ask]]:
    from qdrant_client import QdrantClient

    with contextlib.closing(QdrantClient(location=":memory:")) as client:
        table = _filled(entry.wrap(client), "rows", rows, funnel)
        yield _ours(table, k), _by_client(client, "rows", funnel, k, params=False)


@contextlib.contextmanager
def _on_server(url: str, rows: _Vector, funnel: str, k: int) -> Iterator[tuple[_Ask, _Ask]]:
    from qdrant_client import QdrantClient

    name = f"funnelvec_bench_{uuid.uuid4().hex}"
    client = QdrantClient(url=url, timeout=60, check_compatibility=False)
    try:
        with entry.wrap(client) as engine:
            table = _filled(engine, name, rows, funnel)
            yield _ours(table, k), _by_client(client, name, funnel, k, params=True)
    finally:
        client.delete_collection(name)
        client.close()


def _by_client(client: Any, name: str, funnel: str, k: int, *, params: bool) -> _Ask:
    from qdrant_client import models

    narrow, keep = int(funnel.partition(":")[0]), int(funnel.partition("@")[2].partition(" ")[0])
    first = models.SearchParams(hnsw_ef=keep, exact=False) if params else None

    def ask(query: _Vector) -> _Answers:
        inner = models.Prefetch(
            query=_unit(query, narrow),
            using=f"embedding_{narrow}_f16",
            limit=keep,
            params=first,
        )
        found = client.query_points(
            name,
            prefetch=inner,
            query=query.tolist(),
            using="embedding",
            limit=k,
            with_payload=False,
        )
        return [(point.id, point.score) for point in found.points]

    return ask
