"""Building the indexes of an Edge shard in a process of their own.

Edge holds Python's global lock while it builds, so that nothing else of a program would run for
minutes. A copy of the shard is built by another process instead, while this one goes on searching
and writing in the original; what was written meanwhile is then written into the copy too, which
takes the place of the original. Whichever process dies, whenever it does, the original is whole.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from time import monotonic

import qdrant_edge as edge
from qdrant_client import models

from funnelvec.engines.qdrant.deployment import Told
from funnelvec.engines.qdrant.folder import sync
from funnelvec.errors import EngineError

__all__ = ["Journal", "Work", "build", "catch_up", "work"]

#: Edge builds no graph over less than so many bytes of vectors (its ``indexing_threshold``).
_LEAST_BYTES = 10_000 * 1024
#: Seconds between two looks at the other process.
_LOOK_SECONDS = 0.05
#: Writes that wait to be written into the copy; who writes more waits until it is built.
MOST_WAITING = 64

# The paths of modules go along, since they may have been changed by the program. Its main module
# does not, so nothing is run twice where that has no ``if __name__ == "__main__"``.
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from funnelvec.engines.qdrant.building import child; child(sys.argv[2], int(sys.argv[3]))"
)


class Work(Enum):
    """What there is to build."""

    NONE, LITTLE, MUCH = "none", "little", "much"


def work(
    info: edge.ShardInfo, vectors: Mapping[str, models.VectorParams], *, changed: bool
) -> Work:
    """Tell how much there is to build in a shard; `changed` is whether its vectors have been.

    Edge does not say. It builds anew where vectors were changed, where so many points lie in no
    index that they fill its threshold, or where a fifth of those in one have been removed. Those
    it still counts as indexed, once for each vector.
    """
    points, width = info.points_count, max((_width(each) for each in vectors.values()), default=0)
    if points * width < _LEAST_BYTES or not sys.executable:
        return Work.LITTLE
    outside = points - info.indexed_vectors_count / max(1, len(vectors))
    due = changed or outside * width >= _LEAST_BYTES or -outside > points / 5
    return Work.MUCH if due else Work.NONE


def _width(vector: models.VectorParams) -> int:
    return vector.size * (2 if vector.datatype == models.Datatype.FLOAT16 else 4)


class Journal:
    """What is written into a shard while its copy is being built.

    `room` is a condition of the lock that writers hold.
    """

    def __init__(self, room: threading.Condition) -> None:
        self._room = room
        self._waiting: deque[edge.UpdateOperation] = deque()
        self._closed = False

    def add(self, operation: edge.UpdateOperation) -> None:
        """Note what has been written."""
        self._waiting.append(operation)

    def wait_for_room(self) -> None:
        """Wait until few enough writes wait; the lock is let go meanwhile."""
        self._room.wait_for(lambda: self._closed or len(self._waiting) < MOST_WAITING)

    def close(self) -> None:
        """Have nobody wait any more."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    def replay(self, shard: edge.EdgeShard, *, most: int | None = None) -> None:
        """Write the oldest into another shard, in their order; all of them, or so many."""
        count = len(self._waiting) if most is None else min(most, len(self._waiting))
        for _ in range(count):
            shard.update(self._waiting.popleft())
        if count:
            with self._room:
                self._room.notify_all()


def catch_up(journal: Journal, shard: edge.EdgeShard) -> None:
    """Write into a copy most of what was written into its original, while writers go on."""
    journal.replay(shard, most=MOST_WAITING)
    shard.flush()


def build(folder: Path, *, stop: threading.Event, told: Told) -> None:
    """Build the indexes of a shard that nobody has open, in another process, and wait for it.

    Parameters
    ----------
    stop
        Ends it when it is set.
    told
        Is called often.

    Raises
    ------
    EngineError
        If the other process fails or dies, or is stopped. The folder is worth nothing then.
    """
    started = monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-c", _CODE, json.dumps(sys.path), str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
        )
        try:
            while process.poll() is None:
                told(monotonic() - started)
                if stop.wait(_LOOK_SECONDS):
                    raise EngineError(
                        "the engine was closed while indexes were built; all rows are there, and "
                        "backfill() builds the indexes"
                    )
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
        if process.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise EngineError(
                "the process that builds indexes ended with "
                f"{process.returncode} ({lines[-1] if lines else 'it was killed'}); all rows are "
                "there and searches go on without the new indexes, and backfill() builds them"
            )


def child(folder: str, parent: int) -> None:
    """What the other process does."""
    _die_with(parent)
    shard = edge.EdgeShard.load(folder)
    print("building", flush=True)
    shard.optimize()
    shard.flush()
    shard.close()
    # Edge has synced what it wrote, not what was copied here; the original is removed at the end.
    for place, _, files in os.walk(folder):
        for file in files:
            with open(Path(place, file), "rb+") as opened:
                os.fsync(opened.fileno())
        sync(Path(place))


def _die_with(parent: int) -> None:
    """Do not go on building when nobody waits for it any more, where the system can see to it."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    if os.getppid() != parent:  # it has died before that
        os._exit(1)
