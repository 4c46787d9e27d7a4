"""Judgments of answers: hits that a judge was asked about, and rows that nobody judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.errors import InvalidInput
from funnelvec.judging.columns import Read, Rule, distinct, vectors

if TYPE_CHECKING:
    from funnelvec.judging import Encoder, Judge, Unjudged
    from funnelvec.types import Hit

__all__ = ["completed", "read", "rule_of"]


def rule_of(relevant_from: float | None, unjudged: Unjudged | None) -> Rule:
    """The rule for what a judge says; grades need no column here."""
    grade = None if relevant_from is None else "grade"
    return Rule(None, grade, relevant_from, unjudged)


def read(
    queries: Any,
    answers: Iterable[Sequence[Hit]],
    judge: Judge,
    *,
    rule: Rule,
    encoder: Encoder | None,
) -> Read:
    """Judge every hit; see `JudgmentSources.from_answers`."""
    asked = list(queries)
    matrix = vectors(queries, encoder)
    found = list(answers)
    if len(found) != len(matrix):
        raise InvalidInput(f"judgments: {len(matrix)} queries, but {len(found)} answers")
    rows: list[int] = []
    ids: list[Any] = []
    labels: list[bool] = []
    for row, (query, hits) in enumerate(zip(asked, found, strict=True)):
        said = rule.apply(
            [judge(query, hit) for hit in hits], f"what the judge says of query {row}"
        )
        for hit, label in zip(hits, said, strict=True):
            if label is not None:
                rows.append(row)
                ids.append(hit.id)
                labels.append(label)
    if not rows:
        raise InvalidInput("judgments: the judge has no opinion of any hit")
    return Read(matrix[rows], ids, np.array(labels, dtype=np.bool_))


def completed(
    queries: npt.NDArray[np.float32],
    ids: Sequence[Any],
    labels: npt.NDArray[np.bool_],
    answers: Iterable[Sequence[Hit]],
) -> Read:
    """Add hits that nobody judged, as not relevant; see `JudgmentSources.with_answers`."""
    different, found = distinct(queries), list(answers)
    if len(found) != len(different):
        raise InvalidInput(
            f"judgments: {len(different)} different queries, but {len(found)} answers; ask for "
            "those of judgments.unique_queries"
        )
    judged = {(query.tobytes(), id) for query, id in zip(queries, ids, strict=True)}
    more = [
        (row, hit.id)
        for row, hits in enumerate(found)
        for hit in hits
        if (different[row].tobytes(), hit.id) not in judged
    ]
    return Read(
        np.concatenate([queries, different[[row for row, _ in more]]]),
        [*ids, *(id for _, id in more)],
        np.concatenate([labels, np.zeros(len(more), dtype=np.bool_)]),
    )
