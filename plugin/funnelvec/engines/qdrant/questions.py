"""Searches but their query vector, checked and compiled: what `searching` asks again and again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import neg
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec import filters
from funnelvec.calibration import Certificate, StoredCalibration
from funnelvec.calibration.f1 import best_f1_cutoff
from funnelvec.calibration.listed import AdapterCalibration
from funnelvec.calibration.quick import Curve, QuickAdapter
from funnelvec.engines import checks
from funnelvec.engines.asking import Place, check_after
from funnelvec.engines.base import After
from funnelvec.engines.keys import check_key, key_names
from funnelvec.engines.qdrant import names
from funnelvec.engines.qdrant.compile import Plan, Template
from funnelvec.engines.qdrant.definition import Definition, Vector
from funnelvec.engines.qdrant.deployment import Found, Search
from funnelvec.engines.qdrant.payload import from_payload
from funnelvec.engines.qdrant.vectors import Column
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import InvalidInput, NotCalibrated
from funnelvec.types import Cutoff, Promised

__all__ = [
    "Asked",
    "Question",
    "Worth",
    "beginning",
    "check_best_f1",
    "check_one",
    "cutoff_of",
    "glance",
    "promised",
    "reader",
    "rows_asked",
    "window",
]


#: The relevance of each of some scores, for one query.
Worth: TypeAlias = Callable[[Sequence[float]], list[float]]


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of a search but its query, as the caller wrote them."""

    k: int
    min_relevance: float | None
    filter: Mapping[str, Any] | None
    after: After | None = None
    cutoff: Cutoff | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A search but its query, checked; `template` asks for one row more than `rows_asked` says.

    Attributes
    ----------
    cutoff
        The lowest score of an answer that is not `listed`; None where all pass.
    paths
        What the payload of the rows of an answer is read for. The rest of a shortlist is not
        looked at, so a `listed` answer has its payload read when it is known.
    curve, adapter
        The calibration as searches apply it; none of them where it has no such form.
    """

    definition: Definition
    vector: Vector
    named: NamedFunnel
    plan: Plan
    template: Template
    k: int
    filter: models.Filter | None
    threshold: float | None
    calibration: StoredCalibration | None
    after: Place | None
    key: Callable[[Found], Any]
    score: Callable[[float], float]
    search: Search
    cutoff: float | None = None
    paths: tuple[str, ...] = ()
    certificate: Certificate | None = None
    best_f1: bool = False
    curve: Curve | None = None
    adapter: QuickAdapter | None = None

    @property
    def listed(self) -> bool:
        """Whether relevance or the end of the answer are read off the whole shortlist."""
        return self.best_f1 or self.adapter is not None

    @property
    def cuts(self) -> bool:
        """Whether an answer may be empty though there are rows."""
        return self.threshold is not None or self.certificate is not None

    def longer(self, limit: int) -> Template:
        """The same for another number of rows."""
        paths: Any = self.template.search.with_payload
        most = min(limit, self.plan.limits.rows)
        return Template.of(self.plan, limit=most, filter=self.filter, payload=paths or ())

    @property
    def uncut(self) -> Question:
        """The same without a cutoff."""
        return replace(self, threshold=None, certificate=None, cutoff=None)

    @property
    def least(self) -> float | None:
        """The lowest relevance of an answer by an adapter; None where there is none.

        Its certificates are about relevance, which is another score for each query.
        """
        return self.threshold if self.certificate is None else self.certificate.relevance

    def worth(self, query: npt.NDArray[np.float32]) -> Worth | None:
        """What scores are worth by a map for all queries; None without a calibration."""
        calibration = self.calibration
        if calibration is None:
            return None
        if self.curve is not None:
            return self.curve.relevance
        return lambda scores: [float(each) for each in calibration.apply(query, scores)]

    def ending(
        self, query: npt.NDArray[np.float32], scores: Sequence[float]
    ) -> tuple[Worth | None, float | None]:
        """What scores are worth, and the lowest score of the answer; of one that is `listed`.

        Parameters
        ----------
        scores
            Of the rows that reached the last stage, falling: one at least, and as many of the
            best as `rows_asked` says.
        """
        some = np.array(scores[: self.named.funnel.narrowest_keep or self.k])
        if self.adapter is None:
            assert self.calibration is not None  # the question was refused without
            found = best_f1_cutoff(some, self.calibration.apply(query, some))
            return self.worth(query), found
        places = self.adapter.places(len(scores))
        curve = self.adapter.curve(query, [scores[place] for place in places])
        if self.best_f1:
            return curve.relevance, best_f1_cutoff(some, curve.apply(some))
        found = -np.inf if self.least is None else curve.cutoff(self.least)
        return curve.relevance, None if found == -np.inf else found

    def value(self, point: Found, name: str) -> Any:
        """What a point has in a column."""
        return _value(self.definition, point, name)


def _value(definition: Definition, point: Found, name: str) -> Any:
    payload = point.payload or {}
    return from_payload(payload.get(names.payload_key(name)), definition.kinds[name])


def reader(definition: Definition) -> Callable[[Found], Any]:
    """Return what tells the key of the row that a point is."""
    kind = definition.key_kind
    if not names.needs_payload(kind):
        integers = kind == "integer"

        def key(point: Found) -> Any:
            id = point.id
            return id if integers and type(id) is int else names.key_of(id, kind)

        return key
    columns = key_names(definition.key)
    if isinstance(kind, str):
        return lambda point: _value(definition, point, columns[0])
    return lambda point: tuple(_value(definition, point, name) for name in columns)


_FLOAT32 = np.dtype(np.float32)


def glance(column: Column) -> Callable[[Any], bool]:
    """Return what sees of a query that it is good, as what embedding models give is."""
    if column.code != "f32":
        return lambda query: False
    shape = (column.base.dims,)

    def is_plain(query: Any) -> bool:
        return (
            type(query) is np.ndarray
            and query.dtype is _FLOAT32
            and query.shape == shape
            and 1e-6 < query.dot(query) < 1e30
        )

    return is_plain


def check_one(column: Column, query: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Check a query."""
    return checks.check_query(
        query, dims=column.base.dims, code=column.code, directed=column.directed
    )


