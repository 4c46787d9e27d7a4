"""status: sizes, and advice whose statements can be run as they stand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from funnelvec import cli
from tests import awaited, databases
from tests.sql.tables import fill, text, vectors

if TYPE_CHECKING:
    from tests.databases import Database, Server

    Connection = psycopg.Connection[Any]

ROWS = 12_000


def status(connection: Connection, resolution: str = "16:f16") -> dict[str, Any]:
    cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
    cursor.execute(
        "select * from funnelvec.status('products') where resolution = %s", (resolution,)
    )
    (row,) = cursor.fetchall()
    return row


def advice(connection: Connection, word: str, resolution: str = "16:f16") -> str:
    lines = [line for line in status(connection, resolution)["advice"].splitlines() if word in line]
    return lines[0] if lines else ""


def flush(connection: Connection) -> None:
    """Hand the counters of this session in, which it otherwise does once a second."""
    connection.execute("select pg_stat_force_next_flush()")


def heed(connection: Connection, line: str, *, after: str = ": ") -> None:
    """Run the statement that a line of advice ends in."""
    connection.execute(line.rpartition(after)[2])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shop_template(pg_server: Server) -> Iterator[Database]:
    """What every test starts from: the index takes seconds to build, a copy of it does not."""
    with databases.copied(pg_server, pg_server.template("funnelvec")) as database:
        with databases.connected(database.owner_url) as owner:
            fill(owner, vectors(ROWS))
            owner.execute(
                "select funnelvec.add_resolution('products', 'embedding', '16:f16', index => true,"
                " ef_construction => 32)"
            )
        yield database


@pytest.fixture
def shop_database(pg_server: Server, shop_template: Database) -> Iterator[Database]:
    with databases.copied(pg_server, shop_template.name) as database:
        yield database


@pytest.fixture
def shop(shop_database: Database) -> Iterator[Connection]:
    with databases.connected(shop_database.owner_url) as connection:
        connection.execute("vacuum analyze products")
        flush(connection)
        yield connection


def test_all_is_well(shop: Connection) -> None:
    row = status(shop)
    assert row["advice"] == ""
    assert (row["storage"], row["toasted"], row["dead_share"], row["changed"]) == (
        "column",
        0,
        0,
        0,
    )
    assert row["code_bytes"] == ROWS * (8 + 2 * 16 - 3)
    assert 0.9 < row["index_growth"] < 1.1
    assert row["vacuumed_at"] is not None and row["analyzed_at"] is not None
    assert (row["hot_share"], row["fillfactor"]) == (None, 100)


@pytest.mark.parametrize(
    ("resolution", "m"),
    [("16:f16", 16), ("32:bit", 16), ("32:f32", 16), ("32:bit", 40), ("8:f16", 5)],
)
def test_the_size_of_a_new_index_is_known(owner_conn: Connection, resolution: str, m: int) -> None:
    fill(owner_conn, vectors(3000))
    owner_conn.execute(
        "select funnelvec.add_resolution('products', 'embedding', %s, index => true, m => %s,"
        " ef_construction => 80)",
        (resolution, m),
    )
    assert 0.93 < status(owner_conn, resolution)["index_growth"] < 1.07


def test_deleted_rows(shop: Connection) -> None:
    shop.execute("delete from products where id % 3 > 0")
    flush(shop)
    row = status(shop)
    assert row["dead_share"] == pytest.approx(2 / 3, abs=0.01)
    assert row["changed"] == ROWS * 2 // 3
    vacuum = advice(shop, "dead")
    # The row count that the planner believes in is from before.
    assert vacuum.startswith("67 % of the row versions")
    heed(shop, vacuum)
    flush(shop)
    shop.execute("insert into products select 1000000 + i, null from generate_series(1, 7000) as i")
    shop.execute("analyze products")
    flush(shop)
    row = status(shop)
    assert row["dead_share"] == 0
    assert "7000 rows have no code" in row["advice"]
    assert row["index_growth"] > 2.5
    assert status(shop)["index_bytes"] > 2_500_000
    heed(shop, advice(shop, "reindex"))
    row = status(shop)
    assert row["index_growth"] < 1.1 and "reindex" not in row["advice"]


@pytest.fixture
def stall(owner_conn: Connection) -> Connection:
    """A table a quarter as large, for advice that does not wait for many rows."""
    fill(owner_conn, vectors(3000))
    owner_conn.execute(
        "select funnelvec.add_resolution('products', 'embedding', '16:f16', index => true,"
        " m => 8, ef_construction => 16)"
    )
    owner_conn.execute("vacuum analyze products")
    flush(owner_conn)
    return owner_conn


def test_updates_that_have_no_room(stall: Connection) -> None:
    shop = stall
    for _ in range(2):
        shop.execute("update products set price = price + 1 where id < 1000")
    flush(shop)
    row = status(shop)
    assert row["hot_share"] < 0.5
    line = advice(shop, "HOT")
    statement = line.partition(". Leave room on the pages: ")[2].partition(";")[0]
    shop.execute(statement)  # type: ignore[arg-type]
    assert status(shop)["fillfactor"] < 100
    assert advice(shop, "HOT") == ""
    shop.execute("vacuum full products")
    before = shop.execute(
        "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'products'"
    ).fetchone()
    for start in (0, 1000):  # a page has room for one of two such updates at a time
        shop.execute(
            "update products set price = price + 1 where id %% 10 = 0 and id >= %s", (start,)
        )
    flush(shop)
    after = shop.execute(
        "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'products'"
    ).fetchone()
    assert before is not None and after is not None
    assert (after[1] - before[1]) / (after[0] - before[0]) > 0.9  # what the advice promises


@pytest.mark.pg(16)
def test_room_is_not_advised_where_it_would_not_help(stall: Connection) -> None:
    shop = stall
    # The codes have an index and change with their vector, so no such update can be HOT, whatever
    # the room: of two rows one has gone.
    shop.execute("delete from products where id % 2 = 1")
    shop.execute("vacuum products")
    with shop.cursor() as cursor:
        cursor.executemany(
            "update products set embedding = %s where id = %s",
            [(text(row), 2 * i) for i, row in enumerate(vectors(1100, seed=1))],
        )
    flush(shop)
    row = status(shop)
    assert row["hot_share"] == 0 and row["fillfactor"] == 100
    assert advice(shop, "HOT") == ""


def test_partitions_get_room_one_by_one(owner_conn: Connection) -> None:
    owner_conn.execute(
        """
        create table products (id bigint primary key, price int, embedding vector(200)) partition by hash (id);
        create table p0 partition of products for values with (modulus 5, remainder 0) with (fillfactor = 50);
        create table p1 partition of products for values with (modulus 5, remainder 1);
        create table p2 partition of products for values with (modulus 5, remainder 2);
        create table p3 partition of products for values with (modulus 5, remainder 3);
        create table p4 partition of products for values with (modulus 5, remainder 4);
        insert into products
        select i, 1, (select array_agg(sin(i * j)) from generate_series(1, 200) as j)::vector from generate_series(1, 2000) as i;
        select funnelvec.add_resolution('products', 'embedding', '64:f16');
        """
    )
    owner_conn.execute("analyze products")
    owner_conn.execute("update products set price = 2")
    flush(owner_conn)
    line = advice(owner_conn, "HOT", "64:f16")
    assert "and so for 1 more partitions" in line
    said = 0
    while line := advice(owner_conn, "HOT", "64:f16"):
        for statement in line.partition("pages: ")[2].split(";"):
            if statement.strip().startswith("alter table"):
                owner_conn.execute(statement)  # type: ignore[arg-type]
                said += 1
    assert said == 4


def test_old_statistics(shop: Connection) -> None:
    # Every row enters the index again, which would be nearly all of the test and is not what it is about.
    shop.execute("drop index products_embedding_16_f16_idx")
    shop.execute("update products set name = name || '!'")
    shop.execute("vacuum products")
    flush(shop)
    line = advice(shop, "analyze")
    assert line.startswith(f"{ROWS} rows of ")
    heed(shop, line)
    flush(shop)
    assert advice(shop, "analyze") == ""


def test_an_index_larger_than_memory(shop: Connection) -> None:
    shop.execute("set effective_cache_size = '1MB'")
    assert "does not fit into effective_cache_size (1MB)" in advice(shop, "effective_cache_size")


def test_an_interrupted_index_and_a_missing_one(shop: Connection, shop_database: Database) -> None:
    superuser_url = shop_database.superuser_url
    shop.execute(
        "select funnelvec.create_funnel('f', 'products', 'embedding', '16:f16@50 > 32:f32')"
    )
    with psycopg.connect(superuser_url, autocommit=True) as admin:
        admin.execute(
            "update pg_index set indisvalid = false where indexrelid = 'products_embedding_16_f16_idx'::regclass"
        )
    row = status(shop)
    assert row["index_name"] is None
    broken, missing = row["advice"].splitlines()[:2]
    assert broken.startswith("the index public.products_embedding_16_f16_idx is not valid")
    assert missing.startswith("f starts here and has no index")
    heed(shop, broken)
    heed(shop, missing)
    for verb in ("create index concurrently", "select funnelvec.activate"):
        advice = status(shop)["advice"].splitlines()
        assert len(advice) == 1 and f"is not built yet; next: {verb}" in advice[0]
        heed(shop, advice[0])
    assert status(shop)["advice"] == ""
    assert status(shop)["index_name"] is not None


def test_codes_out_of_line(owner_conn: Connection) -> None:
    fill(owner_conn, vectors(400, dims=600))
    owner_conn.execute("select funnelvec.add_resolution('products', 'embedding', '550:f32')")
    owner_conn.execute("analyze products")
    row = status(owner_conn, "550:f32")
    assert (row["toasted"], row["advice"]) == (0, "")
    owner_conn.execute("alter table products alter embedding_550_f32 set storage external")
    owner_conn.execute("update products set embedding = embedding where id < 100")
    owner_conn.execute("vacuum analyze products")
    row = status(owner_conn, "550:f32")
    assert row["toasted"] == pytest.approx(0.25, abs=0.01)
    statement = row["advice"].partition("TOAST table: ")[2].partition(";")[0]
    owner_conn.execute(statement)  # type: ignore[arg-type]
    owner_conn.execute("vacuum full analyze products")
    owner_conn.execute("update products set embedding = embedding")
    owner_conn.execute("vacuum full analyze products")
    assert status(owner_conn, "550:f32")["toasted"] == 0


def test_a_large_table_is_sampled(shop: Connection, shop_database: Database) -> None:
    superuser_url = shop_database.superuser_url
    """It is large by what the planner believes; of its pages few are read, and the rest is scaled up."""
    shop.execute("update products set embedding = null where id % 4 = 0")
    shop.execute("vacuum full analyze products")
    with psycopg.connect(superuser_url, autocommit=True) as admin:
        admin.execute("update pg_class set reltuples = 1000000 where relname = 'products'")
    row = status(shop)
    assert row["rows"] == 1_000_000
    assert 0.5 < row["coverage"] < 1
    assert row["code_bytes"] == pytest.approx(row["filled"] * 37, rel=0.01)
    plan = shop.execute(
        "explain (analyze, buffers, format json) select * from funnelvec._coverage("
        "(select r from funnelvec.resolutions as r))"
    ).fetchone()
    assert plan is not None
    pages = shop.execute("select relpages from pg_class where relname = 'products'").fetchone()
    assert pages is not None
    blocks = plan[0][0]["Plan"]["Shared Hit Blocks"] + plan[0][0]["Plan"]["Shared Read Blocks"]
    assert blocks < pages[0] / 2


def test_partitions(owner_conn: Connection) -> None:
    owner_conn.execute(
        """
        create table products (id bigint primary key, embedding vector(8)) partition by hash (id);
        create table p0 partition of products for values with (modulus 2, remainder 0) with (fillfactor = 70);
        create table p1 partition of products for values with (modulus 2, remainder 1);
        insert into products
        select i, (select array_agg(sin(i * j)) from generate_series(1, 8) as j)::vector from generate_series(1, 12000) as i;
        select funnelvec.add_resolution('products', 'embedding', '4:f16', index => true);
        vacuum products;
        """.replace("vacuum products;", "")
    )
    owner_conn.execute("vacuum analyze products")
    owner_conn.execute("delete from products where id % 4 = 0")
    flush(owner_conn)
    row = status(owner_conn, "4:f16")
    assert (row["rows"], row["fillfactor"]) == (9000, 70)
    assert row["dead_share"] == 0.25
    assert row["vacuumed_at"] is not None
    assert 1.2 < row["index_growth"] < 1.5


def test_python_and_the_command_line_say_the_same(
    shop: Connection, shop_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    owner_url = shop_database.owner_url
    shop.execute("delete from products where id % 2 = 0")
    flush(shop)
    row = status(shop)
    for how in ("sync", "async"):
        with awaited.opened(owner_url, how) as engine:
            (found,) = engine.table("products").status()
        for name in ("storage", "code_bytes", "toasted", "index_growth", "dead_share", "changed",
                     "vacuumed_at", "analyzed_at", "hot_share", "fillfactor", "advice"):  # fmt: skip
            assert getattr(found, name) == row[name], name
    assert cli.main(["status", owner_url, "products"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.partition("products.embedding 16:f16: ")[0].splitlines())) <= 100
    assert shown.count("vacuum ") == 1
    assert cli.main(["status", owner_url, "--json"]) == 0
    (resolution,) = json.loads(capsys.readouterr().out)["resolutions"]
    assert resolution["dead_share"] == 0.5 and resolution["vacuumed_at"].startswith("20")
