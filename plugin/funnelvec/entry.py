"""The ways in: `connect` opens an engine by its URL, `wrap` takes a connection you have.

`connect_async` and `wrap_async` do the same for asynchronous programs.

The module is not called ``connect``: importing a submodule of that name would replace the
function of the same name in the package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Generator, Mapping
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from funnelvec.errors import CapabilityError, InvalidInput, MissingDependency

if TYPE_CHECKING:
    from funnelvec.engines.base import Engine
    from funnelvec.engines.postgres.aio import AsyncPostgresEngine
    from funnelvec.engines.qdrant.aio import AsyncQdrantEngine
    from funnelvec.funnel import Funnel

    AsyncEngine: TypeAlias = AsyncPostgresEngine | AsyncQdrantEngine

__all__ = ["Opening", "connect", "connect_async", "hook", "wrap", "wrap_async"]

_Client = TypeVar("_Client")

_POSTGRES = "funnelvec.engines.postgres.sync"
_POSTGRES_ASYNC = "funnelvec.engines.postgres.aio"
_MEMORY = "funnelvec.engines.memory"
_QDRANT = "funnelvec.engines.qdrant.engine"
_QDRANT_ASYNC = "funnelvec.engines.qdrant.aio"
_HOOK = "funnelvec.engines.qdrant.hook.client"
_KNOWN = (
    "postgresql://..., pg-embedded:DIR, http(s)://... (Qdrant), qdrant-local:DIR, edge:DIR and "
    "memory:"
)
#: What has to be installed for an engine -> the extra that brings it.
_EXTRAS = {
    "connect_embedded": ("embedded", ("psycopg", "psycopg_pool", "pgvector", "numpy")),
    "connect_edge": ("edge", ("qdrant_client", "qdrant_edge", "portalocker", "numpy")),
    _QDRANT: ("qdrant", ("qdrant_client", "numpy")),
    _QDRANT_ASYNC: ("qdrant", ("qdrant_client", "numpy")),
    _HOOK: ("qdrant", ("qdrant_client", "numpy")),
    _POSTGRES: ("postgres", ("psycopg", "psycopg_pool", "pgvector", "numpy")),
    _POSTGRES_ASYNC: ("postgres", ("psycopg", "psycopg_pool", "pgvector", "numpy")),
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)


def connect(url: str, **options: Any) -> Engine:
    """Open an engine.

    Parameters
    ----------
    url
        ``postgresql://...`` (or ``postgres://``): a server with pgvector and funnelvec;
        ``pg-embedded:DIR``: a Postgres of our own that keeps its data in DIR;
        ``http://...`` or ``https://...``: a Qdrant server;
        ``qdrant-local:DIR`` or ``qdrant-local::memory:``: the local mode of its client;
        ``edge:DIR``: Qdrant Edge, which serves the collections in DIR from this process;
        ``memory:``: an empty exact engine in this process.
    options
        Options of that engine, passed on. For ``postgresql:`` what libpq takes
        (``connect_timeout=5``), and ``statement_timeout`` in seconds. For Qdrant what
        ``QdrantClient`` takes (``api_key=...``, ``prefer_grpc=True``, ``timeout=5``).

    Returns
    -------
    Engine
        A context manager; leaving it closes what was opened here.

    Raises
    ------
    InvalidInput
        If the URL has no scheme or an unknown one.
    CapabilityError
        If the server is too old.
    MissingDependency
        If the packages of that engine are not installed.
    Unreachable, InstallError
        If there is no such server, or funnelvec is not installed in the database.
    Conflict
        If another process has the folder of an ``edge:`` engine open.
    """
    module, function, arguments = _target(url, postgres=_POSTGRES, qdrant=_QDRANT)
    return cast("Engine", _opener(module, function)(*arguments, **options))


def connect_async(url: str, **options: Any) -> Opening:
    """Open an engine whose methods are coroutines, by ``await`` or ``async with``.

    >>> engine = await fv.connect_async("postgresql:///shop")              # doctest: +SKIP
    >>> async with fv.connect_async("postgresql:///shop") as engine:       # doctest: +SKIP
    ...     docs = await engine.table("products")

    Parameters
    ----------
    url, options
        As in `connect`, for all but ``memory:``; for a Qdrant server options are those of
        ``AsyncQdrantClient``.

    Raises
    ------
    CapabilityError
        For ``memory:``, or if the server is too old.
    InvalidInput, MissingDependency, Unreachable, InstallError, Conflict
        As in `connect`.
    """
    module, function, arguments = _target(url, postgres=_POSTGRES_ASYNC, qdrant=_QDRANT_ASYNC)
    if module == _MEMORY:
        raise CapabilityError(
            "memory: has no asynchronous engine, since it never waits: use connect('memory:')"
        )
    return Opening(_opener(module, function)(*arguments, **options))


def _target(url: str, *, postgres: str, qdrant: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the module, the function and the arguments that open a URL."""
    given: Any = url
    match = _SCHEME.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        raise InvalidInput(f"a URL names an engine by its scheme, not {url!r}; known: {_KNOWN}")
    scheme, rest = match[1].lower(), match[2]
    if scheme in ("postgresql", "postgres"):
        return postgres, "connect", (url,)
    if scheme == "pg-embedded":
        if not rest:
            raise InvalidInput("pg-embedded: needs a folder for its data, as in pg-embedded:./data")
        return postgres, "connect_embedded", (rest,)
    if scheme == "memory":
        if rest:
            raise InvalidInput(f"memory: takes nothing after the colon, not {rest!r}")
        return _MEMORY, "connect", ()
    if scheme in ("http", "https"):
        return qdrant, "connect", (url,)
    if scheme in ("qdrant-local", "edge"):
        if not rest:
            raise InvalidInput(f"{scheme}: needs a folder, as in {scheme}:./data")
        return qdrant, f"connect_{scheme.removeprefix('qdrant-')}", (rest,)
    raise InvalidInput(f"unknown scheme {scheme!r}; known: {_KNOWN}")


