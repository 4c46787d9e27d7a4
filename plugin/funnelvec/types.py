"""The values that go in and come out: keys, kinds, hits, judgments.

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
from itertools import repeat
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from funnelvec.errors import InvalidInput
from funnelvec.judging import JudgmentSources

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "CUTOFFS",
    "METRICS",
    "Answer",
    "BaseCode",
    "Code",
    "ColumnKind",
    "Cutoff",
    "Family",
    "Hit",
    "Judgments",
    "Key",
    "KeyPart",
    "Metric",
    "OwnCode",
    "PortableCode",
    "Promised",
    "Storage",
    "bare_hits",
    "needs_direction",
]

Metric: TypeAlias = Literal["cosine", "dot", "euclidean"]
#: ``bit2`` to ``bit4`` have so many bits for each number of a rotated vector.
PortableCode: TypeAlias = Literal["f32", "f16", "bit", "bit2", "bit3", "bit4"]
#: Codes that only some engines have: ``int8`` is ours, in Qdrant and in memory; the others are
#: what Qdrant makes of a vector itself.
OwnCode: TypeAlias = Literal["int8", "turbo", "turbo8", "bq1", "bq15", "bq2"]
Code: TypeAlias = PortableCode | OwnCode
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

#: Where Postgres keeps a resolution: in a column of the table, or in a table beside it.
Storage: TypeAlias = Literal["column", "side"]

#: Where a search is cut off, beside a relevance: by the certificate of ``max_miss``, by that of
#: ``min_precision``, or where the expected F1 of this answer is best.
Cutoff: TypeAlias = Literal["certified", "precise", "best_f1"]
#: What a certificate bounds: what is lost, or what is shown in vain.
Promised: TypeAlias = Literal["max_miss", "min_precision"]
#: What is fitted to judgments: a curve, steps, or a curve for each query; ``auto`` is the best.
Family: TypeAlias = Literal["platt", "beta", "isotonic", "adapter", "auto"]

METRICS: tuple[Metric, ...] = get_args(Metric)
CUTOFFS: tuple[Cutoff, ...] = get_args(Cutoff)


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


_new, _NOTHING = object.__new__, repeat(None)
_set_id, _set_score, _set_relevance, _set_columns = (
    Hit.__dict__[name].__set__ for name in ("id", "score", "relevance", "columns")
)


def bare_hits(
    ids: Sequence[Key], scores: Sequence[float], *, relevances: Iterable[float | None] = _NOTHING
) -> list[Hit]:
    """Make hits of ids and as many scores, or more: in half the time that their class takes."""
    hits = []
    for id, score, relevance in zip(ids, scores, relevances, strict=False):
        hit = _new(Hit)
        _set_id(hit, id)
        _set_score(hit, score)
        _set_relevance(hit, relevance)
        _set_columns(hit, {})
        hits.append(hit)
    return hits


def _scalar(part: KeyPart) -> str | int | float:
    if isinstance(part, (str, int)) or (isinstance(part, float) and math.isfinite(part)):
        return part
    return part.isoformat() if isinstance(part, datetime.date) else str(part)


class Answer(list[Hit]):
    """The hits of one search, best first: a list.

    Attributes
    ----------
    nearest
        Where no row passed the cutoff that was asked for: the row that came closest to it, so that
        "nothing relevant, the best would have been this" can be said. None where there are hits,
        where no cutoff was asked for, and where there is no row at all.
    """

    __slots__ = ("nearest",)

    def __init__(self, hits: Iterable[Hit] = (), *, nearest: Hit | None = None) -> None:
        super().__init__(hits)
        self.nearest = nearest


@dataclass(frozen=True, slots=True, eq=False)
class Judgments(JudgmentSources):
    """Judged pairs: pair i says whether row ``ids[i]`` is relevant to ``queries[i]``.

    `from_parquet`, `from_csv`, `from_table`, `from_rows`, `from_clicks`, `from_judge`, `from_log`
    and `known_items` make them of what there is.

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
