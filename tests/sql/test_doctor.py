"""Samples of tables, and the doctor that examines them, on a real database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

import funnelvec as fv
from funnelvec import cli
from funnelvec.doctor.examine import STEPS
from funnelvec.errors import InvalidInput, Unreachable
from tests import awaited, databases
from tests.sql.tables import vectors

if TYPE_CHECKING:
    from tests.databases import Database

    Connection = psycopg.Connection[Any]


@pytest.fixture(params=["sync", "async"])
def engine(request: pytest.FixtureRequest, owner_url: str) -> Iterator[Any]:
    with awaited.opened(owner_url, request.param) as opened:
        yield opened


def paged(connection: Connection, rows: int, *, table: str = "paged", per_page: int = 3) -> None:
    """A table of many pages: rows of one page share the number of their page."""
    padding = 8000 // per_page - 200
    connection.execute(
        f"create table {table} (id bigint primary key, page integer, padding text, embedding vector(4))"
    )
    connection.execute(f"alter table {table} alter padding set storage plain")
    connection.execute(
        f"insert into {table} select i, i / {per_page}, repeat('x', {padding}),"
        f" format('[%s,%s,%s,%s]', i, i * i % 97, i % 7, 1)::vector from generate_series(0, {rows} - 1) as i"
    )


def test_a_sample_is_rows_of_the_table_once_each(engine: Any) -> None:
    matrix = vectors(400)
    table = engine.create("docs", dims=32)
    table.add(range(400), matrix)
    drawn = table.sample(150, seed=3)
    assert len(set(drawn.ids)) == 150
    assert (drawn.rows, drawn.exact) == (400, True)
    assert drawn.vectors.dtype == np.float32
    assert np.array_equal(drawn.vectors, matrix[list(drawn.ids)])
    assert table.sample(150, seed=3).ids == drawn.ids != table.sample(150, seed=4).ids
    assert sorted(table.sample(10_000).ids) == list(range(400))
    assert list(table.sample(10_000).ids) != list(range(400))  # in random order


def test_every_row_is_drawn_as_often_as_any_other(engine: Any) -> None:
    table = engine.create("docs", dims=4)
    table.add(range(60), vectors(60, dims=4))
    counts = Counter(id for seed in range(200) for id in table.sample(15, seed=seed).ids)
    assert set(counts) == set(range(60))
    # 200 draws of a quarter: 50 each, with a standard deviation of 6.
    assert all(50 - 30 < count < 50 + 30 for count in counts.values())


def test_a_sample_of_a_large_table_reads_some_of_its_pages(
    engine: Any, owner_conn: Connection
) -> None:
    paged(owner_conn, 3000)
    table = engine.table("paged")
    drawn = table.sample(20, seed=1)
    assert len(set(drawn.ids)) == 20 and not drawn.exact
    assert 1500 < drawn.rows < 4500  # carried over from the pages that were read
    assert len({id // 3 for id in drawn.ids}) > 12  # four pages are read for each row
    spread = [id for seed in range(25) for id in table.sample(20, seed=seed).ids]
    assert np.mean(spread) == pytest.approx(1500, abs=200)


def test_the_whole_of_a_large_table_is_not_read(owner_conn: Connection, owner_url: str) -> None:
    paged(owner_conn, 3000)
    with psycopg.connect(owner_url, autocommit=True) as connection:
        engine = fv.wrap(connection)
        table = engine.table("paged")
        pages = "select heap_blks_hit + heap_blks_read from pg_statio_user_tables where relname = 'paged'"
        touched = []
        for _ in range(2):
            connection.execute("select pg_stat_force_next_flush()")
            touched.append(connection.execute(pages).fetchone()[0])  # type: ignore[index]
            if len(touched) == 1:
                table.sample(20, seed=1)
        assert 0 < touched[1] - touched[0] < 400  # of 1,000: eighty pages, counted and then read


def test_more_is_read_where_few_rows_have_a_vector(engine: Any, owner_conn: Connection) -> None:
    paged(owner_conn, 3000)
    owner_conn.execute("update paged set embedding = null where id % 100 <> 0")
    owner_conn.execute("vacuum full paged")
    drawn = engine.table("paged").sample(20)
    assert len(drawn.ids) == 20 and all(id % 100 == 0 for id in drawn.ids)
    assert (drawn.rows, drawn.exact) == (30, True)


def test_samples_of_empty_tables_and_of_tables_without_vectors(
    engine: Any, owner_conn: Connection
) -> None:
    owner_conn.execute("create table bare (id bigint primary key, embedding vector(3))")
    table = engine.table("bare")
    assert (table.sample().vectors.shape, table.sample().rows) == ((0, 3), 0)
    owner_conn.execute("insert into bare values (1, null), (2, '[1,2,3]')")
    assert table.sample().ids == (2,)
    with pytest.raises(InvalidInput, match="at least two vectors"):
        table.doctor()


def test_keys_of_several_columns_odd_names_and_halfvec(engine: Any, owner_conn: Connection) -> None:
    owner_conn.execute(
        'create table "100% Odd" ("a b" text, "row" date, "v%s" halfvec(3), primary key ("a b", "row"))'
    )
    owner_conn.execute(
        "insert into \"100% Odd\" select 'k' || i, date '2026-01-01' + i, format('[%s,%s,1]', i, i / 3.0)::halfvec"
        " from generate_series(1, 30) as i"
    )
    drawn = engine.table("100% Odd").sample(7)
    assert len(drawn.ids) == 7
    for (name, day), vector in zip(drawn.ids, drawn.vectors, strict=True):
        i = int(name[1:])
        assert day.day == 1 + i if i < 31 else True
        assert vector.tolist() == [i, np.float32(np.float16(i / 3)), 1]


def test_partitioned_tables(engine: Any, owner_conn: Connection) -> None:
    owner_conn.execute(
        "create table split (id bigint primary key, padding text, embedding vector(4)) partition by range (id)"
    )
    for part in range(3):
        owner_conn.execute(
            f"create table split_{part} partition of split for values from ({part * 200}) to ({part * 200 + 200})"
        )
    owner_conn.execute("alter table split alter padding set storage plain")
    owner_conn.execute(
        "insert into split select i, repeat('x', 3000), format('[%s,1,2,%s]', i, i % 5)::vector"
        " from generate_series(0, 599) as i"
    )
    drawn = engine.table("split").sample(90)
    assert (len(set(drawn.ids)), drawn.rows, drawn.exact) == (90, 600, True)
    assert {id // 200 for id in drawn.ids} == {0, 1, 2}
    few = engine.table("split").sample(20)  # of 300 pages
    assert len(set(few.ids)) == 20 and not few.exact and 300 < few.rows < 1000
    assert {id // 200 for id in few.ids} == {0, 1, 2}


def test_row_level_security_decides_what_is_drawn(
    pg_database: Database, owner_conn: Connection
) -> None:
    paged(owner_conn, 3000)
    owner_conn.execute("alter table paged enable row level security")
    owner_conn.execute("create policy few on paged for select using (id % 50 = 7)")
    owner_conn.execute(f"grant select on paged to {databases.OTHER}")
    with fv.connect(pg_database.other_url) as engine:
        table = engine.table("paged")
        drawn = table.sample(40)
        assert len(drawn.ids) == 40 and all(id % 50 == 7 for id in drawn.ids)
        assert (drawn.rows, drawn.exact) == (60, True)
        found = table.doctor(
            sample=60, queries=20
        )  # the owner is no superuser, this role owns nothing
        assert (found.sample, found.rows) == (60, 60)


def test_whoever_may_not_read_may_not_sample(pg_database: Database, owner_conn: Connection) -> None:
    paged(owner_conn, 30)
    with fv.connect(pg_database.other_url) as engine, pytest.raises(fv.FunnelvecError):
        engine.table("paged").sample(5)


def test_the_doctor_examines_a_table_and_writes_nothing(
    engine: Any, owner_conn: Connection
) -> None:
    table = engine.create("docs", dims=32, metric="dot")
    matrix = vectors(500)
    matrix[1] = matrix[0]
    table.add(range(500), matrix)
    with engine.connection() as connection:
        connection.execute("set default_transaction_read_only = on")
    told: list[tuple[int, int]] = []
    found = table.doctor(sample=400, queries=60, progress=lambda *step: told.append(step))
    assert told == [(i, STEPS + 1) for i in range(1, STEPS + 2)]
    assert found.title == "docs.embedding: 32 dimensions, f32, dot"
    assert (found.rows, found.rows_exact, found.sample, found.queries) == (500, True, 400, 60)
    assert found == table.doctor(sample=400, queries=60)
    assert found.measures.prefixes.order == "first"
    with engine.connection() as connection:
        connection.execute("set default_transaction_read_only = off")
    # What it advises can be done as it is written.
    stage = found.measures.stage
    table.add_resolution(stage.resolution, index=True)
    table.create_funnel("docs_search", stage.funnel)
    assert table.measure_recall(sample=50).recall > 0.95


def test_inside_a_transaction_of_the_application(owner_url: str) -> None:
    with psycopg.connect(owner_url) as connection:
        engine = fv.wrap(connection)
        table = engine.create("docs", dims=8)
        table.add(range(50), vectors(50, dims=8))
        assert len(table.sample(20).ids) == 20
        with pytest.raises(InvalidInput):
            table.sample(0)
        assert table.doctor(queries=10).sample == 50
        connection.rollback()


@pytest.fixture
def filled(owner_url: str) -> str:
    with fv.connect(owner_url) as engine:
        engine.create("docs", dims=16).add(range(200), vectors(200, dims=16))
    return owner_url


def test_the_command_prints_text_json_and_a_page(
    filled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "out.html"
    arguments = ["doctor", filled, "docs", "--queries", "50", "--seed", "2"]
    assert cli.main([*arguments, "--report", str(page)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("docs.embedding: 16 dimensions") and f"report: {page}" in text
    assert "Prefix curve" in text and "do: " in text
    assert page.read_text().startswith("<!doctype html>")
    assert cli.main([*arguments, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert (read["table"], read["queries"], read["seed"]) == ("docs", 50, 2)
    assert [finding["topic"] for finding in read["findings"]][:2] == ["norms", "order"]


def test_the_command_fails_in_one_line(
    filled: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for arguments, said in (
        (["nothing"], "'nothing' does not exist"),
        (["docs", "--vector", "nothing"], "nothing"),
        (["docs", "--sample", "1"], "sample must be"),
    ):
        assert cli.main(["doctor", filled, *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("funnelvec: error: ") and said in line


def test_a_server_that_goes_away_is_one_of_our_errors(
    pg_database: Database, owner_conn: Connection
) -> None:
    paged(owner_conn, 30)
    with fv.connect(pg_database.owner_url) as engine:
        table = engine.table("paged")
        with psycopg.connect(pg_database.superuser_url, autocommit=True) as admin:
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
                " and usename = %s and pid <> %s",
                [databases.OWNER, owner_conn.info.backend_pid],
            )
        with pytest.raises((Unreachable, fv.FunnelvecError)):
            table.sample(5)
