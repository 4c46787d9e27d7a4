"""What a table answered to judged queries, beside what the judgments say of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from funnelvec.errors import InvalidInput
from funnelvec.types import Hit, Judgments, Key

__all__ = ["UNJUDGED", "Answers", "JudgedQueries", "Unjudged"]

#: What becomes of a row that a query returned and nobody judged.
Unjudged: TypeAlias = Literal["irrelevant", "ignored"]
UNJUDGED: tuple[Unjudged, ...] = get_args(Unjudged)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class JudgedQueries:
    """Judgments by query.

    Attributes
    ----------
    vectors
        (n, d) float32, each query once, in the order of its first pair.
    relevant
        For each query, what its judged rows are; a row that was judged twice is relevant if one
        of the two says so, as for `certify`.
    """

    vectors: npt.NDArray[np.float32]
    relevant: tuple[Mapping[Key, bool], ...]

    @classmethod
    def of(cls, judgments: Judgments) -> JudgedQueries:
        """Bring the pairs of each query together."""
        known: dict[bytes, tuple[npt.NDArray[np.float32], dict[Key, bool]]] = {}
        for query, id, label in zip(
            judgments.queries, judgments.ids, judgments.labels, strict=True
        ):
            _, rows = known.setdefault(query.tobytes(), (query, {}))
            rows[id] = bool(label) or rows.get(id, False)
        vectors = np.stack([query for query, _ in known.values()])
        return cls(vectors, tuple(rows for _, rows in known.values()))

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Answers to n judged queries of at most K rows each; places behind the last row are empty.

    Attributes
    ----------
    scores
        (n, K) falling in each row, NaN in empty places.
    relevance
        (n, K) as the table says it, NaN in empty places; None without a calibration.
    labels
        (n, K) whether the row is judged relevant.
    judged
        (n, K) whether anybody judged the row.
    counted
        (n, K) whether the place counts: there is a row, and it is judged or, where the rows that
        nobody judged count as irrelevant, not.
    totals
        (n,) how many rows are judged relevant, returned or not.
    """

    scores: Floats
    relevance: Floats | None
    labels: Bools
    judged: Bools
    counted: Bools
    totals: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(
        cls,
        queries: JudgedQueries,
        answers: Sequence[Sequence[Hit]],
        *,
        unjudged: Unjudged = "irrelevant",
    ) -> Answers:
        """Label the rows of each answer.

        Parameters
        ----------
        answers
            One per query, best row first.
        unjudged
            Whether a row that nobody judged counts as irrelevant or is left out.

        Raises
        ------
        InvalidInput
            If the answers are not one per query, or none has a row that counts.
        """
        if len(answers) != len(queries):
            raise InvalidInput(f"{len(queries)} judged queries and {len(answers)} answers")
        check_unjudged(unjudged)
        shape = len(queries), max(1, *map(len, answers))
        scores, relevance = np.full(shape, np.nan), np.full(shape, np.nan)
        labels, judged = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
        calibrated, there = True, np.zeros(shape, dtype=np.bool_)
        for i, (known, hits) in enumerate(zip(queries.relevant, answers, strict=True)):
            names = _alike(known, hits)
            for j, hit in enumerate(hits):
                said = names.get(_plain(hit.id))
                scores[i, j], there[i, j] = hit.score, True
                labels[i, j], judged[i, j] = bool(said), said is not None
                if hit.relevance is None:
                    calibrated = False
                else:
                    relevance[i, j] = hit.relevance
        counted = there if unjudged == "irrelevant" else there & judged
        if not counted.any():
            raise InvalidInput(
                "no judged row is among the answers, so there is nothing to evaluate; judge rows "
                "that the search returns, or ask for more of them with k"
            )
        return cls(
            scores=scores,
            relevance=relevance if calibrated else None,
            labels=labels,
            judged=judged,
            counted=counted,
            totals=np.array([sum(rows.values()) for rows in queries.relevant], dtype=np.int64),
        )


def check_unjudged(unjudged: Any) -> Unjudged:
    """Return it if it is one of the two."""
    if unjudged not in UNJUDGED:
        raise InvalidInput(
            f"unjudged is {unjudged!r}; it is 'irrelevant' (rows that nobody judged count as "
            "irrelevant) or 'ignored' (they do not count)"
        )
    chosen: Unjudged = unjudged
    return chosen


def _alike(known: Mapping[Key, bool], hits: Sequence[Hit]) -> dict[Any, bool]:
    """The judged keys as the engine writes keys: text stands for a UUID where it uses them."""
    parts = hits[0].id if hits and isinstance(hits[0].id, tuple) else [h.id for h in hits[:1]]
    uuids = [isinstance(part, uuid.UUID) for part in parts]
    return {_plain(key, uuids): label for key, label in known.items()}


def _plain(key: Any, uuids: Sequence[bool] = ()) -> Any:
    if isinstance(key, (tuple, list)):
        flags = uuids if len(uuids) == len(key) else [False] * len(key)
        return tuple(_plain(part, [flag]) for part, flag in zip(key, flags, strict=True))
    if isinstance(key, np.generic):
        key = key.item()
    if uuids and uuids[0] and isinstance(key, str):
        try:
            return uuid.UUID(key)
        except ValueError:
            return key
    return key
