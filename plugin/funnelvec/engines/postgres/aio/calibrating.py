"""The part of the asynchronous table that fits relevance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.choosing import LEAST_QUERIES, JudgedScores, fit_family
from funnelvec.calibration.hub import JudgedHubs
from funnelvec.calibration.reading import made
from funnelvec.calibration.row_stats import SAMPLE, RowStats
from funnelvec.calibration.stored import StoredCalibration
from funnelvec.engines import options, shortlists
from funnelvec.engines.postgres import load
from funnelvec.engines.postgres.adapt import quoted, statement
from funnelvec.engines.postgres.aio import copy
from funnelvec.engines.postgres.aio.connection import (
    Connection,
    atomic,
    cursor,
    fetch_all,
    fetch_one,
)
from funnelvec.engines.postgres.twins import in_thread
from funnelvec.funnel import Funnel
from funnelvec.reports import Sample
from funnelvec.types import Family, Judgments, Metric, needs_direction

if TYPE_CHECKING:
    from funnelvec.engines.postgres.aio.engine import AsyncPostgresEngine
    from funnelvec.engines.postgres.aio.table import StoredFunnel
    from funnelvec.engines.postgres.load import Layout

__all__ = ["AsyncCalibrating"]


class AsyncCalibrating:
    """The method of `AsyncPostgresTable` that calibrates."""

    if TYPE_CHECKING:  # what the table has and these methods use
        _engine: AsyncPostgresEngine
        _schema: str
        _vector: str

        async def _sample_by(self, connection: Connection, count: int, seed: int) -> Sample: ...
        async def _layout(self, connection: Connection) -> Layout: ...
        async def _known_funnel(
            self, connection: Connection, name: str | None
        ) -> tuple[str, StoredFunnel]: ...

    async def calibrate(
        self, judgments: Judgments, *, family: Family = "platt", funnel: str | None = None
    ) -> StoredCalibration:
        """Fit relevance; the judgments go to the database in a temporary table.

        One map for all queries is fitted there. What is chosen by cross-validation is fitted here,
        to what the funnel finds there, and handed to the database to apply.
        """
        family = options.check_family(family)
        async with self._engine._calling() as connection, atomic(connection):
            name, stored = await self._known_funnel(connection, funnel)
            layout = await self._layout(connection)
            layout = layout._replace(directed=needs_direction(stored.metric))
            await copy.copy_judgments(connection, load.prepare_judgments(judgments, layout))
            parsed = Funnel.parse(stored.funnel)
            belongs = {
                "model": stored.model or None,
                "vector": self._vector,
                "metric": stored.metric,
                "last_stage": str(parsed.last.resolution),
            }
            asked = {"funnel": quoted(self._schema, name), "family": family}
            if family in ("adapter", "auto"):
                fitted = await self._choose(connection, parsed, asked, belongs)
                await cursor(connection).execute(statement("keep_reference"), asked)
            else:
                row = await fetch_one(connection, statement("calibrate"), asked)
                assert row is not None  # calibrate returns one row or raises
                fitted = made(row[0], row[1], **belongs, **_provenance(*row[2:]))
            await cursor(connection).execute("drop table pg_temp.funnelvec_judgments")
        return fitted

    async def _choose(
        self, connection: Connection, funnel: Funnel, asked: dict[str, Any], belongs: dict[str, Any]
    ) -> StoredCalibration:
        """Fetch what the funnel makes of the judged queries, choose and fit, and keep it."""
        row = await fetch_one(connection, statement("judged"), asked)
        assert row is not None  # one row of aggregates
        depth = shortlists.depth_of(funnel.narrowest_keep)
        rows = await fetch_all(connection, statement("judged_lists"), {**asked, "depth": depth})
        judged, hubs = _judged(rows, depth=depth, keep=funnel.narrowest_keep, hub=row[2])
        if depth and len(rows) >= LEAST_QUERIES:
            drawn = await self._sample_by(connection, SAMPLE, 0)
            judged = await in_thread(
                partial(_measured, judged, rows, drawn.vectors, belongs["metric"])
            )
        known = _provenance(row[1], row[0] or 0, int(judged.labels.sum()), len(rows))
        fit = partial(fit_family, judged, asked["family"], hubs=hubs, **belongs, **known)
        fitted = await in_thread(fit)
        await cursor(connection).execute(
            statement("keep_calibration"),
            {
                "funnel": asked["funnel"],
                "family": fitted.kind,
                "parameters": json.dumps(fitted.parameters),
                "sha256": fitted.judgments_sha256,
                "queries": fitted.n_queries,
                "pairs": fitted.n_pairs,
                "relevant": fitted.n_relevant,
            },
        )
        return fitted


def _judged(
    rows: Sequence[Sequence[Any]], *, depth: int, keep: int | None, hub: str | None
) -> tuple[JudgedScores, JudgedHubs | None]:
    """Put together what the database says of each query: scores, labels, list, and their hubs."""

    def pairs(place: int, kind: type) -> npt.NDArray[Any]:
        return np.array([value for each in rows for value in each[place]], dtype=kind)

    lengths = np.array([len(each[0]) for each in rows], dtype=np.intp)
    judged = JudgedScores(
        pairs(0, np.float64),
        pairs(1, np.bool_),
        np.repeat(np.arange(len(rows)), lengths),
        groups=JudgedScores.grouped([each[6] or () for each in rows]),
    )
    if hub is None or keep is None:
        if depth and rows:
            judged = replace(judged, lists=shortlists.best_of([each[2] for each in rows], depth))
        return judged, None
    hubs = JudgedHubs(hub, pairs(3, np.float64))
    if depth and rows:
        judged = replace(judged, lists=shortlists.whole([each[2] for each in rows], keep))
        hubs = replace(hubs, lists=shortlists.whole([each[4] for each in rows], keep))
    return judged, hubs


def _measured(
    judged: JudgedScores,
    rows: Sequence[Sequence[Any]],
    sample: npt.NDArray[np.float32],
    metric: Metric,
) -> JudgedScores:
    """Add what a sample of the table says of the judged queries."""
    queries = np.array([json.loads(each[5]) for each in rows], dtype=np.float32)
    return judged.measured(RowStats.measure(sample, metric=metric), queries)


def _provenance(sha256: str | None, pairs: int, relevant: int, queries: int) -> dict[str, Any]:
    return {
        "judgments_sha256": sha256 or "",
        "n_pairs": pairs,
        "n_relevant": relevant,
        "n_queries": queries,
    }
