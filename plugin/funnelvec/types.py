"""The values that go in and come out: hits, explanations, recall reports, judgments.

Plain frozen values without behaviour of an engine. numpy is imported only when judgments are
built, so that importing this module stays light.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from funnelvec.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "METRICS",
    "BaseCode",
    "Code",
    "ColumnKind",
    "Explanation",
    "Hit",
    "Judgments",
    "Key",
    "KeyPart",
    "LoadReport",
    "Metric",
    "Problem",
    "RecallReport",
    "Repair",
    "ResolutionStatus",
    "Sample",
    "StageRecall",
    "StageReport",
    "Upserted",
    "needs_direction",
]

Metric: TypeAlias = Literal["cosine", "dot", "euclidean"]
Code: TypeAlias = Literal["f32", "f16", "bit"]
#: The codes that a vector column itself may have: ``vector`` and ``halfvec`` in Postgres.
BaseCode: TypeAlias = Literal["f32", "f16"]
#: What a column holds; ``[]`` is an array, ``json`` any JSON value.
ColumnKind: TypeAlias = Literal[
    "integer",
    "number",
    "text",
    "boolean",
    "date",
    "timestamp",
    "uuid",
    "integer[]",
    "number[]",
    "text[]",
    "boolean[]",
    "date[]",
    "timestamp[]",
    "uuid[]",
    "json",
]
KeyPart: TypeAlias = (
    int | str | float | decimal.Decimal | uuid.UUID | datetime.date | datetime.datetime
)
#: What says which row it is: one value, or a tuple with one value per column of the key where
#: that has several (``Table.key`` is then a tuple of names in the same order).
Key: TypeAlias = KeyPart | tuple[KeyPart, ...]

METRICS: tuple[Metric, ...] = get_args(Metric)


def needs_direction(metric: Metric) -> bool:
    """Whether a zero vector means nothing: it has an inner product and a distance, no cosine."""
    return metric == "cosine"


@dataclass(frozen=True, slots=True)
class Hit:
    """One row of an answer.

    Attributes
    ----------
    id
        The key of the row; a tuple where the key has several columns.
    score
        Similarity at the last stage, higher is better: the cosine in [-1, 1], the inner product,
        or the negative Euclidean distance, by the metric of the column.
    relevance
        Calibrated probability in [0, 1] that the row is relevant; None without a calibration.
    columns
        Values of the columns that the funnel returns beside the key, by name.
    """

    id: Key
    score: float
    relevance: float | None
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def cursor(self) -> str:
        """The place of this row as text, to go on behind it: ``search(..., after=hit.cursor)``."""
        parts = self.id if isinstance(self.id, tuple) else (self.id,)
        # JSON has neither infinity nor dates, and databases read both from text. Floats are
        # written so that they come back to the last bit.
        score = self.score if math.isfinite(self.score) else str(self.score)
        return json.dumps({"score": score, "key": [_scalar(part) for part in parts]})


def _scalar(part: KeyPart) -> str | int | float:
    if isinstance(part, (str, int)) or (isinstance(part, float) and math.isfinite(part)):
        return part
    return part.isoformat() if isinstance(part, datetime.date) else str(part)


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
        Where codes stand: ``column`` (in the rows), or ``base`` for the vector column itself.
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
    """

    ids: tuple[Key, ...]
    vectors: npt.NDArray[np.float32]
    rows: int
    exact: bool


@dataclass(frozen=True, slots=True, eq=False)
class Judgments:
    """Judged pairs: pair i says whether row ``ids[i]`` is relevant to ``queries[i]``.

    Parameters
    ----------
    queries
        (n, d) float32, one query per pair (repeat a query for each of its judged rows).
    ids
        n keys of the table; tuples where the key has several columns.
    labels
        (n,) bool; True means relevant. Only the numbers 0 and 1 are accepted besides booleans.

    Raises
    ------
    InvalidInput
        If the lengths differ, a number is not finite, or a label is not boolean.
    """

    queries: npt.NDArray[np.float32]
    ids: Sequence[Key]
    labels: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        import numpy as np

        try:
            with np.errstate(over="ignore"):
                queries = np.array(self.queries, dtype=np.float32)
                labels = np.asarray(self.labels)
        except Exception as error:  # numpy asks the objects themselves, which may raise anything
            raise InvalidInput(f"judgments: not arrays of numbers: {error}") from None
        if queries.ndim != 2 or 0 in queries.shape:
            raise InvalidInput(
                f"judgments: queries must have the shape (n, d) with n, d >= 1, not {queries.shape}"
            )
        given: Any = self.ids
        if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
            raise InvalidInput(f"judgments: ids must be a sequence of keys, not {given!r:.100}")
        try:
            ids = tuple(given)
        except Exception as error:  # an array of no dimensions says that it can be iterated
            raise InvalidInput(f"judgments: ids must be a sequence of keys: {error}") from None
        if len(ids) != len(queries) or labels.shape != (len(queries),):
            raise InvalidInput(
                f"judgments: {len(queries)} queries, {len(ids)} ids and labels of shape "
                f"{labels.shape}; give one id and one label per query row"
            )
        for row in np.flatnonzero(~np.isfinite(queries).all(axis=1))[:1]:
            raise InvalidInput(f"judgments: query {row} holds a number that is not finite")
        if labels.dtype != np.bool_:
            if labels.dtype.kind not in "iuf" or not np.isin(labels, (0, 1)).all():
                raise InvalidInput("judgments: labels must be booleans (or the numbers 0 and 1)")
            labels = labels == 1
        labels = labels.copy()
        queries.flags.writeable = labels.flags.writeable = False
        object.__setattr__(self, "queries", queries)
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def distinct_queries(self) -> int:
        """Number of different query vectors."""
        return len({query.tobytes() for query in self.queries})

    @property
    def sha256(self) -> str:
        """Hash of the content, kept with a calibration as its provenance."""
        digest = hashlib.sha256()
        digest.update(repr(self.queries.shape).encode())
        digest.update(self.queries.astype("<f4").tobytes())
        digest.update("\n".join(map(repr, self.ids)).encode("utf-8", "surrogatepass"))
        digest.update(self.labels.tobytes())
        return digest.hexdigest()
