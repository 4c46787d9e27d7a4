"""Loads whose client or server is killed: they go on, and no row is missing, double or wrong."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

import funnelvec as fv
from funnelvec import errors
from funnelvec.engines.postgres import cluster
from funnelvec.engines.postgres.embedded import EmbeddedServer
from tests import awaited
from tests.databases import FAST
from tests.sql.live import kill_server
from tests.sql.tables import vectors

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS, DIMS, BATCH = 3_000, 16, 500

#: Loads the file and stands still in the middle of a batch, until it is killed.
CLIENT = f"""
import sys, funnelvec as fv
url, file, stop, upsert = sys.argv[1:]

def stand(done, total):
    if done >= int(stop):
        print("here", flush=True)
        sys.stdin.read()

with fv.connect(url) as engine:
    engine.table("docs").load(file, batch_size={BATCH}, upsert=upsert == "True", progress=stand)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    flat = pa.array(vectors(ROWS, dims=DIMS).reshape(-1))
    pq.write_table(
        pa.table(
            {
                "id": range(ROWS),
                "embedding": pa.FixedSizeListArray.from_arrays(flat, DIMS),
                "name": [f"n{i}" for i in range(ROWS)],
            }
        ),
        path,
        row_group_size=850,
    )
    return path


def make_docs(url: str) -> None:
    with fv.connect(url) as engine:
        docs = engine.create("docs", dims=DIMS, columns={"name": "text"})
        docs.add_resolution("8:f16", index=True)


def check_complete(url: str) -> None:
    """Every row of the file is there once, with its values, and every code is that of its row."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "select id, name, embedding::text from docs order by id"
        ).fetchall()
        fresh = connection.execute(
            "select count(*) from docs where embedding_8_f16 is distinct from l2_normalize(subvector(embedding, 1, 8))::halfvec(8)"
        )
        assert fresh.fetchone() == (0,)
    assert [(key, name) for key, name, _ in found] == [(i, f"n{i}") for i in range(ROWS)]
    stored = np.array([np.fromstring(text[1:-1], np.float32, sep=",") for *_, text in found])
    assert np.array_equal(stored, vectors(ROWS, dims=DIMS))


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from docs").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("upsert", [False, True])
def test_the_client_is_killed(owner_url: str, file: Path, upsert: bool) -> None:
    make_docs(owner_url)
    for stop, left in ((250, 0), (1_250, 1_000), (2_350, 2_000)):
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, owner_url, str(file), str(stop), str(upsert)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert client.stdout is not None
        assert client.stdout.readline() == b"here\n", client.communicate()
        client.kill()
        client.communicate()
        assert count(owner_url) == left  # whole batches only
    with fv.connect(owner_url) as engine:
        report = engine.table("docs").load(file, batch_size=BATCH, upsert=upsert)
    assert (report.skipped, report.rows, report.inserted) == (2_000, 1_000, 1_000)
    check_complete(owner_url)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place for a server. Not tmp_path: pytest closes its parents to the server's user again."""
    with tempfile.TemporaryDirectory(prefix="funnelvec-kills-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def kill(server: EmbeddedServer) -> None:
    """Kill the server and everything that it has started, at once and for good."""
    running = cluster.postmaster(server.directory / "data")
    assert running is not None
    kill_server(server.directory)


def killing(items: Iterator[Any], at: int, act: Callable[[], None]) -> Iterator[Any]:
    for number, item in enumerate(items):
        if number == at:
            act()
        yield item


def interrupt(server: EmbeddedServer, how: str, rows: list[Any], moment: str) -> None:
    """Load until the server is killed."""
    stop = {"in a batch": 750, "between batches": None, "in the last batch": ROWS}[moment]

    def told(done: int, total: int) -> None:
        if stop and done >= stop and cluster.postmaster(server.directory / "data"):
            kill(server)

    source = iter(rows)
    if moment == "between batches":
        source = killing(source, 1_500, lambda: kill(server))
    with awaited.opened(server.url(), how) as engine:
        docs = engine.table("docs")
        with pytest.raises(errors.EngineError, match=r"rows of 'kills' are in|no row is in"):
            docs.load(source, batch_size=BATCH, resume="kills", progress=told)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sync", "async"])
def test_the_server_is_killed(folder: Path, file: Path, how: str) -> None:
    settings = {**FAST, "synchronous_commit": how == "sync"}
    server = EmbeddedServer.start(folder / "server", settings=settings)
    try:
        with fv.connect(f"pg-embedded:{folder / 'server'}"):
            make_docs(server.url())  # connecting has installed it
        rows = pq.read_table(file).to_pylist()
        skipped = 0
        for moment in ("in a batch", "between batches", "in the last batch"):
            interrupt(server, how, rows, moment)
            server.stop()
            server = EmbeddedServer.start(folder / "server", settings=settings)
            left = count(server.url())
            assert left % BATCH == 0 and left >= skipped
            skipped = left
        with awaited.opened(server.url(), how) as engine:
            report = engine.table("docs").load(iter(rows), batch_size=BATCH, resume="kills")
        assert (report.skipped, report.rows) == (skipped, ROWS - skipped)
        # Without waiting for the disk, the server may lose the last commits, and their record too.
        assert skipped >= (3 * BATCH if how == "sync" else 0)
        check_complete(server.url())
    finally:
        server.stop()
