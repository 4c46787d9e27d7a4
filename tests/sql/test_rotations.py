"""Random rotations in the database: the same numbers as numpy's, in columns and side tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

import funnelvec as fv
from funnelvec.codes import encode
from funnelvec.codes.rotations import rotate
from funnelvec.resolution import Resolution
from tests import databases
from tests.sql.tables import fill, text, vectors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.databases import Database

    Connection = psycopg.Connection[Any]

DIMS = 48
ROTATED = f"{DIMS}:bit~random"
QUERY = vectors(1, seed=9, dims=DIMS)[0]


def one(connection: Connection, query: str, *arguments: Any) -> Any:
    row = connection.execute(query.encode(), arguments).fetchone()
    return None if row is None else row[0]


def bits(texts: list[Any]) -> Any:
    return np.array([np.packbits([int(sign) for sign in each]) for each in texts])


@pytest.fixture
def docs(owner_conn: Connection) -> Connection:
    fill(owner_conn, vectors(400, dims=DIMS), table=("docs",))
    return owner_conn


def add(connection: Connection, resolution: str = ROTATED, **named: Any) -> Any:
    extra = "".join(f", {name} => %s" for name in named)
    return one(
        connection,
        f"select funnelvec.add_resolution('docs', 'embedding', %s{extra})",
        resolution,
        *named.values(),
    )


def stored(connection: Connection, relation: str, column: str) -> Any:
    query = f"select {column}::text from {relation} order by id"
    return bits([row[0] for row in connection.execute(query.encode())])


@pytest.mark.parametrize("dims", [1, 2, 3, 7, 48, 255, 1536, 3073])
@pytest.mark.parametrize("rotation", ["random", "random7"])
def test_the_database_and_numpy_agree_to_the_last_bit(
    owner_conn: Connection, dims: int, rotation: str
) -> None:
    matrix = vectors(3, seed=dims, dims=dims)
    owner_conn.execute(f"create table t (id int primary key, v vector({dims}))".encode())
    for i, row in enumerate(matrix):
        owner_conn.execute("insert into t values (%s, %s)", (i, text(row)))
    one(owner_conn, "select funnelvec.add_resolution('t', 'v', %s)", f"{dims}:f32~{rotation}")
    found = owner_conn.execute(f"select v_{dims}_f32_{rotation}::text from t order by id".encode())
    for (got,), wanted in zip(found.fetchall(), rotate(rotation, matrix), strict=True):
        assert np.array_equal(np.array(eval(got), np.float32), wanted)


@pytest.mark.parametrize("storage", ["column", "side"])
@pytest.mark.parametrize("code", ["bit", "bit2", "bit3", "bit4", "f16"])
def test_codes_follow_every_write(docs: Connection, storage: str, code: str) -> None:
    resolution = f"{DIMS}:{code}~random"
    add(docs, resolution, storage=storage)
    while (step := one(docs, "select funnelvec.next_step('docs')")) is not None:
        docs.execute(step.encode())
    docs.execute("update docs set embedding = %s where id < 10", (text(QUERY),))
    docs.execute("insert into docs (id, embedding) values (900, %s)", (text(QUERY),))
    docs.execute("delete from docs where id between 20 and 30")
    column = f"embedding_{DIMS}_{code}_random"
    relation = "docs" if storage == "column" else f"docs_{column}"
    rows = docs.execute("select embedding::text from docs order by id").fetchall()
    matrix = np.array([eval(row[0]) for row in rows], np.float32)
    wanted = encode(Resolution.parse(resolution), matrix)
    if code != "f16":
        found = stored(docs, relation, column)
    else:
        texts = docs.execute(f"select {column}::text from {relation} order by id".encode())
        found = np.array([eval(row[0]) for row in texts.fetchall()], np.float16)
    assert np.array_equal(found, wanted)


def test_a_funnel_that_starts_from_rotated_signs(docs: Connection) -> None:
    add(docs, index=True)
    one(
        docs,
        "select funnelvec.create_funnel('f', 'docs', 'embedding', %s)",
        f"{ROTATED}@150 > {DIMS}:f32",
    )
    hits = docs.execute("select id, score from f(%s, 5)", (text(QUERY),)).fetchall()
    assert len(hits) == 5
    stages = docs.execute(
        "select resolution, access from funnelvec.explain('f', %s)", (text(QUERY),)
    )
    assert [row[0] for row in stages.fetchall()] == [ROTATED, f"{DIMS}:f32"]
    (recall,) = docs.execute(
        "select recall from funnelvec.measure_recall('f', sample => 40) where stage = 1"
    ).fetchone() or (0,)
    assert recall > 0.9


def test_python_and_memory_say_the_same(docs: Connection, owner_url: str) -> None:
    add(docs, index=True)
    found = []
    for url in (owner_url, "memory:"):
        with fv.connect(url) as engine:
            table = engine.table("docs") if url == owner_url else engine.create("docs", dims=DIMS)
            if url == "memory:":
                table.add(range(400), vectors(400, dims=DIMS))
                table.add_resolution(ROTATED)
            table.create_funnel("g", f"{ROTATED}@400 > {DIMS}:f32")
            found.append([(h.id, round(h.score, 5)) for h in table.search(QUERY, funnel="g")])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("resolution", "state", "message"),
    [
        (f"{DIMS // 2}:bit~random", "FV001", "cuts a random rotation"),
        (f"{DIMS}:bit~pca", "FV005", "has no rotation pca"),
        (f"{DIMS}:bit~random0", "FV009", "does not know"),
        (f"{DIMS}:bit3", "FV001", "no rotation"),
        (f"{DIMS}:bit5~random", "FV001", "unknown code"),
    ],
)
def test_what_is_no_rotation(docs: Connection, resolution: str, state: str, message: str) -> None:
    with pytest.raises(psycopg.Error, match=message) as caught:
        add(docs, resolution)
    assert caught.value.sqlstate == state
    assert one(docs, "select count(*) from pg_proc where proname like 'docs\\_%%'") == 0


def test_a_name_that_is_taken(docs: Connection) -> None:
    docs.execute(
        f"create function docs_random_{DIMS}(int) returns int language sql return 1".encode()
    )
    with pytest.raises(psycopg.Error, match="exists already"):
        add(docs)


def test_another_role_may_write_and_cannot_replace_the_rotation(
    docs: Connection, pg_database: Database
) -> None:
    docs.execute("grant select, insert on docs to app_other")
    add(docs)
    with databases.connected(pg_database.other_url) as other:
        other.execute("insert into docs (id, embedding) values (901, %s)", (text(QUERY),))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute(
                f"create or replace function docs_random_{DIMS}(source vector) returns vector"
                " language sql immutable return source".encode()
            )


def test_dropping_takes_the_function_along_once_nothing_needs_it(docs: Connection) -> None:
    count = "select count(*) from pg_proc where proname like 'docs\\_random%%'"
    add(docs)
    add(docs, f"{DIMS}:f16~random")
    assert one(docs, count) == 1
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        docs.execute(f"drop function docs_random_{DIMS}".encode())
    one(docs, "select funnelvec.drop_resolution('docs', 'embedding', %s)", ROTATED)
    assert one(docs, count) == 1
    one(docs, "select funnelvec.drop_resolution('docs', 'embedding', %s)", f"{DIMS}:f16~random")
    assert one(docs, count) == 0


@pytest.mark.parametrize("code", ["bit", "bit4"])
def test_repair_writes_a_rotation_again(docs: Connection, code: str) -> None:
    side = add(docs, f"{DIMS}:{code}~random", storage="side")
    while (step := one(docs, "select funnelvec.next_step('docs')")) is not None:
        docs.execute(step.encode())
    name = f"docs_random_{DIMS}{'_bit4' if code == 'bit4' else ''}"
    docs.execute(f"drop function {name} cascade".encode())
    advice = one(docs, "select advice from funnelvec.status('docs') where object like 'rotation%%'")
    assert advice == "its function, or its map, is gone: select funnelvec.repair();"
    docs.execute("select funnelvec.repair()")
    assert one(docs, "select count(*) from funnelvec.status() where resolution is null") == 0
    docs.execute("insert into docs (id, embedding) values (902, %s)", (text(QUERY),))
    assert one(docs, f"select count(*) from {side}") == 401


@pytest.mark.parametrize("code", ["bit", "bit3"])
def test_after_dump_and_restore_and_without_the_registry(
    docs: Connection,
    code: str,
    pg_database: Database,
    new_database: Callable[..., Database],
    tmp_path: Path,
) -> None:
    resolution = f"{DIMS}:{code}~random"
    add(docs, resolution, index=True)
    one(
        docs,
        "select funnelvec.create_funnel('f', 'docs', 'embedding', %s)",
        f"{resolution}@60 > {DIMS}:f32",
    )
    before = docs.execute("select * from f(%s, 5)", (text(QUERY),)).fetchall()
    server, file = pg_database.server, str(tmp_path / "dump")
    server.run("pg_dump", "-Fc", "-f", file, pg_database.owner_url)
    restored = new_database("vector")
    server.run("pg_restore", "--exit-on-error", "--no-comments", "-d", restored.owner_url, file)
    with databases.connected(restored.owner_url) as owner:
        assert owner.execute("select * from f(%s, 5)", (text(QUERY),)).fetchall() == before
        owner.execute("delete from funnelvec.resolutions")
        owner.execute("delete from funnelvec.funnels")
        owner.execute("select funnelvec.repair()")
        assert one(owner, "select resolution from funnelvec.resolutions") == resolution
        assert owner.execute("select * from f(%s, 5)", (text(QUERY),)).fetchall() == before
        assert one(owner, "select count(*) from funnelvec.status() where resolution is null") == 0
