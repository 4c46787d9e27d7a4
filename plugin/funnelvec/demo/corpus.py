"""Real text that is already on the machine: the docstrings of installed Python sources.

The sources are read with `ast` and never imported, so gathering runs no code of theirs.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from funnelvec.errors import NotFound

Kind = Literal["module", "class", "function"]
Progress = Callable[[int, int], None]

# Folders whose docstrings are scaffolding rather than documentation, or copies of other packages.
SKIPPED_FOLDERS = {
    *("__pycache__", "_vendor", "vendor", "site-packages", "dist-packages", "test", "tests"),
    *("testing", "idlelib", "lib2to3", "turtledemo", "ensurepip"),
}
_PACKAGE_FOLDERS = ("site-packages", "dist-packages")
_LEAST_WORDS = 5
_DOCTEST = re.compile(r"^\s*>>>", re.MULTILINE)
_SECTIONS = {
    *("args:", "arguments:", "parameters:", "returns:", "return:", "raises:", "yields:"),
    *("example:", "examples:", "usage:", "attributes:", "note:", "notes:"),
}
_PUNCTUATION = re.compile(r"[^\w\s]")
_WORD_BREAKS = re.compile(r"[._]+|(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Document:
    """One docstring.

    `id` counts from 1 in the order of the walk, `name` is the dotted path of the object,
    `package` the first part of it, `text` the prose that opens the docstring.
    """

    id: int
    name: str
    kind: Kind
    package: str
    text: str

    @property
    def content(self) -> str:
        """What is embedded: the name in words, then the prose, like a title and its text."""
        return f"{title(self.name)}: {self.text}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Where the walk stops: whichever of these is reached first.

    `seconds` is a safety net for slow disks. The other limits come first on an ordinary machine,
    so two runs there give the same corpus.
    """

    documents: int = 10_000
    documents_per_package: int = 400
    files: int = 6_000
    bytes: int = 96_000_000
    file_bytes: int = 1_000_000
    seconds: float = 40.0


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a walk found; `stopped_by` names the limit that ended it, None if none did."""

    documents: tuple[Document, ...]
    files: int
    bytes: int
    unreadable: int
    stopped_by: str | None


@dataclass(slots=True)
class _Walk:
    """The running counts of one walk."""

    limits: Limits
    documents: list[Document] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    per_package: dict[str, int] = field(default_factory=dict)
    files: int = 0
    bytes: int = 0
    unreadable: int = 0
    started: float = field(default_factory=time.monotonic)

    def stop_reason(self) -> str | None:
        if len(self.documents) >= self.limits.documents:
            return "documents"
        if self.files >= self.limits.files:
            return "files"
        if self.bytes >= self.limits.bytes:
            return "bytes"
        if time.monotonic() - self.started >= self.limits.seconds:
            return "seconds"
        return None

    def package_full(self, package: str) -> bool:
        return self.per_package.get(package, 0) >= self.limits.documents_per_package

    def keep(self, name: str, kind: Kind, docstring: str) -> None:
        package = name.partition(".")[0]
        text = opening_prose(docstring)
        identity = " ".join(_PUNCTUATION.sub(" ", text).lower().split())
        if identity.count(" ") < _LEAST_WORDS - 1 or identity in self.seen:
            return
        if self.package_full(package) or len(self.documents) >= self.limits.documents:
            return
        self.seen.add(identity)
        self.per_package[package] = self.per_package.get(package, 0) + 1
        self.documents.append(Document(len(self.documents) + 1, name, kind, package, text))


def source_roots() -> tuple[Path, ...]:
    """Folders of the running interpreter's standard library, then of its installed packages.

    Raises
    ------
    NotFound
        When the standard library is installed without its sources.
    """
    paths = sysconfig.get_paths()
    stdlib = Path(paths["stdlib"])
    if not (stdlib / "argparse.py").is_file():
        raise NotFound(
            f"the sources of Python's standard library are not in {str(stdlib)!r}, and the demo "
            "reads its text from them; run it with a Python installed with its .py files "
            "(python.org, pyenv, a Linux distribution or conda)"
        )
    # Also where sys.path finds packages: user installs, and the extra folders of distributions.
    rest = [Path(paths[key]) for key in ("purelib", "platlib")]
    rest += [path for path in map(Path, sys.path) if path.name in _PACKAGE_FOLDERS]
    return tuple(dict.fromkeys([stdlib, *(path for path in rest if path.is_dir())]))


def gather(
    roots: Sequence[Path] | None = None,
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """Collect docstrings under `roots`, in a fixed order, without importing anything.

    Parameters
    ----------
    roots
        Folders as on `sys.path`; by default those of `source_roots`.
    limits
        Caps of the walk.
    progress
        Called now and then as ``progress(documents so far, most documents)``.

    Returns
    -------
    Corpus
        Documents without duplicates, ids counting from 1.
    """
    walk = _Walk(limits or Limits())
    stopped: str | None = None
    for root in source_roots() if roots is None else roots:
        for path in _sources(root):
            stopped = walk.stop_reason()
            if stopped is not None:
                break
            _read(walk, root, path)
            if progress is not None and walk.files % 20 == 0:
                progress(len(walk.documents), walk.limits.documents)
        if stopped is not None:
            break
    stopped = stopped or ("documents" if walk.stop_reason() == "documents" else None)
    return Corpus(tuple(walk.documents), walk.files, walk.bytes, walk.unreadable, stopped)


def opening_prose(docstring: str, most_characters: int = 800) -> str:
    """The words that open a docstring: up to its first doctest, section rule or field list.

    What follows is mostly parameter tables and examples, which blur an averaged embedding. The
    cut falls on a word's end at `most_characters` at the latest.
    """
    kept: list[str] = []
    length = 0
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        if _opens_reference(block):
            break
        kept.append(" ".join(block.split()))
        length += len(kept[-1]) + 1
        if length > most_characters:
            break
    text = " ".join(kept)
    if len(text) <= most_characters:
        return text
    return text[:most_characters].rpartition(" ")[0] + " ..."


def _opens_reference(block: str) -> bool:
    lines = [line.strip() for line in block.splitlines()]
    if _DOCTEST.search(block):
        return True
    if len(lines) > 1 and len(lines[1]) > 2 and set(lines[1]) <= set("-=~"):
        return True
    first = lines[0].lower()
    return first.startswith((":param", ":arg", "@param", ".. ")) or first in _SECTIONS


def _sources(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in SKIPPED_FOLDERS)
        for name in sorted(files):
            if name.endswith(".py"):
                yield Path(folder, name)


def _read(walk: _Walk, root: Path, path: Path) -> None:
    module = _module_name(root, path)
    if module is None or walk.package_full(module.partition(".")[0]):
        return
    walk.files += 1
    try:
        source = path.read_bytes() if path.stat().st_size <= walk.limits.file_bytes else b""
        walk.bytes += len(source)
        with warnings.catch_warnings():
            # Other people's invalid escapes are not this user's concern.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError):
        walk.unreadable += 1
        return
    docstring = ast.get_docstring(tree, clean=False)
    if docstring:
        walk.keep(module, "module", docstring)
    _definitions(walk, module, tree.body)


def _definitions(walk: _Walk, prefix: str, body: Sequence[ast.stmt]) -> None:
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name.startswith("_"):
                continue
            name = f"{prefix}.{node.name}"
            docstring = ast.get_docstring(node, clean=False)
            is_class = isinstance(node, ast.ClassDef)
            if docstring:
                walk.keep(name, "class" if is_class else "function", docstring)
            if is_class:
                _definitions(walk, name, node.body)
        elif isinstance(node, (ast.If, ast.Try)):
            _definitions(walk, prefix, [*node.body, *node.orelse])


def _module_name(root: Path, path: Path) -> str | None:
    parts = list(path.relative_to(root).with_suffix("").parts)
    if parts[-1] in ("__init__", "__main__"):
        parts.pop()
    if not parts or not all(part.isidentifier() for part in parts):
        return None
    return ".".join(parts)


def title(name: str) -> str:
    """A dotted name as words: ``email.message.EmailMessage`` -> ``email message Email Message``."""
    return " ".join(_WORD_BREAKS.sub(" ", name).split())
