"""`add`, `upsert` and `load` on every engine: the same rows, reports and errors."""

from __future__ import annotations

import datetime
import itertools
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec import errors
from tests import awaited, databases
from tests.agreement import edge

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

DIMS = 6
KINDS = {
    "price": "number",
    "stock": "integer",
    "name": "text",
    "sold": "boolean",
    "day": "date",
    "seen": "timestamp",
    "batch": "uuid",
}
ZERO_DAY = datetime.datetime(1999, 12, 31, 23, tzinfo=datetime.timezone.utc)
NUMBERS = itertools.count()


def vectors(n: int, *, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(n, DIMS)).astype(np.float32)


def values(n: int) -> dict[str, list[Any]]:
    """A column of every kind; every third value is missing but in `stock`."""
    full: dict[str, list[Any]] = {
        "price": [i / 8 - 3 for i in range(n)],
        "name": [f"ü {i} 😀" for i in range(n)],
        "sold": [i % 2 == 0 for i in range(n)],
        "day": [(ZERO_DAY + datetime.timedelta(days=i)).date() for i in range(n)],
        "seen": [ZERO_DAY + datetime.timedelta(hours=i, microseconds=i) for i in range(n)],
        "batch": [uuid.UUID(int=i * 2**64 + i) for i in range(n)],
    }
    gaps = {name: [None if i % 3 == 1 else v for i, v in enumerate(full[name])] for name in full}
    return {**gaps, "stock": list(range(n))}


def arrow(n: int, *, first: int = 0, **types: Any) -> Any:
    """An Arrow table of rows, with the vectors in lists of a fixed size."""
    flat = pa.array(vectors(n).reshape(-1))
    columns = {"id": list(range(first, first + n)), **values(n)}
    table = pa.table({name: pa.array(v, types.get(name)) for name, v in columns.items()})
    return table.append_column("embedding", pa.FixedSizeListArray.from_arrays(flat, DIMS))


