"""The exact engine in memory: the oracle that every other engine is tested against.

Each stage scans or rescores by brute force with the codes that a database would store, so a
funnel loses here exactly what its codes and keeps lose, and nothing to an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy.typing as npt

from funnelvec import filters
from funnelvec.calibration import PlattCalibration
from funnelvec.codes import Codes, bits
from funnelvec.engines import checks
from funnelvec.engines.base import Capabilities, Progress, default_funnel
from funnelvec.engines.store import Step, Store, judge, measure_recall
from funnelvec.errors import Conflict, NotCalibrated, NotFound
from funnelvec.funnel import Funnel
from funnelvec.resolution import CODES, Resolution
from funnelvec.types import (
    ColumnKind,
    Explanation,
    Hit,
    Judgments,
    Key,
    RecallReport,
    ResolutionStatus,
    StageReport,
)

__all__ = ["MemoryEngine", "MemoryTable", "connect"]


@dataclass(frozen=True, slots=True)
class _NamedFunnel:
    name: str
    funnel: Funnel
    model: str | None


def connect() -> MemoryEngine:
    """Open an empty engine; nothing outlives it."""
    return MemoryEngine()


class MemoryEngine:
    """Tables in memory; see `funnelvec.engines.base.Engine` for the contract."""

    capabilities = Capabilities(
        name="memory", codes=CODES, metrics=("cosine",), filters=True, persistent=False
    )

    def __init__(self) -> None:
        self._tables: dict[str, MemoryTable] = {}
        # A database keeps one function per funnel, so their names are unique across tables.
        self._funnel_owners: dict[str, str] = {}

    def table(self, name: str, *, vector: str | None = None) -> MemoryTable:
        """Open a table."""
        table = self._tables.get(name)
        if table is None:
            known = ", ".join(sorted(self._tables)) or "none"
            raise NotFound(f"table {name!r} does not exist (tables: {known}); make it with create")
        if vector not in (None, table.vector):
            raise NotFound(f"table {name!r} has no vector column {vector!r}, but {table.vector!r}")
        return table

    def create(
        self,
        name: str,
        *,
        dims: int,
        vector: str = "embedding",
        id: str = "id",
        id_kind: ColumnKind = "integer",
        columns: Mapping[str, ColumnKind] | None = None,
    ) -> MemoryTable:
        """Create an empty table."""
        checks.check_name(name, "the name of a table")
        dims = checks.check_dims(dims)
        others = checks.check_schema(vector=vector, id=id, id_kind=id_kind, columns=columns)
        if name in self._tables:
            raise Conflict(f"table {name!r} exists already; open it with table({name!r})")
        table = MemoryTable(
            name,
            dims=dims,
            vector=vector,
            key=id,
            kinds={id: id_kind, **others},
            funnel_owners=self._funnel_owners,
        )
        self._tables[name] = table
        return table

    def close(self) -> None:
        """Forget all tables."""
        self._tables.clear()
        self._funnel_owners.clear()

    def __enter__(self) -> MemoryEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class MemoryTable:
    """A table in memory; see `funnelvec.engines.base.Table` for the contract.

    There are no indexes: ``index=True`` is accepted, so that one program runs on every engine,
    and every first stage is a scan.
    """

    def __init__(
        self,
        name: str,
        *,
        dims: int,
        vector: str,
        key: str,
        kinds: dict[str, ColumnKind],
        funnel_owners: dict[str, str],
    ) -> None:
        self.name, self.vector, self.dims, self.key = name, vector, dims, key
        self._base = Resolution(dims, "f32")
        self._store = Store(self._base, key=key, kinds=kinds)
        self._funnels: dict[str, _NamedFunnel] = {}
        self._funnel_owners = funnel_owners
        self._calibrations: dict[tuple[str | None, Resolution], PlattCalibration] = {}

    def __len__(self) -> int:
        return len(self._store)

    def count(self) -> int:
        """Count the rows."""
        return len(self)

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
        kinds = dict(self._store.kinds)
        keys = checks.check_ids(ids, kind=kinds.pop(self.key))
        matrix = checks.check_matrix(vectors, dims=self.dims, rows=len(keys))
        values = checks.check_columns(columns, kinds=kinds, rows=len(keys))
        for key in keys:
            if self._store.row_of(key) is not None:
                raise Conflict(f"a row with the key {key!r} is in table {self.name!r} already")
        self._store.append(keys, matrix, values)
        if callable(progress):
            progress(len(keys), len(keys))
        return len(keys)

    # -- resolutions and funnels -----------------------------------------------------------------

    def add_resolution(
        self, resolution: Resolution | str, *, index: bool = False, allow_rewrite: bool = False
    ) -> None:
        """Store the column at one more resolution."""
        resolution = checks.check_resolution(resolution, dims=self.dims)
        if resolution in self._store.codes:  # the base among them: there is nothing to do
            return
        column = resolution.column_name(self.vector)
        if column in (self.vector, *self._store.kinds):
            raise Conflict(f"resolution {resolution} needs the name {column!r}, which is taken")
        self._store.add_codes(resolution)

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
    ) -> None:
        """Give a funnel a name to search by."""
        checks.check_name(name, "the name of a funnel")
        funnel = funnel if isinstance(funnel, Funnel) else Funnel.parse(funnel)
        funnel.check(dims=self.dims, approximate=approximate)
        for stage in funnel.stages:
            self._check_stored(stage.resolution)
        owner = self._funnel_owners.get(name)
        if owner is not None and (owner != self.name or not replace):
            way_out = "pass replace=True" if owner == self.name else "choose another name"
            raise Conflict(f"funnel {name!r} exists already, on table {owner!r}; {way_out}")
        self._funnels[name] = _NamedFunnel(name, funnel, model)
        self._funnel_owners[name] = self.name

    def drop_funnel(self, name: str) -> None:
        """Remove a funnel."""
        del self._funnels[self._funnel(name).name], self._funnel_owners[name]

    def _funnel(self, name: str | None) -> _NamedFunnel:
        wanted = default_funnel(self.name) if name is None else name
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
        vector = checks.check_query(query, dims=self.dims)
        named = self._funnel(funnel)
        k = checks.check_k(k, funnel=named.funnel)
        threshold = checks.check_min_relevance(min_relevance)
        calibration = self._calibrations.get((named.model, named.funnel.last.resolution))
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
            metric="cosine",
            last_stage=str(last),
        )
        self._calibrations[named.model, last] = calibration
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
