"""Rows on their way into Postgres: every type, row-level security, transactions, who may what."""

from __future__ import annotations

import datetime
import math
import struct
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

import funnelvec as fv
from funnelvec import errors
from funnelvec.engines.postgres import wire
from tests import awaited
from tests.databases import OTHER, connected
from tests.sql.tables import vectors

if TYPE_CHECKING:
    from tests.databases import Database

    Connection = psycopg.Connection[Any]

UTC = datetime.timezone.utc


@pytest.fixture(params=["sync", "async"])
def engine(request: pytest.FixtureRequest, owner_url: str) -> Iterator[Any]:
    with awaited.opened(owner_url, request.param) as opened:
        yield opened


# -- the format ----------------------------------------------------------------------------------


def test_a_block_is_what_the_manual_says() -> None:
    ids = wire.field([1, -2], "bigint", what="id", encoding="utf-8", first=0)
    name = wire.field(["é", None], "text", what="name", encoding="utf-8", first=0)
    whole = wire.vectors(np.array([[1, -0.5], [0, 2]], np.float32))
    half = wire.vectors(np.array([[1, -0.5], [0, 2]], np.float16))
    ((done, block),) = wire.blocks([name, ids, whole, half], 2)
    rows = [
        struct.pack(">hiqihhffihhee", 4, 8, key, 12, 2, 0, *v, 8, 2, 0, *v) + text
        for key, v, text in (
            (1, (1, -0.5), b"\0\0\0\2" + "é".encode()),
            (-2, (0, 2), b"\xff\xff\xff\xff"),
        )
    ]
    assert (done, bytes(block)) == (2, b"".join(rows))
    assert wire.order([name, ids, whole]) == [1, 2, 0]


def test_blocks_stay_small_and_hold_every_row() -> None:
    for rows, dims in ((5000, 2), (700, 3000), (1, 16_000)):
        ids = wire.field(range(rows), "bigint", what="id", encoding="utf-8", first=0)
        found = list(wire.blocks([ids, wire.vectors(np.ones((rows, dims), np.float32))], rows))
        assert [done for done, _ in found][-1] == rows
        size = 2 + 12 + 8 + 4 * dims
        assert sum(len(block) for _, block in found) == rows * size
        assert all(len(block) <= max(1 << 18, size) for _, block in found)


