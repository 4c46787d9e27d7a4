"""Parts of the `Table` protocol that have a module of their own: writing rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

from funnelvec.types import Key, LoadReport, Upserted

__all__ = ["Loading", "Progress"]

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

        Raises
        ------
        InvalidInput, NotFound
            If the source, a column or a row of it cannot be used; batches before stay.
        Conflict
            If a key is in the table already, or the source of an interrupted load has changed.
        MissingDependency
            If the source takes pyarrow, which is not installed.
        """
