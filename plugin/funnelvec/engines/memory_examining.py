"""The part of a table in memory that draws samples and examines them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from funnelvec.doctor.diagnosis import Diagnosis
from funnelvec.doctor.examine import STEPS, examine
from funnelvec.doctor.limits import check, check_whole
from funnelvec.engines import options
from funnelvec.engines.base import Progress
from funnelvec.engines.progress import reporting
from funnelvec.engines.store import Store
from funnelvec.reports import Sample

__all__ = ["MemoryExamining"]


class MemoryExamining:
    """`sample` and `doctor`; see `funnelvec.engines.base.Table`."""

    name: str
    vector: str
    _store: Store

    if TYPE_CHECKING:  # what the table has and `doctor` uses

        def _with_funnels(self, found: Diagnosis, *, seed: int) -> Diagnosis: ...

    def sample(self, count: int = 10_000, *, seed: int = 0) -> Sample:
        """Draw rows at random."""
        store, rows = self._store, len(self._store)
        count, _, seed = check(sample=check_whole(count, "count", 1, 1_000_000), seed=seed, least=1)
        picked = np.random.default_rng(seed).choice(rows, min(count, rows), replace=False)
        return Sample(
            ids=tuple(store.keys[row] for row in picked),
            vectors=store.codes[store.base][picked].astype(np.float32),
            rows=rows,
            exact=True,
            hubs=None if store.hub is None else store.hubs[picked],
        )

    def doctor(
        self,
        *,
        sample: int = 10_000,
        queries: int = 500,
        seed: int = 0,
        funnels: bool = True,
        progress: Progress = False,
    ) -> Diagnosis:
        """Examine a sample of the vectors."""
        check(sample=sample, queries=queries, seed=seed)
        options.check_progress(progress)
        options.check_flag(funnels, "funnels")
        with reporting(progress, STEPS + 1, "examining", unit="steps") as tell:
            drawn = self.sample(sample, seed=seed)
            tell(1)
            found = examine(
                drawn.vectors,
                metric=self._store.metric,
                sample=sample,
                queries=queries,
                seed=seed,
                ids=drawn.ids,
                code=self._store.base_code,
                table=self.name,
                vector=self.vector,
                rows=drawn.rows,
                rows_exact=drawn.exact,
                progress=lambda done, total: tell(done + 1),
            )
            return self._with_funnels(found, seed=seed) if funnels else found
