"""Options and fixtures for every test.

One server per run, one database per test. The database belongs to a role that is not a superuser
and has pgvector and funnelvec in it::

    def test_something(owner_conn):                 # psycopg connection as the owner, autocommit
    def test_url(owner_url, superuser_url): ...     # of the same database
    def test_roles(pg_database):                    # .owner_url .superuser_url .other_url .name
    def test_bare(new_database):                    # new_database("vector"), new_database("empty")
    def test_dump(pg_server, pg_database):          # pg_server.run("pg_dump", "-Fc", url, ...)
    @pytest.mark.pg(18)                             # needs PostgreSQL 18 or newer
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from funnelvec.errors import MissingDependency

if TYPE_CHECKING:
    import psycopg

    from tests.databases import Database, Kind, Server

# Repeatable by default: a failure that comes and goes with the seed stops nobody's work.
# `--hypothesis-profile explore` looks for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", max_examples=2000, deadline=None)
hypothesis.settings.load_profile("repeatable")

_FOLDER = "FUNNELVEC_TEST_FOLDER"
_ROOM = 4 << 30

# Without the extra, the pure tests still run. `make test` must not pass by leaving tests out,
# so it requires the database (and then the import error shows).
_REQUIRED = "postgres" in os.environ.get("FUNNELVEC_REQUIRE", "")
if importlib.util.find_spec("psycopg") is None and not _REQUIRED:
    collect_ignore = ["agreement", "docker", "install", "sql"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("funnelvec")
    group.addoption(
        "--pg-version", type=int, choices=(16, 18), default=18, help="embedded PostgreSQL to run"
    )
    group.addoption(
        "--pg-dsn",
        default=os.environ.get("FUNNELVEC_TEST_DSN"),
        help="superuser's address of another server with pgvector (env: FUNNELVEC_TEST_DSN)",
    )
    group.addoption(
        "--install-mode",
        choices=("extension", "plain"),
        help="how funnelvec gets into the test databases (default: extension where the server can)",
    )


def _memory() -> str | None:
    """A folder in memory, where there is room for the test databases; None: the usual one.

    Every test gets a database of its own, a copy of three hundred files: on a disk that is most of
    the time that the tests take.
    """
    folder = Path("/dev/shm")
    with contextlib.suppress(OSError, ValueError):
        if os.access(folder, os.W_OK) and os.path.ismount(folder):
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            if min(shutil.disk_usage(folder).free, memory // 2) >= _ROOM:
                return str(folder)
    return None


def pytest_configure(config: pytest.Config) -> None:
    # Set before pytest-xdist starts its workers, which inherit it and so share one server.
    if not hasattr(config, "workerinput"):
        os.environ[_FOLDER] = tempfile.mkdtemp(prefix="funnelvec-tests-", dir=_memory())


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and _FOLDER in os.environ:
        folder = Path(os.environ.pop(_FOLDER))
        if (folder / "external").exists():
            from tests.databases import drop_templates

            drop_templates(_server(config, folder))
        shutil.rmtree(folder, ignore_errors=True)


def pytest_report_header(config: pytest.Config) -> str:
    mode = config.getoption("--install-mode") or "extension where the server can"
    return f"funnelvec: {_describe_server(config)}; install mode: {mode}"


def _describe_server(config: pytest.Config) -> str:
    dsn = config.getoption("--pg-dsn")
    if dsn:
        import psycopg

        with psycopg.connect(dsn) as connection:
            found = connection.execute(
                "select current_setting('server_version'), default_version"
                "  from pg_available_extensions where name = 'vector'"
            ).fetchone()
        postgres, pgvector = found or ("?", "none")
        return f"PostgreSQL {postgres}, pgvector {pgvector} (--pg-dsn)"
    # Read from the files: a run of unit tests should not start a server for its header.
    try:
        from funnelvec.engines.postgres.cluster import find_binaries

        root = find_binaries()[config.getoption("--pg-version")].parent
    except MissingDependency as error:
        return f"no PostgreSQL ({error})"
    control = (root / "share/postgresql/extension/vector.control").read_text()
    pgvector = control.partition("default_version = '")[2].partition("'")[0]
    return f"embedded PostgreSQL {config.getoption('--pg-version')}, pgvector {pgvector}"


def _server(config: pytest.Config, folder: Path) -> Server:
    from funnelvec.engines.postgres.cluster import find_binaries
    from funnelvec.engines.postgres.embedded import EmbeddedServer
    from tests import databases

    mode = config.getoption("--install-mode")
    run_id = folder.name.rpartition("-")[2].lower()
    dsn = config.getoption("--pg-dsn")
    if dsn:
        # An older pg_dump refuses a newer server, never the other way round.
        newest = max(find_binaries().items())[1]
        (folder / "external").touch()
        return databases.external_server(
            dsn, bin_dir=newest, install_mode=mode or "plain", run_id=run_id
        )
    version = config.getoption("--pg-version")
    if mode == "extension" and version < 18:
        raise pytest.UsageError(f"PostgreSQL {version} cannot load our extension from a folder")
    embedded = EmbeddedServer.start(
        folder / "server", postgres_version=version, settings=databases.FAST
    )
    return databases.embedded_server(embedded, install_mode=mode, run_id=run_id)


@pytest.fixture(scope="session")
def pg_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server of this run; roles and templates are made on first use."""
    try:
        server = _server(request.config, Path(os.environ[_FOLDER]))
    except ImportError as error:
        if _REQUIRED:
            raise
        pytest.skip(f"needs PostgreSQL: {error}")
    from tests.databases import connected, drop_finished, prepare

    try:
        prepare(server)
        with connected(server.url()) as admin:
            server.held.append(admin)
            yield server
            server.held.clear()
    finally:
        with connected(server.url()) as admin:
            drop_finished(admin, server)
        if server.embedded is not None:
            server.embedded.stop()


@pytest.fixture(autouse=True)
def _respect_pg_marker(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("pg")
    if marker is None:
        return
    from tests.databases import administered

    with administered(request.getfixturevalue("pg_server")) as connection:
        version = connection.info.server_version // 10000
    if version < marker.args[0]:
        pytest.skip(f"needs PostgreSQL {marker.args[0]}, this is {version}")


@pytest.fixture
def new_database(pg_server: Server) -> Iterator[Callable[..., Database]]:
    """Make databases: with funnelvec (default), with ``"vector"`` only, or ``"empty"``."""
    from tests import databases

    made: list[str] = []

    def make(kind: Kind = "funnelvec") -> Database:
        name = databases.new_name(pg_server)
        databases.create_database(admin, name, template=pg_server.template(kind))
        made.append(name)
        return databases.Database(pg_server, name)

    with databases.administered(pg_server) as admin:
        yield make
        databases.drop_finished(admin, pg_server)
    pg_server.done_with.extend(made)


@pytest.fixture
def pg_database(new_database: Callable[..., Database]) -> Database:
    """A fresh database with pgvector and funnelvec, owned by a role that is not a superuser."""
    return new_database()


@pytest.fixture
def superuser_url(pg_database: Database) -> str:
    """URL of the test's database for the superuser."""
    return pg_database.superuser_url


@pytest.fixture
def owner_url(pg_database: Database) -> str:
    """URL of the test's database for its owner."""
    return pg_database.owner_url


@pytest.fixture
def owner_conn(owner_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection to the test's database as its owner, in autocommit mode."""
    from tests.databases import connected

    with connected(owner_url) as connection:
        yield connection
