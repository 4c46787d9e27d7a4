"""Judged pairs from rows with named columns: keys, query vectors, labels by a stated rule."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from funnelvec.errors import InvalidInput

if TYPE_CHECKING:
    from funnelvec.judging import Encoder, Unjudged

__all__ = ["Read", "Rule", "columns_of", "distinct", "keys", "missing", "read", "vectors"]

_RULES = "unjudged='ignored' leaves them out, unjudged='irrelevant' counts them as not relevant"


class Read(NamedTuple):
    """Judged pairs: queries (n, d), n keys, n labels."""

    queries: npt.NDArray[np.float32]
    ids: list[Any]
    labels: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rule:
    """By what a row is relevant; see `JudgmentSources.from_rows`."""

    label: str | None = None
    grade: str | None = None
    relevant_from: float | None = None
    unjudged: Unjudged | None = None

    def __post_init__(self) -> None:
        if self.label is not None and self.grade is not None:
            raise InvalidInput("judgments: give label or grade, not both")
        if (self.grade is None) != (self.relevant_from is None):
            raise InvalidInput(
                "judgments: grade= and relevant_from= belong together: the column with the grades, "
                "and the least grade that counts as relevant"
            )
        least: Any = self.relevant_from
        if least is not None and (
            isinstance(least, bool) or not isinstance(least, (int, float)) or math.isnan(least)
        ):
            raise InvalidInput(f"judgments: relevant_from must be a number, not {least!r}")
        if self.unjudged not in (None, "ignored", "irrelevant"):
            raise InvalidInput(
                f"judgments: unjudged must be 'ignored', 'irrelevant' or None, not "
                f"{self.unjudged!r:.100}"
            )

    @property
    def column(self) -> str:
        """The column that it reads."""
        return self.grade or self.label or "relevant"

    def apply(self, values: Sequence[Any], what: str) -> list[bool | None]:
        """Say of each value whether it means relevant; None for what is left out."""
        return [self._one(value, f"{what}, row {row}") for row, value in enumerate(values)]

    def _one(self, value: Any, where: str) -> bool | None:
        if missing(value):
            if self.unjudged is None:
                raise InvalidInput(f"judgments: {where} is missing; {_RULES}")
            return None if self.unjudged == "ignored" else False
        if self.relevant_from is not None:
            grade = _number(value)
            if grade is None:
                raise InvalidInput(f"judgments: {where} is no grade: {value!r:.60}")
            return grade >= self.relevant_from
        found = _boolean(value)
        if found is None:
            raise InvalidInput(
                f"judgments: {where} is neither true nor false: {value!r:.60}; for grades give "
                "grade= and relevant_from="
            )
        return found


def read(
    rows: Any,
    *,
    query: str,
    id: str | Sequence[str],
    rule: Rule,
    encoder: Encoder | None,
) -> Read:
    """Read judged pairs; see `JudgmentSources.from_rows`."""
    columns = columns_of(rows)
    labels = rule.apply(_column(columns, rule.column), f"column {rule.column!r}")
    kept = [row for row, label in enumerate(labels) if label is not None]
    if not kept:
        raise InvalidInput("judgments: there is no judged row")
    asked = _column(columns, query)
    found = keys(columns, id)
    return Read(
        vectors([asked[row] for row in kept], encoder),
        [found[row] for row in kept],
        np.array([labels[row] for row in kept], dtype=np.bool_),
    )


def columns_of(rows: Any) -> dict[str, Sequence[Any]]:
    """Return rows as columns by name.

    Raises
    ------
    InvalidInput
        If they have no names, or columns of different lengths.
    """
    given = rows
    if hasattr(given, "to_pydict"):  # Arrow
        given = given.to_pydict()
    elif hasattr(given, "to_dict") and hasattr(given, "columns"):  # a data frame
        given = {str(name): list(given[name]) for name in given.columns}
    if isinstance(given, Mapping):
        columns = {str(name): _listed(values, name) for name, values in given.items()}
    else:
        columns = _turned(given)
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1 or not max(lengths, default=0):
        raise InvalidInput(
            "judgments: columns must have one value for each of some rows; "
            + (", ".join(f"{name} has {len(values)}" for name, values in columns.items()) or "none")
        )
    return columns


def _listed(values: Any, name: Any) -> Sequence[Any]:
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise InvalidInput(f"judgments: column {name!r} is no list of values: {values!r:.60}")
    return list(values)


def _turned(rows: Any) -> dict[str, Sequence[Any]]:
    if isinstance(rows, (str, bytes)) or not isinstance(rows, Iterable):
        raise InvalidInput(f"judgments: rows with names of columns are wanted, not {rows!r:.60}")
    listed = list(rows)
    if not all(isinstance(row, Mapping) for row in listed):
        raise InvalidInput(
            "judgments: rows are mappings of names to values; for arrays: "
            "Judgments(queries, ids, labels)"
        )
    names = list(dict.fromkeys(str(name) for row in listed for name in row))
    return {name: [row.get(name) for row in listed] for name in names}


def _column(columns: Mapping[str, Sequence[Any]], name: str) -> Sequence[Any]:
    if name not in columns:
        raise InvalidInput(
            f"judgments: there is no column {name!r} (there are: {', '.join(columns)}); "
            "name it with query=, id=, label= or grade="
        )
    return columns[name]


def keys(columns: Mapping[str, Sequence[Any]], id: str | Sequence[str]) -> list[Any]:
    """Return the keys: values, or tuples where `id` is a list of names."""
    if isinstance(id, str):
        found: list[Any] = [_plain(value) for value in _column(columns, id)]
    else:
        parts = [_column(columns, name) for name in id]
        found = [tuple(map(_plain, key)) for key in zip(*parts, strict=True)]
    return found


def vectors(queries: Any, encoder: Encoder | None) -> npt.NDArray[np.float32]:
    """Return queries as (n, d) float32; texts go through the encoder, each different one once.

    Raises
    ------
    InvalidInput
        If they are texts without an encoder, of different widths, or no numbers.
    """
    if isinstance(queries, np.ndarray) and queries.dtype.kind in "fiu":
        return np.asarray(queries, dtype=np.float32)
    listed = list(queries) if hasattr(queries, "__iter__") else []
    if not listed:
        raise InvalidInput(f"judgments: no queries in {queries!r:.60}")
    if encoder is not None and all(isinstance(query, str) for query in listed):
        return _encoded(listed, encoder)
    known: dict[str, list[float]] = {}
    read = [_vector(query, row, known) for row, query in enumerate(listed)]
    try:
        with np.errstate(over="ignore"):
            found = np.array(read, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"judgments: queries are not vectors of one width: {error}") from None
    return found


def _encoded(texts: list[str], encoder: Encoder) -> npt.NDArray[np.float32]:
    different = list(dict.fromkeys(texts))
    made = np.asarray(encoder(different))
    if made.ndim != 2 or len(made) != len(different) or made.dtype.kind not in "fiu":
        raise InvalidInput(
            f"judgments: the encoder was given {len(different)} texts and gave back {made.dtype} "
            f"of shape {made.shape}, not ({len(different)}, d) numbers"
        )
    place = {text: row for row, text in enumerate(different)}
    found: npt.NDArray[np.float32] = made.astype(np.float32)[[place[text] for text in texts]]
    return found


def _vector(query: Any, row: int, known: dict[str, list[float]]) -> Any:
    if isinstance(query, (str, bytes)):
        text = query.decode("utf-8", "replace") if isinstance(query, bytes) else query
        if text not in known:
            try:
                known[text] = json.loads(text)
            except ValueError:
                raise InvalidInput(
                    f"judgments: query {row} is a text, {text!r:.60}; give encoder=, which turns "
                    "texts into vectors by the model that made the column"
                ) from None
        return known[text]
    if missing(query):
        raise InvalidInput(f"judgments: query {row} is missing")
    return query.tolist() if hasattr(query, "tolist") else query


def distinct(queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the different rows of (n, d), in the order in which they first occur."""
    first: dict[bytes, int] = {}
    for row, query in enumerate(queries):
        first.setdefault(query.tobytes(), row)
    found: npt.NDArray[np.float32] = queries[list(first.values())]
    return found


def missing(value: Any) -> bool:
    """Whether a value stands for none: None, NaN, and what data frames have for it."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # an array compares element by element
        return type(value).__name__ in ("NAType", "NaTType")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number


_WORDS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def _boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower())
    number = _number(value)
    return bool(number) if number in (0.0, 1.0) else None
