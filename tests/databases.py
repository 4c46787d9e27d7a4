"""The server that the tests use, and the databases they get on it. Fixtures are in conftest.py."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from funnelvec.engines.postgres.embedded import EmbeddedServer
from funnelvec.install import apply

if TYPE_CHECKING:
    from typing_extensions import LiteralString

OWNER = "app_owner"
"""Role that owns every test database and is not a superuser: who a user usually is."""

OTHER = "app_other"
"""Role with no rights of its own: who must not get at the owner's things."""

Kind = Literal["funnelvec", "vector", "empty"]
InstallMode = Literal["extension", "plain"]

# A test server may lose everything in a crash of the machine; waiting for the disk buys nothing.
FAST = {
    "fsync": False,
    "synchronous_commit": False,
    "full_page_writes": False,
    "autovacuum": False,  # plans and statistics change when a test says so, not when a timer does
    "max_connections": 60,
}


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server with pgvector on which this run may make databases and roles."""

    address: Callable[[str, str], str]
    bin_dir: Path
    install_mode: InstallMode
    run_id: str
    embedded: EmbeddedServer | None
    done_with: list[str] = field(default_factory=list)
    #: A connection of the superuser, where one is held open for the whole run; see `administered`.
    held: list[psycopg.Connection[tuple[Any, ...]]] = field(default_factory=list)

    def url(self, dbname: str = "postgres", *, user: str = "postgres") -> str:
        """URL of a database for `user`; ``postgres`` stands for the superuser."""
        return self.address(dbname, user)

    def run(self, tool: str, *arguments: str, stdin: str | None = None) -> str:
        """Run psql, pg_dump, pg_restore ... of the server's own version; return what it printed."""
        done = subprocess.run(
            [str(self.bin_dir / tool), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PSQLRC": os.devnull, "PGOPTIONS": ""},
        )
        assert done.returncode == 0, f"{tool} failed ({done.returncode}):\n{done.stderr}"
        return done.stdout

    def template(self, kind: Kind) -> str:
        """Name of the database that new ones of this `kind` are copied from."""
        return "template1" if kind == "empty" else f"fv_{self.run_id}_{kind}"


@dataclass(frozen=True, slots=True)
class Database:
    """A database of one test."""

    server: Server
    name: str

    @property
    def superuser_url(self) -> str:
        return self.server.url(self.name)

    @property
    def owner_url(self) -> str:
        return self.server.url(self.name, user=OWNER)

    @property
    def other_url(self) -> str:
        return self.server.url(self.name, user=OTHER)


def embedded_server(
    server: EmbeddedServer, *, install_mode: InstallMode | None, run_id: str
) -> Server:
    if install_mode is None:
        install_mode = "extension" if server.postgres_version >= 18 else "plain"
    return Server(
        address=lambda dbname, user: server.url(dbname, user=user),
        bin_dir=server.bin_dir,
        install_mode=install_mode,
        run_id=run_id,
        embedded=server,
    )


def external_server(dsn: str, *, bin_dir: Path, install_mode: InstallMode, run_id: str) -> Server:
    given = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}

    def address(dbname: str, user: str) -> str:
        parameters = dict(given)
        parameters.pop("dbname", None)
        if user != "postgres":
            parameters |= {"user": user, "password": user}
        return f"postgresql:///{quote(dbname, safe='')}?{urlencode(parameters, quote_via=quote)}"

    return Server(address, bin_dir, install_mode, run_id, None)


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@contextmanager
def administered(server: Server) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """The superuser's connection that is held open, which a small test would take as long to make."""
    if server.held:
        yield server.held[0]
        return
    with connected(server.url()) as admin:
        yield admin


def prepare(server: Server) -> None:
    """Make roles and templates, once per run: pytest-xdist runs this in every worker."""
    with connected(server.url()) as admin:
        admin.execute("select pg_advisory_lock(hashtext('funnelvec tests'))")
        for role in (OWNER, OTHER):
            if not _exists(admin, "select from pg_roles where rolname = %s", role):
                command = sql.SQL("create role {} login password {}")
                admin.execute(command.format(sql.Identifier(role), sql.Literal(role)))
        for kind in ("vector", "funnelvec"):
            name = server.template(kind)
            if not _exists(admin, "select from pg_database where datname = %s", name):
                create_database(admin, name, template=_below(server, kind))
                _fill(server, kind)


def _exists(admin: psycopg.Connection[Any], query: LiteralString, name: str) -> bool:
    return admin.execute(query, (name,)).fetchone() is not None


def _below(server: Server, kind: Kind) -> str:
    return server.template("vector" if kind == "funnelvec" else "empty")


def _fill(server: Server, kind: Kind) -> None:
    name = server.template(kind)
    try:
        if kind == "vector":
            with connected(server.url(name)) as admin:
                admin.execute("create extension vector")
        else:
            if server.embedded is not None and server.install_mode == "extension":
                server.embedded.prepare_extension()
            # As the owner: who installs is who the tests are about.
            with connected(server.url(name, user=OWNER)) as owner:
                apply.install(owner, mode=server.install_mode)
    except BaseException:
        # Half a template would make every other worker, and the next test, fail less clearly.
        with connected(server.url()) as admin:
            drop_database(admin, name)
        raise


def create_database(admin: psycopg.Connection[Any], name: str, *, template: str) -> None:
    # Copying the files is faster than logging every page of a database as small as these.
    command = sql.SQL("create database {} template {} owner {} strategy file_copy")
    admin.execute(command.format(*map(sql.Identifier, (name, template, OWNER))))


def drop_database(admin: psycopg.Connection[Any], name: str) -> None:
    command = sql.SQL("drop database if exists {} with (force)")
    admin.execute(command.format(sql.Identifier(name)))


def drop_finished(admin: psycopg.Connection[Any], server: Server) -> None:
    """Drop the databases of tests before this one.

    Not right after a test: its connections have just been closed, and a server that still sees
    one of them sleeps for a tenth of a second before it drops the database.
    """
    while server.done_with:
        drop_database(admin, server.done_with.pop())


@contextmanager
def copied(server: Server, template: str) -> Iterator[Database]:
    """A database of one test, copied from `template`; dropped when the next one is made."""
    database = Database(server, new_name(server))
    with administered(server) as admin:
        create_database(admin, database.name, template=template)
        drop_finished(admin, server)
    yield database
    server.done_with.append(database.name)


def drop_templates(server: Server) -> None:
    with connected(server.url()) as admin:
        drop_finished(admin, server)
        for kind in ("funnelvec", "vector"):
            drop_database(admin, server.template(kind))


def new_name(server: Server) -> str:
    return f"fv_{server.run_id}_{uuid.uuid4().hex[:12]}"
