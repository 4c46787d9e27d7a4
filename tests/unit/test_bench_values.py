"""The parts of the benchmark that need no database: statistics, data, the oracle, the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from funnelvec.bench.contestants import default_funnel, exact_scan, full_hnsw, our_funnel
from funnelvec.bench.data import generate, load, read_vectors, spectrum
from funnelvec.bench.oracle import Oracle
from funnelvec.bench.overhead import summarize
from funnelvec.bench.ranges import SHARES, generate_ranges, load_ranges
from funnelvec.bench.report import BenchReport, Standing
from funnelvec.bench.stats import Ratio, percentile, ratio
from funnelvec.bench.tuning_report import Cell, TuneBasis, TuneBench
from funnelvec.errors import CapabilityError, InvalidInput, NotFound
from funnelvec.funnel import Funnel


def test_generated_ranges_hold_what_they_say() -> None:
    ranges = generate_ranges(500, dims=8, per_share=3, seed=2)
    assert len(ranges.cases) == 3 * len(SHARES)
    assert sorted(ranges.values) == list(range(500))
    for case in ranges.cases:
        assert len(ranges.matching(case)) == round(case.share * 500) >= 1
    truth = ranges.truth(5)
    units = ranges.data.rows / np.linalg.norm(ranges.data.rows, axis=1, keepdims=True)
    for number in (0, 9, 20):
        case = ranges.cases[number]
        matching = ranges.matching(case)
        best = matching[np.argsort(-(units[matching] @ ranges.data.queries[case.query]))][:5]
        assert truth.recall(number, [int(i) for i in best]) == 1
        assert truth.recall(number, [int(i) for i in best[1:]]) < 1
        outside = next(i for i in range(500) if i not in set(matching.tolist()))
        with pytest.raises(InvalidInput, match="not in"):
            truth.recall(number, [outside])


def test_ranges_are_read_beside_their_vectors(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "rows.npy", rng.standard_normal((60, 4)).astype(np.float32))
    np.save(tmp_path / "queries.npy", rng.standard_normal((5, 4)).astype(np.float16))
    pq.write_table(pa.table({"day": list(range(60)), "f": [0.5] * 60}), tmp_path / "docs.parquet")
    asked = {"qid": [4, 0, 1], "lo": [0, 10, 50], "hi": [5, 39, 99], "target_selectivity": [0.1, 0.5, 0.1]}  # fmt: skip
    pq.write_table(pa.table(asked), tmp_path / "ranges.parquet")
    files = {
        "path": tmp_path / "rows.npy", "queries": tmp_path / "queries.npy",
        "values": tmp_path / "docs.parquet", "by": "day", "ranges": tmp_path / "ranges.parquet",
    }  # fmt: skip
    found = load_ranges(**files)
    assert [(c.query, c.low, c.high, c.aim, c.share) for c in found.cases] == [
        (4, 0, 5, 0.1, 0.1), (1, 50, 99, 0.1, 10 / 60), (0, 10, 39, 0.5, 0.5),
    ]  # fmt: skip
    fewer = load_ranges(**files, rows=30, per_share=1)
    assert (len(fewer.data.rows), len(fewer.values), len(fewer.cases)) == (30, 30, 2)
    for change, error in (
        ({"by": "no"}, NotFound), ({"by": "f"}, InvalidInput), ({"values": "no.parquet"}, NotFound),
        ({"values": tmp_path / "rows.npy"}, InvalidInput), ({"ranges": tmp_path / "docs.parquet"}, NotFound),
        ({"path": tmp_path / "queries.npy"}, InvalidInput),
    ):  # fmt: skip
        with pytest.raises(error):
            load_ranges(**{**files, **change})
    pq.write_table(pa.table({**asked, "qid": [4, 0, 5]}), tmp_path / "ranges.parquet")
    with pytest.raises(InvalidInput, match="queries that"):
        load_ranges(**files)


def test_percentiles_interpolate() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0, 2.0], 0.95) == pytest.approx(1.95)
    assert percentile([7.0], 0.95) == 7.0
    with pytest.raises(InvalidInput):
        percentile([], 0.5)


def test_a_ratio_is_the_median_of_its_repeats_with_their_spread() -> None:
    found = ratio([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    assert found == Ratio(value=1.0, low=0.5, high=1.5, repeats=3)
    assert found.spread == 1.0


def test_a_ratio_whose_spread_is_wider_than_itself_is_not_printed() -> None:
    shaky = Ratio(value=0.42, low=0.3, high=0.75, repeats=5)
    assert shaky.spread > shaky.value
    assert "0.42" not in shaky.text()
    assert shaky.text() == "unstable (0.30 to 0.75)"
    assert shaky.as_json()["value"] is None
    steady = replace(shaky, high=0.71)
    assert steady.text() == "0.42 (0.30 to 0.71)"
    assert steady.as_json()["value"] == 0.42
    for latency, said in ((shaky, "not told"), (steady, "10 % of the best: met")):
        cell = Cell("8:f16@20 > 16:f32", 0.99, 1.0)
        basis = TuneBasis(
            "own", cell.funnel, 0.99, 0.98, 1.0, 90, True, cell, cell, latency, cell, latency, 0.98,
            40, 3, 1.0, 20.0, 9.0, 5, None,
        )  # fmt: skip
        report = TuneBench("set", 9, 16, 90, 10, 0.99, 5, (basis,), 21.0)
        assert said in report.lines()[0]
        assert report.as_json()["bases"][0]["latency"] == latency.as_json()
        assert report.as_json()["bases"][0]["untested"] == latency.as_json()
        assert latency.text() in report.sections()[0].rows[0]
        assert latency.text() in report.sections()[1].rows[0]


def test_a_single_measurement_has_no_spread_to_print() -> None:
    assert Ratio(0.5, 0.5, 0.5, 1).text() == "0.50"


def test_one_value_stands_for_all_repeats_and_nothing_is_divided_by_nothing() -> None:
    assert ratio([4], [2.0, 1.0]) == Ratio(3.0, 2.0, 4.0, 2)
    assert ratio([1.0], [0]) is None
    assert ratio([], [1.0]) is None
    with pytest.raises(InvalidInput):
        ratio([1.0, 2.0], [1.0, 2.0, 3.0])


def test_generated_vectors_have_the_stated_spectrum() -> None:
    dataset = generate(4000, 10, dims=64, seed=3)
    assert dataset.rows.shape == (4000, 64)
    assert dataset.queries.shape == (10, 64)
    assert dataset.rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(dataset.rows, axis=1), 1, rtol=1e-5)
    # Unit length changes the variances little, and all of them alike.
    np.testing.assert_allclose(dataset.rows.var(axis=0), spectrum(64), rtol=0.15)
    again = generate(4000, 10, dims=64, seed=3)
    np.testing.assert_array_equal(dataset.rows, again.rows)
    other = generate(4000, 10, dims=64, seed=4)
    assert not np.array_equal(dataset.rows, other.rows)
    assert (dataset.queries @ dataset.rows.T).max() < 0.999  # queries are draws of their own


def test_the_spectrum_is_the_stated_one() -> None:
    variance = spectrum(1536)
    assert variance.sum() == pytest.approx(1)
    # The ratio of two dimensions follows from the formula alone.
    assert variance[99] / variance[3] == pytest.approx((4 / 100) ** 0.5 * np.exp(-96 / 170))
    shares = np.cumsum(variance)[[63, 127, 255, 511]]
    np.testing.assert_allclose(shares, [0.59, 0.77, 0.91, 0.98], atol=0.006)


def test_a_prefix_of_generated_vectors_finds_what_the_whole_vector_finds() -> None:
    """What makes the set worth searching by funnel: a twelfth of the width keeps the top 10."""
    sample = generate(4000, 40)
    exact = np.argsort(-(sample.queries @ sample.rows.T), axis=1)[:, :10]
    prefix = sample.rows[:, :128] / np.linalg.norm(sample.rows[:, :128], axis=1, keepdims=True)
    near = np.argsort(-(sample.queries[:, :128] @ prefix.T), axis=1)[:, :100]
    kept = np.mean([np.isin(e, n).mean() for e, n in zip(exact, near, strict=True)])
    assert kept > 0.99


def test_held_out_queries_are_not_in_the_table(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float16)
    np.save(tmp_path / "v.npy", vectors)
    dataset = load(tmp_path / "v.npy", queries=10)
    rows = {row.tobytes() for row in dataset.rows}
    assert len(dataset.rows) == 40
    assert len(dataset.queries) == 10
    assert not rows & {query.tobytes() for query in dataset.queries}
    assert len(load(tmp_path / "v.npy", queries=10, rows=7).rows) == 7


def test_queries_of_their_own_leave_the_table_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "v.npy", rng.integers(-127, 127, (30, 8), dtype=np.int8))
    np.save(tmp_path / "q.npy", rng.standard_normal((5, 8)))
    dataset = load(tmp_path / "v.npy", queries_path=tmp_path / "q.npy")
    assert dataset.rows.shape == (30, 8)
    assert dataset.queries.shape == (5, 8)
    np.save(tmp_path / "q.npy", rng.standard_normal((5, 9)))
    with pytest.raises(InvalidInput, match=r"9 dimensions.*8"):
        load(tmp_path / "v.npy", queries_path=tmp_path / "q.npy")


def test_parquet_columns_of_lists_are_read(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    vectors = np.random.default_rng(1).standard_normal((20, 4)).astype(np.float32)
    flat = pa.array(vectors.ravel())
    table = pa.table(
        {
            "name": [f"row {i}" for i in range(20)],
            "embedding": pa.FixedSizeListArray.from_arrays(flat, 4),
        }
    )
    pq.write_table(table, tmp_path / "v.parquet")
    found, _ = read_vectors(tmp_path / "v.parquet")
    np.testing.assert_array_equal(found, vectors)
    with pytest.raises(NotFound, match="name"):
        read_vectors(tmp_path / "v.parquet", column="name")
    pq.write_table(
        table.append_column("second", pa.array(vectors.tolist())), tmp_path / "two.parquet"
    )
    with pytest.raises(InvalidInput, match="--column"):
        read_vectors(tmp_path / "two.parquet")
    found, _ = read_vectors(tmp_path / "two.parquet", column="second")
    np.testing.assert_array_equal(found, vectors)
    pq.write_table(pa.table({"e": [[1.0, 2.0], [3.0]]}), tmp_path / "ragged.parquet")
    with pytest.raises(InvalidInput, match="one length"):
        read_vectors(tmp_path / "ragged.parquet")


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nothing\.npy"):
        load(tmp_path / "nothing.npy")
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(InvalidInput, match=r"\.npy nor \.parquet"):
        load(tmp_path / "x.csv")
    (tmp_path / "x.npy").write_text("no array")
    with pytest.raises(InvalidInput, match="not a NumPy array"):
        load(tmp_path / "x.npy")
    np.save(tmp_path / "flat.npy", np.ones(5))
    with pytest.raises(InvalidInput, match="shape"):
        load(tmp_path / "flat.npy")
    bad = np.ones((5, 3))
    bad[2, 1] = np.nan
    np.save(tmp_path / "nan.npy", bad)
    with pytest.raises(InvalidInput, match="row 2, position 1"):
        load(tmp_path / "nan.npy")
    np.save(tmp_path / "one.npy", np.ones((1, 3)))
    with pytest.raises(InvalidInput, match="too few"):
        load(tmp_path / "one.npy")
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(InvalidInput, match="not a NumPy array"):
        load(tmp_path / "objects.npy")


def test_the_oracle_agrees_with_a_full_sort() -> None:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((300, 12)).astype(np.float32)
    queries = rng.standard_normal((70, 12)).astype(np.float32)
    oracle = Oracle.of(rows, queries, k=10)
    wide = rows.astype(float)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    for i, query in enumerate(queries.astype(float)):
        order = np.argsort(-(wide @ query), kind="stable")
        assert oracle.recall(i, order[:10].tolist()) == 1.0
        assert oracle.recall(i, order[5:15].tolist()) == 0.5
        assert oracle.recall(i, order[10:20].tolist()) == 0.0
        assert oracle.recall(i, []) == 0.0
        # The same row over and over is one row.
        assert oracle.recall(i, [int(order[0])] * 10) == 0.1


def test_rows_that_tie_with_the_last_count_as_found() -> None:
    rows = np.array([[1, 0], [1, 0], [2, 0], [0, 1]], dtype=np.float32)
    oracle = Oracle.of(rows, rows[:1], k=2)
    assert oracle.recall(0, [0, 2]) == oracle.recall(0, [1, 2]) == 1.0
    assert oracle.recall(0, [0, 3]) == 0.5


def test_contestants_state_their_settings() -> None:
    ours = our_funnel("s", Funnel.parse("16:f16@50 > 32:bit@20 > 64:f32"), dims=64)
    assert ours.ours
    (add,) = ours.build[:-1]
    assert "'16:f16@50 > 32:bit@20 > 64:f32'" in add and "funnelvec.add_resolutions" in add
    assert "approximate" not in ours.build[-1]
    assert "approximate => true" in our_funnel("s", Funnel.parse("16:f16"), dims=64).build[-1]
    assert ("hnsw.ef_search", "77") in full_hnsw("s", dims=64, ef_search=77).settings
    assert "::halfvec(3072)" in full_hnsw("s", dims=3072, ef_search=40).statement
    with pytest.raises(CapabilityError, match="4,000"):
        full_hnsw("s", dims=5000, ef_search=40)
    assert exact_scan("s", every=10).every == 10
    assert str(default_funnel(1536)) == "128:f16@200 > 1536:f32"
    assert str(default_funnel(100)) == "50:f16@200 > 100:f32"


def test_overhead_is_the_median_of_paired_differences() -> None:
    # A disturbance that hits both sides of a pair leaves the difference as it is.
    pairs = [[(10.4, 10.0), (50.4, 50.0), (10.4, 10.0)], [(10.2, 10.0), (10.2, 10.0), (9.0, 9.9)]]
    found = summarize("x", pairs, allowed_ms=0.0, target="t", same=True)
    assert found.difference_ms == pytest.approx(0.3)
    assert found.ratio == Ratio(
        pytest.approx(1.03), pytest.approx(1.02), pytest.approx(1.04), repeats=2
    )
    assert found.allowed_ms == pytest.approx(0.5)
    assert found.passed
    assert not replace(found, difference_ms=0.51).passed
    assert summarize("x", pairs, allowed_ms=0.1, target="t", same=True).allowed_ms == pytest.approx(
        0.6
    )


def test_different_rows_are_a_miss_however_fast() -> None:
    assert not summarize("x", [[(1.0, 2.0)]], allowed_ms=0.1, target="t", same=False).passed


def _standing(name: str, times: list[dict[int, float]], **changes: object) -> Standing:
    standing = Standing(
        name=name,
        label=name,
        ours=False,
        settings="",
        statement="select",
        recall=0.9,
        times=tuple(times),
        index_bytes=0,
        total_bytes=100,
        build_seconds=(),
    )
    return replace(standing, **changes)  # type: ignore[arg-type]


def test_ratios_compare_the_queries_that_both_answered() -> None:
    report = BenchReport(
        dataset="d",
        note="n",
        rows=10,
        dims=4,
        queries=2,
        k=3,
        rounds=2,
        server={},
        standings=(
            _standing("ours", [{0: 1.0, 1: 9.0}, {0: 1.0, 1: 9.0}], ours=True, index_bytes=5),
            _standing("exact", [{0: 2.0}, {0: 4.0}]),
            _standing("shaky", [{0: 1.0, 1: 1.0}, {0: 50.0, 1: 50.0}], index_bytes=10),
        ),
        overheads=(),
        notes=("a note",),
    )
    exact, shaky = report.versus
    assert exact.latency == Ratio(0.375, 0.25, 0.5, 2)
    assert exact.index is None
    assert shaky.index == Ratio(0.5, 0.5, 0.5, 1)
    found = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert found["ratios"][1]["latency"]["value"] is None
    assert found["contestants"][0]["p50_ms"] == 5.0
    shown = report.sections()[1].rows
    assert shown[0][1] == "0.38 (0.25 to 0.50)"
    assert shown[1][1].startswith("unstable")
    assert "note: a note" in report.lines()
