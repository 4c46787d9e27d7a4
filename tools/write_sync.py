"""Write the synchronous Postgres engine from the asynchronous one.

    python tools/write_sync.py            # writes engines/postgres/sync/ from .../aio/
    python tools/write_sync.py --check    # writes nothing; shows what differs, with status 1

A synchronous text is the asynchronous one with less in it, so this is replacement of words and
needs no syntax tree:

- ``async`` and ``await`` go;
- names lose their mark (``AsyncCursor``, ``asynccontextmanager``, ``wrap_async``, ``__aenter__``);
- `PAIRS` names what is called otherwise;
- a line with the comment ``# async only`` goes, and what follows ``# sync only:`` becomes a line.

Words are replaced in comments and docstrings too, which therefore are true of both. ruff then
sorts and formats. A trace of asynchrony that is left is an error with its place. In the source,
write one ``await`` per expression: ``(await f()).g()`` would keep its brackets.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "plugin/funnelvec/engines/postgres/aio"
TARGET = SOURCE.with_name("sync")

HEADER = "# Made from {source} by tools/write_sync.py: change that file, then `make sync`.\n\n"

#: What `funnelvec.engines.postgres.twins` has under two names.
PAIRS = {"task_lock": "thread_lock", "in_thread": "in_place"}

RULES = [
    (r"^.*# async only\b.*\n", ""),
    (r"# sync only: ?", ""),
    (r"\basync (?=(?:def|with|for)\b)", ""),
    (r"\bawait ", ""),
    (r"\b(Abstract)?Async(?=[A-Z])", r"\1"),
    (r"\basync(?=contextmanager\b)", ""),
    (r"\b__a(?=(?:enter|exit|iter|next)__)", "__"),
    (r"\b(\w+)_async\b", r"\1"),
    (r"\bis_async_", "is_"),
    (r"\baio\b", "sync"),
    (r"\basynchronous\b", "synchronous"),
    *((rf"\b{name}\b", other) for name, other in PAIRS.items()),
]
LEFT = re.compile(r"async|await|\baio\b|\b__a(?:enter|exit|iter|next)__", re.IGNORECASE)


class NotConvertible(Exception):
    """The text has something in it that these rules do not turn into synchronous code."""


def convert(text: str, name: str = "<text>") -> str:
    """Turn an asynchronous module into the synchronous one, not formatted yet."""
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    for number, line in enumerate(text.splitlines(), 1):
        # "asynchronous" was a whole word in the source, so what is left has no synchronous twin.
        if LEFT.search(line):
            raise NotConvertible(f"{name}, line {number} of the result: {line.strip()}")
    ast.parse(text, name)
    return text


def formatted(text: str, path: Path) -> str:
    """Sort the names, drop unused ones and fill the lines anew, as the whole project has it."""
    # Said here, since ruff would look for modules that may not have been written yet.
    ours = "--config=lint.isort.known-first-party=['funnelvec']"
    fix = ["check", "--quiet", "--fix", "--exit-zero", "--select=I,F401,RUF022", ours]
    for arguments in (fix, ["format", "--quiet"]):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, f"--stdin-filename={path}", "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
    return text


def written() -> dict[Path, str]:
    """Return every file of the synchronous engine with the text that it should have."""
    texts = {}
    for source in sorted(SOURCE.glob("*.py")):
        target = TARGET / source.name
        name = f"{SOURCE.name}/{source.name}"
        body = convert(source.read_text(encoding="utf-8"), source.name)
        texts[target] = formatted(HEADER.format(source=name) + body, target)
    return texts


def main() -> int:
    """Write or check; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, show the difference")
    check = parser.parse_args().check
    texts = written()
    stale = 0
    for path in sorted({*texts, *TARGET.glob("*.py")}):
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        wanted = texts.get(path, "")
        if found == wanted:
            continue
        stale += 1
        name = str(path.relative_to(ROOT))
        if check:
            lines = (found.splitlines(keepends=True), wanted.splitlines(keepends=True))
            sys.stdout.writelines(difflib.unified_diff(*lines, name, f"{name} (from aio)"))
        elif wanted:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted, encoding="utf-8")
            print(f"wrote {name}")
        else:
            path.unlink()
            print(f"removed {name}")
    if check and stale:
        print(f"{stale} files differ from what aio/ says: run `make sync`", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
