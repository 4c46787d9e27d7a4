"""The values that go in and come out: hits, explanations, recall reports, judgments.

Plain frozen values without behaviour of an engine. numpy is imported only when judgments are
built, so that importing this module stays light.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
    "FillingStep",
    "Hit",
    "Judgments",
    "Key",
    "KeyPart",
    "Metric",
    "RecallReport",
    "ResolutionStatus",
    "StageRecall",
    "StageReport",
    "Storage",
    "needs_direction",
]

Metric: TypeAlias = Literal["cosine", "dot", "euclidean"]
Code: TypeAlias = Literal["f32", "f16", "bit"]
#: The codes that a vector column itself may have: ``vector`` and ``halfvec`` in Postgres.
BaseCode: TypeAlias = Literal["f32", "f16"]
ColumnKind: TypeAlias = Literal["integer", "number", "text", "boolean", "date", "timestamp", "uuid"]
KeyPart: TypeAlias = (
    int | str | float | decimal.Decimal | uuid.UUID | datetime.date | datetime.datetime
)
#: What says which row it is: one value, or a tuple with one value per column of the key where
#: that has several (``Table.key`` is then a tuple of names in the same order).
Key: TypeAlias = KeyPart | tuple[KeyPart, ...]

#: Where Postgres keeps a resolution: in a column of the table, or in a table beside it.
Storage: TypeAlias = Literal["column", "side"]

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
    """

    id: Key
    score: float
    relevance: float | None


@dataclass(frozen=True, slots=True)
class StageReport:
    """What one stage of one search did; `ms` is wall-clock time in milliseconds.

    `access` says how the rows were found: ``index NAME``, ``scan`` (every row) or ``rescore``
    (the rows that the stage before kept).
    """

    stage: int
    resolution: str
    keep: int | None
    rows_in: int
    rows_out: int
    ms: float
    access: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What survives each stage of one search, and what it costs; ``str()`` gives a table."""

    funnel: str
    stages: tuple[StageReport, ...]
    total_ms: float
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = ("stage", "resolution", "keep", "rows in", "rows out", "ms", "access")
        body = [
            (
                str(s.stage),
                s.resolution,
                "" if s.keep is None else str(s.keep),
                str(s.rows_in),
                str(s.rows_out),
                f"{s.ms:.3f}",
                s.access,
            )
            for s in self.stages
        ]
        left_aligned = {head.index("resolution"), head.index("access")}
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        lines = [f"funnel {self.funnel}   {self.total_ms:.3f} ms"]
        for row in (head, *body):
            cells = [
                cell.ljust(width) if i in left_aligned else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        lines.extend(f"note: {note}" for note in self.notes)
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class StageRecall:
    """Share of the exact top k, averaged over the queries, that is still alive after a stage."""

    stage: int
    resolution: str
    keep: int | None
    recall: float


@dataclass(frozen=True, slots=True)
class RecallReport:
    """Recall of a funnel against exact search, measured with rows of the table as queries.

    `funnel_ms` and `exact_ms` are median times per query in milliseconds.
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
        What is wrong with it and what to do, empty if nothing is.
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


@dataclass(frozen=True, slots=True)
class FillingStep:
    """One thing that `Table.backfill` does.

    Attributes
    ----------
    statement
        The SQL that is run next (an index is built, searches switch over); None for a batch.
    resolution, state
        What a batch was about: ``filling``, ``sweeping`` or ``filled`` (``ready`` after a check).
    done, total
        Rows so far, and about how many there are.
    """

    statement: str | None = None
    resolution: str | None = None
    state: str | None = None
    done: int = 0
    total: int = 0


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
        ids = tuple(given)
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
