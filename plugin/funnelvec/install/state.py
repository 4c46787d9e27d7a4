"""What a database has of funnelvec, and whether this package works with it. Only reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from funnelvec.errors import InstallError, InvalidInput, VersionMismatch
from funnelvec.install.render import SqlSource, load_source

if TYPE_CHECKING:
    import psycopg
    from typing_extensions import LiteralString

    Connection = psycopg.Connection[Any]

__all__ = [
    "Installed",
    "can_update",
    "check_compatible",
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
    # A savepoint where a transaction is open, so that no failure of ours can break it.
    with conn.transaction():
        row = first_row(
            conn, "select extversion from pg_catalog.pg_extension where extname='funnelvec'"
        )
        if row is not None:
            return Installed("extension", row[0])
        row = first_row(
            conn,
            "select pg_catalog.has_schema_privilege(n.oid, 'usage')"
            "       and pg_catalog.has_table_privilege(c.oid, 'select')"
            "  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = 'funnelvec' and c.relname = '_install'",
        )
        if row is None:
            return None
        if not row[0]:
            raise InstallError(
                f'role "{conn.info.user}" may not use funnelvec in database "{conn.info.dbname}": '
                f'as its owner run `grant usage on schema funnelvec to "{conn.info.user}"`'
            )
        row = first_row(
            conn,
            "select version, sha256 from funnelvec._install order by applied_at desc limit 1",
        )
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
    found = find_installed(conn)
    if found is None:
        raise not_installed(conn)
    source = load_source()
    if _numbers(found.version)[:2] != _numbers(source.version)[:2]:
        raise mismatch(conn, found, source)
    return found


def not_installed(conn: Connection) -> InstallError:
    """Build the error for a database without funnelvec."""
    return InstallError(
        f'funnelvec is not installed in database "{conn.info.dbname}": '
        "run `funnelvec install URL` or `create extension funnelvec`"
    )


def mismatch(conn: Connection, found: Installed, source: SqlSource) -> VersionMismatch:
    """Build the error for two versions that differ: both, and the one command that helps."""
    ours = source.version
    what = (
        f'database "{conn.info.dbname}" has funnelvec {found.version} ({found.mode}), '
        f"the Python package is {ours}"
    )
    if is_newer(found, source):
        return VersionMismatch(f"{what}: run `pip install 'funnelvec=={found.version}'`")
    if found.mode == "plain":
        return VersionMismatch(f"{what}: run `funnelvec upgrade URL`")
    update = f"{what}: run `alter extension funnelvec update to '{ours}'`"
    if can_update(conn, found.version, ours):
        return VersionMismatch(update)
    return VersionMismatch(
        f"{update}, once the server has the files of {ours} (`make -C sql install` there)"
    )


def is_newer(found: Installed, source: SqlSource) -> bool:
    """Whether the database is ahead of the package."""
    return _numbers(found.version) > _numbers(source.version)


def can_update(conn: Connection, start: str, end: str) -> bool:
    """Whether the server's files (or pg_tle, which is not asked) take the extension to `end`."""
    with conn.transaction():
        if first_row(conn, "select 1 from pg_catalog.pg_extension where extname = 'pg_tle'"):
            return True
        # The paths of an extension without a control file cannot even be asked for.
        if not first_row(
            conn, "select 1 from pg_catalog.pg_available_extensions where name = 'funnelvec'"
        ):
            return False
        query: LiteralString = (
            "select path is not null from pg_catalog.pg_extension_update_paths('funnelvec')"
            " where source = %s and target = %s"
        )
        return first_row(conn, query, start, end) == (True,)


def first_row(conn: Connection, query: LiteralString, *values: object) -> tuple[Any, ...] | None:
    """Run a query and return its first row as a tuple, whatever the connection's row factory."""
    from psycopg.rows import tuple_row

    with conn.cursor(row_factory=tuple_row) as cursor:
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