TYPES: dict[str, list[Any]] = {
    "smallint": [-(2**15), 2**15 - 1, 0],
    "integer": [-(2**31), 2**31 - 1, 7],
    "bigint": [-(2**63), 2**63 - 1, 7],
    "real": [0.1, -1e38, float("inf")],
    "double precision": [0.1, 5e-324, float("nan")],
    "numeric": [Decimal("1.5"), -0.001, float("nan")],
    "numeric(6,2)": [1234.5, 0, -1],
    "text": ["", "é😀\n\\.", "x" * 100_000],
    "varchar(5)": ["äöüß€", "", "a"],
    "char(3)": ["abc", "ä  ", "x  "],
    "boolean": [True, False, True],
    "date": [datetime.date(1, 1, 1), datetime.date(9999, 12, 31), datetime.date(2000, 1, 1)],
    "timestamptz": [
        datetime.datetime(1, 1, 1, tzinfo=UTC),
        datetime.datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
    "timestamp": [
        datetime.datetime(1970, 1, 1, tzinfo=UTC),
        datetime.datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
        datetime.datetime(2000, 1, 1, tzinfo=UTC),
    ],
    "uuid": [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.UUID(int=7)],
    "whole": [1, 2, 3],
    "words": ["a", "é", ""],
    "smallint[]": [[1, None, -(2**15)], [], [7]],
    "bigint[]": [[2**63 - 1], [], [None, None]],
    "double precision[]": [[0.1, float("inf")], [], [5e-324, None]],
    "numeric[]": [[Decimal("12345678901234567890.5"), None], [], [Decimal("-0.001")]],
    "text[]": [["", None, 'é{},"\\'], [], ["NULL"]],
    "varchar(5)[]": [["äöüß€"], [], [None, "a"]],
    "boolean[]": [[True, None, False], [], [False]],
    "date[]": [[datetime.date(1, 1, 1), None], [], [datetime.date(9999, 12, 31)]],
    "timestamptz[]": [[datetime.datetime(2024, 2, 29, tzinfo=UTC), None], [], [None]],
    "uuid[]": [[uuid.UUID(int=7), None], [], [uuid.UUID(int=0)]],
    "jsonb": [{"a": [1, None, "é"], "b": {"c": True}}, [], "text"],
    "json": [{"z": 1.5, "a": "ß"}, 7, False],
}


@pytest.mark.parametrize("way", ["add", "upsert"])
@pytest.mark.parametrize("missing", [False, True], ids=["full", "with gaps"])
def test_values_of_every_type(engine: Any, way: str, missing: bool) -> None:
    with engine.connection() as connection:
        connection.execute("create domain whole as bigint check (value > 0)")
        connection.execute("create domain word as varchar(9)")
        connection.execute("create domain words as word")
        columns = ", ".join(f'"{type}" {type}' for type in TYPES)
        connection.execute(
            "create table docs (k smallint primary key, v vector(3), h halfvec(3),"
            f" {columns}, code vector(2) generated always as (subvector(v, 1, 2)::vector(2)) stored)"
        )
    given = {type: [*values, None] if missing else values for type, values in TYPES.items()}
    n = 4 if missing else 3
    rows = vectors(n, dims=3)
    table = engine.table("docs", vector="v")
    getattr(table, way)(range(n), rows, columns=given)
    with engine.connection() as connection:
        for type, values in given.items():
            found = connection.execute(f'select "{type}" from docs order by k').fetchall()
            for (got,), wanted in zip(found, values, strict=True):
                if isinstance(wanted, float):
                    assert got is not None
                    same = (
                        math.isnan(got)
                        if math.isnan(wanted)
                        else float(got) == pytest.approx(wanted)
                    )
                    assert same, (type, got, wanted)
                else:
                    naive = type == "timestamp" and wanted is not None
                    assert got == (wanted.replace(tzinfo=None) if naive else wanted), type
        texts = connection.execute("select v::text, code::text from docs order by k").fetchall()
    for (text, code), row in zip(texts, rows, strict=True):
        assert np.array_equal(np.array(eval(text), np.float32), row)
        assert np.array_equal(np.array(eval(code), np.float32), row[:2])


@pytest.mark.parametrize(
    ("type", "value"),
    [
        ("smallint", 2**15),
        ("integer", -(2**31) - 1),
        ("real", 1e39),
        ("whole", 0),
        ("varchar(5)", "123456"),
    ],
)
def test_values_out_of_range(engine: Any, type: str, value: Any) -> None:
    with engine.connection() as connection:
        connection.execute("create domain whole as bigint check (value > 0)")
        connection.execute(f"create table docs (k bigint primary key, v vector(3), x {type})")
    table = engine.table("docs")
    for call in (table.add, table.upsert):
        with pytest.raises(errors.FunnelvecError) as caught:
            call([1, 2, 3], vectors(3, dims=3), columns={"x": [None, None, value]})
        if type in ("smallint", "integer", "real"):
            assert isinstance(caught.value, errors.InvalidInput)
            assert f"row 2: {value!r} is out of range" in str(caught.value)
    assert table.count() == 0


def test_columns_of_16_bit_floats(engine: Any) -> None:
    table = engine.create("docs", dims=8, dtype="f16")
    rows = vectors(50, dims=8)
    table.add(range(50), rows)
    assert table.upsert(range(40, 60), -rows[:20]).updated == 10
    table.create_funnel("docs_search", "8:f16")
    assert [hit.id for hit in table.search(rows[3], k=1)] == [3]
    assert [hit.id for hit in table.search(-rows[3], k=1)] == [43]


def test_a_connection_that_speaks_another_encoding(owner_url: str) -> None:
    with psycopg.connect(owner_url, autocommit=True, client_encoding="latin1") as connection:
        engine: Any = fv.wrap(connection)
        table = engine.create("docs", dims=3, columns={"name": "text"})
        table.add([1], [[1, 2, 3]], columns={"name": ["é"]})
        with pytest.raises(errors.InvalidInput, match="row 0: '€' cannot be written in"):
            table.add([2], [[1, 2, 3]], columns={"name": ["€"]})
        row = connection.execute("select name, count(*) over () from docs").fetchone()
        assert row == ("é", 1)


# -- kinds of tables -------------------------------------------------------------------------------


def test_keys_that_postgres_makes_itself(engine: Any) -> None:
    with engine.connection() as connection:
        connection.execute(
            "create table docs (id bigint generated always as identity primary key, v vector(3), n int default 5)"
        )
        connection.execute("insert into docs (v) values ('[1,2,3]')")
    table = engine.table("docs")
    table.add([10], vectors(1, dims=3))
    assert table.upsert([1, 11], vectors(2, dims=3)) == fv.Upserted(inserted=1, updated=1)
    with engine.connection() as connection:
        found = connection.execute("select id, n from docs order by id").fetchall()
    assert found == [(1, 5), (10, 5), (11, 5)]


def test_partitioned_tables(engine: Any) -> None:
    with engine.connection() as connection:
        connection.execute(
            "create table docs (tenant text, n int, v vector(3), x int, primary key (tenant, n)) partition by list (tenant)"
        )
        connection.execute("create table docs_a partition of docs for values in ('a')")
        connection.execute("create table docs_rest partition of docs default")
    table = engine.table("docs")
    keys = [("a", 1), ("a", 2), ("b", 1)]
    table.add(keys[:2], vectors(2, dims=3), columns={"x": [1, 2]})
    assert table.upsert(keys, vectors(3, dims=3)) == fv.Upserted(inserted=1, updated=2)
    rows = (
        {"tenant": t, "n": n, "v": v, "x": 9}
        for (t, n), v in zip(keys, vectors(3, dims=3), strict=True)
    )
    assert table.load(rows, upsert=True).updated == 3
    assert table.count() == 3


def test_odd_names(engine: Any) -> None:
    with engine.connection() as connection:
        connection.execute('create schema "Süd"')
        connection.execute(
            """create table "Süd"."a""b %s" ("K{}" text primary key, "sel'ect" vector(3), "%(x)s" int, "xmax " int)"""
        )
    table = engine.table('"Süd"."a""b %s"')
    table.add(["a"], vectors(1, dims=3), columns={"%(x)s": [1]})
    assert table.upsert(["a", "b"], vectors(2, dims=3), columns={"xmax ": [1, 2]}).updated == 1
    rows = [{"K{}": "b", "sel'ect": vectors(1, dims=3)[0], "%(x)s": 3}]
    with pytest.raises(KeyboardInterrupt):
        table.load(stopped(rows * 1), batch_size=1, upsert=True)
    assert table.load(iter(rows), upsert=True).skipped == 1


def stopped(rows: list[Any]) -> Iterator[Any]:
    yield from rows
    raise KeyboardInterrupt


def test_triggers_and_rules_of_the_application_see_every_row(engine: Any) -> None:
    with engine.connection() as connection:
        connection.execute("create table docs (id int primary key, v vector(3), x int)")
        connection.execute("create table seen (what text, id int)")
        connection.execute(
            "create function note() returns trigger language plpgsql as"
            " $$ begin insert into seen values (tg_op, new.id); return new; end $$"
        )
        connection.execute(
            "create trigger note after insert or update on docs for each row execute function note()"
        )
    table = engine.table("docs")
    table.add([1, 2], vectors(2, dims=3))
    table.upsert([2, 3], vectors(2, dims=3))
    with engine.connection() as connection:
        found = connection.execute("select what, id from seen order by id, what").fetchall()
    assert found == [("INSERT", 1), ("INSERT", 2), ("UPDATE", 2), ("INSERT", 3)]


# -- row-level security and roles ------------------------------------------------------------------


@pytest.fixture
def secured(owner_conn: Connection) -> Connection:
    """A table with a policy that its owner is under too: a role sees and writes what is its own."""
    for command in (
        "create table docs (id bigint primary key, v vector(3), owner text default current_user, n int)",
        "alter table docs enable row level security",
        "alter table docs force row level security",
        "create policy own on docs using (owner = current_user) with check (owner = current_user)",
        f"grant select, insert, update on docs to {OTHER}",
    ):
        owner_conn.execute(command)  # type: ignore[arg-type]
    return owner_conn


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("who", ["owner", "other"])
def test_row_level_security(secured: Connection, pg_database: Database, who: str, how: str) -> None:
    url = pg_database.owner_url if who == "owner" else pg_database.other_url
    with awaited.opened(url, how) as engine:
        table = engine.table("docs")
        rows = vectors(30, dims=3)
        assert table.add(range(20), rows[:20]) == 20
        assert table.upsert(range(10, 25), rows[10:25], columns={"n": [1] * 15}).updated == 10
        with pytest.raises(errors.EngineError, match="row-level security"):
            table.add(range(100, 110), rows[:10], columns={"owner": ["nobody"] * 10})
        with pytest.raises(errors.Conflict, match="duplicate key"):
            table.add([200, 5], rows[:2])
        assert table.count() == 25

        def interrupted() -> Iterator[Any]:
            yield from enumerate(rows[:15], 300)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt, match="15 rows"):
            table.load(interrupted(), batch_size=5)
        assert table.load(enumerate(rows, 300), batch_size=5).skipped == 15
        assert table.count() == 55
    with connected(pg_database.superuser_url) as admin:
        assert admin.execute("select count(*) from docs").fetchone() == (55,)
        assert admin.execute(
            "select count(*) from pg_class where relname like 'funnelvec_rows%'"
        ).fetchone() == (0,)


