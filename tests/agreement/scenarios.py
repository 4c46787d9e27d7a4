"""One list of searches that every engine must answer alike.

A scenario says what a table holds and what is asked of it, in terms of the `Engine` and `Table`
protocols only. `load` puts it into an engine, `ask` asks, `compare` compares two answers.

Engines may round a score in the last bits. So that this cannot change an answer, every scenario
keeps clear of near-ties: where a stage cuts, and between neighbours of the answer, scores either
differ clearly or are equal because the vectors are (test_memory.py proves it for each). Indexes
are not built: the first stage is a scan on every engine.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import funnelvec as fv
from funnelvec.engines.base import Engine, Table, default_funnel
from funnelvec.funnel import Funnel
from funnelvec.resolution import Resolution
from funnelvec.types import BaseCode, ColumnKind, Hit, Judgments, Key, Metric, Storage

Vectors = npt.NDArray[np.float32]

#: Largest difference of two engines' scores, relative to max(1, |score|), by the last code.
SCORE_TOLERANCE = {"f32": 1e-6, "f16": 2e-6, "bit": 1e-12, "int8": 1e-9}
#: Both fits see scores that differ by SCORE_TOLERANCE, so slope and offset differ a little too.
RELEVANCE_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Rows:
    """What a table holds."""

    ids: Sequence[Key]
    vectors: Vectors
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A table, a funnel and a question.

    `name` is the name of the table. `rows`, `query` and `judgments` are built from `seed`, when
    they are wanted, so that the list itself is cheap.
    """

    name: str
    dims: int
    funnel: str
    rows: Callable[[np.random.Generator, int], Rows]
    query: Callable[[np.random.Generator, Rows], Vectors]
    seed: int = 0
    vector: str = "embedding"
    dtype: BaseCode = "f32"
    metric: Metric = "cosine"
    key: str | tuple[str, ...] = "id"
    key_kind: ColumnKind | tuple[ColumnKind, ...] = "integer"
    columns: Mapping[str, ColumnKind] = field(default_factory=dict)
    approximate: bool = False
    k: int = 10
    filter: Mapping[str, Any] | None = None
    min_relevance: float | None = None
    judgments: Callable[[np.random.Generator, Rows], Judgments] | None = None
    expected: tuple[Key, ...] | None = None  # the ids of the answer, where they are obvious
    storage: Storage | None = None
    fits: tuple[Mapping[str, Any], ...] = ()  # rotations to fit, as `fit_rotation` takes them

    def build(self) -> tuple[Rows, Vectors]:
        """The rows and the query; built once, since they are asked for with every search."""
        if self.name not in _BUILT or _BUILT[self.name][0] is not self:
            rng = np.random.default_rng(self.seed)
            rows = self.rows(rng, self.dims)
            query = self.query(rng, rows)
            rows.vectors.setflags(write=False)
            _BUILT[self.name] = self, rows, query
        return _BUILT[self.name][1:]

    @property
    def base(self) -> Resolution:
        """The resolution of the vector column."""
        return Resolution(self.dims, self.dtype)

    def asked(self) -> Vectors:
        """Queries to fit with: then all rows are fitted to, in whichever order they are drawn."""
        rng = np.random.default_rng(self.seed + 2)
        return decaying(rng, 40, self.dims) + rng.normal(size=(40, self.dims)).astype(np.float32)

    def judge(self) -> Judgments | None:
        """The judgments, or None."""
        if self.judgments is None:
            return None
        rows, _ = self.build()
        return self.judgments(np.random.default_rng(self.seed + 1), rows)


_BUILT: dict[str, tuple[Scenario, Rows, Vectors]] = {}
_ANSWERS: dict[str, tuple[Scenario, list[Hit]]] = {}


def answer_of_memory(scenario: Scenario) -> list[Hit]:
    """What the memory engine answers; asked once for all engines that are compared with it."""
    if scenario.name not in _ANSWERS or _ANSWERS[scenario.name][0] is not scenario:
        with fv.connect("memory:") as memory:
            _ANSWERS[scenario.name] = scenario, ask(load(memory, scenario), scenario)
    return _ANSWERS[scenario.name][1]


