"""Every public method of both clients is intercepted, or it is said why it need not be."""

from __future__ import annotations

import inspect
from typing import Any
from unittest.mock import create_autospec

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.async_qdrant_remote import AsyncQdrantRemote
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal
from qdrant_client.qdrant_remote import QdrantRemote

from funnelvec.engines.qdrant.hook.methods import INTERCEPTED, PASSED, UPLOADS

CLIENTS = [QdrantClient, AsyncQdrantClient]
TRANSPORTS = [QdrantRemote, QdrantLocal, AsyncQdrantRemote, AsyncQdrantLocal]
#: What transports have beside what clients have: data about the connection.
OWN = {"aliases", "closed", "collections", "force_disable_check_same_thread", "grpc_root",
       "grpc_snapshots", "location", "persistent", "rest", "rest_uri"}  # fmt: skip


def public(kind: type) -> set[str]:
    members = (name for name, _ in inspect.getmembers(kind))
    return {name for name in members if not name.startswith("_") and not name.isupper()}


@pytest.mark.parametrize("kind", CLIENTS)
def test_every_method_of_a_client_has_been_thought_of(kind: type) -> None:
    known = {*INTERCEPTED, *UPLOADS, *PASSED}
    assert public(kind) - known == set(), "intercept it, or say in PASSED why not"
    assert known - public(kind) == set(), "the client has no such method any more"
    assert not {*INTERCEPTED, *UPLOADS} & set(PASSED)


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_every_method_of_a_transport_has_been_thought_of(kind: type) -> None:
    """A transport may have more ways to write than its client shows."""
    assert public(kind) - {*INTERCEPTED, *UPLOADS, *PASSED} - OWN == set()


VALUES: dict[str, Any] = {"points": [], "vectors": [], "requests": [], "update_operations": []}


@pytest.mark.filterwarnings("ignore:.recreate_collection:DeprecationWarning")
@pytest.mark.parametrize("name", sorted({*INTERCEPTED, *UPLOADS}))
def test_clients_come_to_the_transport_by_the_same_name(name: str) -> None:
    """The hook stands there, so a client that goes another way would go past it."""
    client = QdrantClient(":memory:")
    client._client.close()
    client._client = create_autospec(QdrantRemote, instance=True)
    method = getattr(client, name)
    required = {
        each.name: VALUES.get(each.name, "x")
        for each in inspect.signature(method).parameters.values()
        if each.default is inspect.Parameter.empty and each.kind is not each.VAR_KEYWORD
    }
    method(**required)
    called = [call[0] for call in client._client.method_calls]  # type: ignore[attr-defined]
    assert called == [name]


def test_uploads_of_the_asynchronous_client_are_plain_functions() -> None:
    for name in UPLOADS:
        for kind in (AsyncQdrantClient, AsyncQdrantRemote, AsyncQdrantLocal):
            assert not inspect.iscoroutinefunction(getattr(kind, name))
    for name in INTERCEPTED:
        for kind in (AsyncQdrantClient, AsyncQdrantRemote, AsyncQdrantLocal):
            assert inspect.iscoroutinefunction(getattr(kind, name)), name