def test_who_may_only_insert_can_load(owner_conn: Connection, pg_database: Database) -> None:
    owner_conn.execute("create table docs (id bigint primary key, v vector(3))")
    owner_conn.execute(f"grant insert on docs to {OTHER}")  # type: ignore[arg-type]
    rows = vectors(30, dims=3)
    with fv.connect(pg_database.other_url) as engine:
        table = engine.table("docs")
        table.add(range(10), rows[:10])
        with pytest.raises(KeyboardInterrupt):
            table.load(stopped(list(enumerate(rows, 100))), batch_size=10)
        assert table.load(enumerate(rows, 100), batch_size=10).skipped == 30
        with pytest.raises(errors.EngineError, match="permission denied"):
            table.upsert([1], rows[:1])
    assert owner_conn.execute("select count(*) from docs").fetchone() == (40,)


def test_nobody_can_change_how_far_anothers_load_is(
    owner_conn: Connection, pg_database: Database
) -> None:
    owner_conn.execute("create table docs (id bigint primary key, v vector(3))")
    owner_conn.execute(f"grant select, insert on docs to {OTHER}")  # type: ignore[arg-type]
    with fv.connect(pg_database.owner_url) as engine, pytest.raises(KeyboardInterrupt):
        engine.table("docs").load(
            stopped(list(enumerate(vectors(9, dims=3)))), batch_size=3, resume="mine"
        )
    with connected(pg_database.other_url) as other:
        assert other.execute("select * from funnelvec.loads").fetchall() == []
        assert other.execute("update funnelvec.loads set rows = 99").rowcount == 0
        assert other.execute("delete from funnelvec.loads").rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute(
                "insert into funnelvec.loads (table_name, column_name, loader, name, source, rows, keys_crc)"
                " values ('docs', 'v', (select tableowner from pg_tables where tablename = 'docs'), 'x', '{}', 5, 5)"
            )
    # A load of the same name by another role is another load.
    with (
        fv.connect(pg_database.other_url) as engine,
        pytest.raises(errors.Conflict, match="already exists"),
    ):
        engine.table("docs").load(enumerate(vectors(9, dims=3)), resume="mine")
    row = owner_conn.execute("select rows, name, finished_at from funnelvec.loads").fetchone()
    assert row == (9, "mine", None)
    owner_conn.execute("drop table docs")
    with connected(pg_database.other_url) as other:
        assert other.execute("delete from funnelvec.loads").rowcount <= 1  # gone with its table


