"""What writing costs: what no machine changes (WAL, HOT, trigger calls), and its benchmark."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from funnelvec import cli
from funnelvec.bench import compare_writes, generate
from funnelvec.errors import InvalidInput
from tests import databases
from tests.sql.side import adopt, faults, finish, one, run
from tests.sql.tables import text, vectors
from tests.sql.test_bench import traces

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.databases import Database

    Connection = psycopg.Connection[Any]

ROWS = 400
#: One that stays in the row, and one that goes out of line.
WIDTHS = (16, 600)


@pytest.fixture
def counted(pg_database: Database) -> Iterator[Connection]:
    """A connection of the owner's that counts calls of functions, which a superuser has to allow."""
    with databases.connected(pg_database.superuser_url) as admin:
        run(admin, f'alter database "{pg_database.name}" set track_functions = pl')
    with databases.connected(pg_database.owner_url) as connection:
        yield connection


#: Bodies of triggers that run before a row is written; nobody can tell what the last one does.
TOUCHES = {
    "no trigger": "",
    "plain": "begin new.at := now(); return new; end",
    "odd": "declare t timestamptz; begin t := now(); new.at := t; return new; end",
}


def products(connection: Connection, name: str, dims: int, *, touch: str = "") -> None:
    """Make a table of `ROWS` rows; `touch`: body of a trigger that runs before a row is written."""
    run(
        connection,
        f"create table {name}"
        f" (id bigint primary key, price int, at timestamptz, emb vector({dims}))",
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            f"insert into {name} values (%s, 1, now(), %s)".encode(),
            list(enumerate(map(text, vectors(ROWS, dims=dims)))),
        )
    if touch:
        run(
            connection,
            f"create or replace function touch() returns trigger language plpgsql as $${touch}$$",
        )
        run(
            connection,
            f"create trigger touch before update on {name} for each row execute function touch()",
        )


def cost(connection: Connection, name: str, statement: str) -> dict[str, Any]:
    """Run a statement: WAL of its own backend, updates, and calls of the triggers of side tables."""
    with connection.transaction():
        before = counters(connection, name)
        (plan,) = one(connection, f"explain (analyze, wal, timing off, format json) {statement}")
        after = counters(connection, name)
    found = plan["Plan"]
    assert found["Node Type"] == "ModifyTable"
    updated, hot, calls = (b - a for a, b in zip(before, after, strict=True))
    return {
        "records": found["WAL Records"],
        "bytes": found["WAL Bytes"],
        "images": found.get("WAL FPI", 0),
        "updated": updated,
        "hot": hot,
        "calls": calls,
        "triggers": [each["Trigger Name"] for each in plan.get("Triggers", [])],
    }


