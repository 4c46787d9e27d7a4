"""The part of a table in Qdrant that fits rotations."""

from __future__ import annotations

import contextlib
import datetime
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy.typing as npt

from funnelvec.engines import checks
from funnelvec.engines.base import Progress
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.maps import KeptRotation, packed
from funnelvec.engines.rotating import check_fit, check_unkept, check_unused, fit_drawn
from funnelvec.errors import Conflict, FunnelvecError
from funnelvec.fitting.report import RotationReport, RotationStatus
from funnelvec.reports import Sample
from funnelvec.types import Metric

__all__ = ["QdrantRotating"]


class QdrantRotating:
    """`fit_rotation`, `rotations`, `drop_rotation`; see `funnelvec.engines.base.Table`.

    The numbers of a rotation are written between two changes of the definition: the first says
    which points they take, so that these are never seen as rows, the second that all are there.
    """

    name: str
    vector: str
    _collection: Collection

    if TYPE_CHECKING:

        def _vector(self, *, fresh: bool = False) -> Vector: ...
        def _change(self, how: Callable[[Vector], Vector]) -> None: ...
        def _check_metric(self, wanted: Metric | None) -> None: ...
        def sample(self, count: int = 10_000, *, seed: int = 0) -> Sample: ...

    def fit_rotation(
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
        """Fit a rotation to a sample of the rows, measure it, and keep it with the collection."""
        self._check_metric(metric)
        column = self._vector(fresh=True).column
        asked = check_fit(
            name=name, kind=kind, width=dims, then=then, queries=queries, sample=sample, seed=seed,
            dry_run=dry_run, progress=progress, dims=column.base.dims, metric=column.metric,
            code=column.code,
        )  # fmt: skip
        if not asked.dry_run:
            self._check_free(self._vector(), name)
        rotation, report = fit_drawn(asked, self.sample, progress)
        if asked.dry_run:
            return report
        content = packed(rotation)
        kept = KeptRotation.of(
            rotation,
            recommended=report.recommended,
            fitted_at=datetime.datetime.now(datetime.timezone.utc).isoformat(),
            token=uuid.uuid4().hex,
            parts=self._collection.deployment.parts(len(content)),
        )
        with self._writing(kept):
            self._collection.deployment.keep_bytes(self.name, kept.token, content)
        return replace(report, kept=True)

    @contextlib.contextmanager
    def _writing(self, kept: KeptRotation) -> Iterator[None]:
        """Announce a rotation whose numbers are written meanwhile, then say that it is there."""
        deployment = self._collection.deployment
        stale = self._vector(fresh=True).rotations.get(kept.name)
        if stale is not None and not stale.ready:  # of somebody who was stopped
            deployment.drop_bytes(self.name, stale.token, stale.parts)

        def announce(vector: Vector) -> Vector:
            self._check_free(vector, kept.name)
            return _with_rotation(vector, kept)

        def finish(vector: Vector) -> Vector:
            found = vector.rotations.get(kept.name)
            if found is None or found.token != kept.token:
                raise Conflict(
                    f"another client has fitted or dropped the rotation {kept.name} meanwhile; "
                    "see rotations()"
                )
            return _with_rotation(vector, replace(kept, ready=True))

        self._change(announce)
        try:
            yield
            self._change(finish)
        except BaseException:
            with contextlib.suppress(FunnelvecError):  # the first error says more
                deployment.drop_bytes(self.name, kept.token, kept.parts)
                self._change(lambda vector: _without(vector, kept.name, kept.token))
            raise

    def _check_free(self, vector: Vector, name: str) -> None:
        kept = vector.rotations.get(name)
        check_unkept(
            kept=kept is not None and kept.ready, column=f"{self.name}.{self.vector}", name=name
        )

    def rotations(self) -> list[RotationStatus]:
        """List the fitted rotations."""
        vector = self._vector(fresh=True)
        return [
            RotationStatus(
                rotation=name,
                kind=" > ".join(filter(None, (kept.kind, kept.chain))),
                dims=kept.dims,
                width=kept.width,
                cuttable=kept.cuttable,
                metric=kept.metric,
                prefix_metric=kept.prefix_metric,
                recommended=kept.recommended,
                rows=kept.rows,
                queries=kept.queries,
                fitted_on=kept.fitted_on,
                fitted_at=datetime.datetime.fromisoformat(kept.fitted_at),
                used_by=_users(vector, name),
            )
            for name, kept in sorted(vector.rotations.items())
            if kept.ready
        ]

    def drop_rotation(self, name: str) -> None:
        """Forget a fitted rotation that no resolution uses."""
        checks.check_name(name, "the name of a rotation")

        def retire(vector: Vector) -> Vector:
            check_unused(name, known=vector.rotations, users=_users(vector, name))
            return _with_rotation(vector, replace(vector.rotations[name], ready=False))

        self._change(retire)
        kept = self._vector().rotations[name]
        # Until its points are gone the definition says that they are no rows.
        self._collection.deployment.drop_bytes(self.name, kept.token, kept.parts)
        self._change(lambda vector: _without(vector, name, kept.token))


def _users(vector: Vector, name: str) -> tuple[str, ...]:
    return tuple(sorted(str(each) for each in vector.resolutions if each.rotation == name))


def _with_rotation(vector: Vector, kept: KeptRotation) -> Vector:
    return replace(vector, rotations={**vector.rotations, kept.name: kept})


def _without(vector: Vector, name: str, token: str) -> Vector:
    kept = vector.rotations.get(name)
    if kept is None or kept.token != token:
        return vector
    return replace(vector, rotations={n: r for n, r in vector.rotations.items() if n != name})
