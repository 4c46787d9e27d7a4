"""Papers as recipes: their formulas against slow ones, and what is said where data is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from funnelvec import cli
from funnelvec.bench.papers import (
    PAPERS,
    leanvec,
    matryoshka,
    measure_papers,
    ordering,
    pca_rag,
    sets,
)
from funnelvec.errors import InvalidInput, NotFound
from funnelvec.fitting.axes import principal, random_orthogonal, sphering


def drawn(rows: int, dims: int, seed: int = 0) -> sets.Matrix:
    rng = np.random.default_rng(seed)
    return sets.units(rng.standard_normal((rows, dims)) * np.arange(1, dims + 1) ** -0.5)


def test_average_precision_divides_by_k_and_not_by_what_is_relevant() -> None:
    right = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=np.bool_)
    # (1/1 + 2/3) / 4, 0 and 1; a mean by hand.
    assert matryoshka.mean_average_precision(right, 4) == pytest.approx((5 / 12 + 0 + 1) / 3)
    assert matryoshka.mean_average_precision(right, 2) == pytest.approx((1 / 2 + 0 + 1) / 3)


def test_a_prefix_is_searched_at_unit_length() -> None:
    rows, queries = drawn(200, 16), drawn(5, 16, seed=1)
    found = matryoshka.retrieve(rows, queries, dims=4, count=10)
    for i, query in enumerate(queries):
        cut = rows[:, :4] / np.linalg.norm(rows[:, :4], axis=1, keepdims=True)
        assert found[i].tolist() == np.argsort(-(cut @ query[:4]))[:10].tolist()


def test_a_cascade_leaves_its_list_and_one_step_is_adaptive_retrieval() -> None:
    rows, queries = drawn(300, 16), drawn(6, 16, seed=1)
    ids = matryoshka.retrieve(rows, queries, dims=4, count=50)
    before = ids.copy()
    adaptive = matryoshka.cascade(rows, queries, ids, [(16, 50)])
    assert np.array_equal(ids, before)
    for listed, ranked, query in zip(ids, adaptive, queries, strict=True):
        assert ranked.tolist() == sorted(listed.tolist(), key=lambda i: -float(rows[i] @ query))
    # What a step does not reach stays where it was, and steps thin the list out.
    funnel = matryoshka.cascade(rows, queries, ids, [(8, 20), (16, 10)])
    assert np.array_equal(funnel[:, 20:], ids[:, 20:])
    assert [set(row) for row in funnel[:, :20]] == [set(row) for row in ids[:, :20]]
    # Ranked in place, a short list that follows a long one is better than its own.
    flattered = matryoshka.cascade(rows, queries, adaptive, [(16, 10)])
    fresh = matryoshka.cascade(rows, queries, ids, [(16, 10)])
    exact = matryoshka.retrieve(rows, queries, dims=16, count=10)

    def kept(found: np.ndarray) -> float:  # type: ignore[type-arg]
        return float(
            np.mean([np.isin(a, b[:10]).mean() for a, b in zip(exact, found, strict=True)])
        )

    assert kept(flattered) > kept(fresh)


def test_operations_are_counted_as_the_paper_does() -> None:
    # 1,281,167 rows by 16 of 2,048 dimensions: 20.5 million, and 0.41 for the shortlist of 200.
    assert matryoshka.operations(1_281_167, 16, []) == 20_498_672
    assert matryoshka.operations(1_281_167, 16, [(2048, 200)]) == 20_498_672 + 409_600
    assert 1_281_167 * 2048 / matryoshka.operations(1_281_167, 16, []) == 128
    assert matryoshka._steps(16, 2048, (200, 100, 50, 25, 10)) == [
        (32, 200), (64, 100), (128, 50), (256, 25), (2048, 10),
    ]  # fmt: skip


def test_rank_correlation_and_ndcg_by_hand() -> None:
    a = np.array([1.0, 2.0, 2.0, 4.0])
    assert pca_rag.spearman(a, a) == pytest.approx(1)
    assert pca_rag.spearman(a, -a) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert pca_rag.spearman(a, np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(
        4.5 / (4.5 * 5) ** 0.5
    )
    assert np.isnan(pca_rag.spearman(a, np.ones(4)))
    grades = np.array([3.0, 0.0, 1.0, 0.0])
    best = 7 + 1 / np.log2(3)
    assert pca_rag.ndcg(np.array([0, 2, 1]), grades, 3) == pytest.approx(1)
    assert pca_rag.ndcg(np.array([1, 2, 0]), grades, 3) == pytest.approx(
        (1 / np.log2(3) + 7 / 2) / best
    )
    assert np.isnan(pca_rag.ndcg(np.array([0]), np.zeros(4), 1))


def test_learned_maps_lose_less_of_what_other_queries_ask_for() -> None:
    data = leanvec.out_of_distribution(rows=600, queries=400, dims=32)
    width = 8
    of_rows, of_queries = leanvec._moments(data.rows), leanvec._moments(data.queries)
    pca = principal(data.rows, width)

    def loss(maps: leanvec.Maps) -> float:
        # The definition, pair by pair, not the traces that the fits use.
        missed = (data.queries @ maps[0].T) @ (data.rows @ maps[1].T).T - data.queries @ data.rows.T
        return float((missed**2).mean())

    assert loss((pca, pca)) == pytest.approx(leanvec._loss(pca, pca, of_rows, of_queries), rel=1e-4)
    both = leanvec.searched(data.rows, data.queries, width)
    walked = leanvec.frank_wolfe(data.rows, data.queries, width)
    closed = sphering(data.rows, data.queries, width)
    assert loss(both) < loss((pca, pca))
    assert loss(walked) < loss(both)
    # The closed form is the best that rank can do, but for its ridge; the others come close to it.
    assert loss(closed) < loss(both) and loss(closed) < 1.1 * loss(walked)
    assert np.linalg.norm(walked[0], 2) <= 1 + 1e-9 and np.linalg.norm(walked[1], 2) <= 1 + 1e-9
    for maps in (both, walked, closed):
        assert leanvec.kept(data, maps, width) > leanvec.kept(data, (pca, pca), width)
    whole = random_orthogonal(32, 1)
    assert leanvec.kept(data, (whole, whole), 32) == 1


def test_orders_of_insertion_are_by_local_intrinsic_dimension() -> None:
    rng = np.random.default_rng(0)
    # A thin line of rows among a cloud: its neighbourhoods have one dimension.
    line = np.zeros((150, 12))
    line[:, 0], line[:, 1] = 1, np.linspace(-0.5, 0.5, 150)
    rows = sets.units(np.concatenate([line, rng.standard_normal((150, 12))]))
    found = ordering.intrinsic_dimension(rows)
    assert found[20:130].max() < 2 < found[150:].min()
    named = ordering.orders(rows)
    assert all(sorted(order) == list(range(300)) for order in named.values())
    assert np.array_equal(named["falling LID"], named["rising LID"][::-1])
    assert found[named["rising LID"][0]] < found[named["rising LID"][-1]]


def test_what_needs_data_is_skipped_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = measure_papers(names=["pca-rag"], quick=True)
    assert [each.title.split(",")[0] for each in report.findings] == ["speed and size on generated"]
    assert "csfcube needs the folder" in report.skipped[0]
    empty = measure_papers(tmp_path, names=["matryoshka", "pca-rag"])
    assert empty.findings == () and len(empty.skipped) == 5
    assert (
        cli.main(["bench", "papers", "--paper", "pca-rag", "--data", str(tmp_path), "--json"]) == 0
    )
    assert len(json.loads(capsys.readouterr().out)["skipped"]) == 2
    with pytest.raises(InvalidInput, match="no paper 'mrl'"):
        measure_papers(names=["mrl"])
    with pytest.raises(NotFound, match="nowhere"):
        measure_papers(tmp_path / "nowhere")
    assert set(PAPERS) == {"matryoshka", "pca-rag", "leanvec", "lid-order"}


def test_judged_sets_are_read_and_measured(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(0)
    (tmp_path / "clinc").mkdir()
    (tmp_path / "csfcube").mkdir()
    centres = drawn(4, 64)
    intents = np.arange(1240) % 4
    vectors = sets.units(centres[intents] + 0.05 * rng.standard_normal((1240, 64)))
    for name in ("wordllama256.i8.npy", "minilm384.f16.npy"):
        np.save(tmp_path / "clinc" / name, vectors)
    columns = {
        "intent": [str(i) for i in intents], "split": ["train"] * 1200 + ["test"] * 40,
        "oos": [i == 1 for i in range(1240)],
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "clinc" / "texts.parquet")
    np.save(tmp_path / "csfcube" / "docs.minilm384.f16.npy", vectors[:300])
    np.save(tmp_path / "csfcube" / "queries.minilm384.f16.npy", centres)
    judged = [f"{q}\t{d}\t{3 if intents[d] == q else 0}" for q in range(4) for d in range(300)]
    (tmp_path / "csfcube" / "qrels.tsv").write_text(
        "\n".join(["query-id\tcorpus-id\tscore", *judged])
    )
    report = measure_papers(tmp_path, names=["matryoshka", "pca-rag"], quick=True)
    words, other, agreement = report.findings
    # Classes lie apart, so all ways find them: every row says 100.
    assert {row[1] for row in words.rows if row[0].startswith("exact")} == {"100.00"}
    assert "1,199 rows, 40 queries" in words.title and len(words.rows) == 1 + 3 + 6
    assert words.rows[0][-1] == "65.20" and "65.27" in {row[-1] for row in other.rows}
    assert agreement.rows[0][2] == "1.000"
    assert [row[0].split(":")[0] for row in agreement.rows][-1] == "funnel"
    assert len(report.skipped) == 2  # highdim1536, for both
