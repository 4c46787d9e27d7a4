"""Hostile input to every public SQL function: an answer or a documented error, and nothing half done.

Cases are generated from a seed, so a failure can be repeated: its message has the seed and the call.
``FUNNELVEC_FUZZ=N`` runs N times as many.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.sql.tables import text, vectors

if TYPE_CHECKING:
    from collections.abc import Callable

    Connection = psycopg.Connection[Any]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEEDS = range(4 * int(os.environ.get("FUNNELVEC_FUZZ", "1")))
CASES = 300

DIMS = 8

#: What a call may end in beside FV...: the standard states that docs/errors.md lists.
STANDARD = {
    "22000", "22003", "22007", "22008", "22015", "22P02", "22P05",  # text that is no value of the argument's type
    "0A000", "3F000", "42601", "42602", "42P01",  # text that names no table
    "42501",  # no privilege
    "54000", "54001",  # beyond PostgreSQL's own limits
}  # fmt: skip

WORDS = [
    "", " ", "products", "embedding", "f", "public.f", "pg_class", "no.such.thing.at.all", "a.b",
    "'", '"', "''; drop table products; --", '"; drop table products; --', "$$", "$body$", "\\", "%s%I%L",
    "{query}", "a\nb", "\t", "ünïcødé", "日本語", "🙂" * 20, "\u202e", "\ufeff", "\x01", "x" * 63, "x" * 64,
    "é" * 40, "y" * 100_000, "select", "NULL", "1; select pg_sleep(9)", "../../etc/passwd", "-- ", "/*",
    "pg_temp", "information_schema.tables", "0", "-1", "1e9", "16384",
]  # fmt: skip
RESOLUTIONS = [
    "4:f16", "8:bit", "4:bit", "8:f32", "2:f32", "1:f16", "0:f16", "9:f16", "8:f64", "16000:bit", "16001:bit",
    "99999999999999999999:f16", "-4:f16", "4.0:f16", " 4:f16", "4:F16", "4:f16~pca", "4:f16~", "4:f16@5",
    ":", "4:", ":f16", "4:f16:f16", "٤:f16", "4:f16\n", "4:f16\x00"[:5],
]  # fmt: skip
FUNNELS = [
    "4:f16@20 > 8:f32", "8:bit@30 > 4:f16@20 > 8:f32", "8:f32", "4:f16@20>8:f32", "4:f16 @ 20 >\n8:f32",
    "4:f16@0 > 8:f32", "4:f16@-1 > 8:f32", "4:f16@999999999 > 8:f32", "4:f16@9999999999 > 8:f32",
    "4:f16@20", "4:f16 > 8:f32", "8:f32 > 8:f32", ">", ">>>>", " > ", "4:f16@1 > 8:bit@2 > 8:f32", "@",
    " > ".join(["4:f16@20", "8:bit@20"] * 400) + " > 8:f32", "4:f16@20 > 8:bit",
]  # fmt: skip
NUMBERS = [
    "0", "1", "2", "5", "10", "20", "21", "-1", "2147483647", "2147483648", "-2147483648",
    "9223372036854775807", "1e3", "1.5", "NaN", "Infinity", "", "x", "0x10", " 7 ", "٣",
]  # fmt: skip
FLOATS = [
    "0", "1", "0.5", "-0.0", "1.0000000001", "-1e-300", "1e-320", "5e-324", "1e308", "1e309", "NaN",
    "Infinity", "-Infinity", "", "half", "0.1e", "1e-9", "0.999999999999",
]  # fmt: skip
RETURNED = [
    "{price}", "{name,price}", "{id}", "{score}", "{}", "{NULL}", "{price,price}", "{no}", "{{price},{name}}", "{after}",
    "{embedding}", "{_fv_k}", '{"pri ce"}', "price", "{", '{"\'; drop table products; --"}', "{xmin}", "{tableoid}",
]  # fmt: skip
PLACES = [
    '{"score": 0.5, "key": [7]}', '{"score": "-Infinity", "key": ["7"]}', '{"score": "NaN", "key": [7]}', "{}", "[]", "1",
    '{"score": 0.5}', '{"score": 0.5, "key": []}', '{"score": 0.5, "key": [7, 8]}', '{"score": null, "key": [7]}',
    '{"score": 0.5, "key": [null]}', '{"score": 0.5, "key": [[7]]}', '{"score": 0.5, "key": 7}', "null", '"x"', "",
    '{"score": true, "key": [7]}', '{"score": 1e400, "key": [7]}', '{"score": 0.5, "key": ["x"]}',
    '{"score": 0.5, "key": [1e30]}', '{"score": "x", "key": [7]}', '{"score": 0.5, "key": [7], "more": 1}',
    '{"score": "1; drop table products", "key": ["\'; drop table products; --"]}', '{"score": 0.5, "key": [true]}',
]  # fmt: skip
BOOLEANS = ["true", "false", "maybe", "", "1", "on", "t"]
METRICS = ["cosine", "dot", "euclidean", "Cosine", "l1", "", "cosine'; --", "COSINE "]


def vector_texts(rng: random.Random) -> list[str]:
    good = text(vectors(1, seed=rng.randrange(99), dims=DIMS)[0])
    return [
        good, good, good, "[]", "[1]", "[0,0,0,0,0,0,0,0]", "[0,0,0,0,1,1,1,1]", "[1,2,3", "1,2,3", "{1,2}",
        "[NaN,1,1,1,1,1,1,1]", "[Infinity,1,1,1,1,1,1,1]", "[1e38,1e38,1e38,1e38,1e38,1e38,1e38,1e38]",
        "[1e39,1,1,1,1,1,1,1]", "[1e-45,0,0,0,0,0,0,0]", "[1e-30,1e-30,1e-30,1e-30,1e-30,1e-30,1e-30,1e-30]",
        "[" + ",".join(["1"] * 16000) + "]", "[" + ",".join(["1"] * 16001) + "]",
        "[" + ",".join(["1"] * 100_000) + "]", "", "null", "[a,b]", "[[1,2],[3,4]]", "[1,,2]", "[" * 5000,
    ]  # fmt: skip


def filter_texts(rng: random.Random) -> list[str]:
    deep = rng.choice((3, 31, 32, 33, 200, 4000))
    field = rng.choice(
        ("id", "price", "name", "embedding", "day", "no", "$id", "", "'", '\\"', "id\\n", "x" * 70)
    )
    operator = rng.choice(
        ("$eq", "$ne", "$lt", "$gte", "$in", "$nin", "$exists", "$not", "$or", "$where", "", "$")
    )
    value = rng.choice((
        "1", "-1", "1.5", "1e400", "1e-400", "9" * 400, "true", "null", '"x"', '"\\u0000"', '"\\ud800"', "[]",
        "[1]", "[null]", '["a", 1]', "{}", '{"$eq": 1}', '"2024-02-30"', '"2024-01-01"', '"infinity"',
        '"' + "z" * 50_000 + '"', "[" + ",".join(["1"] * 1001) + "]", "'; drop table products; --",
        '"\'; drop table products; --"', '"$1"', '"%s"', "0.1e+999999", "-0",
    ))  # fmt: skip
    return [
        f'{{"{field}": {value}}}',
        f'{{"{field}": {{"{operator}": {value}}}}}',
        f'{{"$or": [{{"{field}": {value}}}, {{"id": 1}}]}}',
        f'{{"$and": {value}}}',
        f'{{"$not": {value}}}',
        '{"$not": ' * deep + '{"id": 1}' + "}" * deep,
        '{"id": {"$not": ' * 1 + '{"$not": ' * deep + '{"$eq": 1}' + "}" * (deep + 2),
        "[" * deep + "]" * deep,
        value,
        "{}",
        "",
        "{" + ",".join(f'"f{i}": {i}' for i in range(300)) + "}",
    ]


def tables(rng: random.Random) -> list[str]:
    return ["products", "products", "public.products", "judgments", "pg_catalog.pg_class", "a_view", "parts_1",
            "no_key", "funnelvec.funnels", "products_pkey", *WORDS]  # fmt: skip


#: Function: its arguments in order, each with what it is given; the first are the ones that have to be.
ARGUMENTS: dict[str, dict[str, Callable[[random.Random], list[str]]]] = {
    "funnelvec.add_resolution": {
        "table_name": tables,
        "column_name": lambda _: ["embedding", "embedding", "half", "price", *WORDS],
        "resolution": lambda _: [*RESOLUTIONS, *WORDS],
        "index": lambda _: BOOLEANS,
        "allow_rewrite": lambda _: BOOLEANS,
        "m": lambda _: NUMBERS,
        "ef_construction": lambda _: NUMBERS,
        "metric": lambda _: METRICS,
        "storage": lambda _: ["side", "column", "Side", "index", *WORDS],
        "concurrently": lambda _: BOOLEANS,
    },
    "funnelvec.add_resolutions": {
        "table_name": tables,
        "column_name": lambda _: ["embedding", "embedding", "half", "price", *WORDS],
        "funnel": lambda rng: [
            " > ".join([*(f"{rng.choice(RESOLUTIONS)}@9" for _ in range(2)), "8:f32"]),
            *RESOLUTIONS,
            *WORDS,
        ],
        "index": lambda _: BOOLEANS,
        "allow_rewrite": lambda _: BOOLEANS,
        "m": lambda _: NUMBERS,
        "ef_construction": lambda _: NUMBERS,
        "metric": lambda _: METRICS,
        "storage": lambda _: ["side", "column", *WORDS],
        "concurrently": lambda _: BOOLEANS,
    },
    "funnelvec.next_step": {"table_name": tables},
    "funnelvec.recheck": {"table_name": tables},
    "funnelvec.activate": {
        "table_name": tables,
        "column_name": lambda _: ["embedding", "half", "price", *WORDS],
        "resolution": lambda _: [*RESOLUTIONS, *WORDS],
    },
    "funnelvec.drop_resolution": {
        "table_name": tables,
        "column_name": lambda _: ["embedding", "half", "price", *WORDS],
        "resolution": lambda _: [*RESOLUTIONS, *WORDS],
    },
    "funnelvec.add_window": {
        "table_name": tables,
        "column_name": lambda _: ["embedding", "embedding", "half", "price", *WORDS],
        "resolution": lambda _: ["4:f16", *RESOLUTIONS, *WORDS],
        "by": lambda _: ["price", "price", "id", "day", "name", "embedding", *WORDS],
        "levels": lambda _: ["1", "1", *NUMBERS],
        "m": lambda _: NUMBERS,
        "ef_construction": lambda _: NUMBERS,
        "allow_rewrite": lambda _: BOOLEANS,
        "concurrently": lambda _: BOOLEANS,
    },
    "funnelvec.drop_window": {
        "table_name": tables,
        "column_name": lambda _: ["embedding", "half", "price", *WORDS],
        "resolution": lambda _: ["4:f16", *RESOLUTIONS, *WORDS],
        "by": lambda _: ["price", "day", "name", *WORDS],
    },
    "funnelvec.create_funnel": {
        "name": lambda _: ["g", "f", *WORDS],
        "table_name": tables,
        "column_name": lambda _: ["embedding", "embedding", "half", *WORDS],
        "funnel": lambda _: [*FUNNELS, *WORDS],
        "approximate": lambda _: BOOLEANS,
        "replace": lambda _: BOOLEANS,
        "model": lambda _: WORDS,
        "metric": lambda _: METRICS,
        "returns": lambda _: RETURNED,
    },
    "funnelvec.drop_funnel": {"name": lambda _: ["g", *WORDS]},
    "funnelvec.search_sql": {"funnel": lambda _: ["f", "f", *WORDS], "filter": filter_texts},
    "funnelvec.explain": {
        "funnel": lambda _: ["f", "f", "f", *WORDS],
        "query": vector_texts,
        "k": lambda _: NUMBERS,
        "min_relevance": lambda _: FLOATS,
        "filter": filter_texts,
        "cutoff": lambda _: [None, None, "certified", "precise", "best_f1", *WORDS],
    },
    "funnelvec.measure_recall": {
        "funnel": lambda _: ["f", "f", "f", *WORDS],
        "sample": lambda _: NUMBERS,
        "k": lambda _: NUMBERS,
        "seed": lambda _: NUMBERS,
        "queries_from": lambda rng: ["judgments", "odd_judgments", *tables(rng)],
        "filter": filter_texts,
    },
    "funnelvec.log_queries": {
        "funnel": lambda _: ["f", "f", *WORDS],
        "share": lambda _: FLOATS,
        "keep_for": lambda _: ["1 day", "0", "-1 day", "1e9 years", "infinity", *WORDS],
        "max_rows": lambda _: NUMBERS,
        "roles": lambda _: BOOLEANS,
    },
    "funnelvec.stop_logging": {
        "funnel": lambda _: ["f", "f", *WORDS],
        "forget": lambda _: BOOLEANS,
    },
    "funnelvec.trim_query_log": {"funnel": lambda _: ["f", *WORDS]},
    "funnelvec.calibrate": {
        "funnel": lambda _: ["f", "f", *WORDS],
        "judgments": lambda rng: ["judgments", "odd_judgments", "empty_judgments", *tables(rng)],
        "family": lambda _: ["platt", "beta", "isotonic", "adapter", *WORDS],
    },
    "funnelvec.certify": {
        "funnel": lambda _: ["f", "f", *WORDS],
        "judgments": lambda rng: ["judgments", "odd_judgments", "empty_judgments", *tables(rng)],
        "max_miss": lambda _: FLOATS,
        "k": lambda _: NUMBERS,
        "min_precision": lambda _: [None, None, *FLOATS],
        "confidence": lambda _: FLOATS,
        "unjudged": lambda _: ["irrelevant", "ignored", *WORDS],
    },
    "funnelvec.list_certificates": {"table_name": tables},
    "funnelvec.feedback": {
        "funnel": lambda _: ["f", "f", *WORDS],
        "relevant": lambda _: BOOLEANS,
        "score": lambda _: [None, *FLOATS],
        "query": vector_texts,
        "key": lambda _: [None, None, "[1]", "[1, 2]", '["a"]', "[null]", "{}", *WORDS],
    },
    "funnelvec.followed_relevance": {
        "funnel": lambda _: ["f", "f", *WORDS],
        "score": lambda _: FLOATS,
        "query": vector_texts,
    },
    "funnelvec.feedback_state": {"funnel": lambda _: ["f", "f", *WORDS]},
    "funnelvec.adopt_feedback": {"funnel": lambda _: ["f", "f", *WORDS]},
    "funnelvec.check_drift": {
        "funnel": lambda _: ["f", "f", *WORDS],
        "live": lambda _: [None, "{}", "{0.5,0.6}", "{NaN}", "{null}", "{1e308,-1e308}", *WORDS],
    },
    "funnelvec.relevance": {
        "funnel": lambda _: ["f", "f", *WORDS],
        "score": lambda _: FLOATS,
        "query": vector_texts,
    },
    "funnelvec.cutoff": {
        "funnel": lambda _: ["f", "f", *WORDS],
        "relevance": lambda _: FLOATS,
        "query": vector_texts,
    },
    "funnelvec.list_rotations": {"table_name": tables},
    "funnelvec.drop_rotation": {
        "table_name": tables,
        "column_name": lambda _: ["embedding", "half", "price", *WORDS],
        "name": lambda _: ["pca", "pca", "random", *WORDS],
    },
    "funnelvec.add_hub": {
        "table_name": tables,
        "column_name": lambda _: ["embedding", "half", "price", *WORDS],
        "sample": lambda _: ["20", "50", *NUMBERS],
        "allow_rewrite": lambda _: BOOLEANS,
        "concurrently": lambda _: BOOLEANS,
    },
    "funnelvec.drop_hub": {
        "table_name": tables,
        "column_name": lambda _: ["embedding", "half", "price", *WORDS],
    },
    "funnelvec.status": {"table_name": tables},
    "funnelvec.repair": {"dry_run": lambda _: BOOLEANS},
    "funnelvec.version": {},
    "f": {
        "query": vector_texts,
        "k": lambda _: NUMBERS,
        "min_relevance": lambda _: FLOATS,
        "filter": filter_texts,
        "after": lambda _: PLACES,
        "cutoff": lambda _: ["certified", "precise", "best_f1", *WORDS],
    },
    "scanned": {
        "query": vector_texts,
        "k": lambda _: NUMBERS,
        "min_relevance": lambda _: FLOATS,
        "filter": filter_texts,
        "after": lambda _: PLACES,
        "cutoff": lambda _: ["certified", "precise", "best_f1", *WORDS],
    },
}
REQUIRED = {
    "funnelvec.next_step": 1, "funnelvec.recheck": 1, "funnelvec.activate": 3,
    "funnelvec.add_resolution": 3, "funnelvec.add_resolutions": 3, "funnelvec.drop_resolution": 3, "funnelvec.create_funnel": 4,
    "funnelvec.add_window": 4, "funnelvec.drop_window": 4,
    "funnelvec.drop_rotation": 3, "funnelvec.add_hub": 2, "funnelvec.drop_hub": 2,
    "funnelvec.drop_funnel": 1, "funnelvec.search_sql": 1, "funnelvec.explain": 2, "funnelvec.measure_recall": 1,
    "funnelvec.log_queries": 1, "funnelvec.stop_logging": 1, "funnelvec.calibrate": 2, "funnelvec.certify": 2, "funnelvec.feedback": 2, "funnelvec.followed_relevance": 2,
    "funnelvec.feedback_state": 1, "funnelvec.adopt_feedback": 1, "funnelvec.check_drift": 1, "funnelvec.relevance": 2, "funnelvec.cutoff": 2, "f": 1, "scanned": 1,
}  # fmt: skip
#: Searches are what users call most, so they get the larger share.
WEIGHTS = {
    "f": 4,
    "scanned": 3,
    "funnelvec.explain": 3,
    "funnelvec.create_funnel": 3,
    "funnelvec.version": 0.1,
}

FURNITURE = f"""
    create table products (
        id bigint primary key, embedding vector({DIMS}), half halfvec({DIMS}), price float8, name text, day date);
    insert into products
    select i, (select array_agg(sin(i * j)) from generate_series(1, {DIMS}) as j)::vector, null, i, 'n' || i,
        date '2024-01-01' + i
    from generate_series(1, 120) as i;
    update products set half = embedding::halfvec;
    create view a_view as select * from products;
    create table no_key (id bigint, embedding vector({DIMS}));
    create table parts (id bigint primary key, embedding vector({DIMS})) partition by range (id);
    create table parts_1 partition of parts for values from (0) to (10);
    select funnelvec.add_resolution('products', 'embedding', '4:f16', index => true);
    select funnelvec.add_resolution('products', 'embedding', '8:bit');
    select funnelvec._keep_rotation('products', 'embedding', 'pca', 'pca', null, 'cosine',
        '{{{{0,0,0,1,0,0,0,0}},{{0,0,1,0,0,1,0,0}},{{1,0,0,0,0,0,0,-1}}}}', 1, null, null, repeat('0', 64), 1, 0, true, null);
    select funnelvec.create_funnel('f', 'products', 'embedding', '4:f16@20 > 8:f32');
    select funnelvec.create_funnel('scanned', 'products', 'embedding', '8:bit@20 > 8:f32');
    create table judgments as
    select q.embedding as query, h.id, h.score > 0.5 as relevant
    from (select * from products where id < 10) as q cross join lateral f(q.embedding, 20) as h;
    create table empty_judgments (like judgments);
    create table odd_judgments as select query, id, relevant from judgments;
    insert into odd_judgments values (null, 1, true), ('[0,0,0,0,0,0,0,0]', 2, null);
    select funnelvec.calibrate('f', 'judgments');
    select funnelvec.certify('f', 'judgments', 0.5)
