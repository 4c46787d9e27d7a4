"""Put the SQL side into a database, bring it up to date, move it between the two modes.

Connecting never installs anything: engines call `check_compatible`, which only reads. Every
function takes a psycopg connection that the caller opened, because the right role is the caller's
choice: it becomes the owner of what is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from funnelvec.errors import InstallError, InvalidInput
from funnelvec.install.render import (
    SqlSource,
    load_source,
    render,
    render_move,
    render_upgrade,
)
from funnelvec.install.state import (
    Installed,
    can_update,
    check_compatible,
    check_compatible_async,
    find_installed,
    first_row,
    installed_version,
    is_newer,
    mismatch,
    not_installed,
    require_idle,
    translated,
)

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]

__all__ = [
    "InstallResult",
    "Installed",
    "check_compatible",
    "check_compatible_async",
    "find_installed",
    "install",
    "installed_version",
    "upgrade",
]

_TO_REPAIR = "01FV1"

Mode = Literal["auto", "extension", "plain"]
Action = Literal["installed", "replaced", "upgraded", "moved", "unchanged"]


@dataclass(frozen=True, slots=True)
class InstallResult:
    """What `install` or `upgrade` did, or would do.

    Attributes
    ----------
    database, mode, version
        Where, how and what.
    action
        ``"installed"``; ``"replaced"`` when the same version was there with another text;
        ``"upgraded"``; ``"moved"`` from the other mode; and ``"unchanged"``.
    dry_run
        Whether nothing was written.
    sql
        The text that was run, or would be; empty when nothing is to be done.
    warnings
        What the server remarked, one line each.
    previous
        The version that was there before; None if there was none.
    """

    database: str
    mode: Literal["extension", "plain"]
    version: str
    action: Action
    dry_run: bool
    sql: str
    warnings: tuple[str, ...] = ()
    previous: str | None = None


def install(
    conn: Connection, *, mode: Mode = "auto", move: bool = False, dry_run: bool = False
) -> InstallResult:
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
    move
        Where funnelvec is installed in the other mode, change over to `mode`. Everything stays:
        registry, calibrations, grants, search functions, columns.
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
    if mode not in get_args(Mode):
        raise InvalidInput(f"mode={mode!r}: choose one of {', '.join(get_args(Mode))}")
    if move and mode == "auto":
        raise InvalidInput("move goes with mode='extension' or mode='plain': where to?")
    require_idle(conn, "install")
    return _carry_out(
        conn, lambda source: _plan(conn, source, mode, move), "installing into", dry_run=dry_run
    )


def upgrade(conn: Connection, *, dry_run: bool = False) -> InstallResult:
    """Bring what is installed to the version of this package, in the mode it is in; repeatable.

    A plain install runs the migrations from its version on in one transaction, an extension runs
    ``alter extension funnelvec update``: the same text. Registry and calibrations stay. Search
    functions are written again where the connection's role owns the table; a warning names those
    of other owners, who run ``funnelvec.repair()``.

    Parameters
    ----------
    conn
        A connection without an open transaction, as the role that owns the install.
    dry_run
        Find out what would be done, and write nothing.

    Raises
    ------
    InstallError
        If nothing is installed, no migration leads here, or the server lacks the files.
    VersionMismatch
        If the database is ahead of this package; the message says what to run.
    """
    require_idle(conn, "upgrade")
    return _carry_out(
        conn, lambda source: _plan_upgrade(conn, source), "upgrading funnelvec in", dry_run=dry_run
    )


def _carry_out(
    conn: Connection,
    plan: Callable[[SqlSource], InstallResult],
    doing: str,
    *,
    dry_run: bool,
) -> InstallResult:
    source = load_source()
    warnings: list[str] = []
    with (
        translated(conn, doing),
        _notices(conn, warnings),
        conn.transaction(force_rollback=dry_run),
    ):
        result = plan(source)
        if result.sql and not dry_run:
            # Our own files, and no parameters: psycopg then sends the whole text as it is.
            conn.execute(result.sql)
    return replace(result, dry_run=dry_run, warnings=tuple(warnings))


def _plan(conn: Connection, source: SqlSource, mode: Mode, move: bool) -> InstallResult:
    """Decide what is to be run, from the catalog alone."""
    found = find_installed(conn)
    if found is not None:
        if found.version != source.version:
            raise mismatch(conn, found, source)
        if mode not in ("auto", found.mode):
            if not move:
                raise _other_mode(conn, found)
            return _plan_move(conn, source, found)
        return _plan_same(conn, source, found)
    _require_pgvector(conn)
    if mode == "auto":
        mode = "extension" if _offers(conn, source.version) else "plain"
    if mode == "extension":
        _require_files(conn, source.version)
        return _result(conn, source, mode, "installed", _create_extension(source))
    text = render(source, "plain", transaction=False)
    return _result(conn, source, mode, "installed", text)


def _plan_same(conn: Connection, source: SqlSource, found: Installed) -> InstallResult:
    if found.mode == "extension" or found.sha256 == source.sha256:
        return _result(conn, source, found.mode, "unchanged", "", found)
    text = render(source, "plain", transaction=False)
    return _result(conn, source, found.mode, "replaced", text, found)


def _plan_move(conn: Connection, source: SqlSource, found: Installed) -> InstallResult:
    if found.mode == "extension":
        text = render_move(source, transaction=False)
        return _result(conn, source, "plain", "moved", text, found)
    _require_files(conn, source.version)
    # The script itself takes over a plain install of its own version (sql/parts/05_adopt.sql).
    return _result(conn, source, "extension", "moved", _create_extension(source), found)


def _plan_upgrade(conn: Connection, source: SqlSource) -> InstallResult:
    found = find_installed(conn)
    if found is None:
        raise not_installed(conn.info)
    if found.version == source.version:
        return _plan_same(conn, source, found)
    if is_newer(found, source):
        raise mismatch(conn, found, source)
    if found.mode == "plain":
        text = render_upgrade(source, found.version, transaction=False)
    elif can_update(conn, found.version, source.version):
        # A plain text does the same; the script of an extension may not write functions of users.
        text = (
            f"alter extension funnelvec update to '{source.version}';\n"
            "select funnelvec._refresh_functions();\n"
        )
    else:
        raise InstallError(
            f"the server does not have the files that take the extension funnelvec from "
            f"{found.version} to {source.version}: put them there with `make -C sql install`"
        )
    return _result(conn, source, found.mode, "upgraded", text, found)


def _result(
    conn: Connection,
    source: SqlSource,
    mode: Literal["extension", "plain"],
    action: Action,
    sql: str,
    found: Installed | None = None,
) -> InstallResult:
    return InstallResult(
        database=conn.info.dbname,
        mode=mode,
        version=source.version,
        action=action,
        dry_run=False,
        sql=sql,
        previous=None if found is None else found.version,
    )


def _create_extension(source: SqlSource) -> str:
    return f"create extension funnelvec version '{source.version}'"


def _offers(conn: Connection, version: str) -> bool:
    return (
        first_row(
            conn,
            "select from pg_catalog.pg_available_extension_versions"
            " where name = 'funnelvec' and version = %s",
            version,
        )
        is not None
    )


def _require_files(conn: Connection, version: str) -> None:
    if not _offers(conn, version):
        raise InstallError(
            f"the server does not have the files of the extension funnelvec {version}: "
            "put them there with `make -C sql install`, or use the plain mode, which needs none"
        )


def _require_pgvector(conn: Connection) -> None:
    # The SQL text checks its version; asked here, since create extension has no advice to give.
    if first_row(conn, "select from pg_catalog.pg_extension where extname = 'vector'") is None:
        raise InstallError(
            f'pgvector is not installed in database "{conn.info.dbname}": run `create extension '
            "vector` there first (an administrator's job on most servers)"
        )


def _other_mode(conn: Connection, found: Installed) -> InstallError:
    kind, other = ("a plain install", "extension")
    if found.mode == "extension":
        kind, other = ("an extension", "plain")
    return InstallError(
        f'funnelvec {found.version} is {kind} in database "{conn.info.dbname}", and there can be '
        f"only one: keep to it, or change over with `funnelvec install URL --mode {other} --move` "
        "(nothing is lost)"
    )


@contextmanager
def _notices(conn: Connection, collected: list[str]) -> Iterator[None]:
    def collect(diagnostic: psycopg.errors.Diagnostic) -> None:
        # What an update asks for (sql/parts/99_refresh.sql) is what comes next here.
        if diagnostic.severity_nonlocalized == "WARNING" and diagnostic.sqlstate != _TO_REPAIR:
            text = " ".join(filter(None, (diagnostic.message_primary, diagnostic.message_hint)))
            if text not in collected:  # each step of an upgrade says it
                collected.append(text)

    conn.add_notice_handler(collect)
    try:
        yield
    finally:
        conn.remove_notice_handler(collect)
