"""One table of the exact engine in memory; see `funnelvec.engines.memory`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy.typing as npt

from funnelvec import filters
from funnelvec.calibration import PlattCalibration
from funnelvec.codes import Codes, bits
from funnelvec.engines import checks, options
from funnelvec.engines.base import Progress, default_funnel
from funnelvec.engines.keys import KeyName, check_ids
from funnelvec.engines.store import Step, Store, judge, measure_recall
from funnelvec.errors import Conflict, NotCalibrated, NotFound
from funnelvec.funnel import Funnel
from funnelvec.resolution import Resolution
from funnelvec.types import (
    BaseCode,
    ColumnKind,
    Explanation,
    FillingStep,
    Hit,
    Judgments,
    Key,
    Metric,
    RecallReport,
    ResolutionStatus,
    StageReport,
    Storage,
)

__all__ = ["MemoryTable"]

#: The metric of a column that nobody has named one for.
_DEFAULT: Metric = "cosine"


@dataclass(frozen=True, slots=True)
class _NamedFunnel:
    name: str
    funnel: Funnel
    model: str | None


class MemoryTable:
    """A table in memory; see `funnelvec.engines.base.Table` for the contract.

    There are no indexes: ``index=True`` is accepted, so that one program runs on every engine,
    and every first stage is a scan.
    """

    def __init__(
        self,
        name: str,
        *,
        base: Resolution,
        vector: str,
        metric: Metric | None,
        key: KeyName,
        kinds: dict[str, ColumnKind],
        funnel_owners: dict[str, str],
    ) -> None:
        self.name, self.vector, self.dims, self.key = name, vector, base.dims, key
        self._base = base
        self._store = Store(base, metric=metric or _DEFAULT, key=key, kinds=kinds)
        # What holds the column to its metric; a column made for another than the default is held.
        self._claims: set[Resolution | str] = {base} if self.metric != _DEFAULT else set()
        self._funnels: dict[str, _NamedFunnel] = {}
        self._funnel_owners = funnel_owners
        self._calibrations: dict[tuple[str | None, Metric, Resolution], PlattCalibration] = {}

    def __len__(self) -> int:
        return len(self._store)

    def count(self) -> int:
        """Count the rows."""
        return len(self)

    @property
    def metric(self) -> Metric:
        """What the column is compared by."""
        return self._store.metric

    @property
    def code(self) -> BaseCode:
        """The code of the vector column itself."""
        return self._store.base_code

    def _metric_for(self, wanted: Metric | None) -> Metric:
        """The metric for one more resolution or funnel."""
        if checks.check_metric(wanted) not in (None, self.metric) and self._claims:
            raise Conflict(
                f"{self.name}.{self.vector} has resolutions or funnels for the metric "
                f"{self.metric}, not {wanted}; drop them first, or keep to {self.metric}"
            )
        return wanted or self.metric

    def _claim(self, what: Resolution | str, metric: Metric) -> None:
        self._claims.add(what)
        self._store.metric = metric

    def _release(self, what: Resolution | str) -> None:
        self._claims.discard(what)
        if not self._claims:
            self._store.metric = _DEFAULT

    # -- rows ------------------------------------------------------------------------------------

    def add(
        self,
        ids: Sequence[Key],
        vectors: npt.ArrayLike,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        progress: Progress = False,
    ) -> int:
        """Add rows, all or none."""
        store = self._store
        options.check_progress(progress)
        keys = check_ids(ids, kind=store.key_kind)
        matrix = checks.check_matrix(
            vectors, dims=self.dims, rows=len(keys), code=self.code, directed=store.directed
        )
        values = checks.check_columns(columns, kinds=store.other_kinds, rows=len(keys))
        for key in keys:
            if store.row_of(key) is not None:
                raise Conflict(f"a row with the key {key!r} is in table {self.name!r} already")
        store.append(keys, matrix, values)
        if callable(progress):
            progress(len(keys), len(keys))
        return len(keys)

    # -- resolutions and funnels -----------------------------------------------------------------

    def add_resolution(
        self,
        resolution: Resolution | str,
        *,
        index: bool = False,
        allow_rewrite: bool = False,
        metric: Metric | None = None,
        storage: Storage | None = None,
    ) -> None:
        """Store the column at one more resolution; `storage` makes no difference here."""
        options.check_storage(storage)
        resolution = checks.check_resolution(resolution, dims=self.dims, code=self.code)
        options.check_flag(index, "index")
        options.check_flag(allow_rewrite, "allow_rewrite")
        chosen = self._metric_for(metric)
        column = resolution.column_name(self.vector)
        stored = resolution in self._store.codes  # the column itself is, from the beginning
        if not stored and column in (self.vector, *self._store.kinds):
            raise Conflict(f"resolution {resolution} needs the name {column!r}, which is taken")
        self._claim(resolution, chosen)
        if not stored:
            self._store.add_codes(resolution)

    def backfill(
        self,
        *,
        batch: int | None = None,
        progress: Progress = False,
        on_step: Callable[[FillingStep], None] | None = None,
    ) -> int:
        """Find nothing to fill: codes are here from the moment they are added."""
        options.check_batch(batch)
        options.check_progress(progress)
        return 0

    def drop_resolution(self, resolution: Resolution | str) -> None:
        """Remove a resolution that no funnel uses."""
        resolution = checks.check_resolution(resolution, dims=self.dims)
        self._check_stored(resolution)
        if resolution == self._base:
            raise Conflict(f"{resolution} is the column {self.vector!r} itself and stays")
        users = [
            named.name
            for named in self._funnels.values()
            if resolution in {stage.resolution for stage in named.funnel.stages}
        ]
        if users:
            raise Conflict(
                f"resolution {resolution} is used by {', '.join(sorted(users))}; "
                "drop_funnel these first"
            )
        del self._store.codes[resolution]
        self._release(resolution)

    def _check_stored(self, resolution: Resolution) -> None:
        if resolution not in self._store.codes:
            known = ", ".join(map(str, self._store.codes))
            raise NotFound(
                f"{self.name}.{self.vector} has no resolution {resolution} (it has {known}); "
                f"add_resolution('{resolution}') makes it"
            )

    def create_funnel(
        self,
        name: str,
        funnel: Funnel | str,
        *,
        approximate: bool = False,
        replace: bool = False,
        model: str | None = None,
        metric: Metric | None = None,
    ) -> None:
        """Give a funnel a name to search by."""
        checks.check_name(name, "the name of a funnel")
        options.check_flag(approximate, "approximate")
        options.check_flag(replace, "replace")
        funnel = funnel if isinstance(funnel, Funnel) else Funnel.parse(funnel)
        funnel.check(dims=self.dims, code=self.code, approximate=approximate)
        chosen = self._metric_for(metric)
        for stage in funnel.stages:
            self._check_stored(stage.resolution)
        owner = self._funnel_owners.get(name)
        if owner is not None and (owner != self.name or not replace):
            way_out = "pass replace=True" if owner == self.name else "choose another name"
            raise Conflict(f"funnel {name!r} exists already, on table {owner!r}; {way_out}")
        self._funnels[name] = _NamedFunnel(name, funnel, model)
        self._funnel_owners[name] = self.name
        self._claim(name, chosen)

    def drop_funnel(self, name: str) -> None:
        """Remove a funnel."""
        checks.check_name(name, "the name of a funnel")
        del self._funnels[self._funnel(name).name], self._funnel_owners[name]
        self._release(name)

    def _funnel(self, name: str | None) -> _NamedFunnel:
        wanted = default_funnel(self.name) if name is None else checks.check_name(name, "funnel")
        if wanted not in self._funnels:
            known = ", ".join(sorted(self._funnels)) or "none"
            raise NotFound(
                f"table {self.name!r} has no funnel {wanted!r} (funnels: {known}); make it with "
                f"create_funnel({wanted!r}, '... > {self._base}')"
            )
        return self._funnels[wanted]

    # -- searching -------------------------------------------------------------------------------

    def search(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        funnel: str | None = None,
    ) -> list[Hit]:
        """Find the `k` most similar rows."""
        return self._search(query, k, min_relevance, filter, funnel)[0]

    def explain(
        self,
        query: npt.ArrayLike,
        *,
        k: int = 10,
        min_relevance: float | None = None,
        filter: Mapping[str, Any] | None = None,
        funnel: str | None = None,
    ) -> Explanation:
        """Run one search and report what survived each stage."""
        start = perf_counter()
        hits, steps, notes = self._search(query, k, min_relevance, filter, funnel)
        total_ms = 1e3 * (perf_counter() - start)
        reports = [
            StageReport(
                stage=number,
                resolution=str(step.stage.resolution),
                keep=step.stage.keep,
                rows_in=step.rows_in,
                rows_out=len(hits) if number == len(steps) else len(step.rows),
                ms=step.ms,
                access="scan" if number == 1 else "rescore",
            )
            for number, step in enumerate(steps, 1)
        ]
        return Explanation(str(self._funnel(funnel).funnel), tuple(reports), total_ms, tuple(notes))

    def _search(
        self,
        query: npt.ArrayLike,
        k: int,
        min_relevance: float | None,
        filter: Mapping[str, Any] | None,
        funnel: str | None,
    ) -> tuple[list[Hit], tuple[Step, ...], list[str]]:
        named = self._funnel(funnel)
        vector = checks.check_query(
            query, dims=self.dims, code=self.code, directed=self._store.directed
        )
        k = checks.check_k(k, funnel=named.funnel)
        threshold = checks.check_min_relevance(min_relevance)
        last = named.funnel.last.resolution
        calibration = self._calibrations.get((named.model, self.metric, last))
        if threshold is not None and calibration is None:
            raise NotCalibrated(
                f"funnel {named.name!r} has no calibration, so min_relevance means nothing; "
                f"call calibrate(judgments, funnel={named.name!r}) first"
            )
        parsed = filters.parse(filter)
        bound = None if parsed is None else filters.check(parsed, self._store.kinds)
        rows = self._store.matching(bound)
        steps = self._store.descend(vector, named.funnel, rows)
        notes = []
        top, scores = steps[-1].rows[:k], steps[-1].scores[:k]
        if calibration is None:
            relevance: list[float | None] = [None] * len(top)
        else:
            if threshold is not None:
                cutoff = calibration.cutoff(vector, threshold)
                notes.append(f"min_relevance {threshold:g} is a score of at least {cutoff:.6g}")
                top, scores = top[scores >= cutoff], scores[scores >= cutoff]
            relevance = [float(value) for value in calibration.apply(vector, scores)]
        hits = [
            Hit(self._store.keys[row], float(score), value)
            for row, score, value in zip(top, scores, relevance, strict=True)
        ]
        return hits, steps, notes

    # -- measuring and calibrating ---------------------------------------------------------------

    def measure_recall(
        self, *, sample: int = 200, k: int = 10, funnel: str | None = None, seed: int = 0
    ) -> RecallReport:
        """Measure the funnel against exact search."""
        chosen = self._funnel(funnel).funnel
        size = checks.check_recall_arguments(
            sample=sample, k=k, seed=seed, funnel=chosen, rows=len(self)
        )
        return measure_recall(self._store, chosen, sample=size, k=k, seed=seed)

    def calibrate(self, judgments: Judgments, *, funnel: str | None = None) -> PlattCalibration:
        """Fit relevance to judged pairs and use it from now on."""
        named = self._funnel(funnel)
        last = named.funnel.last.resolution
        present, scores = judge(self._store, judgments, last)
        calibration = PlattCalibration.fit(
            present,
            scores,
            model=named.model,
            vector=self.vector,
            metric=self.metric,
            last_stage=str(last),
        )
        self._calibrations[named.model, self.metric, last] = calibration
        return calibration

    def status(self) -> list[ResolutionStatus]:
        """Report every resolution that was added."""
        return [
            self._status(resolution, stored)
            for resolution, stored in self._store.codes.items()
            if resolution != self._base
        ]

    def _status(self, resolution: Resolution, stored: Codes) -> ResolutionStatus:
        has_balance = resolution.code == "bit" and len(self) > 0
        return ResolutionStatus(
            table=self.name,
            vector=self.vector,
            resolution=str(resolution),
            column=resolution.column_name(self.vector),
            rows=len(self),
            filled=len(self),
            coverage=1.0,
            bit_balance=bits.balance(stored, dims=resolution.dims) if has_balance else None,
        )
