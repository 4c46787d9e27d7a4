"""Edge as this package keeps it: the folder, its lock, and what is left when a process dies."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

import funnelvec as fv
from funnelvec.engines.qdrant import building
from funnelvec.engines.qdrant import shards as module
from funnelvec.errors import Conflict, EngineError, InvalidInput, VersionMismatch
from tests.agreement import edge

ROOT = Path(fv.__file__).parents[1]
DIMS = 16
# Edge builds a graph over 10,000 kB of vectors; few wide ones are built in no time.
WIDE, FEW = 4_096, 700


def rows(n: int, dims: int = DIMS) -> np.ndarray[Any, Any]:
    return np.random.default_rng(2).normal(size=(n, dims)).astype(np.float32)


def opened(folder: str) -> Any:
    return fv.connect(f"edge:{folder}")


def test_what_was_written_is_there_when_it_is_opened_again(edge_folder: str) -> None:
    with opened(edge_folder) as engine:
        table = engine.create("dötted.name ü", dims=DIMS, columns={"n": "integer"})
        table.add(range(30), rows(30), columns={"n": range(30)})
        table.add_resolution("8:bit", index=True)
        table.create_funnel("f", "8:bit@20 > 16:f32", model="m", returns=["n"])
        judged = np.repeat(rows(10), 2, axis=0)
        ids = [id for i in range(10) for id in (i, i + 15)]
        table.calibrate(fv.Judgments(judged, ids, np.array([True, False] * 10)), funnel="f")
        before = table.search(rows(1)[0], k=5, funnel="f", filter={"n": {"$lt": 25}})
        assert before[0].relevance is not None
    with opened(edge_folder) as engine:
        table = engine.table("dötted.name ü")
        assert table.search(rows(1)[0], k=5, funnel="f", filter={"n": {"$lt": 25}}) == before
        (status,) = table.status()
        assert (status.index, status.coverage) == ("hnsw", 1.0)


def test_one_process_at_a_time(edge_folder: str) -> None:
    with opened(edge_folder) as engine:
        engine.create("docs", dims=2)
        with pytest.raises(Conflict, match=rf"open already, by process {os.getpid()} on "):
            opened(edge_folder)
        code = f"import funnelvec as fv; fv.connect('edge:{edge_folder}')"
        run = subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
        )
        assert run.returncode == 1 and f"by process {os.getpid()}" in run.stderr
        assert "a Qdrant server (http://...) many" in run.stderr
    opened(edge_folder).close()  # it is free again


def test_folders_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="holds something else"):
        opened(str(tmp_path))
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]
    with pytest.raises(InvalidInput, match="is a file"):
        opened(str(tmp_path / "a.txt"))
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "funnelvec.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(VersionMismatch, match="upgrade funnelvec"):
        opened(str(newer))


def test_a_collection_that_was_not_finished_does_not_appear(edge_folder: str) -> None:
    with opened(edge_folder) as engine:
        engine.create("docs", dims=2)
        left = Path(edge_folder, ".new-killed")
        left.mkdir()
        (left / "definition.json").write_text("{}")
    with opened(edge_folder) as engine:
        assert engine._deployment.collections() == ["docs"]
    assert not left.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_told_and_does_not_hang(edge_folder: str) -> None:
    code = f"""
import os, funnelvec as fv
engine = fv.connect("edge:{edge_folder}")
table = engine.create("docs", dims=2)
child = os.fork()
if child == 0:
    try:
        table.count()
    except fv.errors.EngineError as error:
        os._exit(7 if "before the process was forked" in str(error) else 8)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert table.count() == 0
engine.close()
"""
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, timeout=60)


def test_writes_are_flushed_on_a_timer(edge_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.01)
    flushed = threading.Event()
    flush = module.Shards.flush

    def told(self: module.Shards) -> None:
        flush(self)
        if not self._written:
            flushed.set()

    with opened(edge_folder) as engine:
        table = engine.create("docs", dims=2)
        monkeypatch.setattr(module.Shards, "flush", told)
        table.add([1], [[1, 2]])
        assert flushed.wait(60)


def test_errors_of_edge_are_ours(edge_folder: str) -> None:
    with opened(edge_folder) as engine:
        table = engine.create("docs", dims=2)
        with pytest.raises(EngineError, match="Not existing vector"):
            engine._deployment.query("docs", [models.QueryRequest(query=[1.0], using="nope")])
        assert table.count() == 0


LOAD = """
import sys
import numpy as np
import funnelvec as fv