# -- transactions and other sessions -----------------------------------------------------------------


def test_a_load_in_a_transaction_of_the_application(owner_url: str) -> None:
    with psycopg.connect(owner_url) as connection:
        engine: Any = fv.wrap(connection)
        table = engine.create("docs", dims=3)
        connection.commit()
        rows = list(enumerate(vectors(10, dims=3)))
        assert table.load(iter(rows), batch_size=3).batches == 4
        assert table.upsert([0, 50], vectors(2, dims=3)).updated == 1
        assert table.upsert([0, 50], vectors(2, dims=3)).updated == 2
        connection.rollback()
        assert table.count() == 0
        assert connection.execute("select count(*) from funnelvec.loads").fetchone() == (0,)
        assert table.load(iter(rows), batch_size=3).rows == 10
        connection.commit()
    with fv.connect(owner_url) as again:
        assert len(again.table("docs")) == 10


def test_two_sessions_do_not_go_on_with_one_load(engine: Any, owner_url: str) -> None:
    docs = engine.create("docs", dims=3)
    rows = list(enumerate(vectors(40, dims=3)))

    def crossed() -> Iterator[Any]:
        for number, row in enumerate(rows):
            if number == 25:
                with fv.connect(owner_url) as other:
                    assert (
                        other.table("docs").load(iter(rows), batch_size=10, upsert=True).skipped
                        == 20
                    )
            yield row

    with pytest.raises(errors.Conflict, match="another session"):
        docs.load(crossed(), batch_size=10, upsert=True)
    assert docs.count() == 40


