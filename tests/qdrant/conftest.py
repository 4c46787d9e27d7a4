"""Engines of Qdrant's that need no server: local mode and Edge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

import funnelvec as fv
from funnelvec.engines.qdrant.engine import QdrantEngine
from tests.agreement import edge
from tests.qdrant.facade import Server


@pytest.fixture
def edge_folder() -> Iterator[str]:
    """A folder for Edge that does not exist yet."""
    with edge.folder() as folder:
        yield folder


@pytest.fixture(params=["local", "edge"])
def engine(request: pytest.FixtureRequest) -> Iterator[QdrantEngine]:
    """An empty engine of either kind."""
    if request.param == "local":
        with fv.connect("qdrant-local::memory:") as opened:
            assert isinstance(opened, QdrantEngine)
            yield opened
        return
    with fv.connect(f"edge:{request.getfixturevalue('edge_folder')}") as opened:
        assert isinstance(opened, QdrantEngine)
        yield opened


@pytest.fixture
def facade() -> Iterator[Server]:
    """Edge behind a server's REST interface."""
    with edge.folder() as folder:
        Path(folder).mkdir()
        server = Server(Path(folder), checked=False)
        yield server
        server.close()


@pytest.fixture(params=["local", "server"])
def plain(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    """A client that nobody has hooked: in local mode, or over HTTP."""
    if request.param == "local":
        client = QdrantClient(":memory:")
    else:
        server: Server = request.getfixturevalue("facade")
        client = QdrantClient(url=server.url, check_compatibility=False, timeout=60)
    yield client
    client.close()
