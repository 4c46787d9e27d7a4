"""Fitted rotations in the database: the numbers of numpy, in columns and side tables, for queries and rows."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

import funnelvec as fv
from funnelvec.codes import compared_by, encode, prepare_query, score
from funnelvec.codes.maps import Rotation
from funnelvec.engines.postgres.adapt import statement
from funnelvec.engines.postgres.sync.rotating import _sent
from funnelvec.errors import Conflict, InvalidInput, NotFound
from funnelvec.fitting.fit import check_wanted, fit
from funnelvec.resolution import Resolution
from tests import awaited, databases
from tests.sql.tables import fill, text, vectors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.databases import Database

    Connection = psycopg.Connection[Any]

DIMS, ROWS = 24, 260
MATRIX = (vectors(ROWS, dims=DIMS) @ np.linalg.qr(vectors(DIMS, seed=5, dims=DIMS))[0]).astype(
    np.float32
)
QUERIES = (vectors(60, seed=3, dims=DIMS) * np.linspace(0.2, 2, DIMS)).astype(np.float32)
QUERY = QUERIES[0]


def one(connection: Connection, query: str, *arguments: Any) -> Any:
    row = connection.execute(query.encode(), arguments).fetchone()
    return None if row is None else row[0]


@functools.cache
def fitted(kind: str, *, metric: str = "cosine", width: int = 16) -> tuple[Rotation, Any]:
    wanted = check_wanted(
        name=kind, kind="pca" if kind == "pcar" else kind, then="random" if kind == "pcar" else None,
        width=width, dims=DIMS, metric=metric, code="f32", seed=1, queries=kind == "sphering",
    )  # fmt: skip
    return fit(wanted, MATRIX, QUERIES if kind == "sphering" else None)


def keep(connection: Connection, kind: str, **named: Any) -> Rotation:
    rotation, report = fitted(kind, **named)
    connection.execute(
        statement("keep_rotation"),
        {"table": "docs", "vector": "embedding"} | _sent(rotation, report),
    )
    return rotation


def add(connection: Connection, resolution: str, **named: Any) -> Any:
    extra = "".join(f", {name} => %s" for name in named)
    return one(
        connection,
        f"select funnelvec.add_resolution('docs', 'embedding', %s{extra})",
        resolution,
        *named.values(),
    )


def backfill(connection: Connection) -> None:
    while (step := one(connection, "select funnelvec.next_step('docs')")) is not None:
        connection.execute(step.encode())


@pytest.fixture
def docs(owner_conn: Connection) -> Connection:
    fill(owner_conn, MATRIX, table=("docs",))
    return owner_conn


CASES = [
    ("pca", "cosine", "16:f32"), ("pca", "cosine", "7:f16"), ("pca", "dot", "16:f16"),
    ("pca", "euclidean", "12:f32"), ("pca", "cosine", "9:bit"), ("pcar", "cosine", "16:bit"),
    ("pcar", "cosine", "16:bit3"), ("pcar", "euclidean", "16:f16"), ("sphering", "cosine", "16:f32"),
    ("sphering", "cosine", "5:f16"), ("sphering", "dot", "16:f16"),
]  # fmt: skip


@pytest.mark.parametrize("storage", ["column", "side"])
def test_codes_are_those_of_numpy_after_every_write(docs: Connection, storage: str) -> None:
    for kind, metric, text_of in CASES:
        rotation = keep(docs, kind, metric=metric)
        resolution = Resolution.parse(f"{text_of}~{kind}")
        add(docs, str(resolution), storage=storage, metric=metric)
        backfill(docs)
        docs.execute("update docs set embedding = %s where id = 3", (text(QUERY),))
        docs.execute("insert into docs (id, embedding) values (900, %s)", (text(QUERY),))
        docs.execute("delete from docs where id between 20 and 30")
        column = resolution.column_name("embedding")
        relation = "docs" if storage == "column" else f"docs_{column}"
        compared(docs, relation, column, resolution, rotation)
        one(docs, "select funnelvec.drop_resolution('docs', 'embedding', %s)", str(resolution))
        one(docs, "select funnelvec.drop_rotation('docs', 'embedding', %s)", kind)
        docs.execute("truncate docs")
        docs.cursor().executemany(
            "insert into docs (id, embedding) values (%s, %s)",
            [(i, text(row)) for i, row in enumerate(MATRIX[:60])],
        )
    assert one(docs, "select count(*) from pg_proc where prosrc like '-- A rotation%%'") == 0


def compared(
    docs: Connection, relation: str, column: str, resolution: Resolution, rotation: Rotation
) -> None:
    rows = docs.execute("select embedding::text from docs order by id").fetchall()
    matrix = np.array([eval(row[0]) for row in rows], np.float32)
    wanted = encode(resolution, matrix, metric=rotation.metric, rotation=rotation)
    found = docs.execute(f"select {column}::text from {relation} order by id".encode()).fetchall()
    if not resolution.code.startswith("bit"):
        numbers = np.array([eval(row[0]) for row in found])
        # pgvector sums in 32-bit floats, numpy in 64: f16 may round the other way.
        scale = np.abs(wanted.astype(float)).max()
        near = 1e-6 if resolution.code == "f32" else 1e-3
        assert np.abs(numbers - wanted).max() < near * scale, (resolution, rotation.metric)
        return
    bits = np.array([np.packbits([int(bit) for bit in row[0]]) for row in found])
    assert np.unpackbits(bits ^ wanted).mean() < 1e-3, resolution


@pytest.mark.parametrize("storage", ["column", "side"])
@pytest.mark.parametrize(
    ("kind", "funnel"),
    [
        ("pca", "8:f16~pca@150 > 16:f16~pca@60 > 24:f32"),
        ("pcar", "16:bit~pcar@150 > 24:f32"),
        ("sphering", "8:f16~sphering@150 > 16:f32~sphering@60 > 24:f32"),
    ],
)
def test_a_funnel_from_end_to_end(docs: Connection, storage: str, kind: str, funnel: str) -> None:
    rotation = keep(docs, kind)
    stages = [part.split("@")[0].strip() for part in funnel.split(">")][:-1]
    for place, resolution in enumerate(stages):
        add(docs, resolution, storage=storage, index=place == 0)
    backfill(docs)
    one(docs, "select funnelvec.create_funnel('f', 'docs', 'embedding', %s)", funnel)
    hits = docs.execute("select id, score from f(%s, 5)", (text(QUERY),)).fetchall()
    cosines = score(Resolution(DIMS, "f32"), QUERY, MATRIX, metric="cosine")
    assert [hit[0] for hit in hits] == np.argsort(-cosines)[:5].tolist()
    # The query is mapped once per call and stage, not once per row.
    body = one(docs, "select prosrc from pg_proc where proname = 'f'")
    asked = "_query" if kind == "sphering" else ""
    for resolution in stages:
        name = f"docs_{kind}_{resolution.split(':')[0]}{asked}"
        assert body.count(f"{name}(_fv_query") == 1
    explained = docs.execute(
        "select resolution, access from funnelvec.explain('f', %s)", (text(QUERY),)
    ).fetchall()
    assert [row[0] for row in explained] == [*stages, "24:f32"]
    assert explained[0][1].startswith("index ")
    recall = one(docs, "select recall from funnelvec.measure_recall('f', sample => 40) limit 1")
    assert recall > 0.8
    assert one(docs, "select count(*) from funnelvec.status('docs') where advice <> ''") == 0
    # The first stage scores as numpy does, with its own map for queries.
    one(docs, "select funnelvec.create_funnel('g', 'docs', 'embedding', %s, approximate => true)",
        stages[0])  # fmt: skip
    found = dict(docs.execute("select id, score from g(%s, 20)", (text(QUERY),)).fetchall())
    first = Resolution.parse(stages[0])
    codes = encode(first, MATRIX, rotation=rotation)
    scores = score(
        first, prepare_query(first, QUERY, rotation=rotation), codes,
        metric=compared_by("cosine", rotation),
    )  # fmt: skip
    near = 0.13 if first.code == "bit" else 1e-3
    assert all(abs(scores[key] - value) < near for key, value in found.items())


@pytest.mark.parametrize(
    ("kind", "resolution", "state", "message"),
    [
        ("pca", "17:f16~pca", "FV001", "wider than the rotation"),
        ("pca", "16:bit2~pca", "FV001", "levels"),
        ("pcar", "15:bit~pcar", "FV001", "ends in another one"),
        ("sphering", "16:bit~sphering", "FV001", "takes signs"),
        ("pca", "16:f16~pca2", "FV005", r"has no rotation pca2 \(it has: pca\)"),
    ],
)
def test_what_a_rotation_does_not_give(
    docs: Connection, kind: str, resolution: str, state: str, message: str
) -> None:
    keep(docs, kind)
    for statement_of in (
        "select funnelvec.add_resolution('docs', 'embedding', %s)",
        "select funnelvec.add_resolution('docs', 'embedding', %s, storage => 'side')",
    ):
        with pytest.raises(psycopg.Error, match=message) as caught:
            one(docs, statement_of, resolution)
        assert caught.value.sqlstate == state
    with pytest.raises(psycopg.Error, match="rotation"):
        one(docs, "select funnelvec.create_funnel('f', 'docs', 'embedding', %s)", f"{resolution}@50 > 24:f32")  # fmt: skip
    assert one(docs, "select count(*) from pg_proc where proname like 'docs\\_%%'") == 0


def test_a_rotation_belongs_to_a_metric(docs: Connection) -> None:
    keep(docs, "pca", metric="dot")
    with pytest.raises(psycopg.Error, match="fitted for the metric dot, not cosine") as caught:
        add(docs, "8:f16~pca")
    assert caught.value.sqlstate == "FV008"
    add(docs, "8:f16~pca", metric="dot")
    with pytest.raises(psycopg.Error, match="metric dot, not cosine"):
        keep(docs, "pcar")


@pytest.mark.parametrize(
    "change",
    [
        {"row_map": "{{1,2},{3,4}}"}, {"row_map": "{1,2,3}"}, {"row_map": "{}"},
        {"row_map": "{{" + ",".join(["NULL"] * DIMS) + "}}"}, {"row_map": None},
        {"query_map": "{{" + ",".join(["1"] * DIMS) + "}}"}, {"row_step": 0}, {"row_step": -1},
        {"row_step": float("nan")}, {"kind": "whitening"}, {"fitted_on": "x"}, {"name": "random3"},
        {"name": "x'; drop table docs; --"}, {"name": ""}, {"name": None}, {"chain": "x"},
        {"metric": "l1"}, {"vector": "price"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_rotation_is_not_kept(docs: Connection, change: dict[str, Any]) -> None:
    rotation, report = fitted("pca")
    given = {"table": "docs", "vector": "embedding"} | _sent(rotation, report) | change
    with pytest.raises(psycopg.Error) as caught:
        docs.execute(statement("keep_rotation"), given)
    assert str(caught.value.sqlstate).startswith("FV")
    assert one(docs, "select count(*) from funnelvec.rotations") == 0


def test_who_may_see_and_keep_rotations(docs: Connection, pg_database: Database) -> None:
    keep(docs, "pca")
    add(docs, "8:f16~pca")
    with databases.connected(pg_database.other_url) as other:
        assert one(other, "select count(*) from funnelvec.rotations") == 0
        with pytest.raises(psycopg.Error):
            keep(other, "pcar")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            one(other, "select funnelvec.drop_rotation('docs', 'embedding', 'pca')")
        docs.execute("grant select, insert on docs to app_other")
        assert one(other, "select count(*) from funnelvec.rotations") == 1
        other.execute("insert into docs (id, embedding) values (901, %s)", (text(QUERY),))
        other.execute("delete from funnelvec.rotations")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute("update funnelvec.rotations set row_step = 1")
    assert one(docs, "select count(*) from funnelvec.rotations") == 1


@pytest.mark.parametrize("kind", ["pca", "sphering"])
@pytest.mark.parametrize("storage", ["column", "side"])
def test_repair_writes_a_function_again(docs: Connection, storage: str, kind: str) -> None:
    keep(docs, kind)
    side = add(docs, f"8:f16~{kind}", storage=storage)
    backfill(docs)
    one(docs, "select funnelvec.create_funnel('f', 'docs', 'embedding', %s)", f"8:f16~{kind}@99 > 24:f32")  # fmt: skip
    before = docs.execute("select * from f(%s)", (text(QUERY),)).fetchall()
    name = f"docs_{kind}_8" + ("_query" if kind == "sphering" else "")
    if storage == "side" or kind == "sphering":
        docs.execute(f"drop function {name} cascade".encode())
        advice = one(
            docs, "select advice from funnelvec.status('docs') where object like 'rotation%%'"
        )
        assert advice == "its function, or its map, is gone: select funnelvec.repair();"
        docs.execute("select funnelvec.repair()")
    # A new name of the table stands in the text of functions.
    docs.execute("alter table docs rename to papers")
    docs.execute("alter table papers rename column embedding to vector")
    docs.execute("select funnelvec.repair()")
    found = docs.execute("select object, advice from funnelvec.status() where resolution is null")
    assert found.fetchall() == []
    assert docs.execute("select * from f(%s)", (text(QUERY),)).fetchall() == before
    docs.execute("insert into papers (id, vector) values (902, %s)", (text(QUERY),))
    if storage == "side":
        assert one(docs, f"select count(*) from {side}") == ROWS + 1


@pytest.mark.parametrize("kind", ["pca", "sphering"])
@pytest.mark.parametrize("storage", ["column", "side"])
def test_after_dump_and_restore_and_without_the_registry(
    docs: Connection,
    kind: str,
    storage: str,
    pg_database: Database,
    new_database: Callable[..., Database],
    tmp_path: Path,
) -> None:
    keep(docs, kind)
    for resolution in (f"8:f16~{kind}", f"12:f16~{kind}"):
        add(docs, resolution, storage=storage)
    backfill(docs)
    funnel = f"8:f16~{kind}@90 > 12:f16~{kind}@40 > 24:f32"
    one(docs, "select funnelvec.create_funnel('f', 'docs', 'embedding', %s)", funnel)
    before = docs.execute("select * from f(%s, 5)", (text(QUERY),)).fetchall()
    server, file = pg_database.server, str(tmp_path / "dump")
    server.run("pg_dump", "-Fc", "-f", file, pg_database.owner_url)
    restored = new_database("vector")
    server.run("pg_restore", "--exit-on-error", "--no-comments", "-d", restored.owner_url, file)
    with databases.connected(restored.owner_url) as owner:
        assert owner.execute("select * from f(%s, 5)", (text(QUERY),)).fetchall() == before
        owner.execute("insert into docs (id, embedding) values (903, %s)", (text(QUERY),))
        for registry in ("rotations", "resolutions", "funnels"):
            owner.execute(f"delete from funnelvec.{registry}".encode())
        owner.execute("select funnelvec.repair()")
        found = owner.execute(
            "select rotation, kind, width, used_by from funnelvec.list_rotations()"
        )
        assert found.fetchall() == [(kind, kind, 12, [f"12:f16~{kind}", f"8:f16~{kind}"])]
        assert one(owner, "select count(*) from funnelvec.status() where resolution is null") == 0
        assert one(owner, "select id from f(%s, 1)", text(QUERY)) == 903
        # What came back is a map that others can be made of.
        add(owner, f"10:f16~{kind}")
        one(owner, "select funnelvec.drop_resolution('docs', 'embedding', %s)", f"10:f16~{kind}")


@pytest.fixture(params=["sync", "async"])
def table(request: pytest.FixtureRequest, docs: Connection, owner_url: str) -> Any:
    with awaited.opened(owner_url, request.param) as engine:
        yield engine.table("docs")


def test_fitting_from_python(table: Any, docs: Connection) -> None:
    count = "select count(*) from funnelvec.rotations"
    dry = table.fit_rotation("pca", dims=16, dry_run=True)
    assert not dry.kept and one(docs, count) == 0 and table.rotations() == []
    told: list[tuple[int, int]] = []
    report = table.fit_rotation("pca", dims=16, progress=lambda *given: told.append(given))
    assert report.kept and report.recommended and "recommended" in str(report)
    assert (report.rows, report.held_out) == (ROWS * 4 // 5, ROWS // 5) and told[-1] == (7, 7)
    assert [each.fitted for each in report.comparisons] == [each.fitted for each in dry.comparisons]
    table.fit_rotation("sphering", kind="sphering", queries=QUERIES, dims=16)
    table.add_resolution("8:f16~pca")
    table.add_resolution("8:f16~sphering")
    table.create_funnel("f", "8:f16~sphering@200 > 8:f16~pca@150 > 24:f32")
    assert table.search(MATRIX[5], k=1, funnel="f")[0].id == 5
    (pca, other) = table.rotations()
    assert (pca.rotation, pca.width, pca.cuttable, pca.used_by) == ("pca", 16, True, ("8:f16~pca",))
    assert (other.prefix_metric, other.queries, other.metric) == ("dot", 30, "cosine")
    with pytest.raises(Conflict, match="pca2"):
        table.fit_rotation("pca")
    with pytest.raises(Conflict, match="used by: 8:f16~pca"):
        table.drop_rotation("pca")
    table.drop_funnel("f")
    table.drop_resolution("8:f16~pca")
    table.drop_rotation("pca")
    with pytest.raises(NotFound, match="has no rotation pca"):
        table.drop_rotation("pca")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dims": 300}, "1 to 24"), ({"dims": 0}, "1 to 24"), ({"sample": 100}, "rows are too few"),
        ({"kind": "sphering"}, "pass queries="), ({"kind": "itq"}, "kind must be"),
        ({"queries": np.full((30, DIMS), np.nan)}, "finite"), ({"queries": np.ones((30, 5))}, "24"),
        ({"queries": QUERIES[:12]}, "queries are too few"), ({"name": "random"}, "random one"),
        ({"name": "PCA"}, "lower-case"), ({"then": "x"}, "then must be"),
        ({"kind": "sphering", "queries": QUERIES, "then": "random"}, "two maps"),
        ({"kind": "sphering", "queries": QUERIES, "metric": "euclidean"}, "no distances"),
        ({"dry_run": "no"}, "dry_run"), ({"seed": -1}, "seed"), ({"metric": "l1"}, "metric"),
    ],
    ids=lambda each: "" if isinstance(each, str) else "-".join(each),
)  # fmt: skip
def test_what_cannot_be_fitted(
    docs: Connection, owner_url: str, wrong: dict[str, Any], message: str
) -> None:
    for url in (owner_url, "memory:"):
        with fv.connect(url) as engine:
            table = engine.table("docs") if url == owner_url else engine.create("docs", dims=DIMS)
            if url == "memory:":
                table.add(range(ROWS), MATRIX)
            with pytest.raises(InvalidInput, match=message):
                table.fit_rotation(**wrong)
            assert table.rotations() == []


def test_python_maps_the_query_and_the_function_does_where_it_cannot(
    table: Any, docs: Connection
) -> None:
    keep(docs, "pca")
    keep(docs, "sphering")
    for resolution in ("8:f16~pca", "12:f32~pca", "8:f16~sphering"):
        add(docs, resolution)
    funnel = "8:f16~sphering@200 > 8:f16~pca@150 > 12:f32~pca@60 > 24:f32"
    table.create_funnel("f", funnel)
    plain = docs.execute("select id, score from f(%s, 7)", (text(QUERY),)).fetchall()

    def found() -> list[list[tuple[Any, float]]]:
        answers = [table.search(QUERY, k=7, funnel="f")]
        answers += table.search_many(np.stack([QUERY, QUERY]), k=7, funnel="f")
        return [[(hit.id, hit.score) for hit in answer] for answer in answers]

    assert found() == [plain] * 3
    # The functions of the maps are not called any more, and are where the maps are others.
    functions = ("docs_sphering_8_query", "docs_pca_8", "docs_pca_12")
    texts = {name: one(docs, "select pg_get_functiondef(%s::regproc)", name) for name in functions}
    for name in functions:
        docs.execute(
            f"create or replace function {name}(source vector) returns vector language plpgsql"
            " immutable strict as 'begin raise exception ''called''; end'".encode()
        )
    assert found() == [plain] * 3
    with pytest.raises(psycopg.Error, match="called"):
        docs.execute("select id, score from f(%s, 7)", (text(QUERY),))
    with pytest.raises(psycopg.Error, match="called"):
        docs.execute(
            "select * from f(%s, _fv_mapped => array['[1]']::vector[], _fv_maps => 'x')",
            (text(QUERY),),
        )
    for body in texts.values():
        docs.execute(body.encode())
    other = keep_again(table, docs)
    assert found() == other


def keep_again(table: Any, docs: Connection) -> list[list[tuple[Any, float]]]:
    """Somebody drops the funnel and fits other maps under the same names."""
    one(docs, "select funnelvec.drop_funnel('f')")
    for resolution in ("8:f16~pca", "12:f32~pca", "8:f16~sphering"):
        one(docs, "select funnelvec.drop_resolution('docs', 'embedding', %s)", resolution)
    for kind in ("pca", "sphering"):
        one(docs, "select funnelvec.drop_rotation('docs', 'embedding', %s)", kind)
        rotation, report = fitted(kind, width=12)
        turned = rotation.row_map.numbers[::-1].copy()
        changed = replace(rotation, row_map=replace(rotation.row_map, numbers=turned))
        if rotation.query_map is not None:
            asked = replace(rotation.query_map, numbers=rotation.query_map.numbers[::-1].copy())
            changed = replace(changed, query_map=asked)
        given = {"table": "docs", "vector": "embedding"} | _sent(changed, report)
        docs.execute(statement("keep_rotation"), given)
    for resolution in ("8:f16~pca", "12:f32~pca", "8:f16~sphering"):
        add(docs, resolution)
    funnel = "8:f16~sphering@200 > 8:f16~pca@150 > 12:f32~pca@60 > 24:f32"
    one(docs, "select funnelvec.create_funnel('f', 'docs', 'embedding', %s)", funnel)
    plain = docs.execute("select id, score from f(%s, 7)", (text(QUERY),)).fetchall()
    return [plain] * 3


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("name", "x\n-- \nbegin raise 'x'; end"), ("kind", "pca\nbegin"), ("chain", "'; drop table docs; --"),
        ("metric", "cosine'"), ("fitted_on", "\n"), ("row_step", "-1"), ("width", "3"), ("dims", "9"),
        ("query_map", "{{1}}"), ("row_map", "{1,2}"),
    ],
)  # fmt: skip
def test_rows_written_by_hand_hold_nothing_that_would_run(
    docs: Connection, column: str, value: str
) -> None:
    keep(docs, "pca")
    with pytest.raises(psycopg.errors.CheckViolation):
        docs.execute(
            "insert into funnelvec.rotations select (jsonb_populate_record(r,"
            " jsonb_build_object('name', 'pca2', %s::text, %s::text))).* from funnelvec.rotations as r",
            (column, value),
        )


@pytest.mark.parametrize("kind", ["pca", "sphering"])
def test_windows_over_a_fitted_rotation(docs: Connection, kind: str) -> None:
    keep(docs, kind)
    add(docs, f"8:f16~{kind}", index=True)
    one(
        docs,
        f"select funnelvec.add_window('docs', 'embedding', '8:f16~{kind}', by => 'price', levels => 1)",
    )
    backfill(docs)
    one(
        docs,
        "select funnelvec.create_funnel('f', 'docs', 'embedding', %s)",
        f"8:f16~{kind}@99 > 24:f32",
    )
    operators = "halfvec_ip_ops" if kind == "sphering" else "halfvec_cosine_ops"
    indexes = docs.execute(
        "select indexdef from pg_indexes where indexdef like '%hnsw%'"
    ).fetchall()
    assert len(indexes) > 2 and all(operators in row[0] for row in indexes)
    assert one(docs, "select count(*) from funnelvec.status('docs') where advice <> ''") == 0
    hits = docs.execute(
        """select id, score from f(%s, 5, filter => '{"price": {"$gte": 40, "$lt": 160}}')""",
        (text(QUERY),),
    ).fetchall()
    cosines = score(Resolution(DIMS, "f32"), QUERY, MATRIX, metric="cosine")[40:160]
    assert [hit[0] for hit in hits] == (np.argsort(-cosines)[:5] + 40).tolist()
