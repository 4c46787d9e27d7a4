"""Parts of the `Table` protocol: writing, windows, what a table says of itself and its vectors."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from funnelvec.reports import (
    LoadReport,
    RecallReport,
    ResolutionStatus,
    Sample,
    Upserted,
)
from funnelvec.resolution import Resolution
from funnelvec.types import Key, Metric

if TYPE_CHECKING:
    from funnelvec.doctor.diagnosis import Diagnosis
    from funnelvec.fitting.report import RotationReport, RotationStatus

__all__ = ["Examined", "Loading", "Observed", "Progress", "Rotating", "Windowed"]

#: True shows a progress bar; a callable is told (rows done, rows in all; 0 where nobody knows).
Progress: TypeAlias = bool | Callable[[int, int], None]


class Loading(Protocol):
    """What writes rows."""

    def add(
        self,
        ids: Sequence[Key],
        vectors: npt.ArrayLike,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        progress: Progress = False,
    ) -> int:
        """Add rows, all or none.

        Parameters
        ----------
        ids
            n keys: different, none missing, none in the table yet. Tuples, in the order of
            `key`, where it has several columns.
        vectors
            (n, dims) float32 or what converts to it; finite as the column stores them. Under
            cosine no row is zero; the other metrics take zero vectors.
        columns
            Values of other columns, n each; None is a missing value.

        Returns
        -------
        int
            The number of rows added.

        Raises
        ------
        InvalidInput
            If a key, vector or value cannot be stored.
        NotFound
            If a column does not exist.
        Conflict
            If a key is in the table already.
        """

    def upsert(
        self,
        ids: Sequence[Key],
        vectors: npt.ArrayLike,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        progress: Progress = False,
    ) -> Upserted:
        """Add rows, and change those whose key is in the table; all or none.

        Arguments and errors are those of `add`, but that a key may be in the table. A changed row
        keeps what it has in columns that are not given; a new one gets their defaults.
        """

    def load(
        self,
        source: Any,
        *,
        ids: Any = None,
        vectors: str | None = None,
        columns: Any = None,
        batch_size: int | None = None,
        upsert: bool = False,
        resume: bool | str = True,
        dry_run: bool = False,
        progress: Progress = False,
        parallel: int = 1,
    ) -> LoadReport:
        """Load rows from a source that may be larger than memory, and commit each batch.

        Parameters
        ----------
        source
            The path of a Parquet file, of a folder of them, or of an .npy file; a list of such
            files; an Arrow table, record batch or stream; an array (n, d), also one mapped into
            memory; or an iterator of ``(key, vector)``, ``(key, vector, {column: value})``,
            mappings by column name, the same with many rows each, or record batches.
        ids, vectors, columns
            Where the source has named columns: which of them hold the key, the vectors and
            further columns (a list of names, or a mapping of the table's names to the source's).
            By default those of the table's names. For arrays: the keys, and a mapping of names to
            values; `vectors` has no use.
        batch_size
            Rows per batch, and so per transaction; None chooses some 32 MB of vectors.
        upsert
            Whether a row whose key is in the table is changed, and not refused.
        resume
            True goes on where the same load was interrupted; files are known by their path, other
            sources by their first key. Text is a name of your own for the load. False begins with
            the first row.
        dry_run
            Read and check everything, and write nothing.
        progress
            As for `add`; rows that were in before count as done.
        parallel
            How many batches are on their way at once, 1 to 64: in as many threads, over HTTP to a
            Qdrant server. Every other engine has one writer and takes 1.

        Raises
        ------
        InvalidInput, NotFound
            If the source, a column or a row of it cannot be used; batches before stay.
        Conflict
            If a key is in the table already, or the source of an interrupted load has changed.
        MissingDependency
            If the source takes pyarrow, which is not installed.
        """


class Windowed(Protocol):
    """Indexes over ranges of a column."""

    def add_window(
        self,
        resolution: Resolution | str,
        by: str,
        *,
        levels: int | None = None,
        allow_rewrite: bool = False,
        concurrently: bool = False,
    ) -> None:
        """Index ranges of a column apart, for searches with such a range in their filter.

        Level by level windows hold half as many rows, and each begins in the middle of the one
        before. A search goes by the smallest one that holds all that its filter's ranges leave
        (`Engels et al., ICML 2024 <https://arxiv.org/abs/2402.00943>`_).

        Parameters
        ----------
        resolution
            A stored resolution with an index: what searches begin with.
        by
            A column of numbers, dates or timestamps.
        levels
            1 to 6; None takes up to three, of windows that are worth an index. Each level holds
            nearly every row twice, and every new row enters all of those indexes.
        allow_rewrite
            Whether writers of a table of more than 100,000 rows may be stopped meanwhile.
        concurrently
            Leave the indexes to `backfill`.

        Raises
        ------
        NotFound
            If there is no such column or no index over the resolution.
        CapabilityError
            If there can be no windows: the column has another type or too few rows or values, or
            the codes are in a side table.
        Conflict
            If there are windows of other levels, or the table is large.
        """

    def drop_window(self, resolution: Resolution | str, by: str) -> None:
        """Remove the windows of a resolution by a column; `NotFound` where there are none."""


class Observed(Protocol):
    """Recall, the state of what is stored, and the log of queries."""

    def measure_recall(
        self,
        *,
        sample: int | None = None,
        k: int = 10,
        funnel: str | None = None,
        seed: int = 0,
        queries: npt.ArrayLike | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> RecallReport:
        """Measure the funnel against exact search, with given queries or sampled rows as queries.

        A sampled row does not count among its own neighbours, so the funnel is asked for ``k + 1``
        rows. Rows as near as the k-th count as well as those before it, so it does not matter
        which of several duplicates come back.

        Parameters
        ----------
        sample
            How many queries to draw; None is 200 rows, or all of the given queries.
        queries
            (n, dims) float32 or what converts to it. None draws rows of the table.
        filter
            What both searches are narrowed down by; see `funnelvec.filters`. Queries for which
            nothing matches are left out.

        Raises
        ------
        InvalidInput
            If the table has fewer than two rows, the rows asked for cannot reach the last stage,
            no query can be asked at every stage, or nothing matches the filter.
        """

    def log_queries(
        self,
        *,
        share: float = 0.01,
        keep_for: datetime.timedelta = datetime.timedelta(days=30),
        max_rows: int = 100_000,
        roles: bool = False,
        funnel: str | None = None,
    ) -> None:
        """Log a share of a funnel's queries, to measure, tune and calibrate with.

        Parameters
        ----------
        share
            Share of queries to log, from 0 (none) to 1 (all), drawn at random.
        keep_for, max_rows
            How long, and how many of the newest, to keep.
        roles
            Whether to log the name of the database role that asked.

        Raises
        ------
        InvalidInput
            If a number is out of range.
        Conflict
            If the name of the log is taken.
        CapabilityError
            If the engine keeps no log.
        """

    def stop_logging(self, *, forget: bool = False, funnel: str | None = None) -> None:
        """Log no more queries; with `forget` the logged ones are dropped too."""

    def logged_queries(
        self, limit: int = 1000, *, funnel: str | None = None
    ) -> npt.NDArray[np.float32]:
        """Return up to `limit` logged queries as (n, dims) float32, newest first.

        Raises
        ------
        NotFound
            If the funnel has no log.
        """

    def status(self) -> list[ResolutionStatus]:
        """Report every resolution: coverage, bit balance, index."""


class Examined(Protocol):
    """Rows drawn at random, and what they say of the vectors."""

    def sample(self, count: int = 10_000, *, seed: int = 0) -> Sample:
        """Draw rows at random, without reading all of a large table.

        Parameters
        ----------
        count
            At most so many rows, from 1 on; those without a vector are left out.
        seed
            The same seed draws the same rows while the table does not change.

        Raises
        ------
        InvalidInput
            If an argument cannot be used.
        """

    def doctor(
        self,
        *,
        sample: int = 10_000,
        queries: int = 500,
        seed: int = 0,
        funnels: bool = True,
        progress: Progress = False,
    ) -> Diagnosis:
        """Examine a sample of the vectors: what was found, what is normal, what to do.

        Parameters
        ----------
        sample, queries
            How many rows to draw, and how many of them to ask for, each against all others.
        seed
            Of both.
        funnels
            Also measure whether each funnel of the table still fits it: up to 200 exact searches
            a funnel, as many as some ten seconds allow, none where one takes long.
        progress
            True shows a bar; a callable is told (steps done, steps in all).

        Raises
        ------
        InvalidInput
            If an argument cannot be used, or fewer than two rows have a vector.
        """


class Rotating(Protocol):
    """Linear maps that are fitted to the vectors of the column."""

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
        """Fit a rotation to a sample of the rows, measure it, and keep it under a name.

        After ``fit_rotation("pca")`` resolutions such as ``128:f16~pca`` can be added; after
        ``fit_rotation("pcar", then="itq", dims=512)`` there is ``512:bit~pcar``. The report
        says whether it is worth it: it is measured beside the first dimensions as they are and
        beside a random rotation of the same bytes, with queries that it was not fitted on.

        Parameters
        ----------
        name
            What resolutions call it; a lower-case letter, then up to 15 lower-case letters,
            digits or underscores. A rotation never changes: a refit takes another name.
        kind
            ``pca``: the axes that hold most of the vectors. ``sphering``: two maps, for rows and
            for queries, whose prefixes lose least of the inner products of both; for queries that
            are distributed in another way than the rows (LeanVec-Sphering, arXiv 2410.22347).
        dims
            How many dimensions it keeps; None is 512, or the width of the column.
        then
            For codes of signs, which want dimensions that are alike: ``random`` adds a random
            rotation of what is kept, ``itq`` one that is fitted so that numbers lie close to
            their signs (Gong and Lazebnik 2011). Such a rotation is only used in its full width.
        queries
            (n, dims) float32 or what converts to it, such as ``logged_queries()``. Sphering needs
            them, at least 20: half are fitted on. Else they are measured with; None holds out
            rows for that.
        metric
            What the column is compared by; None is the metric that it has.
        sample
            How many rows to draw; at least twice `dims` and a fifth more.
        seed
            Of the sample, and of what is random.
        dry_run
            Fit and measure, and keep nothing.
        progress
            True shows a bar; a callable is told (steps done, steps in all).

        Raises
        ------
        InvalidInput
            If an argument cannot be used, or rows or queries are too few.
        Conflict
            If the name is taken, or the column has another metric.
        """

    def rotations(self) -> list[RotationStatus]:
        """List the fitted rotations of this column."""

    def drop_rotation(self, name: str) -> None:
        """Forget a fitted rotation that no resolution uses.

        Raises
        ------
        NotFound
            If there is none of that name.
        Conflict
            If a resolution uses it.
        """
