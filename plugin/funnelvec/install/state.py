"""What a database has of funnelvec, and whether this package works with it. Only reads."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

from funnelvec.errors import InstallError, InvalidInput, VersionMismatch
from funnelvec.install.render import SqlSource, load_source

if TYPE_CHECKING:
    import psycopg
    from typing_extensions import LiteralString

    Connection = psycopg.Connection[Any]
    AsyncConnection = psycopg.AsyncConnection[Any]
    Info = psycopg.ConnectionInfo

_Result = TypeVar("_Result")

# Statements with their values go out, the first row of each comes in: what is asked does not depend
# on how it is sent.
Reading: TypeAlias = (
    "Generator[tuple[LiteralString, tuple[object, ...] | None], tuple[Any, ...] | None, _Result]"
)

__all__ = [
    "Installed",
    "can_update",
    "check_compatible",
    "check_compatible_async",
    "find_installed",
    "first_row",
    "installed_version",
    "is_newer",
    "mismatch",
    "not_installed",
    "require_idle",
    "translated",
]


@dataclass(frozen=True, slots=True)
class Installed:
    """What a database has: `sha256` is the hash of the SQL text, kept by plain installs only."""

    mode: Literal["extension", "plain"]
    version: str
    sha256: str | None = None


def find_installed(conn: Connection) -> Installed | None:
    """Read which version is installed and how; None if there is none. Writes nothing.

    Raises
    ------
    InstallError
        If a plain install is there that the connection's role may not read.
    """
    return _carry_out(conn, _finding(conn.info))


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
    return _carry_out(conn, _checking(conn.info))


async def check_compatible_async(conn: AsyncConnection) -> Installed:
    """Make sure of the same on an asynchronous connection; see `check_compatible`."""
    from psycopg import AsyncCursor
    from psycopg.rows import tuple_row

    reading = _checking(conn.info)
    async with conn.transaction(), AsyncCursor(conn, row_factory=tuple_row) as cursor:
        try:
            asked = next(reading)
            while True:
                await cursor.execute(*asked)
                asked = reading.send(await cursor.fetchone())
        except StopIteration as done:
            return cast("Installed", done.value)


def _carry_out(conn: Connection, reading: Reading[_Result]) -> _Result:
    from psycopg import Cursor
    from psycopg.rows import tuple_row

    # A savepoint where a transaction is open, so that no failure of ours can break it.
    with conn.transaction(), Cursor(conn, row_factory=tuple_row) as cursor:
        try:
            asked = next(reading)
            while True:
                asked = reading.send(cursor.execute(*asked).fetchone())
        except StopIteration as done:
            return cast("_Result", done.value)


def _finding(info: Info) -> Reading[Installed | None]:
    """Find out what is installed, whoever sends the statements."""
    row = yield "select extversion from pg_catalog.pg_extension where extname = 'funnelvec'", None
    if row is not None:
        return Installed("extension", row[0])
    row = yield (
        "select pg_catalog.has_schema_privilege(n.oid, 'usage')"
        "       and pg_catalog.has_table_privilege(c.oid, 'select')"
        "  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = 'funnelvec' and c.relname = '_install'",
        None,
    )
    if row is None:
        return None
    if not row[0]:
        raise InstallError(
            f'role "{info.user}" may not use funnelvec in database "{info.dbname}": '
            f'as its owner run `grant usage on schema funnelvec to "{info.user}"`'
        )
    query: LiteralString = (
        "select version, sha256 from funnelvec._install order by applied_at desc limit 1"
    )
    row = yield query, None
    return None if row is None else Installed("plain", row[0], row[1])


def _checking(info: Info) -> Reading[Installed]:
    found = yield from _finding(info)
    if found is None:
        raise not_installed(info)
    source = load_source()
    if _numbers(found.version)[:2] != _numbers(source.version)[:2]:
        raise (yield from _explaining(info, found, source))
    return found


def not_installed(info: Info) -> InstallError:
    """Build the error for a database without funnelvec."""
    return InstallError(
        f'funnelvec is not installed in database "{info.dbname}": '
        "run `funnelvec install URL` or `create extension funnelvec`"
    )


def mismatch(conn: Connection, found: Installed, source: SqlSource) -> VersionMismatch:
    """Build the error for two versions that differ: both, and the one command that helps."""
    return _carry_out(conn, _explaining(conn.info, found, source))


def _explaining(info: Info, found: Installed, source: SqlSource) -> Reading[VersionMismatch]:
    ours = source.version
    what = (
        f'database "{info.dbname}" has funnelvec {found.version} ({found.mode}), '
        f"the Python package is {ours}"
    )
    if is_newer(found, source):
        return VersionMismatch(f"{what}: run `pip install 'funnelvec=={found.version}'`")
    if found.mode == "plain":
        return VersionMismatch(f"{what}: run `funnelvec upgrade URL`")
    update = f"{what}: run `alter extension funnelvec update to '{ours}'`"
    if (yield from _updatable(found.version, ours)):
        return VersionMismatch(update)
    return VersionMismatch(
        f"{update}, once the server has the files of {ours} (`make -C sql install` there)"
    )


def is_newer(found: Installed, source: SqlSource) -> bool:
    """Whether the database is ahead of the package."""
    return _numbers(found.version) > _numbers(source.version)


def can_update(conn: Connection, start: str, end: str) -> bool:
    """Whether the server's files (or pg_tle, which is not asked) take the extension to `end`."""
    return _carry_out(conn, _updatable(start, end))


