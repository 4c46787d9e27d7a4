"""A tiny run of the peers' recipes on a real server: who takes part and what they reach, no times."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from funnelvec import cli
from funnelvec.bench import compare_peers, generate
from funnelvec.errors import InvalidInput

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

FAMILIES = ["funnel", "full HNSW", "halfvec HNSW", "subvector + rerank", "sign codes + rerank"]


def test_each_family_is_at_its_best_for_the_recall(owner_url: str, owner_conn: Connection) -> None:
    dataset = generate(1500, 12, dims=160, seed=2)
    report = compare_peers(
        owner_url, dataset, target=0.9, k=5, rounds=2, bases=["own"], grown_from=300
    )
    (own,) = report.bases
    assert len(own.standings) == len(FAMILIES)
    assert own.standings[0].ours
    assert [each.ours for each in own.standings[1:]] == [False] * 4
    # Keeps of many hundreds among 1,500 rows find everything, so nobody fails to reach 0.9.
    assert min(each.recall for each in own.standings) >= 0.9
    shown = {name: (setting, recall) for name, setting, recall, _ in own.tried}
    assert {"80:f16 > 160:f32", "160:bit~random > 160:f32", "subvector(64)"} <= shown.keys()
    assert {"full HNSW", "halfvec HNSW", "sign codes", "subvector(128)"} <= shown.keys()
    assert shown["full HNSW"][0].startswith("ef_search ")
    for each in own.standings:
        assert 0 < each.index_bytes < each.total_bytes
        assert len(each.build_seconds) == 1
    # On one table: what one of them weighs does not count for another.
    full, halves, subvector, signs = own.standings[1:]
    # Which width of subvector is fastest is up to the machine; 128 numbers of 4 bytes outweigh 160 of 2.
    assert signs.index_bytes < min(subvector.index_bytes, halves.index_bytes)
    assert max(subvector.index_bytes, halves.index_bytes) < full.index_bytes
    assert full.total_bytes - full.index_bytes == signs.total_bytes - signs.index_bytes
    assert own.growth is not None and own.growth.recall >= 0.9
    assert own.growth.total_bytes < own.standings[0].total_bytes
    titles = [section.title for section in report.sections()]
    assert titles == ["Basis: own", "Every recipe at its best", "The same funnel on fewer rows"]
    assert json.loads(json.dumps(report.as_json()))["target"] == 0.9
    left = owner_conn.execute(
        "select count(*) from pg_namespace where nspname like 'funnelvec_bench%'"
    ).fetchone()
    assert left == (0,)


def test_codes_beside_the_table_count_and_a_recall_out_of_reach_is_said(owner_url: str) -> None:
    # Wide enough for three stages among the funnels that are tried, in a column and in a side table.
    dataset = generate(400, 4, dims=1200, seed=3)
    report = compare_peers(owner_url, dataset, target=1.0, rounds=1, bases=["own"])
    (own,) = report.bases
    names = [name for name, *_ in own.tried]
    assert "128:f16 > 512:f16 > 1200:f32, side" in names
    signs = own.standings[-1]
    text = json.dumps(report.as_json())
    assert ("missed" in text) == any(each.recall < 1.0 for each in own.standings)
    assert signs.recall <= 1.0


def test_the_command_takes_a_template_and_one_basis(
    owner_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "peers", "--quick", "--rounds", "1", "--url", owner_url, "--rows", "300"]
    arguments += ["--dims", "32", "--basis", "rotated", "--recall", "0.8"]
    assert cli.main([*arguments, "--funnel", "16:f16 > 32:f32"]) == 0
    out = capsys.readouterr().out
    assert "Basis: rotated" in out and "Basis: own" not in out
    assert "keep of 16:f16" in out and "ours faster" in out
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
    assert [each.mapping_ms for each in rotated.standings[1:]] == [0, 0, 0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"target": 0.0}, "recall"),
        ({"bases": ["upside down"]}, "upside down"),
        ({"rounds": 0}, "rounds"),
        ({"grown_from": 10}, "smaller table"),
        ({"grown_from": 100}, "smaller table"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_made(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        compare_peers("postgresql://nobody@127.0.0.1:1/", generate(100, 2, dims=8), **wrong)
