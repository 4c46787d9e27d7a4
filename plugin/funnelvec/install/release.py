"""Make and freeze the migrations of a release: ``python -m funnelvec.install.release``.

For people who release funnelvec; it works in a checkout. A step is written by hand as far as
tables and changed signatures go (``migrations/delta/A--B.sql``) and gets every part from 20 on
appended, so that functions are the same after an upgrade as after a fresh install.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from funnelvec.errors import FunnelvecError, InstallError
from funnelvec.install.render import load_source

__all__ = ["check", "compose", "freeze", "main", "write_step"]

PARTS_HERE = "-- @parts@\n"
"""Where the parts go in a delta; at its end if the line is not there."""

_FIRST_FUNCTIONS = "20"
_NAME = re.compile(r"funnelvec--(\d+\.\d+\.\d+)--(\d+\.\d+\.\d+)\.sql")
_NOT_NEUTRAL = re.compile(
    r"^\s*(?:\\.*|(?:begin|commit|rollback|abort)\s*;.*|alter\s+extension\s.*)$",
    re.MULTILINE | re.IGNORECASE,
)


def compose(root: Path, start: str) -> tuple[str, str]:
    """Return name and text of the step from version `start` to that of the checkout `root`."""
    end = load_source(root).version
    delta = root / "migrations" / "delta" / f"{start}--{end}.sql"
    if not delta.is_file():
        raise InstallError(
            f"{delta} is missing: write into it what `create or replace` does not do (new tables "
            "and columns, functions whose signature changed); it may be empty"
        )
    text = delta.read_bytes().decode()
    unfit = _NOT_NEUTRAL.search(text)
    if unfit is not None:
        raise InstallError(
            f"{delta}: a migration also runs inside `alter extension` and inside one transaction, "
            f"so it cannot hold {unfit.group().strip()!r}"
        )
    if text and not text.endswith("\n"):
        text += "\n"
    if PARTS_HERE not in text:
        text += PARTS_HERE
    before, _, after = text.partition(PARTS_HERE)
    return f"funnelvec--{start}--{end}.sql", before + functions(root) + after


def functions(root: Path) -> str:
    """Return the parts from 20 on: ``create or replace``, comments, and what may be run again."""
    parts = sorted((root / "sql" / "parts").glob("*.sql"), key=lambda path: path.name)
    wanted = (path for path in parts if path.name >= _FIRST_FUNCTIONS)
    return "".join(path.read_bytes().decode() for path in wanted)


def write_step(root: Path, start: str) -> Path:
    """Write the step from version `start`; refused if that step is frozen."""
    name, text = compose(root, start)
    if name in _frozen(root):
        raise InstallError(f"{name} is released and frozen: repair it with the next step")
    path = root / "migrations" / name
    path.write_bytes(text.encode())
    return path


def freeze(root: Path) -> list[str]:
    """Note the hashes of all steps that are not frozen yet; returns their names."""
    problems = check(root)
    if problems:
        raise InstallError(f"nothing was frozen: {'; '.join(problems)}")
    new = [path for path in _steps(root) if path.name not in _frozen(root)]
    with (root / "migrations" / "frozen.sha256").open("a", encoding="utf-8") as file:
        file.writelines(f"{_hash(path)}  {path.name}\n" for path in new)
    return [path.name for path in new]


def check(root: Path) -> list[str]:
    """Return what is wrong with the migrations of a checkout, one sentence each."""
    migrations = root / "migrations"
    version = load_source(root).version
    frozen = _frozen(root)
    problems = []
    for name, digest in frozen.items():
        path = migrations / name
        if not path.is_file():
            problems.append(f"{name} is frozen and missing")
        elif _hash(path) != digest:
            problems.append(f"{name} is frozen and was changed")
    ends: dict[str, str] = {}
    for path in _steps(root):
        match = _NAME.fullmatch(path.name)
        if match is None:
            problems.append(f"{path.name} is not named funnelvec--A--B.sql")
            continue
        start, end = match.groups()
        if start in ends:
            problems.append(f"two steps begin at {start}: a chain, never all pairs")
        ends[start] = end
        if end == version:
            problems += _check_last(root, start, path, frozen=path.name in frozen)
    return problems + _check_chain(ends, version)


def _check_last(root: Path, start: str, path: Path, *, frozen: bool) -> list[str]:
    """Functions after the last step must be those of a fresh install."""
    text = path.read_bytes().decode()
    if frozen:
        if functions(root) not in text:
            return [f"{path.name} is frozen and sql/parts changed since: raise the version"]
        return []
    try:
        composed = compose(root, start)[1]
    except InstallError as error:
        return [str(error)]
    if text != composed:
        return [f"{path.name} is stale: python -m funnelvec.install.release step {start}"]
    return []


def _check_chain(ends: dict[str, str], version: str) -> list[str]:
    problems = []
    for start in ends:
        at, seen = start, set[str]()
        while at in ends and at not in seen:
            seen.add(at)
            at = ends[at]
        if at != version:
            problems.append(f"the steps from {start} on end at {at}, not at {version}")
    return problems


def _steps(root: Path) -> list[Path]:
    return sorted((root / "migrations").glob("*.sql"), key=lambda path: path.name)


def _frozen(root: Path) -> dict[str, str]:
    lines = (root / "migrations" / "frozen.sha256").read_text(encoding="utf-8").splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {name: digest for digest, name in pairs}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of ``step A``, ``check`` and ``freeze`` in the checkout of the current folder."""
    parser = argparse.ArgumentParser(
        prog="python -m funnelvec.install.release",
        description="Make, check and freeze the migrations in the current folder's checkout.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    step = commands.add_parser("step", help="write migrations/funnelvec--A--B.sql")
    step.add_argument("start", metavar="A", help="the version that it starts from")
    commands.add_parser("check", help="hashes, names, chain, and whether the last step is fresh")
    commands.add_parser("freeze", help="note the hashes of the steps of this release")
    args = parser.parse_args(argv)
    root = Path.cwd()
    try:
        if args.command == "step":
            print(write_step(root, args.start).relative_to(root))
        elif args.command == "freeze":
            print("\n".join(f"frozen: {name}" for name in freeze(root)) or "nothing to freeze")
        else:
            problems = check(root)
            print("\n".join(problems) or "in order")
            return min(1, len(problems))
    except FunnelvecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
