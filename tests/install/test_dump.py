"""pg_dump and pg_restore by the owner of the database: everything comes back, in each format, into each version."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest

import funnelvec as fv
from funnelvec.engines.postgres.cluster import find_binaries
from funnelvec.engines.postgres.embedded import EmbeddedServer
from funnelvec.install import apply
from tests import databases
from tests.databases import OTHER, OWNER, Database, InstallMode, Server, connected
from tests.sql.tables import fill, search, text, vectors

Connection = psycopg.Connection[tuple[Any, ...]]
Format = Literal["custom", "plain"]

Q = text(vectors(1, seed=3)[0])

#: What a restore says that has nothing to do with us: pgvector belongs to an administrator, a newer
#: pg_dump sets what an older server does not know, and what was put there beforehand is there.
EXPECTED = (
    "must be owner of extension",
    'unrecognized configuration parameter "transaction_timeout"',
    'schema "funnelvec" already exists',
    "errors ignored on restore",
)
#: Where an extension goes into a server that has only the plain install.
WITHOUT_FILES = ('extension "funnelvec" is not available', 'extension "funnelvec" does not exist')

STATE = {
    "resolutions": "select table_name::text, column_name, resolution, metric, code_column, index_name"
    "  from funnelvec.resolutions order by 1, 2, 3",
    "funnels": "select table_name::text, name, column_name, funnel, metric, approximate, model,"
    "       calibration, logging from funnelvec.funnels order by 1, 2",
    "calibrations in force": "select f.name, to_jsonb(c) - 'table_name' from funnelvec.funnels as f"
    "  join funnelvec.calibrations as c using (table_name, column_name, model, metric)"
    " where c.version = f.calibration order by 1",
    "functions": "select pronamespace::regnamespace::text, proname, proacl::text, prosrc,"
    "       obj_description(oid, 'pg_proc'), proowner::regrole::text"
    "  from pg_proc where proname in ('products_search', 'Odd one') order by 1, 2",
    "logged": "select id, k, returned, query::text from products_search_log where id = 1",
    "guards": "select polname, polcmd::text, polpermissive,"  # brackets come back in other places
    "       translate(pg_get_expr(polqual, polrelid), '()', ''),"
    "       translate(pg_get_expr(polwithcheck, polrelid), '()', '') from pg_policy"
    " where polrelid = 'products_search_log'::regclass order by 1",
    "faults": "select object, advice from funnelvec.status() where advice <> ''",
}


@dataclass(frozen=True)
class Source:
    database: Database
    mode: InstallMode
    state: dict[str, list[Any]]
    found: list[Any]


def state(conn: Connection) -> dict[str, list[Any]]:
    return {name: conn.execute(query).fetchall() for name, query in STATE.items()}  # type: ignore[call-overload]


def searched(conn: Connection) -> list[Any]:
    plain = search(conn, "products_search", Q, min_relevance=0.2)
    return plain + search(conn, 'shop."Odd one"', Q, filter='{"price": {"$lt": 90}}')


def incoming(rows: int) -> Iterator[Any]:
    """Rows of a load that is interrupted after so many."""
    yield from zip(range(rows), vectors(rows, dims=4), strict=True)
    raise KeyboardInterrupt


def furnish(owner: Connection) -> None:
    """Tables, every kind of name, a calibration of several versions, grants, an interrupted load."""
    inbox = fv.wrap(owner).create("inbox", dims=4)
    with pytest.raises(KeyboardInterrupt):
        inbox.load(incoming(30), batch_size=10)
    owner.execute(f"create schema shop; grant usage on schema shop to {OTHER}")  # type: ignore[arg-type]
    fill(owner, vectors(300))
    fill(owner, vectors(200), table=("shop", 'It"s'), key="Nr", vector="The vector")
    for table, column, resolution, metric in (
        ("products", "embedding", "16:f16", "cosine"),
        ("products", "embedding", "32:bit", "cosine"),
        ('shop."It""s"', "The vector", "16:f16", "euclidean"),
    ):
        owner.execute(
            "select funnelvec.add_resolution(%s, %s, %s, index => true, metric => %s)",
            (table, column, resolution, metric),
        )
    for name, table, column in (
        ("products_search", "products", "embedding"),
        ("Odd one", 'shop."It""s"', "The vector"),
    ):
        owner.execute(
            "select funnelvec.create_funnel(%s, %s, %s, '16:f16@100 > 32:f32', model => 'm\n--')",
            (name, table, column),
        )
    owner.execute(
        """
        create table judgments as
        select q.embedding as query, h.id, h.score > 0.6 as relevant
        from (select * from products where id < 10) as q
        cross join lateral products_search(q.embedding, 20) as h
        """
    )
    for _ in range(2):
        owner.execute("select * from funnelvec.calibrate('products_search', 'judgments')")
    owner.execute("select funnelvec.log_queries('products_search', share => 1)")
    search(owner, "products_search", Q)
    owner.execute(
        f"""
        revoke execute on function products_search from public;
        grant execute on function products_search to {OTHER};
        grant select on products to {OTHER};
        """  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def source(pg_server: Server) -> Iterator[Callable[[InstallMode, str], Source]]:
    """A furnished database per way of installing, made on first use."""
    made: dict[tuple[InstallMode, str], Source] = {}

    def make(mode: InstallMode, installer: str) -> Source:
        if (mode, installer) not in made:
            database = Database(pg_server, databases.new_name(pg_server))
            with connected(pg_server.url()) as admin:
                databases.create_database(
                    admin, database.name, template=pg_server.template("vector")
                )
            if mode == "extension" and pg_server.embedded is not None:
                pg_server.embedded.prepare_extension()
            with connected(pg_server.url(database.name, user=installer)) as conn:
                apply.install(conn, mode=mode)
            with connected(database.owner_url) as owner:
                furnish(owner)
                made[mode, installer] = Source(database, mode, state(owner), searched(owner))
        return made[mode, installer]

    yield make
    with connected(pg_server.url()) as admin:
        for each in made.values():
            databases.drop_database(admin, each.database.name)


@pytest.fixture(scope="module")
def other_server(pg_server: Server) -> Iterator[tuple[Server, int]]:
    """A server of the other major version that the embedded wheel brings."""
    if pg_server.embedded is None:
        pytest.skip("needs the embedded servers of both versions")
    versions = set(find_binaries()) - {pg_server.embedded.postgres_version}
    if not versions:
        pytest.skip("the wheel brings one version of PostgreSQL")
    # Not pytest's own folder: whichever run of pytest starts next closes it to the server's user.
    with (
        tempfile.TemporaryDirectory(prefix="funnelvec-other-") as folder,
        EmbeddedServer.start(
            folder, postgres_version=versions.pop(), settings=databases.FAST
        ) as embedded,
    ):
        server = databases.embedded_server(
            embedded, install_mode="plain", run_id=pg_server.run_id + "o"
        )
        databases.prepare(server)
        yield server, embedded.postgres_version


def restore(
    dump: Source, target: Database, format: Format, folder: Path, *options: str, allowed: Any = ()
) -> None:
    """Dump as the owner, restore as the owner; only what has nothing to do with us may fail."""
    server = dump.database.server
    url = dump.database.owner_url
    newest = max(find_binaries().items())[1]  # pg_restore restores into its own version or older
    if format == "custom":
        file = folder / "dump"
        server.run("pg_dump", "-Fc", "-f", str(file), *options, url)
        command = [str(newest / "pg_restore"), "-d", target.owner_url, str(file)]
        script = None
    else:
        script = server.run("pg_dump", *options, url)
        command = [str(newest / "psql"), "-X", "-q", target.owner_url]
    done = subprocess.run(
        command,
        input=script,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PGOPTIONS": ""},
    )
    wrong = [
        line
        for line in done.stderr.splitlines()
        if ("ERROR:" in line or "error" in line.lower())
        and not any(said in line for said in (*EXPECTED, *allowed))
    ]
    assert not wrong, done.stderr


def assert_complete(dump: Source, target: Database) -> None:
    with connected(target.owner_url) as owner:
        assert state(owner) == dump.state
        assert searched(owner) == dump.found
        assert owner.execute("select count(*) from funnelvec.repair()").fetchone() == (0,)
        # What comes back can be worked with.
        owner.execute("select funnelvec.add_resolution('products', 'embedding', '8:f16')")
        owner.execute("select * from funnelvec.calibrate('products_search', 'judgments')")
    logged = "select count(*) from products_search_log"
    with connected(target.other_url) as other, connected(target.owner_url) as owner:
        before = owner.execute(logged).fetchone()
        assert len(search(other, "products_search", Q)) == 10
        after = owner.execute(logged).fetchone()
        assert before is not None and after == (before[0] + 1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute("select * from products_search_log")


MODES = [pytest.param("extension", marks=pytest.mark.pg(18)), "plain"]


@pytest.mark.parametrize("format", ["custom", "plain"])
@pytest.mark.parametrize("mode", MODES)
def test_into_the_same_version(
    source: Callable[..., Source],
    new_database: Callable[..., Database],
    tmp_path: Path,
    mode: InstallMode,
    format: Format,
) -> None:
    dump = source(mode, OWNER)
    target = new_database("vector")
    restore(dump, target, format, tmp_path)
    assert len(dump.state["calibrations in force"]) == 1
    assert_complete(dump, target)
    with connected(target.owner_url) as owner:  # the whole history, not only what is in force
        assert owner.execute("select count(*) from funnelvec.calibrations").fetchone() == (3,)
        rows = zip(range(50), vectors(50, dims=4), strict=True)
        report = fv.wrap(owner).table("inbox").load(rows)
        assert (report.skipped, report.rows) == (30, 20)


@pytest.mark.parametrize("format", ["custom", "plain"])
@pytest.mark.parametrize("mode", MODES)
def test_into_the_other_version(
    source: Callable[..., Source],
    other_server: tuple[Server, int],
    tmp_path: Path,
    mode: InstallMode,
    format: Format,
) -> None:
    dump = source(mode, OWNER)
    server, _ = other_server
    target = Database(server, databases.new_name(server))
    with connected(server.url()) as admin:
        databases.create_database(admin, target.name, template=server.template("vector"))
    if mode == "extension":
        # That server has no files of the extension; a plain install takes its place.
        with connected(target.owner_url) as owner:
            apply.install(owner, mode="plain")
    restore(dump, target, format, tmp_path, allowed=WITHOUT_FILES)
    assert_complete(dump, target)


@pytest.mark.parametrize("format", ["custom", "plain"])
@pytest.mark.parametrize("mode", MODES)
def test_where_an_administrator_installed(
    source: Callable[..., Source],
    new_database: Callable[..., Database],
    tmp_path: Path,
    mode: InstallMode,
    format: Format,
) -> None:
    """The owner may not read the whole registry; repair reads it back from the functions."""
    dump = source(mode, "postgres")
    target = new_database("vector")
    with connected(target.superuser_url) as admin:
        apply.install(admin, mode=mode)
    options = [] if mode == "extension" else ["--exclude-schema=funnelvec"]
    restore(dump, target, format, tmp_path, *options)
    with connected(target.owner_url) as owner:
        assert searched(owner) == dump.found  # before any repair: functions need no registry
        advice = owner.execute("select object, advice from funnelvec.status()").fetchall()
        assert len(advice) == 5 and all("funnelvec.repair()" in row[1] for row in advice)
        planned = owner.execute("select * from funnelvec.repair(dry_run => true)").fetchall()
        assert owner.execute("select count(*) from funnelvec.funnels").fetchone() == (0,)
        assert owner.execute("select * from funnelvec.repair()").fetchall() == planned
    assert_complete(dump, target)


@pytest.mark.pg(18)
def test_the_extension_stops_no_backup(source: Callable[..., Source], pg_server: Server) -> None:
    """pg_dump without a word about us, by an owner who did not create the extension."""
    dump = source("extension", "postgres")
    script = pg_server.run("pg_dump", dump.database.owner_url)
    assert "CREATE EXTENSION IF NOT EXISTS funnelvec" in script
    assert "COPY funnelvec." not in script


def test_a_schema_alone_comes_back_with_its_definitions(
    source: Callable[..., Source], new_database: Callable[..., Database], tmp_path: Path
) -> None:
    """pg_dump of one schema takes no registry; what it takes is enough."""
    dump = source("plain", OWNER)
    target = new_database()
    restore(dump, target, "custom", tmp_path, "--schema=shop")
    with connected(target.owner_url) as owner:
        owner.execute("select * from funnelvec.repair()")
        kept = owner.execute("select name, metric, model from funnelvec.funnels").fetchall()
        assert kept == [("Odd one", "euclidean", "m\n--")]
        assert owner.execute(STATE["faults"]).fetchall() == []  # type: ignore[arg-type]
        assert len(search(owner, 'shop."Odd one"', Q)) == 10
