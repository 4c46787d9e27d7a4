"""The A--B chain: an upgraded database equals a fresh one, in both modes and for every role.

Version 0.1.0 is the first, so the versions before and after it are made here
(`tests.install.sources.Versions`); the real SQL is the one in the middle.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

import funnelvec as fv
from funnelvec import cli
from funnelvec.errors import InstallError, InvalidInput, VersionMismatch
from funnelvec.install import apply, render
from tests.databases import OTHER, OWNER, Database, Server, connected
from tests.install.catalog import members, snapshot
from tests.install.sources import NEW, NEXT, NOW, OLD, Versions, answer, packaged, registry, seed

Connection = psycopg.Connection[tuple[Any, ...]]
MakeDatabase = Callable[..., Database]
As = Callable[[str], AbstractContextManager[None]]

extension_only = pytest.mark.pg(18)
MODES = ["plain", pytest.param("extension", marks=extension_only)]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return Versions(tmp_path_factory.mktemp("versions"))


@pytest.fixture
def package(versions: Versions, monkeypatch: pytest.MonkeyPatch) -> As:
    """`with package(OLD)`: the Python package of that version."""
    return lambda version: packaged(monkeypatch, versions.source(version))


@pytest.fixture
def database(new_database: MakeDatabase, pg_server: Server, versions: Versions) -> Database:
    """pgvector and no funnelvec, on a server with the files of all versions where it can."""
    embedded = pg_server.embedded
    if embedded is not None and embedded.postgres_version >= 18:
        versions.publish(embedded.prepare_extension())
    return new_database("vector")


@pytest.fixture
def owner(database: Database) -> Iterator[Connection]:
    with connected(database.owner_url) as connection:
        yield connection


def old(conn: Connection, versions: Versions, mode: str) -> None:
    """Install the old version, as somebody did who had the package of then."""
    if mode == "extension":
        conn.execute(f"create extension funnelvec version '{OLD}'")
    else:
        conn.execute(render.render(versions.source(OLD), "plain").encode())
    assert conn.execute("select funnelvec.version()").fetchone() == (OLD,)


def differences(one: dict[Any, Any], other: dict[Any, Any]) -> list[Any]:
    return [
        (key, one.get(key), other.get(key))
        for key in one.keys() | other.keys()
        if one.get(key) != other.get(key)
    ]


async def connect_async(url: str) -> None:
    await fv.connect_async(url)


# --- fresh and upgraded are equal -----------------------------------------------------------------


@pytest.mark.parametrize("role", ["owner", "superuser"])
@pytest.mark.parametrize("target", [NOW, NEW])
@pytest.mark.parametrize("mode", MODES)
def test_upgraded_equals_fresh(
    database: Database,
    new_database: MakeDatabase,
    versions: Versions,
    package: As,
    mode: apply.Mode,
    target: str,
    role: str,
) -> None:
    def open_(one: Database) -> Any:
        return connected(one.owner_url if role == "owner" else one.superuser_url)

    with open_(database) as upgraded, open_(new_database("vector")) as fresh, package(target):
        old(upgraded, versions, mode)
        result = apply.upgrade(upgraded)
        assert (result.action, result.mode, result.previous) == ("upgraded", mode, OLD)
        if mode == "plain":
            apply.install(fresh, mode="plain")
        else:
            fresh.execute(f"create extension funnelvec version '{target}'")
        assert differences(snapshot(upgraded), snapshot(fresh)) == []
        assert members(upgraded) == members(fresh)
        assert apply.find_installed(upgraded) == apply.find_installed(fresh)
        assert apply.upgrade(upgraded).action == apply.install(upgraded).action == "unchanged"


@extension_only
@pytest.mark.parametrize("statement", ["update", f"update to '{NEW}'"])
def test_alter_extension_runs_the_same_text(
    owner: Connection, versions: Versions, package: As, statement: str
) -> None:
    """In plain SQL; without a version it goes to the one that the server has as its default."""
    old(owner, versions, "extension")
    owner.execute(f"alter extension funnelvec {statement}")
    version = NEW if NEW in statement else NOW
    by_hand = snapshot(owner)
    assert owner.execute("select funnelvec.version()").fetchone() == (version,)
    owner.execute("drop extension funnelvec")
    old(owner, versions, "extension")
    with package(version):
        apply.upgrade(owner)
    assert snapshot(owner) == by_hand


@pytest.mark.parametrize("mode", MODES)
def test_rows_searches_and_grants_survive(
    owner: Connection, versions: Versions, package: As, mode: str
) -> None:
    old(owner, versions, mode)
    seed(owner)
    before = registry(owner), answer(owner), answer(owner, ", min_relevance => 0.5")
    assert len(before[0]) == 4 and before[1]
    with package(NEXT):
        apply.upgrade(owner)
    owner.execute("revoke execute on function funnelvec._probe(integer) from public")
    owner.execute(f"grant execute on function funnelvec._probe(integer) to {OTHER}")
    with package(NEW):
        apply.upgrade(owner)
    assert (registry(owner), answer(owner), answer(owner, ", min_relevance => 0.5")) == before
    assert owner.execute("select created_at is not null from funnelvec.resolutions").fetchall()
    # A function whose signature changed, and one that was replaced: grants are as they were.
    for name, role, may in (
        ("_probe(integer, integer)", OTHER, True),
        ("_probe(integer, integer)", "public", False),
        ("version()", OTHER, True),
    ):
        found = owner.execute(
            "select has_function_privilege(%s, 'funnelvec.' || %s, 'execute')"
            if role != "public"
            else "select exists (select from aclexplode((select proacl from pg_proc"
            " where oid = ('funnelvec.' || %s)::regprocedure)) where grantee = 0)",
            (role, name) if role != "public" else (name,),
        ).fetchone()
        assert found == (may,), (name, role)


def test_the_whole_upgrade_is_one_transaction(
    owner: Connection, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step fails: those before it are not kept."""
    old(owner, versions, "plain")
    before = snapshot(owner)
    source = versions.source(NEW)
    *first, last = source.migrations
    broken = (last[0], last[1] + "select 1 / 0;\n")
    with (
        packaged(monkeypatch, replace(source, migrations=(*first, broken))),
        pytest.raises(InstallError, match=r"upgrading funnelvec in .* nothing was kept: division"),
    ):
        apply.upgrade(owner)
    assert snapshot(owner) == before
    assert apply.installed_version(owner) == OLD


