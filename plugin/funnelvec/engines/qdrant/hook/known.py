"""What the hook knows of collections, and what it was told to do with new ones."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from qdrant_client import models

from funnelvec.codes import Rotation
from funnelvec.engines.base import default_funnel
from funnelvec.engines.hubs import HubBank
from funnelvec.engines.qdrant.collection import FRESH_SECONDS
from funnelvec.engines.qdrant.definition import Definition, Vector
from funnelvec.engines.qdrant.deployment import Info
from funnelvec.engines.qdrant.hook.steps import Call, Steps
from funnelvec.engines.qdrant.maps import KeptRotation, unpacked
from funnelvec.engines.qdrant.names import DEFINITION, PointId, chunk_id
from funnelvec.engines.qdrant.reserved import DEFINITION_KEY, PART_KEY, info_of, joined
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import EngineError
from funnelvec.funnel import Funnel

__all__ = ["Hook", "Known", "Wanted"]

#: Funnels for new collections: one for all, or by collection, or by collection and vector.
Wanted: TypeAlias = Funnel | Mapping[str, Funnel | Mapping[str, Funnel]] | None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a collection; without a definition it is none of ours."""

    text: str | None
    definition: Definition | None
    info: Info | None
    read_at: float

    @property
    def vectors(self) -> Mapping[str, Vector]:
        """The vectors of the application's that have resolutions or funnels."""
        return {} if self.definition is None else self.definition.vectors

    @property
    def hidden(self) -> frozenset[str]:
        """Names of the vectors that are ours."""
        made = {
            vector.column.stored(resolution).name
            for vector in self.vectors.values()
            for resolution in vector.resolutions
        }
        return frozenset(made - set(self.vectors))

    @property
    def shown(self) -> list[str]:
        """Names of the vectors that the application made."""
        info = self.info or Info({})
        return [name for name in (*info.vectors, *info.others) if name not in self.hidden]

    @property
    def reserved(self) -> list[PointId]:
        """Points that are none of the application's."""
        return [] if self.definition is None else self.definition.reserved

    @property
    def filling(self) -> bool:
        """Whether somebody is adding a resolution, whose vector may or may not be there."""
        return any(vector.filling for vector in self.vectors.values())

    def funnel(self, collection: str, vector: Vector) -> NamedFunnel | None:
        """The funnel of a vector: the one of the default name, or the only one.

        One that does not end in the vector itself would change the scores.
        """
        base = vector.column.base
        exact = {n: f for n, f in vector.funnels.items() if f.funnel.last.resolution == base}
        found = exact.get(default_funnel(collection))
        if found is None and len(exact) == 1:
            (found,) = exact.values()
        return found


@dataclass(slots=True)
class Hook:
    """What was asked of the hook, and what it remembers between calls.

    Attributes
    ----------
    local
        Whether the client is in local mode, which warns of parameters of searches.
    relevance
        Key of the payload under which relevance is told; None where it is not asked for.
    templates
        Forms of requests that have been sent, see `funnelling`.
    banks
        What hubs are measured with, by their ids; they never change.
    """

    wanted: Wanted = None
    relevance: str | None = None
    min_relevance: float | None = None
    local: bool = False
    templates: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    banks: dict[str, HubBank] = field(default_factory=dict)
    _known: dict[str, Known] = field(default_factory=dict)
    _maps: dict[str, Rotation] = field(default_factory=dict)
    _told: set[tuple[str, str]] = field(default_factory=set)

    def find(self, collection: str, *, fresh: bool = False, detail: bool = False) -> Steps[Known]:
        """Look up a collection; `fresh` asks the server, `detail` has `Known.info` filled."""
        before = self._known.get(collection)
        old = before is None or time.monotonic() - before.read_at > FRESH_SECONDS
        found = before
        if found is None or fresh or old:
            text = yield from _definition(collection)
            found = yield from self._read(collection, text, before)
            if old:
                found = Known(found.text, found.definition, None, time.monotonic())
        if found.definition is not None and (
            (detail and found.info is None) or (fresh and found.filling)
        ):
            given = yield Call("get_collection", {"collection_name": collection})
            found = Known(found.text, found.definition, info_of(given), found.read_at)
        self._known[collection] = found
        return found

    def _read(self, collection: str, text: str | None, before: Known | None) -> Steps[Known]:
        if before is not None and before.text == text:
            return before
        definition = None if text is None else Definition.from_text(text)
        if definition is not None:
            for kept in definition.used_rotations:
                if kept.token not in self._maps:  # they never change
                    self._maps[kept.token] = yield from _map(collection, kept)
            definition = definition.mapped(self._maps)
        return Known(text, definition, None, time.monotonic())

    def forget(self, collection: str | None = None) -> None:
        """Look up a collection anew when it is next used, or all of them."""
        if collection is None:
            self._known.clear()
        else:
            self._known.pop(collection, None)

    def tell(self, collection: str, what: str) -> None:
        """Warn of something about a collection, once."""
        if (collection, what) not in self._told:
            self._told.add((collection, what))
            warnings.warn(f"collection {collection!r}: {what}", UserWarning, _caller())


def _definition(collection: str) -> Steps[str | None]:
    records: list[models.Record] = yield Call(
        "retrieve",
        {
            "collection_name": collection,
            "ids": [DEFINITION],
            "with_payload": [DEFINITION_KEY],
            "with_vectors": False,
        },
    )
    payload: Mapping[str, Any] = (records[0].payload or {}) if records else {}
    return payload.get(DEFINITION_KEY)


def kept_bytes(collection: str, token: str, parts: int) -> Steps[bytes | None]:
    """Read what is kept in reserved points; None where some of it is missing."""
    wanted: list[PointId] = [chunk_id(token, number) for number in range(parts)]
    records: list[models.Record] = yield Call(
        "retrieve",
        {
            "collection_name": collection,
            "ids": wanted,
            "with_payload": [PART_KEY],
            "with_vectors": False,
        },
    )
    return joined(wanted, {str(record.id): record.payload or {} for record in records})


def _map(collection: str, kept: KeptRotation) -> Steps[Rotation]:
    data: bytes | None = yield from kept_bytes(collection, kept.token, kept.parts)
    if data is None:
        raise EngineError(
            f"the numbers of the rotation {kept.name} are not in {collection!r} any more: another "
            "program has removed reserved points; restore them from a snapshot"
        )
    return unpacked(kept, data)


def _caller() -> int:
    """How many frames up the application is: a warning is about its line, not about ours."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in ("funnelvec", "qdrant_client", "asyncio"):
            break
        level, frame = level + 1, frame.f_back
    return level
