"""Rows in memory with their codes, and the descent of one query through a funnel.

The part of the memory engine that computes; names, funnels and calibrations are in `memory`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from funnelvec import codes
from funnelvec.codes import Codes, Rotation
from funnelvec.codes.rotations import is_random
from funnelvec.engines import checks
from funnelvec.engines.hubs import HubBank
from funnelvec.engines.keys import KeyKind, KeyName, check_key, key_kind, key_names
from funnelvec.engines.masks import mask
from funnelvec.errors import CalibrationError, InvalidInput, NotFound
from funnelvec.filters import Filter
from funnelvec.funnel import MAX_KEEP, Funnel, Stage
from funnelvec.resolution import Resolution
from funnelvec.types import (
    BaseCode,
    ColumnKind,
    Judgments,
    Key,
    Metric,
    needs_direction,
)

__all__ = ["NamedFunnel", "Rows", "Step", "Store", "judge"]

#: Row numbers, (n,) intp.
Rows: TypeAlias = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class NamedFunnel:
    """A funnel as a table knows it; `returns` are the columns that its hits bring along."""

    name: str
    funnel: Funnel
    model: str | None
    returns: tuple[str, ...] = ()


def long_funnel(base: Resolution, model: str | None) -> NamedFunnel:
    """Return a funnel whose list before the last stage is as long as any calibration may want."""
    return NamedFunnel("", Funnel((Stage(Resolution(1, "bit"), MAX_KEEP), Stage(base))), model)


@dataclass(frozen=True, slots=True)
class Step:
    """What one stage did: the rows it kept, best first, with their scores."""

    stage: Stage
    rows_in: int
    rows: Rows
    scores: npt.NDArray[np.float64]
    ms: float


class Store:
    """Rows of one table: keys, columns, and the vectors at every stored resolution.

    Parameters
    ----------
    base
        The resolution of the vector column itself: full width, ``f32`` or ``f16``.
    metric
        What rows are compared by; may be set anew while no codes are stored.
    key
        Name of the key column, or the names of its columns.
    kinds
        The kind of every column but the vector, the key included.
    """

    def __init__(
        self,
        base: Resolution,
        *,
        metric: Metric,
        key: KeyName,
        kinds: Mapping[str, ColumnKind],
    ) -> None:
        self.base, self.metric, self.key, self.kinds = base, metric, key, dict(kinds)
        nothing = np.empty((0, base.dims), np.float32 if base.code == "f32" else np.float16)
        self.codes: dict[Resolution, Codes] = {base: nothing}
        self.rotations: dict[str, Rotation] = {}
        self.keys: Sequence[Key] = []
        self._columns: dict[str, list[Any]] = {name: [] for name in kinds}
        self._row_of: dict[Any, int] = {}
        self._rank: Rows = np.empty(0, np.intp)  # of each row in the order of keys
        self.hub: HubBank | None = None
        self.hubs = np.empty(0, np.float32)  # of each row, where there is a bank

    def __len__(self) -> int:
        return len(self._rank)

    @property
    def key_kind(self) -> KeyKind:
        """What keys hold."""
        return key_kind(self.key, self.kinds)

    @property
    def other_kinds(self) -> dict[str, ColumnKind]:
        """The kind of every column but the vector and the key."""
        names = key_names(self.key)
        return {name: kind for name, kind in self.kinds.items() if name not in names}

    @property
    def directed(self) -> bool:
        """Whether a zero vector means nothing here."""
        return needs_direction(self.metric)

    @property
    def base_code(self) -> BaseCode:
        """The code of the vector column itself."""
        return "f16" if self.base.code == "f16" else "f32"

    def row_of(self, key: Any) -> int | None:
        """Number of the row with that key, or None."""
        return self._row_of.get(key)

    def value(self, column: str, row: int) -> Any:
        """Return what a row has in a column."""
        return self._columns[column][row]

    def append(
        self,
        keys: Sequence[Any],
        vectors: npt.NDArray[np.float32],
        columns: Mapping[str, Sequence[Any]],
    ) -> None:
        """Add checked rows; a failure leaves the store as it was."""
        grown = {
            resolution: np.concatenate([stored, self._encode(resolution, vectors)])
            for resolution, stored in self.codes.items()
        }
        all_keys: list[Any] = [*self.keys, *keys]
        names = key_names(self.key)
        parts = zip(*keys, strict=True) if len(names) > 1 else [keys]
        rank = np.empty(len(all_keys), np.intp)
        rank[sorted(range(len(all_keys)), key=all_keys.__getitem__)] = range(len(all_keys))
        hubs = self.hubs
        if self.hub is not None:
            hubs = np.concatenate([hubs, self.hub.measure(keys, grown[self.base][len(self) :])])
        # Everything that can fail is done.
        self._row_of.update({key: len(self) + row for row, key in enumerate(keys)})
        self.keys = all_keys
        for name, added in (*zip(names, parts, strict=False), *columns.items()):
            self._columns[name].extend(added)
        self.codes, self._rank, self.hubs = grown, rank, hubs

    def replace(
        self,
        rows: Sequence[int],
        vectors: npt.NDArray[np.float32],
        columns: Mapping[str, Sequence[Any]],
    ) -> None:
        """Change rows to checked vectors and values; columns that are not given stay."""
        encoded = {resolution: self._encode(resolution, vectors) for resolution in self.codes}
        for resolution, stored in self.codes.items():
            changed = stored.copy()  # what a search holds meanwhile is not touched
            changed[rows] = encoded[resolution]
            self.codes[resolution] = changed
        if self.hub is not None:
            hubs = self.hubs.copy()
            hubs[rows] = self.hub.measure([self.keys[row] for row in rows], encoded[self.base])
            self.hubs = hubs
        for name, values in columns.items():
            for row, value in zip(rows, values, strict=True):
                self._columns[name][row] = value

    def add_codes(self, resolution: Resolution) -> None:
        """Encode every row at one more resolution."""
        self.codes[resolution] = self._encode(resolution, self.codes[self.base])

    def set_hub(self, bank: HubBank | None) -> None:
        """Measure every row with a bank, or forget the hubs."""
        if bank is None:
            self.hub, self.hubs = None, np.empty(0, np.float32)
        else:
            self.hub, self.hubs = bank, bank.measure(self.keys, self.codes[self.base])

    def correct(
        self, scores: npt.NDArray[np.float64], rows: Rows, alpha: float
    ) -> npt.NDArray[np.float64]:
        """Take `alpha` times the hub of its row off each score."""
        return scores - alpha * self.hubs[rows].astype(np.float64) if alpha else scores

    def rotation(self, resolution: Resolution) -> Rotation | None:
        """Return the fitted rotation of a resolution, None where it has none.

        Raises
        ------
        NotFound
            If it names one that was never fitted.
        """
        name = resolution.rotation
        if name is None or is_random(name):
            return None
        if name not in self.rotations:
            known = ", ".join(sorted(self.rotations)) or "none"
            raise NotFound(
                f"the column has no rotation {name!r} (it has: {known}); fit_rotation({name!r}) "
                "fits it, and ~random needs no fitting"
            )
        return self.rotations[name]

    def _encode(
        self, resolution: Resolution, vectors: npt.NDArray[np.float32], *, asked: bool = False
    ) -> Codes:
        return codes.encode(
            resolution,
            vectors,
            metric=self.metric,
            base=self.base_code,
            rotation=self.rotation(resolution),
            asked=asked,
        )

    def _directed_at(self, resolution: Resolution) -> bool:
        """Whether a zero code means nothing at a resolution."""
        metric = codes.compared_by(self.metric, self.rotation(resolution))
        return needs_direction(metric) and not codes.is_bits(resolution.code)

    def matching(self, filter: Filter | None) -> Rows:
        """Rows that match a filter bound by `funnelvec.filters.check`; all rows for None."""
        if filter is None:
            return np.arange(len(self))
        return np.flatnonzero(mask(filter, self._columns, self.kinds, rows=len(self)))

    def comparable(self, funnel: Funnel) -> Rows:
        """Rows that are not zero at any stage, nor in the column, where that has no score."""
        found = np.ones(len(self), np.bool_)
        for resolution in {self.base, *(stage.resolution for stage in funnel.stages)}:
            if self._directed_at(resolution):
                found &= self.codes[resolution].any(axis=1)
        return np.flatnonzero(found)

    def askable(self, funnel: Funnel, queries: npt.NDArray[np.float32]) -> Rows:
        """Which of the (n, dims) queries are not zero at any stage, nor at all."""
        found = np.ones(len(queries), np.bool_)
        for resolution in {self.base, *(stage.resolution for stage in funnel.stages)}:
            if self._directed_at(resolution):
                found &= self._encode(resolution, queries, asked=True).any(axis=1)
        return np.flatnonzero(found)

    def scores(
        self, resolution: Resolution, query: npt.NDArray[np.float32], rows: Rows
    ) -> npt.NDArray[np.float64]:
        """Score rows against a query at one resolution; NaN where the row has no direction there.

        Raises
        ------
        InvalidInput
            If the query needs a direction there and is zero.
        """
        rotation = self.rotation(resolution)
        wanted = codes.prepare_query(
            resolution, query, metric=self.metric, base=self.base_code, rotation=rotation
        )
        if self._directed_at(resolution) and not wanted.any():
            raise InvalidInput(
                f"the first {resolution.dims} numbers of the query are zero at {resolution}, which "
                "leaves no direction to compare; use a funnel without that stage"
            )
        metric = codes.compared_by(self.metric, rotation)
        return codes.score(resolution, wanted, self.codes[resolution][rows], metric=metric)

    def descend(
        self,
        query: npt.NDArray[np.float32],
        funnel: Funnel,
        rows: Rows,
        *,
        alpha: float = 0.0,
    ) -> tuple[Step, ...]:
        """Send the rows through all stages, ties by key in each.

        A row without a cosine (its code is zero) ranks behind all others, and is no answer of the
        last stage. With `alpha` the scores of the last stage are corrected by the hubs of its rows.
        """
        steps: list[Step] = []
        for number, stage in enumerate(funnel.stages):
            start = perf_counter()
            scores = self.scores(stage.resolution, query, rows)
            undefined = np.isnan(scores)
            rows_in = len(rows)
            if number == len(funnel.stages) - 1:
                rows, scores = rows[~undefined], scores[~undefined]
                scores = self.correct(scores, rows, alpha)
                undefined = undefined[~undefined]
            falling = np.where(undefined, np.inf, -scores)
            order = np.lexsort((self._rank[rows], falling))[: stage.keep]
            rows, scores = rows[order], scores[order]
            steps.append(Step(stage, rows_in, rows, scores, 1e3 * (perf_counter() - start)))
        return tuple(steps)


def judge(
    store: Store, judgments: Judgments, resolution: Resolution
) -> tuple[Judgments, npt.NDArray[np.float64]]:
    """Score judged rows at a resolution; rows that the store does not have are left out.

    Raises
    ------
    InvalidInput
        If a query cannot be asked of the store, or a key is of the wrong kind.
    CalibrationError
        If the store has none of the rows, or one that is zero at the resolution.
    """
    queries = checks.check_judgments(
        judgments, dims=store.base.dims, code=store.base_code, directed=store.directed
    )
    rows = [store.row_of(check_key(key, kind=store.key_kind)) for key in judgments.ids]
    kept = [pair for pair, row in enumerate(rows) if row is not None]
    if not kept:
        raise CalibrationError(
            f"none of the {len(judgments)} judged rows is in the table; judge rows that it has"
        )
    present = Judgments(
        queries[kept], [judgments.ids[pair] for pair in kept], judgments.labels[kept]
    )
    scores = np.empty(len(kept))
    for place, pair in enumerate(kept):
        row = np.array([rows[pair]], dtype=np.intp)
        scores[place] = store.scores(resolution, queries[pair], row)[0]
        if np.isnan(scores[place]):
            raise CalibrationError(f"judgments: pair {pair} is zero at {resolution}: no score")
    return present, scores
