"""What the client raises, over REST, over gRPC and in local mode, as errors of ours."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from funnelvec.errors import Conflict, EngineError, FunnelvecError, Timeout, Unreachable

__all__ = ["errors"]


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except FunnelvecError:
        raise
    except UnexpectedResponse as error:
        raise _refused(error) from error
    except ResponseHandlingException as error:
        raise _unanswered(error) from error
    except grpc.RpcError as error:
        raise _failed(error) from error
    except ResourceExhaustedResponse as error:
        raise EngineError(
            f"Qdrant takes no more requests for {error.retry_after_s} seconds: {error}"
        ) from error
    except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:  # local mode's
        raise EngineError(f"Qdrant refused: {error}") from error


def _refused(error: UnexpectedResponse) -> EngineError | Conflict:
    said = (error.content or b"").decode(errors="replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        said = json.loads(said)["status"]["error"]
    if error.status_code == 409:
        return Conflict(f"Qdrant: {said}")
    if error.status_code in (408, 504):
        return Timeout(f"Qdrant took too long: {said}")
    return EngineError(f"Qdrant refused ({error.status_code}): {said}")


def _unanswered(error: ResponseHandlingException) -> EngineError:
    source = error.source
    # A server that cannot be connected to is not slow, but away, or behind a firewall.
    if isinstance(source, httpx.TimeoutException) and not isinstance(source, httpx.ConnectTimeout):
        return Timeout(f"Qdrant took too long: {source}; a larger timeout= gives it more")
    return Unreachable(f"the Qdrant server does not answer: {source}")


def _failed(error: grpc.RpcError) -> EngineError | Conflict:
    # What the two kinds of clients raise has no base with these two methods in common.
    if not callable(getattr(error, "code", None)):
        return EngineError(f"Qdrant refused: {error}")
    status: Any = error
    code, said = status.code(), status.details()
    if code in (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.ABORTED):
        return Conflict(f"Qdrant: {said}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Timeout(f"Qdrant took too long: {said}; a larger timeout= gives it more")
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unreachable(f"the Qdrant server does not answer: {said}")
    return EngineError(f"Qdrant refused ({code.name}): {said}")
