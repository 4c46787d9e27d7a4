"""What is asked of a search beside its query: several queries at once, and where a page begins."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from funnelvec.engines import checks
from funnelvec.engines.base import After
from funnelvec.engines.keys import plain
from funnelvec.errors import InvalidInput
from funnelvec.types import CUTOFFS, BaseCode, Cutoff, Hit, Key, KeyPart, Promised

__all__ = [
    "PROMISED",
    "RESERVED",
    "Place",
    "Wanted",
    "check_after",
    "check_cutoff",
    "check_feedback",
    "check_many",
    "check_max_miss",
    "check_promise",
    "check_returns",
    "key_to_json",
]

#: Names that the search function has taken, so that no column it returns may have them.
RESERVED = ("score", "relevance", "query", "k", "min_relevance", "filter", "after", "cutoff")

#: The certificate that a cutoff goes by.
PROMISED: dict[str, Promised] = {"certified": "max_miss", "precise": "min_precision"}

_FORM = 'the last Hit of the page before, its .cursor, or {"score": 0.93, "key": [17]}'


class Place(NamedTuple):
    """The place of a row in the order of an answer; the key has one value per key column."""

    score: float
    key: tuple[KeyPart, ...]

    def to_json(self) -> str:
        """Write it as the argument ``after`` of the SQL function takes it."""
        return Hit(self.key, self.score, None).cursor


def check_after(after: After | None) -> Place | None:
    """Read where the next page begins.

    Raises
    ------
    InvalidInput
        If it is not the place of a row.
    """
    if after is None:
        return None
    given: Any = after.cursor if isinstance(after, Hit) else after
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise InvalidInput(f"after is {_FORM}, not {after!r:.100}") from None
    if not isinstance(given, Mapping) or set(given) != {"score", "key"}:
        raise InvalidInput(f"after is {_FORM}, not {after!r:.100}")
    key = given["key"]
    if not isinstance(key, (list, tuple)) or not key or not all(map(_is_scalar, key)):
        raise InvalidInput(f"after: the key is a list, a value per key column, not {key!r:.100}")
    return Place(_score(given["score"]), tuple(key))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def _score(given: Any) -> float:
    try:
        score = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if math.isnan(score):
        raise InvalidInput(f"after: the score is a number, not {given!r:.100}")
    return score


def check_many(
    queries: npt.ArrayLike, *, dims: int, code: BaseCode, directed: bool
) -> npt.NDArray[np.float32]:
    """Return the queries as (n, dims) float32, rounded to what a column of `code` holds.

    Raises
    ------
    InvalidInput
        If they are not an (n, dims) array of finite numbers, or one is zero and may not be.
    """
    given: Any = queries
    if isinstance(given, (str, bytes)) or not hasattr(given, "__len__"):
        raise InvalidInput(f"queries must have the shape (n, {dims}), not be {given!r:.100}")
    try:
        rows = len(given)
    except Exception as error:  # an array of no dimensions has a length and then has none
        raise InvalidInput(f"queries must have the shape (n, {dims}): {error}") from None
    return checks.check_matrix(
        given, dims=dims, rows=rows, code=code, directed=directed, what="queries"
    )


def check_returns(returns: Sequence[str]) -> list[str]:
    """Return the names of the columns that a funnel's hits bring along.

    Raises
    ------
    InvalidInput
        If it is not a list of names.
    """
    given: Any = returns
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise InvalidInput(f"returns is a list of names of columns, not {given!r:.100}")
    return [checks.check_name(name, "the name of a column to return") for name in given]


def check_cutoff(cutoff: Cutoff | None, *, min_relevance: float | None) -> Cutoff | None:
    """Return the cutoff of a search.

    Raises
    ------
    InvalidInput
        If it is of another name, or `min_relevance` is given too.
    """
    given: Any = cutoff
    if given is None:
        return None
    if not isinstance(given, str) or given not in CUTOFFS:
        names = ", ".join(map(repr, CUTOFFS))
        raise InvalidInput(f"cutoff must be {names} or None, not {cutoff!r:.100}")
    if min_relevance is not None:
        raise InvalidInput(f"give min_relevance or cutoff={given!r}, not both")
    return cutoff


class Wanted(NamedTuple):
    """What is to be promised: a kind of certificate, its level, and the confidence."""

    kind: Promised
    level: float
    confidence: float


def check_promise(
    *,
    max_miss: float | None,
    min_precision: float | None,
    confidence: float,
    unjudged: str = "irrelevant",
) -> Wanted:
    """Return what is to be certified; with neither level, ``max_miss`` of 0.05.

    Raises
    ------
    InvalidInput
        If both levels are given, or a number is not between 0 and 1.
    """
    if max_miss is not None and min_precision is not None:
        raise InvalidInput(
            "give max_miss or min_precision, not both; a funnel keeps one certificate of each"
        )
    if unjudged not in ("irrelevant", "ignored"):
        raise InvalidInput(f"unjudged must be 'irrelevant' or 'ignored', not {unjudged!r:.100}")
    sure = _check_share(confidence, "confidence")
    if min_precision is not None:
        return Wanted("min_precision", _check_share(min_precision, "min_precision"), sure)
    return Wanted(
        "max_miss", _check_share(0.05 if max_miss is None else max_miss, "max_miss"), sure
    )


def check_max_miss(max_miss: float) -> float:
    """Return the share of relevant rows that may be lost.

    Raises
    ------
    InvalidInput
        If it is not a number between 0 and 1.
    """
    return _check_share(max_miss, "max_miss")


def check_feedback(*, score: float | None, query: Any, id: Any) -> float | None:
    """Return the score of the row that feedback is about; None where its key is given instead.

    Raises
    ------
    InvalidInput
        If it is not said which row it was, or said twice.
    """
    if (score is None) == (id is None) or (id is not None and query is None):
        raise InvalidInput("which row was it? give score=, or query= and id=, and not both")
    value: Any = plain(score)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e150:
        raise InvalidInput(f"score must be a number, not {score!r:.100}")
    return float(value)


def key_to_json(id: Key) -> str:
    """Write a key as the list of values that functions in SQL take."""
    return json.dumps(json.loads(Hit(id, 0.0, None).cursor)["key"])


def _check_share(share: float, name: str) -> float:
    value: Any = plain(share)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise InvalidInput(f"{name} must be a share between 0 and 1, not {share!r:.100}")
    return float(value)
