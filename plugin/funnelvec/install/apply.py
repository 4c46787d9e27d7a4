"""Put the SQL side into a database, and find out what is there.

Connecting never installs anything: engines call `check_compatible`, which only reads. Every
function takes a psycopg connection that the caller opened, because the right role is the caller's
choice: it becomes the owner of what is installed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from funnelvec.errors import InstallError, InvalidInput, VersionMismatch
from funnelvec.install.render import SqlSource, load_source, render

if TYPE_CHECKING:
    import psycopg
    from typing_extensions import LiteralString

    Connection = psycopg.Connection[Any]
    AsyncConnection = psycopg.AsyncConnection[Any]
    Info = psycopg.ConnectionInfo
    Row: TypeAlias = tuple[Any, ...] | None
    # Statements go out, the first row of each comes in: what is asked does not depend on how.
    Reading: TypeAlias = Generator[LiteralString, Row, "Installed | None"]

__all__ = [
    "InstallResult",
    "Installed",
    "check_compatible",
    "check_compatible_async",
    "find_installed",
    "install",
    "installed_version",
]

Mode = Literal["auto", "extension", "plain"]
Action = Literal["installed", "replaced", "unchanged"]


@dataclass(frozen=True, slots=True)
class Installed:
    """What a database has: `sha256` is the hash of the SQL text, kept by plain installs only."""

    mode: Literal["extension", "plain"]
    version: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class InstallResult:
    """What `install` did, or would do.

    Attributes
    ----------
    database, mode, version
        Where, how and what.
    action
        ``"installed"``; ``"replaced"`` when the same version was there with another text; and
        ``"unchanged"``.
    dry_run
        Whether nothing was written.
    sql
        The text that was run, or would be; empty when nothing is to be done.
    warnings
        What the server remarked, one line each.
    """

    database: str
    mode: Literal["extension", "plain"]
    version: str
    action: Action
    dry_run: bool
    sql: str
    warnings: tuple[str, ...] = ()


def install(conn: Connection, *, mode: Mode = "auto", dry_run: bool = False) -> InstallResult:
    """Install funnelvec into the database of a connection; repeatable.

    Parameters
    ----------
    conn
        A connection without an open transaction. Its role becomes the owner; it needs ``create``
        on the database and no superuser.
    mode
        ``"extension"`` runs ``create extension`` (the server must have the files), ``"plain"``
        runs the same SQL as a tracked script. ``"auto"`` keeps to what is there; in a new database
        it takes the extension if the server offers this version, else the script.
    dry_run
        Find out what would be done, and write nothing.

    Raises
    ------
    InstallError
        If the database is not fit for it (no pgvector, or too old), the other mode is in use, or
        the role may not; nothing has been changed then.
    VersionMismatch
        If another version is installed; the message says what to run.
    """
    from psycopg.pq import TransactionStatus

    if mode not in get_args(Mode):
        raise InvalidInput(f"mode={mode!r}: choose one of {', '.join(get_args(Mode))}")
    if conn.info.transaction_status != TransactionStatus.IDLE:
        raise InvalidInput(
            "install needs a connection without an open transaction: commit or roll back first"
        )
    source = load_source()
    warnings: list[str] = []
    with _errors(conn), _notices(conn, warnings):
        if dry_run:
            with conn.transaction(force_rollback=True):
                result = _plan(conn, source, mode)
        else:
            with conn.transaction():
                result = _plan(conn, source, mode)
                if result.sql:
                    _run_script(conn, result.sql)
    return InstallResult(
        database=result.database,
        mode=result.mode,
        version=result.version,
        action=result.action,
        dry_run=dry_run,
        sql=result.sql,
        warnings=tuple(warnings),
    )


def find_installed(conn: Connection) -> Installed | None:
    """Read which version is installed and how; None if there is none. Writes nothing.

    Raises
    ------
    InstallError
        If a plain install is there that the connection's role may not read.
    """
    from psycopg import Cursor
    from psycopg.rows import tuple_row

    reading = _reading(conn.info)
    # A savepoint where a transaction is open, so that no failure of ours can break it.
    with conn.transaction(), Cursor(conn, row_factory=tuple_row) as cursor:
        try:
            query = next(reading)
            while True:
                query = reading.send(cursor.execute(query).fetchone())
        except StopIteration as done:
            return cast("Installed | None", done.value)


def _reading(info: Info) -> Reading:
    """Find out what is installed, whoever sends the statements."""
    row = yield "select extversion from pg_catalog.pg_extension where extname = 'funnelvec'"
    if row is not None:
        return Installed("extension", row[0])
    row = yield (
        "select pg_catalog.has_schema_privilege(n.oid, 'usage')"
        "       and pg_catalog.has_table_privilege(c.oid, 'select')"
        "  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = 'funnelvec' and c.relname = '_install'"
    )
    if row is None:
        return None
    if not row[0]:
        raise InstallError(
            f'role "{info.user}" may not use funnelvec in database "{info.dbname}": '
            f'as its owner run `grant usage on schema funnelvec to "{info.user}"`'
        )
    row = yield "select version, sha256 from funnelvec._install order by applied_at desc limit 1"
    return None if row is None else Installed("plain", row[0], row[1])


def installed_version(conn: Connection) -> str | None:
    """Version of the SQL side in the database of a connection; None if it is not installed."""
    found = find_installed(conn)
    return None if found is None else found.version


def check_compatible(conn: Connection) -> Installed:
    """Make sure that this package and the database's SQL side work together; only reads.

    They do when their versions agree in the first two numbers: a patch release changes no
    signature.

    Raises
    ------
    InstallError
        If funnelvec is not installed in the database.
    VersionMismatch
        If it is of a version that this package does not work with.
    """
    return _compatible(conn.info, find_installed(conn))


async def check_compatible_async(conn: AsyncConnection) -> Installed:
    """Make sure of the same on an asynchronous connection; see `check_compatible`."""
    from psycopg import AsyncCursor
    from psycopg.rows import tuple_row

    reading = _reading(conn.info)
    async with conn.transaction(), AsyncCursor(conn, row_factory=tuple_row) as cursor:
        try:
            query = next(reading)
            while True:
                await cursor.execute(query)
                query = reading.send(await cursor.fetchone())
        except StopIteration as done:
            return _compatible(conn.info, cast("Installed | None", done.value))


def _compatible(info: Info, found: Installed | None) -> Installed:
    if found is None:
        raise InstallError(
            f'funnelvec is not installed in database "{info.dbname}": '
            "run `funnelvec install URL` or `create extension funnelvec`"
        )
    ours = load_source().version
    if _series(found.version) != _series(ours):
        raise _mismatch(info, found, ours)
    return found


def _plan(conn: Connection, source: SqlSource, mode: Mode) -> InstallResult:
    """Decide what is to be run, from the catalog alone."""
    found = find_installed(conn)
    if found is not None:
        if mode not in ("auto", found.mode):
            raise _other_mode(conn, found)
        if found.version != source.version:
            raise _mismatch(conn.info, found, source.version)
        if found.mode == "extension" or found.sha256 == source.sha256:
            return _result(conn, source, found.mode, "unchanged")
        return _result(conn, source, found.mode, "replaced")
    _require_pgvector(conn)
    offered = _row(
        conn,
        "select version from pg_catalog.pg_available_extension_versions"
        " where name = 'funnelvec' and version = %s",
        source.version,
    )
    if mode == "auto":
        mode = "plain" if offered is None else "extension"
    if mode == "extension" and offered is None:
        raise InstallError(
            f"the server does not have the files of the extension funnelvec {source.version}: "
            "put them there with `make -C sql install`, or use the plain mode, which needs none"
        )
    return _result(conn, source, mode, "installed")


def _result(
    conn: Connection,
    source: SqlSource,
    mode: Literal["extension", "plain"],
    action: Action,
) -> InstallResult:
    text = ""
    if action != "unchanged":
        text = f"create extension funnelvec version '{source.version}'"
        if mode == "plain":
            text = render(source, "plain", transaction=False)
    return InstallResult(
        database=conn.info.dbname,
        mode=mode,
        version=source.version,
        action=action,
        dry_run=False,
        sql=text,
    )


def _require_pgvector(conn: Connection) -> None:
    # The SQL text checks its version; asked here, since create extension has no advice to give.
    if _row(conn, "select from pg_catalog.pg_extension where extname = 'vector'") is None:
        raise InstallError(
            f'pgvector is not installed in database "{conn.info.dbname}": run `create extension '
            "vector` there first (an administrator's job on most servers)"
        )


def _other_mode(conn: Connection, found: Installed) -> InstallError:
    if found.mode == "extension":
        return InstallError(
            f'funnelvec {found.version} is an extension in database "{conn.info.dbname}": '
            "a plain install beside it is refused, and not needed"
        )
    return InstallError(
        f'funnelvec {found.version} is a plain install in database "{conn.info.dbname}": '
        "the extension cannot be created over it; keep to `funnelvec install --mode plain`"
    )


def _mismatch(info: Info, found: Installed, ours: str) -> VersionMismatch:
    what = (
        f'database "{info.dbname}" has funnelvec {found.version} ({found.mode}), '
        f"the Python package is {ours}"
    )
    if _numbers(found.version) > _numbers(ours):
        return VersionMismatch(f"{what}: run `pip install 'funnelvec=={found.version}'`")
    if found.mode == "extension":
        return VersionMismatch(f"{what}: run `alter extension funnelvec update to '{ours}'`")
    return VersionMismatch(f"{what}: run `funnelvec upgrade URL`")


def _series(version: str) -> tuple[int, ...]:
    return _numbers(version)[:2]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _row(conn: Connection, query: LiteralString, *values: object) -> tuple[Any, ...] | None:
    from psycopg.rows import tuple_row

    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query, values or None).fetchone()


def _run_script(conn: Connection, text: str) -> None:
    # Our own files, and no parameters: psycopg then sends the whole text as it is.
    conn.execute(text)


@contextmanager
def _notices(conn: Connection, collected: list[str]) -> Iterator[None]:
    def collect(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            text = [diagnostic.message_primary, diagnostic.message_hint]
            collected.append(" ".join(filter(None, text)))

    conn.add_notice_handler(collect)
    try:
        yield
    finally:
        conn.remove_notice_handler(collect)


@contextmanager
def _errors(conn: Connection) -> Iterator[None]:
    """Turn the driver's errors into ours, with what to do next."""
    import psycopg

    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise InstallError(
            f'role "{conn.info.user}" may not install into database "{conn.info.dbname}" '
            f"({error.diag.message_primary}): as the database's owner run "
            f'`grant create on database "{conn.info.dbname}" to "{conn.info.user}"`'
        ) from error
    except psycopg.Error as error:
        said = [error.diag.message_primary or str(error), error.diag.message_hint]
        text = "; ".join(filter(None, said))
        if error.sqlstate != "FV010":
            text = f'installing into database "{conn.info.dbname}" failed, nothing was kept: {text}'
        raise InstallError(text) from error
