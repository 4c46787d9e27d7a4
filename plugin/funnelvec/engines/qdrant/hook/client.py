"""`hook`: a client that is the same to the application, over a transport that is not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal

from funnelvec.engines import checks
from funnelvec.engines.qdrant.hook.known import Hook
from funnelvec.engines.qdrant.hook.methods import INTERCEPTED, UPLOADS
from funnelvec.engines.qdrant.hook.steps import Call, Given, run, run_async
from funnelvec.errors import InvalidInput
from funnelvec.funnel import Funnel

__all__ = ["hook", "unhooked"]

_C = TypeVar("_C", QdrantClient, AsyncQdrantClient)


def hook(
    client: _C,
    *,
    funnel: Funnel | str | Mapping[str, Any] | None = None,
    relevance: bool | str = False,
    min_relevance: float | None = None,
) -> _C:
    """Return a client whose writes keep every resolution, and whose searches are funnels.

    See `funnelvec.hook` for the arguments.
    """
    if isinstance(client, _Hooked):
        raise InvalidInput("this client is hooked already; hook the one that it was made from")
    key: Any = "relevance" if relevance is True else relevance
    if key is not False and not (isinstance(key, str) and key):
        raise InvalidInput(f"relevance is True, or a key of the payload, not {relevance!r}")
    hooked = Hook(
        wanted=_wanted(funnel),
        relevance=key or None,
        min_relevance=checks.check_min_relevance(min_relevance),
        local=isinstance(client._client, (QdrantLocal, AsyncQdrantLocal)),
    )
    given: Any = client
    asynchronous = isinstance(client, AsyncQdrantClient)
    made: Any = object.__new__(_class_of(given.__class__))
    # What the client keeps about itself, such as how to embed documents, is the same.
    made.__dict__.update(given.__dict__)
    made.__dict__["_client"] = (_AsyncTransport if asynchronous else _Transport)(given, hooked)
    made.__dict__["_original"] = given
    return cast("_C", made)


def unhooked(client: _C) -> _C:
    """Return the client that a hooked one was made from; any other as it is."""
    return cast("_C", client._original) if isinstance(client, _Hooked) else client


def _wanted(given: Any) -> Any:
    if given is None or isinstance(given, (Funnel, str)):
        return _parsed(given)
    if not isinstance(given, Mapping):
        raise InvalidInput(
            "funnel is a text such as '128:f16@200 > 768:f32', or a mapping of names of "
            f"collections to such texts, not {given!r}"
        )
    found: dict[str, Any] = {}
    for name, each in given.items():
        if isinstance(each, Mapping):
            found[name] = {vector: _parsed(text) for vector, text in each.items()}
        else:
            found[name] = _parsed(each)
    return found


def _parsed(given: Any) -> Any:
    return given if given is None or isinstance(given, Funnel) else Funnel.parse(given)


class _Hooked:
    """What a hooked client is beside a client."""

    _original: Any

    def __del__(self) -> None:
        """Leave the transport alone: the client that was hooked closes it when that goes."""


@functools.cache
def _class_of(kind: Any) -> Any:
    """Return a class that is the client's own and hooked; methods of a user's class stay."""
    return type(f"Hooked{kind.__name__}", (_Hooked, kind), {"__doc__": kind.__doc__})


class _Transport:
    """What stands between a client and its transport, and passes for that."""

    def __init__(self, client: Any, hook: Hook) -> None:
        self._real, self._hook, self._options = client._client, hook, client.init_options

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # The client, and frameworks, ask whether it is a local one or has gRPC.
        return type(self._real)

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name in INTERCEPTED:
            return self._intercepting(name, real)
        if name in UPLOADS:
            return self._uploading(name, real)
        return real

    def _intercepting(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*args: Any, **given: Any) -> Any:
            return run(INTERCEPTED[name](self._hook, _named(real, args, given)), self._do)

        return call

    def _uploading(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*args: Any, **given: Any) -> Any:
            return UPLOADS[name](self._hook, _named(real, args, given), self._do_now)

        return call

    def _do(self, call: Call) -> Any:
        return getattr(self._real, call.method)(**call.given)

    _do_now = _do


class _AsyncTransport(_Transport):
    """The same for an asynchronous client."""

    def _intercepting(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        async def call(*args: Any, **given: Any) -> Any:
            steps = INTERCEPTED[name](self._hook, _named(real, args, given))
            return await run_async(steps, self._do)

        return call

    def _do_now(self, call: Call) -> Any:
        """Make a call from a plain function, which cannot await.

        The loop stands still meanwhile, as it does anyway while that function sends points.
        """
        if call.method in UPLOADS:
            return self._do(call)
        if isinstance(self._real, AsyncQdrantLocal):
            return _at_once(self._do(call))
        return getattr(self._plain, call.method)(**call.given)

    @functools.cached_property
    def _plain(self) -> QdrantClient:
        """A synchronous client to the same server."""
        return QdrantClient(**{**self._options, "check_compatibility": False})


def _at_once(coroutine: Any) -> Any:
    """Run a coroutine that waits for nothing, as those of local mode do."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("local mode of qdrant-client waits for something; this is a fault of ours")


def _named(real: Callable[..., Any], args: tuple[Any, ...], given: Given) -> Given:
    """Arguments by name; the client gives them so, others may not."""
    if not args:
        return given
    bound = inspect.signature(real).bind(*args, **given).arguments
    extra = bound.pop("kwargs", {})
    return {**bound, **extra}
