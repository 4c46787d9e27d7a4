"""A table that the SQL tests search: rows with a decaying spectrum, so that prefixes mean something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psycopg import sql

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]

DIMS = 32
ROWS = 2000

#: Funnels over `products`, by name.
FUNNELS = {
    "two_stages": "16:f16@100 > 32:f32",
    "three_stages": "16:f16@200 > 32:bit@100 > 32:f32",
    "signs": "32:bit@300 > 32:f32",
    "prefix": "24:f32@50 > 32:f32",
    "base_alone": "32:f32",
    "wide": "16:f16@1500 > 32:f32",
}


def vectors(rows: int, *, seed: int = 0, dims: int = DIMS) -> npt.NDArray[np.float32]:
    """(rows, dims) float32 Gaussian with standard deviation 1 / sqrt(i) in dimension i."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, dims)) / np.sqrt(np.arange(1, dims + 1))).astype(np.float32)


def text(vector: npt.NDArray[np.float32]) -> str:
    """The vector as Postgres reads it; float32 survive the way there and back."""
    return "[" + ",".join(repr(float(x)) for x in vector) + "]"


def fill(
    connection: Connection,
    matrix: npt.NDArray[np.float32],
    *,
    table: tuple[str, ...] = ("products",),
    key: str = "id",
    key_type: str = "bigint",
    vector: str = "embedding",
) -> None:
    """Create a table (key, vector, price, name) and load it; row i has key i and price i."""
    name = sql.Identifier(*table)
    connection.execute(
        sql.SQL(
            "create table {} ({} {} primary key, {} vector({}), price double precision, name text)"
        ).format(
            name,
            sql.Identifier(key),
            sql.SQL(key_type),  # type: ignore[arg-type]
            sql.Identifier(vector),
            sql.Literal(matrix.shape[1]),
        )
    )
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("copy {} from stdin").format(name)) as copy,
    ):
        for i, row in enumerate(matrix):
            copy.write_row((i, text(row), float(i), f"n{i}"))


def search(
    connection: Connection, function: str, first: str, /, **named: Any
) -> list[tuple[Any, ...]]:
    """Call a function that returns rows; named arguments as in SQL."""
    arguments = "".join(f", {name} => %({name})s" for name in named)
    return connection.execute(
        f"select * from {function}(%(_first)s{arguments})",  # type: ignore[arg-type]
        {"_first": first, **named},
    ).fetchall()
