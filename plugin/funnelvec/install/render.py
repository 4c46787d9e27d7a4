"""The text of the SQL side, for every way of installing it.

One body serves all: ``sql/parts/*.sql`` joined by name. A delivery is a wrapper around it: the
extension script that ``make -C sql`` builds (``pgxs``), one transaction that any role with the
right to create a schema may run (``plain``), or calls that store the same texts in a database with
pg_tle (``tle``). ``migrations/funnelvec--A--B.sql`` serve the upgrades of all three. Nothing here
talks to a database.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from funnelvec.errors import InstallError, InvalidInput

__all__ = [
    "TARGETS",
    "SqlSource",
    "Step",
    "Target",
    "find_steps",
    "load_source",
    "render",
    "render_move",
    "render_upgrade",
    "sql_version",
    "write_files",
]

Target = Literal["plain", "pgxs", "tle"]
TARGETS: tuple[Target, ...] = ("plain", "pgxs", "tle")

# psql stops here when somebody runs the extension script by hand; create extension skips the line.
_GUARD = '\\echo Use "create extension funnelvec" to load this file. \\quit\n'
_VERSION = re.compile(r"^default_version *= *'([^']+)'", re.MULTILINE)
_COMMENT = re.compile(r"^comment *= *'([^']+)'", re.MULTILINE)
_STEP = re.compile(r"funnelvec--([^-]+)--([^-]+)\.sql")


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
    release
        What turns the extension's objects into free ones, before a plain install takes over.
    """

    version: str
    control: str
    body: str
    head: str
    tail: str
    migrations: tuple[tuple[str, str], ...]
    release: str = ""

    @property
    def sha256(self) -> str:
        """Hash of the body (hexadecimal); a plain install records it beside the version."""
        return hashlib.sha256(self.body.encode()).hexdigest()

    @property
    def steps(self) -> tuple[Step, ...]:
        """The upgrade steps that the migrations are, by name."""
        found = []
        for name, text in self.migrations:
            match = _STEP.fullmatch(name)
            if match is None:
                raise InstallError(f"{name} is not named funnelvec--A--B.sql")
            found.append(Step(match[1], match[2], text))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Step:
    """One migration: the SQL that brings version `start` to version `end`."""

    start: str
    end: str
    text: str


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
        release=_read(sql / "install" / "extension_to_plain.sql"),
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
        ``"tle"``: for a database with pg_tle 1.5 or later, as a member of ``pgtle_admin``; after
        it ``create extension funnelvec`` and ``alter extension funnelvec update`` work there.
    transaction
        Whether the plain text brings its own ``begin`` and ``commit``. Pass ``False`` to run it
        inside a transaction that the caller holds.
    """
    if target == "pgxs":
        return _GUARD + source.body
    if target == "plain":
        text = _tracked(source, source.body, start="", end=source.version, sha256=source.sha256)
        return _framed(text, transaction)
    if target == "tle":
        return _render_tle(source)
    raise InvalidInput(f"unknown target {target!r}; there are: {', '.join(TARGETS)}")


def find_steps(source: SqlSource, start: str) -> tuple[Step, ...]:
    """Return the chain of steps from version `start` to the version of `source`.

    Raises
    ------
    InstallError
        If the migrations do not lead there.
    """
    by_start = {step.start: step for step in source.steps}
    chain: list[Step] = []
    version = start
    while version != source.version:
        if version not in by_start or len(chain) == len(by_start):
            raise InstallError(
                f"no migration leads from funnelvec {start} to {source.version} (the way ends at "
                f"{version}): `funnelvec uninstall URL` and then `funnelvec install URL` keep "
                "tables and code columns, not calibrations"
            )
        chain.append(by_start[version])
        version = chain[-1].end
    return tuple(chain)


def render_upgrade(source: SqlSource, start: str, *, transaction: bool = True) -> str:
    """Write out the upgrade of a plain install from version `start`, all steps as one text.

    Each step checks that the version before it is what is installed, and records itself.
    """
    text = ""
    for step in find_steps(source, start):
        # The hash of the last step is that of a fresh install: the functions are the same.
        digest = hashlib.sha256(step.text.encode()).hexdigest()
        if step.end == source.version:
            digest = source.sha256
        text += _tracked(source, step.text, start=step.start, end=step.end, sha256=digest)
    return _framed(text, transaction)


def render_move(source: SqlSource, *, transaction: bool = True) -> str:
    """Write out the way from the extension to a plain install of the same version."""
    return _framed(source.release + render(source, "plain", transaction=False), transaction)


def _tracked(source: SqlSource, body: str, *, start: str, end: str, sha256: str) -> str:
    values = {"@from@": start, "@version@": end, "@sha256@": sha256}
    head, tail = source.head, source.tail
    for name, value in values.items():
        head, tail = head.replace(name, value), tail.replace(name, value)
    return head + body + tail


def _framed(text: str, transaction: bool) -> str:
    return f"begin;\n{text}commit;\n" if transaction else text


def _render_tle(source: SqlSource) -> str:
    """Calls of pg_tle's own functions, each only where what it adds is not there yet."""
    comment = _COMMENT.search(source.control)
    about = _dollar("" if comment is None else comment[1])
    lines = [
        f"-- funnelvec {source.version} for pg_tle 1.5 or later. Run it as a member of",
        "-- pgtle_admin, in the database that is to have it. Then: create extension funnelvec;",
        "begin;",
        "select pgtle.install_extension(",
        f"    name => 'funnelvec', version => '{source.version}', description => {about},",
        "    requires => '{vector}', schema => 'funnelvec',",
        f"    ext => {_dollar(source.body)})",
        "where not exists (",
        "    select from pgtle.available_extensions() as e where e.name = 'funnelvec');",
    ]
    for step in source.steps:
        lines += [
            "select pgtle.install_update_path(",
            f"    name => 'funnelvec', fromvers => '{step.start}', tovers => '{step.end}',",
            f"    ext => {_dollar(step.text)})",
            "where not exists (",
            "    select from pgtle.extension_update_paths('funnelvec') as p",
            f"    where p.source = '{step.start}' and p.target = '{step.end}' "
            "and p.path is not null);",
        ]
    lines += [f"select pgtle.set_default_version('funnelvec', '{source.version}');", "commit;", ""]
    return "\n".join(lines)


def _dollar(text: str) -> str:
    """Quote a text with a tag that does not occur in it."""
    number = 0
    while f"$fv{number}" in text:
        number += 1
    return f"$fv{number}${text}$fv{number}$"


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
