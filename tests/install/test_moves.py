"""From the plain install to the extension and back: everything stays, nobody is tricked."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import funnelvec as fv
from funnelvec.errors import InstallError, InvalidInput, VersionMismatch
from funnelvec.install import apply
from tests.databases import OTHER, OWNER, Database, Server, connected
from tests.install.catalog import members, snapshot
from tests.install.sources import NOW, answer, registry, seed

Connection = psycopg.Connection[tuple[Any, ...]]
MakeDatabase = Callable[..., Database]

pytestmark = pytest.mark.pg(18)


@pytest.fixture
def database(new_database: MakeDatabase, pg_server: Server) -> Database:
    """pgvector and no funnelvec, on a server that has the extension's files."""
    if pg_server.embedded is not None:
        pg_server.embedded.prepare_extension()
    return new_database("vector")


@pytest.fixture
def owner(database: Database) -> Iterator[Connection]:
    with connected(database.owner_url) as connection:
        yield connection


def state(conn: Connection) -> tuple[Any, ...]:
    """Everything that must not be lost: registry, columns, answers, and who may do what."""
    columns = conn.execute(
        "select attname, attnum from pg_attribute where attrelid = 'items'::regclass"
    ).fetchall()
    return registry(conn), columns, answer(conn), answer(conn, ", min_relevance => 0.5")


@pytest.mark.parametrize("role", ["owner", "superuser"])
def test_there_and_back_again(database: Database, new_database: MakeDatabase, role: str) -> None:
    """As either role; and afterwards the catalog is that of a fresh install."""

    def open_(one: Database) -> Any:
        return connected(one.owner_url if role == "owner" else one.superuser_url)

    with open_(database) as conn, open_(new_database("vector")) as fresh:
        apply.install(conn, mode="plain")
        seed(conn)
        plain, before = snapshot(conn), state(conn)

        there = apply.install(conn, mode="extension", move=True)
        assert (there.action, there.mode, there.previous) == ("moved", "extension", NOW)
        assert state(conn) == before
        assert snapshot(conn) == plain
        apply.install(fresh, mode="extension")
        granted = "funnelvec.version()"  # the one grant of `seed`
        ours, theirs = members(conn), members(fresh)
        assert {m for m in ours if granted not in m[0]} == {
            m for m in theirs if granted not in m[0]
        }
        assert conn.execute("select count(*) from funnelvec._install").fetchone() == (0,)
        assert apply.install(conn).action == "unchanged"

        back = apply.install(conn, mode="plain", move=True)
        assert (back.action, back.mode) == ("moved", "plain")
        assert state(conn) == before
        assert snapshot(conn) == plain
        assert members(conn) == set()
        found = apply.find_installed(conn)
        assert found is not None and (found.mode, found.version) == ("plain", NOW)
        assert apply.install(conn).action == "unchanged"


def test_create_extension_alone_takes_over(owner: Connection) -> None:
    """For those who have no Python: plain SQL does the same."""
    apply.install(owner, mode="plain")
    seed(owner)
    before = state(owner)
    owner.execute("create extension funnelvec")
    assert state(owner) == before
    assert apply.find_installed(owner) == apply.Installed("extension", NOW)


def test_columns_that_use_our_functions_are_not_in_the_way(owner: Connection) -> None:
    """Objects move as they are, so that nothing which depends on one of them has to go."""
    apply.install(owner, mode="plain")
    seed(owner)
    owner.execute("create view watch as select version() as postgres, funnelvec.version() as ours")
    owner.execute("alter table items add label text generated always as (funnelvec._mark()) stored")
    apply.install(owner, mode="extension", move=True)
    apply.install(owner, mode="plain", move=True)
    assert owner.execute("select ours from watch").fetchone() == (NOW,)
    assert owner.execute("select count(label) from items").fetchone() == (60,)


def test_rows_are_dumped_and_restored_after_a_move(
    database: Database, owner: Connection, new_database: MakeDatabase, pg_server: Server
) -> None:
    """pg_dump leaves out the rows of an extension's tables unless it was told about them."""
    apply.install(owner, mode="plain")
    seed(owner)
    apply.install(owner, mode="extension", move=True)
    text = pg_server.run("pg_dump", database.owner_url)
    target = new_database("vector")
    # The owner of the database owns no pgvector, on whose comment pg_dump insists.
    quiet = ("-X", "-q", "-o", "/dev/null", target.owner_url)
    pg_server.run("psql", *quiet, stdin=text)
    with connected(target.owner_url) as restored:
        assert registry(restored) == registry(owner)
        assert answer(restored) == answer(owner)


def test_the_dry_run_moves_nothing(owner: Connection) -> None:
    apply.install(owner, mode="plain")
    result = apply.install(owner, mode="extension", move=True, dry_run=True)
    assert (result.action, result.sql) == ("moved", f"create extension funnelvec version '{NOW}'")
    assert apply.install(owner).mode == "plain"


def test_where_to_has_to_be_said(owner: Connection) -> None:
    with pytest.raises(InvalidInput, match="move goes with mode="):
        apply.install(owner, move=True)


def test_moving_to_where_it_is_already_does_nothing(owner: Connection) -> None:
    apply.install(owner, mode="plain")
    assert apply.install(owner, mode="plain", move=True).action == "unchanged"


# --- refusals -------------------------------------------------------------------------------------


def refused(conn: Connection, message: str) -> None:
    before = snapshot(conn)
    with pytest.raises(psycopg.Error, match=message) as caught:
        conn.execute("create extension funnelvec")
    assert caught.value.sqlstate == "FV010"
    assert snapshot(conn) == before
    assert apply.find_installed(conn) is not None


