"""The part of a table in Qdrant that measures how much of a hub every row is.

The number stands in the payload, where a formula finds it. The bank is kept beside the points, as
rotations are: between two changes of the definition, of which the first says what points it takes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from funnelvec.engines import options
from funnelvec.engines.hubs import HubBank, hashed
from funnelvec.engines.qdrant import names
from funnelvec.engines.qdrant.banks import KeptHub, hub_column, packed_bank
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.conditions import holding_filter, unmeasured_filter
from funnelvec.engines.qdrant.definition import Vector
from funnelvec.engines.qdrant.deployment import BATCH
from funnelvec.errors import Conflict, FunnelvecError, NotFound
from funnelvec.reports import FillingStep

__all__ = ["QdrantHubbing"]


class QdrantHubbing:
    """`add_hub` and `drop_hub`; see `funnelvec.engines.base.Table`."""

    name: str
    vector: str
    _collection: Collection

    if TYPE_CHECKING:

        def _vector(self, *, fresh: bool = False) -> Vector: ...
        def _change(self, how: Callable[[Vector], Vector]) -> None: ...
        def _ids(self) -> list[names.PointId]: ...
        def _keys(self, ids: Sequence[names.PointId]) -> list[Any]: ...
        def _read_vectors(
            self, ids: Sequence[names.PointId], name: str
        ) -> dict[names.PointId, npt.NDArray[np.float32]]: ...

    def add_hub(
        self,
        *,
        sample: int = options.HUB_SAMPLE,
        allow_rewrite: bool = False,
        concurrently: bool = False,
    ) -> str:
        """Measure how much of a hub every row is, while others search and write.

        With `concurrently` it is left to `backfill`.
        """
        sample = options.check_hub_sample(sample)
        options.check_flag(allow_rewrite, "allow_rewrite")
        options.check_flag(concurrently, "concurrently")
        column, deployment = hub_column(self.vector), self._collection.deployment
        self._check_unhubbed(column)
        stale = self._vector().hub
        if stale is not None:  # of somebody who was stopped
            self._remove_hub(stale)
        bank = self._drawn_bank(sample)
        content = packed_bank(bank)
        parts = deployment.parts(len(content))
        hub = KeptHub(column, bank.id, bank.mean, len(bank.vectors), parts)
        with self._writing_hub(hub):
            deployment.keep_bytes(self.name, hub.id, content)
            deployment.add_number(self.name, hub)
        if not concurrently:
            self._measure_rows(BATCH, lambda step: None)
        return column

    def drop_hub(self) -> None:
        """Forget the hubs; funnels take the newest calibration that has no use for them."""
        hub = self._vector(fresh=True).hub
        if hub is None:
            raise NotFound(f"{self.name}.{self.vector} has no hub column; add_hub() makes one")
        self._remove_hub(hub)

    def hub_fault(self) -> str | None:
        """What is wrong with the hub column, if there is one and something is."""
        hub = self._vector(fresh=True).hub
        if hub is None or hub.state == "filling":
            return None
        if hub.state != "ready":
            doing = "added" if hub.state == "writing" else "dropped"
            return (
                f"the hub column {hub.column} is being {doing}; if nobody is at it any more, "
                "drop_hub() takes away what is there of it"
            )
        lacking = unmeasured_filter(hub.path, self.vector, self._collection.reserved)
        count = self._collection.deployment.count(self.name, lacking)
        if not count:
            return None
        return (
            f"{count} rows have no {hub.column}, as another program has written them or their "
            "payload; they count as ordinary ones until repair() or backfill() measures them"
        )

    def mend_hub(self, *, dry_run: bool) -> bool:
        """Measure the rows that have no number, if that is what is wrong."""
        hub = self._vector(fresh=True).hub
        if hub is None or hub.state != "ready":
            return False
        return dry_run or self._measure_rows(BATCH, lambda step: None) > 0

    def _check_unhubbed(self, column: str) -> None:
        hub = self._vector(fresh=True).hub
        if hub is not None and hub.measures:
            raise Conflict(f"{self.name}.{self.vector} has a hub column already; drop_hub() first")
        definition = self._collection.definition()
        path = names.payload_path(column)
        held = hub is None and self._collection.deployment.count(
            self.name, holding_filter(path, definition.reserved)
        )
        if held or column in definition.kinds:
            raise Conflict(f"the hub column needs the name {column!r}, which is taken")

    def _drawn_bank(self, sample: int) -> HubBank:
        """Draw a bank by the hash of keys, as every engine does; its places are by point."""
        ids = self._ids()
        keys = dict(zip(ids, self._keys(ids), strict=True))
        first = sorted(ids, key=lambda id: hashed(keys[id]))[: 2 * sample + 100]
        read = self._read_vectors(first, self._vector().column.name)
        width = self._vector().column.base.dims
        matrix = np.array(list(read.values()), np.float32).reshape(-1, width)
        bank = HubBank.draw([keys[id] for id in read], matrix, sample=sample)
        places = {id: bank.places[keys[id]] for id in read if keys[id] in bank.places}
        return replace(bank, places=places)

    @contextlib.contextmanager
    def _writing_hub(self, hub: KeptHub) -> Iterator[None]:
        """Announce a hub whose bank is written meanwhile, then have every write bring numbers."""

        def announce(vector: Vector) -> Vector:
            if vector.hub is not None:
                raise Conflict(f"another client has added a hub column to {self.name!r} meanwhile")
            return vector.hubbed(hub)

        self._change(announce)
        try:
            yield
            self._set_state(hub, "filling")
        except BaseException:
            with contextlib.suppress(FunnelvecError):  # the first error says more
                self._remove_hub(hub)
            raise

    def _set_state(self, hub: KeptHub, state: Any) -> None:
        def change(vector: Vector) -> Vector:
            if vector.hub is None or vector.hub.id != hub.id:
                raise Conflict(
                    f"another client has dropped the hub column of {self.name!r} meanwhile"
                )
            return vector.hubbed(replace(vector.hub, state=state))

        self._change(change)

    def _remove_hub(self, hub: KeptHub) -> None:
        """Take the numbers and the bank away; what is stopped on the way goes on from here."""
        deployment = self._collection.deployment
        self._set_state(hub, "dropping")
        deployment.drop_number(self.name, hub, self._collection.reserved)
        deployment.drop_bytes(self.name, hub.id, hub.parts)
        self._change(lambda vector: vector.hubbed(None))

    def _measure_rows(self, size: int, report: Callable[[FillingStep], None]) -> int:
        """Measure the rows that have no number: those from before, and what others have written."""
        hub, base = self._vector(fresh=True).hub, self.vector
        if hub is None or not hub.measures:
            return 0
        deployment, bank = self._collection.deployment, self._collection.bank(hub)
        lacking = unmeasured_filter(hub.path, base, self._collection.reserved)
        total, done = deployment.count(self.name, lacking), 0
        for page in self._collection.pages(lacking, base, size=size) if total else ():
            if page.ids:
                found = bank.measure(page.ids, page.matrix).tolist()
                deployment.set_numbers(self.name, hub, dict(zip(page.ids, found, strict=True)))
            done += len(page.ids)
            report(FillingStep(None, hub.column, "filling", done, max(total, done)))
        if hub.state == "filling":
            self._set_state(hub, "ready")
        return done