ENGINES = ("memory", "sync", "async", "qdrant-local", "edge")


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The memory engine, Postgres in both forms, and Qdrant without a server."""
    if request.param == "memory":
        with fv.connect("memory:") as memory:
            yield memory
        return
    if request.param == "qdrant-local":
        with fv.connect("qdrant-local::memory:") as local:
            yield local
        return
    if request.param == "edge":
        with edge.folder() as folder, fv.connect(f"edge:{folder}") as of_edge:
            yield of_edge
        return
    server = request.getfixturevalue("pg_server")
    database = databases.Database(server, databases.new_name(server))
    with databases.connected(server.url()) as admin:
        databases.create_database(admin, database.name, template=server.template("funnelvec"))
    with awaited.opened(database.owner_url, request.param) as opened:
        yield opened
    server.done_with.append(database.name)


@pytest.fixture
def docs(engine: Any) -> Any:
    table = engine.create(f"docs_{next(NUMBERS)}", dims=DIMS, columns=KINDS)
    table.create_funnel(f"{table.name}_search", f"{DIMS}:f32")
    return table


def found(table: Any, query: Any, **filter: Any) -> list[Any]:
    return [hit.id for hit in table.search(query, k=1000, filter=filter or None)]


def check_holds(table: Any, n: int) -> None:
    """The rows of `arrow(n)` are there, with every value."""
    assert len(table) == n
    rows = vectors(n)
    for i in range(0, n, max(1, n // 7)):
        best = table.search(rows[i], k=1)[0]
        assert (best.id, best.score) == (i, pytest.approx(1, abs=1e-6))
    given = values(n)
    for name, column in given.items():
        for probe in (0, 1, n - 1):
            wanted = [i for i, value in enumerate(column) if value == column[probe]]
            test = {"$exists": False} if column[probe] is None else column[probe]
            text = test.isoformat() if hasattr(test, "isoformat") else test
            text = str(text) if isinstance(text, uuid.UUID) else text
            assert sorted(found(table, rows[0], **{name: text})) == wanted, (name, probe)


def batches(n: int) -> Iterator[Any]:
    rows, given = vectors(n), values(n)
    for start in range(0, n, 17):
        part = slice(start, start + 17)
        yield range(n)[part], rows[part], {name: given[name][part] for name in given}


def single(n: int) -> Iterator[Any]:
    rows, given = vectors(n), values(n)
    return ((i, rows[i], {name: given[name][i] for name in given}) for i in range(n))


#: Ways to hand over the rows of `arrow(n)`.
WAYS: dict[str, Callable[[int, Path], tuple[Any, dict[str, Any]]]] = {
    "table": lambda n, _: (arrow(n), {}),
    "reader": lambda n, _: (arrow(n).to_reader(max_chunksize=13), {}),
    "record batches": lambda n, _: (iter(arrow(n).to_batches(max_chunksize=13)), {}),
    "array": lambda n, _: (vectors(n), {"ids": range(n), "columns": values(n)}),
    "batches": lambda n, _: (batches(n), {}),
    "rows": lambda n, _: (single(n), {}),
    "mappings": lambda n, _: (
        ({"id": i, "embedding": v, **c} for i, v, c in single(n)), {}
    ),
    "mappings of batches": lambda n, _: (
        ({"id": i, "embedding": v, **c} for i, v, c in batches(n)), {}
    ),
    "npy": lambda n, path: (npy(n, path), {"ids": path / "ids.npy", "columns": values(n)}),
    "npy files": lambda n, path: (
        [npy(n, path, (0, 40)), npy(n, path, (40, n))], {"ids": range(n), "columns": values(n)}
    ),
    "memory map": lambda n, path: (
        np.load(npy(n, path), mmap_mode="r"), {"ids": list(range(n)), "columns": values(n)}
    ),
    "parquet": lambda n, path: (parquet(n, path), {}),
    "parquet files": lambda n, path: (
        [parquet(40, path, "b"), parquet(n, path, "a", first=40)], {}
    ),
    "folder": lambda n, path: (
        [parquet(40, path, "a"), parquet(n, path, "b", first=40)] and path, {}
    ),
}  # fmt: skip


def npy(n: int, path: Path, part: tuple[int, int] | None = None) -> Path:
    start, stop = part or (0, n)
    np.save(path / "ids.npy", np.arange(n))
    np.save(path / f"v{start}.npy", vectors(n)[start:stop].astype(np.float64))
    return path / f"v{start}.npy"


def parquet(n: int, path: Path, name: str = "rows", *, first: int = 0) -> Path:
    table = arrow(n) if not first else arrow(n).slice(first)
    pq.write_table(table, path / f"{name}.parquet", row_group_size=11)
    return path / f"{name}.parquet"


#: Local mode is slow, and what reads a source is the same above it as above Edge.
READ_BY = [
    (engine, way)
    for engine in ENGINES
    for way in WAYS
    if engine != "qdrant-local" or way in ("table", "rows", "npy files")
]


@pytest.mark.parametrize(("engine", "way"), READ_BY, indirect=["engine"])
@pytest.mark.parametrize("size", [None, 30])
def test_every_source_gives_the_same_rows(
    docs: Any, way: str, size: int | None, tmp_path: Path
) -> None:
    source, options = WAYS[way](100, tmp_path)
    told: list[tuple[int, int]] = []
    report = docs.load(
        source, batch_size=size, progress=lambda done, all: told.append((done, all)), **options
    )
    assert (report.rows, report.inserted, report.updated, report.skipped) == (100, 100, 0, 0)
    assert report.batches >= (1 if size is None else 4)
    assert report.unused == ()
    assert told[-1][0] == 100 and [done for done, _ in told] == sorted(done for done, _ in told)
    assert {all for _, all in told} <= {0, 100}
    check_holds(docs, 100)


@pytest.mark.parametrize(
    "type",
    [
        pa.list_(pa.float32()),
        pa.large_list(pa.float64()),
        pa.list_(pa.float16()),
        pa.list_(pa.float64(), DIMS),
    ],
    ids=str,
)
def test_vectors_of_every_arrow_type(docs: Any, type: Any) -> None:
    rows = vectors(50).astype(np.float16)
    wide = rows.astype(np.float64 if type.value_type != pa.float16() else np.float16)
    column = pa.array(list(wide), type)
    table = pa.table({"id": range(50), "embedding": column}).slice(10)
    assert docs.load(pa.concat_tables([table.slice(0, 7), table.slice(7)])).rows == 40
    for i in (10, 16, 17, 49):
        assert docs.search(rows[i].astype(np.float32), k=1)[0].id == i


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("stock", pa.int8()),
        ("stock", pa.uint64()),
        ("price", pa.float32()),
        ("price", pa.decimal128(12, 3)),
        ("name", pa.large_string()),
        ("name", pa.dictionary(pa.int32(), pa.string())),
        ("day", pa.date64()),
        ("day", pa.string()),
        ("seen", pa.timestamp("ns", "Europe/Berlin")),
        ("seen", pa.timestamp("us")),
        ("batch", pa.binary(16)),
        ("batch", pa.string()),
    ],
    ids=str,
)
def test_columns_of_many_arrow_types(docs: Any, name: str, type: Any) -> None:
    given = values(40)
    if name == "batch" and type == pa.binary(16):
        given["batch"] = [None if v is None else v.bytes for v in given["batch"]]
    elif type == pa.string():
        given[name] = [None if v is None else str(v) for v in given[name]]
    if pa.types.is_decimal(type):
        given[name] = [
            None if v is None else __import__("decimal").Decimal(str(v)) for v in given[name]
        ]
    table = arrow(40)
    place = table.column_names.index(name)
    docs.load(table.set_column(place, name, pa.array(given[name], type)))
    check_holds(docs, 40)


@pytest.mark.parametrize("form", ["structs", "texts"])
def test_lists_and_json_in_arrow(engine: Any, form: str) -> None:
    meta = [{"size": 3, "colours": ["red", None]}, None, {"size": 4.5, "colours": []}, None]
    texts = [None if each is None else json.dumps(each) for each in meta]
    table = pa.table(
        {
            "id": range(4),
            "embedding": list(vectors(4)),
            "tags": pa.array([["a", None], [], None, ["b", "é"]], pa.large_list(pa.string())),
            "days": pa.array([[ZERO_DAY], None, [], [None]], pa.list_(pa.timestamp("us", "UTC"))),
            "meta": pa.array(meta if form == "structs" else texts),
        }
    )
    columns = {"tags": "text[]", "days": "timestamp[]", "meta": "json"}
    docs = engine.create(f"lists_{next(NUMBERS)}", dims=DIMS, columns=columns)
    docs.create_funnel(f"f_{next(NUMBERS)}", f"{DIMS}:f32", returns=list(columns))
    funnel = f"f_{next(NUMBERS) - 1}"
    assert docs.load(table).rows == 4
    found = {hit.id: hit.columns for hit in docs.search(vectors(4)[0], k=4, funnel=funnel)}
    assert [found[i]["tags"] for i in range(4)] == [["a", None], [], None, ["b", "é"]]
    assert [found[i]["days"] for i in range(4)] == [[ZERO_DAY], None, [], [None]]
    assert [found[i]["meta"] for i in range(4)] == meta
    hits = docs.search(vectors(4)[0], k=4, funnel=funnel, filter={"meta.size": {"$gt": 4}})
    assert [hit.id for hit in hits] == [2]
    wrong = {
        "tags": (pa.array([["a"]]).cast(pa.list_(pa.binary())), "holds text\\[\\] values"),
        "days": (pa.array([[1]], pa.list_(pa.timestamp("ns"))), "holds timestamp\\[\\] values"),
        "meta": (pa.array(["{"]), "row 0: no JSON"),
    }
    for name, (column, message) in wrong.items():
        row = pa.table({"id": [9], "embedding": list(vectors(1)), name: column})
        with pytest.raises(errors.InvalidInput, match=message):
            docs.load(row)


def test_names_of_columns(docs: Any) -> None:
    table = arrow(30).rename_columns(
        ["key", *(f"x_{name}" for name in arrow(1).column_names[1:-1]), "vec"]
    )
    with pytest.raises(errors.NotFound, match="no column 'id'"):
        docs.load(table)
    options: dict[str, Any] = {"ids": "key", "vectors": "vec"}
    report = docs.load(table, **options)
    assert set(report.unused) == {name for name in table.column_names if name.startswith("x_")}
    report = docs.load(table, columns={"name": "x_name"}, upsert=True, **options)
    assert (report.inserted, report.updated) == (0, 30)
    assert found(docs, vectors(1)[0], name="ü 5 😀") == [5]
    report = docs.load(arrow(30), columns=["stock"], upsert=True)
    assert found(docs, vectors(1)[0], stock=7) == [7]
    assert found(docs, vectors(1)[0], name="ü 5 😀") == [5]  # what is not given stays
    for wrong in ({"nope": "x_name"}, {"name": "nope"}):
        with pytest.raises(errors.NotFound, match="nope"):
            docs.load(table, columns=wrong, **options)
    with pytest.raises(errors.InvalidInput, match="given twice"):
        docs.load(table, columns={"id": "key"}, **options)


def test_upsert_adds_and_changes_in_one_call(docs: Any) -> None:
    docs.add(range(50), vectors(50), columns={"name": [f"n{i}" for i in range(50)]})
    fresh = vectors(50, seed=9)
    done = docs.upsert(range(30, 80), fresh, columns={"stock": range(50)})
    assert (done.inserted, done.updated) == (30, 20)
    assert len(docs) == 80
    assert docs.search(fresh[3], k=1)[0].id == 33
    assert found(docs, fresh[0], name="n33") == [33]
    assert found(docs, fresh[0], stock=3) == [33]
    assert found(docs, fresh[0], name="n3") == [3]
    assert sorted(found(docs, fresh[0], stock={"$exists": False})) == list(range(30))
    assert docs.upsert([], np.empty((0, DIMS))) == fv.Upserted(0, 0)


def test_upsert_keeps_every_resolution_in_step(docs: Any) -> None:
    docs.add(range(50), vectors(50))
    docs.add_resolution("4:f16")
    docs.add_resolution("6:bit")
    docs.create_funnel(f"{docs.name}_two", "6:bit@50 > 4:f16@5 > 6:f32")
    docs.upsert([7, 90], vectors(2, seed=5))
    for place, key in enumerate((7, 90)):
        assert docs.search(vectors(2, seed=5)[place], k=1, funnel=f"{docs.name}_two")[0].id == key


def test_keys_of_several_columns(engine: Any) -> None:
    table = engine.create(
        f"pairs_{next(NUMBERS)}", dims=DIMS, id=["tenant", "n"], id_kind=["text", "integer"]
    )
    table.create_funnel(f"{table.name}_search", f"{DIMS}:f32")
    keys = [("ä", 1), ("ä", 2), ("b", 1)]
    data = {"n": [1, 2, 1], "tenant": ["ä", "ä", "b"], "embedding": vectors(3).tolist()}
    assert table.load(pa.table(data), batch_size=2).rows == 3
    assert table.upsert(keys[1:], vectors(2, seed=1)).updated == 2
    assert table.search(vectors(2, seed=1)[1], k=1)[0].id == ("b", 1)
    assert (
        table.load(((key, v) for key, v in zip(keys, vectors(3), strict=True)), upsert=True).updated
        == 3
    )
    report = table.load({"n": i, "tenant": "c", "embedding": vectors(1)[0]} for i in range(5))
    assert report.rows == 5
    with pytest.raises(errors.InvalidInput, match="1 columns, the key has 2"):
        table.load(pa.table(data), ids="n")


# -- interrupted -------------------------------------------------------------------------------


def stopping(n: int, at: int, error: BaseException) -> Iterator[Any]:
    for number, row in enumerate(single(n)):
        if number == at:
            raise error
        yield row


@pytest.mark.parametrize("upsert", [False, True])
def test_an_interrupted_load_goes_on(docs: Any, upsert: bool) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"40 rows .* goes on after them"):
        docs.load(stopping(100, 55, KeyboardInterrupt()), batch_size=20, upsert=upsert)
    assert len(docs) == 40
    with pytest.raises(LookupError, match="mine"):
        docs.load(stopping(100, 75, LookupError("mine")), batch_size=10, upsert=upsert)
    assert len(docs) == 70
    report = docs.load(single(100), batch_size=33, upsert=upsert)
    assert (report.rows, report.skipped, report.inserted) == (30, 70, 30)
    check_holds(docs, 100)


def test_a_load_that_was_finished_is_not_taken_for_interrupted(docs: Any) -> None:
    docs.load(arrow(50), batch_size=20)
    with pytest.raises(errors.Conflict, match="was finished before"):
        docs.load(arrow(50), batch_size=20)
    assert docs.load(arrow(50), batch_size=20, upsert=True).updated == 50
    assert len(docs) == 50


def interrupt(docs: Any, source: Any, **options: Any) -> None:
    """Stop a load after 40 rows, whatever its source."""

    def stop(done: int, _: int) -> None:
        if done >= 40:
            raise KeyboardInterrupt

    before = len(docs)
    with pytest.raises(KeyboardInterrupt):
        docs.load(source, batch_size=20, progress=stop, **options)
    assert len(docs) - before in (20, 40)  # told before or after the commit


@pytest.mark.parametrize(("engine", "way"), READ_BY, indirect=["engine"])
def test_every_source_goes_on(docs: Any, way: str, tmp_path: Path) -> None:
    source, options = WAYS[way](100, tmp_path)
    interrupt(docs, source, **options)
    before = len(docs)
    source, options = WAYS[way](100, tmp_path)
    report = docs.load(source, batch_size=35, **options)
    assert (report.skipped, report.rows) == (before, 100 - before)
    check_holds(docs, 100)


def test_a_source_that_has_changed_is_not_gone_on_with(docs: Any, tmp_path: Path) -> None:
    file = parquet(100, tmp_path)
    interrupt(docs, file)
    before = len(docs)
    pq.write_table(arrow(99), file)
    with pytest.raises(
        errors.Conflict, match=r"rows\.parquet has .* bytes, and it had .* resume=False"
    ):
        docs.load(file)
    with pytest.raises(errors.Conflict, match="columns are"):
        parquet(100, tmp_path)
        docs.load(file, columns=["stock"])
    with pytest.raises(errors.Conflict, match="2 files, and it was 1"):
        docs.load([parquet(100, tmp_path), parquet(100, tmp_path, "c")], resume=str(file))
    assert len(docs) == before
    parquet(100, tmp_path)
    assert docs.load(file).skipped == before
    check_holds(docs, 100)


def test_other_keys_before_the_stop_are_noticed(docs: Any) -> None:
    with pytest.raises(LookupError):
        docs.load(stopping(100, 50, LookupError()), batch_size=20, resume="mine")
    changed = [(i + 1000 if i == 11 else i, v) for i, v, _ in single(100)]
    with pytest.raises(errors.Conflict, match="keys of its first 40 rows are others"):
        docs.load(iter(changed), resume="mine")
    with pytest.raises(errors.Conflict, match="it has 30 rows, and 40 are in already"):
        docs.load(itertools.islice(single(100), 30), resume="mine")
    assert len(docs) == 40
    assert docs.load(single(100), resume="mine").skipped == 40


def test_from_the_first_row_on_if_that_is_wanted(docs: Any) -> None:
    interrupt(docs, arrow(100))
    with pytest.raises(errors.Conflict):
        docs.load(arrow(100), resume=False)
    report = docs.load(arrow(100), resume=False, upsert=True)
    assert (report.skipped, report.rows) == (0, 100)
    check_holds(docs, 100)


def test_a_bad_row_stops_a_load_before_its_batch(docs: Any) -> None:
    rows = [(i, v) for i, v, _ in single(100)]
    rows[57] = (57, np.full(DIMS, np.nan))
    with pytest.raises(errors.InvalidInput, match=r"nan in row 57, position 0; 40 rows .* are in"):
        docs.load(iter(rows), batch_size=20)
    assert len(docs) == 40
    rows[57] = (57, vectors(100)[57])
    assert docs.load(iter(rows), batch_size=20).skipped == 40
    assert len(docs) == 100


# -- dry runs and wrong input --------------------------------------------------------------------


def test_a_dry_run_checks_everything_and_writes_nothing(docs: Any) -> None:
    report = docs.load(arrow(100), batch_size=30, dry_run=True)
    assert (report.dry_run, report.rows, report.inserted, len(docs)) == (True, 100, 0, 0)
    bad = arrow(100).to_pylist()
    bad[93]["stock"] = 2**63
    with pytest.raises(errors.InvalidInput, match=r"row 93: .* nothing was written"):
        docs.load(iter(bad), batch_size=30, dry_run=True)
    assert docs.load(arrow(100)).rows == 100


def listed(rows: list[Any], type: Any = None) -> Any:
    return pa.table({"id": range(len(rows)), "embedding": pa.array(rows, type)})


GOOD = [1.0] * DIMS
WRONG: dict[str, tuple[Callable[[], Any], dict[str, Any], type[Exception], str]] = {
    "width": (lambda: listed([GOOD] * 5 + [[1.0] * 5]), {}, errors.InvalidInput, "row 5: the vector has 5 numbers"),
    "fixed width": (
        lambda: listed([[1.0] * 5], pa.list_(pa.float32(), 5)), {}, errors.InvalidInput, "row 0: the vector has 5",
    ),
    "null vector": (lambda: listed([GOOD, None]), {}, errors.InvalidInput, "row 1: the vector is null"),
    "null number": (
        lambda: listed([GOOD, [1.0, None, *GOOD[2:]]]), {}, errors.InvalidInput, "row 1: the number at position 1 is null",
    ),
    "texts": (lambda: listed([["a"] * DIMS]), {}, errors.InvalidInput, "vectors are lists of float32"),
    "no list": (lambda: listed([1.0]), {}, errors.InvalidInput, "vectors are lists of float32"),
    "zero": (lambda: listed([GOOD, [0.0] * DIMS]), {}, errors.InvalidInput, "row 1"),
    "infinite": (lambda: listed([GOOD, [1e39] * DIMS]), {}, errors.InvalidInput, "row 1, position 0"),
    "null key": (
        lambda: pa.table({"id": [1, None], "embedding": [GOOD, GOOD]}), {}, errors.InvalidInput, "row 1: the key is None",
    ),
    "text key": (
        lambda: pa.table({"id": ["a"], "embedding": [GOOD]}), {}, errors.InvalidInput, "'id' of the source is string",
    ),
    "key twice": (
        lambda: pa.table({"id": [1, 1], "embedding": [GOOD, GOOD]}), {}, errors.InvalidInput, "more than once",
    ),
    "wrong kind": (
        lambda: listed([GOOD]).append_column("price", pa.array(["x"])), {}, errors.InvalidInput,
        "'price' of the source is string, the table's holds number",
    ),
    "nanoseconds": (
        lambda: listed([GOOD]).append_column("seen", pa.array([1], pa.timestamp("ns"))), {}, errors.InvalidInput,
        "finer than a microsecond",
    ),
    "no vectors": (lambda: pa.table({"id": [1]}), {}, errors.NotFound, "no column 'embedding'"),
    "no keys": (lambda: vectors(3), {}, errors.InvalidInput, "give their keys with ids="),
    "few keys": (lambda: vectors(3), {"ids": [1, 2]}, errors.InvalidInput, "3 vectors, but 2"),
    "narrow": (lambda: np.ones((2, 5)), {"ids": [1, 2]}, errors.InvalidInput, "shape"),
    "flat": (lambda: np.ones(5), {"ids": [1, 2]}, errors.InvalidInput, "shape"),
    "short row": (lambda: iter([(1, GOOD), (2, GOOD[1:])]), {}, errors.InvalidInput, r"row 1: the vector has the shape \(5,\)"),
    "no row": (lambda: iter([(1, GOOD), 5]), {}, errors.InvalidInput, "row 1: 5 is no row"),
    "other names": (
        lambda: iter([(1, GOOD, {"price": 1}), (2, GOOD, {"name": "x"})]), {}, errors.InvalidInput, "row 1: columns",
    ),
    "lengths": (lambda: iter([([1, 2, 3], [GOOD, GOOD])]), {}, errors.InvalidInput, "2 vectors with 3 keys"),
    "number": (lambda: 5, {}, errors.InvalidInput, "cannot read rows from 5"),
    "bytes": (lambda: b"rows", {}, errors.InvalidInput, "cannot read rows"),
    "no file": (lambda: "/nowhere/rows.parquet", {}, errors.NotFound, "there is no file"),
    "odd file": (lambda: __file__, {}, errors.InvalidInput, "all Parquet"),
    "batch": (lambda: listed([GOOD]), {"batch_size": 0}, errors.InvalidInput, "batch_size"),
    "resume": (lambda: listed([GOOD]), {"resume": 7}, errors.InvalidInput, "resume"),
    "empty name": (lambda: listed([GOOD]), {"resume": ""}, errors.InvalidInput, "resume"),
    "names of keys": (lambda: listed([GOOD]), {"ids": 5}, errors.InvalidInput, "ids names columns"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_sources_are_refused(docs: Any, case: str) -> None:
    source, options, kind, said = WRONG[case]
    with pytest.raises(kind, match=said) as caught:
        docs.load(source(), **options)
    assert type(caught.value) is kind
    assert len(docs) == 0


def test_files_that_are_none(docs: Any, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "x.npy").write_bytes(b"no")
    with pytest.raises(errors.InvalidInput, match="not a Parquet file"):
        docs.load(tmp_path / "x.parquet")
    with pytest.raises(errors.InvalidInput, match="not a NumPy array"):
        docs.load(tmp_path / "x.npy", ids=[1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.NotFound, match="no Parquet file"):
        docs.load(tmp_path / "empty")


def test_folders_with_values_in_their_names(docs: Any, tmp_path: Path) -> None:
    for stock in (5, 6):
        folder = tmp_path / f"stock={stock}"
        folder.mkdir()
        part = arrow(20).drop_columns(["stock"]).slice(10 * (stock - 5), 10)
        pq.write_table(part, folder / "part.parquet")
    assert docs.load(tmp_path).rows == 20
    assert sorted(found(docs, vectors(1)[0], stock=6)) == list(range(10, 20))


def test_nothing_to_load(docs: Any) -> None:
    for source in (arrow(0), iter([]), arrow(0).to_reader()):
        assert docs.load(source).rows == 0
    assert docs.load(np.empty((0, DIMS)), ids=[]).rows == 0


def test_upsert_refuses_what_add_refuses(docs: Any) -> None:
    docs.add([1], vectors(1))
    cases: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (([2, 2], vectors(2)), {}),
        (([2, 3], vectors(3)), {}),
        (([2], np.zeros((1, DIMS))), {}),
        (([None], vectors(1)), {}),
        (([2], vectors(1)), {"columns": {"nope": [1]}}),
        (([2], vectors(1)), {"columns": {"price": ["x"]}}),
        (([2], vectors(1)), {"columns": {"embedding": [1]}}),
        (([2], vectors(1)), {"columns": {"name": ["a", "b"]}}),
        (([2], vectors(1)), {"progress": "yes"}),
    ]
    for given, options in cases:
        said = []
        for call in (docs.add, docs.upsert):
            with pytest.raises(errors.FunnelvecError) as caught:
                call(*given, **options)
            said.append((type(caught.value), str(caught.value)))
        assert said[0] == said[1]
    assert len(docs) == 1


def test_one_writer_takes_no_threads(docs: Any) -> None:
    with pytest.raises(errors.CapabilityError, match=r"one writer .*parallel=4.*Qdrant server"):
        docs.load(arrow(10), parallel=4)
    with pytest.raises(errors.InvalidInput, match="parallel must be a whole number"):
        docs.load(arrow(10), parallel=0)
    assert len(docs) == 0