def test_an_administrator_does_not_take_over_what_others_planted(
    database: Database, owner: Connection
) -> None:
    """Functions of an ordinary role must not become part of a superuser's extension."""
    apply.install(owner, mode="plain")
    with connected(database.superuser_url) as admin:
        refused(admin, f"belongs to role {OWNER}, not to postgres")
        admin.execute(f"set role {OWNER}")
        admin.execute("create extension funnelvec")
        row = admin.execute(
            "select extowner::regrole::text from pg_extension where extname = 'funnelvec'"
        ).fetchone()
        assert row == (OWNER,)


def test_one_function_of_another_role_is_enough(database: Database, owner: Connection) -> None:
    apply.install(owner, mode="plain")
    with connected(database.superuser_url) as admin:
        admin.execute(f"grant create on schema funnelvec to {OTHER}")
    with connected(database.other_url) as other:
        other.execute("create function funnelvec.planted() returns integer return 1")
    refused(owner, f"belongs to role {OTHER}, not to {OWNER}")


def test_a_table_of_the_users_in_our_schema_is_not_taken_over(owner: Connection) -> None:
    """It would be gone with the next `drop extension`."""
    apply.install(owner, mode="plain")
    owner.execute('create table funnelvec."My Table" (x integer)')
    refused(owner, r'did not make: funnelvec\."My Table"')


def test_only_the_same_version_is_taken_over(owner: Connection) -> None:
    apply.install(owner, mode="plain")
    owner.execute("update funnelvec._install set version = '0.0.9'")
    refused(owner, rf"plain install is of version 0\.0\.9, the extension of {NOW}")
    with pytest.raises(VersionMismatch, match="run `funnelvec upgrade URL`"):
        apply.install(owner, mode="extension", move=True)


def test_an_extension_of_another_role_stays_one(database: Database, owner: Connection) -> None:
    with connected(database.superuser_url) as admin:
        apply.install(admin, mode="extension")
        before = members(admin)
        with pytest.raises(InstallError, match="must be owner of extension funnelvec"):
            apply.install(owner, mode="plain", move=True)
        assert members(admin) == before


def test_the_list_of_tables_to_take_over_is_complete(owner: Connection) -> None:
    """sql/parts/05_adopt.sql names them; a table that is added has to be added there too."""
    apply.install(owner, mode="plain")
    assert apply.install(owner, mode="extension", move=True).action == "moved"


# --- drop extension, and what is left -------------------------------------------------------------


def test_drop_extension_keeps_columns_indexes_and_functions(
    database: Database, owner: Connection
) -> None:
    apply.install(owner, mode="extension")
    seed(owner)
    found, filtered = answer(owner), answer(owner, """, filter => '{"id": {"$lt": 30}}'""")
    columns = owner.execute(
        "select attname, attnum from pg_attribute where attrelid = 'items'::regclass"
    ).fetchall()
    indexes = owner.execute("select indexrelid from pg_index").fetchall()
    owner.execute("drop extension funnelvec")

    assert (
        columns
        == owner.execute(
            "select attname, attnum from pg_attribute where attrelid = 'items'::regclass"
        ).fetchall()
    )
    assert set(indexes) > set(owner.execute("select indexrelid from pg_index").fetchall())
    assert owner.execute("select count(embedding_4_f16) from items").fetchone() == (60,)
    # Gone: the registry, and with it the compiler of filters. Searches without a filter go on.
    assert owner.execute("select to_regclass('funnelvec.calibrations')").fetchone() == (None,)
    assert answer(owner) == found
    with pytest.raises(psycopg.errors.UndefinedFunction, match=r"funnelvec\._filter_sql"):
        answer(owner, """, filter => '{"id": {"$lt": 30}}'""")
    with pytest.raises(InstallError, match="funnelvec is not installed"):
        fv.connect(database.owner_url)

    # Installed again: functions work, and the columns are taken over as they are.
    owner.execute("create extension funnelvec")
    assert answer(owner, """, filter => '{"id": {"$lt": 30}}'""") == filtered
    owner.execute("select funnelvec.add_resolution('items', 'embedding', '4:f16', index => true)")
    owner.execute("select funnelvec.add_resolution('items', 'embedding', '8:bit')")
    owner.execute(
        "select funnelvec.create_funnel('items_search', 'items', 'embedding', '4:f16@40 > 8:f32')"
    )
    assert (
        columns
        == owner.execute(
            "select attname, attnum from pg_attribute where attrelid = 'items'::regclass"
        ).fetchall()
    )
    assert [row[:2] for row in answer(owner)] == [row[:2] for row in found]


def test_dropping_pgvector_under_a_plain_install_is_refused(
    database: Database, owner: Connection
) -> None:
    apply.install(owner, mode="plain")
    with (
        connected(database.superuser_url) as admin,
        pytest.raises(psycopg.errors.DependentObjectsStillExist),
    ):
        admin.execute("drop extension vector")
    assert apply.install(owner).action == "unchanged"


def test_psql_moves_by_the_printed_text(database: Database, owner: Connection) -> None:
    """What the dry run prints is what a DBA can run."""
    apply.install(owner, mode="extension")
    seed(owner)
    before = state(owner)
    text = apply.install(owner, mode="plain", move=True, dry_run=True).sql
    done = subprocess.run(
        [str(database.server.bin_dir / "psql"), "-X1q", "-vON_ERROR_STOP=1", database.owner_url],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert state(owner) == before
    assert apply.install(owner).mode == "plain"
