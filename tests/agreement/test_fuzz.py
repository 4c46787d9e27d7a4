"""Hostile input to every Python entry point, on every engine: an answer or one of our errors.

The cases come from a seed. After a refusal the table holds what it held before, on Postgres down to the
catalogue. ``FUNNELVEC_FUZZ=N`` runs N times as many.
"""

from __future__ import annotations

import datetime
import decimal
import os
import random
import reprlib
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

import funnelvec as fv
from funnelvec import filters
from funnelvec.errors import FunnelvecError
from tests import awaited, databases
from tests.agreement import edge
from tests.databases import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEEDS = range(3 * int(os.environ.get("FUNNELVEC_FUZZ", "1")))
CASES = 300
DIMS = 8
ROWS = 260  # a fit takes 249


class Odd:
    """Fails at whatever is asked of it."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> int:
        raise RuntimeError("odd")

    def __str__(self) -> str:
        return "odd"

    __repr__ = __str__


def anything(rng: random.Random) -> Any:
    return rng.choice([
        None, True, False, 0, 1, -1, 5, 20, 21, 2**31, 2**63, 2**200, -(2**64), 0.5, 1.5, float("nan"), float("inf"),
        -0.0, 5e-324, 1e308, 1j, "", "x", "products", "embedding", "id", "4:f16", "8:f32", "4:f16@20 > 8:f32",
        "'; drop table products; --", '"', "%s", "{}", "\x00", "a\x00b", "\ud800", "é" * 40, "x" * 100_000,
        "[1,2,3]", b"", b"\xff", bytearray(b"x"), [], [None], [1], [[1]], {}, {"a": 1}, {1: 2}, {None: None}, (),
        set(), frozenset({1}), object(), Odd(), int, len, range(3), iter([1]), (x for x in "ab"), ..., NotImplemented,
        np.float32(1), np.int64(7), np.bool_(True), np.str_("x"), np.array(1), np.zeros(DIMS), np.ones(DIMS),
        np.ones((2, DIMS)), np.ones(0), np.ones(16_001), np.array(["a"] * DIMS), np.array([None] * DIMS),
        np.full(DIMS, np.nan), np.full(DIMS, 1e39), np.ones(DIMS, np.complex64), np.ones((1, 1, DIMS)),
        np.datetime64("2024-01-01"), np.ma.masked_array([1] * DIMS, [1] * DIMS), decimal.Decimal("1e999999"),
        decimal.Decimal("NaN"), uuid.UUID(int=0), datetime.date.min, datetime.datetime.max, datetime.timedelta(1),
        datetime.time(1), Exception("x"), fv, type("T", (str,), {})("x"), type("D", (dict,), {})(a=1),
    ])  # fmt: skip


def good(rng: random.Random) -> Any:
    return np.array([rng.gauss(0, 1) for _ in range(DIMS)], np.float32)


def filter_of(rng: random.Random, depth: int = 0) -> Any:
    field = rng.choice(
        ["price", "name", "id", "embedding", "$and", "$or", "$not", "no", "", "\x00", 5, None]
    )
    operator = rng.choice(
        ["$eq", "$ne", "$lt", "$in", "$nin", "$exists", "$not", "$x", "", 7, None]
    )
    value = anything(rng) if depth > 3 or rng.random() < 0.5 else filter_of(rng, depth + 1)
    return rng.choice(
        [
            {field: value},
            {field: {operator: value}},
            {field: [value]},
            {field: {operator: [value] * 3}},
        ]
    )


def deep(rng: random.Random) -> Any:
    found: Any = {"id": 1}
    for _ in range(rng.choice((5, 40, 5000))):
        found = {"$not": found}
    return found


def sources(rng: random.Random) -> list[Any]:
    """What a load may be given, all of it right but for one."""
    n = rng.randint(0, 3)
    key = rng.choice([1, 59, 10**6, None])
    rows = [(i if key is None else key + i, good(rng)) for i in range(n)]
    named = [{"id": i, "embedding": v, "price": anything(rng)} for i, v in rows]
    batch = ([i for i, _ in rows], np.array([v for _, v in rows]).reshape(n, DIMS))
    return [
        np.stack([good(rng), good(rng)]), rows, iter(rows), [*rows, anything(rng)], named, [batch],
        [{"id": batch[0], "embedding": batch[1]}], {"id": 1}, "/nowhere.parquet", [anything(rng)],
    ]  # fmt: skip


#: Entry point -> its arguments and what is right for them.
Make = Callable[[random.Random], Any]
ENTRIES: dict[str, dict[str, Make]] = {
    "search": {
        "query": good,
        "k": lambda rng: rng.randint(1, 20),
        "min_relevance": lambda rng: rng.choice([None, 0.5]),
        "filter": lambda rng: rng.choice(
            [None, {"price": {"$lt": 50}}, filter_of(rng), filter_of(rng), deep(rng)]
        ),
        "after": lambda rng: rng.choice(
            [None, {"score": 0.5, "key": [7]}, '{"score": 0.5, "key": [7]}']
        ),
        "cutoff": lambda rng: rng.choice([None, None, "certified", "precise", "best_f1"]),
        "funnel": lambda rng: rng.choice([None, "products_search"]),
    },
    "search_many": {
        "queries": lambda rng: np.stack([good(rng), good(rng)]),
        "k": lambda rng: rng.randint(1, 20),
        "min_relevance": lambda rng: rng.choice([None, 0.5]),
        "filter": lambda rng: rng.choice([None, filter_of(rng)]),
        "cutoff": lambda rng: rng.choice([None, "certified", "best_f1"]),
        "funnel": lambda _: None,
    },
    "explain": {
        "query": good,
        "k": lambda rng: rng.randint(1, 20),
        "filter": lambda rng: rng.choice([None, filter_of(rng)]),
        "funnel": lambda _: None,
    },
    "measure_recall": {
        "sample": lambda rng: rng.randint(1, 5),
        "k": lambda rng: rng.randint(1, 5),
        "funnel": lambda _: None,
        "seed": lambda rng: rng.randint(0, 9),
        "queries": lambda rng: rng.choice([None, np.stack([good(rng) for _ in range(3)])]),
        "filter": lambda rng: rng.choice([None, {"price": {"$lt": 50}}, filter_of(rng)]),
    },
    "add": {
        "ids": lambda rng: [rng.choice([1, 2, 10**6]) + i for i in range(2)],
        "vectors": lambda rng: np.stack([good(rng), good(rng)]),
        "columns": lambda rng: rng.choice([None, {"price": [1.0, None]}, {"name": ["a", "b"]}]),
        "progress": lambda _: False,
    },
    "upsert": {
        "ids": lambda rng: [rng.choice([1, 2, 10**6]) + i for i in range(2)],
        "vectors": lambda rng: np.stack([good(rng), good(rng)]),
        "columns": lambda rng: rng.choice([None, {"price": [1.0, None]}, {"name": ["a", "b"]}]),
        "progress": lambda _: False,
    },
    "load": {
        "source": lambda rng: rng.choice(sources(rng)),
        "ids": lambda rng: rng.choice([None, "id", ["id"], [10**7, 10**7 + 1]]),
        "vectors": lambda rng: rng.choice([None, "embedding"]),
        "columns": lambda rng: rng.choice([None, {"price": "price"}, ["name"], {"price": [1, 2]}]),
        "batch_size": lambda rng: rng.choice([None, 1, 7]),
        "upsert": lambda rng: rng.random() < 0.7,
        "resume": lambda rng: rng.choice([True, False, "mine"]),
        "dry_run": lambda rng: rng.random() < 0.3,
        "progress": lambda _: False,
    },
    "add_resolution": {
        "resolution": lambda rng: rng.choice(["4:f16", "2:bit", "8:f16", "16:f16", "2:f16~pca"]),
        "index": lambda rng: rng.random() < 0.5,
        "allow_rewrite": lambda _: False,
        "metric": lambda rng: rng.choice([None, "cosine"]),
        "storage": lambda rng: rng.choice([None, None, "column", "side"]),
        "concurrently": lambda rng: rng.random() < 0.3,
        "m": lambda rng: rng.choice([None, None, 8]),
        "ef_construction": lambda rng: rng.choice([None, None, 40]),
    },
    "add_resolutions": {
        "funnel": lambda rng: rng.choice(["4:f16@9 > 2:bit@5 > 8:f32", "2:f16~pca@9 > 8:f32"]),
        "index": lambda rng: rng.random() < 0.5,
        "allow_rewrite": lambda _: False,
        "metric": lambda rng: rng.choice([None, "cosine"]),
        "storage": lambda rng: rng.choice([None, None, "column", "side"]),
        "concurrently": lambda rng: rng.random() < 0.3,
    },
    "backfill": {"batch": lambda rng: rng.choice([None, 7]), "progress": lambda _: False},
    "drop_resolution": {"resolution": lambda rng: rng.choice(["4:f16", "2:bit", "8:f16"])},
    "add_window": {
        "resolution": lambda rng: rng.choice(["4:f16", "8:f32"]),
        "by": lambda rng: rng.choice(["price", "id", "name", "no"]),
        "levels": lambda rng: rng.choice([None, 1, 2]),
        "allow_rewrite": lambda _: False,
        "concurrently": lambda rng: rng.random() < 0.3,
    },
    "drop_window": {
        "resolution": lambda rng: rng.choice(["4:f16", "8:f32"]),
        "by": lambda rng: rng.choice(["price", "id"]),
    },
    "create_funnel": {
        "name": lambda rng: rng.choice(["g", "products_search"]),
        "funnel": lambda rng: rng.choice(["4:f16@20 > 8:f32", "8:f32", "2:bit@9 > 8:f32"]),
        "approximate": lambda _: False,
        "replace": lambda rng: rng.random() < 0.5,
        "model": lambda rng: rng.choice([None, "m"]),
        "metric": lambda rng: rng.choice([None, "cosine"]),
        "returns": lambda rng: rng.choice([(), ["price"], ["name", "price"]]),
    },
    "drop_funnel": {"name": lambda _: "g"},
    "log_queries": {
        "share": lambda _: 1.0,
        "keep_for": lambda _: datetime.timedelta(days=1),
        "max_rows": lambda rng: rng.randint(1, 9),
        "roles": lambda _: False,
        "funnel": lambda _: None,
    },
    "stop_logging": {"forget": lambda rng: rng.random() < 0.5, "funnel": lambda _: None},
    "logged_queries": {"limit": lambda rng: rng.randint(1, 9), "funnel": lambda _: None},
    "sample": {
        "count": lambda rng: rng.randint(1, 99),
        "seed": lambda rng: rng.randint(0, 9),
    },
    "doctor": {
        "sample": lambda rng: rng.randint(2, 99),
        "queries": lambda rng: rng.randint(10, 30),
        "seed": lambda rng: rng.randint(0, 9),
        "funnels": lambda rng: rng.random() < 0.5,
        "progress": lambda _: False,
    },
    "fit_rotation": {
        "name": lambda rng: rng.choice(["pca", "pca2", "sph"]),
        "kind": lambda rng: rng.choice(["pca", "pca", "sphering"]),
        "dims": lambda rng: rng.choice([None, 2, 8]),
        "then": lambda rng: rng.choice([None, None, "random", "itq"]),
        "queries": lambda rng: rng.choice([None, np.stack([good(rng) for _ in range(20)])]),
        "metric": lambda rng: rng.choice([None, "cosine"]),
        "sample": lambda rng: rng.choice([60, 10_000]),
        "seed": lambda rng: rng.randint(0, 9),
        "dry_run": lambda rng: rng.random() < 0.3,
        "progress": lambda _: False,
    },
    "rotations": {},
    "drop_rotation": {"name": lambda rng: rng.choice(["pca", "pca2", "sph"])},
    "add_hub": {
        "sample": lambda rng: rng.choice([20, 40, 3000, 19]),
        "allow_rewrite": lambda rng: rng.random() < 0.5,
        "concurrently": lambda rng: rng.random() < 0.5,
    },
    "drop_hub": {},
    "status": {},
    "__len__": {},
    # Mostly dry, since a whole run takes as long as all other cases together.
    "tune": {
        "recall": lambda rng: rng.choice([0.9, 0.5, 0.99, 1.0, 0.0]),
        "k": lambda rng: rng.choice([1, 5, 1000]),
        "queries": lambda rng: rng.choice(["rows", "log", np.ones((60, DIMS)), np.ones((3, DIMS))]),
        "budget": lambda rng: rng.choice([{"memory": 10_000}, {"latency": 1.0}, {"x": 1}, {}]),
        "max_miss": lambda rng: rng.choice([0.05, 0.5]),
        "judgments": lambda rng: rng.choice([None, [], 5]),
        "funnel": lambda rng: rng.choice(["products_search", "other"]),
        "storage": lambda rng: rng.choice(["column", "side"]),
        "sample": lambda rng: rng.choice([100, 200, 50_000]),
        "on_copy": lambda rng: rng.choice([100, 200]),
        "measure_again": lambda rng: rng.random() < 0.3,
        "seed": lambda rng: rng.randrange(9),
        "progress": lambda rng: False,
        "dry_run": lambda rng: True,
    },
}
#: Arguments that have to be given; a funnel is one of them where it is made.
REQUIRED = ("query", "queries", "source", "ids", "vectors", "resolution", "name", "by")


def heard(done: int, total: int) -> None:
    """Takes a report of progress."""


def arguments(rng: random.Random, entry: str) -> tuple[list[Any], dict[str, Any]]:
    places: list[Any] = []
    named: dict[str, Any] = {}
    for i, (name, make) in enumerate(ENTRIES[entry].items()):
        required = (name in REQUIRED and (entry != "load" or name == "source")) or (
            (entry, name)
            in (("create_funnel", "funnel"), ("add_resolutions", "funnel"), ("tune", "dry_run"))
        )
        if not required and rng.random() < 0.5:
            continue
        value = make(rng) if rng.random() < 0.55 else anything(rng)
        if name == "progress" and callable(value):
            value = heard  # what a callable of the caller's raises is the caller's own
        if required and i == len(places):
            places.append(value)
        else:
            named[name] = value
    return places, named


def judge(table: Any, rng: random.Random) -> None:
    n = rng.choice([0, 1, 3])
    given = [np.ones((n, DIMS), np.float32), list(range(n)), np.zeros(n, bool)]
    if rng.random() < 0.8:
        given[rng.randrange(3)] = anything(rng)
    funnel = rng.choice([None, "products_search", anything(rng)])
    call = rng.randrange(3)
    if call == 0:
        family = rng.choice(["platt", "beta", "isotonic", "adapter", "auto", anything(rng)])
        table.calibrate(fv.Judgments(*given), family=family, funnel=funnel)
    elif call == 1:
        table.evaluate(
            rng.choice([fv.Judgments(*given), fv.Judgments(*given), anything(rng)]),
            k=rng.choice([None, 5, anything(rng)]),
            min_relevance=rng.choice([None, 0.5, anything(rng)]),
            unjudged=rng.choice(["irrelevant", "ignored", anything(rng)]),
            funnel=funnel,
            times=rng.choice([20, anything(rng)]),
            seed=rng.choice([0, anything(rng)]),
        )
    else:
        table.certify(
            fv.Judgments(*given),
            max_miss=rng.choice([None, 0.05, 0.5, anything(rng)]),
            min_precision=rng.choice([None, None, 0.5, anything(rng)]),
            confidence=rng.choice([0.95, 0.5, anything(rng)]),
            unjudged=rng.choice(["irrelevant", "ignored", anything(rng)]),
            k=rng.choice([None, 5, anything(rng)]),
            funnel=funnel,
        )


def opened(engine: Any, rng: random.Random) -> None:
    if rng.random() < 0.5:
        engine.table(anything(rng), vector=anything(rng))
        return
    wanted: dict[str, Any] = {"dims": 4}
    name: Any = f"made_{rng.randrange(10**9)}"
    if rng.random() < 0.3:
        name = anything(rng)
    for option in ("dims", "vector", "dtype", "metric", "id", "id_kind", "columns"):
        if rng.random() < 0.4:
            wanted[option] = anything(rng)
    engine.create(name, **wanted)


def parsed(rng: random.Random) -> None:
    value = anything(rng)
    rng.choice([
        lambda: fv.Resolution.parse(value),
        lambda: fv.Funnel.parse(value),
        lambda: filters.parse(value),
        lambda: filters.parse(filter_of(rng)),
        lambda: filters.parse(deep(rng)),
        lambda: fv.wrap(value),
        lambda: fv.connect(value),
        lambda: fv.Resolution(value, "f16"),
        lambda: fv.Resolution(4, value),
    ])()  # fmt: skip


STATE = """
    select
        (select count(*) from products), (select string_agg(p::text, '|' order by id) from products as p),
        (select string_agg(r::text, '|' order by r::text) from funnelvec.resolutions as r),
        (select string_agg(f::text, '|' order by f::text) from funnelvec.funnels as f),
        (select string_agg(o::text, '|' order by o::text) from funnelvec.rotations as o),
        (select string_agg(c.relname, '|' order by c.oid) from pg_class as c
         where c.relnamespace = 'public'::regnamespace or c.relname like 'funnelvec_j%'),
        (select string_agg(p.proname, '|' order by p.oid) from pg_proc as p
         where p.pronamespace = 'public'::regnamespace)
