"""What every engine offers: the `Engine` and `Table` protocols.

The same program runs on every engine; what one cannot do, it refuses with a `CapabilityError`
that names one that can. Nothing is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, runtime_checkable

from funnelvec.engines.calibrating import Calibrating
from funnelvec.engines.certifying import Certifying
from funnelvec.engines.evaluated import Evaluated
from funnelvec.engines.following import Following
from funnelvec.engines.hubbed import Hubbed
from funnelvec.engines.protocols import (
    Examined,
    Loading,
    Observed,
    Progress,
    Rotating,
    Windowed,
)
from funnelvec.engines.searching import After, Searching
from funnelvec.engines.storing import Storing
from funnelvec.engines.tunable import Tunable
from funnelvec.funnel import Funnel
from funnelvec.reports import FillingStep, Problem, Repair
from funnelvec.resolution import Resolution
from funnelvec.types import (
    BaseCode,
    Code,
    ColumnKind,
    Metric,
    Storage,
)

__all__ = ["After", "Capabilities", "Engine", "Progress", "Table", "default_funnel"]


def default_funnel(table: str) -> str:
    """Name of the funnel that a search uses when it names none."""
    return f"{table}_search"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do.

    Attributes
    ----------
    codes, metrics
        The codes it stores and the metrics it ranks by.
    filters
        Whether a search can be filtered.
    persistent
        Whether the data outlives the process.
    """

    name: str
    codes: tuple[Code, ...]
    metrics: tuple[Metric, ...]
    filters: bool
    persistent: bool


@runtime_checkable
class Table(
    Searching,
    Calibrating,
    Certifying,
    Evaluated,
    Following,
    Loading,
    Storing,
    Windowed,
    Observed,
    Examined,
    Rotating,
    Hubbed,
    Tunable,
    Protocol,
):
    """One vector column of one table, with its resolutions, funnels and calibrations."""

    @property
    def name(self) -> str:
        """Name of the table."""

    @property
    def vector(self) -> str:
        """Name of the vector column."""

    @property
    def dims(self) -> int:
        """Width of the vector column."""

    @property
    def code(self) -> BaseCode:
        """Code of the vector column: ``f32``, or ``f16`` for a ``halfvec``."""

    @property
    def metric(self) -> Metric:
        """What the column is compared by, in all of its resolutions and funnels."""

    @property
    def key(self) -> str | tuple[str, ...]:
        """Name of the key column, or the names of its columns where it has several."""

    def __len__(self) -> int:
        """Count the rows, as `count` does."""

    def count(self) -> int:
        """Count the rows; what ``len()`` says, and the one that can be awaited."""

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
        """Store the column at one more resolution, kept in step with every later write.

        Parameters
        ----------
        index
            Whether to build an index too; a first stage wants one.
        allow_rewrite
            Whether a large table may be rewritten under a lock (Postgres).
        metric
            What the column is compared by; None is the metric that it has, or cosine. The first
            resolution or funnel decides.
        storage
            ``column`` keeps it in the table itself, which is fastest and rewrites the table once.
            ``side`` keeps it in a table beside it, for tables that must not stop: nothing is
            rewritten, and searches use it once `backfill` has run. None leaves it where it is, or
            takes ``column``. Naming the other one moves it.
        concurrently
            Leave the index to `backfill`, which builds it without stopping anybody from writing;
            building it here stops writers meanwhile, and beyond 100,000 rows wants
            `allow_rewrite`. For side storage it is always left to `backfill`.
        m, ef_construction
            Of the index: links of a row, 2 to 100, and the list that it is built with, from 4 and
            twice `m` to 1,000. None is 16, and 64 (Postgres) or 100 to 200 (Qdrant). An index that
            stands keeps its own.

        Raises
        ------
        SpecError, InvalidInput
            If the text is malformed, or the resolution is wider than the column or holds more
            digits, or there is no index of such settings.
        Conflict
            If the name of its column is taken, or the vector column has another metric.
        CapabilityError
            If the engine cannot store it.
        """

    def backfill(
        self,
        *,
        batch: int | None = None,
        progress: Progress = False,
        on_step: Callable[[FillingStep], None] | None = None,
    ) -> int:
        """Finish what `add_resolution` began, for every vector column of the table.

        Side tables (``storage="side"``) are filled in by batches, their indexes and those that
        were left (``concurrently=True``) are built without blocking anybody, then searches switch
        over. Each step commits, so work that was stopped goes on
        where it was; with nothing left to do it returns at once.

        Parameters
        ----------
        batch
            Rows per transaction, 1 to 1,000,000; None suits it to about 0.2 seconds.
        on_step
            Told of every batch, and of every statement before it runs.

        Returns
        -------
        int
            Rows that were gone through now.

        Raises
        ------
        CapabilityError
            If the connection is not in autocommit mode or has a transaction open.
        """

    def drop_resolution(self, resolution: Resolution | str) -> None:
        """Remove a resolution; refused with `Conflict` while a funnel uses it."""

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
        """Give a funnel a name to search by.

        Parameters
        ----------
        approximate
            Allow an ending other than the column itself.
        replace
            Replace a funnel of that name.
        model
            Name of the embedding model; a calibration belongs to it.
        metric
            As for `add_resolution`.
        returns
            Names of columns whose values every hit brings along, in `Hit.columns`.

        Raises
        ------
        SpecError
            If the funnel is malformed or does not fit the column.
        NotFound
            If one of its resolutions has not been added, or a column to return does not exist.
        Conflict
            If the name is taken, a column to return is one of the key or has a name that the
            search function has taken, or the vector column has another metric.
        """

    def drop_funnel(self, name: str) -> None:
        """Remove a funnel; its calibration stays for the next one with the same last stage."""