def load(engine: Engine, scenario: Scenario) -> Table:
    """Create the scenario's table with its resolutions, funnel and calibration."""
    rows, _ = scenario.build()
    table = engine.create(
        scenario.name,
        dims=scenario.dims,
        vector=scenario.vector,
        dtype=scenario.dtype,
        metric=scenario.metric,
        id=scenario.key,
        id_kind=scenario.key_kind,
        columns=scenario.columns,
    )
    table.add(rows.ids, rows.vectors, columns=rows.columns)
    for fit in scenario.fits:
        table.fit_rotation(**fit, queries=scenario.asked())
    funnel = Funnel.parse(scenario.funnel)
    for resolution in dict.fromkeys(stage.resolution for stage in funnel.stages):
        if resolution != scenario.base:
            table.add_resolution(resolution, storage=scenario.storage)
    table.backfill(batch=70)
    table.create_funnel(
        default_funnel(scenario.name), scenario.funnel, approximate=scenario.approximate
    )
    judgments = scenario.judge()
    if judgments is not None:
        table.calibrate(judgments)
    return table


def ask(table: Table, scenario: Scenario) -> list[Hit]:
    """Ask the scenario's question."""
    _, query = scenario.build()
    return table.search(
        query, k=scenario.k, min_relevance=scenario.min_relevance, filter=scenario.filter
    )


def compare(
    hits_a: Sequence[Hit],
    hits_b: Sequence[Hit],
    tolerance: float,
    *,
    relevance: float = RELEVANCE_TOLERANCE,
) -> None:
    """Assert that two answers are one: scores first, then ids in order, then relevance."""
    assert len(hits_a) == len(hits_b), (hits_a, hits_b)
    for a, b in zip(hits_a, hits_b, strict=True):
        assert abs(a.score - b.score) <= tolerance * max(1.0, abs(a.score)), (a, b)
    assert [hit.id for hit in hits_a] == [hit.id for hit in hits_b]
    for a, b in zip(hits_a, hits_b, strict=True):
        assert (a.relevance is None) == (b.relevance is None), (a, b)
        if a.relevance is not None and b.relevance is not None:
            assert abs(a.relevance - b.relevance) <= relevance, (a, b)


def tolerance(scenario: Scenario) -> float:
    """How far two engines' scores may lie apart."""
    return SCORE_TOLERANCE[Funnel.parse(scenario.funnel).last.resolution.code]


# -- rows --------------------------------------------------------------------------------------


def decaying(rng: np.random.Generator, n: int, dims: int) -> Vectors:
    """Gaussian rows whose leading numbers carry most, as those of trained embeddings do."""
    return (rng.normal(size=(n, dims)) * np.exp(-np.arange(dims) / (dims / 4))).astype(np.float32)


def plain(n: int) -> Callable[[np.random.Generator, int], Rows]:
    """`n` rows with whole numbers as keys, not in order."""

    def rows(rng: np.random.Generator, dims: int) -> Rows:
        return Rows([int(key) for key in rng.permutation(n) * 7 - 50], decaying(rng, n, dims))

    return rows


def flocks(near: int, far: int) -> Callable[[np.random.Generator, int], Rows]:
    """`near` rows close to row 0 and `far` rows elsewhere, with a gap in Hamming distance.

    Distances of sign codes are whole numbers, so ordinary rows tie wherever a stage cuts. A stage
    that keeps exactly the `near` rows cuts in the gap.
    """

    def rows(rng: np.random.Generator, dims: int) -> Rows:
        centre = rng.choice([-1.0, 1.0], size=dims) * rng.uniform(0.5, 1.5, size=dims)
        close = centre * (1 + 0.4 * rng.normal(size=(near, dims)))
        away = rng.normal(size=(far, dims))
        vectors = np.concatenate([close, away]).astype(np.float32)
        vectors[0] = centre
        return Rows(list(range(near + far)), vectors)

    return rows


