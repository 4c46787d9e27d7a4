"""The index of a column over a table that must not stop: built concurrently, leaf by leaf, and resumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests import databases
from tests.sql.side import DIMS, SHAPES, finish, insert, make, one, run
from tests.sql.tables import text, vectors

if TYPE_CHECKING:
    from tests.databases import Database

    Connection = psycopg.Connection[Any]

QUERY = text(vectors(1, seed=77, dims=DIMS)[0])
PLAIN = SHAPES["bigint"]


@dataclass(frozen=True)
class Tree:
    """A partitioned table `items` (id, emb, note) and the statements that make its partitions."""

    by: str
    parts: tuple[str, ...]
    leaves: int


TREES = {
    "list": Tree(
        "list (id)",
        tuple(
            f"create table items_{i} partition of items for values in"
            f" ({', '.join(map(str, range(i * 100, i * 100 + 100)))})"
            for i in range(2)
        ),
        2,
    ),
    "range": Tree(
        "range (id)",
        (
            "create table items_a partition of items for values from (0) to (90)",
            "create table items_b partition of items for values from (90) to (1000)",
        ),
        2,
    ),
    "hash": Tree(
        "hash (id)",
        tuple(
            f"create table items_{i} partition of items for values with (modulus 3, remainder {i})"
            for i in range(3)
        ),
        3,
    ),
    "partitions of partitions": Tree(
        "range (id)",
        (
            "create table items_a partition of items for values from (0) to (90)"
            " partition by hash (id)",
            "create table items_a0 partition of items_a for values with (modulus 2, remainder 0)",
            "create table items_a1 partition of items_a for values with (modulus 2, remainder 1)",
            "create table items_b partition of items for values from (90) to (1000)",
            'create table "Items ""c"" 1" partition of items default',
        ),
        4,
    ),
}


def plant(connection: Connection, tree: Tree, rows: int = 150) -> None:
    run(
        connection,
        f"create table items (id bigint primary key, emb vector({DIMS}), note text)"
        f" partition by {tree.by}",
    )
    for part in tree.parts:
        run(connection, part)
    insert(connection, PLAIN, 0, rows)


def add(connection: Connection, resolution: str = "8:f16", **named: str) -> str:
    options = "".join(f", {name} => {value}" for name, value in named.items())
    return str(
        one(connection, f"select funnelvec.add_resolution('items', 'emb', %s{options})", resolution)
    )


def funnels(connection: Connection, first: str = "8:f16@60") -> None:
    run(
        connection,
        "select funnelvec.create_funnel('f', 'items', 'emb', %s, approximate => true)",
        f"{first} > {DIMS}:f32" if "@" in first else first,
    )


def access(connection: Connection) -> str:
    return str(
        one(connection, "select access from funnelvec.explain('f', %s) where stage = 1", QUERY)
    )


def answer(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute("select * from f(%s)", (QUERY,)).fetchall()


def broken(connection: Connection) -> int:
    return int(
        one(
            connection,
            "select count(*) from pg_index as i join pg_class as c on c.oid = i.indrelid"
            " where c.relname ilike 'items%%' and not i.indisvalid",
        )
    )


def verbs(steps: list[str]) -> list[str]:
    return [" ".join(step.split()[:3]) for step in steps]


BUILD, DROP, SWITCH = "create index concurrently", "drop index concurrently", "select funnelvec."


def test_a_column_that_is_there(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    add(owner_conn)
    funnels(owner_conn)
    before = answer(owner_conn)
    said: list[str] = []
    owner_conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    add(owner_conn, index="true", concurrently="true", m="7", ef_construction="30")
    assert any("next: create index concurrently" in message for message in said), said
    assert access(owner_conn) == "scan"
    assert answer(owner_conn) == before
    assert "not built yet; next: create" in one(
        owner_conn, "select advice from funnelvec.status('items')"
    )
    steps = finish(owner_conn, "items")
    assert len(steps) == 2 and "(m = 7, ef_construction = 30)" in steps[0]
    assert [step.split("(")[0].rpartition(".")[2] for step in steps[1:]] == ["activate"]
    assert access(owner_conn).startswith("index")
    assert answer(owner_conn) == before
    assert one(owner_conn, "select index_name from funnelvec.resolutions") is not None
    assert "next" not in one(owner_conn, "select advice from funnelvec.status('items')")
    # There already: nothing is left to do, and nothing is built a second time.
    add(owner_conn, index="true", concurrently="true")
    add(owner_conn, index="true")
    assert finish(owner_conn, "items") == []
    assert one(owner_conn, "select count(*) from pg_indexes where tablename = 'items'") == 2


def test_the_vector_column_itself(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    add(owner_conn, f"{DIMS}:f32", index="true", concurrently="true")
    funnels(owner_conn, f"{DIMS}:f32")
    assert verbs(finish(owner_conn, "items"))[0] == BUILD
    assert access(owner_conn).startswith("index")
    run(owner_conn, "select funnelvec.drop_funnel('f')")
    run(owner_conn, "select funnelvec.drop_resolution('items', 'emb', %s)", f"{DIMS}:f32")
    assert one(owner_conn, "select count(*) from pg_indexes where tablename = 'items'") == 1


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_partitions(owner_conn: Connection, tree: Tree) -> None:
    plant(owner_conn, tree)
    add(owner_conn)
    funnels(owner_conn)
    before = answer(owner_conn)
    add(owner_conn, index="true", concurrently="true")
    steps: list[str] = []
    while step := one(owner_conn, "select funnelvec.next_step('items')"):
        assert access(owner_conn) == "scan"
        assert answer(owner_conn) == before
        run(owner_conn, step.replace("%", "%%"))
        steps.append(step)
    assert verbs(steps[:-1]) == [BUILD] * tree.leaves
    assert steps[-1].startswith("select funnelvec.activate")
    assert access(owner_conn).startswith("index")
    assert answer(owner_conn) == before
    assert broken(owner_conn) == 0
    # One index over all, with each leaf's in its place: nothing was built twice.
    assert (
        one(
            owner_conn,
            "select count(*) from pg_class where relkind = 'i' and relispartition"
            " and relam = (select oid from pg_am where amname = 'hnsw')",
        )
        == tree.leaves
    )
    run(owner_conn, "select funnelvec.drop_funnel('f')")
    run(owner_conn, "select funnelvec.drop_resolution('items', 'emb', '8:f16')")
    assert one(owner_conn, "select count(*) from pg_indexes where indexdef like '%%hnsw%%'") == 0


def test_a_partition_that_comes_in_between_is_built_too(owner_conn: Connection) -> None:
    plant(owner_conn, TREES["range"])
    add(owner_conn, index="true", concurrently="true")
    run(owner_conn, str(one(owner_conn, "select funnelvec.next_step('items')")))
    run(owner_conn, str(one(owner_conn, "select funnelvec.next_step('items')")))
    last = str(one(owner_conn, "select funnelvec.next_step('items')"))
    assert "activate" in last
    run(owner_conn, "create table items_z partition of items for values from (1000) to (2000)")
    run(owner_conn, "insert into items values (1500, %s)", QUERY)
    with pytest.raises(psycopg.Error, match="not built") as caught:
        run(owner_conn, last)
    assert caught.value.sqlstate == "FV008"
    assert "items_z" in (caught.value.diag.message_hint or "")
    assert verbs(finish(owner_conn, "items"))[0] == BUILD
    funnels(owner_conn)
    assert access(owner_conn).startswith("index")


def interrupted(connection: Connection, database: Database, step: str, leaf: str) -> None:
    """Run a step until it waits for an older snapshot, and stop it there."""
    with (
        psycopg.connect(database.owner_url) as holder,
        psycopg.connect(database.owner_url, autocommit=True) as builder,
    ):
        run(holder, f"insert into {leaf} select 500 + max(id) from {leaf}")
        builder.execute("set statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            builder.execute(step.encode())
        holder.rollback()
    assert broken(connection) == 1


@pytest.mark.parametrize("leaf", ["items", "items_b"])
def test_a_broken_index_is_dropped_first(
    owner_conn: Connection, pg_database: Database, leaf: str
) -> None:
    if leaf == "items":
        make(owner_conn, PLAIN)
    else:
        plant(owner_conn, TREES["range"])
    add(owner_conn)
    funnels(owner_conn)
    before = answer(owner_conn)
    add(owner_conn, index="true", concurrently="true")
    if leaf != "items":
        run(owner_conn, str(one(owner_conn, "select funnelvec.next_step('items')")))
    step = str(one(owner_conn, "select funnelvec.next_step('items')"))
    assert f"on public.{leaf} " in step
    interrupted(owner_conn, pg_database, step, leaf)
    assert answer(owner_conn) == before
    with pytest.raises(psycopg.Error, match="not built"):
        run(owner_conn, "select funnelvec.activate('items', 'emb', '8:f16')")
    steps = finish(owner_conn, "items")
    assert verbs(steps)[:2] == [DROP, BUILD]
    assert broken(owner_conn) == 0
    assert access(owner_conn).startswith("index")
    assert answer(owner_conn) == before


def test_while_somebody_builds_it_others_are_told_to_wait(
    owner_conn: Connection, pg_database: Database
) -> None:
    """The step says so; status, add_resolution and the other resolution of the table go on."""
    make(owner_conn, PLAIN)
    add(owner_conn, index="true", storage="'side'")
    run(owner_conn, "call funnelvec.backfill('items')")
    step = str(one(owner_conn, "select funnelvec.next_step('items')"))
    interrupted_side(owner_conn, pg_database, step)
    with psycopg.connect(pg_database.owner_url) as builder:
        builder.execute("lock table items_emb_8_f16 in share update exclusive mode")
        with pytest.raises(psycopg.Error, match="perhaps building") as caught:
            one(owner_conn, "select funnelvec.next_step('items')")
        assert caught.value.sqlstate == "FV008"
        assert "perhaps building" in one(owner_conn, "select advice from funnelvec.status('items')")
        run(owner_conn, "call funnelvec.backfill('items')")
        with pytest.raises(psycopg.Error, match="not built"):
            run(owner_conn, "select funnelvec.activate('items', 'emb', '8:f16')")
        run(
            owner_conn,
            "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@50 > 16:f32')",
        )
        assert len(answer(owner_conn)) == 10
        add(owner_conn, "16:bit", storage="'side'")
        assert one(owner_conn, "select funnelvec.next_step('items')").startswith("call")
    finish(owner_conn, "items")
    assert access(owner_conn).startswith("index")


def interrupted_side(connection: Connection, database: Database, step: str) -> None:
    with (
        psycopg.connect(database.owner_url) as holder,
        psycopg.connect(database.owner_url, autocommit=True) as builder,
    ):
        run(holder, "insert into items values (7000, %s)", QUERY)
        builder.execute("set statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            builder.execute(step.encode())
        holder.rollback()
    assert broken(connection) == 1


def test_a_large_table_is_not_locked_by_surprise(
    owner_conn: Connection, superuser_url: str
) -> None:
    make(owner_conn, PLAIN)
    add(owner_conn)
    with databases.connected(superuser_url) as admin:
        # Large by what the planner believes.
        admin.execute("update pg_class set reltuples = 1000000 where relname = 'items'")
    with pytest.raises(psycopg.Error, match="stops everybody from writing") as caught:
        add(owner_conn, index="true")
    assert caught.value.sqlstate == "FV008"
    assert "concurrently => true" in (caught.value.diag.message_hint or "")
    assert finish(owner_conn, "items") == []
    add(owner_conn, index="true", concurrently="true")
    assert verbs(finish(owner_conn, "items"))[0] == BUILD
    add(owner_conn, index="true")  # it is there


def test_allow_rewrite_builds_at_once_and_what_was_left_is_done_with(
    owner_conn: Connection, superuser_url: str
) -> None:
    make(owner_conn, PLAIN)
    add(owner_conn, index="true", concurrently="true")
    with databases.connected(superuser_url) as admin:
        admin.execute("update pg_class set reltuples = 1000000 where relname = 'items'")
    add(owner_conn, index="true", allow_rewrite="true")
    assert one(owner_conn, "select funnelvec.next_step('items')") is None


def test_what_was_left_goes_along_into_a_side_table(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    add(owner_conn, index="true", concurrently="true", m="9")
    add(owner_conn, storage="'side'")
    steps = finish(owner_conn, "items")
    assert any(
        "on public.items_emb_8_f16 using hnsw" in step and "m = 9" in step for step in steps
    ), steps
    funnels(owner_conn)
    assert access(owner_conn).startswith("index")
    with pytest.raises(psycopg.Error, match="index along at once"):
        add(owner_conn, storage="'column'", index="true", concurrently="true")
    add(owner_conn, storage="'column'", index="true")
    finish(owner_conn, "items")
    assert access(owner_conn).startswith("index")


def test_a_column_that_is_dropped_meanwhile_leaves_no_step(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    add(owner_conn, index="true", concurrently="true")
    run(owner_conn, "alter table items drop column emb_8_f16")
    assert one(owner_conn, "select funnelvec.next_step('items')") is None
    assert "gone" in one(owner_conn, "select advice from funnelvec.status('items')")


def test_a_name_that_is_taken(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    run(owner_conn, "create table items_emb_8_f16_idx (x int)")
    run(owner_conn, "create table items_emb_8_f16_idx1 (x int)")
    add(owner_conn, index="true", concurrently="true")
    steps = finish(owner_conn, "items")
    assert "items_emb_8_f16_idx2 on public.items " in steps[0] and len(steps) == 2


def test_activate_without_anything_left(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    add(owner_conn, index="true")
    with pytest.raises(psycopg.Error, match="no side table") as caught:
        run(owner_conn, "select funnelvec.activate('items', 'emb', '8:f16')")
    assert caught.value.sqlstate == "FV005"
