"""Extension and plain install, as the role that owns the database and is not a superuser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from funnelvec.errors import InstallError, InvalidInput, VersionMismatch
from funnelvec.install import apply, render
from tests.databases import OTHER, OWNER, Database, Server, connected
from tests.install.sources import packaged

MakeDatabase = Callable[..., Database]
Connection = psycopg.Connection[tuple[Any, ...]]

VERSION = render.load_source().version
extension_only = pytest.mark.pg(18)


@pytest.fixture
def database(new_database: MakeDatabase, pg_server: Server) -> Database:
    """pgvector and no funnelvec, on a server that has the extension's files where it can."""
    if pg_server.embedded is not None and pg_server.embedded.postgres_version >= 18:
        pg_server.embedded.prepare_extension()
    return new_database("vector")


@pytest.fixture
def owner(database: Database) -> Iterator[Connection]:
    with connected(database.owner_url) as connection:
        yield connection


@contextmanager
def text_changed(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Iterator[render.SqlSource]:
    """Install what a later state of the sources would bring."""
    changed = replace(render.load_source(), **changes)
    with packaged(monkeypatch, changed):
        yield changed


def objects(conn: Connection) -> set[tuple[Any, ...]]:
    """What is in the schema, by name and definition."""
    query = """
        select 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid)
          from pg_proc p
         where p.pronamespace = to_regnamespace('funnelvec') and p.prokind in ('f', 'p')
        union all
        select 'relation', c.relname, c.relkind::text
          from pg_class c where c.relnamespace = to_regnamespace('funnelvec')
    """
    return set(conn.execute(query).fetchall())


def is_superuser(conn: Connection) -> bool:
    row = conn.execute("select rolsuper from pg_roles where rolname = current_user").fetchone()
    return bool(row and row[0])


# --- the two ways in ------------------------------------------------------------------------------


@extension_only
def test_create_extension_by_the_owner(owner: Connection) -> None:
    assert not is_superuser(owner)
    owner.execute("create extension funnelvec")
    assert owner.execute("select funnelvec.version()").fetchone() == (VERSION,)
    assert apply.find_installed(owner) == apply.Installed("extension", VERSION)
    assert apply.check_compatible(owner).version == VERSION


@extension_only
def test_install_prefers_the_extension_where_the_server_has_it(owner: Connection) -> None:
    first = apply.install(owner)
    assert (first.mode, first.action, first.version) == ("extension", "installed", VERSION)
    again = apply.install(owner)
    assert (again.mode, again.action, again.sql) == ("extension", "unchanged", "")


def test_plain_install_by_the_owner_is_repeatable(owner: Connection) -> None:
    assert not is_superuser(owner)
    first = apply.install(owner, mode="plain")
    assert (first.mode, first.action, first.version) == ("plain", "installed", VERSION)
    assert first.warnings == ()
    assert owner.execute("select funnelvec.version()").fetchone() == (VERSION,)
    before = objects(owner)

    again = apply.install(owner)
    assert (again.mode, again.action, again.sql) == ("plain", "unchanged", "")
    assert objects(owner) == before
    recorded = owner.execute("select version, sha256 from funnelvec._install").fetchall()
    assert recorded == [(VERSION, render.load_source().sha256)]
    assert apply.installed_version(owner) == VERSION


def test_plain_text_runs_in_psql_twice(database: Database, owner: Connection) -> None:
    text = render.render(render.load_source(), "plain")
    arguments = ("-X", "-q", "-v", "ON_ERROR_STOP=1", database.owner_url)
    assert database.server.run("psql", *arguments, stdin=text).strip() == ""
    before = objects(owner)
    database.server.run("psql", *arguments, stdin=text)
    assert objects(owner) == before
    assert apply.install(owner).action == "unchanged"


def test_install_leaves_the_session_as_it_was(owner: Connection) -> None:
    owner.execute("set search_path = pg_catalog")
    apply.install(owner, mode="plain")
    assert owner.execute("show search_path").fetchone() == ("pg_catalog",)
    assert owner.execute("show client_min_messages").fetchone() == ("notice",)


def test_install_commits_on_a_connection_without_autocommit(database: Database) -> None:
    with psycopg.connect(database.owner_url) as conn:
        apply.install(conn, mode="plain")
        conn.rollback()
        assert apply.installed_version(conn) == VERSION


def test_pgvector_may_live_in_another_schema(new_database: MakeDatabase) -> None:
    database = new_database("empty")
    with connected(database.superuser_url) as admin:
        admin.execute('create schema "Ext ras"; create extension vector schema "Ext ras"')
        admin.execute(f'grant usage on schema "Ext ras" to {OWNER}')
    with connected(database.owner_url) as owner:
        assert apply.install(owner, mode="plain").action == "installed"
        assert owner.execute("select funnelvec.version()").fetchone() == (VERSION,)


# --- changed text of the same version -------------------------------------------------------------


def test_changed_text_replaces_functions_and_keeps_rows(
    owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply.install(owner, mode="plain")
    owner.execute("create table items (id integer primary key, embedding vector(3))")
    owner.execute(
        "insert into funnelvec.resolutions"
        " (table_name, column_name, resolution, metric, code_column)"
        " values ('items', 'embedding', '2:f16', 'cosine', 'embedding_2_f16')"
    )
    body = render.load_source().body + (
        "create or replace function funnelvec._probe() returns integer language sql return 7;\n"
    )
    with text_changed(monkeypatch, body=body) as changed:
        assert apply.install(owner, dry_run=True).action == "replaced"
        assert apply.install(owner).action == "replaced"
        assert apply.install(owner).action == "unchanged"
        assert apply.find_installed(owner) == apply.Installed("plain", VERSION, changed.sha256)
    assert owner.execute("select funnelvec._probe()").fetchone() == (7,)
    assert owner.execute("select resolution from funnelvec.resolutions").fetchall() == [("2:f16",)]


def test_failing_text_changes_nothing(owner: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    apply.install(owner, mode="plain")
    before = objects(owner)
    body = render.load_source().body + "create function funnelvec._new() returns int as 'oops';\n"
    with (
        text_changed(monkeypatch, body=body),
        pytest.raises(InstallError, match="failed, nothing was kept") as caught,
    ):
        apply.install(owner)
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert objects(owner) == before
    assert apply.install(owner).action == "unchanged"


@pytest.mark.parametrize("mode", ["plain", pytest.param("extension", marks=extension_only)])
def test_dry_run_writes_nothing(owner: Connection, mode: apply.Mode) -> None:
    result = apply.install(owner, mode=mode, dry_run=True)
    assert (result.mode, result.action, result.dry_run) == (mode, "installed", True)
    assert "create" in result.sql
    assert owner.execute("select to_regnamespace('funnelvec')").fetchone() == (None,)


# --- refusals -------------------------------------------------------------------------------------


@extension_only
def test_plain_refuses_over_the_extension(owner: Connection) -> None:
    apply.install(owner, mode="extension")
    before = objects(owner)
    with pytest.raises(InstallError, match=r"is an extension in .* --mode plain --move"):
        apply.install(owner, mode="plain")
    # The text itself refuses too, for those who run it by hand.
    with pytest.raises(psycopg.Error, match="already installed as an extension") as caught:
        owner.execute(render.render(render.load_source(), "plain"))
    assert caught.value.sqlstate == "FV010"
    owner.execute("rollback")
    assert objects(owner) == before


@extension_only
def test_the_other_mode_needs_to_be_asked_for(owner: Connection) -> None:
    apply.install(owner, mode="plain")
    before = objects(owner)
    with pytest.raises(InstallError, match=r"is a plain install .* --mode extension --move"):
        apply.install(owner, mode="extension")
    assert objects(owner) == before
    assert apply.install(owner).action == "unchanged"


@pytest.mark.parametrize("mode", ["auto", "plain", pytest.param("extension", marks=extension_only)])
def test_without_pgvector(new_database: MakeDatabase, mode: apply.Mode) -> None:
    database = new_database("empty")
    with connected(database.owner_url) as owner:
        with pytest.raises(
            InstallError, match=r"pgvector is not installed .*create extension vector"
        ):
            apply.install(owner, mode=mode)
        assert owner.execute("select to_regnamespace('funnelvec')").fetchone() == (None,)


def test_plain_text_without_pgvector(new_database: MakeDatabase) -> None:
    with connected(new_database("empty").owner_url) as owner:
        with pytest.raises(psycopg.Error, match="vector") as caught:
            owner.execute(render.render(render.load_source(), "plain"))
        assert caught.value.sqlstate == "FV010"
        owner.execute("rollback")
        assert owner.execute("select to_regnamespace('funnelvec')").fetchone() == (None,)


def pretend_pgvector(database: Database, version: str) -> None:
    """Let the catalog say another version; no old pgvector can be had beside the new one."""
    with connected(database.superuser_url) as admin:
        admin.execute(
            "update pg_catalog.pg_extension set extversion = %s where extname = 'vector'",
            (version,),
        )


@pytest.mark.parametrize("version", ["0.7.4", "0.5.0"])
@pytest.mark.parametrize("mode", ["plain", pytest.param("extension", marks=extension_only)])
def test_too_old_pgvector(
    database: Database, owner: Connection, mode: apply.Mode, version: str
) -> None:
    pretend_pgvector(database, version)
    with pytest.raises(
        InstallError, match=rf"0\.8\.0.*{re.escape(version)}.*alter extension vector"
    ):
        apply.install(owner, mode=mode)
    assert owner.execute("select to_regnamespace('funnelvec')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("version", "warned"), [("0.8.0", True), ("0.8.3", True), ("0.8.4", False), ("0.10.0", False)]
)
def test_pgvector_with_known_faults_is_a_warning(
    database: Database, owner: Connection, version: str, warned: bool
) -> None:
    pretend_pgvector(database, version)
    result = apply.install(owner, mode="plain")
    assert result.action == "installed"
    assert bool(result.warnings) == warned
    assert all(f"pgvector {version}" in line for line in result.warnings)


def test_role_without_create(database: Database) -> None:
    with (
        connected(database.other_url) as other,
        pytest.raises(InstallError, match=rf'grant create on database "\w+" to "{OTHER}"'),
    ):
        apply.install(other, mode="plain")


def test_foreign_schema_is_no_place_to_install_into(database: Database, owner: Connection) -> None:
    """Its owner could replace every function in it."""
    with connected(database.superuser_url) as admin:
        admin.execute(f"create schema funnelvec authorization {OTHER}")
        admin.execute("grant all on schema funnelvec to public")
        for conn in (owner, admin):
            with pytest.raises(InstallError, match=f'belongs to role "{OTHER}"'):
                apply.install(conn, mode="plain")
    assert objects(owner) == set()


def test_empty_schema_of_ones_own_is_taken(owner: Connection) -> None:
    owner.execute("create schema funnelvec")
    assert apply.install(owner, mode="plain").action == "installed"


def test_open_transaction_is_refused(database: Database) -> None:
    with psycopg.connect(database.owner_url) as conn:
        conn.execute("select 1")
        with pytest.raises(InvalidInput, match="without an open transaction"):
            apply.install(conn)


def test_unknown_mode_is_refused(owner: Connection) -> None:
    with pytest.raises(InvalidInput, match="mode='docker': choose one of auto, extension, plain"):
        apply.install(owner, mode="docker")  # type: ignore[arg-type]


def test_extension_that_the_server_does_not_have(
    owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with text_changed(monkeypatch, version="99.0.0"):
        with pytest.raises(InstallError, match=r"99\.0\.0.*make -C sql install"):
            apply.install(owner, mode="extension")
        assert apply.install(owner, dry_run=True).mode == "plain"


# --- what connecting checks -----------------------------------------------------------------------


def test_not_installed(owner: Connection) -> None:
    assert apply.installed_version(owner) is None
    expected = (
        f'funnelvec is not installed in database "{owner.info.dbname}": '
        "run `funnelvec install URL` or `create extension funnelvec`"
    )
    with pytest.raises(InstallError, match=f"^{re.escape(expected)}$"):
        apply.check_compatible(owner)


@pytest.mark.parametrize(
    ("ours", "command"),
    [("0.9.0", "funnelvec upgrade URL"), ("0.0.9", f"pip install 'funnelvec=={VERSION}'")],
)
def test_versions_that_do_not_work_together(
    owner: Connection, monkeypatch: pytest.MonkeyPatch, ours: str, command: str
) -> None:
    apply.install(owner, mode="plain")
    with text_changed(monkeypatch, version=ours):
        for call in (apply.check_compatible, apply.install):
            with pytest.raises(VersionMismatch, match=re.escape(command)) as caught:
                call(owner)
            assert VERSION in str(caught.value) and ours in str(caught.value)


@extension_only
def test_older_extension_names_its_own_command(
    owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply.install(owner, mode="extension")
    with (
        text_changed(monkeypatch, version="0.9.0"),
        pytest.raises(VersionMismatch, match=r"alter extension funnelvec update to '0\.9\.0'"),
    ):
        apply.check_compatible(owner)


def test_patch_releases_work_together(owner: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    apply.install(owner, mode="plain")
    major, minor, patch = VERSION.split(".")
    with text_changed(monkeypatch, version=f"{major}.{minor}.{int(patch) + 1}"):
        assert apply.check_compatible(owner).version == VERSION


def test_plain_text_of_another_version_is_refused(owner: Connection) -> None:
    apply.install(owner, mode="plain")
    newer = replace(render.load_source(), version="9.9.9")
    with pytest.raises(psycopg.Error, match=rf"funnelvec {VERSION} is installed .* 9\.9\.9"):
        owner.execute(render.render(newer, "plain"))


def test_role_that_may_not_read_is_told_what_to_grant(
    database: Database, owner: Connection
) -> None:
    apply.install(owner, mode="plain")
    owner.execute("revoke usage on schema funnelvec from public")
    with connected(database.other_url) as other:
        with pytest.raises(InstallError, match=f'grant usage on schema funnelvec to "{OTHER}"'):
            apply.check_compatible(other)
        assert other.execute("select 1").fetchone() == (1,)


def test_checking_does_not_disturb_an_open_transaction(database: Database) -> None:
    with psycopg.connect(database.owner_url) as conn:
        conn.execute("create temporary table t (x integer)")
        with pytest.raises(InstallError):
            apply.check_compatible(conn)
        assert conn.execute("select count(*) from t").fetchone() == (0,)


def test_checking_leaves_no_transaction_open(database: Database) -> None:
    with psycopg.connect(database.owner_url) as conn:
        assert apply.installed_version(conn) is None
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
