"""What the tests of side storage share: tables of many shapes, and the comparison with fresh codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from tests.sql.tables import text, vectors

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]

DIMS = 16


@dataclass(frozen=True)
class Shape:
    """A table: its columns with ``{rest}`` for what all have, and the key of row number i."""

    columns: str
    key: tuple[str, ...]
    values: str
    after: str = ""
    before: str = "create table"
    vector: str = "vector"
    metric: str = "cosine"
    name: str = "items"
    partition: str = ""


SIMPLE = "id bigint primary key, {rest}"
SHAPES = {
    "bigint": Shape(SIMPLE, ("id",), "i"),
    "composite": Shape(
        "shop text, day date, {rest}, primary key (shop, day)",
        ("shop", "day"),
        "'s' || i % 7, date '2024-01-01' + i",
    ),
    "uuid": Shape("id uuid primary key, {rest}", ("id",), "md5(i::text)::uuid"),
    "collated": Shape('id text collate "C" primary key, {rest}', ("id",), "chr(65 + i % 26) || i"),
    "numeric": Shape("id numeric(20,3) primary key, {rest}", ("id",), "i / 8.0"),
    "timestamp": Shape(
        "id timestamptz primary key, {rest}",
        ("id",),
        "timestamptz '2024-01-01' + i * interval '1 hour'",
    ),
    "hash partitions": Shape(
        SIMPLE,
        ("id",),
        "i",
        after="partition by hash (id)",
        partition="for values with (modulus 3, remainder {i})",
    ),
    "list partitions": Shape(
        "region int, id bigint, {rest}, primary key (region, id)",
        ("region", "id"),
        "i % 3, i",
        after="partition by list (region)",
        partition="for values in ({i})",
    ),
    "unlogged": Shape(SIMPLE, ("id",), "i", before="create unlogged table"),
    "halfvec": Shape(SIMPLE, ("id",), "i", vector="halfvec"),
    "dot": Shape(SIMPLE, ("id",), "i", metric="dot"),
    "euclidean halfvec": Shape(SIMPLE, ("id",), "i", vector="halfvec", metric="euclidean"),
    "odd names": Shape(
        '"Order" bigint primary key, {rest}',
        ('"Order"',),
        "i",
        name='"Wörld of ""tables"" in a row"',
    ),
}


def make(connection: Connection, shape: Shape, rows: int = 200) -> None:
    """Create the table with `rows` rows; every tenth has no vector."""
    columns = shape.columns.format(rest=f"emb {shape.vector}({DIMS}), note text")
    run(connection, f"{shape.before} {shape.name} ({columns}) {shape.after}")
    for i in range(3 if shape.partition else 0):
        part = shape.partition.format(i=i)
        run(connection, f"create table items_{i} partition of {shape.name} {part}")
    insert(connection, shape, 0, rows)


def run(connection: Connection, query: str, *values: Any) -> None:
    """Run a statement that is put together here."""
    connection.execute(query.encode(), values or None)


def insert(connection: Connection, shape: Shape, first: int, last: int) -> None:
    """Insert rows first .. last - 1."""
    names = ", ".join((*shape.key, "emb", "note"))
    key = shape.values.replace("%", "%%")
    query = (
        f"insert into {shape.name} ({names}) select {key}, %s::{shape.vector}, 'n'"
        " from (values (%s::int)) as v (i)"
    )
    rows = zip(range(first, last), vectors(last - first, seed=first, dims=DIMS), strict=True)
    with connection.cursor() as cursor:
        cursor.executemany(
            query.encode(), [(None if i % 10 == 9 else text(row), i) for i, row in rows]
        )


def adopt(
    connection: Connection, table: str, resolution: str = "8:f16", vector: str = "emb", **named: Any
) -> str:
    """Add a resolution as a side table and take every step; returns the side table."""
    found = connection.execute(
        "select funnelvec.add_resolution(%(table)s, %(vector)s, %(resolution)s, storage => 'side',"
        " index => %(index)s, metric => %(metric)s)",
        {
            "table": table, "vector": vector, "resolution": resolution,
            "index": True, "metric": None, **named,
        },
    ).fetchone()  # fmt: skip
    assert found is not None
    finish(connection, table)
    return str(found[0])


def finish(connection: Connection, table: str) -> list[str]:
    """Run what next_step says until it says nothing, as a psql script would."""
    ran: list[str] = []
    while step := one(connection, "select funnelvec.next_step(%s)", table):
        connection.execute(step.encode())
        ran.append(step)
        assert len(ran) < 20, ran
    return ran


def one(connection: Connection, query: str, *values: Any) -> Any:
    row = connection.execute(query.encode(), values or None).fetchone()
    assert row is not None
    return row[0]


def faults(connection: Connection, table: str) -> list[tuple[Any, ...]]:
    """Rows whose code is missing, without a row, or not the code that would be computed now."""
    found: list[tuple[Any, ...]] = []
    for side, resolution, vector, code_column, metric in connection.execute(
        "select side_table::text, resolution, column_name, code_column, metric"
        " from funnelvec.resolutions where table_name = %s::regclass and side_table is not null",
        (table,),
    ).fetchall():
        expression = one(
            connection,
            "select (funnelvec._code(p.dims, p.code, %s, %s, b.code)).expression"
            " from funnelvec._parse_resolution(%s) as p, funnelvec._base(%s::regclass, %s) as b",
            f't."{vector}"', metric, resolution, table, vector,
        )  # fmt: skip
        joined = one(
            connection, "select funnelvec._side_join(%s::regclass, 's', %s::regclass)", side, table
        )
        found += connection.execute(
            sql.SQL(
                "select %s, t.*::text, s.*::text from (select * from {table} as t where t.{vector}"
                " is not null) as t full join {side} as s on {joined}"
                " where s.{code}::text is distinct from ({expression})::text"
            ).format(
                table=sql.SQL(table),  # type: ignore[arg-type]
                side=sql.SQL(side),
                vector=sql.Identifier(vector),
                code=sql.Identifier(code_column),
                joined=sql.SQL(joined),
                expression=sql.SQL(expression),
            ),
            (resolution,),
        ).fetchall()
    return found
