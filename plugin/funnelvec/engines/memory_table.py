"""One table of the exact engine in memory; see `funnelvec.engines.memory`."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from funnelvec import codes
from funnelvec.calibration import Certificate, StoredCalibration
from funnelvec.calibration.online import OnlinePlatt
from funnelvec.codes.maps import check_fits
from funnelvec.doctor.fit import Tuned
from funnelvec.engines import checks, options
from funnelvec.engines.base import Progress, default_funnel
from funnelvec.engines.evaluating import Evaluating
from funnelvec.engines.keys import KeyName
from funnelvec.engines.loads import Record
from funnelvec.engines.memory_calibrating import MemoryCalibrating
from funnelvec.engines.memory_certifying import MemoryCertifying
from funnelvec.engines.memory_examining import MemoryExamining
from funnelvec.engines.memory_following import MemoryFollowing
from funnelvec.engines.memory_hub import MemoryHub
from funnelvec.engines.memory_loading import MemoryLoading
from funnelvec.engines.memory_observing import MemoryObserving
from funnelvec.engines.memory_rotating import MemoryRotating
from funnelvec.engines.memory_searching import MemorySearching
from funnelvec.engines.memory_tuning import MemoryTuning
from funnelvec.engines.store import NamedFunnel, Store
from funnelvec.engines.together import OneByOne
from funnelvec.errors import CapabilityError, Conflict, NotFound
from funnelvec.fitting.report import RotationReport
from funnelvec.funnel import Funnel
from funnelvec.reports import FillingStep
from funnelvec.resolution import CODES, Resolution
from funnelvec.types import (
    BaseCode,
    Code,
    ColumnKind,
    Metric,
    Promised,
    Storage,
)

__all__ = ["TWINS", "MemoryTable"]

#: Codes that have a twin in numpy.
TWINS: tuple[Code, ...] = (*CODES, "int8")
#: The metric of a column that nobody has named one for.
_DEFAULT: Metric = "cosine"


class MemoryTable(
    MemoryLoading,
    MemorySearching,
    MemoryCalibrating,
    MemoryCertifying,
    MemoryFollowing,
    MemoryObserving,
    MemoryExamining,
    MemoryRotating,
    MemoryHub,
    Evaluating,
    MemoryTuning,
    OneByOne,
):
    """A table in memory; see `funnelvec.engines.base.Table` for the contract.

    There are no indexes: ``index=True`` is accepted, so that one program runs on every engine,
    and every first stage is a scan.
    """

    known = TWINS

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
        self._funnels: dict[str, NamedFunnel] = {}
        self._tuned: dict[str, tuple[NamedFunnel, Tuned]] = {}
        self._windows: set[tuple[Resolution, str]] = set()
        self._funnel_owners = funnel_owners
        self._loads: dict[str, Record] = {}
        self._fits: dict[str, tuple[RotationReport, datetime.datetime]] = {}
        self._calibrations: dict[
            tuple[str | None, Metric, Resolution], tuple[StoredCalibration, ...]
        ] = {}
        self._certificates: dict[
            tuple[str, Promised], tuple[Certificate, NamedFunnel, StoredCalibration]
        ] = {}
        self._online: dict[str, tuple[StoredCalibration, OnlinePlatt]] = {}
        # By the identity of a calibration, which is kept as long as the table is.
        self._references: dict[int, npt.NDArray[np.float64]] = {}

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

    # -- resolutions and funnels -----------------------------------------------------------------

    def add_resolution(
        self,
        resolution: Resolution | str,
        *,
        index: bool = False,
        allow_rewrite: bool = False,
        metric: Metric | None = None,
        storage: Storage | None = None,
        concurrently: bool = False,
        m: int | None = None,
        ef_construction: int | None = None,
    ) -> None:
        """Store the column at one more resolution; where to keep it makes no difference here."""
        options.check_storage(storage)
        resolution = checks.check_resolution(
            resolution, dims=self.dims, code=self.code, known=TWINS
        )
        options.check_flag(index, "index")
        options.check_flag(allow_rewrite, "allow_rewrite")
        options.check_flag(concurrently, "concurrently")
        options.check_graph(m, ef_construction)
        chosen = self._metric_for(metric)
        rotation = self._store.rotation(resolution)
        if rotation is not None:
            check_fits(resolution, rotation, metric=chosen)
        codes.check_compared(resolution, codes.compared_by(chosen, rotation))
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
        resolution = checks.check_resolution(resolution, dims=self.dims, known=TWINS)
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
        self._windows = {window for window in self._windows if window[0] != resolution}
        self._release(resolution)

    def add_window(
        self,
        resolution: Resolution | str,
        by: str,
        *,
        levels: int | None = None,
        allow_rewrite: bool = False,
        concurrently: bool = False,
    ) -> None:
        """Take note that there are windows: without indexes no search has any use for them."""
        resolution = checks.check_resolution(
            resolution, dims=self.dims, code=self.code, known=TWINS
        )
        by = checks.check_name(by, "the column of the windows")
        options.check_levels(levels)
        options.check_flag(allow_rewrite, "allow_rewrite")
        options.check_flag(concurrently, "concurrently")
        self._check_stored(resolution)
        kind = self._store.kinds.get(by)
        if kind is None:
            known = ", ".join(self._store.kinds)
            raise NotFound(
                f"table {self.name!r} has no column {by!r} to filter by (it has {known})"
            )
        if kind not in ("integer", "number", "date", "timestamp"):
            raise CapabilityError(
                f"column {by!r} holds {kind}; windows are over numbers, dates and timestamps"
            )
        self._windows.add((resolution, by))

    def drop_window(self, resolution: Resolution | str, by: str) -> None:
        """Forget the windows of a resolution by a column."""
        resolution = checks.check_resolution(resolution, dims=self.dims, known=TWINS)
        by = checks.check_name(by, "the column of the windows")
        if (resolution, by) not in self._windows:
            raise NotFound(f"{resolution} of {self.name!r} has no windows by {by!r}")
        self._windows.discard((resolution, by))

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
        returns: Sequence[str] = (),
    ) -> None:
        """Give a funnel a name to search by."""
        checks.check_name(name, "the name of a funnel")
        options.check_flag(approximate, "approximate")
        options.check_flag(replace, "replace")
        funnel = funnel if isinstance(funnel, Funnel) else Funnel.parse(funnel)
        funnel.check(dims=self.dims, code=self.code, approximate=approximate)
        chosen = self._metric_for(metric)
        columns = self._returned(returns)
        for stage in funnel.stages:
            self._check_stored(stage.resolution)
        owner = self._funnel_owners.get(name)
        if owner is not None and (owner != self.name or not replace):
            way_out = "pass replace=True" if owner == self.name else "choose another name"
            raise Conflict(f"funnel {name!r} exists already, on table {owner!r}; {way_out}")
        self._funnels[name] = NamedFunnel(name, funnel, model, columns)
        self._forget_certificates(name)
        self._funnel_owners[name] = self.name
        self._claim(name, chosen)

    def drop_funnel(self, name: str) -> None:
        """Remove a funnel."""
        checks.check_name(name, "the name of a funnel")
        del self._funnels[self._funnel(name).name], self._funnel_owners[name]
        self._forget_certificates(name)
        self._release(name)

    def _forget_certificates(self, funnel: str) -> None:
        for kind in ("max_miss", "min_precision"):
            self._certificates.pop((funnel, kind), None)

    def _funnel(self, name: str | None) -> NamedFunnel:
        wanted = default_funnel(self.name) if name is None else checks.check_name(name, "funnel")
        if wanted not in self._funnels:
            known = ", ".join(sorted(self._funnels)) or "none"
            raise NotFound(
                f"table {self.name!r} has no funnel {wanted!r} (funnels: {known}); make it with "
                f"create_funnel({wanted!r}, '... > {self._base}')"
            )
        return self._funnels[wanted]
