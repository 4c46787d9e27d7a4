"""The exact engine in memory: the oracle that every other engine is tested against.

Each stage scans or rescores by brute force with the codes that a database would store, so a
funnel loses here exactly what its codes and keeps lose, and nothing to an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

from funnelvec.engines import checks, options
from funnelvec.engines.base import Capabilities
from funnelvec.engines.keys import key_name
from funnelvec.engines.memory_table import TWINS, MemoryTable
from funnelvec.errors import Conflict, NotFound
from funnelvec.reports import Problem, Repair
from funnelvec.resolution import Resolution
from funnelvec.types import METRICS, BaseCode, ColumnKind, Metric

__all__ = ["MemoryEngine", "MemoryTable", "connect"]


def connect() -> MemoryEngine:
    """Open an empty engine; nothing outlives it."""
    return MemoryEngine()


class MemoryEngine:
    """Tables in memory; see `funnelvec.engines.base.Engine` for the contract."""

    capabilities = Capabilities(
        name="memory", codes=TWINS, metrics=METRICS, filters=True, persistent=False
    )

    def __init__(self) -> None:
        self._tables: dict[str, MemoryTable] = {}
        # A database keeps one function per funnel, so their names are unique across tables.
        self._funnel_owners: dict[str, str] = {}

    def table(self, name: str, *, vector: str | None = None) -> MemoryTable:
        """Open a table."""
        table = self._tables.get(checks.check_name(name, "the name of a table"))
        if table is None:
            known = ", ".join(sorted(self._tables)) or "none"
            raise NotFound(f"table {name!r} does not exist (tables: {known}); make it with create")
        if vector is not None and checks.check_name(vector, "the name of a column") != table.vector:
            raise NotFound(f"table {name!r} has no vector column {vector!r}, but {table.vector!r}")
        return table

    def create(
        self,
        name: str,
        *,
        dims: int,
        vector: str = "embedding",
        dtype: BaseCode = "f32",
        metric: Metric = "cosine",
        id: str | Sequence[str] = "id",
        id_kind: ColumnKind | Sequence[ColumnKind] = "integer",
        columns: Mapping[str, ColumnKind] | None = None,
    ) -> MemoryTable:
        """Create an empty table."""
        checks.check_name(name, "the name of a table")
        base = Resolution(checks.check_dims(dims), checks.check_dtype(dtype))
        chosen = checks.check_metric(metric)
        key, others = checks.check_schema(vector=vector, id=id, id_kind=id_kind, columns=columns)
        if name in self._tables:
            raise Conflict(f"table {name!r} exists already; open it with table({name!r})")
        table = MemoryTable(
            name,
            base=base,
            vector=vector,
            metric=chosen,
            key=key_name(list(key)),
            kinds={**key, **others},
            funnel_owners=self._funnel_owners,
        )
        self._tables[name] = table
        return table

    def problems(self) -> list[Problem]:
        """Nothing: names do not change here behind a funnel's back."""
        return []

    def repair(self, *, dry_run: bool = False) -> list[Repair]:
        """Nothing to do."""
        options.check_flag(dry_run, "dry_run")
        return []

    def close(self) -> None:
        """Forget all tables."""
        self._tables.clear()
        self._funnel_owners.clear()

    def __enter__(self) -> MemoryEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