"""

#: Everything that a call may write, in one row.
STATE = """
    select md5(concat(
        (select string_agg(r::text, '|' order by r::text) from funnelvec.resolutions as r),
        (select string_agg(f::text, '|' order by f::text) from funnelvec.funnels as f),
        (select string_agg(c::text, '|' order by c::text) from funnelvec.calibrations as c),
        (select string_agg(w::text, '|' order by w::text) from funnelvec.windows as w),
        (select string_agg(o::text, '|' order by o::text) from funnelvec.rotations as o),
        (select string_agg(concat(a.attrelid, a.attname, a.attgenerated), '|' order by a.attrelid, a.attnum)
         from pg_attribute as a join pg_class as c on c.oid = a.attrelid
         where c.relnamespace = 'public'::regnamespace),
        (select string_agg(concat(p.oid, p.proname, p.xmin), '|' order by p.oid) from pg_proc as p
         where p.pronamespace = 'public'::regnamespace))),
        (select count(*) from products), current_setting('hnsw.ef_search', true),
        current_setting('hnsw.iterative_scan', true), current_setting('enable_seqscan')
"""
CONSISTENT = "select object, advice from funnelvec._problems()"


def case(rng: random.Random) -> tuple[str, dict[str, str | None]]:
    function = rng.choices(list(ARGUMENTS), [WEIGHTS.get(name, 1) for name in ARGUMENTS])[0]
    arguments = ARGUMENTS[function]
    given: dict[str, str | None] = {}
    for i, (name, pool) in enumerate(arguments.items()):
        if i < REQUIRED.get(function, 0) or rng.random() < 0.4:
            hostile = rng.random() < 0.4
            values = pool(rng)
            given[name] = rng.choice(values) if hostile else values[0]
            if rng.random() < 0.04:
                given[name] = None
    call = ", ".join(f"{name} => %({name})s" for name in given)
    return f"select * from {function}({call})", given


@pytest.fixture
def shop(owner_conn: Connection) -> Connection:
    owner_conn.execute(FURNITURE)  # type: ignore[arg-type]
    owner_conn.execute("set statement_timeout = '30s'")
    return owner_conn


def restore(connection: Connection) -> None:
    """Take back what a successful call made, so that one case does not depend on the last."""
    funnels = connection.execute(
        "select format('%I', name) from funnelvec.funnels where name not in ('f', 'scanned')"
    )
    for (name,) in funnels.fetchall():
        connection.execute("select funnelvec.drop_funnel(%s)", (name,))
    connection.execute(
        "select funnelvec.drop_window(table_name, column_name, resolution, by_column) from funnelvec.windows"
    )
    connection.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '4:f16@20 > 8:f32', replace => true)"
    )
    connection.execute(
        "select funnelvec.create_funnel('scanned', 'products', 'embedding', '8:bit@20 > 8:f32', replace => true)"
    )
    for row in connection.execute(
        "select table_name::text, column_name, resolution from funnelvec.resolutions"
        " where resolution not in ('4:f16', '8:bit') or column_name <> 'embedding' or table_name <> 'products'::regclass"
    ).fetchall():
        connection.execute("select funnelvec.drop_resolution(%s::regclass, %s, %s)", row)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_function(shop: Connection, seed: int) -> None:
    rng = random.Random(seed)
    before = shop.execute(STATE).fetchone()
    for _ in range(CASES):
        call, given = case(rng)
        shown = f"seed {seed}: {call} { {name: str(value)[:200] for name, value in given.items()} }"
        try:
            shop.execute(call, given).fetchall()  # type: ignore[arg-type]
        except psycopg.Error as error:
            state = error.sqlstate or "none"
            assert state.startswith("FV") or state in STANDARD, f"{shown}\n{state} {error}"
            assert shop.execute(STATE).fetchone() == before, f"{shown}\nleft something behind"
        else:
            now = shop.execute(STATE).fetchone()
            assert now is not None and before is not None
            assert now[1:] == before[1:], f"{shown}\nchanged rows or settings"
            if now != before:
                assert shop.execute(CONSISTENT).fetchall() == [], shown
                restore(shop)
                before = shop.execute(STATE).fetchone()