def cutoff_of(
    calibration: StoredCalibration | None, threshold: float | None, certificate: Certificate | None
) -> float | None:
    """Return the lowest score of an answer, the same for every query; None where all pass."""
    found: float | None = None
    if isinstance(calibration, AdapterCalibration):
        return None
    if certificate is not None:
        found = certificate.cutoff
    elif calibration is not None and threshold is not None:
        found = calibration.cutoff(None, threshold)
    return None if found == -np.inf else found


def rows_asked(
    named: NamedFunnel,
    asked: Asked,
    calibration: StoredCalibration | None,
    k: int,
) -> int:
    """Return how many rows a search has to look at to answer with `k`.

    The best F1 goes by all rows of the last stage, and a later page may begin behind any of them.
    """
    keep = named.funnel.narrowest_keep
    by_query = isinstance(calibration, AdapterCalibration)
    if keep is None or not (by_query or asked.cutoff == "best_f1"):
        return k
    if asked.cutoff == "best_f1" or asked.after is not None:
        return keep
    return max(k, getattr(calibration, "depth", 0))


def window(
    scores: Sequence[float], k: int, after: Place | None, *, passed: int, slack: float
) -> tuple[int, int]:
    """Return from where to where a shortlist may be of the answer: `k` rows, and what ties.

    Parameters
    ----------
    scores
        Falling.
    after
        Where the page begins.
    passed
        How many of the scores reach the cutoff.
    slack
        Of the deployment, see there.
    """
    start = stop = 0
    if after is not None:
        # Which rows lie behind, keys say of those that tie; these may be a few too many.
        near = 2 * slack * max(1.0, abs(after.score))
        start = bisect_left(scores, -(after.score + near), key=neg)
        stop = bisect_right(scores, -(after.score - near), key=neg)
    stop = min(passed, stop + k)
    while 0 < stop < passed and scores[stop] == scores[stop - 1]:
        stop += 1
    return start, stop


def check_best_f1(named: NamedFunnel, asked: Asked, calibration: StoredCalibration | None) -> None:
    """Refuse the best F1 where nothing is known of it.

    Raises
    ------
    NotCalibrated, InvalidInput
        Without a calibration, and for a later page of a single stage.
    """
    if calibration is None:
        raise NotCalibrated(
            f"funnel {named.name!r} has no calibration, so nothing is known of the F1 of an "
            f"answer; call calibrate(judgments, funnel={named.name!r}) first"
        )
    if asked.after is not None and len(named.funnel.stages) == 1:
        raise InvalidInput(
            "best_f1 of a single stage is about its first page; use a funnel of two stages, or "
            "min_relevance"
        )


def promised(vector: Vector, named: NamedFunnel, asked: Asked, promise: Promised) -> Certificate:
    """Return the certificate of a promise, which holds for what is asked.

    Raises
    ------
    NotCalibrated, InvalidInput
        If there is none, or it does not hold for this.
    """
    found = vector.certificate(named, promise)
    found.check_asked(
        k=asked.k,
        filtered=filters.parse(asked.filter) is not None,
        continued=asked.after is not None,
    )
    return found


def beginning(asked: Asked, definition: Definition) -> Place | None:
    """Where the page begins that is asked for; None for the first."""
    place = check_after(asked.after)
    if place is None:
        return None
    given: Any = place.key[0] if len(place.key) == 1 else place.key
    return Place(place.score, check_key(given, kind=definition.key_kind, where="after"))
