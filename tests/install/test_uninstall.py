"""What `uninstall` takes and what it leaves; never a column that was not asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import psycopg.sql
import pytest

from funnelvec import cli
from funnelvec.errors import Conflict, InstallError, InvalidInput, VersionMismatch
from funnelvec.install import apply
from funnelvec.install.remove import MARK, uninstall
from tests.databases import OTHER, OWNER, Database, Server, connected, copied
from tests.install.catalog import snapshot
from tests.install.sources import NOW, answer, registry, seed

Connection = psycopg.Connection[tuple[Any, ...]]

SEARCH = "public.items_search(public.vector,integer,double precision,jsonb,jsonb,text)"

EVERYTHING = """
select format('%I.%I.%I %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
  from pg_attribute a join pg_class c on c.oid = a.attrelid
  join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = 'public' and c.relkind in ('r', 'v') and a.attnum > 0 and not a.attisdropped
union all
select pg_get_indexdef(i.indexrelid) from pg_index i join pg_class c on c.oid = i.indrelid
 where c.relnamespace = 'public'::regnamespace
union all
select p.oid::regprocedure::text from pg_proc p
  left join pg_depend d on d.objid = p.oid and d.deptype = 'e'
 where p.pronamespace = 'public'::regnamespace and d.objid is null
union all
select format('%s %s', md5(i.embedding::text), i.id) from items i
"""


@pytest.fixture(scope="module")
def seeded(pg_server: Server) -> Iterator[Database]:
    """A database with funnelvec in it (in the mode of this run), and something to lose."""
    with copied(pg_server, pg_server.template("funnelvec")) as database:
        with connected(database.owner_url) as connection:
            seed(connection)
        yield database


@pytest.fixture
def pg_database(pg_server: Server, seeded: Database) -> Iterator[Database]:
    with copied(pg_server, seeded.name) as database:
        yield database


@pytest.fixture
def owner(pg_database: Database) -> Iterator[Connection]:
    with connected(pg_database.owner_url) as connection:
        yield connection


def everything(conn: Connection) -> set[str]:
    """What the user has, leaving out the schema funnelvec."""
    return {row[0] for row in conn.execute(EVERYTHING).fetchall()}


def is_gone(conn: Connection) -> bool:
    row = conn.execute("select to_regnamespace('funnelvec') is null").fetchone()
    return row == (True,) and apply.find_installed(conn) is None


@pytest.mark.parametrize("role", ["owner", "superuser"])
def test_data_stays_unless_it_is_asked_for(
    pg_database: Database, owner: Connection, role: str
) -> None:
    before = everything(owner)
    url = pg_database.owner_url if role == "owner" else pg_database.superuser_url
    with connected(url) as conn:
        result = uninstall(conn)
    assert (result.action, result.version) == ("uninstalled", NOW)
    assert result.mode == pg_database.server.install_mode
    assert result.calibrations == 1
    assert result.dropped == ()
    assert result.kept == ("public.items.embedding_4_f16", "public.items.embedding_8_bit")
    assert is_gone(owner)
    assert everything(owner) == before - {SEARCH.replace("public.", "")}
    assert result.functions == (SEARCH,)


def test_after_another_install_columns_are_taken_over(
    pg_database: Database, owner: Connection
) -> None:
    before, found = everything(owner), answer(owner)
    uninstall(owner)
    apply.install(owner, mode=pg_database.server.install_mode)
    owner.execute("select funnelvec.add_resolution('items', 'embedding', '4:f16', index => true)")
    owner.execute(
        "select funnelvec.create_funnel('items_search', 'items', 'embedding', '4:f16@40 > 8:f32')"
    )
    assert everything(owner) == before
    assert [row[:2] for row in answer(owner)] == [row[:2] for row in found]
    # The calibration went with the registry.
    assert answer(owner)[0][2] is None


def test_with_data_only_what_funnelvec_made_goes(owner: Connection) -> None:
    owner.execute("select funnelvec.add_resolution('items', 'embedding', '8:f32', index => true)")
    owner.execute("create index mine on items using hnsw (embedding vector_l2_ops)")
    result = uninstall(owner, data=True)
    assert is_gone(owner)
    assert result.kept == ()
    assert result.dropped == ("public.items.embedding_4_f16", "public.items.embedding_8_bit")
    left = everything(owner)
    assert {line.split()[0] for line in left if "." in line.split()[0]} == {
        "public.items.id",
        "public.items.embedding",
        "public.judgments.query",
        "public.judgments.id",
        "public.judgments.relevant",
    }
    assert [line for line in left if "hnsw" in line] == [
        "CREATE INDEX mine ON public.items USING hnsw (embedding vector_l2_ops)"
    ]
    assert owner.execute("select count(embedding) from items").fetchone() == (60,)


def test_a_hub_column_works_without_funnelvec_and_is_found_again(
    pg_database: Database, owner: Connection
) -> None:
    before = everything(owner)
    owner.execute("select funnelvec.add_hub('items', 'embedding')")
    assert "public.items.embedding_hub" in uninstall(owner).kept
    owner.execute("insert into items (id, embedding) select 1000, embedding from items limit 1")
    row = owner.execute("select embedding_hub is null from items where id = 1000").fetchone()
    assert row == (False,)
    owner.execute("delete from items where id = 1000")
    apply.install(owner, mode=pg_database.server.install_mode)
    with pytest.raises(psycopg.Error, match="has a hub column already"):
        owner.execute("select funnelvec.add_hub('items', 'embedding')")
    assert "public.items.embedding_hub" in uninstall(owner, data=True).dropped
    assert {line for line in everything(owner) - before if "hub" in line or "bank" in line} == set()


@pytest.mark.parametrize("data", [False, True])
def test_a_dry_run_changes_nothing_and_prints_what_runs(
    pg_database: Database, owner: Connection, capsys: pytest.CaptureFixture[str], data: bool
) -> None:
    before = everything(owner), registry(owner), snapshot(owner), answer(owner)
    arguments = ["uninstall", pg_database.owner_url, *["--data"] * data]
    assert cli.main([*arguments, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert (everything(owner), registry(owner), snapshot(owner), answer(owner)) == before
    assert f"drop function {SEARCH};" in text
    assert ("drop_resolution" in text) == data
    assert ("-- codes kept: public.items.embedding_4_f16" in text) == (not data)
    # The text itself does it.
    owner.execute(text.encode())
    assert is_gone(owner)


def test_the_command_reports_and_can_be_repeated(
    pg_database: Database, owner: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["uninstall", pg_database.owner_url]
    assert cli.main([*arguments, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["dry_run"] is True and planned["calibrations"] == 1
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "removed" in said and "codes kept: public.items.embedding_8_bit" in said
    assert "calibrations gone with it: 1" in said
    assert cli.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["action"] == "absent"
    assert cli.main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.pg(18)
def test_functions_that_drop_extension_left_are_removed(pg_database: Database) -> None:
    embedded = pg_database.server.embedded
    with connected(pg_database.owner_url) as owner:
        if pg_database.server.install_mode == "plain":
            if embedded is not None:
                embedded.prepare_extension()
            apply.install(owner, mode="extension", move=True)
        owner.execute("drop extension funnelvec")
        result = uninstall(owner)
        assert (result.action, result.version) == ("uninstalled", None)
        assert result.functions == (SEARCH,)
        assert uninstall(owner).action == "absent"


def test_hostile_names(owner: Connection) -> None:
    schema, table, column = 'a"; drop table items; --', 'it\'s $fv0$\n"x"', "vec';--"
    name = psycopg.sql.Identifier
    owner.execute(psycopg.sql.SQL("create schema {}").format(name(schema)))
    owner.execute(
        psycopg.sql.SQL("create table {} (id integer primary key, {} vector(8))").format(
            name(schema, table), name(column)
        )
    )
    quoted = name(schema, table).as_string(owner)
    owner.execute("select funnelvec.add_resolution(%s, %s, '4:f16')", (quoted, column))
    owner.execute(
        "select funnelvec.create_funnel(%s, %s, %s, '4:f16@9 > 8:f32')", (table, quoted, column)
    )
    result = uninstall(owner, data=True)
    assert len(result.functions) == len(result.dropped) - 1 == 2
    assert is_gone(owner)
    rows = owner.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0"
        " and not attisdropped",
        (quoted,),
    ).fetchall()
    assert rows == [("id",), (column,)]
    assert owner.execute("select count(*) from items").fetchone() == (60,)


def test_the_mark_is_the_one_that_sql_writes(owner: Connection) -> None:
    assert owner.execute("select funnelvec._mark()").fetchone() == (MARK,)


# --- refusals: all or nothing ---------------------------------------------------------------------


def refused(
    conn: Connection, error: type[Exception], message: str, *, owner: Connection, **options: Any
) -> None:
    before = everything(owner), registry(owner), snapshot(owner), answer(owner)
    with pytest.raises(error, match=message):
        uninstall(conn, **options)
    assert (everything(owner), registry(owner), snapshot(owner), answer(owner)) == before


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("create view watch as select * from funnelvec.funnels", "view public.watch"),
        (
            "alter table items add mark text generated always as (funnelvec._mark()) stored",
            "column mark of table public.items",
        ),
        (
            "alter table judgments add made text default funnelvec.version()",
            "default value for column made of table public.judgments",
        ),
        (
            "create index on judgments ((funnelvec._mark() || id::text))",
            "index public.judgments_expr_idx",
        ),
        (
            "create function mine() returns text return funnelvec.version()",
            "function public.mine()",
        ),
        ("create table derived (f funnelvec.funnels)", "column f of table public.derived"),
    ],
)
@pytest.mark.parametrize("data", [False, True])
def test_what_depends_on_funnelvec_is_named_and_kept(
    owner: Connection, statement: str, named: str, data: bool
) -> None:
    owner.execute(statement.encode())
    refused(owner, Conflict, re.escape(named), owner=owner, data=data)


def test_a_table_of_the_users_in_our_schema_is_not_dropped(
    pg_database: Database, owner: Connection
) -> None:
    owner.execute("create table funnelvec.mine as select 1 as x")
    if pg_database.server.install_mode == "plain":
        refused(owner, Conflict, r"did not make \(funnelvec\.mine\)", owner=owner)
    else:
        uninstall(owner)
        assert apply.find_installed(owner) is None
    assert owner.execute("select x from funnelvec.mine").fetchone() == (1,)


def test_a_function_of_the_users_in_our_schema_goes_with_a_plain_install(
    new_database: Callable[..., Database],
) -> None:
    with connected(new_database("vector").owner_url) as owner:
        apply.install(owner, mode="plain")
        owner.execute("create function funnelvec.mine() returns integer return 1")
        uninstall(owner)
        assert is_gone(owner)


def test_another_role_is_refused(pg_database: Database, owner: Connection) -> None:
    with connected(pg_database.other_url) as other:
        refused(other, InstallError, f"other roles: .*({OWNER})", owner=owner)


def test_search_functions_and_columns_of_others_stop_it(
    pg_database: Database, owner: Connection
) -> None:
    """Who installed may not drop what other owners made, so the answer is no, not half."""
    with connected(pg_database.superuser_url) as admin:
        admin.execute(f"grant create on schema public to {OTHER}")
    with connected(pg_database.other_url) as other:
        other.execute("create table theirs (id integer primary key, embedding vector(8))")
        other.execute("select funnelvec.add_resolution('theirs', 'embedding', '4:f16')")
        refused(owner, InstallError, rf"public\.theirs \({OTHER}\)", owner=owner, data=True)
        other.execute(
            "select funnelvec.create_funnel('theirs_search', 'theirs', 'embedding',"
            " '4:f16@9 > 8:f32')"
        )
        refused(owner, InstallError, rf"theirs_search\(.*\({OTHER}\)", owner=owner)
    with connected(pg_database.superuser_url) as admin:
        assert len(uninstall(admin, data=True).functions) == 2


def test_a_view_over_a_code_column_stops_data(owner: Connection) -> None:
    owner.execute("create view codes as select embedding_8_bit from items")
    refused(owner, InstallError, "nothing was kept: .*view public.codes", owner=owner, data=True)
    assert uninstall(owner).action == "uninstalled"
    assert owner.execute("select count(*) from codes").fetchone() == (60,)


def test_the_mode_can_be_insisted_on(pg_database: Database, owner: Connection) -> None:
    mode = pg_database.server.install_mode
    wrong: apply.Mode = "plain" if mode == "extension" else "extension"
    refused(owner, InstallError, f"not --mode {wrong}", owner=owner, mode=wrong)
    assert uninstall(owner, mode=mode).action == "uninstalled"


def test_unknown_mode_and_open_transaction(pg_database: Database, owner: Connection) -> None:
    with pytest.raises(InvalidInput, match="mode='all'"):
        uninstall(owner, mode="all")  # type: ignore[arg-type]
    with psycopg.connect(pg_database.owner_url) as conn:
        conn.execute("select 1")
        with pytest.raises(InvalidInput, match="without an open transaction"):
            uninstall(conn)


def test_a_newer_install_is_left_alone(new_database: Callable[..., Database]) -> None:
    with connected(new_database("vector").owner_url) as owner:
        apply.install(owner, mode="plain")
        owner.execute("update funnelvec._install set version = '9.0.0'")
        with pytest.raises(VersionMismatch, match=r"pip install 'funnelvec==9\.0\.0'"):
            uninstall(owner)
        assert apply.installed_version(owner) == "9.0.0"
