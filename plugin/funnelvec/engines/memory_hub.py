"""Adding and dropping the hub column of a table in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from funnelvec.engines import options
from funnelvec.engines.hubs import HubBank
from funnelvec.errors import Conflict, NotFound

if TYPE_CHECKING:
    from funnelvec.engines.store import Store

__all__ = ["MemoryHub"]


class MemoryHub:
    """`add_hub` and `drop_hub`; see `funnelvec.engines.base.Table`."""

    name: str
    vector: str
    _store: Store

    def add_hub(
        self,
        *,
        sample: int = options.HUB_SAMPLE,
        allow_rewrite: bool = False,
        concurrently: bool = False,
    ) -> str:
        """Measure how much of a hub every row is; nobody has to wait for that here."""
        sample = options.check_hub_sample(sample)
        options.check_flag(allow_rewrite, "allow_rewrite")
        options.check_flag(concurrently, "concurrently")
        column, store = f"{self.vector}_hub", self._store
        if store.hub is not None:
            raise Conflict(f"{self.name}.{self.vector} has a hub column already; drop_hub() first")
        if column in store.kinds:
            raise Conflict(f"the hub column needs the name {column!r}, which is taken")
        vectors = store.codes[store.base]
        store.set_hub(HubBank.draw(store.keys, vectors, sample=sample))
        return column

    def drop_hub(self) -> None:
        """Forget the hubs; funnels take the newest calibration that has no use for them."""
        if self._store.hub is None:
            raise NotFound(f"{self.name}.{self.vector} has no hub column; add_hub() makes one")
        self._store.set_hub(None)
