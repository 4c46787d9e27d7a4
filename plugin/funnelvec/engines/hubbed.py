"""The part of the `Table` protocol that knows rows which are close to everything."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Hubbed"]


class Hubbed(Protocol):
    """How much of a hub each row is."""

    def add_hub(
        self, *, sample: int = 3_000, allow_rewrite: bool = False, concurrently: bool = False
    ) -> str:
        """Give every row a number that says how much of a hub it is, kept in step from now on.

        It is the mean of the row's 128 largest cosines with rows that are drawn once from the
        table, less the mean of that, so that an ordinary row has about 0 (NNN; Chowdhury et al.,
        EMNLP 2024, with rows of the table as the bank). It takes no labels. The next `calibrate`
        finds out how much of it to take off the score, and takes none where that is no help.

        Parameters
        ----------
        sample
            How many rows to draw, 20 to 20,000. Each row that is written is compared with all.
        allow_rewrite
            Whether a table of more than 100,000 rows may be rewritten, and locked meanwhile.
        concurrently
            Leave the rows that there are to `backfill`, which locks nobody out. Until then
            `calibrate` takes nothing off.

        Returns
        -------
        str
            The name of the column.

        Raises
        ------
        CalibrationError
            If fewer than 20 rows have a vector that is not zero.
        Conflict
            If there is a hub column already, its name is taken, or the table is large.
        CapabilityError
            If the engine has none.
        """

    def drop_hub(self) -> None:
        """Remove the hub column; `NotFound` where there is none.

        Funnels take the newest calibration that was fitted without it, or have none.
        """