@runtime_checkable
class Engine(Protocol):
    """A database that runs funnels; a context manager that closes itself."""

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""

    def table(self, name: str, *, vector: str | None = None) -> Table:
        """Open a table; `vector` may be left out if it has exactly one vector column.

        Raises
        ------
        NotFound
            If the table or the column does not exist.
        """

    def create(
        self,
        name: str,
        *,
        dims: int,
        vector: str = "embedding",
        dtype: BaseCode = "f32",
        metric: Metric = "cosine",
        id: str | Sequence[str] = "id",
        id_kind: ColumnKind | Sequence[ColumnKind] = "integer",
        columns: Mapping[str, ColumnKind] | None = None,
    ) -> Table:
        """Create an empty table with a key, a vector column and typed further columns.

        Parameters
        ----------
        dims, vector, dtype
            Width, name and type of the vector column; ``f16`` halves its size (``halfvec``).
        metric
            What the vectors are compared by. Another than cosine is kept with the table; cosine
            is what a column has until a resolution or funnel says otherwise.
        id, id_kind
            Name and kind of the key column. Several names make a key of several columns, with
            one kind for all or one for each; such keys are tuples.
        columns
            Kinds of further columns, by name.

        Raises
        ------
        InvalidInput
            If a name, kind, metric or width cannot be used.
        Conflict
            If the table exists.
        """

    def problems(self) -> list[Problem]:
        """List what is out of step with the tables after renames, drops, moves and restores.

        Empty where all is well. It names what the caller may read; `repair` mends what the caller
        owns.
        """

    def repair(self, *, dry_run: bool = False) -> list[Repair]:
        """Mend what is out of step, on the tables that the caller owns.

        Search functions are written again where the table, its key, an index or funnelvec has
        changed; renames are followed; what a dropped table left goes; code columns and search
        functions that the registry has lost are taken over. No row of a table is read or written.

        Parameters
        ----------
        dry_run
            Find out what would be done, and change nothing.

        Returns
        -------
        list of Repair
            What was done; an action that begins with ``not repaired`` says why not.
        """

    def close(self) -> None:
        """Release what the engine holds."""

    def __enter__(self) -> Engine:
        """Return the engine itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the engine."""