def test_psql_runs_the_printed_text_once(
    database: Database,
    owner: Connection,
    versions: Versions,
    package: As,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    old(owner, versions, "plain")
    with package(NEW):
        assert cli.main(["upgrade", database.owner_url, "--dry-run"]) == 0
        text = capsys.readouterr().out
        assert apply.installed_version(owner) == OLD
        (tmp_path / "upgrade.sql").write_text(text)
        psql = ("-X1q", "-vON_ERROR_STOP=1", "-f", str(tmp_path / "upgrade.sql"))
        database.server.run("psql", *psql, database.owner_url)
        assert apply.upgrade(owner).action == "unchanged"
        # Again, over what is there now, it is refused as a whole.
        with pytest.raises(psycopg.Error, match=f"brings funnelvec {OLD} to {NOW}.* has {NEW}"):
            owner.execute(text.encode())


def outdated(conn: Connection, name: str) -> None:
    """Let a search function be one that an older version wrote."""
    row = conn.execute(
        "select pg_get_functiondef(oid), prosrc from pg_proc where proname = %s", (name,)
    ).fetchone()
    assert row is not None
    conn.execute(row[0].replace(row[1], row[1] + "\n-- of old"))


def old_ones(conn: Connection) -> list[str]:
    rows = conn.execute("select proname from pg_proc where prosrc like '%-- of old' order by 1")
    return [row[0] for row in rows.fetchall()]


@pytest.fixture
def two_owners(
    database: Database, owner: Connection, versions: Versions, request: pytest.FixtureRequest
) -> str:
    """The old version with an outdated search function of the owner and one of another role."""
    mode: str = request.param
    old(owner, versions, mode)
    seed(owner)
    outdated(owner, "items_search")
    owner.execute(f"grant create, usage on schema public to {OTHER}")
    with connected(database.other_url) as other:
        other.execute("create table theirs (id integer primary key, embedding vector(8))")
        other.execute(
            "select funnelvec.create_funnel('theirs_search', 'theirs', 'embedding', '8:f32')"
        )
        outdated(other, "theirs_search")
        other.execute(f"grant select on theirs to {OWNER}")
    return mode


@pytest.mark.parametrize("two_owners", MODES, indirect=True)
def test_an_upgrade_writes_search_functions_again(
    database: Database,
    owner: Connection,
    package: As,
    two_owners: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Those of the role's own tables; of others it says who has to run what."""
    assert old_ones(owner) == ["items_search", "theirs_search"]
    found = answer(owner)
    with package(NEW):
        assert cli.main(["upgrade", database.owner_url]) == 0
    (warning,) = capsys.readouterr().out.splitlines()[1:]
    assert warning == (
        "warning: search functions were written by an older funnelvec: public.theirs_search of "
        f"{OTHER} As the owner of their tables run: select * from funnelvec.repair();"
    )
    assert old_ones(owner) == ["theirs_search"]
    assert answer(owner) == found
    with connected(database.other_url) as other:
        other.execute("select * from funnelvec.repair()")
    assert old_ones(owner) == []


@pytest.mark.parametrize("two_owners", ["plain"], indirect=True)
def test_the_printed_text_writes_search_functions_again(
    database: Database, owner: Connection, two_owners: str, versions: Versions
) -> None:
    owner.execute(render.render_upgrade(versions.source(NEW), OLD).encode())
    assert old_ones(owner) == ["theirs_search"]


@extension_only
@pytest.mark.parametrize("two_owners", ["extension"], indirect=True)
def test_alter_extension_says_that_search_functions_are_old(
    database: Database, owner: Connection, two_owners: str
) -> None:
    """It may not write them: they would belong to the extension."""
    said: list[tuple[str | None, ...]] = []
    owner.add_notice_handler(
        lambda d: said.append((d.severity_nonlocalized, d.message_primary, d.message_hint))
    )
    owner.execute("alter extension funnelvec update")
    ((_, message, hint),) = [each for each in said if each[0] == "WARNING"]
    assert message is not None and "items_search" in message and "theirs_search" in message
    assert hint is not None and "funnelvec.repair()" in hint
    assert old_ones(owner) == ["items_search", "theirs_search"]
    named = owner.execute("select object, advice from funnelvec.status() where resolution is null")
    assert [row[0] for row in named.fetchall()] == [
        "function public.items_search", "function public.theirs_search"
    ]  # fmt: skip
    owner.execute("select * from funnelvec.repair()")
    assert old_ones(owner) == ["theirs_search"]


def test_steps_are_recorded_one_by_one(owner: Connection, versions: Versions, package: As) -> None:
    old(owner, versions, "plain")
    with package(NEW):
        apply.upgrade(owner)
    rows = owner.execute("select version from funnelvec._install order by applied_at").fetchall()
    assert rows == [(OLD,), (NOW,), (NEXT,), (NEW,)]


# --- refusals -------------------------------------------------------------------------------------


def test_nothing_to_upgrade(owner: Connection, versions: Versions) -> None:
    with pytest.raises(InstallError, match=r"is not installed .* run `funnelvec install URL`"):
        apply.upgrade(owner)
    with pytest.raises(psycopg.Error, match="has none") as caught:
        owner.execute(render.render_upgrade(versions.source(NEW), NOW).encode())
    assert caught.value.sqlstate == "FV010"
    owner.execute("rollback")
    assert owner.execute("select to_regnamespace('funnelvec')").fetchone() == (None,)


@pytest.mark.parametrize("mode", MODES)
def test_another_role_cannot_upgrade(
    database: Database, owner: Connection, versions: Versions, package: As, mode: str
) -> None:
    old(owner, versions, mode)
    before = snapshot(owner)
    expected = {"plain": f'belongs to role "{OWNER}"', "extension": "must be owner of extension"}
    with (
        connected(database.other_url) as other,
        package(NEW),
        pytest.raises(InstallError, match=expected[mode]),
    ):
        apply.upgrade(other)
    assert snapshot(owner) == before


def test_an_administrator_does_not_upgrade_the_plain_install_of_an_ordinary_role(
    database: Database, owner: Connection, versions: Versions, package: As
) -> None:
    """Its owner could have put functions of their own where the administrator's would run."""
    old(owner, versions, "plain")
    with (
        connected(database.superuser_url) as admin,
        package(NEW),
        pytest.raises(InstallError, match=f'belongs to role "{OWNER}"'),
    ):
        apply.upgrade(admin)


@extension_only
def test_the_server_lacks_the_files(
    owner: Connection, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    old(owner, versions, "extension")
    unknown = replace(versions.source(NEW), version="0.9.9")
    with packaged(monkeypatch, unknown):
        with pytest.raises(InstallError, match=r"from 0\.0\.1 to 0\.9\.9.*make -C sql install"):
            apply.upgrade(owner)
        with pytest.raises(VersionMismatch, match=r"update to '0\.9\.9'`, once .*make -C sql"):
            apply.check_compatible(owner)


def test_no_migration_leads_here(
    owner: Connection, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    old(owner, versions, "plain")
    source = versions.source(NEW)
    with (
        packaged(monkeypatch, replace(source, migrations=source.migrations[:1])),
        pytest.raises(InstallError, match=rf"from funnelvec {OLD} to {NEW} .*ends at {NOW}"),
    ):
        apply.upgrade(owner)


def test_an_open_transaction_is_refused(database: Database) -> None:
    with psycopg.connect(database.owner_url) as conn:
        conn.execute("select 1")
        with pytest.raises(InvalidInput, match="without an open transaction"):
            apply.upgrade(conn)


# --- a client that is newer or older than the SQL -------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_newer_client_says_what_to_run_and_then_works(
    database: Database, owner: Connection, versions: Versions, package: As, mode: str
) -> None:
    """What the message says is run here to the letter."""
    old(owner, versions, mode)
    seed(owner)
    expected = answer(owner)
    with package(NEW):
        for call in (
            lambda: fv.connect(database.owner_url),
            lambda: fv.wrap(owner),
            lambda: asyncio.run(connect_async(database.owner_url)),
            lambda: apply.install(owner),
        ):
            with pytest.raises(VersionMismatch, match=f"funnelvec {OLD} .* package is {NEW}") as e:
                call()
        command = re.findall(r"`(.*?)`", str(e.value))[0]
        if mode == "extension":
            assert command == f"alter extension funnelvec update to '{NEW}'"
            owner.execute(command.encode())
        else:
            assert command == "funnelvec upgrade URL"
            assert cli.main(command.replace("URL", database.owner_url).split()[1:]) == 0
        with fv.connect(database.owner_url) as pg:
            items = pg.table("items")
            vector = owner.execute("select embedding::text from items where id = 5").fetchone()
            assert vector is not None
            query = [float(x) for x in vector[0].strip("[]").split(",")]
            found = items.search(query, k=5)
    assert [hit.id for hit in found] == [row[0] for row in expected]


@pytest.mark.parametrize("mode", MODES)
def test_an_older_client_names_the_package_to_get(
    database: Database, owner: Connection, versions: Versions, package: As, mode: str
) -> None:
    old(owner, versions, mode)
    with package(NEW):
        apply.upgrade(owner)
    before = snapshot(owner)
    for call in (
        lambda: fv.connect(database.owner_url),
        lambda: apply.install(owner),
        lambda: apply.upgrade(owner),
    ):
        with pytest.raises(VersionMismatch, match=re.escape(f"pip install 'funnelvec=={NEW}'")):
            call()
    assert snapshot(owner) == before


@pytest.mark.parametrize("patch", ["newer", "older"])
def test_patch_releases_work_with_each_other(
    database: Database,
    owner: Connection,
    versions: Versions,
    monkeypatch: pytest.MonkeyPatch,
    patch: str,
) -> None:
    """Of the same major.minor: no upgrade is needed to search, calibrate and look inside."""
    apply.install(owner, mode="plain")
    seed(owner)
    source = render.load_source()
    major, minor, _ = source.version.split(".")
    if patch == "older":
        owner.execute("update funnelvec._install set version = %s", (f"{major}.{minor}.7",))
    else:
        source = replace(source, version=f"{major}.{minor}.7")
    with packaged(monkeypatch, source), fv.connect(database.owner_url) as pg:
        items = pg.table("items")
        assert len(items.search([1.0] * 8, k=3)) == 3
        assert items.explain([1.0] * 8, k=3).stages


# --- the command ----------------------------------------------------------------------------------


def test_the_command_reports_what_it_did(
    database: Database,
    owner: Connection,
    versions: Versions,
    package: As,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = database.owner_url
    old(owner, versions, "plain")
    with package(NEW):
        assert cli.main(["upgrade", url, "--dry-run", "--json"]) == 0
        assert f'"previous": "{OLD}"' in capsys.readouterr().out
        assert cli.main(["upgrade", url]) == 0
        assert f"funnelvec {NEW} (plain)" in (said := capsys.readouterr().out)
        assert f"upgraded from {OLD}" in said
        assert cli.main(["upgrade", url]) == 0
        assert "nothing to do" in capsys.readouterr().out
    assert cli.main(["upgrade", url]) == 1
    assert f"pip install 'funnelvec=={NEW}'" in capsys.readouterr().err
