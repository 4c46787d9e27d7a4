"""The asynchronous Postgres engine; `funnelvec.connect_async` and `wrap_async` lead here."""

from __future__ import annotations

from funnelvec.engines.postgres.aio.connection import Connection
from funnelvec.engines.postgres.aio.engine import (
    AsyncPostgresEngine,
    connect,
    connect_embedded,
    wrap,
)
from funnelvec.engines.postgres.aio.table import AsyncPostgresTable

__all__ = [
    "AsyncPostgresEngine",
    "AsyncPostgresTable",
    "Connection",
    "connect",
    "connect_embedded",
    "wrap",
]