def twins(rng: np.random.Generator, dims: int) -> Rows:
    """Equal rows, and rows twice or half as long: all score the same, to the last bit."""
    base = decaying(rng, 20, dims)
    vectors = np.concatenate([base, base[:8], 2 * base[:4], base[:4] / 2]).astype(np.float32)
    return Rows([int(key) for key in rng.permutation(len(vectors))], vectors)


#: Capitals, accents, and letters beyond the first plane: locales order these in another way.
WORDS = [
    "a",
    "B",
    "b",
    "A",
    "ä",
    "z",
    "Z",
    "é",
    "e",
    "ß",
    "",
    " ",
    "10",
    "9",
    "😀",
    "\uffff",
    "日本",
]


def worded(rng: np.random.Generator, dims: int) -> Rows:
    """Text keys, all with one vector, among others."""
    same = np.repeat(decaying(rng, 1, dims), len(WORDS), axis=0)
    others = decaying(rng, 30, dims)
    ids = [*rng.permutation(WORDS).tolist(), *(f"row {i}" for i in range(30))]
    return Rows(ids, np.concatenate([same, others]))


KINDS: dict[str, ColumnKind] = {
    "Price": "number",
    "stock": "integer",
    "lang": "text",
    "sold out": "boolean",
    "day": "date",
    "seen": "timestamp",
    "batch": "uuid",
}


def catalogue(rng: np.random.Generator, dims: int) -> Rows:
    """200 rows with a column of every kind, each with gaps."""
    n = 200
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
    values: dict[str, list[Any]] = {
        "Price": [float("nan") if i % 19 == 5 else i * 0.5 for i in range(n)],
        "stock": [i % 7 for i in range(n)],
        "lang": [("de", "DE", "en", "é", "", 'o\'neil "x" \\ %s $1')[i % 6] for i in range(n)],
        "sold out": [i % 2 == 0 for i in range(n)],
        "day": [start.date() + datetime.timedelta(days=i) for i in range(n)],
        "seen": [start + datetime.timedelta(hours=i, microseconds=i) for i in range(n)],
        "batch": [uuid.UUID(int=i % 3) for i in range(n)],
    }
    gaps = {"Price": 11, "stock": 13, "lang": 5, "sold out": 17, "day": 23, "seen": 29, "batch": 31}
    columns = {
        name: [None if i % gaps[name] == 3 else v for i, v in enumerate(values[name])]
        for name in values
    }
    return Rows(list(range(n)), decaying(rng, n, dims), columns)


def long_and_short(n: int) -> Callable[[np.random.Generator, int], Rows]:
    """`n` rows of lengths from 0.2 to 3 times the ordinary: they order rows by the metric too."""

    def rows(rng: np.random.Generator, dims: int) -> Rows:
        lengths = np.linspace(0.2, 3, n, dtype=np.float32)[:, np.newaxis]
        return Rows([int(key) for key in rng.permutation(n)], decaying(rng, n, dims) * lengths)

    return rows


def beyond_float16(rng: np.random.Generator, dims: int) -> Rows:
    """Rows on both sides of the length where 16-bit codes are shortened."""
    rows = long_and_short(80)(rng, dims)
    return Rows(rows.ids, rows.vectors * np.float32(40_000))


