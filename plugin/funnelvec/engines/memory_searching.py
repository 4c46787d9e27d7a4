"""Searching a table in memory: one query, many in one call, page after page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec import filters
from funnelvec.engines import checks
from funnelvec.engines.asking import RESERVED, check_after, check_cutoff, check_many, check_returns
from funnelvec.engines.base import After
from funnelvec.engines.keys import check_key, key_names
from funnelvec.engines.store import NamedFunnel, Step, Store
from funnelvec.errors import Conflict, NotCalibrated, NotFound
from funnelvec.types import Cutoff, Hit

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


class MemorySearching:
    """The methods of `MemoryTable` that search."""

    if TYPE_CHECKING:  # what the table has and these methods use
        name: str
        dims: int
        _store: Store
        _certificates: dict[str, tuple[Certificate, NamedFunnel, StoredCalibration]]

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
    ) -> list[Hit]:
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
    ) -> list[list[Hit]]:
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
        if check_cutoff(asked.cutoff, min_relevance=asked.min_relevance) is not None:
            self._certificate(named).check_asked(k=asked.k, filtered=parsed is not None)
        return calibration

    def _certificate(self, named: NamedFunnel) -> Certificate:
        certificate, funnel, calibration = self._certificates.get(named.name, (None, None, None))
        if certificate is None:
            raise NotCalibrated(
                f"funnel {named.name!r} has no certificate; call certify(judgments, "
                f"funnel={named.name!r}) first"
            )
        if funnel is not named or calibration is not self._calibration(named):
            raise NotCalibrated(
                f"the certificate of {named.name!r} is void: it is about {certificate.funnel} with "
                "another calibration or other stages; certify again"
            )
        return certificate

    def _search(
        self, named: NamedFunnel, query: npt.ArrayLike, asked: Asked
    ) -> tuple[list[Hit], tuple[Step, ...], list[str]]:
        vector = checks.check_query(
            query, dims=self.dims, code=self.code, directed=self._store.directed
        )
        calibration = self._check(named, asked)
        parsed = filters.parse(asked.filter)
        bound = None if parsed is None else filters.check(parsed, self._store.kinds)
        place = check_after(asked.after)
        steps = self._store.descend(vector, named.funnel, self._store.matching(bound))
        notes = []
        top, scores = steps[-1].rows, steps[-1].scores
        if calibration is not None and len(scores):
            calibration = calibration.at(vector, scores)
        if place is not None:
            key = place.key[0] if len(place.key) == 1 else place.key
            checked = check_key(key, kind=self._store.key_kind, where="after")
            behind = [
                score < place.score or (score == place.score and self._store.keys[row] > checked)
                for row, score in zip(top, scores, strict=True)
            ]
            top, scores = top[behind], scores[behind]
        if calibration is not None and len(scores):
            threshold = checks.check_min_relevance(asked.min_relevance)
            least = -np.inf
            if threshold is not None:
                least = calibration.cutoff(vector, threshold)
                notes.append(f"min_relevance {threshold:g} is a score of at least {least:.6g}")
            if asked.cutoff is not None:
                least = self._certificate(named).cutoff
                notes.append(f"certified is a score of at least {least:.6g}")
            if least > -np.inf:
                passed = int((scores >= least).sum())
                notes.append(f"the cutoff leaves {passed} of the {len(scores)} rows compared")
                top, scores = top[scores >= least], scores[scores >= least]
        top, scores = top[: asked.k], scores[: asked.k]
        relevance: list[float | None] = [None] * len(top)
        if calibration is not None and len(scores):
            relevance = [float(value) for value in calibration.apply(vector, scores)]
        return self._hits(named, top, scores, relevance), steps, notes

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
