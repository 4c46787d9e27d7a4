"""What the methods of engines and tables report."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from funnelvec.types import Key

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "Explanation",
    "FillingStep",
    "LoadReport",
    "Problem",
    "RecallReport",
    "Repair",
    "ResolutionStatus",
    "Sample",
    "StageRecall",
    "StageReport",
    "Upserted",
]


@dataclass(frozen=True, slots=True)
class StageReport:
    """What one stage of one search did; `ms` is wall-clock time in milliseconds.

    `access` says how the rows were found: ``index NAME``, ``scan`` (every row) or ``rescore``
    (the rows that the stage before kept). `blocks_hit` and `blocks_read` are the 8 kB blocks that
    it found in the memory of Postgres and those that it had to fetch; None on other engines.
    """

    stage: int
    resolution: str
    keep: int | None
    rows_in: int
    rows_out: int
    ms: float
    access: str
    blocks_hit: int | None = None
    blocks_read: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What survives each stage of one search, and what it costs; ``str()`` gives a table.

    `notes` says what to look at, and how it is mended where that is a statement.
    """

    funnel: str
    stages: tuple[StageReport, ...]
    total_ms: float
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = ("stage", "resolution", "keep", "rows in", "rows out", "ms", "hit", "read", "access")
        body = [
            (
                str(s.stage),
                s.resolution,
                "" if s.keep is None else str(s.keep),
                str(s.rows_in),
                str(s.rows_out),
                f"{s.ms:.3f}",
                "" if s.blocks_hit is None else str(s.blocks_hit),
                "" if s.blocks_read is None else str(s.blocks_read),
                s.access,
            )
            for s in self.stages
        ]
        counted = any(s.blocks_hit is not None for s in self.stages)
        shown = [i for i, name in enumerate(head) if counted or name not in ("hit", "read")]
        left_aligned = {head.index("resolution"), head.index("access")}
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        lines = [f"funnel {self.funnel}   {self.total_ms:.3f} ms"]
        for row in (head, *body):
            cells = [
                row[i].ljust(widths[i]) if i in left_aligned else row[i].rjust(widths[i])
                for i in shown
            ]
            lines.append("  ".join(cells).rstrip())
        lines.extend(f"note: {note}" for note in self.notes)
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class StageRecall:
    """Share of the exact top k that is still alive after a stage.

    `recall` is the mean over the queries; `low` and `high` are the limits of its 95 % interval, by
    the bootstrap over the queries.
    """

    stage: int
    resolution: str
    keep: int | None
    recall: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RecallReport:
    """Recall of a funnel against exact search, measured with rows of the table or given queries.

    `queries` is how many could be compared. `funnel_ms` and `exact_ms` are median times per query
    in milliseconds.
    """

    k: int
    queries: int
    stages: tuple[StageRecall, ...]
    funnel_ms: float
    exact_ms: float

    @property
    def recall(self) -> float:
        """Share of the exact top k that the whole funnel returns."""
        return self.stages[-1].recall

    @property
    def low(self) -> float:
        """Lower limit of the 95 % interval of `recall`."""
        return self.stages[-1].low

    @property
    def high(self) -> float:
        """Upper limit of the 95 % interval of `recall`."""
        return self.stages[-1].high


@dataclass(frozen=True, slots=True)
class ResolutionStatus:
    """State of one stored resolution.

    Attributes
    ----------
    rows, filled, coverage
        Rows of the table, rows that have this code, and their share (1.0 for an empty table).
    bit_balance
        For ``bit``: the mean over all bits of ``2 * min(p, 1 - p)``, p the share of ones.
        1 means that every bit splits the rows in half, 0 that every bit is constant and the code
        tells nothing. None for other codes and for a table without rows.
    index, index_bytes
        Name and size of the index that serves it as a first stage, if any.
    advice
        What is wrong and what to do, a line each; empty if nothing is.
    storage
        Where codes stand: ``column`` (in the rows), ``side`` (in a table beside them), or ``base``
        for the vector column itself; ``window`` for the index of a part of the rows, which is one
        more report of its resolution.
    code_bytes, toasted
        Bytes of all codes, and the share of codes that Postgres keeps out of line, where each
        costs a look into the TOAST table. None where it cannot be told.
    index_growth
        Size of the index over that of a new one.
    dead_share, changed, vacuumed_at, analyzed_at
        Of the table: the share of its row versions that are dead; rows changed since it was last
        analyzed; when it was last vacuumed and analyzed. None on other engines.
    hot_share, fillfactor
        Of the table: the share of its updates that did not enter its indexes again, and how full
        pages are filled. None on other engines, or without updates.
    window
        Which rows a window holds (``filled`` of them); None for a resolution as a whole.
    """

    table: str
    vector: str
    resolution: str
    column: str
    rows: int
    filled: int
    coverage: float
    bit_balance: float | None = None
    index: str | None = None
    index_bytes: int | None = None
    advice: str = ""
    storage: str = "column"
    code_bytes: int | None = None
    toasted: float | None = None
    index_growth: float | None = None
    dead_share: float | None = None
    changed: int | None = None
    vacuumed_at: datetime.datetime | None = None
    analyzed_at: datetime.datetime | None = None
    hot_share: float | None = None
    fillfactor: int | None = None
    window: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """What renames, drops, moves or restores have left out of step, and what to do about it."""

    object: str
    advice: str


@dataclass(frozen=True, slots=True)
class Repair:
    """What ``repair()`` did, or would do in a dry run, to one object."""

    object: str
    action: str


@dataclass(frozen=True, slots=True)
class Upserted:
    """How many rows an upsert has added, and how many it has found and changed."""

    inserted: int
    updated: int


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did.

    Attributes
    ----------
    name
        What the load is known by; a load of this name goes on where one was interrupted.
    rows
        Rows of the source that this call has put in (with `dry_run`: has checked).
    inserted, updated
        How many of them were new, and how many changed a row (``upsert=True``).
    skipped
        Rows that were in from an interrupted load, and were not sent again.
    batches, seconds
        How many batches were committed, and the time that the call took.
    unused
        Columns of the source that the table did not get.
    """

    name: str
    rows: int
    inserted: int
    updated: int
    skipped: int
    batches: int
    seconds: float
    unused: tuple[str, ...] = ()
    dry_run: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows of a table drawn at random, in random order.

    Attributes
    ----------
    ids
        n keys.
    vectors
        (n, d) float32.
    rows
        Rows of the table that have a vector, as far as the caller may see them.
    exact
        Whether `rows` was counted; else it is carried over from the part that was read.
    hubs
        (n,) float32, how much of a hub each row is; None without a hub column. A row that nobody
        has measured counts as an ordinary one, 0.
    """

    ids: tuple[Key, ...]
    vectors: npt.NDArray[np.float32]
    rows: int
    exact: bool
    hubs: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class FillingStep:
    """One thing that `Table.backfill` does.

    Attributes
    ----------
    statement
        The SQL that is run next (an index is built, searches switch over), or in words what is
        done where there is none, as in Qdrant; None for a batch.
    resolution, state
        What a batch was about: ``filling``, ``sweeping`` or ``filled`` (``ready`` after a check);
        ``copying`` and ``comparing`` where Qdrant takes a new collection for it.
    done, total
        Rows so far, and about how many there are.
    """

    statement: str | None = None
    resolution: str | None = None
    state: str | None = None
    done: int = 0
    total: int = 0
