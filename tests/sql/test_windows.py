"""Windows: every range lies in one, the smallest is searched, and no answer depends on them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

import funnelvec as fv
from funnelvec import cli
from funnelvec.reports import FillingStep
from tests import databases
from tests.databases import OTHER
from tests.sql import test_fitted_rotations as fitted_rotations
from tests.sql.side import finish, one, run
from tests.sql.tables import fill, search, text, vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database, Server

    Connection = psycopg.Connection[Any]

ROWS, DIMS, KEEP = 3000, 16, 20
MATRIX = vectors(ROWS, dims=DIMS)
QUERIES = vectors(5, seed=9, dims=DIMS)
#: Every second number up to LAST, in an order that has nothing to do with the vectors.
PLACE = 2 * np.random.default_rng(1).permutation(ROWS)
LAST = 2 * ROWS
START = datetime.date(2024, 1, 1)

#: Kind of column: its type, SQL for the value of the row at place {i}, and how a filter writes it.
KINDS = {
    "i2": ("smallint", "{i} - 3000", lambda i: i - 3000),
    "i4": ("integer", "{i}", int),
    "i8": ("bigint", "{i}::bigint * 10000000000", lambda i: i * 10**10),
    "price": ("numeric(12,2)", "{i} / 100.0", lambda i: i / 100),
    "r4": ("real", "{i} / 7.0", lambda i: i / 7),
    "r8": ("double precision", "{i} / 7.0", lambda i: i / 7),
    "day": ("date", "date '2024-01-01' + {i}", lambda i: f"{START + datetime.timedelta(i)}"),
    "moment": (
        "timestamptz",
        "timestamptz '2024-01-01 12:00Z' + {i} * interval '1 day'",
        lambda i: f"{START + datetime.timedelta(i)}T12:00:00Z",
    ),
    "local": (
        "timestamp",
        "timestamp '2024-01-01 12:00' + {i} * interval '1 day'",
        lambda i: f"{START + datetime.timedelta(i)}T12:00:00",
    ),
    "Odd \"'%": ("cents", "{i}", int),
}  # fmt: skip


@pytest.fixture(scope="module")
def stock_template(pg_server: Server) -> Iterator[Database]:
    made = databases.Database(pg_server, databases.new_name(pg_server))
    with databases.connected(pg_server.url()) as admin:
        databases.create_database(admin, made.name, template=pg_server.template("funnelvec"))
    with databases.connected(made.owner_url) as owner:
        owner.execute("create domain cents as integer")
        columns = ", ".join(f"{quoted(name)} {kind[0]}" for name, kind in KINDS.items())
        # Rows are long, so that reading all of them is dear.
        run(
            owner,
            f"create table stock (id bigint primary key, embedding vector({DIMS}), {columns},"
            " few integer, name text, pad text)",
        )
        values = ", ".join(kind[1].format(i="v.place") for kind in KINDS.values())
        with owner.cursor() as cursor:
            cursor.executemany(
                f"insert into stock select %s::bigint, %s::vector, {values.replace('%', '%%')}, v.place / 2 %% 2, 'n',"  # type: ignore[arg-type]
                " repeat('x', 900) from (values (%s::integer)) as v (place)",
                [(i, text(row), int(PLACE[i])) for i, row in enumerate(MATRIX)],
            )
        owner.execute(
            "select funnelvec.add_resolution('stock', 'embedding', '16:f16', index => true)"
        )
        owner.execute(
            "select funnelvec.create_funnel('stock_search', 'stock', 'embedding', %s)",
            (f"16:f16@{KEEP} > 16:f32",),
        )
        owner.execute("analyze")
    yield made
    with databases.connected(pg_server.url()) as admin:
        databases.drop_database(admin, made.name)


@pytest.fixture(scope="module", params=KINDS)
def windowed(
    request: pytest.FixtureRequest, pg_server: Server, stock_template: Database
) -> Iterator[tuple[Connection, str]]:
    """The owner of a copy with windows by one column, for tests that only look, and the column."""
    with (
        databases.copied(pg_server, stock_template.name) as database,
        databases.connected(database.owner_url) as connection,
    ):
        assert add(connection, request.param, levels=2) == 10
        yield connection, request.param


@pytest.fixture
def stock_database(pg_server: Server, stock_template: Database) -> Iterator[Database]:
    database = databases.Database(pg_server, databases.new_name(pg_server))
    with databases.connected(pg_server.url()) as admin:
        databases.create_database(admin, database.name, template=stock_template.name)
        databases.drop_finished(admin, pg_server)
    yield database
    pg_server.done_with.append(database.name)


@pytest.fixture
def stock(stock_database: Database) -> Iterator[Connection]:
    """The owner of a copy of the table, without windows."""
    with databases.connected(stock_database.owner_url) as connection:
        yield connection


@pytest.fixture(scope="module")
def i4_templates(pg_server: Server, stock_template: Database) -> Iterator[list[str]]:
    """Databases with windows by ``i4``, of one level and of two, which are built once and copied."""
    with contextlib.ExitStack() as stack:
        names = []
        for levels in (1, 2):
            made = stack.enter_context(databases.copied(pg_server, stock_template.name))
            with databases.connected(made.owner_url) as connection:
                assert add(connection, "i4", levels=levels) == (3, 10)[levels - 1]
            names.append(made.name)
        yield names


@pytest.fixture
def stock_1(pg_server: Server, i4_templates: list[str]) -> Iterator[Connection]:
    """The owner of a copy of the table with windows by ``i4``: one level."""
    with (
        databases.copied(pg_server, i4_templates[0]) as database,
        databases.connected(database.owner_url) as connection,
    ):
        yield connection


@pytest.fixture
def stock_2(pg_server: Server, i4_templates: list[str]) -> Iterator[Connection]:
    """The same with two levels."""
    with (
        databases.copied(pg_server, i4_templates[1]) as database,
        databases.connected(database.owner_url) as connection,
    ):
        yield connection


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def add(connection: Connection, by: str, **named: Any) -> int:
    # Small graphs are built fast, and find what they have to among so few dimensions.
    named = {"m": 8, "ef_construction": 32, **named}
    options = "".join(f", {name} => {value}" for name, value in named.items())
    call = f"select funnelvec.add_window('stock', 'embedding', '16:f16', %s{options})"
    return int(one(connection, call, by))


def truth(mask: Any, query: Any, k: int = 10) -> list[int]:
    """The exact best k of the rows of MATRIX that match, ties by key."""
    rows = MATRIX.astype(np.float64)
    scores = rows @ query.astype(np.float64) / np.linalg.norm(rows, axis=1)
    order = np.lexsort((np.arange(len(rows)), -scores))
    return [int(i) for i in order[np.asarray(mask)[order]][:k]]


def ask(
    connection: Connection, filter: Any, query: Any = QUERIES[0], function: str = "stock_search"
) -> list[int]:
    rows = search(connection, function, text(query), filter=json.dumps(filter))
    return [row[0] for row in rows]


def access(connection: Connection, filter: Any, query: Any = QUERIES[0]) -> str:
    return str(
        one(
            connection,
            "select access from funnelvec.explain('stock_search', %s, filter => %s) where stage = 1",
            text(query),
            json.dumps(filter),
        )
    )


def windows(connection: Connection) -> list[tuple[str, int, str, int]]:
    """(which rows, how many, its index, bytes) of every window, as status has them."""
    return connection.execute(
        "select substr(object, 8), filled, index_name::text, index_bytes"
        " from funnelvec.status('stock') where storage = 'window'"
    ).fetchall()


def scans(connection: Connection, filter: Any) -> list[str]:
    """The HNSW indexes that one search goes through."""
    with connection.transaction():
        before = counters(connection)
        ask(connection, filter)
        return [name for name, count in counters(connection).items() if count > before[name]]


def counters(connection: Connection) -> dict[str, int]:
    """How often each HNSW index was gone through in this session, as far as it is not told yet."""
    rows = connection.execute(
        "select i.indexrelid::regclass::text, pg_stat_get_xact_numscans(i.indexrelid)"
        " from pg_index as i join pg_am as m on m.amname = 'hnsw'"
        " join pg_class as c on c.oid = i.indexrelid and c.relam = m.oid order by 1"
    ).fetchall()
    return {row[0]: row[1] for row in rows}


# -- the plan of windows (no table) ---------------------------------------------------------------


@pytest.mark.parametrize("levels", range(1, 7))
def test_every_range_lies_in_a_window_of_at_most_four_times_its_cells(
    owner_conn: Connection, levels: int
) -> None:
    plan = owner_conn.execute(
        "select level, first, last from funnelvec._window_plan(%s)", (levels,)
    ).fetchall()
    cells = 2 << levels
    assert len(plan) == sum((2 << level) - 1 for level in range(1, levels + 1))
    assert len({row[1:] for row in plan}) == len(plan)
    for first in range(cells):
        for last in range(first + 1, cells + 1):
            held = [b - a for _, a, b in plan if a <= first and last <= b]
            smallest = min([*held, cells])
            # Half of the smallest windows overlap, so two neighbouring cells are always together.
            assert smallest <= max(2, 4 * (last - first) - 2), (first, last)
    for level in range(1, levels + 1):
        # Every cell is in two windows of each level, but for those at the ends, which are in one.
        counts = [
            sum(a <= cell < b for each, a, b in plan if each == level) for cell in range(cells)
        ]
        width = cells >> level
        assert counts == [1] * (width // 2) + [2] * (cells - width) + [1] * (width // 2)


# -- which window a search takes ------------------------------------------------------------------


def test_the_smallest_window_is_searched_whatever_the_type(
    windowed: tuple[Connection, str],
) -> None:
    stock, by = windowed
    value = KINDS[by][2]
    made = windows(stock)
    found = 0
    for low, high in ((700, 1900), (3100, 3900), (4600, 6000), (0, 1400), (1600, 4400)):
        filter = {by: {"$gte": value(low), "$lt": value(high)}}
        mask = (low <= PLACE) & (high > PLACE)
        if high == LAST:
            filter = {by: {"$gte": value(low)}}
        how = access(stock, filter)
        holding = [
            (rows, name) for _, rows, name, _ in made
            if one(stock, f"select bool_and(w) from (select {window_of(stock, name)} as w from stock"
                          " where id = any(%s)) as s", [int(i) for i in np.flatnonzero(mask)])
        ]  # fmt: skip
        assert holding
        assert f"index {unquoted(min(holding)[1])}, iterating, window " in how, how
        assert scans(stock, filter) == [min(holding)[1]]
        for query in QUERIES:
            ids = ask(stock, filter, query)
            assert len(ids) == 10
            assert mask[ids].all()
            found += len({*ids} & {*truth(mask, query)})
    assert found >= 0.98 * 5 * 5 * 10


def window_of(connection: Connection, index: str) -> str:
    """The predicate of an index."""
    return str(
        one(
            connection,
            "select pg_get_expr(indpred, indrelid) from pg_index where indexrelid = %s::regclass",
            index,
        )
    ).replace("%", "%%")


def test_no_row_of_a_range_is_outside_its_window(windowed: tuple[Connection, str]) -> None:
    """Ranges that begin and end on, just before and just behind bounds, with every operator."""
    stock, by = windowed
    value, name = KINDS[by][2], quoted(by)
    literal = one(
        stock,
        "select funnelvec._window_literal(f) from funnelvec.funnels as f where f.name = 'stock_search'",
    )
    bounds = sorted(
        int(PLACE[row[0]])
        for row in stock.execute(
            f"select min(s.id) from funnelvec.windows as w cross join unnest(w.bounds) as b"
            f" join stock as s on s.{name} = b::{KINDS[by][0]}"
            " group by b".encode()
        )
    )
    assert len(bounds) == 7
    seen = set()
    for low in (bounds[0] - 1, bounds[0], bounds[1] + 1, bounds[3]):
        for high in (bounds[1], bounds[2], bounds[3] - 1, bounds[3] + 1, bounds[5]):
            for ops in (("$gte", "$lt"), ("$gt", "$lte"), ("$gte", "$lte"), ("$gt", "$lt")):
                if low > high:
                    continue
                filter = {by: {ops[0]: value(low), ops[1]: value(high)}}
                row = stock.execute(
                    "select predicate, share from funnelvec._window('stock'::regclass, %s, %s)",
                    (json.dumps(filter), json.dumps(literal)),
                ).fetchone()
                assert row is not None
                where = one(stock, "select funnelvec._filter_sql('stock', %s)", json.dumps(filter))
                seen.add(row[0])
                if row[0] is None:
                    assert high - low > LAST / 4  # wider than what has to lie in a window
                    continue
                outside = f"select count(*) from stock as t where {where} and not ({row[0]})"
                assert one(stock, outside) == 0, (filter, row)
    assert len(seen) >= 4


def test_what_no_window_holds_goes_by_the_index_of_all_rows(stock_2: Connection) -> None:
    stock = stock_2
    for filter in (
        {"i4": {"$gte": 10, "$lt": 5900}},
        {"i4": {"$ne": 5}},
        {"i4": {"$exists": True}},
        {"i4": {"$not": {"$gte": 2700}}},
        {"$not": {"i4": {"$gte": 2700}}},
        {"$or": [{"i4": {"$lt": 2000}}, {"i4": {"$gt": 5000}}]},
        {"few": 1},
    ):
        how = access(stock, filter)
        assert how.startswith("index stock_embedding_16_f16_idx, iterating"), how
        assert "window" not in how
    for filter in (
        {"$and": [{"i4": {"$gte": 1600}}, {"few": 1}, {"$and": [{"i4": {"$lt": 2900}}]}]},
        {"i4": {"$gte": 1600, "$lt": 2900, "$ne": 7}, "few": {"$in": [0, 1]}},
        {"i4": {"$lt": 1400}, "$or": [{"few": 0}, {"few": 1}]},
    ):
        how = access(stock, filter)
        assert ", window i4 " in how, how


def random_filter(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """A filter over columns with windows and without, with every operator that has an order."""
    kind = rng.random()
    if depth < 3 and kind < 0.45:
        parts = [random_filter(rng, depth + 1) for _ in range(rng.randint(1, 3))]
        return {rng.choice(["$and", "$and", "$and", "$or"]): parts}
    if depth < 3 and kind < 0.5:
        return {"$not": random_filter(rng, depth + 1)}
    asked: dict[str, Any] = {}
    for by in rng.sample(["i4", "day", "few"], rng.randint(1, 2)):
        value = (lambda i: i % 3) if by == "few" else KINDS[by][2]
        operators = rng.sample(["$eq", "$lt", "$lte", "$gt", "$gte", "$ne"], rng.randint(1, 2))
        test: Any = {each: value(rng.randrange(-50, LAST + 50)) for each in operators}
        asked[by] = rng.choice([test, test, test, {"$not": test}, value(rng.randrange(LAST))])
    return asked


def test_no_filter_whatever_its_form_loses_a_row(stock: Connection) -> None:
    add(stock, "i4", levels=3)
    add(stock, "day", levels=2)
    run(stock, "update stock set i4 = null, day = null where id % 50 = 0")
    literal = json.dumps(
        one(
            stock,
            "select funnelvec._window_literal(f) from funnelvec.funnels as f where name = 'stock_search'",
        )
    )
    rng = random.Random(4)
    named = 0
    for _ in range(150):
        filter = json.dumps(random_filter(rng))
        row = stock.execute(
            "select w.predicate, funnelvec._filter_sql('stock', %s)"
            " from funnelvec._window('stock'::regclass, %s, %s) as w",
            (filter, filter, literal),
        ).fetchone()
        assert row is not None
        if row[0] is not None:
            named += 1
            outside = f"select count(*) from stock as t where {row[1]} and ({row[0]}) is not true"
            assert one(stock, outside) == 0, (filter, row[0])
    assert named > 30


def test_two_columns_with_windows_the_smaller_wins(stock: Connection) -> None:
    add(stock, "i4", levels=1)
    add(stock, "price", levels=2)
    both = {"i4": {"$lt": 2900}, "price": {"$lt": 14}}
    assert ", window price < '14.98" in access(stock, both)
    assert ", window i4 < '2998" in access(stock, {"i4": {"$lt": 2900}, "price": {"$lt": 59}})
    for query in QUERIES:
        mask = PLACE < 1400
        assert len({*ask(stock, both, query)} & {*truth(mask, query)}) >= 9


def test_a_contradiction_an_empty_range_and_one_value(stock_2: Connection) -> None:
    stock = stock_2
    assert ask(stock, {"i4": {"$gt": 900, "$lt": 900}}) == []
    assert ask(stock, {"$and": [{"i4": {"$lt": 100}}, {"i4": {"$gt": 5000}}]}) == []
    assert ask(stock, {"i4": 4322}) == [int(np.flatnonzero(PLACE == 4322)[0])]
    assert ask(stock, {"i4": {"$eq": 4322, "$gt": 4322}}) == []


def test_without_filter_and_without_windows_the_text_is_as_before(stock: Connection) -> None:
    def body() -> str:
        return str(one(stock, "select prosrc from pg_proc where proname = 'stock_search'"))

    before, plain = body(), one(stock, "select funnelvec.search_sql('stock_search')")
    assert "_fv_within" not in before
    add(stock, "i4", levels=1)
    assert "_fv_within" in body()
    assert one(stock, "select funnelvec.search_sql('stock_search')") == plain
    within = one(stock, "select funnelvec.search_sql('stock_search', %s)", '{"i4": {"$lt": 2000}}')
    assert "and t.i4 < '2998" in within
    run(stock, "select funnelvec.drop_window('stock', 'embedding', '16:f16', 'i4')")
    assert body() == before


@pytest.mark.parametrize("mode", ["auto", "force_generic_plan", "force_custom_plan"])
def test_prepared_statements_go_by_the_window_too(stock_2: Connection, mode: str) -> None:
    """The filter is a parameter there; its window is found when it is run, in every kind of plan."""
    stock = stock_2
    run(stock, f"set plan_cache_mode = '{mode}'")
    run(
        stock,
        "prepare p (vector, jsonb) as select array_agg(id) from stock_search($1, filter => $2)",
    )
    names = {name for _, _, name, _ in windows(stock)}
    used = set()
    for turn in range(8):
        low = (turn % 4) * 1500
        with stock.transaction():
            before = counters(stock)
            run(
                stock,
                f"""execute p ('{text(QUERIES[0])}', '{{"i4": {{"$gte": {low}, "$lt": {low + 1400}}}}}')""",
            )
            found = [name for name, count in counters(stock).items() if count > before[name]]
        assert len(found) == 1
        used.add(found[0])
    assert used <= names
    assert len(used) == 4


def test_pages_and_recall_through_a_window(stock_2: Connection) -> None:
    stock = stock_2
    filter = json.dumps({"i4": {"$gte": 1600, "$lt": 2900}})
    mask = (PLACE >= 1600) & (PLACE < 2900)
    pages: list[int] = []
    after = None
    for _ in range(4):
        rows = search(stock, "stock_search", text(QUERIES[1]), k=5, filter=filter, after=after)
        pages += [row[0] for row in rows]
        after = json.dumps({"score": rows[-1][1], "key": [rows[-1][0]]})
    assert len({*pages}) == KEEP == len(pages)
    assert len({*pages} & {*truth(mask, QUERIES[1], KEEP)}) >= 0.9 * KEEP
    measured = stock.execute(
        "select recall from funnelvec.measure_recall('stock_search', 20, filter => %s)", (filter,)
    ).fetchall()
    assert len(measured) == 2
    assert all(row[0] > 0.97 for row in measured), measured


def test_a_reader_searches_by_windows(stock: Connection, stock_database: Database) -> None:
    add(stock, "day", levels=2)
    run(stock, f"grant select on stock to {OTHER}")
    filter = {"day": {"$gte": KINDS["day"][2](1600), "$lt": KINDS["day"][2](2900)}}
    with databases.connected(stock_database.other_url) as other:
        assert ask(other, filter) == ask(stock, filter)
        assert ", window day " in access(other, filter)
        assert len(windows(other)) == 10
        for call in (
            "select funnelvec.add_window('stock', 'embedding', '16:f16', 'i4', levels => 1)",
            "select funnelvec.drop_window('stock', 'embedding', '16:f16', 'day')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                run(other, call)
        assert other.execute("delete from funnelvec.windows").rowcount == 0


def test_row_security_and_the_session_s_settings_change_nothing(
    stock: Connection, stock_database: Database
) -> None:
    add(stock, "moment", levels=2)
    run(stock, f"grant select on stock to {OTHER}")
    run(stock, "alter table stock enable row level security")
    run(stock, "create policy odd_ones on stock for select using (few = 1)")
    low, high = KINDS["moment"][2](1600), KINDS["moment"][2](2900)
    filter = {"moment": {"$gte": low, "$lt": high}}
    mask = (PLACE >= 1600) & (PLACE < 2900) & (PLACE // 2 % 2 == 1)
    with databases.connected(stock_database.other_url) as other:
        for setting in (
            "datestyle = 'SQL, DMY'",
            "timezone = 'Asia/Kathmandu'",
            "extra_float_digits = -5",
        ):
            run(other, f"set {setting}")
        assert ", window moment " in access(other, filter)
        for query in QUERIES:
            ids = ask(other, filter, query)
            assert mask[ids].all()
            assert len({*ids} & {*truth(mask, query)}) >= 9
        assert len(windows(other)) == 10
        assert [row for row in other.execute("select object, advice from funnelvec.status('stock') where advice <> ''")
                if "stale" in row[1]] == []  # fmt: skip


# -- rows that come, go and have no value ---------------------------------------------------------


def test_rows_without_a_value_and_rows_beyond_the_bounds(stock_2: Connection) -> None:
    stock = stock_2
    near = text(QUERIES[0])
    for key, place in ((10_001, -(10**6)), (10_002, 10**6), (10_003, None)):
        stock.execute(
            "insert into stock (id, embedding, i4, pad) values (%s, %s, %s, '')", (key, near, place)
        )
    assert ask(stock, {"i4": {"$lt": 700}})[0] == 10_001
    assert ask(stock, {"i4": {"$gte": 5300}})[0] == 10_002
    assert ask(stock, {"i4": {"$lt": -(10**5)}}) == [10_001]
    assert ask(stock, {"i4": {"$gt": 10**5}}) == [10_002]
    assert ask(stock, {"i4": {"$exists": False}}) == [10_003]
    assert {*ask(stock, {})[:3]} == {10_001, 10_002, 10_003}
    assert ask(stock, {"i4": {"$not": {"$gte": 0}}})[:2] == [10_001, 10_003]
    # A row that changes its value changes its windows.
    run(stock, "update stock set i4 = 2000 where id = 10001")
    assert 10_001 not in ask(stock, {"i4": {"$lt": 700}})
    assert ask(stock, {"i4": {"$gte": 1900, "$lte": 2100}})[0] == 10_001
    run(stock, "delete from stock where id = 10001")
    assert 10_001 not in ask(stock, {"i4": {"$gte": 1900, "$lte": 2100}})


def test_infinite_values_and_not_a_number(stock: Connection) -> None:
    run(stock, "update stock set r8 = 'NaN' where i4 >= 5000")
    run(stock, "update stock set r8 = '-Infinity' where i4 < 1000")
    run(stock, "update stock set day = 'infinity' where i4 >= 4000")
    run(stock, "vacuum analyze stock")
    add(stock, "r8", levels=2)
    add(stock, "day", levels=2)
    high = np.where(PLACE >= 5000, np.inf, np.where(PLACE < 1000, -np.inf, PLACE / 7))
    for filter, mask in (
        ({"r8": {"$lt": 200}}, high < 200),
        ({"r8": {"$gte": 600}}, high >= 600),
        ({"r8": {"$gte": 150, "$lt": 300}}, (high >= 150) & (high < 300)),
        ({"day": {"$gte": KINDS["day"][2](3600)}}, PLACE >= 3600),
        ({"day": {"$lt": KINDS["day"][2](1300)}}, PLACE < 1300),
    ):
        for query in QUERIES:
            ids = ask(stock, filter, query)
            assert mask[ids].all()
            assert len({*ids} & {*truth(mask, query)}) >= 9, filter


def test_many_rows_of_one_value_make_fewer_windows(stock: Connection) -> None:
    run(stock, "update stock set i4 = 7 where i4 % 3 > 0")  # two thirds of the rows
    run(stock, "vacuum analyze stock")
    assert 1 <= add(stock, "i4", levels=3) < 25
    shares = [rows / ROWS for _, rows, _, _ in windows(stock)]
    assert all(0 < share <= 0.76 for share in shares), shares
    values = np.where(PLACE % 3 > 0, 7, PLACE)
    for low, high in ((7, 8), (8, 900), (3000, 4000), (0, 7)):
        mask = (values >= low) & (values < high)
        ids = ask(stock, {"i4": {"$gte": low, "$lt": high}})
        assert len({*ids} & {*truth(mask, QUERIES[0])}) >= min(9, int(mask.sum()))


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "code", "said"),
    [
        ("('stock', 'embedding', '16:f16', 'name')", "FV009", "numbers, dates and times"),
        ("('stock', 'embedding', '16:f16', 'embedding')", "FV009", "numbers, dates and times"),
        ("('stock', 'embedding', '16:f16', 'nothing')", "FV005", "no column 'nothing'"),
        ("('stock', 'embedding', '16:f16', null)", "FV005", "no column null"),
        ("('stock', 'embedding', '8:f16', 'i4')", "FV005", "no index"),
        ("('stock', 'embedding', '16:f32', 'i4')", "FV005", "no index"),
        ("('stock', 'nothing', '16:f16', 'i4')", "FV005", "nothing"),
        ("('stock', 'embedding', 'x', 'i4')", "FV001", "x"),
        ("('stock', 'embedding', '16:f16', 'few')", "FV009", "too few values"),
        ("('stock', 'embedding', '16:f16', 'i4')", "FV009", "about 3000 rows"),
        ("('stock', 'embedding', '16:f16', 'i4', 0)", "FV004", "levels is 0"),
        ("('stock', 'embedding', '16:f16', 'i4', 7)", "FV004", "levels is 7"),
        ("('stock', 'embedding', '16:f16', 'i4', 1, m => 1)", "FV004", "m is 1"),
        ("('pg_class', 'embedding', '16:f16', 'i4')", "FV005", "embedding"),
    ],
)
def test_refusals(stock: Connection, call: str, code: str, said: str) -> None:
    if "few" in call:
        call = call.replace("'few'", "'few', 1")
        run(stock, "update stock set few = 1")
    with pytest.raises(psycopg.Error) as caught:
        run(stock, f"select funnelvec.add_window{call}")
    assert (caught.value.sqlstate, said in str(caught.value)) == (code, True), caught.value
    assert one(stock, "select count(*) from funnelvec.windows") == 0


def test_side_storage_is_refused_both_ways(stock: Connection) -> None:
    run(stock, "select funnelvec.add_resolution('stock', 'embedding', '8:f16', storage => 'side')")
    with pytest.raises(psycopg.Error, match="side table, which does not hold i4") as caught:
        run(stock, "select funnelvec.add_window('stock', 'embedding', '8:f16', 'i4', 1)")
    assert caught.value.sqlstate == "FV009"
    add(stock, "i4", levels=1)
    with pytest.raises(psycopg.Error, match="has windows") as caught:
        run(
            stock,
            "select funnelvec.add_resolution('stock', 'embedding', '16:f16', storage => 'side')",
        )
    assert caught.value.sqlstate == "FV008"


def test_twice_is_once_and_other_levels_are_refused(stock: Connection) -> None:
    assert add(stock, "i4", levels=1) == 3
    before = windows(stock)
    assert add(stock, "i4", levels=1) == add(stock, "i4") == 3
    assert windows(stock) == before
    with pytest.raises(psycopg.Error, match="of 1 levels") as caught:
        add(stock, "i4", levels=2)
    assert caught.value.sqlstate == "FV008"
    with pytest.raises(psycopg.Error, match="has no windows by 'i8'") as caught:
        run(stock, "select funnelvec.drop_window('stock', 'embedding', '16:f16', 'i8')")
    assert caught.value.sqlstate == "FV005"


# -- what happens to windows ----------------------------------------------------------------------


def test_an_index_that_is_gone_is_missed_by_nobody_and_made_again(stock_2: Connection) -> None:
    stock = stock_2
    filter = {"i4": {"$gte": 1600, "$lt": 2900}}
    name = scans(stock, filter)[0]
    run(stock, f"drop index {name}")
    # The function still names the window; the planner takes the next one that holds it.
    assert len({*ask(stock, filter)} & {*truth((PLACE >= 1600) & (PLACE < 2900), QUERIES[0])}) >= 9
    advice = stock.execute(
        "select advice from funnelvec.status('stock') where storage = 'window' and index_name is null"
    ).fetchall()
    assert len(advice) == 1
    assert "select funnelvec.add_window(" in advice[0][0]
    assert "stale" in str(stock.execute("select advice from funnelvec._problems()").fetchall())
    assert stock.execute("select action from funnelvec.repair()").fetchall() == [
        ("rewrite: it was stale",)
    ]
    assert name not in access(stock, filter)
    run(stock, advice[0][0].partition(": ")[2])
    assert len(windows(stock)) == 10
    assert scans(stock, filter) != []
    assert ", window i4 >= '1498" in access(stock, filter)
    assert stock.execute("select * from funnelvec.repair()").fetchall() == []


def test_dropping(stock: Connection) -> None:
    indexes = "select count(*) from pg_index where indrelid = 'stock'::regclass"
    before = one(stock, indexes)
    add(stock, "i4", levels=1)
    add(stock, "day", levels=1)
    assert one(stock, indexes) == before + 6
    run(stock, "select funnelvec.drop_window('stock', 'embedding', '16:f16', 'i4')")
    assert one(stock, indexes) == before + 3
    run(stock, "select funnelvec.drop_funnel('stock_search')")
    assert one(stock, "select count(*) from funnelvec.windows") == 1
    run(stock, "select funnelvec.drop_resolution('stock', 'embedding', '16:f16')")
    assert one(stock, "select count(*) from funnelvec.windows") == 0
    assert one(stock, indexes) == before - 1
    # Over the vector column itself nothing else would take them along.
    run(
        stock,
        "select funnelvec.add_resolution('stock', 'embedding', '16:f32', index => true);"
        "select funnelvec.create_funnel('alone', 'stock', 'embedding', '16:f32');"
        "select funnelvec.add_window('stock', 'embedding', '16:f32', 'i4', 1)",
    )
    mask = PLACE < 2500
    assert (
        len({*ask(stock, {"i4": {"$lt": 2500}}, function="alone")} & {*truth(mask, QUERIES[0])})
        >= 9
    )
    run(stock, "select funnelvec.drop_resolution('stock', 'embedding', '16:f32')")
    assert one(stock, indexes) == before - 1
    assert stock.execute("select * from funnelvec.repair()").fetchall() == []


def test_a_column_that_goes_takes_its_windows(stock_1: Connection) -> None:
    stock = stock_1
    run(stock, "alter table stock drop column i4")
    assert ask(stock, {"few": 1})
    actions = stock.execute("select what, action from funnelvec.repair()").fetchall()
    assert actions[0][0] == "windows of public.stock by i4"
    assert actions[0][1].startswith("remove the row")
    assert one(stock, "select count(*) from funnelvec.windows") == 0
    run(stock, "drop table stock")
    assert "remove the rows" in str(stock.execute("select * from funnelvec.repair()").fetchall())


def test_renames_are_followed(stock_2: Connection) -> None:
    stock = stock_2
    filter = {"place": {"$gte": 1600, "$lt": 2900}}
    mask = (PLACE >= 1600) & (PLACE < 2900)
    run(stock, "alter table stock rename column i4 to place")
    assert len({*ask(stock, filter)} & {*truth(mask, QUERIES[0])}) >= 9
    # The old name now belongs to another column, of another type.
    run(stock, "alter table stock add column i4 text default 'x'")
    assert len(ask(stock, {"i4": "x"})) == 10
    assert "renamed to place" in str(
        stock.execute("select advice from funnelvec.status('stock')").fetchall()
    )
    assert ("windows of public.stock by place", "follow the rename of i4") in stock.execute(
        "select * from funnelvec.repair()"
    ).fetchall()
    assert ", window place >= '1498" in access(stock, filter)
    run(
        stock, "alter table stock rename column embedding to emb; alter table stock rename to items"
    )
    run(stock, "select funnelvec.repair()")
    assert ", window place >= '1498" in access(stock, filter)
    assert stock.execute("select * from funnelvec.repair()").fetchall() == []
    assert one(stock, "select count(*) from funnelvec.windows where column_name = 'emb'") == 1


@pytest.mark.parametrize(
    "change",
    [
        "bounds = (select array_agg(b order by i desc) from unnest(bounds) with ordinality as u (b, i))",
        "bounds = '{}'",
        "bounds[1] = null",
        "bounds[1] = '1; drop table stock'",
        "shares = '{}'",
        "levels = 4",
        "levels = 0",
        "m = 0",
        "by_column = 'name'",
        "by_column = 'nothing'",
        "resolution = 'x'",
        "resolution = '8:f16'",
    ],
)
def test_rows_written_by_hand_do_no_harm(stock_1: Connection, change: str) -> None:
    stock = stock_1
    run(stock, f"update funnelvec.windows set {change}")
    filter = {"i4": {"$gte": 700, "$lt": 1500}}
    expected = truth((PLACE >= 700) & (PLACE < 1500), QUERIES[0])
    assert len({*ask(stock, filter)} & {*expected}) >= 9
    said = stock.execute("select object, advice from funnelvec.status('stock')").fetchall()
    assert any(
        row[0].startswith("windows of public.stock") and "repair" in row[1] for row in said
    ), said
    run(stock, "select funnelvec.repair()")
    assert len({*ask(stock, filter)} & {*expected}) >= 9
    assert stock.execute("select * from funnelvec.repair()").fetchall() == []


def test_a_lost_registry_is_read_back(stock: Connection) -> None:
    add(stock, "day", levels=2)
    before = windows(stock)
    run(
        stock,
        "delete from funnelvec.windows; delete from funnelvec.funnels; delete from funnelvec.resolutions",
    )
    run(stock, "select funnelvec.repair()")
    assert windows(stock) == before
    filter = {"day": {"$gte": KINDS["day"][2](1600), "$lt": KINDS["day"][2](2900)}}
    assert ", window day " in access(stock, filter)
    assert stock.execute("select * from funnelvec.repair()").fetchall() == []


def test_dump_and_restore_keep_windows(
    pg_server: Server, stock: Connection, stock_database: Database, new_database: Any, tmp_path: Any
) -> None:
    add(stock, "moment", levels=1)
    add(stock, "price", levels=2)
    filter = {"price": {"$gte": 16, "$lt": 29}}
    before, answer = windows(stock), ask(stock, filter)
    restored = new_database("vector")
    file = str(tmp_path / "dump")
    pg_server.run("pg_dump", "-Fc", "-f", file, stock_database.owner_url)
    pg_server.run("pg_restore", "--exit-on-error", "--no-comments", "-d", restored.owner_url, file)
    with databases.connected(restored.owner_url) as connection:
        run(connection, "analyze")
        run(connection, "select funnelvec.repair()")
        assert [row[:3] for row in windows(connection)] == [row[:3] for row in before]
        assert ", window price >= '14.98" in access(connection, filter)
        assert len({*ask(connection, filter)} & {*answer}) >= 9
        assert connection.execute("select * from funnelvec.repair()").fetchall() == []


# -- large and partitioned tables -----------------------------------------------------------------


def test_beyond_the_limit_windows_are_built_concurrently(
    stock: Connection, stock_database: Database
) -> None:
    with databases.connected(stock_database.superuser_url) as admin:
        run(
            admin,
            "create or replace function funnelvec._rewrite_limit() returns bigint"
            " language sql immutable return 1000",
        )
    with pytest.raises(psycopg.Error, match="stops everybody from writing") as caught:
        add(stock, "i4", levels=1)
    assert caught.value.sqlstate == "FV008"
    assert add(stock, "i4", levels=1, concurrently="true") == 3
    filter = {"i4": {"$gte": 100, "$lt": 1400}}
    assert "window" not in access(stock, filter)
    first = one(stock, "select funnelvec.next_step('stock')")
    assert first.startswith("create index concurrently if not exists")
    with pytest.raises(psycopg.Error, match="are not built"):
        run(stock, "select funnelvec.activate('public.stock', 'embedding', '16:f16')")
    run(stock, first)
    with databases.connected(stock_database.superuser_url) as admin:
        # A build that was broken off leaves such an index.
        run(
            admin,
            "update pg_index set indisvalid = false where indexrelid = 'stock_embedding_16_f16_i4_w1_1'::regclass",
        )
    ran = finish(stock, "stock")
    verbs = [" ".join(step.split()[:3]) for step in ran]
    assert verbs == ["drop index concurrently"] + ["create index concurrently"] * 3 + [
        "select funnelvec.activate('public.stock', 'embedding',"
    ]
    assert ", window i4 < '2998" in access(stock, filter)
    assert len(windows(stock)) == 3
    assert stock.execute("select * from funnelvec.repair()").fetchall() == []
    # All there: nothing to build, so nothing is refused.
    assert add(stock, "i4") == 3


@pytest.mark.parametrize("later", ["false", "true"])
def test_partitioned_tables(owner_conn: Connection, later: str) -> None:
    run(
        owner_conn,
        f"create table stock (id bigint primary key, embedding vector({DIMS}), i4 integer, pad text)"
        " partition by hash (id);"
        "create table stock_0 partition of stock for values with (modulus 2, remainder 0);"
        "create table stock_1 partition of stock for values with (modulus 2, remainder 1)",
    )
    with owner_conn.cursor() as cursor:
        cursor.executemany(
            "insert into stock values (%s, %s, %s, repeat('x', 900))",
            [(i, text(row), int(PLACE[i])) for i, row in enumerate(MATRIX)],
        )
    run(
        owner_conn,
        "select funnelvec.add_resolution('stock', 'embedding', '16:f16', index => true);"
        f"select funnelvec.create_funnel('stock_search', 'stock', 'embedding', '16:f16@{KEEP} > 16:f32');"
        "analyze",
    )
    assert add(owner_conn, "i4", levels=1, concurrently=later) == 3
    ran = finish(owner_conn, "stock")
    assert len(ran) == (7 if later == "true" else 0)
    filter = {"i4": {"$gte": 100, "$lt": 1400}}
    assert ", window i4 < '2998" in access(owner_conn, filter)
    used = scans(owner_conn, filter)
    assert len(used) == 2
    for name in used:
        assert window_of(owner_conn, name) == "(i4 < 2998)"
    mask = (PLACE >= 100) & (PLACE < 1400)
    assert len({*ask(owner_conn, filter)} & {*truth(mask, QUERIES[0])}) >= 9
    assert len(windows(owner_conn)) == 3
    assert sum(row[1] for row in windows(owner_conn)) >= ROWS
    run(owner_conn, "select funnelvec.drop_window('stock', 'embedding', '16:f16', 'i4')")
    left = one(
        owner_conn, "select count(*) from pg_index where indpred is not null and indrelid > 16384"
    )
    assert left == 0
    assert owner_conn.execute("select * from funnelvec.repair()").fetchall() == []


@pytest.mark.parametrize(
    ("kind", "first"),
    [("pca", "12:f16~pca"), ("sphering", "16:f16~sphering"), ("pcar", "16:bit~pcar")],
)
def test_windows_over_fitted_rotations(owner_conn: Connection, kind: str, first: str) -> None:
    """One map for rows and another for queries is compared by another metric than the column."""
    fill(owner_conn, fitted_rotations.MATRIX, table=("docs",))
    run(owner_conn, "alter table docs add column pad text default repeat('x', 1800)")
    fitted_rotations.keep(owner_conn, kind)
    fitted_rotations.add(owner_conn, first, index=True)
    run(
        owner_conn,
        f"select funnelvec.create_funnel('docs_search', 'docs', 'embedding', '{first}@30 > 24:f32');"
        f"select funnelvec.add_window('docs', 'embedding', '{first}', 'price', 1); analyze docs",
    )
    filter = json.dumps({"price": {"$lt": 117}})
    query = text(fitted_rotations.QUERY)
    # Few rows are cheap to read; where they are not, the window is taken.
    run(owner_conn, "set seq_page_cost = 1000")
    row = owner_conn.execute(
        "select access from funnelvec.explain('docs_search', %s, filter => %s)", (query, filter)
    ).fetchone()
    assert row is not None
    assert ", window price < '" in row[0]
    ids = [hit[0] for hit in search(owner_conn, "docs_search", query, filter=filter)]
    assert len(ids) == 10
    assert max(ids) < 117
    assert owner_conn.execute("select * from funnelvec.repair()").fetchall() == []
    run(owner_conn, "select funnelvec.drop_funnel('docs_search')")
    run(owner_conn, f"select funnelvec.drop_resolution('docs', 'embedding', '{first}')")
    assert one(owner_conn, "select count(*) from funnelvec.windows") == 0


def test_from_python_and_the_command_line(
    stock_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    filter = {"i4": {"$gte": 100, "$lt": 1400}}
    with fv.connect(stock_database.owner_url) as engine:
        table = engine.table("stock")
        table.add_window("16:f16", "i4", levels=1)
        reports = [each for each in table.status() if each.storage == "window"]
        assert reports[0].window == "i4 < '2998'::integer"
        assert sum(each.filled for each in reports) > ROWS
        assert all(each.index_bytes and each.resolution == "16:f16" for each in reports)
        assert ", window i4 <" in table.explain(QUERIES[0], filter=filter).stages[0].access
        with pytest.raises(fv.errors.CapabilityError, match="numbers, dates"):
            table.add_window("16:f16", "name")
        with pytest.raises(fv.errors.NotFound, match="no column"):
            table.add_window("16:f16", "nothing")
        assert cli.main(["status", stock_database.owner_url, "stock"]) == 0
        printed = capsys.readouterr().out
        assert "i4 < '2998'::integer" in printed
        assert printed.count("16:f16") == 4 + 1  # the resolution, three windows, and the funnel
        table.drop_window("16:f16", "i4")
        assert [each for each in table.status() if each.storage == "window"] == []

    async def later() -> None:
        async with fv.connect_async(stock_database.owner_url) as engine:
            table = await engine.table("stock")
            await table.add_window("16:f16", "i4", levels=1, concurrently=True)
            ran: list[FillingStep] = []
            await table.backfill(on_step=ran.append)
            assert [str(step.statement).split()[0] for step in ran] == ["create"] * 3 + ["select"]
            explained = await table.explain(QUERIES[0], filter=filter)
            assert ", window i4 <" in explained.stages[0].access
            await table.drop_window("16:f16", "i4")

    asyncio.run(later())
