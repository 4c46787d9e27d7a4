"""Certifying the cutoff of a funnel in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from funnelvec.engines import checks
from funnelvec.engines.asking import check_max_miss
from funnelvec.engines.judged import TOP, certified
from funnelvec.engines.keys import check_key
from funnelvec.engines.store import NamedFunnel, Store
from funnelvec.errors import NotCalibrated
from funnelvec.types import Judgments

if TYPE_CHECKING:
    from funnelvec.calibration import Certificate, StoredCalibration
    from funnelvec.resolution import Resolution
    from funnelvec.types import BaseCode

__all__ = ["MemoryCertifying"]


class MemoryCertifying:
    """The method of `MemoryTable` that certifies."""

    if TYPE_CHECKING:  # what the table has and this method uses
        dims: int
        _base: Resolution
        _store: Store
        _certificates: dict[str, tuple[Certificate, NamedFunnel, StoredCalibration]]

        @property
        def code(self) -> BaseCode: ...
        def _funnel(self, name: str | None) -> NamedFunnel: ...
        def _calibration(self, named: NamedFunnel) -> StoredCalibration | None: ...

    def certify(
        self,
        judgments: Judgments,
        *,
        max_miss: float = 0.05,
        k: int | None = None,
        funnel: str | None = None,
    ) -> Certificate:
        """Find the cutoff that loses at most a share of the relevant rows, and promise it."""
        named = self._funnel(funnel)
        level = check_max_miss(max_miss)
        calibration = self._calibration(named)
        if calibration is None:
            raise NotCalibrated(
                f"funnel {named.name!r} has no calibration; call calibrate(judgments, "
                f"funnel={named.name!r}) first"
            )
        keep = named.funnel.narrowest_keep
        wanted = min(TOP, keep or TOP) if k is None else checks.check_k(k, funnel=named.funnel)
        certificate = certified(
            self._judged_answers(named, judgments, wanted),
            level=level,
            k=wanted,
            funnel=named.funnel,
            calibration=calibration,
            judgments=judgments,
        )
        self._certificates[named.name] = certificate, named, calibration
        return certificate

    def _judged_answers(
        self, named: NamedFunnel, judgments: Judgments, k: int
    ) -> list[list[float]]:
        """Per query its relevant rows among the exact top k: scores, -inf where they are lost."""
        store = self._store
        queries = checks.check_judgments(
            judgments, dims=self.dims, code=self.code, directed=store.directed
        )
        relevant: dict[bytes, set[int]] = {}
        vectors: dict[bytes, npt.NDArray[np.float32]] = {}
        for query, id, label in zip(queries, judgments.ids, judgments.labels, strict=True):
            row = store.row_of(check_key(id, kind=store.key_kind))
            rows = relevant.setdefault(query.tobytes(), set())
            vectors[query.tobytes()] = query
            if label and row is not None:
                rows.add(row)
        return [
            self._found(named, vectors[name], sorted(rows), k) for name, rows in relevant.items()
        ]

    def _found(
        self, named: NamedFunnel, query: npt.NDArray[np.float32], rows: list[int], k: int
    ) -> list[float]:
        """Scores of those of `rows` that are among the exact top k, -inf where lost."""
        store, everything = self._store, np.arange(len(self._store))
        if not rows:
            return []
        exact = store.scores(self._base, query, everything)
        defined = np.sort(exact[~np.isnan(exact)])[::-1]
        # Rows that are as near as the k-th count as well, as in SQL.
        least = defined[min(k, len(defined)) - 1] if len(defined) else np.inf
        last = store.descend(query, named.funnel, everything)[-1]
        reached = dict(zip(last.rows[:k].tolist(), last.scores[:k].tolist(), strict=True))
        return [reached.get(row, -np.inf) for row in rows if exact[row] >= least]