def test_rows_that_were_removed_meanwhile_are_noticed(engine: Any) -> None:
    docs = engine.create("docs", dims=3, id_kind="number")
    with engine.connection() as connection:
        connection.execute("alter table docs alter id type real")
    rows = [(i + 0.1, v) for i, v in enumerate(vectors(30, dims=3))]
    with pytest.raises(KeyboardInterrupt):
        docs.load(stopped(rows[:20]), batch_size=10)
    with engine.connection() as connection:
        connection.execute("truncate docs")
    with pytest.raises(errors.Conflict, match=r"20 rows, but the first or last .* resume=False"):
        docs.load(iter(rows))
    assert docs.load(iter(rows), resume=False).rows == 30
    with pytest.raises(KeyboardInterrupt):
        docs.load(stopped([(i + 100, v) for i, v in rows[:20]]), batch_size=10)
    assert docs.load(((i + 100, v) for i, v in rows), batch_size=10).skipped == 20


def test_finished_loads_are_forgotten_after_a_while(engine: Any) -> None:
    docs = engine.create("docs", dims=3)
    docs.load([(1, [1, 2, 3])])
    docs.load([(2, [1, 2, 3])], resume="kept")
    with engine.connection() as connection:
        connection.execute(
            "update funnelvec.loads set finished_at = now() - interval '31 days' where name <> 'kept'"
        )
    docs.load([(3, [1, 2, 3])], resume="third")
    with engine.connection() as connection:
        found = connection.execute("select name from funnelvec.loads order by name").fetchall()
    assert found == [("kept",), ("third",)]


def test_a_database_with_an_older_funnelvec_says_so(engine: Any, superuser_url: str) -> None:
    docs = engine.create("docs", dims=3)
    with connected(superuser_url) as admin:
        extension = admin.execute("select from pg_extension where extname = 'funnelvec'").fetchone()
        if extension is not None:
            admin.execute("alter extension funnelvec drop table funnelvec.loads")
        admin.execute("drop table funnelvec.loads")
    with pytest.raises(errors.VersionMismatch, match="funnelvec install"):
        docs.load([(1, [1, 2, 3])])
    assert docs.add([1], [[1, 2, 3]]) == 1


# -- larger than memory ------------------------------------------------------------------------------


def test_memory_stays_bounded(engine: Any, tmp_path: Path) -> None:
    """A file of one row group is read in pieces: what Arrow holds is far below its size."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    n, dims = 40_000, 512
    table = engine.create("docs", dims=dims)
    flat = pa.array(vectors(n, dims=dims).reshape(-1))
    rows = pa.table({"id": range(n), "embedding": pa.FixedSizeListArray.from_arrays(flat, dims)})
    size = rows.nbytes
    pq.write_table(rows, tmp_path / "rows.parquet", row_group_size=n)
    del flat, rows
    held = []
    before = pa.total_allocated_bytes()
    table.load(
        tmp_path / "rows.parquet", batch_size=1000, dry_run=True,
        progress=lambda done, total: held.append(pa.total_allocated_bytes() - before),
    )  # fmt: skip
    assert max(held) < size / 3
