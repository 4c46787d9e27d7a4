"""What a deployment of Qdrant has to offer, in the client's models: server, local mode or Edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec.engines.qdrant.banks import KeptHub
from funnelvec.engines.qdrant.compile import NO_LIMITS, Limits, Template
from funnelvec.engines.qdrant.features import Version
from funnelvec.engines.qdrant.names import PointId
from funnelvec.types import ColumnKind

__all__ = [
    "BATCH",
    "Deployment",
    "Found",
    "Info",
    "Names",
    "Points",
    "Record",
    "Scored",
    "Search",
    "Told",
]

#: Points in one write: larger ones make the log slow to read when a collection is opened.
BATCH = 1_000


class Points(NamedTuple):
    """Points to be written: every vector (n, size) by name, and which of the points have it."""

    ids: Sequence[PointId]
    vectors: Mapping[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]
    payloads: Sequence[Mapping[str, Any]]
    #: Vectors of other programs that points had and keep.
    kept: Sequence[Mapping[str, Any]] = ()

    def vector(self, row: int) -> dict[str, Any]:
        """All vectors of one point, as lists."""
        found: dict[str, Any] = dict(self.kept[row]) if self.kept else {}
        for name, (matrix, there) in self.vectors.items():
            if there[row]:
                found[name] = matrix[row].tolist()
        return found


class Record(NamedTuple):
    """A point that was read; the unnamed vector has the name ``""``."""

    id: PointId
    payload: dict[str, Any]
    vectors: dict[str, Any]


class Scored(NamedTuple):
    """A point that a search found, with Qdrant's score."""

    id: PointId
    score: float
    payload: dict[str, Any]


class Found(Protocol):
    """A point that a search found, as the deployment has it: without payload it may have None."""

    @property
    def id(self) -> Any:
        """A whole number, or a UUID in either form."""

    @property
    def score(self) -> float:
        """Qdrant's score."""

    @property
    def payload(self) -> Any:
        """What was asked for."""


#: Runs a search for the vectors of its stages, float32, and the threshold of the last.
Search: TypeAlias = Callable[[Sequence[npt.NDArray[np.float32]], float | None], Sequence[Found]]


@dataclass(frozen=True, slots=True)
class Info:
    """What a collection is.

    Attributes
    ----------
    vectors
        Its dense vectors of one row each, by name.
    others
        Names of vectors of other forms: sparse, or several rows.
    kinds
        Kinds of the payload fields that have an index.
    tells_indexes
        Whether these are all: only servers say.
    """

    vectors: Mapping[str, models.VectorParams]
    others: tuple[str, ...] = ()
    kinds: Mapping[str, ColumnKind] = field(default_factory=dict)
    limits: Limits = NO_LIMITS
    shards: int = 1
    tells_indexes: bool = False


#: Is told how many seconds something has taken so far.
Told: TypeAlias = Callable[[float], object]

#: Names of vectors to read; none of them where it is empty.
Names: TypeAlias = Sequence[str]


class Deployment(Protocol):
    """Collections of points; errors are funnelvec's."""

    name: str
    persistent: bool
    #: How far scores of one row may lie apart from call to call, over the larger of 1 and it.
    slack: float

    @property
    def one_writer(self) -> str | None:
        """Why writes come one after the other; None where a server takes several at once."""

    @property
    def version(self) -> Version | None:
        """Of the server; None where there is none, but every feature."""

    def collections(self) -> list[str]:
        """Names of all collections."""

    def info(self, collection: str) -> Info | None:
        """What a collection is, or None if it does not exist."""

    def create(
        self,
        collection: str,
        vectors: Mapping[str, models.VectorParams],
        *,
        indexes: Mapping[str, ColumnKind],
        unique: str | None,
        definition: str,
    ) -> None:
        """Make a collection, with indexes on payload paths, and keep its first definition.

        `unique` is the path, if there is one, of which no two points have the same value.
        """

    def add_vector(self, collection: str, name: str, params: models.VectorParams) -> None:
        """Add a vector to a collection; nothing happens where it is there already."""

    def configure(self, collection: str, name: str, params: models.VectorParams) -> None:
        """Change the index of a vector."""

    def drop_vector(self, collection: str, name: str) -> None:
        """Remove a vector of all points."""

    def upsert(self, collection: str, points: Points) -> None:
        """Write whole points."""

    def fill(self, collection: str, points: Points) -> None:
        """Write vectors of points that do not have them yet."""

    def delete(self, collection: str, ids: Sequence[PointId]) -> None:
        """Remove points."""

    def add_number(self, collection: str, hub: KeptHub) -> None:
        """Have an index on a number of payloads that is ours."""

    def set_numbers(self, collection: str, hub: KeptHub, numbers: Mapping[PointId, float]) -> None:
        """Write a number into the payload of points that have none there yet."""

    def drop_number(self, collection: str, hub: KeptHub, but: Sequence[PointId]) -> None:
        """Remove a number of all payloads but those of some points, and its index."""

    def retrieve(
        self, collection: str, ids: Sequence[PointId], *, payload: bool, vectors: Names
    ) -> list[Record]:
        """Read points by id, in any order; those that do not exist are left out."""

    def query(self, collection: str, requests: Sequence[models.QueryRequest]) -> list[list[Scored]]:
        """Run searches."""

    def prepare(self, collection: str, template: Template) -> Search:
        """Have a search ready that is asked over and over."""

    def count(self, collection: str, filter: models.Filter | None) -> int:
        """Count the points that match, exactly."""

    def scroll(
        self,
        collection: str,
        *,
        filter: models.Filter | None,
        limit: int,
        offset: PointId | None,
        vectors: Names,
    ) -> tuple[list[Record], PointId | None]:
        """Read points in the order of ids, without payload, and where the next begin."""

    def read(self, collection: str) -> str | None:
        """The definition, or None where there is none."""

    def write(self, collection: str, text: str, *, version: int) -> None:
        """Keep a definition if the version before `version` stands, or none at version 1.

        The caller reads it again to see whose was kept.
        """

    def read_load(self, collection: str, load: str) -> str | None:
        """What is remembered of a load."""

    def write_load(self, collection: str, load: str, text: str) -> None:
        """Remember how far a load has come."""

    def parts(self, size: int) -> int:
        """How many reserved points so many bytes take."""

    def keep_bytes(self, collection: str, token: str, content: bytes) -> None:
        """Keep bytes with a collection."""

    def read_bytes(self, collection: str, token: str, parts: int) -> bytes | None:
        """Read what `keep_bytes` kept; None where some of it is missing."""

    def drop_bytes(self, collection: str, token: str, parts: int) -> None:
        """Forget what `keep_bytes` kept, if it is there."""

    def settle(self, collection: str, told: Told = ...) -> None:
        """Wait until indexes are built, or build them; `told` hears the seconds it has taken."""

    def close(self) -> None:
        """Release what was opened here."""
