"""A bare connection, for commands that work where no engine can open: install, upgrade, ..."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funnelvec.errors import InvalidInput, MissingDependency, NotFound

if TYPE_CHECKING:
    import psycopg

__all__ = ["connected"]

_EMBEDDED = "pg-embedded:"


@contextmanager
def connected(
    url: str, command: str, *, create: bool = False, files: bool = False
) -> Iterator[psycopg.Connection[Any]]:
    """Connect without asking whether funnelvec is there.

    Parameters
    ----------
    url
        A ``postgresql://`` or ``pg-embedded:`` URL.
    command
        Whose errors these are.
    create
        Make the embedded database, and pgvector in it, if it is not there.
    files
        Put the extension's files where the embedded server finds them, if it can load any.
    """
    try:
        import psycopg

        from funnelvec.engines.postgres.adapt import translated
    except ImportError as error:
        raise MissingDependency.of(error.name or "psycopg", extra="postgres") from error
    if not url.startswith(_EMBEDDED):
        if not url.startswith(("postgresql:", "postgres:")):
            raise InvalidInput(f"{command} works on postgresql:// and pg-embedded: URLs, not {url}")
        with translated(), psycopg.connect(url, autocommit=True) as connection:
            yield connection
        return
    from funnelvec.engines.postgres.embedded import EmbeddedServer

    folder = Path(url.removeprefix(_EMBEDDED))
    if not create and not (folder / "data").is_dir():
        raise NotFound(f"there is no database in {folder}")
    with EmbeddedServer.start(folder) as server:
        if files and server.postgres_version >= 18:
            server.prepare_extension()
        with translated(), psycopg.connect(server.url(), autocommit=True) as connection:
            if create:
                connection.execute("create extension if not exists vector")
            yield connection