def some_zero(rng: np.random.Generator, dims: int) -> Rows:
    """Three rows of zeros and two whose first half is zero, among others."""
    rows = plain(60)(rng, dims)
    rows.vectors[[7, 30, 31]] = 0
    rows.vectors[[8, 9], : dims // 2] = 0
    return rows


def repeated(rng: np.random.Generator, dims: int) -> Rows:
    """12 vectors, each in four rows: ties under every metric."""
    return Rows([int(key) for key in rng.permutation(48)], np.tile(decaying(rng, 12, dims), (4, 1)))


def tenants(rng: np.random.Generator, dims: int) -> Rows:
    """Keys of text and a number: every word with two numbers, all with one vector, and others."""
    words = [(word, number) for word in WORDS for number in (-1, 12)]
    order = rng.permutation(len(words))
    keys: list[Key] = [words[i] for i in order]
    keys += [("a", 100 + number) for number in range(30)]
    same = np.repeat(decaying(rng, 1, dims), len(words), axis=0)
    return Rows(keys, np.concatenate([same, decaying(rng, 30, dims)]))


def diary(rng: np.random.Generator, dims: int) -> Rows:
    """Keys of a date, a UUID and a number; 40 rows with 10 vectors."""
    day = datetime.date(2024, 2, 27)
    keys: list[Key] = [
        (day + datetime.timedelta(days=i % 4), uuid.UUID(int=2**127 * (i % 2) + i % 3), i / 8)
        for i in (int(i) for i in rng.permutation(40))
    ]
    return Rows(keys, np.tile(decaying(rng, 10, dims), (4, 1)), {"page": list(range(40))})


# -- queries and judgments ---------------------------------------------------------------------


def fresh(rng: np.random.Generator, rows: Rows) -> Vectors:
    """A query that is no row."""
    vector: Vectors = decaying(rng, 1, rows.vectors.shape[1])[0]
    return vector


def beside(row: int) -> Callable[[np.random.Generator, Rows], Vectors]:
    """A query close to a row."""

    def query(rng: np.random.Generator, rows: Rows) -> Vectors:
        vector: Vectors = rows.vectors[row]
        blurred: Vectors = vector * (1 + 0.05 * rng.normal(size=len(vector))).astype(np.float32)
        return blurred

    return query


def own(row: int) -> Callable[[np.random.Generator, Rows], Vectors]:
    """A row itself as the query."""
    return lambda rng, rows: rows.vectors[row]


def zero(rng: np.random.Generator, rows: Rows) -> Vectors:
    """The zero vector."""
    return np.zeros(rows.vectors.shape[1], np.float32)


def noisy_copies(rng: np.random.Generator, rows: Rows) -> Judgments:
    """Of 30 blurred rows the row is relevant and another is not."""
    picked = rng.choice(len(rows.ids), size=30, replace=False)
    blurred = rows.vectors[picked] + 0.3 * decaying(rng, 30, rows.vectors.shape[1])
    others = (picked + 1) % len(rows.ids)
    ids = [rows.ids[int(i)] for pair in zip(picked, others, strict=True) for i in pair]
    return Judgments(np.repeat(blurred, 2, axis=0), ids, np.array([True, False] * 30))


def filtered(name: str, given: Mapping[str, Any], *, funnel: str = "16:f32") -> Scenario:
    """A search of the catalogue under a filter; everything that matches comes back."""
    return Scenario(
        name=f"filter_{name}",
        dims=16,
        funnel=funnel,
        rows=catalogue,
        query=fresh,
        seed=1,
        columns=KINDS,
        k=200,
        filter=given,
    )


_NESTED = {
    "$or": [
        {"$and": [{"stock": {"$gte": 2, "$lt": 5}}, {"$not": {"lang": "de"}}]},
        {"$not": {"$or": [{"sold out": True}, {"day": {"$lt": "2024-06-01"}}]}},
    ]
}


def under(metric: Metric) -> tuple[Scenario, ...]:
    """Scenarios of a metric under which lengths and zero vectors count."""
    many = long_and_short(200)
    return (
        Scenario(f"{metric}_exact", 32, "32:f32", many, fresh, metric=metric),
        Scenario(f"{metric}_itself", 32, "32:f32", many, own(17), metric=metric),
        Scenario(f"{metric}_f16", 48, "16:f16@40 > 48:f32", many, fresh, metric=metric),
        Scenario(f"{metric}_f32", 48, "16:f32@40 > 48:f32", many, fresh, metric=metric),
        Scenario(f"{metric}_of_f16", 48, "24:f16", many, fresh, metric=metric, approximate=True),
        Scenario(
            f"{metric}_three_stages",
            64,
            "64:bit@40 > 24:f16@20 > 64:f32",
            flocks(40, 200),
            beside(0),
            metric=metric,
        ),
        Scenario(
            f"{metric}_rotated",
            64,
            "64:bit3~random@40 > 64:f16~random1@20 > 64:f32",
            flocks(40, 200),
            beside(0),
            metric=metric,
        ),
        Scenario(
            f"{metric}_of_bits",
            64,
            "64:bit",
            flocks(25, 60),
            beside(0),
            metric=metric,
            approximate=True,
            k=60,
        ),
        Scenario(f"{metric}_ties", 24, "8:f16@48 > 24:f32", repeated, fresh, metric=metric, k=20),
        Scenario(f"{metric}_zero_rows", 16, "16:f32", some_zero, fresh, metric=metric, k=60),
        Scenario(
            f"{metric}_zero_prefixes",
            16,
            "8:f16@60 > 16:f32",
            some_zero,
            fresh,
            metric=metric,
            k=60,
        ),
        Scenario(f"{metric}_zero_query", 16, "16:f32", some_zero, zero, metric=metric, k=60),
        Scenario(
            f"{metric}_beyond_float16",
            16,
            "8:f16@40 > 16:f32",
            beyond_float16,
            lambda r, rows: fresh(r, rows) * np.float32(50_000),
            metric=metric,
        ),
        Scenario(
            f"{metric}_of_shortened_codes",
            16,
            "16:f16",
            beyond_float16,
            lambda r, rows: fresh(r, rows) * np.float32(50_000),
            metric=metric,
            approximate=True,
        ),
        Scenario(
            f"{metric}_filtered",
            16,
            "8:f16@30 > 16:f32",
            catalogue,
            fresh,
            seed=1,
            metric=metric,
            columns=KINDS,
            filter={"stock": {"$gte": 3}},
        ),
        Scenario(
            f"{metric}_relevance",
            32,
            "16:f16@60 > 32:f32",
            plain(200),
            beside(5),
            metric=metric,
            judgments=noisy_copies,
            min_relevance=0.5,
            k=40,
        ),
    )


def of_halves(metric: Metric) -> tuple[Scenario, ...]:
    """Scenarios of a column of 16-bit floats."""
    many = long_and_short(200)

    def scenario(name: str, dims: int, funnel: str, *rest: Any, **more: Any) -> Scenario:
        return Scenario(
            f"half_{metric}_{name}", dims, funnel, *rest, metric=metric, dtype="f16", **more
        )

    return (
        scenario("exact", 32, "32:f16", many, fresh),
        scenario("itself", 32, "32:f16", many, own(17)),
        scenario("two_stages", 48, "16:f16@40 > 48:f16", many, fresh),
        scenario("three_stages", 64, "64:bit@40 > 24:f16@20 > 64:f16", flocks(40, 200), beside(0)),
        scenario("of_a_prefix", 48, "24:f16", many, fresh, seed=1, approximate=True),
        scenario("ties", 24, "8:f16@48 > 24:f16", repeated, fresh, k=20),
        scenario(
            "relevance",
            32,
            "16:f16@60 > 32:f16",
            plain(200),
            beside(5),
            judgments=noisy_copies,
            min_relevance=0.5,
            k=40,
        ),
    )


def of_bytes() -> tuple[Scenario, ...]:
    """Scenarios of codes of one byte a number, which Postgres does not have."""
    pca = {"name": "pca", "dims": 16}
    return (
        Scenario("bytes", 48, "24:int8@30 > 48:f32", plain(300), fresh),
        Scenario("bytes_of_all", 80, "80:int8@20 > 80:f32", plain(100), beside(3)),
        Scenario("bytes_of_halves", 48, "24:int8@30 > 48:f16", plain(300), fresh, dtype="f16"),
        Scenario(
            "bytes_last",
            96,
            "96:bit@50 > 96:int8",
            flocks(50, 100),
            beside(0),
            approximate=True,
            judgments=noisy_copies,
            min_relevance=0.735,
            k=50,
        ),
        Scenario("bytes_of_twins", 24, "24:int8", twins, own(2), approximate=True),
        Scenario(
            "bytes_rotated",
            64,
            "16:int8~pca@100 > 64:int8~random@30 > 64:f32",
            plain(300),
            beside(9),
            fits=(pca,),
        ),
    )


def of_fitted_rotations() -> tuple[Scenario, ...]:
    """Scenarios whose first stages are behind rotations that each engine fits itself.

    Engines round the maps differently in the last bits, so they end in the column itself.
    """
    pca = {"name": "pca", "dims": 16}
    return (
        Scenario("fitted_pca", 48, "16:f16~pca@30 > 48:f32", plain(300), fresh, fits=(pca,)),
        Scenario(
            "fitted_three_stages",
            48,
            "8:f16~pca@100 > 16:f32~pca@30 > 48:f32",
            plain(300),
            beside(4),
            metric="euclidean",
            fits=(pca,),
        ),
        Scenario(
            "fitted_signs",
            64,
            "64:bit~pcar@40 > 64:f32",
            flocks(40, 200),
            beside(0),
            fits=({"name": "pcar", "dims": 64, "then": "random"},),
        ),
        Scenario(
            "fitted_levels",
            64,
            "64:bit3~pcar@40 > 64:f16",
            flocks(40, 200),
            beside(0),
            dtype="f16",
            fits=({"name": "pcar", "dims": 64, "then": "random"},),
        ),
        Scenario(
            "fitted_to_queries",
            48,
            "16:f16~sphere@40 > 48:f32",
            plain(300),
            fresh,
            metric="dot",
            fits=({"name": "sphere", "kind": "sphering", "dims": 16},),
        ),
        Scenario(
            "fitted_to_queries_of_cosine",
            48,
            "16:f16~sphere@40 > 48:f32",
            plain(300),
            beside(7),
            fits=({"name": "sphere", "kind": "sphering", "dims": 16}, pca),
            judgments=noisy_copies,
            min_relevance=0.5,
            k=40,
        ),
    )


def beside_the_table(*names: str) -> tuple[Scenario, ...]:
    """The same questions where codes are kept in side tables."""
    found = {scenario.name: scenario for scenario in IN_COLUMNS}
    return tuple(replace(found[name], name=f"{name}_side", storage="side") for name in names)


IN_COLUMNS: tuple[Scenario, ...] = (
    Scenario("exact", 32, "32:f32", plain(150), fresh),
    Scenario("exact_itself", 32, "32:f32", plain(150), own(17)),
    Scenario(
        "one_dimension",
        1,
        "1:f32",
        lambda r, d: Rows([1, 2, 3], r.normal(size=(3, d)).astype(np.float32)),
        lambda r, rows: np.ones(1, np.float32),
    ),
    Scenario("one_row", 8, "4:f16@5 > 8:f32", plain(1), fresh, k=5, expected=(-50,)),
    Scenario("no_rows", 8, "4:bit@5 > 8:f32", plain(0), fresh, k=5, expected=()),
    Scenario("k_beyond_the_table", 16, "16:f32", plain(12), fresh, k=500),
    Scenario("k_is_the_keep", 32, "16:f16@25 > 32:f32", plain(200), fresh, k=25),
    Scenario("keep_beyond_the_table", 32, "16:f16@1000 > 32:f32", plain(40), fresh, k=100),
    Scenario("two_stages_f16", 48, "16:f16@30 > 48:f32", plain(300), fresh),
    Scenario("two_stages_f32", 48, "16:f32@30 > 48:f32", plain(300), fresh),
    Scenario("two_stages_bit", 64, "64:bit@25 > 64:f32", flocks(25, 200), beside(0)),
    Scenario("two_stages_bit_of_odd_width", 64, "61:bit@25 > 64:f32", flocks(25, 200), beside(0)),
    Scenario("full_width_f16_first", 32, "32:f16@20 > 32:f32", plain(200), beside(3)),
    Scenario("three_stages", 64, "8:f16@100 > 24:f16@30 > 64:f32", plain(400), fresh),
    Scenario(
        "three_stages_of_three_codes",
        64,
        "64:bit@40 > 24:f16@15 > 64:f32",
        flocks(40, 200),
        beside(0),
    ),
    Scenario(
        "three_stages_f32_between", 64, "8:f16@80 > 24:f32@20 > 64:f32", plain(300), beside(9)
    ),
    Scenario("ends_in_f16", 48, "12:f16@50 > 48:f16", plain(200), fresh, seed=1, approximate=True),
    Scenario("ends_in_a_prefix", 48, "24:f32", plain(200), fresh, approximate=True),
    Scenario("ends_in_bits", 64, "64:bit", flocks(25, 60), beside(0), approximate=True, k=60),
    Scenario("ties", 24, "24:f32", twins, own(0), k=20),
    Scenario("ties_after_a_stage", 24, "8:f16@36 > 24:f32", twins, own(2), k=20),
    Scenario(
        "ties_of_text_keys",
        16,
        "16:f32",
        worded,
        own(0),
        key_kind="text",
        k=len(WORDS),
        expected=tuple(sorted(WORDS)),
    ),
    Scenario(
        'Mixed Case; "quoted"',
        16,
        "8:f16@50 > 16:f32",
        plain(50),
        fresh,
        vector="Vec tor",
        key="Key'",
    ),
    Scenario(
        "uuid_keys",
        16,
        "16:f32",
        lambda r, d: Rows(
            [uuid.UUID(int=int(n)) for n in r.permutation(20)],
            np.repeat(decaying(r, 4, d), 5, axis=0),
        ),
        own(0),
        key_kind="uuid",
        k=20,
    ),
    Scenario(
        "large_numbers",
        16,
        "8:f16@20 > 16:f32",
        lambda r, d: Rows(list(range(60)), decaying(r, 60, d) * np.float32(70_000)),
        fresh,
    ),
    Scenario(
        "small_numbers",
        16,
        "8:f16@20 > 16:f32",
        lambda r, d: Rows(list(range(60)), decaying(r, 60, d) * np.float32(1e-6)),
        fresh,
    ),
    filtered("equal", {"lang": "de"}),
    filtered("not_equal", {"lang": {"$ne": "de"}}),
    filtered("code_points", {"lang": {"$gt": "DE"}}),
    filtered("quotes", {"lang": 'o\'neil "x" \\ %s $1'}),
    filtered("empty_text", {"lang": ""}),
    filtered("range", {"Price": {"$gte": 10, "$lt": 40.5}}),
    filtered("nan_is_above", {"Price": {"$gt": 90}}),
    filtered("nan_is_not_below", {"Price": {"$lte": 1e308}}),
    filtered("nan_differs", {"Price": {"$ne": 10.5}}),
    filtered("in", {"stock": {"$in": [1, 5, 99]}}),
    filtered("not_in", {"stock": {"$nin": [1, 5, 99]}}),
    filtered("exists", {"lang": {"$exists": True}}),
    filtered("missing", {"lang": {"$exists": False}}),
    filtered("not", {"stock": {"$not": {"$lt": 5}}}),
    filtered("boolean", {"sold out": True}),
    filtered("boolean_not", {"sold out": {"$ne": True}}),
    filtered("date", {"day": {"$gte": "2024-03-01", "$lt": datetime.date(2024, 4, 1)}}),
    filtered("timestamp", {"seen": {"$gt": "2024-01-02T12:00:00+02:00"}}),
    filtered("timestamp_naive", {"seen": {"$lte": "2024-01-02 12:00:00.00003"}}),
    filtered("timestamp_day", {"seen": {"$lt": "2024-01-03"}}),
    filtered("uuid", {"batch": str(uuid.UUID(int=1))}),
    filtered("uuid_in", {"batch": {"$nin": [uuid.UUID(int=1)]}}),
    filtered("key", {"id": {"$gte": 190}}),
    filtered("several", {"lang": "de", "stock": {"$gt": 2}, "sold out": True}),
    filtered("nested", _NESTED),
    filtered("nested_not", {"$not": _NESTED}),
    filtered("nothing", {"stock": {"$gt": 1000}}),
    filtered("empty", {}),
    filtered("two_stages", {"stock": {"$lt": 4}}, funnel="8:f16@200 > 16:f32"),
    Scenario(
        "filter_before_the_cut",
        16,
        "8:f16@20 > 16:f32",
        catalogue,
        fresh,
        seed=1,
        columns=KINDS,
        filter={"stock": {"$gte": 3}},
    ),
    Scenario("relevance", 32, "16:f16@40 > 32:f32", plain(200), beside(5), judgments=noisy_copies),
    Scenario(
        "relevance_cut",
        32,
        "16:f16@40 > 32:f32",
        plain(200),
        beside(5),
        judgments=noisy_copies,
        min_relevance=0.5,
        k=40,
    ),
    Scenario(
        "relevance_of_nothing",
        32,
        "16:f16@40 > 32:f32",
        plain(200),
        fresh,
        judgments=noisy_copies,
        min_relevance=1.0,
        expected=(),
    ),
    Scenario(
        "relevance_of_everything",
        32,
        "32:f32",
        plain(50),
        fresh,
        judgments=noisy_copies,
        min_relevance=0.0,
        k=50,
    ),
    Scenario(
        "relevance_and_filter",
        16,
        "8:f16@60 > 16:f32",
        catalogue,
        beside(8),
        seed=1,
        columns=KINDS,
        filter={"sold out": True},
        judgments=noisy_copies,
        min_relevance=0.3,
        k=60,
    ),
    Scenario(
        "relevance_at_an_approximate_end",
        48,
        "12:f16@50 > 48:f16",
        plain(200),
        beside(1),
        seed=17,
        approximate=True,
        judgments=noisy_copies,
        min_relevance=0.2,
    ),
    *under("dot"),
    *under("euclidean"),
    *of_halves("cosine"),
    *of_halves("dot"),
    *of_halves("euclidean"),
    *of_fitted_rotations(),
    *of_bytes(),
    Scenario(
        "keys_of_text_and_numbers",
        16,
        "16:f32",
        tenants,
        own(0),
        key=("tenant", "Doc id"),
        key_kind=("text", "integer"),
        k=2 * len(WORDS),
        expected=tuple((word, number) for word in sorted(WORDS) for number in (-1, 12)),
    ),
    Scenario(
        "keys_filtered_by_a_part",
        16,
        "8:f16@40 > 16:f32",
        tenants,
        fresh,
        key=("tenant", "Doc id"),
        key_kind=("text", "integer"),
        filter={"tenant": "a", "Doc id": {"$gte": 105}},
    ),
    Scenario(
        "keys_of_three_kinds",
        24,
        "8:f16@40 > 24:f32",
        diary,
        own(0),
        metric="euclidean",
        key=("day", "ref", "part"),
        key_kind=("date", "uuid", "number"),
        columns={"page": "integer"},
        k=40,
    ),
    Scenario(
        "keys_of_one_kind_and_relevance",
        32,
        "16:f16@60 > 32:f16",
        lambda r, d: Rows([(int(n) % 9, -int(n)) for n in r.permutation(200)], decaying(r, 200, d)),
        beside(5),
        dtype="f16",
        key=("b", "a"),
        judgments=noisy_copies,
        min_relevance=0.5,
        k=40,
    ),
)

SCENARIOS = IN_COLUMNS + beside_the_table(
    "no_rows",
    "keep_beyond_the_table",
    "two_stages_f32",
    "two_stages_bit",
    "three_stages_of_three_codes",
    "ends_in_a_prefix",
    "ties_after_a_stage",
    'Mixed Case; "quoted"',
    "filter_two_stages",
    "filter_before_the_cut",
    "relevance_cut",
    "relevance_and_filter",
    "relevance_at_an_approximate_end",
    "dot_filtered",
    "euclidean_filtered",
    "keys_filtered_by_a_part",
    "keys_of_three_kinds",
    "keys_of_one_kind_and_relevance",
    "fitted_three_stages",
    "fitted_signs",
    "fitted_to_queries_of_cosine",
)