def counters(connection: Connection, name: str) -> tuple[int, int, int]:
    row = connection.execute(
        "select n_tup_upd, n_tup_hot_upd, (select coalesce(sum(calls), 0)::bigint"
        " from pg_stat_xact_user_functions where funcname like '%%\\_emb\\_%%')"
        " from pg_stat_xact_all_tables where relid = %s::regclass",
        (name,),
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


@pytest.mark.parametrize("dims", WIDTHS)
@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_with_side_storage_an_update_of_another_column_costs_what_it_did(
    counted: Connection, dims: int, touch: str
) -> None:
    for name in ("bare", "beside", "inside"):
        products(counted, name, dims, touch=touch)
    adopt(counted, "beside", "16:f16")
    run(counted, "select funnelvec.add_resolution('inside', 'emb', '16:f16')")
    for name in ("bare", "beside", "inside"):
        run(counted, f"vacuum full {name}")
    found: dict[str, list[dict[str, Any]]] = {"bare": [], "beside": [], "inside": []}
    for some in ("id % 10 = 0", "id < 50", "id % 10 = 3", "true"):
        for name, costs in found.items():
            costs.append(cost(counted, name, f"update {name} set price = price + 1 where {some}"))
            run(counted, f"vacuum {name}")
    for bare, beside in zip(found["bare"], found["beside"], strict=True):
        assert beside["calls"] == 0
        assert not [each for each in beside["triggers"] if "_emb_" in each]
        assert beside["updated"] == bare["updated"]
        # When a page is tidied up depends on who else has a snapshot, so a few may differ.
        assert beside["hot"] == pytest.approx(bare["hot"], rel=0.02, abs=2)
        assert beside["records"] == pytest.approx(bare["records"], rel=0.02, abs=2)
        if bare["images"] == beside["images"] == 0:
            assert beside["bytes"] == pytest.approx(bare["bytes"], rel=0.02, abs=200)
    assert 0 < sum(each["hot"] for each in found["bare"]) < 600  # both kinds of update took place
    if sum(each["images"] for costs in found.values() for each in costs) == 0:
        # Codes of 40 bytes in the row go wherever the row goes, so that somebody pays for them.
        inside, bare_bytes = (sum(e["bytes"] for e in found[n]) for n in ("inside", "bare"))
        assert inside > bare_bytes * 1.05
    assert faults(counted, "beside") == []


@pytest.mark.parametrize("dims", WIDTHS)
def test_the_trigger_is_called_once_for_a_row_whose_key_or_vector_is_written(
    counted: Connection, dims: int
) -> None:
    products(counted, "products", dims)
    adopt(counted, "products", "16:f16")
    other = text(vectors(1, seed=9, dims=dims)[0])
    for statement, calls in (
        ("update products set price = 2", 0),
        (f"update products set emb = '{other}' where id < 30", 30),
        ("update products set id = id + 1000 where id < 20", 20),
        ("delete from products where id >= 1000", 20),
        (f"insert into products values (1000, 1, now(), '{other}')", 1),
    ):
        assert cost(counted, "products", statement)["calls"] == calls, statement
    assert faults(counted, "products") == []


@pytest.mark.parametrize("dims", WIDTHS)
def test_a_trigger_of_the_users_may_change_the_vector_in_any_way(
    counted: Connection, dims: int
) -> None:
    products(counted, "products", dims)
    other = text(vectors(1, seed=9, dims=dims)[0])
    run(
        counted,
        "create function meddle() returns trigger language plpgsql as $$ begin"
        " case new.price"
        f" when 10 then new.emb := '{other}';"
        " when 11 then new.emb := null;"
        " when 12 then select p.emb into new.emb from products p where p.id = old.id + 100;"
        " when 13 then new.emb := old.emb;"
        " when 14 then new.id := new.id + 5000;"
        " else null; end case; return new; end $$",
    )
    run(
        counted,
        "create trigger meddle before update on products for each row execute function meddle()",
    )
    adopt(counted, "products", "16:f16")
    assert cost(counted, "products", "update products set price = 1")["calls"] == 0
    for price, calls in ((10, 20), (11, 20), (12, 20), (13, 0), (14, 20)):
        first = 20 * (price - 10)
        statement = f"update products set price = {price} where id between {first} and {first + 19}"
        assert cost(counted, "products", statement)["calls"] == calls, statement
        assert faults(counted, "products") == []
    # From nothing to a vector, and from nothing to nothing.
    run(counted, "update products set price = 10 where emb is null")
    assert faults(counted, "products") == []
    run(counted, "update products set price = 11 where id between 20 and 29")
    run(counted, "update products set price = 1 where emb is null")
    assert faults(counted, "products") == []


@pytest.mark.parametrize(
    ("body", "needed"),
    [
        (TOUCHES["plain"], False),
        (
            "\nBEGIN\n  NEW.at = now() at time zone 'utc';\n  new.note:='x'; RETURN NEW;\nEND;\n",
            False,
        ),
        (
            "begin if new.note = old.note and old.note <> 'x' then new.at := now(); elsif true then"
            " new.note := 'y'; else if false then return new; end if; end if; return new; end",
            False,
        ),
        (TOUCHES["odd"], True),
        ("begin if true then new.emb := null; end if; return new; end", True),
        ("begin if true then new := old; end if; return new; end", True),
        ("begin if true then perform 1; end if; return new; end", True),
        ("begin if (select true into new.emb) then return new; end if; return new; end", True),
        (
            "begin if a then new := case when b then new.at = now() end; end if; return new; end",
            True,
        ),
        ("begin new.emb := null; return new; end", True),
        ("begin new.EMB = null; return new; end", True),
        ("begin new.id := new.id + 1; return new; end", True),
        ('begin new."emb" := null; return new; end', True),
        ("begin new.at := now(); new := old; return new; end", True),
        ("begin new.at := now(); return old; end", True),
        ("declare x int; begin new.at := now(); return new; end", True),
        ("begin new.at := now(); /* ; */ return new; end", True),
        ("begin new.note := ';'; return new; end", True),
        ("begin new.at := now(); select null into new.emb; return new; end", True),
        ("begin new.at := now(); return new; end; $x$ begin", True),
    ],
)
def test_only_a_trigger_that_may_change_the_vector_is_watched(
    owner_conn: Connection, body: str, needed: bool
) -> None:
    run(
        owner_conn,
        "create table products (id int primary key, emb vector(4), at timestamp, note text)",
    )
    run(owner_conn, "set check_function_bodies = off")
    run(
        owner_conn,
        f"create function touch() returns trigger language plpgsql as $body${body}$body$",
    )
    run(
        owner_conn,
        "create trigger touch before update on products for each row execute function touch()",
    )
    adopt(owner_conn, "products", "2:f16", index=False)
    count = "select count(*) from pg_trigger where tgname = 'products_emb_2_f16_every'"
    assert one(owner_conn, count) == int(needed)


def test_a_trigger_that_begins_to_change_the_vector_is_noticed(owner_conn: Connection) -> None:
    products(owner_conn, "products", 16, touch=TOUCHES["plain"])
    adopt(owner_conn, "products", "8:f16")
    assert "trigger" not in one(owner_conn, "select advice from funnelvec.status('products')")
    run(
        owner_conn,
        "create or replace function touch() returns trigger language plpgsql"
        " as 'begin new.at := now(); new.emb := new.emb + new.emb; return new; end'",
    )
    assert "trigger" in one(owner_conn, "select advice from funnelvec.status('products')")
    run(owner_conn, "update products set price = 3 where id < 10")
    run(owner_conn, "select funnelvec.repair()")
    run(owner_conn, "update products set price = 3 where id between 10 and 20")
    finish(owner_conn, "products")
    assert faults(owner_conn, "products") == []


@pytest.mark.parametrize("dims", WIDTHS)
def test_triggers_can_be_made_again_with_an_empty_search_path(
    counted: Connection, dims: int
) -> None:
    # As pg_dump does; an operator that is not in pg_catalog would not be found.
    products(counted, "products", dims, touch=TOUCHES["odd"])
    adopt(counted, "products", "8:f16")
    with counted.transaction():
        run(counted, "set local search_path = ''")
        rows = counted.execute(
            "select tgname, pg_get_triggerdef(oid) from pg_trigger"
            " where tgrelid = 'public.products'::regclass and tgname like 'products\\_emb\\_%'"
        ).fetchall()
        assert len(rows) == 3
        for name, definition in rows:
            run(counted, f"drop trigger {name} on public.products")
            run(counted, definition)
    run(counted, "update products set emb = null, id = -id where id < 10")
    assert faults(counted, "products") == []
    assert "repair" not in one(counted, "select advice from funnelvec.status('products')")


def test_writes_are_measured_side_by_side(owner_url: str, owner_conn: Connection) -> None:
    report = compare_writes(
        owner_url, generate(200, 1, dims=48, seed=1), resolution="16:f16", rounds=2
    )
    assert traces(owner_conn) == 0
    operations = [each for each in report.measured if each.part == "operations"]
    names = ["without us", "column", "side", "without us, HNSW on the vectors"]
    names += ["column with HNSW", "side with HNSW"]
    assert [each.kept.name for each in operations] == names * 4
    for each in report.measured:
        assert all(len(times) == 2 for times in each.row_us.values())
        assert each.wal > 0
        assert (each.hot is None) == (each.operation in ("insert", "delete"))
    bare = report.line("promise", "update of another column", "without us")
    side = report.line("promise", "update of another column", "side")
    assert side.hot == pytest.approx(bare.hot, abs=0.05)
    assert [ratio.value for ratio in (bare.versus(shape) for shape in bare.row_us)] == [1, 1]
    assert set(report.promise()) == set(report.promise(touched=True)) == set(side.row_us)
    # An index over a column that changes lets no update be HOT, whatever room there is.
    embedding = report.line("operations", "update of the embedding", "column with HNSW")
    assert embedding.hot == 0
    room = {e.kept.name: e.hot or 0 for e in report.measured if e.part == "room"}
    assert room["column, fillfactor 70"] > room["column, fillfactor 100"]
    assert len(report.sections()) == 6
    assert json.loads(json.dumps(report.as_json(), allow_nan=False))["rows"] == 200


def test_a_run_of_writes_that_fails_leaves_nothing(
    owner_url: str, owner_conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("funnelvec.bench.ledger.Ledger.vacuum", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare_writes(owner_url, generate(40, 1, dims=8), resolution="8:f16", rounds=1)
    assert traces(owner_conn) == 0
    with pytest.raises(InvalidInput, match="at least 40 rows"):
        compare_writes(owner_url, generate(39, 1, dims=8), resolution="8:f16")


@pytest.mark.parametrize("asked", [["--json"], []])
def test_the_command_prints_what_writes_cost(
    owner_url: str, capsys: pytest.CaptureFixture[str], asked: list[str]
) -> None:
    size = ["--rows", "120", "--dims", "24", "--rounds", "1"]
    assert cli.main(["bench", "writes", "--url", owner_url, *size, *asked]) == 0
    printed = capsys.readouterr().out
    if asked:
        found = json.loads(printed)
        assert set(found["promise"]) == {"plain", "with_a_trigger"}
        assert len(found["measured"]) == 4 * 6 + 5 + 12
        return
    for word in ("Insert", "Room on the pages", "HOT at first", "times the WAL", "at most 1.10"):
        assert word in printed
