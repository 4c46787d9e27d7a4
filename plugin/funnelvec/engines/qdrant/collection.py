"""A collection with its definition: read when it is old, changed by one writer at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec.codes import Rotation
from funnelvec.codes.rotations import is_random
from funnelvec.engines.hubs import HubBank
from funnelvec.engines.qdrant.banks import KeptHub, unpacked_bank
from funnelvec.engines.qdrant.conditions import without_ids
from funnelvec.engines.qdrant.definition import Definition, Vector
from funnelvec.engines.qdrant.deployment import Deployment, Info
from funnelvec.engines.qdrant.indexes import index_schema
from funnelvec.engines.qdrant.maps import KeptRotation, unpacked
from funnelvec.engines.qdrant.names import PointId, payload_path
from funnelvec.engines.qdrant.vectors import DISTANCES, Column
from funnelvec.errors import CapabilityError, Conflict, EngineError, FilterError, NotFound
from funnelvec.resolution import Resolution
from funnelvec.types import ColumnKind

__all__ = ["FRESH_SECONDS", "Collection", "Page"]

#: Seconds after which a search looks whether another client has changed the definition.
FRESH_SECONDS = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Of `count` points those that have a vector, (len(ids), dims)."""

    count: int
    ids: list[PointId]
    matrix: npt.NDArray[np.float32]


