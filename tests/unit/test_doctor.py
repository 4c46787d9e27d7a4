"""The doctor's measures against closed forms and against slow implementations of their own."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import funnelvec as fv
from funnelvec import codes
from funnelvec.doctor import (
    bits,
    duplicates,
    hubness,
    lid,
    norms,
    order,
    pairs,
    prefixes,
    rank,
    stages,
)
from funnelvec.doctor.intervals import Bootstrap, poisson, wilson
from funnelvec.doctor.neighbours import Places, nearest, places, space, space_of_code
from funnelvec.doctor.rows import Prepared, prepare
from funnelvec.resolution import Resolution
from funnelvec.types import METRICS, Metric

Vectors = npt.NDArray[np.float32]


def prepared(vectors: Any, metric: Metric = "cosine", **options: Any) -> Prepared:
    given = {"ids": None, "base": "f32", "population": None, "queries": 200, "seed": 0, **options}
    return prepare(np.asarray(vectors), metric=metric, **given)


def gaussian(rows: int, dims: int, *, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).standard_normal((rows, dims)).astype(np.float32)


def decaying(rows: int, dims: int, *, power: float = 1.0, seed: int = 0) -> Vectors:
    """What a Matryoshka model or PCA gives: the first dimensions carry the most."""
    return gaussian(rows, dims, seed=seed) * (np.arange(1, dims + 1) ** -power).astype(np.float32)


def rotated(vectors: Vectors, *, seed: int = 1) -> Vectors:
    """The same rows, their information spread evenly over the dimensions."""
    turn, _ = np.linalg.qr(gaussian(vectors.shape[1], vectors.shape[1], seed=seed))
    return (vectors @ turn).astype(np.float32)


def unit(vectors: Vectors) -> Vectors:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# -- intervals -----------------------------------------------------------------------------------


def test_intervals_of_shares_are_wilsons() -> None:
    # Figures of the closed form, by hand: (p + zz/2 -+ z sqrt(...)) / (1 + zz).
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("count", [0, 1, 3, 10, 100])
def test_intervals_of_counts_are_close_to_the_exact_ones(count: int) -> None:
    def tail(mean: float, most: int) -> float:
        return sum(
            math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in range(most + 1)
        )

    low, high = poisson(count)
    assert tail(high, count) == pytest.approx(0.025, abs=0.001)
    if count:
        assert 0.012 < 1 - tail(low, count - 1) < 0.027  # too careful below two, by design
    else:
        assert low == 0


def test_the_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        values = rng.exponential(size=80)
        low, high = Bootstrap(80, rng).interval(values)
        hits += low <= 1 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_the_bootstrap_does_not_claim_certainty_where_all_values_agree() -> None:
    bootstrap = Bootstrap(100, np.random.default_rng(0))
    assert bootstrap.interval(np.ones(100), bounded=True) == (0.97, 1.0)
    assert bootstrap.interval(np.zeros(100), bounded=True) == (0.0, 0.03)


# -- neighbours ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("resolution", ["32:f32", "32:f16", "12:f16", "12:bit"])
def test_neighbours_are_those_that_the_twins_of_the_codes_find(
    metric: Metric, resolution: str
) -> None:
    vectors = gaussian(300, 32) * np.random.default_rng(1).lognormal(0, 1, (300, 1)).astype("f4")
    parsed = Resolution.parse(resolution)
    stored = codes.encode(parsed, vectors, metric=metric)
    found = space_of_code(parsed, vectors, metric, base="f32")
    for query in range(0, 300, 37):
        slow = codes.score(parsed, stored[query], stored, metric=metric)
        slow[query] = -np.inf
        fast = found.scores(np.array([query]))[0]
        best = nearest(fast[np.newaxis], 10)[0]
        # The same scores from the best down, so the same rows but for ties.
        assert sorted(slow[best], reverse=True) == pytest.approx(sorted(slow)[:-11:-1], abs=1e-5)


def test_neighbours_of_huge_and_of_far_vectors() -> None:
    near = gaussian(50, 8)
    for shift, scale in ((0, 1e37), (1e3, 1)):
        moved = near * np.float32(scale) + np.float32(shift)
        found = space(moved, "euclidean").nearest(np.arange(50), 5)
        wide = moved.astype(np.float64)
        apart = np.linalg.norm(wide[:, np.newaxis] - wide, axis=2)
        np.fill_diagonal(apart, np.inf)
        assert (found == np.argsort(apart, axis=1)[:, :5]).mean() > 0.95


def test_places_and_keeps_are_what_sorting_says() -> None:
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 12, (40, 60)).astype(np.float32)  # many ties
    truth = np.array([rng.permutation(60)[:5] for _ in range(40)])
    found = places(scores, truth)
    for i, j in itertools.product(range(40), range(5)):
        score = scores[i, truth[i, j]]
        assert found.better[i, j] == sum(score < other for other in scores[i])
        assert found.equal[i, j] == sum(score == other for other in scores[i])
    # Ties broken at random, many times, keep what `kept` expects.
    kept = np.zeros(40)
    for _ in range(800):
        ranked = np.lexsort((rng.random((40, 60)), -scores), axis=1)[:, :20]
        kept += [np.isin(truth[i], ranked[i]).mean() for i in range(40)]
    assert found.kept(20) == pytest.approx(kept / 800, abs=0.06)
    shortest = next(keep for keep in range(5, 61) if found.kept(keep).mean() >= 0.9)
    assert found.keep_for(0.9) == shortest


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = decaying(150, 16)
    whole = prepared(vectors)
    truth = whole.truth
    monkeypatch.setattr("funnelvec.doctor.neighbours._SCORES", 400)
    assert np.array_equal(prepared(vectors).truth, truth)


# -- norms, pairs, rank ---------------------------------------------------------------------------


def test_norms() -> None:
    vectors = gaussian(500, 6)
    lengths = [math.sqrt(math.fsum(float(x) ** 2 for x in row)) for row in vectors]
    found = norms.measure(prepared(vectors))
    assert found.mean == pytest.approx(statistics.fmean(lengths))
    assert found.variation == pytest.approx(statistics.stdev(lengths) / statistics.fmean(lengths))
    assert (found.smallest, found.largest) == pytest.approx((min(lengths), max(lengths)))
    assert sum(found.histogram.counts) == 500
    # The interval is as wide as one from drawing the rows again.
    rng = np.random.default_rng(0)
    again = [np.std(x := rng.choice(lengths, 500)) / np.mean(x) for _ in range(2000)]
    low, high = found.variation_interval
    assert (low, high) == pytest.approx(tuple(np.percentile(again, (2.5, 97.5))), abs=0.004)


def test_norms_name_zero_vectors_and_unit_vectors() -> None:
    even = unit(gaussian(100, 8))
    rows = prepared(even)
    assert norms.describe(norms.measure(rows), rows).level == "fine"
    broken = prepared(np.vstack([even, np.zeros((5, 8), np.float32)]))
    finding = norms.describe(norms.measure(broken), broken)
    assert finding.level == "problem" and "4.8 %" in finding.found
    uneven = prepared(even * np.linspace(0.5, 2, 100, dtype=np.float32)[:, np.newaxis])
    assert norms.describe(norms.measure(uneven), uneven).level == "note"


def test_the_mean_cosine_is_that_of_all_pairs() -> None:
    points = unit(gaussian(60, 5) + 0.5)
    slow = [float(a @ b) for a, b in itertools.combinations(points.astype(np.float64), 2)]
    mean, error = pairs.mean_cosine(points)
    assert mean == pytest.approx(statistics.fmean(slow), abs=1e-6)
    without = [pairs.mean_cosine(np.delete(points, i, axis=0))[0] for i in range(60)]
    jackknife = math.sqrt(59 / 60 * sum((x - statistics.fmean(without)) ** 2 for x in without))
    assert error == pytest.approx(jackknife, rel=0.1)


def test_random_pairs_of_even_directions_and_of_a_cone() -> None:
    even = prepared(gaussian(3000, 64))
    found = pairs.measure(even, even.space, with_neighbours=True)
    assert found.mean_interval[0] < 0 < found.mean_interval[1] or abs(found.mean) < 1e-3
    assert found.sd == pytest.approx(1 / math.sqrt(64), rel=0.02)
    # A common part of the same length as the rest: the cosine of two rows is a half.
    cone = gaussian(3000, 400)
    cone[:, 0] = 20
    rows = prepared(cone)
    assert pairs.measure(rows, rows.space, with_neighbours=False).mean == pytest.approx(
        0.5, abs=0.01
    )


@pytest.mark.parametrize("rows_more", [True, False])
def test_the_spectrum_is_the_planted_one(rows_more: bool) -> None:
    n, d = (200, 12) if rows_more else (30, 90)
    rank_ = min(n - 1, d) // 2
    rng = np.random.default_rng(0)
    left = rng.standard_normal((n, rank_))
    left, _ = np.linalg.qr(left - left.mean(axis=0))
    right, _ = np.linalg.qr(rng.standard_normal((d, rank_)))
    planted = np.arange(rank_, 0, -1.0)
    points = ((left * np.sqrt(planted * (n - 1))) @ right.T).astype(np.float32)
    values = rank.spectrum(points)
    assert values[:rank_] == pytest.approx(planted, rel=1e-4)
    assert values[rank_:] == pytest.approx(0, abs=1e-4)
    shares = planted / planted.sum()
    wanted = math.exp(-math.fsum(p * math.log(p) for p in shares))
    assert rank.effective_rank(values / values.sum()) == pytest.approx(wanted, rel=1e-3)


def test_effective_rank_counts_equal_directions() -> None:
    assert rank.effective_rank(np.full(7, 1 / 7)) == pytest.approx(7)
    assert rank.effective_rank(np.array([1.0, 0, 0])) == 1


def test_a_dimension_that_outweighs_the_others_is_named() -> None:
    vectors = gaussian(400, 60)
    vectors[:, 17] += 30
    rows = prepared(vectors)
    finding = rank.describe(rank.measure(rows, rows.space), rows)
    assert finding.level == "note" and "Dimension 18 alone" in finding.found
    calm = prepared(decaying(400, 60, power=0.5))
    assert rank.describe(rank.measure(calm, calm.space), calm).level == "fine"


# -- duplicates -----------------------------------------------------------------------------------


def test_copies_are_counted_and_named() -> None:
    vectors = gaussian(100, 8)
    vectors[10] = vectors[11] = vectors[12] = vectors[3]
    vectors[50] = vectors[51]
    vectors[0, 0], vectors[1] = 0.0, vectors[0]
    vectors[1, 0] = -0.0  # the same number, written otherwise
    ids = [f"k{i}" for i in range(100)]
    found = duplicates.measure(prepared(vectors, ids=ids), with_neighbours=True)
    assert found.copies == 0.08
    assert (found.largest, found.examples) == (4, ("k3", "k10", "k11", "k12"))
    assert found.pairs == 6 + 1 + 1
    assert found.twins == pytest.approx(2 * 8 / 100)
    assert found.twins_interval == (found.twins, found.twins)  # the table itself was counted


def test_copies_in_the_table_are_estimated_without_bias() -> None:
    table = np.repeat(gaussian(500, 4), 3, axis=0)  # every row has two copies
    rng = np.random.default_rng(0)
    estimates, covered = [], 0
    for _ in range(200):
        rows = prepared(table[rng.choice(1500, 300, replace=False)], population=1500)
        found = duplicates.measure(rows, with_neighbours=False)
        estimates.append(found.twins)
        covered += found.twins_interval[0] <= 2 <= found.twins_interval[1]
    assert statistics.fmean(estimates) == pytest.approx(2, rel=0.03)
    assert covered / 200 > 0.85


def test_near_copies() -> None:
    vectors = gaussian(200, 32)
    vectors[100:120] = vectors[:20] + 0.02 * gaussian(20, 32, seed=9)
    rows = prepared(vectors)
    found = duplicates.measure(rows, with_neighbours=True)
    assert found.near == 0.2
    assert duplicates.describe(found, rows).level == "note"


# -- prefixes, stages, bits -----------------------------------------------------------------------


def curve(vectors: Vectors, metric: Metric = "cosine", **options: Any) -> Any:
    rows = prepared(vectors, metric, **options)
    return rows, prefixes.measure(rows, Bootstrap(len(rows.queries), rows.rng))


@pytest.mark.parametrize("metric", METRICS)
def test_the_prefix_curve_is_what_the_memory_engine_keeps(metric: Metric) -> None:
    vectors = decaying(400, 24, power=0.7)
    vectors *= np.random.default_rng(2).lognormal(0, 0.3, (400, 1)).astype(np.float32)
    rows, found = curve(vectors, metric, queries=60)
    with fv.connect("memory:") as engine:
        table = engine.create("t", dims=24, metric=metric)
        table.add(range(400), vectors)
        for resolution, slack in (("8:f16", 0.004), ("24:bit", 0.03)):  # ties go by key there
            table.add_resolution(resolution, metric=metric)
            table.create_funnel(f"by {resolution}", f"{resolution}@101 > 24:f32", metric=metric)
            table.create_funnel("exact", "24:f32", replace=True, metric=metric)
            kept = []
            for query in rows.order[rows.queries]:
                truth = [
                    h.id
                    for h in table.search(vectors[query], k=11, funnel="exact")
                    if h.id != query
                ]
                hits = [
                    h.id
                    for h in table.search(vectors[query], k=101, funnel=f"by {resolution}")
                    if h.id != query
                ]
                kept.append(len(set(truth[:10]) & set(hits)) / 10)
            stage = next(s for s in found.stages if s.resolution == resolution)
            # The engine ranks the query too, which takes one of 101 places unless it is not there.
            assert stage.recall[1] == pytest.approx(np.mean(kept), abs=slack)


def test_ordered_dimensions_are_told_from_others() -> None:
    vectors = decaying(1500, 128, power=0.5)
    for seed in range(4):
        assert curve(vectors, queries=100, seed=seed)[1].order == "first"
        turned = np.ascontiguousarray(vectors[:, ::-1])
        assert curve(turned, queries=100, seed=seed)[1].order == "none"
    assert curve(gaussian(200, 2))[1].order == "unknown"  # no prefix is half as wide


def test_dimensions_that_are_not_ordered_seldom_seem_to_be() -> None:
    found = [
        curve(rotated(decaying(800, 64, power=0.8), seed=seed), seed=seed, queries=80)[1].order
        for seed in range(1, 13)
    ]
    assert found.count("none") >= 10  # one in twenty is allowed by an interval of 95 %


def test_what_is_said_of_a_model_that_is_not_matryoshka() -> None:
    rows, found = curve(rotated(decaying(2000, 64, power=0.8), seed=2))
    finding = stages.describe(found, stages.choose(found, rows), rows)
    assert "not Matryoshka" in finding.found and "costs more than with a Matry" in finding.advice
    rows, found = curve(decaying(2000, 64, power=0.8))
    assert "Matryoshka-trained, or ordered by PCA" in (
        stages.describe(found, stages.choose(found, rows), rows).found
    )


def test_the_stage_that_is_chosen_delivers() -> None:
    vectors = decaying(3000, 48)
    rows, found = curve(vectors, queries=300)
    choice = stages.choose(found, rows)
    assert choice is not None
    fv.Funnel.parse(choice.funnel).check(dims=48, code="f32", approximate=False)
    assert choice.smaller is None or fv.Funnel.parse(choice.smaller).stages[0].keep > stages.USUAL  # type: ignore[operator]
    cheaper = [s for s in found.stages if s.bytes < choice.bytes]
    assert all(stages.rounded(s.keep_at(found.rows, 3000)) > stages.USUAL for s in cheaper)
    with fv.connect("memory:") as engine:
        table = engine.create("t", dims=48)
        table.add(range(3000), vectors)
        table.add_resolution(choice.resolution)
        table.create_funnel("t_search", choice.funnel)
        assert table.measure_recall(sample=150, k=10).recall >= 0.98


def test_lists_are_carried_on_as_they_grew_and_rounded_up() -> None:
    stage = prefixes.Stage("8:f16", 8, "f16", 16, (), (), None, keep=80, keep_part=20)
    assert stage.keep_at(1000, 1000) == 80
    assert stage.keep_at(1000, 4000) == pytest.approx(320)  # four times longer at four times more
    still = prefixes.Stage("8:f16", 8, "f16", 16, (), (), None, keep=80, keep_part=90)
    assert still.keep_at(1000, 10**6) == 80
    wild = prefixes.Stage("8:f16", 8, "f16", 16, (), (), None, keep=800, keep_part=10)
    assert wild.keep_at(1000, 10**6) == 800_000  # never faster than the table
    assert [stages.rounded(x) for x in (1, 20, 21, 99.5, 101, 110, 1441)] == [
        20,
        20,
        21,
        100,
        110,
        110,
        1500,
    ]


def test_no_stage_is_a_problem_that_says_so() -> None:
    rows, found = curve(gaussian(4000, 64), population=10**8)
    hopeless = prefixes.Prefixes(
        found.keeps, tuple(s for s in found.stages if s.width < 33), None, None, "none", 4000, 200
    )
    assert stages.choose(hopeless, rows) is None
    finding = stages.describe(hopeless, None, rows)
    assert finding.level == "problem" and "Search the column itself" in finding.advice


def test_balance_is_that_of_the_codes() -> None:
    vectors = gaussian(500, 40) + np.linspace(-2, 2, 40, dtype=np.float32)
    vectors[:, 5] = 3
    rows = prepared(vectors)
    found = bits.measure(rows)
    stored = codes.encode(Resolution.parse("40:bit"), vectors)
    assert found.balance == pytest.approx(codes.bits.balance(stored, dims=40))
    assert found.constant == 1
    assert dict(found.by_width)[16] == pytest.approx(
        codes.bits.balance(codes.encode(Resolution.parse("16:bit"), vectors), dims=16)
    )


# -- local intrinsic dimension ---------------------------------------------------------------------


def ball(n: int, d: int, *, seed: int = 0) -> Vectors:
    rng = np.random.default_rng(seed)
    return unit(gaussian(n, d, seed=seed)) * (rng.random((n, 1)) ** (1 / d)).astype(np.float32)


@pytest.mark.parametrize(("dims", "wanted"), [(2, 1.98), (5, 4.6), (10, 8.3)])
def test_local_dimension_of_a_ball(dims: int, wanted: float) -> None:
    # The figures of METHODS.md, T12: n = 4,000, k = 100; the edge of the ball makes them low.
    rows = prepared(ball(4000, dims), "euclidean", queries=1000)
    found = lid.measure(rows, Bootstrap(len(rows.queries), rows.rng))
    assert found is not None and found.neighbours == 100
    assert found.widths[-1].mean == pytest.approx(wanted, rel=0.05)


def test_local_dimension_of_a_cube_does_not_depend_on_the_space_around_it() -> None:
    cube = np.random.default_rng(0).random((3000, 4)).astype(np.float32)
    wide = rotated(np.hstack([cube, np.zeros((3000, 28), np.float32)]))
    estimates = []
    for vectors in (cube, wide):
        rows = prepared(vectors, "euclidean")
        found = lid.measure(rows, Bootstrap(len(rows.queries), rows.rng))
        assert found is not None
        estimates.append(found.widths[-1].mean)
    assert estimates[0] == pytest.approx(estimates[1], rel=1e-3)
    assert 3.2 < estimates[0] < 4.2


def test_local_dimension_is_the_formula() -> None:
    distances = np.sort(np.random.default_rng(1).random((20, 9)), axis=1)
    for row, found in zip(distances, lid.from_distances(distances), strict=True):
        assert found == pytest.approx(-1 / statistics.fmean(math.log(r / row[-1]) for r in row))
    strange = np.array([[0, 0, 0.0], [1, 1, 1], [0, 0.5, 1]])
    found = lid.from_distances(strange)
    assert np.isnan(found[:2]).all()
    assert found[2] == pytest.approx(2 / math.log(2))


# -- hubs and order --------------------------------------------------------------------------------


def test_occurrences_are_counted_as_by_hand() -> None:
    vectors = gaussian(80, 6)
    counts = [0] * 80
    for i, row in enumerate(unit(vectors)):
        falling = sorted(
            (j for j in range(80) if j != i), key=lambda j: -float(row @ unit(vectors)[j])
        )
        for j in falling[:10]:
            counts[j] += 1
    found = hubness.occurrences(space(vectors, "cosine"), 10)
    assert list(found) == counts
    mean, sd = statistics.fmean(counts), statistics.pstdev(counts)
    wanted = statistics.fmean(((c - mean) / sd) ** 3 for c in counts)
    assert hubness.skewness(found) == pytest.approx(wanted)


def test_a_planted_hub_is_found_and_named() -> None:
    vectors = unit(gaussian(600, 60)) * 10  # far from one another, all equally far from the middle
    vectors[123] = 0
    rows = prepared(vectors, "euclidean", ids=list(range(1000, 1600)))
    found = hubness.measure(rows)
    assert found.hubs[0] == hubness.Hub("1123", 599)
    assert hubness.describe(found, rows).level == "problem"
    assert "1123" in hubness.describe(found, rows).advice
    plain = hubness.measure(prepared(gaussian(600, 3), "euclidean"))
    assert plain.skewness < 1.2


def test_cosine_and_dot_agree_on_unit_vectors_only() -> None:
    vectors = unit(gaussian(800, 24))
    even = prepared(vectors)
    found = order.measure(even, even.space, Bootstrap(200, even.rng))
    assert found.overlap > 0.999 and found.correlation > 0.9999
    assert order.describe(found, norms.measure(even), even).level == "fine"
    uneven = prepared(vectors * np.random.default_rng(0).lognormal(0, 0.5, (800, 1)).astype("f4"))
    other = order.measure(uneven, uneven.space, Bootstrap(200, uneven.rng))
    assert other.overlap < 0.6
    # The share, query by query, from sorted lists.
    slow = []
    given = uneven.vectors.astype(np.float64)
    for query in uneven.queries:
        dots = given @ given[query]
        cosines = dots / np.linalg.norm(given, axis=1)
        dots[query] = cosines[query] = -np.inf
        slow.append(len(set(np.argsort(-dots)[:10]) & set(np.argsort(-cosines)[:10])) / 10)
    assert other.overlap == pytest.approx(np.mean(slow), abs=1e-3)
    finding = order.describe(other, norms.measure(uneven), uneven)
    assert finding.level == "problem" and "trained with" in finding.advice


def test_free_scales_change_the_order_where_neighbours_are_hardly_nearer_than_others() -> None:
    loose = prepared(gaussian(1500, 1000))
    assert order.measure(loose, loose.space, Bootstrap(200, loose.rng)).rescaled < 0.6
    clustered = np.repeat(gaussian(150, 1000), 10, axis=0) + 0.5 * gaussian(1500, 1000, seed=4)
    tight = prepared(clustered)
    assert order.measure(tight, tight.space, Bootstrap(200, tight.rng)).rescaled > 0.85


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.random((7, 30)).astype("f4"), rng.random((7, 30)).astype("f4")
    right[0] = left[0]
    right[1] = -left[1]
    for a, b, found in zip(left, right, order.spearman(left, right), strict=True):
        apart = a.argsort().argsort() - b.argsort().argsort()
        assert found == pytest.approx(1 - 6 * float((apart**2).sum()) / (30 * (30**2 - 1)))


def test_places_with_hidden_rows() -> None:
    """Under cosine a row whose prefix is zero is in no index; its neighbours stay findable."""
    vectors = gaussian(40, 8)
    vectors[7, :4] = 0
    found = space_of_code(Resolution(4, "f16"), vectors, "cosine", base="f32")
    seen = found.places(np.array([1, 2]), np.array([[7], [3]]))
    assert isinstance(seen, Places)
    assert seen.better[0, 0] == 38  # behind all that can be found


def test_signs_are_advised_only_where_they_serve() -> None:
    served, found = curve(rotated(decaying(1200, 128, power=0.4), seed=3), queries=100)
    advice = stages.describe(found, stages.choose(found, served), served).advice
    assert found.order == "none" and "all signs (128:bit" in advice
    shifted = gaussian(1200, 128) * 0.2 + 3  # all signs alike
    rows, useless = curve(shifted.astype(np.float32), "euclidean", queries=100, population=10**6)
    advice = stages.describe(useless, stages.choose(useless, rows), rows).advice
    assert useless.order == "none" and "all signs" not in advice
