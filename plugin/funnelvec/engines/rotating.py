"""Fitting, keeping and dropping a rotation, as far as it is the same on every engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from funnelvec.codes.maps import Rotation
from funnelvec.doctor.limits import check, check_whole
from funnelvec.engines import options
from funnelvec.engines.asking import check_many
from funnelvec.engines.base import Progress
from funnelvec.engines.progress import reporting
from funnelvec.errors import Conflict, NotFound
from funnelvec.fitting.fit import STEPS, Wanted, check_wanted, fit
from funnelvec.fitting.report import RotationReport
from funnelvec.reports import Sample
from funnelvec.types import BaseCode, Metric

__all__ = ["Asked", "check_fit", "check_unkept", "check_unused", "fit_drawn"]


class Asked(NamedTuple):
    """The arguments of a fit, checked."""

    wanted: Wanted
    queries: npt.NDArray[np.float32] | None
    sample: int
    seed: int
    dry_run: bool


def check_fit(
    *,
    name: Any,
    kind: Any,
    width: Any,
    then: Any,
    queries: Any,
    sample: Any,
    seed: Any,
    dry_run: Any,
    progress: Any,
    dims: int,
    metric: Metric,
    code: BaseCode,
) -> Asked:
    """Refuse what cannot be fitted before any row is read.

    Raises
    ------
    InvalidInput
        If an argument cannot be used.
    """
    options.check_progress(progress)
    count, _, seed = check(sample=check_whole(sample, "sample", 1, 1_000_000), seed=seed, least=1)
    wanted = check_wanted(
        name=name, kind=kind, then=then, width=width, dims=dims, metric=metric, code=code,
        seed=seed, queries=queries is not None,
    )  # fmt: skip
    matrix = None
    if queries is not None:
        matrix = check_many(queries, dims=dims, code=code, directed=False)
    return Asked(wanted, matrix, count, seed, options.check_flag(dry_run, "dry_run"))


def check_unkept(*, kept: bool, column: str, name: str) -> None:
    """Refuse a name that a rotation of the column has.

    Raises
    ------
    Conflict
        If it is `kept`.
    """
    if kept:
        raise Conflict(
            f"{column} has a rotation {name}, and maps never change: codes "
            f"that were made with it would be wrong; fit the next one as {name[:15]}2"
        )


def check_unused(name: str, *, known: Collection[str], users: Sequence[str]) -> None:
    """Refuse to drop a rotation that is not there, or that resolutions use.

    Raises
    ------
    NotFound, Conflict
        In these cases.
    """
    if name not in known:
        raise NotFound(
            f"the column has no rotation {name!r} (it has: {', '.join(sorted(known)) or 'none'})"
        )
    if users:
        raise Conflict(
            f"the rotation {name} is used by {', '.join(users)}; drop_resolution these first"
        )


def fit_drawn(
    asked: Asked, sample: Callable[..., Sample], progress: Progress
) -> tuple[Rotation, RotationReport]:
    """Fit to what a table's `sample` draws, and tell the progress of both."""
    with reporting(progress, STEPS + 1, "fitting", unit="steps") as tell:
        drawn = sample(asked.sample, seed=asked.seed).vectors
        tell(1)
        return fit(asked.wanted, drawn, asked.queries, progress=lambda done: tell(done + 1))
