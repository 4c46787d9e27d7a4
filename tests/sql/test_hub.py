"""The hub column: what it holds, how it is kept in step, and what searches make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg

from funnelvec.calibration.corpus import hub_bias
from tests.sql.tables import ROWS, text, vectors

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

Q = text(vectors(1, seed=3)[0])


def expected(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The hub of every row where the bank is the whole table, less the mean of all."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return hub_bias(units, units, own=np.arange(len(rows)))


def hubs(connection: Connection, where: str = "true") -> np.ndarray[Any, Any]:
    found = connection.execute(
        f"select embedding_hub from products where {where} order by id"  # type: ignore[arg-type]
    ).fetchall()
    return np.array([row[0] for row in found], dtype=np.float64)


def test_every_row_has_its_hub(products: Connection) -> None:
    products.execute("select funnelvec.add_hub('products', 'embedding')")
    found, wanted = hubs(products), expected(vectors(ROWS))
    # The mean is that of some of the rows, so that it is known before the others are.
    assert abs(found.mean()) < 0.02
    np.testing.assert_allclose(found - found.mean(), wanted - wanted.mean(), atol=1e-6)