"""


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "memory":
        with fv.connect("memory:") as memory:
            yield memory
        return
    if request.param == "qdrant-local":
        with fv.connect("qdrant-local::memory:") as local:
            yield local
        return
    if request.param == "edge":
        with edge.folder() as folder, fv.connect(f"edge:{folder}") as of_edge:
            yield of_edge
        return
    pg_server: Server = request.getfixturevalue("pg_server")
    database = databases.Database(pg_server, databases.new_name(pg_server))
    with databases.connected(pg_server.url()) as admin:
        databases.create_database(admin, database.name, template=pg_server.template("funnelvec"))
    with awaited.opened(database.owner_url, request.param) as postgres:
        yield postgres
    pg_server.done_with.append(database.name)


def state(engine: Any, table: Any) -> Any:
    if engine.capabilities.name == "memory":
        return len(table), repr(table.status()), repr(table.rotations())
    if engine.capabilities.name in ("qdrant-local", "edge"):
        deployment = table._collection.deployment
        kept = [deployment.read(name) for name in deployment.collections()]
        return len(table), repr(table.status()), kept
    with engine.connection() as connection:
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        return connection.execute(STATE).fetchone()


#: The asynchronous form is written from the same source, and Qdrant's local mode lies below the same
#: engine as Edge: of each one seed is a look at what is its own.
ENGINES = [
    (name, seed)
    for name in ("memory", "sync", "async", "qdrant-local", "edge")
    for seed in SEEDS
    if name not in ("async", "qdrant-local") or seed % 3 == 0
]


@pytest.mark.parametrize(("engine", "seed"), ENGINES, indirect=["engine"])
def test_every_entry_point(engine: Any, seed: int) -> None:
    rng = random.Random(seed)
    table = engine.create("products", dims=DIMS, columns={"price": "number", "name": "text"})
    table.add(
        list(range(ROWS)), np.stack([good(rng) for _ in range(ROWS)]),
        columns={"price": [float(i) for i in range(ROWS)], "name": [f"n{i}" for i in range(ROWS)]},
    )  # fmt: skip
    table.add_resolution("4:f16", index=True)
    table.create_funnel("products_search", "4:f16@20 > 8:f32")
    before = state(engine, table)
    for number in range(CASES):
        entry = rng.choice(
            [*ENTRIES, "search", "search", "calibrate", "open", "parse", "parse", "repair"]
        )
        shown = f"seed {seed}, case {number}: {entry}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if entry == "calibrate":
                    judge(table, rng)
                elif entry == "open":
                    opened(engine, rng)
                elif entry == "parse":
                    parsed(rng)
                elif entry == "repair":
                    engine.repair(dry_run=rng.choice([True, False, anything(rng)]))
                    assert engine.problems() == []
                else:
                    places, named = arguments(rng, entry)
                    shown += f" {reprlib.repr(places)} {reprlib.repr(named)}"
                    getattr(table, entry)(*places, **named)
        except FunnelvecError as error:
            assert str(error), shown
            assert "XX000" not in str(error), shown
            if entry == "load" and " rows of " in str(error):
                before = state(engine, table)  # batches before the one that was refused stay
            assert state(engine, table) == before, f"{shown}\n{error}\nleft something behind"
        except Exception as error:
            raise AssertionError(f"{shown}\n{type(error).__name__}: {error}"[:2000]) from error
        else:
            before = state(engine, table)
