"""Errors of a client over gRPC: a real server of grpcio's that refuses, and one that is not there.

Qdrant's own server has not been run with this.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from qdrant_client.grpc import HealthCheckReply

from funnelvec.errors import Conflict, EngineError, FunnelvecError, Timeout, Unreachable
from tests import awaited

SAID = "the collection `docs` says no"


class Refusing(grpc.GenericRpcHandler):
    """Greets as a server of Qdrant's does, and refuses all the rest."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.INTERNAL
        self.retry_after: str | None = None
        self.answers = threading.Event()
        self.answers.set()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        greeted = details.method.endswith("/HealthCheck")
        return grpc.unary_unary_rpc_method_handler(self.greet if greeted else self.refuse)

    def greet(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return bytes(HealthCheckReply(title="qdrant", version="1.18.0").SerializeToString())

    def refuse(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.answers.wait(30)
        if self.retry_after is not None:
            context.set_trailing_metadata([("retry-after", self.retry_after)])
        context.abort(self.code, SAID)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Refusing, int]]:
    handler, threads = Refusing(), ThreadPoolExecutor(4)
    server = grpc.server(threads, handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, port
    handler.answers.set()
    server.stop(None).wait()
    threads.shutdown()


@pytest.fixture
def refusing(served: tuple[Refusing, int]) -> Iterator[Refusing]:
    """The handler as it is in the beginning."""
    handler, _ = served
    handler.__init__()  # type: ignore[misc]
    yield handler
    handler.answers.set()


def refused(port: int, form: str, **options: object) -> FunnelvecError:
    """What opening a table says."""
    with (
        awaited.opened(
            "http://127.0.0.1:1", form, prefer_grpc=True, grpc_port=port, **options
        ) as engine,
        pytest.raises(FunnelvecError) as caught,
    ):
        engine.table("docs")
    assert isinstance(caught.value.__cause__, grpc.RpcError) or "more requests" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("ALREADY_EXISTS", Conflict, f"Qdrant: {SAID}"),
        ("ABORTED", Conflict, f"Qdrant: {SAID}"),
        ("DEADLINE_EXCEEDED", Timeout, f"Qdrant took too long: {SAID}; "),
        ("UNAVAILABLE", Unreachable, f"the Qdrant server does not answer: {SAID}"),
        ("INVALID_ARGUMENT", EngineError, f"Qdrant refused (INVALID_ARGUMENT): {SAID}"),
        ("UNAUTHENTICATED", EngineError, f"Qdrant refused (UNAUTHENTICATED): {SAID}"),
        ("RESOURCE_EXHAUSTED", EngineError, f"Qdrant refused (RESOURCE_EXHAUSTED): {SAID}"),
    ],
)
def test_what_a_server_says_over_grpc(
    served: tuple[Refusing, int], refusing: Refusing, form: str, code: str, kind: type, words: str
) -> None:
    refusing.code = grpc.StatusCode[code]
    error = refused(served[1], form)
    assert type(error) is kind
    assert str(error).startswith(words)


@pytest.mark.parametrize("form", ["sync", "async"])
def test_a_server_that_limits_requests(
    served: tuple[Refusing, int], refusing: Refusing, form: str
) -> None:
    refusing.code, refusing.retry_after = grpc.StatusCode.RESOURCE_EXHAUSTED, "7"
    error = refused(served[1], form)
    assert type(error) is EngineError
    assert str(error) == f"Qdrant takes no more requests for 7 seconds: {SAID}"


@pytest.mark.parametrize("form", ["sync", "async"])
def test_a_server_that_never_answers(
    served: tuple[Refusing, int], refusing: Refusing, form: str
) -> None:
    refusing.answers.clear()
    error = refused(served[1], form, timeout=1)
    assert type(error) is Timeout
    assert str(error).endswith("; a larger timeout= gives it more")


@pytest.mark.parametrize("form", ["sync", "async"])
def test_a_port_where_nobody_listens(form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        pytest.raises(Unreachable, match=r"the Qdrant server does not answer: .*onnect") as caught,
        awaited.opened("http://127.0.0.1:1", form, prefer_grpc=True, grpc_port=port),
    ):
        pass
    assert isinstance(caught.value.__cause__, grpc.RpcError)
