"""What a table in Qdrant has no place for: windows."""

from __future__ import annotations

from funnelvec.errors import CapabilityError
from funnelvec.resolution import Resolution
from funnelvec.types import Family

__all__ = ["QdrantRefusing", "check_applied"]

_WINDOWS = (
    "Qdrant has no indexes over ranges of a column; a filter goes through its own index there. A "
    "postgresql:// table has windows"
)


def check_applied(family: Family) -> None:
    """Refuse a family that a search in Qdrant cannot apply.

    Raises
    ------
    CapabilityError
        If it is an adapter, whose line needs the scores of the whole shortlist.
    """
    if family == "adapter":
        raise CapabilityError(
            "Qdrant answers with the rows asked for, not with the shortlist that an adapter reads; "
            "family='auto' takes the best of platt, beta and isotonic, and a postgresql:// or "
            "memory: table applies adapters"
        )


class QdrantRefusing:
    """The methods of `QdrantTable` that say which engine can."""

    def add_window(
        self,
        resolution: Resolution | str,
        by: str,
        *,
        levels: int | None = None,
        allow_rewrite: bool = False,
        concurrently: bool = False,
    ) -> None:
        """Refused: a filter of Qdrant's goes through an index of its own."""
        raise CapabilityError(_WINDOWS)

    def drop_window(self, resolution: Resolution | str, by: str) -> None:
        """Refused, as `add_window` is."""
        raise CapabilityError(_WINDOWS)
