"""Whoever takes part in `bench peers`: what it is built of, how its knobs turn, what it reads."""

from __future__ import annotations

import contextlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from funnelvec import entry
from funnelvec.bench import stage
from funnelvec.bench.knobs import Knobs, Setting
from funnelvec.bench.mapping import Mapper
from funnelvec.bench.recipes import Recipe

if TYPE_CHECKING:
    from funnelvec.bench.data import Dataset

__all__ = ["Entrant", "SqlEntrant", "pages_read"]


class Entrant(ABC):
    """A way to search that can be built, built again, and opened for any number of clients.

    Attributes
    ----------
    family
        The best of a family stands for it.
    ours
        Whether it is a funnel of ours.
    bound
        Whether it is there to show what is possible at all, not to be compared with.
    load_seconds
        What getting the rows in took before anything was built; known after `build`.
    """

    family: str
    name: str
    knobs: Knobs = ()
    ours: bool = False
    bound: bool = False
    load_seconds: float = 0.0

    @abstractmethod
    def build(self) -> float:
        """Make its index, again where there is one; seconds."""

    @abstractmethod
    def open(self, stack: contextlib.ExitStack) -> stage.Runner:
        """A client of its own, until the stack closes."""

    @abstractmethod
    def turned(self, lane: stage.Runner, setting: Setting, *, ready: bool = True) -> stage.Runner:
        """The client at a setting; `ready` also makes what all its clients share."""

    def check(self, lane: stage.Runner, query: Any) -> None:
        """Raise where it is not what it says."""
        return  # a library cannot choose another way than its own

    def pages(self, lane: stage.Runner, queries: Sequence[Any]) -> float | None:
        """Mean pages that a search reads, from memory or disk; None where nobody counts them."""
        return None

    def shown(self, setting: Setting) -> str:
        """The setting in words."""
        pairs = zip(self.knobs, setting, strict=True)
        return ", ".join(f"{name} {value}" for (name, _), value in pairs)


class SqlEntrant(Entrant):
    """A recipe: everything it does is SQL over tables that are loaded."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        url: str,
        connection: Any,
        schema: str,
        dataset: Dataset,
        k: int,
        load_seconds: float,
        notes: list[str],
    ) -> None:
        self.recipe, self.load_seconds = recipe, load_seconds
        self.family, self.name, self.ours = recipe.family, recipe.name, recipe.ours
        self.knobs = recipe.knobs
        self._url, self._connection, self._schema = url, connection, schema
        self._dataset, self._k, self._notes = dataset, k, notes
        self._fitted: float | None = None
        self._built = False
        self._mapper: Mapper | None = None

    @property
    def table(self) -> str:
        """The table that it searches."""
        return self.recipe.at(self.recipe.dearest()).table

    def elsewhere(self, table: str) -> SqlEntrant:
        """The same over another table."""
        assert self.recipe.elsewhere is not None  # for those that have a table of their own
        return SqlEntrant(
            self.recipe.elsewhere(table),
            url=self._url,
            connection=self._connection,
            schema=self._schema,
            dataset=self._dataset,
            k=self._k,
            load_seconds=0.0,
            notes=self._notes,
        )

    def build(self) -> float:
        """Fit once what has to be fitted, which counts for every build; make the index."""
        if self._fitted is None:
            self._fitted = self._fit()
        contestant = self.recipe.at(self.recipe.dearest())
        if self._built:
            stage.remove(self._connection, contestant)
        seconds, said = stage.build(
            self._connection,
            self._schema,
            [contestant],
            dataset=self._dataset,
            builds=1,
            say=lambda text: None,
        )
        self._built = True
        self._notes += said
        return self._fitted + sum(seconds.get(contestant.build, ()))

    def _fit(self) -> float:
        if not self.recipe.fitted:
            return 0.0
        started = time.perf_counter()
        with entry.connect(self._url) as engine:
            table = engine.table(f"{self._schema}.{self.table}")
            for name, dims, chain in self.recipe.fitted:
                table.fit_rotation(name, dims=dims, then=chain)
        seconds = time.perf_counter() - started
        self._notes.append(
            f"{self.name}: fitting took {seconds:.1f} s, which counts as building, every time"
        )
        return seconds

    def open(self, stack: contextlib.ExitStack) -> stage.Lane:
        """A connection of its own."""
        contestant = self.recipe.at(self.recipe.dearest())
        return stack.enter_context(stage.open_lane(self._url, contestant, k=self._k))

    def turned(self, lane: stage.Runner, setting: Setting, *, ready: bool = True) -> stage.Lane:
        """The same connection with the settings of a contestant."""
        assert isinstance(lane, stage.Lane)
        turned = replace(lane, contestant=self.recipe.at(setting))
        if ready:
            for statement in turned.contestant.ready:
                lane.connection.execute(statement)
        for name, value in turned.contestant.settings:
            lane.change(name, value)
        return self._mapping(turned) if self.recipe.fitted else turned

    def _mapping(self, lane: stage.Lane) -> stage.Lane:
        """Let the client map its queries, as ours does."""
        if self._mapper is None:
            table = self.table
            self._mapper = Mapper.of(
                lane.connection, schema=self._schema, table=table, funnel=f"{table}_search"
            )
        assert self._mapper is not None  # the funnel was made of fitted resolutions
        statement = lane.contestant.statement
        given = statement.replace("%(k)s", f"%(k)s{self._mapper.arguments}")
        return replace(
            lane, contestant=replace(lane.contestant, statement=given), mapper=self._mapper
        )

    def check(self, lane: stage.Runner, query: Any) -> None:
        """Raise where its plan is not the one that its figures are for."""
        assert isinstance(lane, stage.Lane)
        stage.check_plan(lane, query)

    def pages(self, lane: stage.Runner, queries: Sequence[Any]) -> float | None:
        """Mean pages that a search reads."""
        assert isinstance(lane, stage.Lane)
        return pages_read(lane, queries)


def pages_read(lane: stage.Lane, queries: Sequence[Any]) -> float:
    """Mean shared buffers that a search hits or reads, by ``explain (analyze, buffers)``."""
    found = []
    for query in queries:
        # Not prepared: the lane's own statement and its plan stay as they are.
        row = lane.cursor.execute(
            "explain (analyze, buffers, costs off, timing off, summary off, format json) "
            f"{lane.contestant.statement}",
            lane.given(query),
            prepare=False,
        ).fetchone()
        assert row is not None  # explain gives one
        plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
        top = plan[0]["Plan"]
        found.append(top["Shared Hit Blocks"] + top["Shared Read Blocks"])
    return fmean(found)
