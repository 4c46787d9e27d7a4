"""The folder of an Edge engine: whose it is, and what stands where. No Qdrant in here.

``DIR/.lock`` says which process has it open; ``DIR/funnelvec.json`` that it is ours. Every
collection is a folder of its own with ``definition.json``, ``loads.json`` and the ``shard``. Where
indexes were built in a copy of that, ``shard.json`` names the folder which has taken its place;
``due.json`` says whether there are some to be built.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote, unquote

import portalocker

from funnelvec.errors import Conflict, EngineError, InvalidInput, NotFound, VersionMismatch

__all__ = ["Folder", "write"]

_MARK, _FORMAT = "funnelvec.json", 1
_PLACE, _DUE = "shard.json", "due.json"


class Folder:
    """A folder that this process has to itself until it closes it.

    Raises
    ------
    Conflict
        If another process, or another engine of this one, has it open.
    InvalidInput
        If something else is in it.
    VersionMismatch
        If a newer version made it.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path).absolute()
        self._check()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        try:
            mark = self.path / _MARK
            if not mark.exists():
                write(mark, {"format": _FORMAT})
            for left in self.path.glob(".new-*"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            for collection in self.collections():
                self.clear(collection)
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise InvalidInput(f"{self.path} is a file; edge: takes a folder")
        mark = self.path / _MARK
        if mark.exists():
            kept = json.loads(mark.read_text())["format"]
            if kept > _FORMAT:
                raise VersionMismatch(
                    f"the folder {self.path} has format {kept}, and this version of funnelvec "
                    f"reads up to {_FORMAT}; upgrade funnelvec"
                )
        elif any(each.name != ".lock" for each in self.path.iterdir()):
            raise InvalidInput(
                f"the folder {self.path} holds something else than collections of funnelvec's; "
                "name a new or empty folder"
            )

    def _locked(self) -> IO[str]:
        lock = self.path / ".lock"
        opened = cast("IO[str]", open(lock, "a+", encoding="utf-8"))  # noqa: SIM115
        try:
            portalocker.lock(opened, portalocker.LOCK_EX | portalocker.LOCK_NB)
        except portalocker.LockException:
            opened.close()
            owner = lock.read_text() or "another process"
            raise Conflict(
                f"the folder {self.path} is open already, by {owner}; Edge serves one process at a "
                "time, a Qdrant server (http://...) many"
            ) from None
        opened.seek(0)
        opened.truncate()
        opened.write(f"process {os.getpid()} on {platform.node()}")
        opened.flush()
        return opened

    def collections(self) -> list[str]:
        """Names of the collections in it."""
        return sorted(unquote(each.parent.name) for each in self.path.glob("*/definition.json"))

    def of(self, collection: str) -> Path:
        """The folder of a collection; it need not exist."""
        return self.path / quote(collection, safe=" ").replace(".", "%2E")

    def shard(self, collection: str) -> Path:
        """The folder of its points."""
        kept = self.content(collection, _PLACE)
        return self.of(collection) / ("shard" if kept is None else kept["folder"])

    def copy(self, collection: str) -> Path:
        """Copy the folder of its points, which nobody writes into meanwhile.

        Raises
        ------
        EngineError
            If there is no room for it.
        """
        place = Path(tempfile.mkdtemp(prefix="shard-", dir=self.of(collection)))
        try:
            shutil.copytree(self.shard(collection), place, dirs_exist_ok=True)
        except BaseException as error:
            shutil.rmtree(place, ignore_errors=True)
            if not isinstance(error, (OSError, shutil.Error)):
                raise
            raise EngineError(
                f"indexes of {collection!r} are built in a copy of it, and it cannot be copied: "
                f"{error}; all rows are there, and backfill() builds the indexes"
            ) from error
        return place

    def replace(self, collection: str, place: Path) -> None:
        """Have a copy stand for the original from now on, whatever happens."""
        sync(place.parent)
        self.keep(collection, _PLACE, {"folder": place.name})

    def clear(self, collection: str) -> None:
        """Remove copies that were not finished, and an original that has been replaced."""
        current = self.shard(collection)
        for left in self.of(collection).glob("shard*"):
            if left != current and left.is_dir():
                shutil.rmtree(left, ignore_errors=True)

    def is_due(self, collection: str) -> bool:
        """Whether its indexes have been changed and not been built since, by any process."""
        return bool(self.content(collection, _DUE))

    def note_due(self, collection: str, *, due: bool) -> None:
        """Remember that."""
        if self.is_due(collection) != due:
            self.keep(collection, _DUE, due)

    def draft(self) -> Path:
        """Make a folder in which a collection is put together, to be moved in when it is whole."""
        return Path(tempfile.mkdtemp(prefix=".new-", dir=self.path))

    def admit(self, draft: Path, collection: str) -> Path:
        """Move a collection that is whole to its place."""
        sync(draft)
        draft.rename(self.of(collection))
        sync(self.path)
        return self.of(collection)

    def content(self, collection: str, name: str) -> Any:
        """Read one of its JSON files; None where there is none.

        Raises
        ------
        NotFound
            If the collection does not exist.
        """
        folder = self.of(collection)
        if not (folder / "definition.json").exists():
            raise NotFound(f"collection {collection!r} does not exist in {self.path}")
        file = folder / name
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    def keep(self, collection: str, name: str, content: Any) -> None:
        """Write one of its JSON files; after a crash it is the old one or the new one."""
        write(self.of(collection) / name, content)

    def keep_bytes(self, collection: str, token: str, content: bytes) -> None:
        """Write one of its files of bytes."""
        write_bytes(self.of(collection) / f"{token}.bin", content)

    def bytes_of(self, collection: str, token: str) -> bytes | None:
        """Read one of its files of bytes; None where there is none."""
        file = self.of(collection) / f"{token}.bin"
        return file.read_bytes() if file.exists() else None

    def drop_bytes(self, collection: str, token: str) -> None:
        """Remove one of its files of bytes."""
        (self.of(collection) / f"{token}.bin").unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have the folder."""
        if not self._lock.closed:
            self._lock.seek(0)
            self._lock.truncate()
            self._lock.close()  # which also unlocks it


def write(path: Path, content: Any) -> None:
    """Write a JSON file so that it is whole at any time."""
    write_bytes(path, json.dumps(content).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is whole at any time."""
    draft = path.with_name(f".{path.name}.new")
    with open(draft, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Have the names in a folder written to disk, where the system can be asked to."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
