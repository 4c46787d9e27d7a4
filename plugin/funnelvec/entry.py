"""The two ways in: `connect` opens an engine by its URL, `wrap` takes a connection you have.

The module is not called ``connect``: importing a submodule of that name would replace the
function of the same name in the package.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from funnelvec.errors import CapabilityError, InvalidInput, MissingDependency

if TYPE_CHECKING:
    from funnelvec.engines.base import Engine

__all__ = ["connect", "wrap"]

_POSTGRES = "funnelvec.engines.postgres.sync"
_KNOWN = "postgresql://..., pg-embedded:DIR and memory:"
_LATER = frozenset({"http", "https", "qdrant-local", "edge"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)


def connect(url: str, **options: Any) -> Engine:
    """Open an engine.

    Parameters
    ----------
    url
        ``postgresql://...`` (or ``postgres://``): a server with pgvector and funnelvec;
        ``pg-embedded:DIR``: a Postgres of our own that keeps its data in DIR;
        ``memory:``: an empty exact engine in this process.
    options
        Options of that engine, passed on.

    Returns
    -------
    Engine
        A context manager; leaving it closes what was opened here.

    Raises
    ------
    InvalidInput
        If the URL has no scheme or an unknown one.
    CapabilityError
        If this version does not serve the scheme yet.
    MissingDependency
        If the packages of that engine are not installed.
    Unreachable, InstallError
        If there is no such server, or funnelvec is not installed in the database.
    """
    given: Any = url
    match = _SCHEME.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        raise InvalidInput(f"a URL names an engine by its scheme, not {url!r}; known: {_KNOWN}")
    scheme, rest = match[1].lower(), match[2]
    if scheme in ("postgresql", "postgres"):
        return _call(_POSTGRES, "connect", url, **options)
    if scheme == "pg-embedded":
        if not rest:
            raise InvalidInput("pg-embedded: needs a folder for its data, as in pg-embedded:./data")
        return _call(_POSTGRES, "connect_embedded", rest, extra="embedded", **options)
    if scheme == "memory":
        if rest:
            raise InvalidInput(f"memory: takes nothing after the colon, not {rest!r}")
        return _call("funnelvec.engines.memory", "connect", **options)
    if scheme in _LATER:
        raise CapabilityError(f"this version does not serve {scheme}: URLs yet; known: {_KNOWN}")
    raise InvalidInput(f"unknown scheme {scheme!r}; known: {_KNOWN}")


def wrap(obj: object) -> Engine:
    """Use a connection that the application already has; closing the engine leaves it open.

    Parameters
    ----------
    obj
        A ``psycopg.Connection`` or a ``psycopg_pool.ConnectionPool``.

    Raises
    ------
    CapabilityError
        If it is a client that this version does not serve yet.
    InvalidInput
        If it is neither.
    """
    packages = {cls.__module__.partition(".")[0] for cls in type(obj).__mro__}
    if packages & {"psycopg", "psycopg_pool"}:
        return _call(_POSTGRES, "wrap", obj)
    if "qdrant_client" in packages:
        raise CapabilityError("this version does not wrap Qdrant clients yet; it wraps psycopg's")
    raise InvalidInput(
        f"wrap takes a psycopg connection or a psycopg_pool.ConnectionPool, not "
        f"{type(obj).__module__}.{type(obj).__qualname__}"
    )


def _call(
    module: str, function: str, *arguments: Any, extra: str = "postgres", **options: Any
) -> Engine:
    try:
        opener = cast("Callable[..., Engine]", getattr(import_module(module), function))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("numpy", "pgvector", "psycopg", "psycopg_pool"):
            raise
        raise MissingDependency.of(missing, extra=extra) from error
    return opener(*arguments, **options)
