"""One vector of a collection as a table; see `funnelvec.engines.base.Table`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from funnelvec import codes
from funnelvec.codes.maps import check_fits
from funnelvec.engines import checks, options
from funnelvec.engines.asking import RESERVED, check_returns
from funnelvec.engines.base import Progress, default_funnel
from funnelvec.engines.evaluating import Evaluating
from funnelvec.engines.keys import KeyName, key_names
from funnelvec.engines.progress import building_words, filling_reporting
from funnelvec.engines.qdrant.collection import Collection
from funnelvec.engines.qdrant.conditions import lacking_filter, without_ids
from funnelvec.engines.qdrant.definition import Definition, Kept, Vector
from funnelvec.engines.qdrant.deployment import BATCH, Points
from funnelvec.engines.qdrant.examining import QdrantExamining
from funnelvec.engines.qdrant.features import check_code, check_last, codes_of
from funnelvec.engines.qdrant.hubbing import QdrantHubbing
from funnelvec.engines.qdrant.judging import QdrantJudging
from funnelvec.engines.qdrant.loading import QdrantLoading
from funnelvec.engines.qdrant.moving import QdrantMoving
from funnelvec.engines.qdrant.observing import QdrantObserving
from funnelvec.engines.qdrant.refusing import QdrantRefusing
from funnelvec.engines.qdrant.rotating import QdrantRotating
from funnelvec.engines.qdrant.searching import QdrantSearching
from funnelvec.engines.qdrant.tuning import QdrantTuning
from funnelvec.engines.store import NamedFunnel
from funnelvec.errors import Conflict, InvalidInput, NotFound
from funnelvec.funnel import Funnel
from funnelvec.kinds import convert
from funnelvec.reports import FillingStep
from funnelvec.resolution import Resolution
from funnelvec.types import BaseCode, Metric, Storage

__all__ = ["QdrantTable"]


class QdrantTable(
    QdrantLoading,
    QdrantSearching,
    QdrantObserving,
    QdrantExamining,
    QdrantRotating,
    QdrantHubbing,
    QdrantJudging,
    QdrantMoving,
    QdrantTuning,
    QdrantRefusing,
    Evaluating,
):
    """A table in Qdrant; see `funnelvec.engines.base.Table` for the contract.

    Where a resolution is kept makes no difference here: it is a vector of its own, added to the
    collection in place and filled while others search and write.
    """

    known = codes_of(None)

    def __init__(self, collection: Collection, vector: str) -> None:
        self._collection = collection
        self.name, self.vector = collection.name, vector

    def _vector(self, *, fresh: bool = False) -> Vector:
        self._collection.definition(fresh=fresh)
        return self._collection.vector(self.vector)

    def __len__(self) -> int:
        return self.count()

    def count(self) -> int:
        """Count the rows."""
        outside = without_ids(self._collection.reserved)
        return self._collection.deployment.count(self.name, outside)

    @property
    def dims(self) -> int:
        """Width of the vector."""
        return self._vector().column.base.dims

    @property
    def code(self) -> BaseCode:
        """Code of the vector."""
        return self._vector().column.code

    @property
    def metric(self) -> Metric:
        """What the vector is compared by; Qdrant holds it to that from the beginning."""
        return self._vector().column.metric

    @property
    def key(self) -> KeyName:
        """Name of the key column; ``id``, that of the point, where another program made it."""
        return self._collection.definition().key

    # -- resolutions -----------------------------------------------------------------------------

    def add_resolution(
        self,
        resolution: Resolution | str,
        *,
        index: bool = False,
        allow_rewrite: bool = False,
        metric: Metric | None = None,
        storage: Storage | None = None,
        concurrently: bool = False,
        m: int | None = None,
        ef_construction: int | None = None,
    ) -> None:
        """Store the column at one more resolution; with `concurrently` `backfill` fills it."""
        options.check_storage(storage)
        vector = self._vector(fresh=True)
        column = vector.column
        resolution = checks.check_resolution(
            resolution, dims=column.base.dims, code=column.code, known=codes_of(None)
        )
        check_code(resolution, self._collection.deployment.version)
        self._check_rotation(vector, resolution)
        options.check_flag(index, "index")
        options.check_flag(allow_rewrite, "allow_rewrite")
        options.check_flag(concurrently, "concurrently")
        graph = options.check_graph(m, ef_construction)
        self._check_metric(metric)
        stored = column.stored(resolution)
        kept = vector.resolutions.get(resolution)
        if kept is None and not stored.is_base:
            taken = {*self._collection.info.vectors, *self._collection.info.others}
            if stored.name in taken:
                raise Conflict(
                    f"resolution {resolution} needs the name {stored.name!r}, which is taken"
                )
        _ = stored.size  # refused here if it is too wide
        if kept is None and not stored.is_base:
            self._check_addable(resolution, allow_rewrite=allow_rewrite)
        wanted = Kept.wanted(kept, index=index, ready=stored.is_base, graph=graph)
        if kept is not None and kept.ready and kept.index == wanted.index:
            return

        def add(vector: Vector) -> Vector:
            self._check_rotation(vector, resolution)  # somebody may have dropped it meanwhile
            return _with_resolution(vector, resolution, wanted)

        self._change(add)
        if self._adds_in_place or stored.is_base:
            self._provide(resolution)
        if not concurrently:
            self._backfill(BATCH, lambda step: None, provided=(resolution,))

    def _check_rotation(self, vector: Vector, resolution: Resolution) -> None:
        rotation = self._collection.rotation(vector, resolution)
        metric = vector.column.metric
        if rotation is not None:
            check_fits(resolution, rotation, metric=metric)
        codes.check_compared(resolution, codes.compared_by(metric, rotation))

    def _check_metric(self, wanted: Metric | None) -> None:
        if checks.check_metric(wanted) not in (None, self.metric):
            raise Conflict(
                f"{self.name}.{self.vector} was made for the metric {self.metric}, not {wanted}, "
                "and Qdrant compares a vector by one distance; keep to it"
            )

    def _provide(self, resolution: Resolution) -> None:
        """Have the vector of a resolution, with its index, in the collection."""
        vector = self._vector()
        stored = vector.column.stored(resolution)
        params = stored.params(**vector.resolutions[resolution].graph)
        deployment = self._collection.deployment
        if stored.is_base:
            standing = self._collection.info.vectors[stored.name]
            params = standing.model_copy(update={"hnsw_config": params.hnsw_config})
            deployment.configure(self.name, stored.name, params)
        else:
            deployment.add_vector(self.name, stored.name, params)
        self._collection.renew()

    def _change(self, how: Callable[[Vector], Vector]) -> None:
        """Change what is kept of this vector."""

        def change(definition: Definition) -> Definition:
            before = self._collection.vector(self.vector)
            after = how(before)
            return definition if after is before else definition.with_vector(after)

        self._collection.change(change)

    def backfill(
        self,
        *,
        batch: int | None = None,
        progress: Progress = False,
        on_step: Callable[[FillingStep], None] | None = None,
    ) -> int:
        """Finish what `add_resolution` began: write missing codes, have indexes built."""
        size = min(options.check_batch(batch) or BATCH, BATCH)
        options.check_progress(progress)
        with filling_reporting(progress, on_step, self.name) as report:
            return self._backfill(size, report)

    def _backfill(
        self,
        size: int,
        report: Callable[[FillingStep], None],
        *,
        provided: Sequence[Resolution] = (),
    ) -> int:
        done, collection = self._copied(report), self._collection
        for name, kept in collection.definition(fresh=True).vectors.items():
            table = QdrantTable(collection, name)
            for resolution in kept.filling:
                if resolution not in provided:  # whoever began may not have got that far
                    table._provide(resolution)
                done += table._fill(resolution, size, report)
            done += table._measure_rows(size, report)
        if any(vector.indexed for vector in collection.definition().vectors.values()):
            collection.deployment.settle(self.name, building_words(report, self.name))
        return done

    def _fill(
        self, resolution: Resolution, size: int, report: Callable[[FillingStep], None]
    ) -> int:
        """Write the codes of all rows that lack them; whoever writes meanwhile brings them."""
        deployment, column = self._collection.deployment, self._vector().column
        stored, base = column.stored(resolution), column.name
        lacking = lacking_filter(stored.name, self._collection.reserved)
        total, done = deployment.count(self.name, lacking), 0
        for page in self._collection.pages(lacking, base, size=size):
            if page.ids:
                encoded = stored.encode(page.matrix)
                written = {stored.name: (encoded, stored.has_code(encoded))}
                deployment.fill(self.name, Points(page.ids, written, [{}] * len(page.ids)))
            done += page.count
            report(FillingStep(None, str(resolution), "filling", done, max(total, done)))
        self._change(lambda vector: _filled(vector, resolution))
        return done

    def drop_resolution(self, resolution: Resolution | str) -> None:
        """Remove a resolution that no funnel uses."""
        vector = self._vector(fresh=True)
        resolution = checks.check_resolution(
            resolution, dims=vector.column.base.dims, known=codes_of(None)
        )
        if self._abandon(resolution):
            return
        self._check_stored(vector, resolution)
        if resolution == vector.column.base:
            raise Conflict(f"{resolution} is the column {self.vector!r} itself and stays")

        self._check_droppable(resolution)

        def drop(vector: Vector) -> Vector:
            users = [
                named.name
                for named in vector.funnels.values()
                if resolution in {stage.resolution for stage in named.funnel.stages}
            ]
            if users:
                raise Conflict(
                    f"resolution {resolution} is used by {', '.join(sorted(users))}; "
                    "drop_funnel these first"
                )
            rest = {r: kept for r, kept in vector.resolutions.items() if r != resolution}
            return replace(vector, resolutions=rest)

        self._change(drop)
        stored = vector.column.stored(resolution)
        self._collection.deployment.drop_vector(self.name, stored.name)
        self._collection.renew()

    def _check_stored(self, vector: Vector, resolution: Resolution) -> None:
        if resolution not in (vector.column.base, *vector.resolutions):
            known = ", ".join(map(str, dict.fromkeys((vector.column.base, *vector.resolutions))))
            raise NotFound(
                f"{self.name}.{self.vector} has no resolution {resolution} (it has {known}); "
                f"add_resolution('{resolution}') makes it"
            )
        kept = vector.resolutions.get(resolution)
        if kept is not None and not kept.ready:
            raise Conflict(
                f"resolution {resolution} is not filled yet; backfill() goes on where it stopped"
            )

    # -- funnels ---------------------------------------------------------------------------------

    def create_funnel(
        self,
        name: str,
        funnel: Funnel | str,
        *,
        approximate: bool = False,
        replace: bool = False,
        model: str | None = None,
        metric: Metric | None = None,
        returns: Sequence[str] = (),
    ) -> None:
        """Give a funnel a name to search by; names are those of this vector."""
        checks.check_name(name, "the name of a funnel")
        options.check_flag(approximate, "approximate")
        options.check_flag(replace, "replace")
        funnel = funnel if isinstance(funnel, Funnel) else Funnel.parse(funnel)
        vector = self._vector(fresh=True)
        funnel.check(dims=vector.column.base.dims, code=vector.column.code, approximate=approximate)
        self._check_metric(metric)
        check_last(funnel)
        if model is not None:
            model = _text(model)
        named = NamedFunnel(name, funnel, model, self._returned(returns))

        def create(vector: Vector) -> Vector:
            for stage in funnel.stages:
                self._check_stored(vector, stage.resolution)
            if name in vector.funnels and not replace:
                raise Conflict(
                    f"funnel {name!r} exists already, on table {self.name!r}; pass replace=True"
                )
            return _with_funnel(vector, name, named)

        self._change(create)

    def drop_funnel(self, name: str) -> None:
        """Remove a funnel."""
        checks.check_name(name, "the name of a funnel")
        self._vector(fresh=True)
        self._funnel(name)
        self._change(lambda vector: _with_funnel(vector, name, None))

    def _funnel(self, name: str | None) -> NamedFunnel:
        wanted = default_funnel(self.name) if name is None else checks.check_name(name, "funnel")
        if wanted not in self._vector().funnels:
            self._vector(fresh=True)  # another client may have made it meanwhile
        vector = self._vector()
        if wanted not in vector.funnels:
            known = ", ".join(sorted(vector.funnels)) or "none"
            raise NotFound(
                f"table {self.name!r} has no funnel {wanted!r} (funnels: {known}); make it with "
                f"create_funnel({wanted!r}, '... > {vector.column.base}')"
            )
        return vector.funnels[wanted]

    def _returned(self, returns: Sequence[str]) -> tuple[str, ...]:
        wanted = tuple(check_returns(returns))
        definition = self._collection.definition()
        known = definition.others
        for name in wanted:
            if name in (*RESERVED, *key_names(definition.key)) or name.startswith("_fv_"):
                raise Conflict(f"a hit has no place for the column {name!r}: it has that already")
            if wanted.count(name) > 1:
                raise Conflict(f"the column {name!r} is to be returned twice; name it once")
            if name not in known:
                others = ", ".join(sorted(known)) or "none"
                raise NotFound(f"table {self.name!r} has no column {name!r} (it has: {others})")
        return wanted


def _text(model: str) -> str:
    try:
        return str(convert(model, "text"))
    except ValueError as error:
        raise InvalidInput(f"model: {error}") from None


def _with_resolution(vector: Vector, resolution: Resolution, kept: Kept) -> Vector:
    return replace(vector, resolutions={**vector.resolutions, resolution: kept})


def _filled(vector: Vector, resolution: Resolution) -> Vector:
    kept = vector.resolutions.get(resolution)
    if kept is None:  # dropped meanwhile
        return vector
    return _with_resolution(vector, resolution, replace(kept, ready=True))


def _with_funnel(vector: Vector, name: str, named: NamedFunnel | None) -> Vector:
    funnels = {each: f for each, f in vector.funnels.items() if each != name}
    vector = vector.certified(name, None)
    return replace(vector, funnels=funnels if named is None else {**funnels, name: named})
