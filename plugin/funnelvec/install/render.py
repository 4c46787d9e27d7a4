"""The text of the SQL side, for every way of installing it.

One body serves all: ``sql/parts/*.sql`` joined by name. A delivery is a wrapper around it: the
extension script that ``make -C sql`` builds (``pgxs``), or one transaction that any role with the
right to create a schema may run (``plain``). Nothing here talks to a database.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from funnelvec.errors import InstallError, InvalidInput

__all__ = ["TARGETS", "SqlSource", "Target", "load_source", "render", "sql_version", "write_files"]

Target = Literal["pgxs", "plain"]
TARGETS: tuple[Target, ...] = ("pgxs", "plain")

# psql stops here when somebody runs the extension script by hand; create extension skips the line.
_GUARD = '\\echo Use "create extension funnelvec" to load this file. \\quit\n'
_VERSION = re.compile(r"^default_version *= *'([^']+)'", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SqlSource:
    """The files of the SQL side, read once.

    Attributes
    ----------
    version
        ``default_version`` of the control file; the version of the Python package too.
    control
        Text of ``funnelvec.control``.
    body
        The parts, joined in the order of their names: what every delivery has in common.
    head, tail
        What a plain install runs before and after the body.
    migrations
        ``(file name, text)`` of every ``funnelvec--A--B.sql``, by name.
    """

    version: str
    control: str
    body: str
    head: str
    tail: str
    migrations: tuple[tuple[str, str], ...]

    @property
    def sha256(self) -> str:
        """Hash of the body (hexadecimal); a plain install records it beside the version."""
        return hashlib.sha256(self.body.encode()).hexdigest()


def load_source(root: Path | None = None) -> SqlSource:
    """Read the SQL side from the installed package, or from the checkout of an editable install.

    Parameters
    ----------
    root
        A folder with ``sql/`` and ``migrations/`` to read instead.

    Raises
    ------
    InstallError
        If the files are not there: the package was built without them.
    """
    sql, migrations = _folders(root)
    control = _read(sql / "funnelvec.control")
    found = _VERSION.search(control)
    if found is None:
        raise InstallError(f"{sql / 'funnelvec.control'} has no line default_version = '...'")
    parts = sorted((sql / "parts").glob("*.sql"), key=lambda path: path.name)
    steps = sorted(migrations.glob("funnelvec--*--*.sql"), key=lambda path: path.name)
    return SqlSource(
        version=found.group(1),
        control=control,
        body="".join(_read(path) for path in parts),
        head=_read(sql / "install" / "plain_head.sql"),
        tail=_read(sql / "install" / "plain_tail.sql"),
        migrations=tuple((path.name, _read(path)) for path in steps),
    )


def sql_version() -> str:
    """Version of the SQL side that belongs to this package."""
    return load_source().version


def render(source: SqlSource, target: Target, *, transaction: bool = True) -> str:
    """Write out one delivery as a single SQL text.

    Parameters
    ----------
    source
        What `load_source` returned.
    target
        ``"pgxs"``: the script behind ``create extension``, the same bytes as ``make -C sql``.
        ``"plain"``: for any SQL client, psql or a web console.
    transaction
        Whether the plain text brings its own ``begin`` and ``commit``. Pass ``False`` to run it
        inside a transaction that the caller holds.
    """
    if target == "pgxs":
        return _GUARD + source.body
    if target == "plain":
        text = _fill(source.head, source) + source.body + _fill(source.tail, source)
        return f"begin;\n{text}commit;\n" if transaction else text
    raise InvalidInput(f"unknown target {target!r}; there are: {', '.join(TARGETS)}")


def write_files(source: SqlSource, folder: Path) -> list[Path]:
    """Write what ``create extension`` needs into ``folder/extension``, readable by every user.

    ``extension_control_path`` (PostgreSQL 18) may then name `folder`. Returns the files written.
    """
    target = folder / "extension"
    target.mkdir(parents=True, exist_ok=True)
    texts = {
        "funnelvec.control": source.control,
        f"funnelvec--{source.version}.sql": render(source, "pgxs"),
        **dict(source.migrations),
    }
    # The server may run as another user than the one who writes, whatever the umask says.
    for path in (folder, target):
        path.chmod(0o755)
    written = []
    for name, text in texts.items():
        path = target / name
        path.write_bytes(text.encode())
        path.chmod(0o644)
        written.append(path)
    return written


def _folders(root: Path | None) -> tuple[Path, Path]:
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] if root is None else root
    candidates = [(checkout / "sql", checkout / "migrations")]
    if root is None:
        candidates.insert(0, (package / "_sql", package / "_migrations"))
    for sql, migrations in candidates:
        if (sql / "funnelvec.control").is_file():
            return sql, migrations
    raise InstallError(
        f"the SQL files of funnelvec are neither in {candidates[0][0]} nor in {candidates[-1][0]}: "
        "reinstall the package with `pip install --force-reinstall funnelvec`"
    )


def _read(path: Path) -> str:
    # Bytes, so that no platform translates line ends: the text has to equal what make writes.
    try:
        return path.read_bytes().decode()
    except FileNotFoundError as error:
        raise InstallError(f"{path} is missing: reinstall the package") from error


def _fill(text: str, source: SqlSource) -> str:
    return text.replace("@version@", source.version).replace("@sha256@", source.sha256)
