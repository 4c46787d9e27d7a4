"""Engines of Qdrant's that need no server: local mode and Edge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import funnelvec as fv
from funnelvec.engines.qdrant.engine import QdrantEngine
from tests.agreement import edge


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