folder, n, index = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "index"
vectors = np.random.default_rng(2).normal(size=(n, {dims})).astype(np.float32)
engine = fv.connect(f"edge:{{folder}}")
table = engine.create("docs", dims={dims})
table.add_resolution("8:f16")
if index:
    table.add_resolution("{dims}:f32", index=True)

def told(done, all):
    if index and done == all:
        print("indexing", flush=True)
    print(done, flush=True)

table.load(vectors, ids=range(n), batch_size=250, progress=told)
print("loaded", flush=True)
sys.stdin.read()
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("stop", ["250", "1250", "2250", "indexing", "loaded"])
def test_no_acknowledged_point_is_lost_by_kill_9(edge_folder: str, stop: str) -> None:
    # Edge has something to build from 10,000 kB of vectors on.
    n, dims = (FEW, WIDE) if stop == "indexing" else (2_500, DIMS)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            LOAD.format(dims=dims),
            edge_folder,
            str(n),
            "index" if stop == "indexing" else "plain",
        ],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    acknowledged = 0
    for line in process.stdout:
        word = line.strip()
        if word == stop:
            break
        acknowledged = int(word) if word.isdigit() else acknowledged
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()  # what it said before it died
    acknowledged = max([acknowledged, *(int(word) for word in [stop, *rest] if word.isdigit())])
    assert process.wait() == -signal.SIGKILL
    if process.stdin is not None:
        process.stdin.close()
    process.stdout.close()
    with opened(edge_folder) as engine:
        table = engine.table("docs")
        assert acknowledged <= len(table) <= n
        vectors = rows(n, dims)
        report = table.load(vectors, ids=range(n), batch_size=250, upsert=not stop.isdigit())
        assert report.rows + report.skipped == n
        assert len(table) == n
        table.create_funnel("docs_search", f"8:f16@1000 > {dims}:f32")
        found = table.search_many(vectors[:: n // 50], k=1)
        assert [hits[0].id for hits in found] == list(range(0, n, n // 50))
        assert {status.coverage for status in table.status()} == {1.0}


@pytest.fixture(scope="module")
def due() -> Iterator[str]:
    """A folder with a table of which the index is due."""
    with edge.folder() as folder:
        with opened(folder) as engine:
            table = engine.create("docs", dims=WIDE)
            table.add(range(FEW), rows(FEW, WIDE))
            table.create_funnel("docs_search", f"{WIDE}:f32")
        yield folder


def filled(folder: str, due: str) -> tuple[Any, Any]:
    """A copy of it, opened."""
    shutil.copytree(due, folder)
    engine = opened(folder)
    return engine, engine.table("docs")


def graph(engine: Any) -> int:
    return int(engine._deployment._shards.opened("docs").info().indexed_vectors_count)


def test_searches_and_writes_go_on_while_an_index_is_built(
    edge_folder: str, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, table = filled(edge_folder, due)
    vectors, build, seen = rows(FEW + 5, WIDE), building.build, []

    def meanwhile(folder: Path, **given: Any) -> None:
        assert table.search(vectors[3], k=1)[0].id == 3
        table.add([FEW, FEW + 1], vectors[FEW : FEW + 2])
        table.upsert([5], vectors[[FEW + 2]])
        table.delete([6, FEW + 1])
        build(folder, **given)
        assert table.search(vectors[FEW], k=1)[0].id == FEW  # written into the original, too
        seen.append(folder)

    monkeypatch.setattr(building, "build", meanwhile)
    steps: list[Any] = []
    with engine:
        table.add_resolution(f"{WIDE}:f32", index=True)
        (place,) = seen
        assert engine._deployment._folder.shard("docs") == place
        assert [each.name for each in place.parent.glob("shard*") if each.is_dir()] == [place.name]
        assert table.explain(vectors[3]).stages[0].access == "index hnsw"
        assert len(table) == FEW and graph(engine) == FEW
        table.backfill(on_step=steps.append)
        assert seen == [place]  # nothing is due any more
    with opened(edge_folder) as engine:
        table = engine.table("docs")
        assert len(table) == FEW
        found = {id: table.search(vectors[row], k=1)[0].id for id, row in
                 {0: 0, FEW: FEW, 5: FEW + 2}.items()}  # fmt: skip
        assert all(id == hit for id, hit in found.items())
        assert table.search(vectors[6], k=1)[0].score < 0.9


class Told(subprocess.Popen):  # type: ignore[type-arg]
    """The process that builds, from the moment at which it does."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        assert self.stdout is not None and self.stdout.readline() == b"building\n"
        self.begun()

    def begun(self) -> None: ...


class Killed(Told):
    def begun(self) -> None:
        self.send_signal(signal.SIGKILL)


def test_no_point_is_lost_when_the_process_that_builds_dies(
    edge_folder: str, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, table = filled(edge_folder, due)
    with engine:
        with monkeypatch.context() as patched:
            patched.setattr(building.subprocess, "Popen", Killed)
            with pytest.raises(EngineError, match=r"ended with -9 \(it was killed\).*backfill"):
                table.add_resolution(f"{WIDE}:f32", index=True)
        assert [each.name for each in Path(edge_folder, "docs").glob("shard*")] == ["shard"]
        assert len(table) == FEW
        assert table.search(rows(FEW, WIDE)[9], k=1)[0].id == 9
        steps: list[Any] = []
        table.backfill(on_step=steps.append)
        assert "building the indexes of docs" in [step.statement for step in steps]
        assert Path(edge_folder, "docs", "shard.json").exists()
    assert not list(Path(edge_folder, "docs").glob("shard"))


def test_closing_ends_the_building_of_indexes(
    edge_folder: str, due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, table = filled(edge_folder, due)
    shards = engine._deployment._shards

    class Closing(Told):
        def begun(self) -> None:
            shards._closing.set()

    monkeypatch.setattr(building.subprocess, "Popen", Closing)
    with pytest.raises(EngineError, match="was closed while indexes were built"):
        table.add_resolution(f"{WIDE}:f32", index=True)
    engine.close()
    assert [each.name for each in Path(edge_folder, "docs").glob("shard*")] == ["shard"]
    with pytest.raises(EngineError, match="is closed"):
        table.count()


BUILD = f"""
import os, signal, subprocess, sys
import numpy as np
import funnelvec as fv
from funnelvec.engines.qdrant import building

class Told(subprocess.Popen):
    def __init__(self, *args, **given):
        super().__init__(*args, **given)
        self.stdout.readline()
        print(self.pid, flush=True)
        sys.stdin.read()

building.subprocess.Popen = Told
table = fv.connect(f"edge:{{sys.argv[1]}}").table("docs")
table.add([{FEW}], np.ones((1, {WIDE}), np.float32))
table.add_resolution("{WIDE}:f32", index=True)
"""


def test_no_point_is_lost_when_the_process_that_waits_dies(edge_folder: str, due: str) -> None:
    filled(edge_folder, due)[0].close()
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, edge_folder],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    handle = os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    process.kill()
    process.communicate()
    if handle is not None:  # nobody waits for the other one, so it does not go on
        assert select.select([handle], [], [], 60)[0]
        os.close(handle)
    with opened(edge_folder) as engine:
        table = engine.table("docs")
        assert [each.name for each in Path(edge_folder, "docs").glob("shard*")] == ["shard"]
        assert len(table) == FEW + 1
        table.backfill()  # goes on with what is due
        assert graph(engine) == FEW + 1
        assert table.explain(rows(1, WIDE)[0]).stages[0].access == "index hnsw"
        assert table.search(np.ones(WIDE, np.float32), k=1)[0].id == FEW


@pytest.mark.slow
def test_an_index_is_built_and_used(edge_folder: str) -> None:
    rng = np.random.default_rng(4)
    n, dims = 2_700, 1_024
    centres = rng.normal(size=(60, dims))
    vectors = centres[rng.integers(60, size=n)] + 0.7 * rng.normal(size=(n, dims))
    with opened(edge_folder) as engine:
        table = engine.create("docs", dims=dims)
        table.load(vectors.astype(np.float32), ids=range(n))
        deployment = engine._deployment
        table.create_funnel("docs_search", f"{dims}:f32")
        exact = table.measure_recall(sample=20)
        assert exact.recall == 1.0
        table.add_resolution(f"{dims}:f32", index=True)
        assert deployment._shards.opened("docs").info().indexed_vectors_count == n
        assert table.explain(vectors[0]).stages[0].access == "index hnsw"
        walked = table.measure_recall(sample=20)
        assert walked.recall > 0.9


@pytest.mark.parametrize("key", [["id"], ["tenant", "id"]])
def test_the_index_of_a_unique_field_adds_nothing_to_graphs(
    edge_folder: str, key: list[str]
) -> None:
    with opened(edge_folder) as engine:
        engine.create(
            "docs", dims=4, id=key, id_kind=["integer"] * len(key), columns={"price": "number"}
        )
        found = engine._deployment._shards.opened("docs").info().payload_schema
    # Without a word of it, Qdrant links points of like values among themselves.
    added = {path: each.params is None or each.params.enable_hnsw for path, each in found.items()}
    assert added == {**dict.fromkeys(key, len(key) > 1), "price": True}
