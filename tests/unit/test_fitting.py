"""Fitted rotations: what they keep, what they find, and what is refused (METHODS T8)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import funnelvec as fv
from funnelvec.codes import compared_by, encode, prepare_query, score
from funnelvec.codes.maps import LinearMap, Rotation
from funnelvec.errors import CapabilityError, Conflict, InvalidInput, NotFound, SpecError
from funnelvec.fitting.axes import principal, quantized, random_orthogonal, sphering
from funnelvec.fitting.fit import check_wanted, fit
from funnelvec.fitting.report import Comparison
from funnelvec.resolution import Resolution

DIMS = 32
Matrix = npt.NDArray[np.float32]


def decaying(rows: int, *, seed: int = 0, dims: int = DIMS, turned: bool = True) -> Matrix:
    """Rows whose variance falls, in a basis in which no dimension is special."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((rows, dims)) / np.sqrt(np.arange(1, dims + 1))
    if turned:
        found = found @ random_orthogonal(dims, 7)
    return found.astype(np.float32)


def fitted(
    kind: Any, sample: Matrix, queries: Matrix | None = None, *, then: Any = None, **named: Any
) -> tuple[Rotation, Any]:
    dims = sample.shape[1]
    wanted = check_wanted(
        name="m", kind=kind, then=then, width=named.get("width", dims), dims=dims,
        metric=named.get("metric", "cosine"), code="f32", seed=3, queries=queries is not None,
    )  # fmt: skip
    return fit(wanted, sample, queries)


@pytest.mark.parametrize(("dims", "kept"), [(32, 32), (300, 60), (300, 53), (10_000, 2)])
def test_one_query_is_mapped_as_many_are(dims: int, kept: int) -> None:
    # Wider than what one thread takes at once, a prime number of rows, and a row too long for it.
    rng = np.random.default_rng(dims)
    rotation = Rotation(
        "m", "pca", None, "cosine", LinearMap.rounded(rng.standard_normal((kept, dims))), None,
        "", 10, 0,
    )  # fmt: skip
    queries = rng.standard_normal((3, dims)).astype(np.float32)
    found = np.stack([rotation.map_query(query, kept) for query in queries])
    assert found == pytest.approx(rotation.apply(queries, asked=True), rel=1e-4, abs=1e-2)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize(
    ("kind", "then"), [("pca", None), ("pca", "random"), ("pca", "itq"), ("sphering", None)]
)
def test_scores_at_full_width_stay_what_they_are(metric: Any, kind: str, then: Any) -> None:
    rows, queries = decaying(500), decaying(40, seed=1) * np.linspace(0.1, 3, DIMS, dtype="f4")
    if (kind, metric) == ("sphering", "euclidean"):
        with pytest.raises(InvalidInput, match="no distances"):
            fitted(kind, rows, queries, metric=metric)
        return
    rotation, _ = fitted(kind, rows, queries, then=then, metric=metric)
    resolution, plain = Resolution(DIMS, "f32", "m"), Resolution(DIMS, "f32")
    codes = encode(resolution, rows, metric=metric, rotation=rotation)
    for query in queries:
        found = score(
            resolution, prepare_query(resolution, query, metric=metric, rotation=rotation), codes,
            metric=compared_by(metric, rotation),
        )  # fmt: skip
        wanted = score(plain, prepare_query(plain, query, metric=metric), rows, metric=metric)
        size = 1.0 if metric == "cosine" else np.abs(wanted).max()
        assert np.abs(found - wanted).max() < 1e-5 * size


def test_sphering_is_pca_where_queries_are_distributed_as_rows() -> None:
    rows = decaying(2000)
    asked, given = sphering(rows, 3 * rows, 12)
    axes = principal(rows, 12)
    # Axis by axis what a query and a row add to the score is the same, so signs do not matter.
    for query in decaying(5, seed=4):
        by_pca = (axes @ query) * (rows[:50] @ axes.T)
        by_sphering = (asked @ query) * (rows[:50] @ given.T)
        assert np.allclose(by_pca, by_sphering, atol=1e-9)
    cosines = np.abs((given * axes).sum(axis=1))
    assert np.allclose(cosines, 1.0, atol=1e-9)


