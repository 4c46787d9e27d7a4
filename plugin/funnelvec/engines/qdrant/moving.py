"""The part of a table in Qdrant that adds vectors by copying, where the server is too old."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from funnelvec.engines import options
from funnelvec.engines.qdrant.client import ClientDeployment
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.copying import Copy, target_of
from funnelvec.engines.qdrant.definition import Definition, Vector
from funnelvec.engines.qdrant.failing import errors
from funnelvec.engines.qdrant.features import ADD_VECTOR
from funnelvec.engines.qdrant.vectors import Stored
from funnelvec.engines.together import OneByOne
from funnelvec.errors import CapabilityError, Conflict
from funnelvec.funnel import Funnel
from funnelvec.reports import FillingStep
from funnelvec.resolution import Resolution
from funnelvec.types import Metric, Storage

__all__ = ["QdrantMoving"]


class QdrantMoving(OneByOne):
    """What `add_resolution`, `backfill` and `drop_resolution` do on servers before 1.18."""

    name: str
    _collection: Collection

    if TYPE_CHECKING:

        def _vector(self, *, fresh: bool = False) -> Vector: ...
        def backfill(self) -> int: ...

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
        """Store every resolution that a funnel needs; a copy is made once for all of them."""
        options.check_flag(concurrently, "concurrently")
        super().add_resolutions(
            funnel,
            index=index,
            allow_rewrite=allow_rewrite,
            metric=metric,
            storage=storage,
            concurrently=concurrently or not self._adds_in_place,
        )
        if not concurrently and not self._adds_in_place:
            self.backfill()

    @property
    def _adds_in_place(self) -> bool:
        version = self._collection.deployment.version
        return version is None or version >= ADD_VECTOR

    def _check_addable(self, resolution: Resolution, *, allow_rewrite: bool) -> None:
        """Refuse a copy that nobody has allowed."""
        if self._adds_in_place or allow_rewrite:
            return
        raise CapabilityError(
            f"adding {resolution} in place needs Qdrant {ADD_VECTOR}, and this server is "
            f"{self._collection.deployment.version}; upgrade it, or pass allow_rewrite=True, which "
            f"copies {self.name!r} into a new collection, removes the old one and makes the name "
            "an alias"
        )

    def _check_droppable(self, resolution: Resolution) -> None:
        """Refuse what the server cannot do before anything is changed."""
        version = self._collection.deployment.version
        if version is not None:
            version.require(
                ADD_VECTOR,
                f"removing {resolution} from a collection",
                "upgrade the server, or create the collection anew",
            )

    def _missing(self, definition: Definition) -> dict[Stored, dict[str, Any]]:
        """Resolutions that are known and have no vector in the collection, and their indexes."""
        there = self._collection.info.vectors
        return {
            stored: kept.graph
            for vector in definition.vectors.values()
            for resolution, kept in vector.resolutions.items()
            if (stored := vector.column.stored(resolution)).name not in there
        }

    def _copied(self, report: Callable[[FillingStep], None]) -> int:
        """Make or finish the copy that missing vectors take; return how many points it has."""
        collection = self._collection
        collection.renew()
        missing = self._missing(collection.definition(fresh=True))
        if self._adds_in_place or not missing:
            return 0
        deployment = collection.deployment
        assert isinstance(deployment, ClientDeployment)  # Edge and local mode add in place
        known = deployment.collections()

        def begin(definition: Definition) -> Definition:
            if definition.copying is not None:
                return definition
            return replace(definition, copying=target_of(self.name, known))

        definition = collection.change(begin, copier=True)
        target = definition.copying or ""
        copy = Copy(deployment.client, self.name, target, missing, collection.reserved)
        what, seen = " ".join(str(stored.resolution) for stored in missing), [0]

        def told(done: int, total: int) -> None:
            seen[0] = done
            report(FillingStep(None, what, "copying", done, total))

        with errors():
            copy.begin()
            copy.fill(told)
            copy.catch_up(lambda _: report(FillingStep(None, what, "comparing", seen[0], seen[0])))
            self._finish(definition, target)
            copy.switch()
        collection.renew()
        collection.definition(fresh=True)
        return seen[0]

    def _finish(self, definition: Definition, target: str) -> None:
        """Write into the target what is to be known of it; who is stopped from now on has it."""
        deployment = self._collection.deployment
        vectors = {
            name: replace(
                vector,
                resolutions={r: replace(k, ready=True) for r, k in vector.resolutions.items()},
            )
            for name, vector in definition.vectors.items()
        }
        whole = replace(definition, vectors=vectors, copying=None).next()
        deployment.write(target, whole.to_text(), version=whole.version)
        kept = Definition.from_text(deployment.read(target) or "")
        if kept.copying is not None:
            raise Conflict(
                f"the copy {target!r} is not that of {self.name!r} as it is now; remove it, then "
                "backfill() makes it anew"
            )

    def _abandon(self, resolution: Resolution) -> bool:
        """Give up a resolution whose copy is not finished; tell whether that is what it was."""
        collection, vector = self._collection, self._vector(fresh=True)
        missing = {stored.resolution for stored in self._missing(collection.definition())}
        if self._adds_in_place or resolution not in missing:
            return False
        target = collection.definition().copying

        def forget(definition: Definition) -> Definition:
            rest = {r: k for r, k in vector.resolutions.items() if r != resolution}
            found = definition.with_vector(replace(vector, resolutions=rest))
            return replace(found, copying=None)

        collection.change(forget, copier=True)
        if target is not None:
            assert isinstance(collection.deployment, ClientDeployment)
            with errors():
                collection.deployment.client.delete_collection(target)
        return True
