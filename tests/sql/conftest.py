"""A searchable table, made once per run and copied for each test that wants it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests import databases
from tests.sql.tables import FUNNELS, ROWS, fill, vectors

if TYPE_CHECKING:
    from tests.databases import Database, Server

    Connection = psycopg.Connection[Any]


@pytest.fixture(scope="session")
def products_template(pg_server: Server) -> Iterator[Database]:
    database = databases.Database(pg_server, databases.new_name(pg_server))
    with databases.connected(pg_server.url()) as admin:
        databases.create_database(admin, database.name, template=pg_server.template("funnelvec"))
    with databases.connected(database.owner_url) as owner:
        fill(owner, vectors(ROWS))
        firsts = {funnel.split("@")[0].split(" ")[0] for funnel in FUNNELS.values()}
        for resolution in sorted(firsts | {"32:bit"}):
            owner.execute(
                "select funnelvec.add_resolution('products', 'embedding', %s)", (resolution,)
            )
        for resolution in sorted(firsts):
            owner.execute(
                "select funnelvec.add_resolution('products', 'embedding', %s, index => true)",
                (resolution,),
            )
        for name, funnel in FUNNELS.items():
            owner.execute(
                "select funnelvec.create_funnel(%s, 'products', 'embedding', %s)", (name, funnel)
            )
    with databases.connected(database.superuser_url) as admin:
        admin.execute("vacuum analyze products")
    yield database
    with databases.connected(pg_server.url()) as admin:
        databases.drop_database(admin, database.name)


@pytest.fixture
def products_database(pg_server: Server, products_template: Database) -> Iterator[Database]:
    """A copy of its own, for a test that changes things."""
    with databases.copied(pg_server, products_template.name) as database:
        yield database


@pytest.fixture
def products(products_database: Database) -> Iterator[Connection]:
    """Connection of the owner to a copy with `products` and the funnels of `FUNNELS`."""
    with databases.connected(products_database.owner_url) as connection:
        yield connection