def wrap(obj: object) -> Engine:
    """Use a connection that the application already has; closing the engine leaves it open.

    Parameters
    ----------
    obj
        A ``psycopg.Connection``, a ``psycopg_pool.ConnectionPool`` or a ``QdrantClient``.

    Raises
    ------
    CapabilityError
        If it is a client that this version does not serve yet.
    InvalidInput
        If it is none of these.
    """
    if _is_client(obj, "QdrantClient"):
        return cast("Engine", _opener(_QDRANT, "wrap")(obj))
    if _is_client(obj, "AsyncQdrantClient"):
        raise InvalidInput(f"wrap takes a synchronous client, not {_name(obj)}: use wrap_async")
    if _is_driver(obj, asynchronous=True):
        raise InvalidInput(
            f"wrap takes a synchronous connection or pool, not {_name(obj)}: use wrap_async"
        )
    if _is_driver(obj, asynchronous=False):
        return cast("Engine", _opener(_POSTGRES, "wrap")(obj))
    raise _not_wrapped(obj, "wrap takes a psycopg connection or pool, or a QdrantClient")


def wrap_async(obj: object) -> Opening:
    """Use an asynchronous connection that the application already has; closing leaves it open.

    Parameters
    ----------
    obj
        A ``psycopg.AsyncConnection``, a ``psycopg_pool.AsyncConnectionPool`` that is open, or an
        ``AsyncQdrantClient``.

    Returns
    -------
    Opening
        To be awaited or entered with ``async with``, as in `connect_async`.

    Raises
    ------
    CapabilityError
        If it is a client that this version does not serve yet.
    InvalidInput
        If it is neither.
    """
    if _is_driver(obj, asynchronous=False):
        raise InvalidInput(
            f"wrap_async takes an asynchronous connection or pool, not {_name(obj)}: use wrap"
        )
    if _is_driver(obj, asynchronous=True):
        return Opening(_opener(_POSTGRES_ASYNC, "wrap")(obj))
    if _is_client(obj, "AsyncQdrantClient"):
        return Opening(_opener(_QDRANT_ASYNC, "wrap")(obj))
    if _is_client(obj, "QdrantClient"):
        raise InvalidInput(f"wrap_async takes an asynchronous client, not {_name(obj)}: use wrap")
    raise _not_wrapped(
        obj,
        "wrap_async takes a psycopg.AsyncConnection, a psycopg_pool.AsyncConnectionPool or an "
        "AsyncQdrantClient",
    )


