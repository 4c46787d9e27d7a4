"""What is asked of a tuning run, checked before anything is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.errors import InvalidInput
from funnelvec.tuning.sure import queries_needed
from funnelvec.types import Judgments, Storage

__all__ = ["DEFAULT_RECALL", "Budget", "Wanted", "check_wanted"]

DEFAULT_RECALL = 0.99
_LEAST_ROWS, _MOST_ROWS = 100, 1_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """What a funnel may cost; None is no limit.

    Attributes
    ----------
    memory
        Bytes that searches go through: the index and the codes of the stages between.
    storage
        Bytes on disk beside the table as it is now.
    build
        Seconds for storing codes and building indexes.
    latency
        Milliseconds of the median search. With it, the funnel that finds most within it is
        chosen, whatever the recall that was asked for.
    """

    memory: float | None = None
    storage: float | None = None
    build: float | None = None
    latency: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value: Any = getattr(self, each.name)
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if value is not None and not (number and math.isfinite(value) and value > 0):
                raise InvalidInput(f"budget: {each.name} must be a number above 0, not {value!r}")

    @classmethod
    def of(cls, given: Any) -> Budget:
        """Read a budget: one, a mapping of the same names, or None.

        Raises
        ------
        InvalidInput
            If it is something else, or has other names.
        """
        if isinstance(given, cls):
            return given
        if given is None:
            return cls()
        names = [each.name for each in fields(cls)]
        if not isinstance(given, Mapping) or set(given) - set(names):
            raise InvalidInput(f"budget has the names {', '.join(names)}, unlike {given!r:.100}")
        return cls(**{str(name): value for name, value in given.items()})


@dataclass(frozen=True, slots=True)
class Wanted:
    """The arguments of ``tune``, checked; see `funnelvec.engines.tunable.Tunable`."""

    recall: float
    k: int
    queries: npt.NDArray[np.float32] | None
    from_log: bool | None
    budget: Budget
    max_miss: float | None
    judgments: Judgments | None
    funnel: str
    storage: Storage | None
    allow_rewrite: bool
    sample: int
    on_copy: int | None
    dry_run: bool
    measure_again: bool
    seed: int

    @property
    def queries_needed(self) -> int:
        """Queries that it takes: as many to choose with as to check with."""
        return 2 * queries_needed(self.recall)


def check_wanted(
    *,
    recall: Any,
    k: int,
    queries: npt.NDArray[np.float32] | None,
    from_log: bool | None,
    budget: Any,
    max_miss: float | None,
    judgments: Any,
    funnel: str,
    storage: Storage | None,
    allow_rewrite: bool,
    sample: Any,
    on_copy: Any,
    dry_run: bool,
    measure_again: bool,
    seed: int,
) -> Wanted:
    """Refuse what cannot be tuned for.

    Raises
    ------
    InvalidInput
        If an argument cannot be used, or the queries are too few.
    """
    target: Any = DEFAULT_RECALL if recall is None else recall
    number = isinstance(target, (int, float, np.number)) and not isinstance(target, bool)
    if not number or not 0.5 <= target < 1:
        raise InvalidInput(
            f"recall must be from 0.5 to below 1, not {recall!r:.50}; search the column itself "
            "where nothing may be missed"
        )
    if (max_miss is None) != (judgments is None):
        raise InvalidInput("max_miss and judgments go together: give both, or neither")
    if judgments is not None and not isinstance(judgments, Judgments):
        raise InvalidInput(f"judgments must be funnelvec.Judgments, not {judgments!r:.50}")
    asked = Wanted(
        recall=float(target), k=k, queries=queries, from_log=from_log, budget=Budget.of(budget),
        max_miss=max_miss, judgments=judgments, funnel=funnel, storage=storage,
        allow_rewrite=allow_rewrite, sample=_rows(sample, "sample"),
        on_copy=None if on_copy is None else _rows(on_copy, "on_copy"), dry_run=dry_run,
        measure_again=measure_again, seed=seed,
    )  # fmt: skip
    if queries is not None:
        check_enough(asked, len(queries), "given")
    return asked


def check_enough(asked: Wanted, count: int, what: str) -> None:
    """Refuse too few queries.

    Raises
    ------
    InvalidInput
        With the number that is needed.
    """
    if count < asked.queries_needed:
        raise InvalidInput(
            f"{count} queries were {what}, which are too few to tell whether recall "
            f"{asked.recall:g} is met; it takes {asked.queries_needed}, half to choose with and "
            "half to check with. Give more, or ask for a lower recall"
        )


def _rows(value: Any, name: str) -> int:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not _LEAST_ROWS <= value <= _MOST_ROWS:
        raise InvalidInput(
            f"{name} must be a whole number of rows from {_LEAST_ROWS} to {_MOST_ROWS:,}, not "
            f"{value!r:.50}"
        )
    return int(value)
