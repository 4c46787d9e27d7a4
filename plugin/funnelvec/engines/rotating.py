"""What every engine checks before a rotation is fitted."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from funnelvec.doctor.limits import check, check_whole
from funnelvec.engines import options
from funnelvec.engines.asking import check_many
from funnelvec.fitting.fit import Wanted, check_wanted
from funnelvec.types import BaseCode, Metric

__all__ = ["Asked", "check_fit"]


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
