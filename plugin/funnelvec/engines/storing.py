"""The part of the `Table` protocol that stores all that a funnel needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from funnelvec.funnel import Funnel
    from funnelvec.types import Metric, Storage

__all__ = ["Storing"]


class Storing(Protocol):
    """What a table stores of its vectors."""

    def add_resolutions(
        self,
        funnel: Funnel | str,
        *,
        index: bool = True,
        allow_rewrite: bool = False,
        metric: Metric | None = None,
        storage: Storage | None = None,
        concurrently: bool = False,
    ) -> None:
        """Store every resolution that a funnel needs, with an index for its first stage.

        Postgres rewrites the table once for all of them, where `add_resolution` rewrites it for
        each, and stores all or none. What is stored already stays as it is.

        Parameters
        ----------
        funnel
            Such as ``"128:f16@100 > 512:f16@20 > 1536:f32"``; it is not created.
        index, allow_rewrite, metric, storage, concurrently
            As for `add_resolution`; the index is that of the first stage.

        Raises
        ------
        SpecError, InvalidInput, Conflict, CapabilityError
            As `add_resolution` does.
        """