def test_the_first_axes_hold_most_and_are_orthonormal() -> None:
    rows = decaying(1000)
    axes = principal(rows, DIMS)
    assert np.allclose(axes @ axes.T, np.eye(DIMS), atol=1e-12)
    held = ((rows @ axes.T) ** 2).sum(axis=0)
    assert (np.diff(held) <= 1e-6).all()
    turn = random_orthogonal(40, 1)
    assert np.allclose(turn @ turn.T, np.eye(40), atol=1e-12)


def test_quantization_lays_numbers_closer_to_their_signs() -> None:
    rows = decaying(1500)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    axes = principal(rows, 12)
    learned, drawn = quantized(rows, axes, 1), random_orthogonal(12, 1) @ axes
    assert np.allclose(learned @ learned.T, np.eye(12), atol=1e-9)
    # Both turn the same axes.
    assert np.allclose(learned.T @ learned, axes.T @ axes, atol=1e-9)
    far = [
        float(((values - np.sign(values)) ** 2).sum())
        for values in (rows @ learned.T, rows @ drawn.T)
    ]
    assert far[0] < far[1]
    recall = [
        fitted("pca", rows, then=then, width=12)[1].comparisons[0] for then in ("itq", "random")
    ]
    assert recall[0].resolution == "12:bit~m" and recall[0].fitted > recall[1].fitted


def test_codes_do_not_depend_on_where_a_row_stands() -> None:
    rows = decaying(300)
    rotation, _ = fitted("pca", rows, width=8)
    twice = np.concatenate([rows[:7], rows, rows[:7]])
    codes = encode(Resolution(8, "f16", "m"), twice, rotation=rotation)
    assert np.array_equal(codes[:7], codes[-7:]) and np.array_equal(codes[:7], codes[7:14])


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e20, 1e37])
def test_lengths_of_every_size_are_kept(size: float) -> None:
    rows = decaying(300)
    rotation, _ = fitted("pca", rows, metric="dot")
    big = (rows[:5] / np.linalg.norm(rows[:5], axis=1, keepdims=True) * size).astype(np.float32)
    lengths = np.linalg.norm(rotation.apply(big).astype(np.float64), axis=1)
    assert np.allclose(lengths, size, rtol=1e-5)
    assert not rotation.apply(np.zeros((1, DIMS), np.float32)).any()


def test_a_map_that_wins_is_recommended_and_one_that_loses_is_not() -> None:
    rows = decaying(1500)
    _, wins = fitted("pca", rows, width=8)
    assert wins.recommended and wins.comparisons[-1].gain > 0.1
    # Where the first dimensions hold most already, there is nothing to win.
    _, same = fitted("pca", decaying(1500, turned=False), width=8)
    assert not same.recommended
    assert "not recommended: " in str(same)


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ((0.9, 0.8, 0.7, 0.1, 0.02), "recommended"),
        ((0.7, 0.8, 0.7, -0.1, 0.02), "not recommended: loses to truncation"),
        ((0.7, 0.6, 0.8, -0.1, 0.02), "not recommended: loses to a random rotation"),
        ((0.8, 0.8, 0.7, 0.0, 0.02), "not recommended: no better than truncation"),
        ((0.81, 0.7, 0.8, 0.01, 0.02), "not recommended: no better than a random rotation"),
    ],
)
def test_verdicts(figures: tuple[float, ...], verdict: str) -> None:
    assert Comparison("8:f16~m", 16, *figures).verdict == verdict


