"""Searching a table in memory: one query, many in one call, page after page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec import filters
from funnelvec.calibration.f1 import best_f1_cutoff
from funnelvec.engines import checks
from funnelvec.engines.asking import (
    PROMISED,
    RESERVED,
    check_after,
    check_cutoff,
    check_many,
    check_returns,
)
from funnelvec.engines.base import After
from funnelvec.engines.keys import check_key, key_names
from funnelvec.engines.store import NamedFunnel, Step, Store
from funnelvec.errors import Conflict, InvalidInput, NotCalibrated, NotFound
from funnelvec.types import Answer, Cutoff, Hit, Promised

if TYPE_CHECKING:
    from funnelvec.calibration import Certificate, StoredCalibration
    from funnelvec.types import BaseCode

__all__ = ["Asked", "MemorySearching"]


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of a search but its query, as the caller wrote them."""

    k: int
    min_relevance: float | None
    filter: Mapping[str, Any] | None
    after: After | None = None
    cutoff: Cutoff | None = None


def _said(asked: Asked) -> str:
    if asked.min_relevance is None:
        return str(asked.cutoff)
    return f"min_relevance {asked.min_relevance:g}"


class MemorySearching:
    """The methods of `MemoryTable` that search."""

    if TYPE_CHECKING:  # what the table has and these methods use
        name: str
        dims: int
        _store: Store
        _certificates: dict[
            tuple[str, Promised], tuple[Certificate, NamedFunnel, StoredCalibration]
        ]

        @property
        def code(self) -> BaseCode: ...
        def _funnel(self, name: str | None) -> NamedFunnel: ...
        def _calibration(self, named: NamedFunnel) -> StoredCalibration | None: ...

    def search(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        after: After | None = None,
        cutoff: Cutoff | None = None,
        funnel: str | None = None,
    ) -> Answer:
        """Find the `k` most similar rows."""
        asked = Asked(k, min_relevance, filter, after, cutoff)
        return self._search(self._funnel(funnel), query, asked)[0]

    def search_many(
        self,
        queries: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        cutoff: Cutoff | None = None,
        funnel: str | None = None,
    ) -> list[Answer]:
        """Find the `k` rows most similar to each query."""
        named = self._funnel(funnel)
        matrix = check_many(queries, dims=self.dims, code=self.code, directed=self._store.directed)
        asked = Asked(k, min_relevance, filter, cutoff=cutoff)
        if not len(matrix):
            self._check(named, asked)
        return [self._search(named, query, asked)[0] for query in matrix]

    def _check(self, named: NamedFunnel, asked: Asked) -> StoredCalibration | None:
        """Refuse arguments that no query could be asked with; return the calibration in force."""
        checks.check_k(asked.k, funnel=named.funnel)
        threshold = checks.check_min_relevance(asked.min_relevance)
        calibration = self._calibration(named)
        if threshold is not None and calibration is None:
            raise NotCalibrated(
                f"funnel {named.name!r} has no calibration, so min_relevance means nothing; "
                f"call calibrate(judgments, funnel={named.name!r}) first"
            )
        parsed = filters.parse(asked.filter)
        if parsed is not None:
            filters.check(parsed, self._store.kinds)
        chosen = check_cutoff(asked.cutoff, min_relevance=asked.min_relevance)
        if chosen == "best_f1":
            self._check_best_f1(named, asked, calibration)
        elif chosen is not None:
            self._certificate(named, PROMISED[chosen]).check_asked(
                k=asked.k, filtered=parsed is not None, continued=asked.after is not None
            )
        return calibration

    def _check_best_f1(
        self, named: NamedFunnel, asked: Asked, calibration: StoredCalibration | None
    ) -> None:
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

    def _certificate(self, named: NamedFunnel, kind: Promised) -> Certificate:
        nothing = (None, None, None)
        certificate, funnel, calibration = self._certificates.get((named.name, kind), nothing)
        if certificate is None:
            raise NotCalibrated(
                f"funnel {named.name!r} has no certificate of {kind}; call certify(judgments, "
                f"{kind}=..., funnel={named.name!r}) first"
            )
        if funnel is not named or calibration is not self._calibration(named):
            raise NotCalibrated(
                f"the certificate of {named.name!r} is void: it is about {certificate.funnel} with "
                "another calibration or other stages; certify again"
            )
        return certificate

    def _cutoff(
        self,
        named: NamedFunnel,
        vector: npt.NDArray[np.float32],
        asked: Asked,
        calibration: StoredCalibration,
        scores: npt.NDArray[np.float64],
    ) -> float | None:
        """The score from which on rows are returned; `scores` are those of the last stage."""
        threshold = checks.check_min_relevance(asked.min_relevance)
        if threshold is not None:
            return calibration.cutoff(vector, threshold)
        if asked.cutoff is None:
            return None
        if asked.cutoff == "best_f1":
            # A single stage keeps no more rows than were asked for.
            listed = scores[: asked.k] if len(named.funnel.stages) == 1 else scores
            return best_f1_cutoff(listed, calibration.apply(vector, listed))
        certificate = self._certificate(named, PROMISED[asked.cutoff])
        by_relevance = certificate.kind == "min_precision" or certificate.cutoff is None
        if by_relevance and certificate.relevance is not None:
            return calibration.cutoff(vector, certificate.relevance)
        return certificate.cutoff

    def _search(
        self, named: NamedFunnel, query: npt.ArrayLike, asked: Asked
    ) -> tuple[Answer, tuple[Step, ...], list[str]]:
        vector = checks.check_query(
            query, dims=self.dims, code=self.code, directed=self._store.directed
        )
        calibration = self._check(named, asked)
        parsed = filters.parse(asked.filter)
        bound = None if parsed is None else filters.check(parsed, self._store.kinds)
        place = check_after(asked.after)
        alpha = 0.0 if calibration is None else calibration.alpha
        steps = self._store.descend(vector, named.funnel, self._store.matching(bound), alpha=alpha)
        notes: list[str] = []
        if alpha:
            notes.append(f"scores are less {alpha:.6g} times the hub of the row")
        top, scores = steps[-1].rows, steps[-1].scores
        least = None
        if calibration is not None and len(scores):
            calibration = calibration.at(vector, scores)
            least = self._cutoff(named, vector, asked, calibration, scores)
        if place is not None:
            key = place.key[0] if len(place.key) == 1 else place.key
            checked = check_key(key, kind=self._store.key_kind, where="after")
            behind = [
                score < place.score or (score == place.score and self._store.keys[row] > checked)
                for row, score in zip(top, scores, strict=True)
            ]
            top, scores = top[behind], scores[behind]
        passed = np.ones(len(scores), dtype=np.bool_)
        if least is not None:
            notes.append(f"{_said(asked)} is a score of at least {least:.6g}")
            passed = scores >= least
            if least > -np.inf:
                notes.append(f"the cutoff leaves {passed.sum()} of the {len(scores)} rows compared")
        # Where nothing passes, the best row is told apart from the answer.
        kept = np.flatnonzero(passed)[: asked.k] if passed.any() else np.arange(len(top))[:1]
        relevance: list[float | None] = [None] * len(kept)
        if calibration is not None and len(kept):
            relevance = [float(value) for value in calibration.apply(vector, scores[kept])]
        hits = self._hits(named, top[kept], scores[kept], relevance)
        if passed.any() or not hits:
            return Answer(hits), steps, notes
        return Answer(nearest=hits[0] if place is None else None), steps, notes

    def _hits(
        self,
        named: NamedFunnel,
        rows: npt.NDArray[np.intp],
        scores: npt.NDArray[np.float64],
        relevance: Sequence[float | None],
    ) -> list[Hit]:
        store = self._store
        return [
            Hit(
                store.keys[row],
                float(score),
                value,
                {name: store.value(name, row) for name in named.returns},
            )
            for row, score, value in zip(rows, scores, relevance, strict=True)
        ]

    def _returned(self, returns: Sequence[str]) -> tuple[str, ...]:
        names = tuple(check_returns(returns))
        known = self._store.other_kinds
        for name in names:
            if name in (*RESERVED, *key_names(self._store.key)) or name.startswith("_fv_"):
                raise Conflict(f"a hit has no place for the column {name!r}: it has that already")
            if names.count(name) > 1:
                raise Conflict(f"the column {name!r} is to be returned twice; name it once")
            if name not in known:
                others = ", ".join(sorted(known)) or "none"
                raise NotFound(f"table {self.name!r} has no column {name!r} (it has: {others})")
        return names
