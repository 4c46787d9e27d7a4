"""Judgments of clicks: what was clicked, and what was passed over on the way there."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funnelvec.errors import InvalidInput, PositionBias
from funnelvec.judging.columns import Read, Rule, columns_of, keys, missing, vectors

if TYPE_CHECKING:
    from funnelvec.judging import Encoder

__all__ = ["read"]


def read(
    rows: Any,
    *,
    query: str,
    id: str | Sequence[str],
    names: tuple[str, str, str | None],
    min_clicks: int,
    encoder: Encoder | None,
) -> Read:
    """Judge by clicks; see `JudgmentSources.from_clicks`."""
    if type(min_clicks) is not int or min_clicks < 1:
        raise InvalidInput(f"judgments: min_clicks must be a number from 1 on: {min_clicks!r:.60}")
    columns = columns_of(rows)
    position, clicked, shown = names
    for name in (query, *([id] if isinstance(id, str) else id), *filter(None, names)):
        if name not in columns:
            raise InvalidInput(
                f"judgments: there is no column {name!r} (there are: {', '.join(columns)})"
            )
    places = [_place(value, row) for row, value in enumerate(columns[position])]
    was = Rule(label=clicked, unjudged="irrelevant").apply(columns[clicked], f"column {clicked!r}")
    asked = columns[query]
    texts = [value if isinstance(value, str) else np.asarray(value).tobytes() for value in asked]
    answers = list(zip(texts, columns[shown] if shown else [None] * len(texts), strict=True))
    lowest: dict[Any, float] = {}
    for answer, place, click in zip(answers, places, was, strict=True):
        if click:
            lowest[answer] = max(place, lowest.get(answer, place))
    found = keys(columns, id)
    clicks: Counter[Any] = Counter()
    first: dict[Any, int] = {}
    for row, answer in enumerate(answers):
        # Behind the lowest click nobody may have looked.
        if places[row] <= lowest.get(answer, -np.inf):
            pair = (texts[row], found[row])
            first.setdefault(pair, row)
            clicks[pair] += bool(was[row])
    kept = [pair for pair in first if not 0 < clicks[pair] < min_clicks]
    if not kept:
        raise InvalidInput("judgments: no answer was clicked, so nothing was judged")
    warnings.warn(PositionBias(_WARNING), stacklevel=4)
    return Read(
        vectors([asked[first[pair]] for pair in kept], encoder),
        [pair[1] for pair in kept],
        np.array([clicks[pair] >= min_clicks for pair in kept], dtype=np.bool_),
    )


_WARNING = (
    "judgments of clicks are biased by position: what stands first is clicked more, whatever it "
    "is; relevances fitted to them are too high at the top. Certify with judgments of people"
)


def _place(value: Any, row: int) -> float:
    try:
        place = float(value)
    except (TypeError, ValueError):
        place = float("nan")
    if missing(place):
        raise InvalidInput(f"judgments: the position in row {row} is no number: {value!r:.60}")
    return place