def hook(
    client: _Client,
    *,
    funnel: Funnel | str | Mapping[str, Any] | None = None,
    relevance: bool | str = False,
    min_relevance: float | None = None,
) -> _Client:
    """Return a Qdrant client whose writes keep every resolution, and whose searches are funnels.

    It is used in place of the one given, by code that knows nothing of funnelvec.

    Parameters
    ----------
    client
        A ``QdrantClient`` or an ``AsyncQdrantClient``. It stays open as long as either is in use;
        closing one closes both.
    funnel
        What collections get that are created through the hook: one funnel for every vector that
        it can end in, or funnels by the name of the collection, ``{"docs": "128:f16@200 >
        768:f32"}``, or by collection and vector, ``{"docs": {"title": "..."}}``. Collections that
        exist have the funnels that are kept with them.
    relevance
        True to have the payload of every hit tell its relevance under ``"relevance"`` (None
        without a calibration), or the key under which it is to be told.
    min_relevance
        Leave out hits below this relevance, between 0 and 1.

    Returns
    -------
    QdrantClient or AsyncQdrantClient
        A client of the class of `client`.

    Raises
    ------
    InvalidInput
        If it is no such client, or is hooked already.
    """
    if not (_is_client(client, "QdrantClient") or _is_client(client, "AsyncQdrantClient")):
        raise InvalidInput(
            f"hook takes a QdrantClient or an AsyncQdrantClient, not {_name(client)}"
        )
    opened = _opener(_HOOK, "hook")
    made = opened(client, funnel=funnel, relevance=relevance, min_relevance=min_relevance)
    return cast("_Client", made)


class Opening:
    """An asynchronous engine that is about to be opened: ``await`` it, or enter it.

    ``await`` gives the engine, to be closed later; ``async with`` gives it and closes it.
    """

    def __init__(self, opening: Coroutine[Any, Any, AsyncEngine]) -> None:
        self._opening = opening
        self._engine: AsyncEngine | None = None

    def __await__(self) -> Generator[Any, Any, AsyncEngine]:
        return self._opening.__await__()

    async def __aenter__(self) -> AsyncEngine:
        self._engine = await self._opening
        return self._engine

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._engine is not None:
            await self._engine.close()


def _is_driver(obj: object, *, asynchronous: bool) -> bool:
    """Whether psycopg made it, read off the names: nothing is imported for other objects."""
    names = {
        cls.__name__
        for cls in type(obj).__mro__
        if cls.__module__.partition(".")[0] in ("psycopg", "psycopg_pool")
    }
    return bool(names) and any(name.startswith("Async") for name in names) == asynchronous


def _is_client(obj: object, name: str) -> bool:
    """Whether it is a client of Qdrant's of that name, or of a class made from it."""
    return any(cls.__name__ == name and _of_qdrant(cls) for cls in type(obj).__mro__)


def _of_qdrant(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "qdrant_client"


def _not_wrapped(obj: object, what: str) -> InvalidInput | CapabilityError:
    if any(_of_qdrant(cls) for cls in type(obj).__mro__):
        return CapabilityError(
            f"this version does not wrap {_name(obj)}; of Qdrant's it wraps QdrantClient and "
            "AsyncQdrantClient"
        )
    return InvalidInput(f"{what}, not {_name(obj)}")


def _name(obj: object) -> str:
    return f"{type(obj).__module__}.{type(obj).__qualname__}"


def _opener(module: str, function: str) -> Callable[..., Any]:
    try:
        return cast("Callable[..., Any]", getattr(import_module(module), function))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra, packages = _EXTRAS.get(function) or _EXTRAS.get(module) or ("", ())
        if missing not in packages:
            raise
        raise MissingDependency.of(missing, extra=extra) from error
