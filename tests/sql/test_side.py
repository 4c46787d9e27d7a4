"""Side storage: adoption, triggers, moves, and what a search says meanwhile."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.sql.side import DIMS, SHAPES, adopt, faults, finish, insert, make, one, run
from tests.sql.tables import text, vectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.databases import Database

    Connection = psycopg.Connection[Any]

PLAIN = SHAPES["bigint"]
QUERY = text(vectors(1, seed=77, dims=DIMS)[0])


def search(connection: Connection, function: str = "f", k: int = 10, **named: Any) -> Any:
    extra = "".join(f", {name} => %s" for name in named)
    return connection.execute(
        f"select * from {function}(%s, %s{extra})".encode(), (QUERY, k, *named.values())
    ).fetchall()


def starts_from_an_index(connection: Connection) -> bool:
    """Whether the function of `f` was written for one; of few rows the planner reads all the same."""
    return bool(
        one(connection, "select prosrc ~ 'hnsw.ef_search' from pg_proc where proname = 'f'")
    )


#: Every kind of table with one code, and the usual one with every code.
ADOPTED = [
    (name, code)
    for number, name in enumerate(SHAPES)
    for place, code in enumerate(("8:f16", "16:bit", "8:f32"))
    if name in ("bigint", "composite") or place == number % 3
]


@pytest.mark.parametrize(
    ("shape", "resolution"),
    [(SHAPES[name], code) for name, code in ADOPTED],
    ids=[f"{code}-{name}" for name, code in ADOPTED],
)
def test_every_kind_of_table_is_adopted_and_kept_in_step(
    owner_conn: Connection, shape: Any, resolution: str
) -> None:
    if resolution == "8:f32" and shape.vector == "halfvec":
        resolution = "16:bit"  # a halfvec column has no digits for f32
    make(owner_conn, shape)
    side = adopt(owner_conn, shape.name, resolution, metric=shape.metric)
    assert faults(owner_conn, shape.name) == []
    assert one(owner_conn, f"select count(*) from {side}") == 180
    last = f"{DIMS}:{'f16' if shape.vector == 'halfvec' else 'f32'}"
    for name, funnel in (("f", f"{resolution}@200 > {last}"), ("exact", last)):
        run(
            owner_conn,
            "select funnelvec.create_funnel(%s, %s, 'emb', %s)",
            name,
            shape.name,
            funnel,
        )
    assert search(owner_conn) == search(owner_conn, "exact")
    # Writes of every kind, each of several rows.
    key = shape.key[-1]
    insert(owner_conn, shape, 200, 260)
    run(
        owner_conn,
        f"delete from {shape.name} where ctid in (select ctid from {shape.name} limit 20)",
    )
    other = text(vectors(1, seed=5, dims=DIMS)[0])
    some = f"{key} in (select {key} from {shape.name} order by {key} limit 15)"
    run(owner_conn, f"update {shape.name} set emb = %s where {some}", other)
    run(owner_conn, f"update {shape.name} set emb = null where {some} and note = 'n'")
    run(owner_conn, f"update {shape.name} set note = 'm' where {some}")
    run(owner_conn, f"update {shape.name} set emb = %s where emb is null", other)
    assert faults(owner_conn, shape.name) == []
    assert search(owner_conn) == search(owner_conn, "exact")
    run(owner_conn, f"truncate {shape.name}")
    assert one(owner_conn, f"select count(*) from {side}") == 0
    assert search(owner_conn) == []


def test_keys_that_change_places(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    side = adopt(owner_conn, "items")
    run(owner_conn, "update items set id = id + 1000")
    run(owner_conn, "update items set id = id + 1 where id = (select max(id) from items)")
    run(
        owner_conn,
        "with gone as (delete from items where id < 1050 returning *) insert into items select * from gone",
    )
    run(
        owner_conn,
        "insert into items select * from items where id = 1060 on conflict (id) do update set emb = %s",
        QUERY,
    )
    run(
        owner_conn,
        "merge into items as t using (select id + 5 as id, emb from items where id < 1300) as s on t.id = s.id"
        " when matched and t.id % 2 = 0 then delete when matched then update set emb = s.emb"
        " when not matched then insert values (s.id + 5000, s.emb)",
    )
    with owner_conn.cursor() as cursor, cursor.copy("copy items (id, emb) from stdin") as copy:
        copy.write_row((77_000, QUERY))
    assert faults(owner_conn, "items") == []
    assert one(owner_conn, f"select count(*) from {side} where id = 77000") == 1


def test_a_row_that_moves_to_another_partition(owner_conn: Connection) -> None:
    make(owner_conn, SHAPES["list partitions"])
    adopt(owner_conn, "items")
    run(owner_conn, "update items set region = (region + 1) % 3, note = 'moved'")
    assert faults(owner_conn, "items") == []


def test_a_trigger_that_changes_the_vector_behind_the_statement(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    run(
        owner_conn,
        f"create function fill() returns trigger language plpgsql as $$ begin"
        f" if new.note = 'other' then new.emb := '{QUERY}'; end if; return new; end $$",
    )
    run(
        owner_conn,
        "create trigger fill before update on items for each row execute function fill()",
    )
    adopt(owner_conn, "items")
    run(owner_conn, "update items set note = 'other' where id < 20")
    assert faults(owner_conn, "items") == []


def test_such_a_trigger_that_comes_later_is_reported_and_repaired(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    adopt(owner_conn, "items")
    run(
        owner_conn,
        f"create function fill() returns trigger language plpgsql as $$ begin"
        f" new.emb := '{QUERY}'; return new; end $$",
    )
    run(
        owner_conn,
        "create trigger fill before update on items for each row execute function fill()",
    )
    run(owner_conn, "update items set note = 'other' where id < 20")
    assert faults(owner_conn, "items") != []
    assert "trigger" in one(owner_conn, "select advice from funnelvec.status('items')")
    run(owner_conn, "select funnelvec.repair()")
    assert finish(owner_conn, "items") == ["call funnelvec.backfill('public.items');"]
    run(owner_conn, "update items set note = 'more' where id between 40 and 50")
    assert faults(owner_conn, "items") == []


def test_writing_goes_on_after_renames(owner_conn: Connection) -> None:
    shape = SHAPES["list partitions"]
    make(owner_conn, shape)
    adopt(owner_conn, "items")
    run(owner_conn, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@50 > 16:f32')")
    before = search(owner_conn)
    run(owner_conn, "alter table items rename column emb to embedding")
    run(owner_conn, "alter table items rename column id to item_id")
    run(owner_conn, "update items set embedding = %s where item_id < 10", QUERY)
    run(owner_conn, "delete from items where item_id between 20 and 30")
    run(owner_conn, "insert into items select 2, 9000, %s", QUERY)
    run(owner_conn, "update items set embedding = null where item_id = 9000")
    run(owner_conn, "select funnelvec.repair()")
    assert faults(owner_conn, "items") == []
    assert (
        one(
            owner_conn,
            "select count(*) from funnelvec.status('items') where advice like '%repair%'",
        )
        == 0
    )
    assert len(search(owner_conn)) == len(before)
    run(owner_conn, "update items set item_id = item_id + 1 where item_id = 9000")
    assert faults(owner_conn, "items") == []


def test_searches_use_the_old_stages_and_say_so(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    run(owner_conn, "select funnelvec.add_resolution('items', 'emb', '16:bit', index => true)")
    run(owner_conn, "select funnelvec.create_funnel('f', 'items', 'emb', '16:bit@150 > 16:f32')")
    exact = search(owner_conn, k=5)
    said: list[str] = []
    owner_conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    run(
        owner_conn,
        "select funnelvec.add_resolution('items', 'emb', '8:f16', index => true, storage => 'side')",
    )
    assert any("backfill" in message for message in said)
    for name in ("f", "new"):
        run(
            owner_conn,
            "select funnelvec.create_funnel(%s, 'items', 'emb', '8:f16@150 > 16:f32', replace => true)",
            name,
        )
    assert dict(owner_conn.execute("select name, funnel from funnelvec.funnels").fetchall()) == {
        "f": "16:bit@150 > 16:f32",
        "new": "16:f32",
    }
    for name in ("f", "new"):
        said.clear()
        assert search(owner_conn, name, k=5) == exact
        assert "until what 8:f16@150 > 16:f32 needs is filled" in said[0]
    with pytest.raises(psycopg.Error, match="is used by: f, new"):
        run(owner_conn, "select funnelvec.drop_resolution('items', 'emb', '8:f16')")
    steps = finish(owner_conn, "items")
    assert [step.split()[0] for step in steps] == ["call", "create", "select"]
    for name in ("f", "new"):
        said.clear()
        assert search(owner_conn, name, k=5) == exact
        assert said == []
    assert owner_conn.execute(
        "select distinct funnel, pending from funnelvec.funnels"
    ).fetchall() == [("8:f16@150 > 16:f32", None)]
    assert starts_from_an_index(owner_conn)


def test_the_last_stage_cannot_be_waited_for(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    run(owner_conn, "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'side')")
    with pytest.raises(psycopg.Error, match="still being filled") as caught:
        run(
            owner_conn,
            "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16', approximate => true)",
        )
    assert caught.value.sqlstate == "FV008"
    finish(owner_conn, "items")
    run(
        owner_conn,
        "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16', approximate => true)",
    )
    assert len(search(owner_conn)) == 10


def test_moves_both_ways_leave_the_table_as_it_was(owner_conn: Connection) -> None:
    def table() -> list[Any]:
        return owner_conn.execute(
            "select attname, format_type(atttypid, atttypmod), attgenerated from pg_attribute"
            " where attrelid = 'items'::regclass and attnum > 0 and not attisdropped"
            " union all select tgname, '', '' from pg_trigger where tgrelid = 'items'::regclass"
            " union all select relname, '', '' from pg_class where relnamespace = 'public'::regnamespace"
            " and relkind in ('r', 'i') order by 1"
        ).fetchall()

    make(owner_conn, PLAIN)
    before = table()
    rows = owner_conn.execute("select * from items order by id").fetchall()
    adopt(owner_conn, "items")
    run(owner_conn, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@150 > 16:f32')")
    run(owner_conn, "select funnelvec.create_funnel('exact', 'items', 'emb', '16:f32')")
    exact = search(owner_conn, "exact")
    for storage, columns in (("column", 4), ("side", 3), ("column", 4)):
        run(
            owner_conn,
            "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => %s)",
            storage,
        )
        assert search(owner_conn) == exact
        finish(owner_conn, "items")
        assert search(owner_conn) == exact
        assert len([r for r in table() if r[1]]) == columns
        assert starts_from_an_index(owner_conn), "the index moves along"
        assert (
            one(owner_conn, "select count(*) from pg_trigger where tgrelid = 'items'::regclass") > 0
        ) == (storage == "side")
    adopt(owner_conn, "items")
    run(owner_conn, "select funnelvec.drop_funnel('f')")
    run(owner_conn, "select funnelvec.drop_resolution('items', 'emb', '8:f16')")
    assert table() == before
    assert owner_conn.execute("select * from items order by id").fetchall() == rows
    assert (
        one(
            owner_conn,
            "select count(*) from pg_proc where pronamespace = 'public'::regnamespace and proname like 'items%'",
        )
        == 0
    )


def test_a_move_may_be_turned_round(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    adopt(owner_conn, "items")
    run(owner_conn, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@150 > 16:f32')")
    run(owner_conn, "select funnelvec.create_funnel('exact', 'items', 'emb', '16:f32')")
    for storage in ("column", "side", "column"):
        run(
            owner_conn,
            "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => %s)",
            storage,
        )
        run(owner_conn, "update items set emb = %s where id = 11", QUERY)
        assert search(owner_conn) == search(owner_conn, "exact")
    finish(owner_conn, "items")
    assert one(owner_conn, "select count(*) from pg_trigger where tgrelid = 'items'::regclass") == 0
    assert search(owner_conn) == search(owner_conn, "exact")


def test_codes_dropped_by_hand_stop_nobody_from_writing(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    side = adopt(owner_conn, "items")
    run(owner_conn, f"drop table {side}")
    insert(owner_conn, PLAIN, 500, 510)
    assert "gone" in one(
        owner_conn, "select advice from funnelvec.status('items') where resolution is not null"
    )
    run(owner_conn, "select funnelvec.repair()")
    adopt(owner_conn, "items")
    assert faults(owner_conn, "items") == []


def test_a_disabled_trigger_is_reported_and_its_writes_are_caught_up(
    owner_conn: Connection,
) -> None:
    make(owner_conn, PLAIN)
    side = adopt(owner_conn, "items")
    run(owner_conn, f"alter table items disable trigger {side.partition('.')[2]}")
    run(owner_conn, "update items set emb = %s where id < 30", QUERY)
    run(owner_conn, "delete from items where id between 30 and 40")
    insert(owner_conn, PLAIN, 300, 320)
    assert faults(owner_conn, "items") != []
    assert "disabled" in one(
        owner_conn, "select advice from funnelvec.status('items') where resolution is not null"
    )
    run(owner_conn, "select funnelvec.repair()")
    finish(owner_conn, "items")
    assert faults(owner_conn, "items") == []
    assert "disabled" not in one(
        owner_conn, "select advice from funnelvec.status('items') where resolution is not null"
    )


def test_a_partition_that_is_attached_and_one_that_leaves(owner_conn: Connection) -> None:
    shape = SHAPES["list partitions"]
    make(owner_conn, shape)
    adopt(owner_conn, "items")
    run(owner_conn, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@150 > 16:f32')")
    run(owner_conn, "select funnelvec.create_funnel('exact', 'items', 'emb', '16:f32')")
    run(owner_conn, "alter table items detach partition items_1")
    assert search(owner_conn) == search(owner_conn, "exact"), "codes without a row are skipped"
    run(owner_conn, "alter table items attach partition items_1 for values in (1)")
    run(owner_conn, "create table items_9 (like items_0)")
    run(
        owner_conn,
        "insert into items_9 select 9, 9000 + i, %s from generate_series(1, 5) as i",
        QUERY,
    )
    run(owner_conn, "alter table items attach partition items_9 for values in (9)")
    assert len(faults(owner_conn, "items")) == 5
    assert (
        one(
            owner_conn,
            "select rows - filled from funnelvec.status('items') where resolution is not null",
        )
        >= 5
    )

    assert "recheck" in one(
        owner_conn, "select advice from funnelvec.status('items') where resolution is not null"
    )
    assert one(owner_conn, "select funnelvec.recheck('items')").startswith("call")
    finish(owner_conn, "items")
    assert faults(owner_conn, "items") == []
    assert search(owner_conn) == search(owner_conn, "exact")


def test_writes_past_the_triggers_are_caught_up(owner_conn: Connection, superuser_url: str) -> None:
    """As a subscriber of logical replication applies them."""
    from tests import databases

    make(owner_conn, PLAIN)
    adopt(owner_conn, "items")
    with databases.connected(superuser_url) as admin:
        admin.execute("set session_replication_role = replica")
        run(admin, "update items set emb = %s where id < 5", QUERY)
        run(admin, "delete from items where id between 20 and 25")
        run(admin, "insert into items values (900, %s)", QUERY)
        assert len(faults(owner_conn, "items")) == 5 + 6 + 1
        run(owner_conn, "select funnelvec.recheck('items')")
        assert "checking, in use" in one(owner_conn, "select advice from funnelvec.status('items')")
        finish(owner_conn, "items")
        assert faults(owner_conn, "items") == []
        # A subscriber can have its triggers fire always.
        for name in ("items_emb_8_f16", "items_emb_8_f16_truncate"):
            run(owner_conn, f"alter table items enable always trigger {name}")
        run(admin, "update items set emb = %s where id between 5 and 9", QUERY)
        assert faults(owner_conn, "items") == []
        run(owner_conn, "select funnelvec.repair()")
        run(admin, "truncate items")
        assert one(owner_conn, "select count(*) from items_emb_8_f16") == 0
    run(owner_conn, "select funnelvec.drop_resolution('items', 'emb', '8:f16')")
    with pytest.raises(psycopg.Error, match="no resolution in a side table") as caught:
        run(owner_conn, "select funnelvec.recheck('items')")
    assert caught.value.sqlstate == "FV005"


def test_the_other_roles(owner_conn: Connection, pg_database: Database) -> None:
    from tests import databases

    make(owner_conn, PLAIN)
    run(owner_conn, "grant select on items to app_other")
    side = adopt(owner_conn, "items")
    run(owner_conn, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@150 > 16:f32')")
    with databases.connected(pg_database.other_url) as other:
        assert len(search(other)) == 10
        for refused in (
            f"delete from {side}", f"insert into {side} values (1, null)", f"truncate {side}",
            f"select {side}()",
        ):  # fmt: skip
            with pytest.raises(psycopg.Error):
                other.execute(refused.encode())
        run(other, "create temporary table mine (id bigint, emb vector(16))")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(
                other,
                f"create trigger t after insert on mine for each row execute function {side}()",
            )
        # Who may write the table need not be able to write the codes.
        run(owner_conn, "grant insert, update on items to app_other")
        run(other, "insert into items values (4000, %s)", QUERY)
        assert faults(owner_conn, "items") == []
        # A grant that comes later, and one that goes.
        run(owner_conn, "revoke select on items from app_other")
        assert "may read" in one(owner_conn, "select advice from funnelvec.status('items')")
        run(owner_conn, "select funnelvec.repair()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(other, f"select * from {side}")
        run(owner_conn, "grant select (id, emb) on items to app_other")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="repair"):
            search(other)
        run(owner_conn, "select funnelvec.repair()")
        assert len(search(other)) == 10
        with pytest.raises(psycopg.Error):
            run(other, "select funnelvec.activate('items', 'emb', '8:f16')")
        with pytest.raises(psycopg.Error):
            run(other, "call funnelvec.backfill('items')")


def test_row_level_security_hides_the_codes_too(
    owner_conn: Connection, pg_database: Database
) -> None:
    from tests import databases

    make(owner_conn, PLAIN)
    run(owner_conn, "grant select on items to app_other")
    run(owner_conn, "alter table items enable row level security")
    run(owner_conn, "create policy few on items to app_other using (id % 20 = 0)")
    side = adopt(owner_conn, "items")
    run(owner_conn, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@50 > 16:f32')")
    with databases.connected(pg_database.other_url) as other:
        found = search(other)
        assert len(found) == 10 and all(row[0] % 20 == 0 for row in found)
        assert one(other, f"select count(*) from {side}") == 10
    assert one(owner_conn, f"select count(*) from {side}") == 180


def test_forced_row_level_security_is_refused(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    run(owner_conn, "alter table items enable row level security")
    run(owner_conn, "alter table items force row level security")
    with pytest.raises(psycopg.Error, match="BYPASSRLS") as caught:
        run(
            owner_conn,
            "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'side')",
        )
    assert caught.value.sqlstate == "FV009"


@pytest.mark.parametrize(
    ("arguments", "state", "message"),
    [
        ("'8:f16', storage => 'elsewhere'", "FV004", "unknown storage"),
        ("'16:f32', storage => 'side'", "FV004", "itself"),
        ("'17:f16', storage => 'side'", "FV001", "wider"),
    ],
)
def test_wrong_input(owner_conn: Connection, arguments: str, state: str, message: str) -> None:
    make(owner_conn, PLAIN)
    with pytest.raises(psycopg.Error, match=message) as caught:
        run(owner_conn, f"select funnelvec.add_resolution('items', 'emb', {arguments})")
    assert caught.value.sqlstate == state
    assert one(owner_conn, "select count(*) from funnelvec.resolutions") == 0


def test_a_name_that_is_taken(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    run(owner_conn, "create table items_emb_8_f16 (x int)")
    with pytest.raises(psycopg.Error, match="exists already") as caught:
        run(
            owner_conn,
            "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'side')",
        )
    assert caught.value.sqlstate == "FV008"
    assert one(owner_conn, "select count(*) from pg_trigger where tgrelid = 'items'::regclass") == 0


def test_a_search_starts_from_the_index_over_the_side_table(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN, 3000)
    adopt(owner_conn, "items")
    run(owner_conn, "analyze items, items_emb_8_f16")
    run(owner_conn, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@50 > 16:f32')")
    explained = "select access from funnelvec.explain('f', %s, filter => %s) where stage = 1"
    assert one(owner_conn, explained, QUERY, None).startswith("index items_emb_8_f16")
    wide, narrow = '{"id": {"$gt": 100}}', '{"id": {"$lt": 20}}'
    assert one(owner_conn, explained, QUERY, wide).startswith("index items_emb_8_f16")
    assert one(owner_conn, explained, QUERY, narrow).startswith("filter by index items_pkey")


def test_an_empty_table_is_ready_at_once(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN, rows=0)
    run(
        owner_conn,
        "select funnelvec.add_resolution('items', 'emb', '8:f16', index => true, storage => 'side')",
    )
    assert one(owner_conn, "select funnelvec.next_step('items')") is None
    run(owner_conn, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@150 > 16:f32')")
    insert(owner_conn, PLAIN, 0, 50)
    assert len(search(owner_conn)) == 10


def test_a_broken_index_is_dropped_first(owner_conn: Connection, pg_database: Database) -> None:
    make(owner_conn, PLAIN)
    run(
        owner_conn,
        "select funnelvec.add_resolution('items', 'emb', '8:f16', index => true, storage => 'side')",
    )
    run(owner_conn, "call funnelvec.backfill('items')")
    build = one(owner_conn, "select funnelvec.next_step('items')")
    with (
        psycopg.connect(pg_database.owner_url) as holder,
        psycopg.connect(pg_database.owner_url, autocommit=True) as builder,
    ):
        run(
            holder, "select * from items_emb_8_f16 limit 1"
        )  # an old snapshot, which a build waits for
        run(holder, "insert into items values (7000, %s)", QUERY)
        builder.execute("set statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            builder.execute(build.encode())
    steps = finish(owner_conn, "items")
    assert steps[0].startswith("drop index concurrently"), steps
    assert steps[1] == build
    assert faults(owner_conn, "items") == []


def test_a_long_transaction_makes_it_give_up_with_nothing_done(
    owner_conn: Connection, pg_database: Database
) -> None:
    make(owner_conn, PLAIN)
    with psycopg.connect(pg_database.owner_url) as writer:
        run(writer, "update items set note = 'x' where id = 1")
        run(owner_conn, "set funnelvec.lock_patience = '0.2s'")
        with pytest.raises(psycopg.Error, match="could not be locked") as caught:
            run(
                owner_conn,
                "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'side')",
            )
        assert caught.value.sqlstate == "55P03"
    assert one(owner_conn, "select to_regclass('items_emb_8_f16')") is None
    assert one(owner_conn, "select current_setting('lock_timeout')") == "0"


@pytest.mark.parametrize("what", ["delete", "update", "null", "rekey"])
@pytest.mark.parametrize("end", ["before", "after"])
def test_a_batch_and_a_writer_at_the_same_time(
    owner_conn: Connection, pg_database: Database, what: str, end: str
) -> None:
    """A row changes in a transaction that is open while a batch copies the row as it was before."""
    make(owner_conn, PLAIN)
    run(owner_conn, "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'side')")
    statement = {
        "delete": "delete from items where id = 5",
        "update": f"update items set emb = '{QUERY}' where id = 5",
        "null": "update items set emb = null where id = 5",
        "rekey": "update items set id = 5005 where id = 5",
    }[what]
    step = "select (funnelvec._backfill_step('items', 1000)).state"
    writer = psycopg.connect(pg_database.owner_url)
    with writer, psycopg.connect(pg_database.owner_url) as filler:
        if end == "after":
            # The batch has written the code and not committed; what the writer needs of it, it waits for.
            assert one(filler, step) == "sweeping"
            if what in ("update",):
                writer.execute("set lock_timeout = '100ms'")
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    writer.execute(statement.encode())
                writer.rollback()
                filler.commit()
                writer.execute(statement.encode())
            else:
                writer.execute(statement.encode())
                filler.commit()
            writer.commit()
        else:
            writer.execute(statement.encode())
            if what == "update":
                # The writer's code is there, uncommitted: the batch takes what comes before it.
                assert one(filler, step) == "filling"
                filler.rollback()
                writer.commit()
            assert one(filler, step) == "sweeping"
            filler.commit()
            writer.commit()
    finish(owner_conn, "items")
    assert faults(owner_conn, "items") == []


@pytest.mark.parametrize(
    "statement", ["delete from items where id = 5", "update items set emb = null where id = 5"]
)
def test_the_sweep_waits_for_whoever_did_not_see_the_code_of_the_last_batch(
    owner_conn: Connection, pg_database: Database, statement: str
) -> None:
    """A writer who began after the batch did, and before it was committed: his transaction is the younger one."""
    make(owner_conn, PLAIN)
    run(owner_conn, "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'side')")
    step = "select (funnelvec._backfill_step('items', 1000)).state"
    with (
        psycopg.connect(pg_database.owner_url) as filler,
        psycopg.connect(pg_database.owner_url) as writer,
    ):
        assert one(filler, step) == "sweeping"
        writer.execute(statement.encode())
        filler.commit()
        run(owner_conn, "set funnelvec.lock_patience = '0.2s'")
        for _ in range(2):  # asked again, it still waits for him
            with pytest.raises(psycopg.Error, match=r"has written before .* was filled") as caught:
                while True:
                    assert one(owner_conn, step) == "sweeping"
            assert caught.value.sqlstate == "55P03"
        writer.commit()
    finish(owner_conn, "items")
    assert faults(owner_conn, "items") == []


def test_a_writer_who_stays_in_his_transaction_stops_only_the_filling(
    owner_conn: Connection, pg_database: Database
) -> None:
    """The batch waits for one row and holds no code meanwhile: all others can be written."""
    make(owner_conn, PLAIN)
    run(owner_conn, "select funnelvec.add_resolution('items', 'emb', '8:f16', storage => 'side')")
    failed: list[BaseException] = []

    def fill() -> None:
        try:
            with psycopg.connect(pg_database.owner_url, autocommit=True) as filler:
                run(filler, "call funnelvec.backfill('items')")
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=fill)
    with psycopg.connect(pg_database.owner_url) as slow:
        run(slow, "update items set emb = %s where id = 123", QUERY)
        thread.start()
        while one(owner_conn, "select filled from funnelvec.resolutions") != 123:
            assert thread.is_alive(), failed
        while not one(
            owner_conn,
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and wait_event_type = 'Lock' and query like 'call %%'",
        ):
            assert thread.is_alive(), failed
        # Far less than the transaction of the other one lasts, which is until this is done.
        owner_conn.execute("set lock_timeout = '10s'")
        run(owner_conn, "update items set emb = %s where id <> 123", QUERY)
        slow.commit()
    thread.join()
    assert failed == []
    finish(owner_conn, "items")
    assert faults(owner_conn, "items") == []


def test_dump_and_restore(
    owner_conn: Connection,
    pg_database: Database,
    new_database: Callable[..., Database],
    tmp_path: Any,
) -> None:
    from tests import databases

    make(owner_conn, PLAIN)
    run(owner_conn, "grant select on items to app_other")
    adopt(owner_conn, "items")
    run(
        owner_conn,
        "select funnelvec.add_resolution('items', 'emb', '16:bit', index => true, storage => 'side')",
    )
    run(owner_conn, "select (funnelvec._backfill_step('items', 50)).state")
    run(
        owner_conn,
        "select funnelvec.create_funnel('f', 'items', 'emb', '16:bit@180 > 8:f16@150 > 16:f32')",
    )
    before = search(owner_conn)
    server = pg_database.server
    file = str(tmp_path / "dump")
    server.run("pg_dump", "-Fc", "-f", file, pg_database.owner_url)
    restored = new_database("vector")
    # A comment on an extension is its owner's to write, and that is not who restores.
    server.run("pg_restore", "--exit-on-error", "--no-comments", "-d", restored.owner_url, file)
    with databases.connected(restored.owner_url) as owner:
        run(owner, "select funnelvec.repair()")
        assert search(owner) == before
        insert(owner, PLAIN, 300, 330)
        run(owner, "delete from items where id < 30")
        finish(owner, "items")
        assert faults(owner, "items") == []
        assert (
            one(owner, "select funnel from funnelvec.funnels") == "16:bit@180 > 8:f16@150 > 16:f32"
        )
        with databases.connected(restored.other_url) as other:
            assert len(search(other)) == 10


def test_it_survives_the_loss_of_funnelvec_itself(
    owner_conn: Connection, pg_database: Database
) -> None:
    """Writes go on without the schema funnelvec; a new install takes the side table over."""
    from funnelvec.install import apply
    from funnelvec.install.remove import uninstall

    make(owner_conn, PLAIN)
    side = adopt(owner_conn, "items")
    result = uninstall(owner_conn)
    assert any(side in kept for kept in result.kept), result
    insert(owner_conn, PLAIN, 300, 330)
    run(owner_conn, "update items set emb = %s where id = 3", QUERY)
    apply.install(owner_conn, mode=pg_database.server.install_mode)
    run(owner_conn, "select funnelvec.repair()")
    assert faults(owner_conn, "items") == []
    assert (
        one(owner_conn, "select storage || ' ' || state from funnelvec.resolutions") == "side ready"
    )
    run(owner_conn, "select funnelvec.create_funnel('f', 'items', 'emb', '8:f16@150 > 16:f32')")
    assert starts_from_an_index(owner_conn)
    uninstall(owner_conn, data=True)
    assert one(owner_conn, f"select to_regclass('{side}')") is None
    assert one(owner_conn, "select count(*) from pg_trigger where tgrelid = 'items'::regclass") == 0


def test_a_dropped_table_leaves_what_repair_removes(owner_conn: Connection) -> None:
    make(owner_conn, PLAIN)
    side = adopt(owner_conn, "items")
    run(owner_conn, "drop table items")
    assert one(owner_conn, "select count(*) from funnelvec._problems()") > 0
    run(owner_conn, "select funnelvec.repair()")
    assert one(owner_conn, f"select to_regclass('{side}')") is None
    assert owner_conn.execute("select * from funnelvec._problems()").fetchall() == []


def test_a_check_goes_by_batches_and_stops_nobody(
    owner_conn: Connection, superuser_url: str, pg_database: Database
) -> None:
    from tests import databases

    shape = SHAPES["composite"]
    make(owner_conn, shape)
    adopt(owner_conn, "items")
    with databases.connected(superuser_url) as admin:
        admin.execute("set session_replication_role = replica")
        run(admin, "update items set emb = %s where emb is not null", QUERY)
        run(admin, "delete from items where shop = 's3'")
    wrong = len(faults(owner_conn, "items"))
    assert wrong > 150
    run(owner_conn, "select funnelvec.recheck('items')")
    step = "select (funnelvec._backfill_step('items', 50)).state"
    with psycopg.connect(pg_database.owner_url) as filler:
        assert one(filler, step) == "checking"
        # What this batch holds is not committed; all other rows can be written.
        owner_conn.execute("set lock_timeout = '10s'")
        run(owner_conn, "update items set emb = %s where shop > 's4'", QUERY)
        filler.commit()
    assert 0 < len(faults(owner_conn, "items")) < wrong
    assert finish(owner_conn, "items") == ["call funnelvec.backfill('public.items');"]
    assert faults(owner_conn, "items") == []
    assert one(owner_conn, "select state from funnelvec.resolutions") == "ready"


def test_a_sweep_that_would_wait_is_done_again_later(
    owner_conn: Connection, pg_database: Database
) -> None:
    make(owner_conn, PLAIN)
    side = adopt(owner_conn, "items")
    run(owner_conn, f"insert into {side} select 9000, emb_8_f16 from {side} where id = 1")
    run(owner_conn, "select funnelvec.recheck('items')")
    step = "select (funnelvec._backfill_step('items', 1000)).state"
    with psycopg.connect(pg_database.owner_url) as holder:
        run(holder, f"select from {side} where id = 9000 for update")
        assert one(owner_conn, step) == "checking"
        assert faults(owner_conn, "items") != []
    finish(owner_conn, "items")
    assert faults(owner_conn, "items") == []
