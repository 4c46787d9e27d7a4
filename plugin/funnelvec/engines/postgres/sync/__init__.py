# Made from aio/__init__.py by tools/write_sync.py: change that file, then `make sync`.

"""The synchronous Postgres engine; `funnelvec.connect` and `wrap` lead here."""

from __future__ import annotations

from funnelvec.engines.postgres.sync.connection import Connection
from funnelvec.engines.postgres.sync.engine import (
    PostgresEngine,
    connect,
    connect_embedded,
    wrap,
)
from funnelvec.engines.postgres.sync.table import PostgresTable

__all__ = [
    "Connection",
    "PostgresEngine",
    "PostgresTable",
    "connect",
    "connect_embedded",
    "wrap",
]