def test_queries_are_not_among_what_was_fitted_on() -> None:
    rows, queries = decaying(600), decaying(100, seed=2)
    rotation, report = fitted("sphering", rows, queries, width=8)
    assert (rotation.rows, rotation.queries, report.held_out) == (600, 50, 50)
    rotation, report = fitted("pca", rows, width=8)
    assert (rotation.rows, rotation.queries, report.held_out) == (480, 0, 120)
    again, _ = fitted("pca", rows, width=8)
    assert again.fitted_on == rotation.fitted_on
    assert np.array_equal(again.row_map.numbers, rotation.row_map.numbers)
    other, _ = fitted("pca", rows[::-1].copy(), width=8)
    assert other.fitted_on != rotation.fitted_on


@pytest.mark.parametrize("rows", [0, 248])
def test_too_few_rows(rows: int) -> None:
    with pytest.raises(InvalidInput, match="it takes 249"):
        fitted("pca", decaying(rows), width=8)


def test_the_rows_that_it_takes_are_enough() -> None:
    with pytest.raises(InvalidInput, match="it takes 499"):
        fitted("pca", decaying(498, dims=200), width=200)
    fitted("pca", decaying(499, dims=200), width=200)


def test_memory_keeps_rotations_in_step_and_refuses_the_rest() -> None:
    rows = decaying(400)
    with fv.connect("memory:") as engine:
        docs = engine.create("docs", dims=DIMS)
        docs.add(range(300), rows[:300])
        assert not docs.fit_rotation("pca", dims=16, dry_run=True).kept
        assert docs.rotations() == []
        with pytest.raises(NotFound, match="fit_rotation"):
            docs.add_resolution("8:f16~pca")
        assert docs.fit_rotation("pca", dims=16).kept
        docs.fit_rotation("pcar", dims=16, then="random")
        docs.fit_rotation("sph", dims=16, kind="sphering", queries=decaying(40, seed=2))
        with pytest.raises(Conflict, match="pca2"):
            docs.fit_rotation("pca")
        for wrong, error in (
            ("17:f16~pca", SpecError), ("15:bit~pcar", SpecError), ("8:bit~sph", SpecError),
            ("8:bit2~pca", SpecError), ("8:f16~random", SpecError), ("8:f16~random0", CapabilityError),
        ):  # fmt: skip
            with pytest.raises(error):
                docs.add_resolution(wrong)
        with pytest.raises(Conflict, match="fitted for the metric cosine"):
            docs.add_resolution("8:f16~pca", metric="dot")
        docs.add_resolution("8:f16~pca")
        docs.add_resolution("16:bit~pcar")
        docs.add_resolution("8:f16~sph")
        docs.create_funnel("docs_search", "16:bit~pcar@200 > 8:f16~sph@150 > 8:f16~pca@90 > 32:f32")
        docs.add(range(300, 400), rows[300:])
        assert docs.search(rows[399], k=1)[0].id == 399
        with pytest.raises(Conflict, match="8:f16~pca"):
            docs.drop_rotation("pca")
        docs.drop_funnel("docs_search")
        docs.drop_resolution("8:f16~pca")
        docs.drop_rotation("pca")
        assert [each.rotation for each in docs.rotations()] == ["pcar", "sph"]


def test_sphering_wins_where_queries_are_distributed_otherwise() -> None:
    rows = decaying(2000, dims=96)
    # Queries look mostly where rows vary least.
    asked = np.random.default_rng(5).standard_normal((400, 96)) * np.linspace(0.05, 1, 96) ** 2
    queries = (asked @ random_orthogonal(96, 7)).astype(np.float32)
    found = {
        kind: fitted(kind, rows, queries, width=32)[1].comparisons[-1]
        for kind in ("pca", "sphering")
    }
    print(*found.values())  # for docs/resolutions.md
    assert found["sphering"].recommended
    # Principal axes of the rows lose there even to none, and the report says so.
    assert found["pca"].gain < -found["pca"].margin
    assert found["pca"].verdict.startswith("not recommended: loses to ")
    assert found["sphering"].fitted > found["pca"].fitted + 0.1
