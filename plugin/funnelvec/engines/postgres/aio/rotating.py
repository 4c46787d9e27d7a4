"""The part of the asynchronous table that fits rotations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psycopg.rows import TupleRow

from funnelvec.codes.maps import LinearMap, Rotation
from funnelvec.engines import checks
from funnelvec.engines.base import Progress
from funnelvec.engines.postgres.adapt import statement
from funnelvec.engines.postgres.aio.connection import (
    Connection,
    atomic,
    cursor,
    fetch_all,
    fetch_one,
)
from funnelvec.engines.postgres.twins import in_thread
from funnelvec.engines.progress import reporting
from funnelvec.engines.rotating import Asked, check_fit
from funnelvec.fitting.fit import STEPS, fit
from funnelvec.fitting.report import RotationReport, RotationStatus
from funnelvec.reports import Sample
from funnelvec.types import BaseCode, Metric

if TYPE_CHECKING:
    from funnelvec.engines.postgres.aio.engine import AsyncPostgresEngine

__all__ = ["AsyncRotating", "rotation_of"]

#: Bytes before the numbers of an array of two dimensions that is sent.
_HEAD = 28


class AsyncRotating:
    """`fit_rotation`, `rotations`, `drop_rotation`; see `funnelvec.engines.base.Table`."""

    _engine: AsyncPostgresEngine
    _vector: str
    _dims: int
    _code: BaseCode
    _metric: Metric
    _maps: dict[str, Rotation]

    if TYPE_CHECKING:  # what the table has and these methods use

        @property
        def _regclass(self) -> str: ...
        async def sample(self, count: int = 10_000, *, seed: int = 0) -> Sample: ...

    async def fit_rotation(
        self,
        name: str = "pca",
        *,
        kind: str = "pca",
        dims: int | None = None,
        then: str | None = None,
        queries: npt.ArrayLike | None = None,
        metric: Metric | None = None,
        sample: int = 10_000,
        seed: int = 0,
        dry_run: bool = False,
        progress: Progress = False,
    ) -> RotationReport:
        """Fit a rotation to a sample of the rows, measure it, and keep it in the registry."""
        asked = check_fit(
            name=name, kind=kind, width=dims, then=then, queries=queries, sample=sample, seed=seed,
            dry_run=dry_run, progress=progress, dims=self._dims,
            metric=checks.check_metric(metric) or self._metric, code=self._code,
        )  # fmt: skip
        await self._check_name(asked)
        with reporting(progress, STEPS + 1, "fitting", unit="steps") as tell:
            drawn = await self.sample(asked.sample, seed=asked.seed)
            tell(1)
            rotation, report = await in_thread(
                partial(
                    fit, asked.wanted, drawn.vectors, asked.queries,
                    progress=lambda done: tell(done + 1),
                )
            )  # fmt: skip
        if asked.dry_run:
            return report
        report = replace(report, kept=True)
        async with self._engine._calling() as connection, atomic(connection):
            await cursor(connection).execute(
                statement("keep_rotation"), self._column() | _sent(rotation, report)
            )
        return report

    async def rotations(self) -> list[RotationStatus]:
        """List the fitted rotations of this column."""
        async with self._engine._calling() as connection:
            rows = await fetch_all(connection, statement("rotations"), self._column())
        return [_status(row) for row in rows]

    async def drop_rotation(self, name: str) -> None:
        """Forget a fitted rotation that no resolution uses."""
        checks.check_name(name, "the name of a rotation")
        async with self._engine._calling() as connection, atomic(connection):
            await fetch_one(connection, statement("drop_rotation"), self._column() | {"name": name})

    async def _mapped(
        self,
        connection: Connection,
        ids: Sequence[str],
        dims: Sequence[int],
        queries: npt.NDArray[np.float32],
    ) -> list[npt.NDArray[np.float32]]:
        """Map (n, d) queries by each of the maps of a funnel; by none where one is gone."""
        found = []
        for id, width in zip(ids, dims, strict=True):
            if id not in self._maps:
                row = await fetch_one(connection, statement("read_rotation"), {"id": id})
                if row is None:
                    return []
                self._maps[id] = rotation_of(row)
            rotation = self._maps[id]
            found.append(np.stack([rotation.map_query(query, width) for query in queries]))
        return found

    async def _check_name(self, asked: Asked) -> None:
        """Refuse a name that is taken, or another metric, before the fit, which takes long."""
        given = self._column() | {"name": asked.wanted.name, "metric": asked.wanted.metric}
        async with self._engine._calling() as connection, atomic(connection):
            await fetch_one(connection, statement("check_rotation_metric"), given)
            if not asked.dry_run:
                await fetch_one(connection, statement("check_rotation_name"), given)

    def _column(self) -> dict[str, Any]:
        return {"table": self._regclass, "vector": self._vector}


def rotation_of(row: TupleRow) -> Rotation:
    """Read a row of the statement ``read_rotation``, got in binary."""
    name, kind, chain, metric, width, dims, rows, step, asked, asked_step, *about = row

    def read(sent: bytes, unit: float) -> LinearMap:
        pairs = np.frombuffer(sent, ">i4", offset=_HEAD)
        return LinearMap(pairs[1::2].reshape(width, dims).astype(np.int32), unit)

    return Rotation(
        name, kind, chain, metric, read(rows, step),
        None if asked is None else read(asked, asked_step), *about,
    )  # fmt: skip


def _status(row: TupleRow) -> RotationStatus:
    found = RotationStatus(*row)
    return replace(found, used_by=tuple(found.used_by))


def _sent(rotation: Rotation, report: RotationReport) -> dict[str, Any]:
    asked = rotation.query_map
    return {
        "name": rotation.name,
        "kind": rotation.kind,
        "chain": rotation.chain,
        "metric": rotation.metric,
        "row_map": _text(rotation.row_map),
        "row_step": rotation.row_map.step,
        "query_map": None if asked is None else _text(asked),
        "query_step": None if asked is None else asked.step,
        "fitted_on": rotation.fitted_on,
        "rows": rotation.rows,
        "queries": rotation.queries,
        "recommended": report.recommended,
        "report": json.dumps(report.as_json()),
    }


def _text(chosen: LinearMap) -> str:
    """A map as Postgres reads an array of two dimensions."""
    rows = ("{" + ",".join(map(str, row)) + "}" for row in chosen.numbers.tolist())
    return "{" + ",".join(rows) + "}"
