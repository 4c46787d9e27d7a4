# Made from aio/tuning.py by tools/write_sync.py: change that file, then `make sync`.

"""The part of the synchronous table that chooses a funnel."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from psycopg import sql
from psycopg.types.json import Jsonb

from funnelvec.codes.maps import Rotation
from funnelvec.doctor.diagnosis import Diagnosis
from funnelvec.doctor.fit import Found, Tuned
from funnelvec.engines.base import Progress
from funnelvec.engines.hubs import hashed
from funnelvec.engines.postgres.adapt import quoted, statement
from funnelvec.engines.postgres.sync.connection import atomic, cursor, fetch_all, fetch_one
from funnelvec.engines.postgres.sync.rotating import rotation_of
from funnelvec.engines.postgres.twins import in_place
from funnelvec.engines.tuned import prepare, telling
from funnelvec.errors import NotFound
from funnelvec.tuning.calls import Call, Compute, Say, Step, Steps
from funnelvec.tuning.drift import fits
from funnelvec.tuning.ground import KeptFunnel, ScoreRule
from funnelvec.tuning.report import TuningReport
from funnelvec.tuning.run import tune
from funnelvec.tuning.wanted import Budget
from funnelvec.types import BaseCode, Judgments, Metric, Storage

if TYPE_CHECKING:
    from funnelvec.engines.postgres.sync.engine import PostgresEngine
    from funnelvec.engines.postgres.sync.table import PostgresTable

__all__ = ["Tuning"]

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


class Tuning:
    """`tune`; see `funnelvec.engines.base.Table`."""

    _engine: PostgresEngine
    _schema: str
    _vector: str
    _dims: int
    _code: BaseCode
    _metric: Metric
    _funnels: dict[str, Any]

    if TYPE_CHECKING:  # what the table has and these methods use

        @property
        def _regclass(self) -> str: ...

    def tune(
        self,
        recall: float | None = None,
        *,
        k: int = 10,
        queries: npt.ArrayLike | Literal["log", "rows"] | None = None,
        budget: Budget | Mapping[str, float] | None = None,
        max_miss: float | None = None,
        judgments: Judgments | None = None,
        funnel: str | None = None,
        storage: Storage | None = None,
        allow_rewrite: bool = False,
        sample: int = 50_000,
        on_copy: int | None = None,
        dry_run: bool = False,
        measure_again: bool = False,
        seed: int = 0,
        progress: Progress = False,
        on_step: Callable[[str], object] | None = None,
    ) -> TuningReport:
        """Choose resolutions, rotations, stages and keeps for a recall at the least time."""
        given = {
            "k": k, "queries": queries, "budget": budget, "max_miss": max_miss,
            "judgments": judgments, "funnel": funnel, "storage": storage,
            "allow_rewrite": allow_rewrite, "sample": sample, "on_copy": on_copy,
            "dry_run": dry_run, "measure_again": measure_again, "seed": seed, "progress": progress,
            "on_step": on_step,
        }  # fmt: skip
        about, wanted = prepare(self, "postgres", recall, given)
        with telling(progress, on_step) as say:
            report: TuningReport = self._drive(tune(about, wanted), say)
            return report

    def _with_funnels(self, found: Diagnosis, *, seed: int) -> Diagnosis:
        """Add to a diagnosis whether the table's funnels still fit it."""
        standing = self._drive(fits(found, seed=seed), lambda step: None)
        return replace(found, funnels=standing)

    def _drive(self, steps: Steps[Any], say: Callable[[Say], None]) -> Any:
        """Do what a generator of steps asks for, and return what it returns."""
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                step = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            answer = error = None
            try:
                answer = self._done(step, say)
            except BaseException as raised:  # an interruption too: a run cleans up
                error = raised

    def _done(self, step: Step, say: Callable[[Say], None]) -> Any:
        """Do what a run asks for."""
        if isinstance(step, Say):
            return say(step)
        if isinstance(step, Compute):
            return in_place(step.work)
        assert isinstance(step, Call)
        method = getattr(self if step.on is None else step.on, step.method)
        started = perf_counter()
        result = method(*step.arguments, **step.options)
        return (result, 1e3 * (perf_counter() - started)) if step.timed else result

    def _funnels_now(self) -> dict[str, KeptFunnel]:
        with self._engine._calling() as connection:
            rows = fetch_all(
                connection, statement("funnels"), {"table": self._regclass, "vector": self._vector}
            )
        return {row[0]: KeptFunnel(row[1], row[2] or None, tuple(row[4])) for row in rows}

    def _tuned_now(self) -> dict[str, Tuned]:
        """What tuning runs have found of funnels that are what they were."""
        with self._engine._calling() as connection:
            rows = fetch_all(
                connection, statement("tuned"), {"table": self._regclass, "vector": self._vector}
            )
        return {row[0]: Tuned(*row[1:]) for row in rows}

    def _machine(self) -> str | None:
        """What tells this server from others, as far as its prices go."""
        with self._engine._calling() as connection, atomic(connection):
            row = fetch_one(connection, statement("machine"))
        return None if row is None else row[0]

    def _kept_prices(self, key: str) -> Any:
        """The newest prices of that key that a run has kept beside some funnel."""
        with self._engine._calling() as connection:
            row = fetch_one(connection, statement("kept_prices"), {"key": key})
        return None if row is None else row[0]

    def _score_rule(self, model: str | None) -> ScoreRule:
        """What a funnel of this model that is made now takes from its calibrations."""
        with self._engine._calling() as connection:
            row = fetch_one(connection, statement("score_rule"), self._of(model))
        return ScoreRule() if row is None else ScoreRule(*row)

    def _worst(
        self, query: npt.NDArray[np.float32], k: int, *, own: Any, model: str | None
    ) -> float:
        """The corrected score of the k-th row of an exact search."""
        asked = {"query": f"[{','.join(map(str, query.tolist()))}]", "k": k}
        itself = {"own": None if own is None else hashed(own)[1]}
        with self._engine._calling() as connection, atomic(connection):
            row = fetch_one(connection, statement("worst"), {**self._of(model), **asked, **itself})
        assert row is not None  # a function that returns one row
        return float(row[0])

    def _of(self, model: str | None) -> dict[str, str | None]:
        column = {"table": self._regclass, "vector": self._vector}
        return {**column, "metric": self._metric, "model": model}

    def _keep_tuned(self, name: str, **found: Any) -> None:
        """Keep what a run has found beside its funnel."""
        with self._engine._calling() as connection, atomic(connection):
            fetch_one(
                connection,
                statement("keep_tuned"),
                {"funnel": quoted(self._schema, name), "found": Jsonb(found)},
            )

    def _recall_since(self, name: str, *, recent: bool, sample: int, k: int, seed: int) -> Found:
        """Recall on rows of all, or on those that came since the funnel was tuned."""
        with self._engine._calling() as connection, atomic(connection):
            row = fetch_one(
                connection,
                statement("recall_since"),
                {
                    "funnel": quoted(self._schema, name),
                    "recent": recent, "sample": sample, "k": k, "seed": seed,
                },
            )  # fmt: skip
        assert row is not None  # a function that returns one row
        return Found(*row)

    def _rotations_now(self) -> dict[str, Rotation]:
        found = {}
        with self._engine._calling() as connection:
            ids = fetch_all(
                connection,
                statement("rotation_ids"),
                {"table": self._regclass, "vector": self._vector},
            )
            for name, id in ids:
                row = fetch_one(connection, statement("read_rotation"), {"id": id})
                if row is not None:
                    found[name] = rotation_of(row)
        return found

    def _scratch(self, name: str) -> PostgresTable | None:
        """An empty table of the same vectors beside the table, in place of one of that name."""
        if _PLAIN.fullmatch(self._schema) is None:
            return None  # `create` takes schema and name as one text, which would not be clear
        self._drop_scratch(name)
        made = self._engine.create(
            f"{self._schema}.{name}",
            dims=self._dims,
            vector=self._vector,
            dtype=self._code,
            metric=self._metric,
        )
        return made

    def _drop_scratch(self, name: str) -> None:
        """Drop it with its funnels and resolutions, where it exists."""
        try:
            table = self._engine.table(
                sql.Identifier(self._schema, name).as_string(None), vector=self._vector
            )
        except NotFound:
            return
        for funnel in table._funnels_now():
            table.drop_funnel(funnel)
        for each in table.status():
            table.drop_resolution(each.resolution)
        for rotation in table.rotations():
            table.drop_rotation(rotation.rotation)
        with self._engine._calling() as connection, atomic(connection):
            cursor(connection).execute(
                sql.SQL("drop table {}").format(sql.Identifier(self._schema, name))
            )