def _updatable(start: str, end: str) -> Reading[bool]:
    row = yield "select 1 from pg_catalog.pg_extension where extname = 'pg_tle'", None
    if row is not None:
        return True
    # The paths of an extension without a control file cannot even be asked for.
    query: LiteralString = (
        "select 1 from pg_catalog.pg_available_extensions where name = 'funnelvec'"
    )
    row = yield query, None
    if row is None:
        return False
    query = (
        "select path is not null from pg_catalog.pg_extension_update_paths('funnelvec')"
        " where source = %s and target = %s"
    )
    row = yield query, (start, end)
    return row == (True,)


def first_row(conn: Connection, query: LiteralString, *values: object) -> tuple[Any, ...] | None:
    """Run a query and return its first row as a tuple, whatever the connection's row factory."""
    from psycopg import Cursor
    from psycopg.rows import tuple_row

    with Cursor(conn, row_factory=tuple_row) as cursor:
        return cursor.execute(query, values or None).fetchone()


def require_idle(conn: Connection, what: str) -> None:
    """Refuse a connection whose transaction is the caller's: ours must be the whole of it."""
    from psycopg.pq import TransactionStatus

    if conn.info.transaction_status != TransactionStatus.IDLE:
        raise InvalidInput(
            f"{what} needs a connection without an open transaction: commit or roll back first"
        )


@contextmanager
def translated(conn: Connection, doing: str) -> Iterator[None]:
    """Turn the driver's errors into ours, with what to do next; `doing` as in "installing into"."""
    import psycopg

    database = f'database "{conn.info.dbname}"'
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        said = error.diag.message_primary or str(error)
        way_out = ""
        if said.startswith("permission denied for database"):
            way_out = (
                f': as the database\'s owner run `grant create on {database} to "{conn.info.user}"`'
            )
        raise InstallError(
            f'{doing} {database} was refused to role "{conn.info.user}", nothing was changed: '
            f"{said}{way_out}"
        ) from error
    except psycopg.Error as error:
        diagnostic = error.diag
        # Of a refusal to drop, the detail says what depends on it, and the hint to drop that too.
        in_use = error.sqlstate == "2BP01"
        more = diagnostic.message_detail if in_use else diagnostic.message_hint
        text = "; ".join(filter(None, (diagnostic.message_primary or str(error), more)))
        if error.sqlstate != "FV010":
            text = f"{doing} {database} failed, nothing was kept: {text}"
        raise InstallError(text) from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
