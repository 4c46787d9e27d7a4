"""Certifying the cutoff of a funnel in memory."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.certificate import Certificate, cutoff_at, relevance_at
from funnelvec.calibration.guarantees import conformal_threshold, queries_needed
from funnelvec.calibration.precision import Shown, precise_threshold
from funnelvec.engines import checks
from funnelvec.engines.asking import Wanted, check_promise
from funnelvec.engines.keys import check_key
from funnelvec.engines.recall import bootstrap_interval
from funnelvec.engines.store import NamedFunnel, Store
from funnelvec.errors import CalibrationError, NotCalibrated
from funnelvec.types import Judgments, Promised

if TYPE_CHECKING:
    from funnelvec.calibration import StoredCalibration
    from funnelvec.judging import Unjudged
    from funnelvec.resolution import Resolution
    from funnelvec.types import BaseCode

__all__ = ["MemoryCertifying"]

_TOP = 100


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """A cutoff that can be promised, and what the judged queries lose by it."""

    cutoff: float | None
    relevance: float | None
    losses: npt.NDArray[np.float64]
    without_relevant: float
    answered: float | None = None
    approximate: bool = False


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
        top = min(_TOP, keep or _TOP) if k is None else checks.check_k(k, funnel=named.funnel)
        if wanted.kind == "max_miss":
            made = self._promised_miss(named, calibration, judgments, wanted.level, top)
        else:
            shown = self._judged_shown(named, calibration, judgments, top, unjudged=unjudged)
            made = _promised_precision(shown, calibration, wanted, _same(calibration, judgments))
        certificate = Certificate(
            kind=wanted.kind,
            level=wanted.level,
            confidence=None if wanted.kind == "max_miss" else wanted.confidence,
            k=top,
            cutoff=made.cutoff,
            relevance=made.relevance,
            observed=float(made.losses.mean()),
            **dict(zip(("low", "high"), bootstrap_interval(made.losses, seed=0), strict=True)),
            queries=len(made.losses),
            without_relevant=made.without_relevant,
            answered=made.answered,
            approximate=made.approximate,
            funnel=str(named.funnel),
            judgments_sha256=judgments.sha256,
            certified_at=datetime.datetime.now(datetime.timezone.utc),
        )
        self._certificates[named.name, wanted.kind] = certificate, named, calibration
        return certificate

    def _promised_miss(
        self,
        named: NamedFunnel,
        calibration: StoredCalibration,
        judgments: Judgments,
        level: float,
        k: int,
    ) -> _Made:
        scores, labels = self._judged_answers(named, judgments, k)
        cutoff = _certified(scores, labels, level, named)
        losses = (labels & (scores < cutoff)).sum(axis=1) / np.maximum(labels.sum(axis=1), 1)
        return _Made(
            cutoff=cutoff,
            relevance=relevance_at(calibration, cutoff),
            losses=losses,
            without_relevant=float((~labels.any(axis=1)).mean()),
        )

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
        found = []
        for query, rows in self._by_query(judgments).values():
            last = store.descend(query, named.funnel, everything)[-1]
            unknown = -1 if unjudged == "ignored" else 0
            labels = [rows.get(row, unknown) for row in last.rows[:k].tolist()]
            found.append(
                Shown(_relevances(calibration, query, last.scores, k), np.array(labels, np.int8))
            )
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
        self, named: NamedFunnel, judgments: Judgments, k: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Per query its relevant rows among the exact top k: scores, -inf where they are lost."""
        answers = [
            self._found(named, query, sorted(row for row, label in rows.items() if label), k)
            for query, rows in self._by_query(judgments).values()
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


def _relevances(
    calibration: StoredCalibration,
    query: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float64],
    k: int,
) -> npt.NDArray[np.float64]:
    """Of the `k` best rows; what an adapter makes of them hangs on the whole shortlist."""
    if not len(scores):
        return np.empty(0)
    return calibration.at(query, scores).apply(query, scores[:k])


def _same(calibration: StoredCalibration, judgments: Judgments) -> bool:
    return calibration.judgments_sha256 == judgments.sha256


def _promised_precision(
    shown: list[Shown], calibration: StoredCalibration, wanted: Wanted, same: bool
) -> _Made:
    precise = precise_threshold(shown, min_precision=wanted.level, confidence=wanted.confidence)
    return _Made(
        cutoff=cutoff_at(calibration, precise.relevance),
        relevance=precise.relevance,
        losses=precise.losses,
        without_relevant=float(np.mean([not (labels == 1).any() for _, labels in shown])),
        answered=precise.answered,
        approximate=same,
    )


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
