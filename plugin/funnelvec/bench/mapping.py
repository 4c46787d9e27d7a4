"""Queries mapped by fitted rotations before they are sent, as the Python client does it.

The function of a funnel maps a query itself where it has to; a client that has numpy is faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from funnelvec.codes.maps import Rotation

if TYPE_CHECKING:
    import psycopg

__all__ = ["Mapper"]


@dataclass(frozen=True, slots=True)
class Mapper:
    """The maps of one funnel, in the order in which its function takes them.

    Attributes
    ----------
    rotations
        Each with the width that the funnel needs of it.
    key
        What tells the function that these are its maps.
    arguments
        SQL that hands over what `parameters` gives.
    """

    rotations: tuple[tuple[Rotation, int], ...]
    key: str
    arguments: str

    @classmethod
    def of(
        cls, connection: psycopg.Connection[Any], *, schema: str, table: str, funnel: str
    ) -> Mapper | None:
        """Read the maps of a funnel; None where it has none."""
        from funnelvec.engines.postgres.adapt import statement
        from funnelvec.engines.postgres.sync.rotating import rotation_of

        given = {"table": f"{schema}.{table}", "vector": "embedding"}
        found = connection.execute(statement("funnels"), given)
        columns = [each.name for each in found.description or ()]
        stored = [dict(zip(columns, row, strict=True)) for row in found.fetchall()]
        (mine,) = (each for each in stored if each["name"] == funnel)
        if not mine["maps"]:
            return None
        rotations = []
        for id, width in zip(mine["maps"], mine["map_dims"], strict=True):
            # In binary, as the engine reads it: a map has a million numbers.
            row = connection.cursor(binary=True).execute(statement("read_rotation"), {"id": id})
            rotations.append((rotation_of(row.fetchall()[0]), width))
        each = ", ".join(f"%(mapped_{i})s::{mine['map_type']}" for i in range(len(rotations)))
        return cls(
            tuple(rotations),
            " ".join(mine["maps"]),
            f", _fv_mapped => array[{each}], _fv_maps => %(maps)s",
        )

    def parameters(self, query: Any) -> dict[str, Any]:
        """Map a query, as `stage.parameters` gives it, to the parameters of `arguments`."""
        from funnelvec.engines.postgres.adapt import VectorParameter

        mapped = {
            f"mapped_{i}": VectorParameter(rotation.map_query(query.array, width))
            for i, (rotation, width) in enumerate(self.rotations)
        }
        return {**mapped, "maps": self.key}
