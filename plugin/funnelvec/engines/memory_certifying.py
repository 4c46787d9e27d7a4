"""Certifying the cutoff of a funnel in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.listed import AdapterCalibration
from funnelvec.calibration.precision import Shown
from funnelvec.engines import checks
from funnelvec.engines.asking import check_promise
from funnelvec.engines.judged import TOP, certified, precise, relevances
from funnelvec.engines.keys import check_key
from funnelvec.engines.store import NamedFunnel, Store
from funnelvec.errors import NotCalibrated
from funnelvec.types import Judgments, Promised

if TYPE_CHECKING:
    from funnelvec.calibration import Certificate, StoredCalibration
    from funnelvec.judging import Unjudged
    from funnelvec.resolution import Resolution
    from funnelvec.types import BaseCode

__all__ = ["MemoryCertifying"]


class MemoryCertifying:
    """The method of `MemoryTable` that certifies."""

    if TYPE_CHECKING:  # what the table has and this method uses
        dims: int
        _base: Resolution
        _store: Store
        _certificates: dict[
            tuple[str, Promised], tuple[Certificate, NamedFunnel, StoredCalibration]
        ]

        @property
        def code(self) -> BaseCode: ...
        def _funnel(self, name: str | None) -> NamedFunnel: ...
        def _calibration(self, named: NamedFunnel) -> StoredCalibration | None: ...

    def certify(
        self,
        judgments: Judgments,
        *,
        max_miss: float | None = None,
        min_precision: float | None = None,
        confidence: float = 0.95,
        k: int | None = None,
        unjudged: Unjudged = "irrelevant",
        funnel: str | None = None,
    ) -> Certificate:
        """Find a cutoff by judgments of whole queries, and promise something of it."""
        named = self._funnel(funnel)
        wanted = check_promise(
            max_miss=max_miss, min_precision=min_precision, confidence=confidence, unjudged=unjudged
        )
        calibration = self._calibration(named)
        if calibration is None:
            raise NotCalibrated(
                f"funnel {named.name!r} has no calibration; call calibrate(judgments, "
                f"funnel={named.name!r}) first"
            )
        keep = named.funnel.narrowest_keep
        top = min(TOP, keep or TOP) if k is None else checks.check_k(k, funnel=named.funnel)
        if wanted.kind == "max_miss":
            certificate = certified(
                self._judged_answers(named, calibration, judgments, top),
                level=wanted.level,
                k=top,
                funnel=named.funnel,
                calibration=calibration,
                judgments=judgments,
            )
        else:
            certificate = precise(
                self._judged_shown(named, calibration, judgments, top, unjudged=unjudged),
                wanted=wanted,
                k=top,
                funnel=named.funnel,
                calibration=calibration,
                judgments=judgments,
            )
        self._certificates[named.name, wanted.kind] = certificate, named, calibration
        return certificate

    def _judged_shown(
        self,
        named: NamedFunnel,
        calibration: StoredCalibration,
        judgments: Judgments,
        k: int,
        *,
        unjudged: Unjudged,
    ) -> list[Shown]:
        """Per query what it is shown at `k` rows: relevances, and labels."""
        store, everything = self._store, np.arange(len(self._store))
        unknown = -1 if unjudged == "ignored" else 0
        found = []
        for query, rows in self._by_query(judgments).values():
            last = store.descend(query, named.funnel, everything, alpha=calibration.alpha)[-1]
            labels = [rows.get(row, unknown) for row in last.rows[:k].tolist()]
            shown = relevances(calibration, query, last.scores, k)
            found.append(Shown(shown, np.array(labels, dtype=np.int8)))
        return found

    def _by_query(
        self, judgments: Judgments
    ) -> dict[bytes, tuple[npt.NDArray[np.float32], dict[int, int]]]:
        """The different queries, each with the label of every row of the table that was judged."""
        store = self._store
        queries = checks.check_judgments(
            judgments, dims=self.dims, code=self.code, directed=store.directed
        )
        found: dict[bytes, tuple[npt.NDArray[np.float32], dict[int, int]]] = {}
        for query, id, label in zip(queries, judgments.ids, judgments.labels, strict=True):
            row = store.row_of(check_key(id, kind=store.key_kind))
            _, rows = found.setdefault(query.tobytes(), (query, {}))
            if row is not None:  # judged both ways means that somebody found it relevant
                rows[row] = max(int(label), rows.get(row, 0))
        return found

    def _judged_answers(
        self, named: NamedFunnel, calibration: StoredCalibration, judgments: Judgments, k: int
    ) -> list[list[float]]:
        """Per query its relevant rows among the exact top k: what the cutoff is on, or -inf."""
        by_row = [
            (query, sorted(row for row, label in rows.items() if label))
            for query, rows in self._by_query(judgments).values()
        ]
        return [self._found(named, calibration, query, rows, k=k) for query, rows in by_row]

    def _found(
        self,
        named: NamedFunnel,
        calibration: StoredCalibration,
        query: npt.NDArray[np.float32],
        rows: list[int],
        *,
        k: int,
    ) -> list[float]:
        """Scores of those of `rows` that are among the exact top k, -inf where lost.

        By an adapter their relevances, since one score is another relevance for each query.
        """
        store, everything = self._store, np.arange(len(self._store))
        if not rows:
            return []
        alpha = calibration.alpha
        exact = store.correct(store.scores(self._base, query, everything), everything, alpha)
        defined = np.sort(exact[~np.isnan(exact)])[::-1]
        # Rows that are as near as the k-th count as well, as in SQL.
        least = defined[min(k, len(defined)) - 1] if len(defined) else np.inf
        last = store.descend(query, named.funnel, everything, alpha=alpha)[-1]
        found = last.scores[:k]
        if isinstance(calibration, AdapterCalibration):
            found = relevances(calibration, query, last.scores, k)
        reached = dict(zip(last.rows[:k].tolist(), found.tolist(), strict=True))
        return [reached.get(row, -np.inf) for row in rows if exact[row] >= least]
