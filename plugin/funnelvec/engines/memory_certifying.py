"""Certifying the cutoff of a funnel in memory."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.certificate import Certificate, relevance_at
from funnelvec.calibration.guarantees import conformal_threshold, queries_needed
from funnelvec.engines import checks
from funnelvec.engines.asking import check_max_miss
from funnelvec.engines.keys import check_key
from funnelvec.engines.recall import bootstrap_interval
from funnelvec.engines.store import NamedFunnel, Store
from funnelvec.errors import CalibrationError, NotCalibrated
from funnelvec.types import Judgments

if TYPE_CHECKING:
    from funnelvec.calibration import StoredCalibration
    from funnelvec.resolution import Resolution
    from funnelvec.types import BaseCode

__all__ = ["MemoryCertifying"]

_TOP = 100


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
        wanted = min(_TOP, keep or _TOP) if k is None else checks.check_k(k, funnel=named.funnel)
        scores, labels = self._judged_answers(named, judgments, wanted)
        cutoff = _certified(scores, labels, level, named)
        losses = (labels & (scores < cutoff)).sum(axis=1) / np.maximum(labels.sum(axis=1), 1)
        low, high = bootstrap_interval(losses, seed=0)
        certificate = Certificate(
            level=level,
            k=wanted,
            cutoff=cutoff,
            relevance=relevance_at(calibration, cutoff),
            missed=float(losses.mean()),
            low=low,
            high=high,
            queries=len(losses),
            without_relevant=float((~labels.any(axis=1)).mean()),
            funnel=str(named.funnel),
            judgments_sha256=judgments.sha256,
            certified_at=datetime.datetime.now(datetime.timezone.utc),
        )
        self._certificates[named.name] = certificate, named, calibration
        return certificate

    def _judged_answers(
        self, named: NamedFunnel, judgments: Judgments, k: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
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
        answers = [
            self._found(named, vectors[name], sorted(rows), k) for name, rows in relevant.items()
        ]
        width = max(1, *(len(answer) for answer in answers))
        scores = np.full((len(answers), width), -np.inf)
        labels = np.zeros(scores.shape, dtype=np.bool_)
        for i, answer in enumerate(answers):
            scores[i, : len(answer)], labels[i, : len(answer)] = answer, True
        return scores, labels

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


def _certified(
    scores: npt.NDArray[np.float64],
    labels: npt.NDArray[np.bool_],
    level: float,
    named: NamedFunnel,
) -> float:
    n, needed = len(scores), queries_needed(level)
    if n >= needed:
        if not labels.any():
            raise CalibrationError(
                "no judged query has a relevant row among the exact top rows, so there is nothing "
                "to promise; judge rows that the search returns"
            )
        counts = np.maximum(labels.sum(axis=1), 1)
        by_stages = float(((labels & np.isneginf(scores)).sum(axis=1) / counts).sum())
        if by_stages > level * (n + 1) - 1 + 1e-9:
            raise CalibrationError(
                f"max_miss={level:g} cannot be promised for {named.funnel}: its stages alone lose "
                f"{by_stages / n:.4f} of the relevant rows; keep more rows in them, or ask for "
                f"max_miss={np.ceil(1000 * (by_stages + 1) / (n + 1)) / 1000:g}"
            )
    return conformal_threshold(scores, labels, max_miss=level).threshold
