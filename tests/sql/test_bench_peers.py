"""A tiny run of the peers' recipes on a real server: who takes part and what they reach, no times."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from funnelvec import cli
from funnelvec.bench import compare_peers, generate
from funnelvec.errors import InvalidInput

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

FAMILIES = [
    "funnel", "full HNSW", "halfvec HNSW", "subvector + rerank", "sign codes + rerank",
    "Supabase's adaptive retrieval", "exact scan",
]  # fmt: skip


def test_each_family_is_at_its_best_for_the_recall(owner_url: str, owner_conn: Connection) -> None:
    dataset = generate(700, 8, dims=160, seed=2)
    report = compare_peers(
        owner_url, dataset, target=0.9, k=5, rounds=1, builds=2, clients=2, bases=["own"],
        grown_from=200,
    )  # fmt: skip
    (own,) = report.bases
    # LangChain's stores are tested where they are installed.
    standings = [each for each in own.standings if "LangChain" not in each.family]
    assert [each.family for each in standings] == FAMILIES
    assert own.standings[0].ours and not any(each.ours for each in own.standings[1:])
    # Another build of an index finds more or less than the one that a setting was chosen on.
    assert min(each.recall for each in own.standings) >= 0.75
    shown = {name: (setting, recall) for name, setting, recall, _ in own.tried}
    # Keeps of many hundreds among 700 rows find everything, so nobody fails to reach 0.9.
    assert min(recall for _, recall in shown.values()) >= 0.9
    assert {"80:f16 > 160:f32", "160:bit~random > 160:f32", "subvector(64)"} <= shown.keys()
    assert {"full HNSW", "halfvec HNSW", "sign codes", "subvector(128)"} <= shown.keys()
    assert shown["full HNSW"][0].startswith("ef_search ")
    assert "adaptive retrieval(80)" in shown
    exact = standings.pop()
    assert (exact.index_bytes, exact.build_seconds, exact.recall) == (0, (), 1.0)
    assert [sorted(times) for times in exact.times] == [[0]] * 2  # one query in twenty
    for each in standings:
        assert 0 < each.index_bytes < each.total_bytes
        # Two builds, each with all rounds on it.
        assert len(each.build_seconds) == len(each.recalls) == 2
        assert len(each.times) == len(each.together) == 2
        # An index reads fewer pages than the table has; the scan reads that many at least.
        assert each.pages is not None and each.pages > 0
        assert each.load_seconds > 0 and each.rows == 700
    assert exact.pages is not None and exact.pages >= exact.total_bytes / 8192 / 2
    # On one table: what one of them weighs does not count for another.
    full, halves, subvector, signs, adaptive = standings[1:]
    assert adaptive.index_bytes < full.index_bytes
    # Which width of subvector is fastest is up to the machine; 128 numbers of 4 bytes outweigh 160 of 2.
    assert signs.index_bytes < min(subvector.index_bytes, halves.index_bytes)
    assert max(subvector.index_bytes, halves.index_bytes) < full.index_bytes
    assert full.total_bytes - full.index_bytes == signs.total_bytes - signs.index_bytes
    assert own.growth is not None and own.growth.recall >= 0.9
    assert own.growth.total_bytes < own.standings[0].total_bytes
    titles = [section.title for section in report.sections()]
    assert titles == [
        "Basis: own", "Ratios (above 1: ours is better)", "Bounds", "Every recipe at its best",
        "The same funnel on fewer rows",
    ]  # fmt: skip
    found = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert found["target"] == 0.9
    assert [each["family"] for each in found["bases"][0]["contestants"]][
        : len(FAMILIES)
    ] == FAMILIES
    # What bounds a search: reading the codes of the winner's first stage, and a library.
    assert own.reading is not None
    widths = {"80:f16": 160, "160:bit~random": 20}
    assert own.reading.bytes == 700 * widths[own.reading.resolution]
    assert all(ms > 0 for ms in own.reading.milliseconds)
    for name, _, trace in own.traces:
        assert (name, max(each.recall for each in trace) >= shown[name][1] - 1e-9) == (name, True)
    left = owner_conn.execute(
        "select count(*) from pg_namespace where nspname like 'funnelvec_bench%'"
    ).fetchone()
    assert left == (0,)


def test_codes_beside_the_table_count_and_a_recall_out_of_reach_is_said(owner_url: str) -> None:
    # Wide enough for three stages among the funnels that are tried, in a column and in a side table.
    dataset = generate(150, 3, dims=1200, seed=3)
    report = compare_peers(owner_url, dataset, target=1.0, rounds=1, bases=["own"])
    (own,) = report.bases
    names = [name for name, *_ in own.tried]
    assert "128:f16 > 512:f16 > 1200:f32, side" in names
    (signs,) = (each for each in own.standings if each.family == "sign codes + rerank")
    text = json.dumps(report.as_json())
    assert ("missed" in text) == any(each.recall < 1.0 for each in own.standings)
    assert signs.recall <= 1.0


def test_the_command_takes_a_template_and_one_basis(
    owner_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "peers", "--quick", "--rounds", "1", "--url", owner_url, "--rows", "300"]
    arguments += ["--dims", "32", "--basis", "rotated", "--recall", "0.8", "--clients", "2"]
    assert cli.main([*arguments, "--funnel", "16:f16 > 32:f32"]) == 0
    out = capsys.readouterr().out
    assert "Basis: rotated" in out and "Basis: own" not in out
    assert "keep of 16:f16" in out and "ours faster" in out and "2 clients" in out
    assert "exact scan" in out and "reading all 16:f16 once" in out
    assert cli.main([*arguments, "--funnel", "32:f32"]) != 0
    assert "two or three" in capsys.readouterr().err


def test_the_smaller_table_gets_rotations_of_its_own(owner_url: str) -> None:
    dataset = generate(400, 5, dims=32, seed=4)
    report = compare_peers(
        owner_url, dataset, funnels=["16:f16~pca > 32:f32"], target=0.9, k=5, rounds=1,
        bases=["rotated"], grown_from=300,
    )  # fmt: skip
    (rotated,) = report.bases
    assert rotated.growth is not None and rotated.growth.recall >= 0.9
    assert [note for note in report.notes if "fitting took" in note]
    assert rotated.standings[0].mapping_ms > 0 and "_fv_mapped" in rotated.standings[0].statement
    assert {each.mapping_ms for each in rotated.standings[1:]} == {0}


def test_a_library_in_this_process_is_a_bound_and_no_peer(owner_url: str) -> None:
    pytest.importorskip("usearch")
    dataset = generate(500, 10, dims=64, seed=5)
    report = compare_peers(
        owner_url, dataset, funnels=["32:f16 > 64:f32"], target=0.95, k=5, rounds=1, bases=["own"]
    )
    (own,) = report.bases
    (bound,) = own.bounds
    assert bound.family == "usearch in this process" and bound.recall >= 0.95
    assert bound.pages is None and 0 < bound.index_bytes < bound.total_bytes
    assert bound.family not in [each.family for each in own.standings]


def test_what_is_not_installed_is_said(owner_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in ("usearch.index", "langchain_postgres"):
        monkeypatch.setitem(sys.modules, missing, None)
    report = compare_peers(
        owner_url, generate(200, 3, dims=16), funnels=["8:f16 > 16:f32"], target=0.5, k=5,
        rounds=1, bases=["own"],
    )  # fmt: skip
    said = " ".join(report.notes)
    assert "funnelvec[bench]" in said and "funnelvec[peers]" in said
    assert "pgvectorscale" in said or any("scale" in s.family for s in report.bases[0].standings)
    assert report.bases[0].bounds == ()


def test_a_package_that_fails_costs_its_own_line_only(
    owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("usearch")

    def broken(self: object) -> float:
        raise OSError("no such instruction")

    monkeypatch.setattr("funnelvec.bench.library.Library.build", broken)
    report = compare_peers(
        owner_url, generate(150, 3, dims=16), funnels=["8:f16 > 16:f32"], target=0.5, k=5,
        rounds=1, bases=["own"],
    )  # fmt: skip
    assert any("OSError: no such instruction" in note for note in report.notes)
    assert report.bases[0].bounds == () and report.bases[0].standings[0].ours


@pytest.mark.filterwarnings("ignore")  # those of SQLAlchemy and LangChain are not ours
def test_langchains_stores_find_what_they_were_given(owner_url: str) -> None:
    pytest.importorskip("langchain_postgres")
    report = compare_peers(
        owner_url, generate(600, 20, dims=24), funnels=["12:f16 > 24:f32"], target=0.95, k=5,
        rounds=1, builds=2, clients=2, bases=["own"],
    )  # fmt: skip
    families = {each.family: each for each in report.bases[0].standings}
    new, old = families["LangChain PGVectorStore"], families["LangChain PGVector"]
    assert new.recall >= 0.95 and len(new.build_seconds) == 2 and new.index_bytes > 0
    assert old.recall == 1.0 and old.build_seconds == () and old.index_bytes == 0
    assert new.load_seconds > 0 and len(new.together) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"target": 0.0}, "recall"),
        ({"bases": ["upside down"]}, "upside down"),
        ({"rounds": 0}, "rounds"),
        ({"builds": 0}, "builds"),
        ({"clients": 0}, "clients"),
        ({"clients": 65}, "clients"),
        ({"grown_from": 10}, "smaller table"),
        ({"grown_from": 100}, "smaller table"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_made(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        compare_peers("postgresql://nobody@127.0.0.1:1/", generate(100, 2, dims=8), **wrong)