class Collection:
    """What all tables over one collection share.

    Raises
    ------
    NotFound
        If the collection does not exist.
    """

    def __init__(self, deployment: Deployment, name: str) -> None:
        self.deployment, self.name = deployment, name
        self.info = self._info()
        self._definition: Definition | None = None
        self._text: str | None = None
        self._old_at = -1.0
        #: What has been made of the definition and of `info`; a new one when either is another.
        self.made: dict[Any, Any] = {}
        #: Whether there was no row to tell by what keys hold.
        self._guessed = False
        self._maps: dict[str, Rotation] = {}  # by token: they never change
        self._banks: dict[str, HubBank] = {}  # by id: nor do they
        #: Of many searches that find the definition old, one reads it.
        self._reading = threading.RLock()
        #: Changes of this process wait for each other; those of others are a `Conflict`.
        self._changing = threading.RLock()

    def _info(self) -> Info:
        found = self.deployment.info(self.name)
        if found is None:
            known = ", ".join(sorted(self.deployment.collections())) or "none"
            raise NotFound(
                f"table {self.name!r} does not exist (collections: {known}); make it with create"
            )
        return found

    def renew(self) -> None:
        """Look again at what the collection is."""
        self.info = self._info()
        self.made = {}

    def definition(self, *, fresh: bool = False) -> Definition:
        """What funnelvec knows of the collection; `fresh` asks for what is kept now."""
        if fresh or time.monotonic() > self._old_at:
            with self._reading:
                if fresh or time.monotonic() > self._old_at:
                    self._read()
        assert self._definition is not None  # it was read at least once
        return self._definition

    def _read(self) -> None:
        text = self.deployment.read(self.name)
        if text is None or text != self._text or self._foreign:
            kept = self._derived() if text is None else self._whole(text)
            found = self._completed(kept)
            if found != self._definition:
                # In this order: what a thread has put into the old `made` is not found any more.
                self._definition = found
                self.made = {}
            self._text = text
        self._old_at = time.monotonic() + FRESH_SECONDS

    @property
    def _foreign(self) -> bool:
        """Whether what is known depends on more than what is kept."""
        return self._definition is None or self._definition.foreign

    def _whole(self, text: str) -> Definition:
        """The definition with the maps that its resolutions take."""
        found = Definition.from_text(text)
        return found.mapped({kept.token: self.map_of(kept) for kept in found.used_rotations})

    def pages(self, filter: models.Filter, vector: str, *, size: int) -> Iterator[Page]:
        """Read a vector of all points that match, at most `size` at once, while others write."""
        limits, offset = self.info.limits, None
        size = min(size, limits.rows, limits.points)
        while True:
            page, offset = self.deployment.scroll(
                self.name, filter=filter, limit=size, offset=offset, vectors=[vector]
            )
            some = [record for record in page if record.vectors.get(vector) is not None]
            matrix = np.asarray([record.vectors[vector] for record in some], np.float32)
            yield Page(len(page), [record.id for record in some], matrix)
            if offset is None:
                return

    def map_of(self, kept: KeptRotation) -> Rotation:
        """Read the numbers of a rotation, once.

        Raises
        ------
        EngineError
            If they are gone, or damaged.
        """
        if kept.token not in self._maps:
            data = self.deployment.read_bytes(self.name, kept.token, kept.parts)
            if data is None:
                raise EngineError(
                    f"the numbers of the rotation {kept.name} are not in {self.name!r} any more: "
                    "another program has removed reserved points; restore them from a snapshot"
                )
            self._maps[kept.token] = unpacked(kept, data)
        return self._maps[kept.token]

    def bank(self, hub: KeptHub) -> HubBank:
        """Read what hubs are measured with, once.

        Raises
        ------
        EngineError
            If it is gone, or damaged.
        """
        if hub.id not in self._banks:
            data = self.deployment.read_bytes(self.name, hub.id, hub.parts)
            self._banks[hub.id] = unpacked_bank(hub, data)
        return self._banks[hub.id]

    def rotation(self, vector: Vector, resolution: Resolution) -> Rotation | None:
        """The fitted rotation of a resolution, None where it has none.

        Raises
        ------
        NotFound
            If it names one that was never fitted.
        """
        name = resolution.rotation
        if name is None or is_random(name):
            return None
        kept = vector.rotations.get(name)
        if kept is None or not kept.ready:
            known = ", ".join(sorted(n for n, r in vector.rotations.items() if r.ready)) or "none"
            raise NotFound(
                f"the column has no rotation {name!r} (it has: {known}); fit_rotation({name!r}) "
                "fits it, and ~random needs no fitting"
            )
        return self.map_of(kept)

    def check_indexed(self, columns: Iterable[str]) -> None:
        """Refuse filters on columns whose index somebody has removed: they read every point.

        Raises
        ------
        FilterError
            If there is such a column.
        """
        kinds = self.definition().filterable
        wanted = {payload_path(column): index_schema(kinds[column]) for column in columns}
        for path, schema in wanted.items():
            if not self.info.tells_indexes or path in self.info.kinds:
                continue
            if not isinstance(schema, models.PayloadSchemaType):  # JSON has none
                continue
            self.renew()  # somebody may have made it meanwhile
            if path not in self.info.kinds:
                raise FilterError(
                    f"collection {self.name!r} has no payload index of {path!r} any more, so this "
                    f"filter would go through every point; make it again: "
                    f"client.create_payload_index({self.name!r}, {path!r}, {schema.value!r})"
                )

    def check_free(self, what: str) -> None:
        """Refuse to change a collection that is being copied.

        Raises
        ------
        Conflict
            If it is.
        """
        self.definition().check_free(self.name, what)

    def change(
        self, how: Callable[[Definition], Definition], *, copier: bool = False
    ) -> Definition:
        """Change the definition, from what is kept now; `copier`: also while it is being copied.

        Raises
        ------
        Conflict
            If another client has changed it at the same time; nothing of `how` is kept then.
        """
        with self._changing:
            return self._changed(how, copier=copier)

    def _changed(self, how: Callable[[Definition], Definition], *, copier: bool) -> Definition:
        before = self.definition(fresh=True)
        if not copier:
            self.check_free("changes")
        changed = how(before)
        if changed is before:
            return before
        if self._guessed:  # whoever reads it next may know more
            kinds = {name: kind for name, kind in changed.kinds.items() if name != "id"}
            changed = replace(changed, kinds=kinds)
        changed = changed.next()
        self.deployment.write(self.name, changed.to_text(), version=changed.version)
        kept = self.definition(fresh=True)
        if kept.token != changed.token:
            raise Conflict(
                f"another client has changed the definition of {self.name!r} at the same time, so "
                "this change was not made; make it again"
            )
        return kept

    def _derived(self) -> Definition:
        """What can be said of a collection that another program has made."""
        return Definition(key="id", kinds={}, vectors={}, foreign=True)

    def _completed(self, kept: Definition) -> Definition:
        """Add the columns that are payload fields with an index, and what keys hold.

        Nobody could say when the hook made the collection, which had no row and no index then.
        """
        self._guessed = False
        if not kept.foreign:
            return kept
        own = {v.hub.path for v in kept.vectors.values() if v.hub is not None}
        indexed = {path: kind for path, kind in self.info.kinds.items() if path not in own}
        kinds: dict[str, ColumnKind] = {**indexed, **kept.kinds}
        if "id" not in kept.kinds:
            first, _ = self.deployment.scroll(
                self.name, filter=without_ids(kept.reserved), limit=1, offset=None, vectors=()
            )
            self._guessed = not first
            kinds["id"] = "uuid" if first and isinstance(first[0].id, str) else "integer"
        return replace(kept, kinds=kinds)

    def vector(self, wanted: str | None) -> Vector:
        """Find a vector of the application's; None where there is only one.

        Raises
        ------
        NotFound
            If it does not exist, or there are several and none was named.
        CapabilityError
            If it is compared by a distance that has no metric here.
        """
        self.definition()  # looks for changes from time to time
        made = self.made  # before the definition: what is made of an old one stays in the old
        found = made.get(("vector", wanted))
        if found is None:
            assert self._definition is not None  # it was read just now
            found = made["vector", wanted] = self._found(self._definition.vectors, wanted)
        return cast("Vector", found)

    def _found(self, kept: Mapping[str, Vector], wanted: str | None) -> Vector:
        own = {
            vector.column.stored(resolution).name
            for vector in kept.values()
            for resolution in vector.resolutions
        } - set(kept)
        there: Sequence[str] = [name for name in self.info.vectors if name not in own]
        known = ", ".join(map(repr, there)) or "none"
        if wanted is None:
            if len(kept or there) != 1:
                raise NotFound(
                    f"collection {self.name!r} has the vectors {known}; say which by vector=..."
                )
            wanted = next(iter(kept or there))
        if wanted not in there:
            raise NotFound(f"table {self.name!r} has no vector column {wanted!r}, but {known}")
        return kept.get(wanted) or Vector(self._column(wanted))

    def _column(self, name: str) -> Column:
        params = self.info.vectors[name]
        metric = next((m for m, each in DISTANCES.items() if each == params.distance), None)
        datatype = "float32" if params.datatype is None else params.datatype.value
        if metric is None or datatype not in ("float32", "float16"):
            raise CapabilityError(
                f"the vector {name!r} of {self.name!r} is of {datatype}, compared by "
                f"{params.distance.value}; funnels take float32 and float16, compared by "
                f"{', '.join(each.value for each in DISTANCES.values())}"
            )
        return Column(
            name, Resolution(params.size, "f16" if datatype == "float16" else "f32"), metric
        )

    @property
    def reserved(self) -> list[int | str]:
        """Points that are no rows."""
        return self.definition().reserved
