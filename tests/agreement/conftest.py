"""One Postgres engine, in both forms, for a whole file of scenarios: they share its database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests import awaited, databases

if TYPE_CHECKING:
    from funnelvec.engines.base import Engine
    from tests.databases import Server


@pytest.fixture(scope="module", params=["sync", "async"])
def postgres(request: pytest.FixtureRequest, pg_server: Server) -> Iterator[Engine]:
    """An engine on a database of its own, as a role that is not superuser."""
    database = databases.Database(pg_server, databases.new_name(pg_server))
    with databases.connected(pg_server.url()) as admin:
        databases.create_database(admin, database.name, template=pg_server.template("funnelvec"))
    with awaited.opened(database.owner_url, request.param) as engine:
        yield engine
    pg_server.done_with.append(database.name)
