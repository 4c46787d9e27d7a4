"""The real client over HTTP, against a facade with the engine of Edge behind it (see `facade`).

A real Qdrant server has not been run with any of this.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

import funnelvec as fv
from funnelvec.errors import (
    CapabilityError,
    Conflict,
    EngineError,
    FilterError,
    Timeout,
    Unreachable,
)
from funnelvec.funnel import Funnel
from tests.agreement import edge
from tests.agreement.scenarios import SCENARIOS, Scenario, ask, compare, load, tolerance
from tests.agreement.test_qdrant import HALVES, REFUSED
from tests.qdrant.facade import Server

VECTORS = np.random.default_rng(3).normal(size=(2_500, 8)).astype(np.float32)
#: Every eighth, which keeps all families of scenarios: the same requests ran on Edge itself.
CHOSEN = [s for s in SCENARIOS if s.storage is None and s.name not in REFUSED][::8]


@pytest.fixture
def server() -> Iterator[Server]:
    with edge.folder() as folder:
        Path(folder).mkdir()
        server = Server(Path(folder))
        yield server
        server.close()


@pytest.mark.parametrize("scenario", CHOSEN, ids=lambda scenario: scenario.name)
def test_the_client_answers_like_memory(server: Server, scenario: Scenario) -> None:
    with fv.connect("memory:") as memory, fv.connect(server.url) as engine:
        assert engine.capabilities.name == "qdrant"
        expected = ask(load(memory, scenario), scenario)
        answer = ask(load(engine, scenario), scenario)
    last = Funnel.parse(scenario.funnel).last.resolution
    halves = last.code == "f16" and scenario.metric == "cosine"
    near = HALVES if halves else tolerance(scenario)
    compare(expected, answer, near, relevance=2 * HALVES if halves else 1e-4)


def test_a_second_client_finds_the_definition(server: Server) -> None:
    with fv.connect(server.url) as first, fv.connect(server.url) as second:
        table = first.create("docs", dims=8, columns={"n": "integer"})
        table.add(range(100), VECTORS[:100], columns={"n": range(100)})
        table.add_resolution("4:f16", index=True)
        table.create_funnel("docs_search", "4:f16@50 > 8:f32")
        other = second.table("docs")
        assert other.search(VECTORS[7], k=3) == table.search(VECTORS[7], k=3)
        table.create_funnel("more", "8:f32")
        assert other.search(VECTORS[7], k=1, funnel="more")[0].id == 7  # looked for again
        other.create_funnel("another", "8:f32")
        with pytest.raises(Conflict, match="exists already"):
            table.create_funnel("another", "8:f32")
        table.add_resolution("2:f32")
        other.upsert([7], VECTORS[[8]])  # knows of the new resolution before it writes
        assert [status.filled for status in other.status()] == [100, 100]
    inner = next(body for _, path, body in server.log if path.endswith("/points/query"))
    stage = inner["prefetch"]
    assert (stage["using"], stage["limit"], stage["params"]["hnsw_ef"]) == (
        "embedding_4_f16",
        50,
        64,
    )


def test_a_load_goes_on_after_the_server_was_gone(server: Server) -> None:
    with fv.connect(server.url) as engine:
        table = engine.create("docs", dims=8)
        server.fail_after = 2
        with pytest.raises(EngineError, match=r"the disk is full.*1,000 rows of .* are in"):
            table.load(VECTORS, ids=range(2_500), batch_size=500)
        assert len(table) == 1_000
        server.fail_after = None
        report = table.load(VECTORS, ids=range(2_500), batch_size=700)
        assert (report.skipped, report.rows, len(table)) == (1_000, 1_500, 2_500)
        server.fail_after = 1
        with pytest.raises(EngineError, match="the disk is full"):
            table.add(range(5_000, 7_500), VECTORS)
        assert len(table) == 2_500  # all or none


def test_old_servers_and_those_that_are_not_there(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        fv.connect("http://127.0.0.1:1")
    monkeypatch.setattr(Server, "version", "1.14.1")
    with pytest.raises(CapabilityError, match=r"funnelvec needs Qdrant 1\.15"):
        fv.connect(server.url)
    monkeypatch.setattr(Server, "version", "1.17.1")
    with fv.connect(server.url) as engine:
        table = engine.create("docs", dims=8)
        with pytest.raises(CapabilityError, match=r"needs Qdrant 1\.18, and this server is 1\.17"):
            table.add_resolution("4:f16")


def test_a_server_that_takes_the_call_and_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(Timeout, match="took too long"):
            fv.connect(url, timeout=1)


def test_calls_are_no_larger_than_strict_mode_allows(server: Server) -> None:
    with fv.connect(server.url) as engine:
        table = engine.create("docs", dims=8)
        server.collections["docs"].strict = {
            "enabled": True,
            "max_query_limit": 60,
            "search_max_batchsize": 2,
            "upsert_max_batchsize": 25,
        }
        table = engine.table("docs")
        table.add(range(90), VECTORS[:90])
        table.load(VECTORS[90:150], ids=range(90, 150))
        table.add_resolution("4:f16")
        table.create_funnel("docs_search", "4:f16@50 > 8:f32")
        many = table.search_many(VECTORS[:5], k=3)
        assert [hits[0].id for hits in many] == [0, 1, 2, 3, 4]
        assert len(table.sample(1_000).ids) == 150
        assert table.measure_recall(sample=4, k=3).recall > 0.5
    sizes = [
        len(body["points"]) for m, p, body in server.log if m == "PUT" and p.endswith("/points")
    ]
    assert max(sizes) == 25 and sum(sizes) == 151


def test_an_index_that_is_gone_is_named_and_found_again(server: Server) -> None:
    with fv.connect(server.url) as engine:
        columns = {"n": "integer", "a.b": "text", "more": "json"}
        table = engine.create("docs", dims=8, columns=columns)
        rows = {"n": range(50), "a.b": ["x"] * 50, "more": [{"n": 1}] * 50}
        table.add(range(50), VECTORS[:50], columns=rows)
        table.create_funnel("docs_search", "8:f32")
        asked = {"a.b": "x", "more.n": 1, "n": {"$lt": 9}}
        assert len(table.search(VECTORS[0], k=50, filter=asked)) == 9
        bare = QdrantClient(url=server.url, check_compatibility=False)
        bare.delete_payload_index("docs", "n")
        bare.delete_payload_index("docs", '"a.b"')
        again = engine.table("docs")  # sees what the collection is now
        words = r"no payload index of 'n' any more.*client\.create_payload_index\('docs', 'n', 'int"
        with pytest.raises(FilterError, match=words):
            again.search(VECTORS[0], filter={"n": 3})
        assert len(again.search(VECTORS[0], k=50, filter={"more.n": 1})) == 50  # JSON has none
        bare.create_payload_index("docs", "n", "integer")
        assert [hit.id for hit in again.search(VECTORS[0], filter={"n": 3})] == [3]
        with pytest.raises(FilterError, match=r"no payload index of '.a.b.' any more"):
            again.explain(VECTORS[0], filter={"a.b": "x"})
        bare.close()


def test_what_shards_do_to_a_stage_is_said(server: Server) -> None:
    with fv.connect(server.url) as engine:
        table = engine.create("docs", dims=8)
        table.add(range(50), VECTORS[:50])
        table.add_resolution("4:f16")
        table.create_funnel("docs_search", "4:f16@20 > 8:f32")
        assert not any("shards" in note for note in table.explain(VECTORS[0]).notes)
        server.collections["docs"].shards = 3
        notes = engine.table("docs").explain(VECTORS[0]).notes
    assert any("3 shards, and each keeps so many rows of every stage but" in n for n in notes)


def test_strict_mode_is_read_and_named(server: Server) -> None:
    with fv.connect(server.url) as engine:
        table = engine.create("docs", dims=8)
        table.add(range(50), VECTORS[:50])
        table.add_resolution("4:f16")
        table.create_funnel("docs_search", "4:f16@40 > 8:f32")
        server.collections["docs"].strict = {"enabled": True, "max_query_limit": 30}
        with pytest.raises(CapabilityError, match=r"max_query_limit"):
            engine.table("docs").search(VECTORS[0])
        table.create_funnel("one", "8:f32")
        assert len(engine.table("docs").search(VECTORS[0], k=30, funnel="one")) == 30
        with pytest.raises(CapabilityError, match=r"takes 31 rows.*allows 30"):
            engine.table("docs").search(VECTORS[0], k=31, funnel="one")
