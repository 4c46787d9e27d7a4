"""A collection with its definition: read when it is old, changed by one writer at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from funnelvec.engines.qdrant.definition import Definition, Vector
from funnelvec.engines.qdrant.deployment import Deployment, Info
from funnelvec.engines.qdrant.names import DEFINITION
from funnelvec.engines.qdrant.vectors import DISTANCES, Column
from funnelvec.errors import CapabilityError, Conflict, NotFound
from funnelvec.resolution import Resolution
from funnelvec.types import ColumnKind

__all__ = ["Collection"]

#: Seconds after which a search looks whether another client has changed the definition.
FRESH_SECONDS = 5.0


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
        self._read_at = 0.0
        #: What has been made of the definition and of `info`; a new one when either is another.
        self.made: dict[Any, Any] = {}

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
        old = time.monotonic() - self._read_at > FRESH_SECONDS
        if self._definition is None or fresh or old:
            text = self.deployment.read(self.name)
            if text is None or text != self._text or self._definition is None:
                found = self._derived() if text is None else Definition.from_text(text)
                if found != self._definition:
                    self._definition, self.made = found, {}
                self._text = text
            self._read_at = time.monotonic()
        return self._definition

    def change(self, how: Callable[[Definition], Definition]) -> Definition:
        """Change the definition, from what is kept now.

        Raises
        ------
        Conflict
            If another client has changed it at the same time; nothing of `how` is kept then.
        """
        before = self.definition(fresh=True)
        changed = how(before)
        if changed is before:
            return before
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
        kinds: dict[str, ColumnKind] = dict(self.info.kinds)
        first, _ = self.deployment.scroll(self.name, filter=None, limit=1, offset=None, vectors=())
        texts = bool(first) and isinstance(first[0].id, str)
        kinds["id"] = "uuid" if texts else "integer"
        return Definition(key="id", kinds=kinds, vectors={}, foreign=True)

    def vector(self, wanted: str | None) -> Vector:
        """Find a vector of the application's; None where there is only one.

        Raises
        ------
        NotFound
            If it does not exist, or there are several and none was named.
        CapabilityError
            If it is compared by a distance that has no metric here.
        """
        definition, made = self.definition(), self.made
        found = made.get(("vector", wanted))
        if found is None:
            found = made["vector", wanted] = self._found(definition.vectors, wanted)
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
        return [DEFINITION]
