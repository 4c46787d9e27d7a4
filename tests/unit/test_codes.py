"""Codes: properties that hold for every vector (exact values are in test_golden.py)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from funnelvec import codes
from funnelvec.codes import bits
from funnelvec.codes.rotations import rotate
from funnelvec.errors import CapabilityError, InvalidInput, SpecError
from funnelvec.resolution import CODES, Resolution
from funnelvec.types import METRICS, Metric

Matrix = npt.NDArray[np.float32]

components = st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from(
    [0.0, -0.0, 2.0**-140, 70000.0, -(2.0**127)]
)
matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 40)),
    elements=components,
)


@st.composite
def encodings(draw: st.DrawFn) -> tuple[Resolution, Matrix]:
    x = draw(matrices)
    code = draw(st.sampled_from(CODES))
    if code in bits.LEVELS or draw(st.booleans()):
        # Sums of numbers that are nearly too large for 32 bits have no place there.
        return Resolution(x.shape[1], code, "random"), x * np.float32(2.0**-8)
    return Resolution(draw(st.integers(1, x.shape[1])), code), x


metrics = st.sampled_from(METRICS)


@given(encodings(), metrics)
def test_the_input_is_never_changed_nor_shared(
    case: tuple[Resolution, Matrix], metric: Metric
) -> None:
    resolution, x = case
    before = x.tobytes()
    code = codes.encode(resolution, x, metric=metric)
    codes.score(
        resolution, codes.prepare_query(resolution, x[0], metric=metric), code, metric=metric
    )
    assert x.tobytes() == before
    assert not np.shares_memory(code, x)


@given(matrices)
def test_bits_are_signs(x: Matrix) -> None:
    d = x.shape[1]
    packed = codes.encode(Resolution(d, "bit"), x)
    assert packed.shape == (len(x), math.ceil(d / 8))
    for row, code in zip(x, packed, strict=True):
        for i in range(d):
            assert bool(code[i // 8] >> (7 - i % 8) & 1) == (row[i] > 0)


@given(encodings(), metrics)
def test_prefixes_are_cut_before_they_are_coded(
    case: tuple[Resolution, Matrix], metric: Metric
) -> None:
    resolution, x = case
    d = resolution.dims
    whole = codes.encode(resolution, x, metric=metric)
    assert np.array_equal(whole, codes.encode(resolution, x[:, :d], metric=metric))
    if resolution.code == "f32" and resolution.rotation is None:
        assert np.array_equal(whole, x[:, :d])


@given(matrices)
def test_f16_is_within_half_a_step_of_the_direction(x: Matrix) -> None:
    code = codes.encode(Resolution(x.shape[1], "f16"), x).astype(np.float64)
    assert np.isfinite(code).all()
    for row, stored in zip(x.astype(np.float64), code, strict=True):
        length = math.sqrt(math.fsum(row * row))
        if length == 0:
            assert not stored.any()
            continue
        exact = row / length
        step = np.spacing(np.abs(exact).astype(np.float16)).astype(np.float64)
        # half a float16 step, and the float32 rounding that Postgres makes on the way
        assert (np.abs(stored - exact) <= 0.5 * step + 2.0**-24 * np.abs(exact) + 1e-45).all()


@given(matrices, st.sampled_from(["dot", "euclidean"]))
def test_f16_keeps_lengths_as_far_as_it_can(x: Matrix, metric: Metric) -> None:
    stored = codes.encode(Resolution(x.shape[1], "f16"), x, metric=metric)
    assert np.isfinite(stored).all()
    direction = codes.encode(Resolution(x.shape[1], "f16"), x).astype(np.float64)
    for row, code, unit in zip(x.astype(np.float64), stored, direction, strict=True):
        length = math.sqrt(math.fsum(row * row))
        if length <= 65504:
            assert np.array_equal(code, row.astype(np.float32).astype(np.float16))
        else:
            # as long as it may be, and in the same direction: half a step of either code apart
            step = 65504 * (2.0**-11 * np.abs(unit) + 2.0**-25) + 2.0**-11 * np.abs(code)
            assert (np.abs(code.astype(np.float64) - 65504 * unit) <= step + 1e-3).all()


halves = hnp.arrays(
    np.float16,
    st.tuples(st.integers(1, 5), st.integers(2, 40)),
    elements=st.floats(-65504, 65504, width=16),
)


@given(halves, metrics, st.data())
def test_codes_of_a_halfvec_column(
    x: npt.NDArray[Any], metric: Metric, data: st.DataObject
) -> None:
    width = x.shape[1]
    d = data.draw(st.integers(1, width))
    blurred = x.astype(np.float64) * (1 + 2.0**-20)  # rounds back to x
    for given_x in (x, blurred):
        itself = codes.encode(Resolution(width, "f16"), given_x, metric=metric, base="f16")
        assert itself.dtype == np.float16 and np.array_equal(itself, x)
        signs = codes.encode(Resolution(d, "bit"), given_x, metric=metric, base="f16")
        assert np.array_equal(signs, codes.encode(Resolution(d, "bit"), x))
        if d < width:
            half = codes.encode(Resolution(d, "f16"), given_x, metric=metric, base="f16")
            expected = codes.encode(Resolution(d, "f16"), x) if metric == "cosine" else x[:, :d]
            assert np.array_equal(half, expected)
    with pytest.raises(SpecError, match=f"{d}:f16"):
        codes.encode(Resolution(d, "f32"), x, metric=metric, base="f16")


@given(
    hnp.arrays(np.float32, (4, 12), elements=st.floats(-100, 100, width=32)),
    st.sampled_from(CODES),
    metrics,
)
def test_scores_follow_the_metric(x: Matrix, code: Any, metric: Metric) -> None:
    resolution = Resolution(12, code, "random" if code in bits.LEVELS else None)
    stored = codes.encode(resolution, x, metric=metric)
    scores = codes.score(resolution, stored[0], stored, metric=metric)
    backwards = [codes.score(resolution, row, stored[:1], metric=metric)[0] for row in stored]
    assert scores == pytest.approx(backwards, nan_ok=True, abs=1e-9)
    if codes.is_bits(code) or metric == "cosine":
        return
    wide = stored.astype(np.float64)
    if metric == "dot":
        assert scores == pytest.approx(wide @ wide[0], abs=1e-9)
    else:
        assert scores[0] == 0.0 and not np.signbit(scores[0])
        assert (scores <= 0).all()
        assert scores == pytest.approx(-np.linalg.norm(wide - wide[0], axis=1), abs=1e-9)


@given(
    hnp.arrays(np.float32, (3, 12), elements=st.floats(-100, 100, width=32)),
    st.integers(-20, 20),
)
def test_scaling_by_powers_of_two_changes_no_f16_code_and_no_sign(x: Matrix, power: int) -> None:
    x = np.where(np.abs(x) < 1e-3, 0, x).astype(np.float32)  # keep clear of subnormal numbers
    scaled = x * np.float32(2.0**power)
    for code in ("f16", "bit"):
        resolution = Resolution(12, code)
        assert np.array_equal(codes.encode(resolution, x), codes.encode(resolution, scaled))


@given(encodings())
def test_scores_lie_between_minus_one_and_one(case: tuple[Resolution, Matrix]) -> None:
    resolution, x = case
    stored = codes.encode(resolution, x)
    scores = codes.score(resolution, stored[0], stored)
    assert scores.dtype == np.float64
    zero = ~stored.any(axis=1) | ~stored[0].any()
    if codes.is_bits(resolution.code):
        assert scores[0] == 1.0
    else:
        assert np.array_equal(np.isnan(scores), zero)
        assert zero[0] or scores[0] == pytest.approx(1.0, abs=1e-12)
    assert (np.abs(scores[~np.isnan(scores)]) <= 1.0).all()


def test_equal_rows_tie_wherever_they_stand() -> None:
    rng = np.random.default_rng(5)
    for d in (1, 7, 64, 257):
        x = rng.normal(size=(5000, d)).astype(np.float32)
        x[rng.integers(0, 5000, 200)] = x[17]
        resolution = Resolution(d, "f32")
        same = (x == x[17]).all(axis=1)
        assert same.sum() > 100
        for metric in METRICS:
            scores = codes.score(resolution, x[3] + np.float32(0.1), x, metric=metric)
            assert len(set(scores[same].tolist())) == 1
            alone = codes.score(resolution, x[3], x[17:18], metric=metric)
            assert alone[0] == codes.score(resolution, x[3], x, metric=metric)[17]


def test_a_table_larger_than_one_block_is_coded_row_by_row() -> None:
    x = np.random.default_rng(1).normal(size=(5000, 600)).astype(np.float32)
    whole = codes.encode(Resolution(600, "f16"), x)
    parts = [codes.encode(Resolution(600, "f16"), x[i : i + 1]) for i in (0, 3494, 3495, 4999)]
    assert np.array_equal(whole[[0, 3494, 3495, 4999]], np.concatenate(parts))


def test_other_layouts_and_types() -> None:
    x = np.arange(-6, 6).reshape(3, 4)
    resolution = Resolution(2, "f32")
    expected = x[:, :2].astype(np.float32)
    wide = np.repeat(x, 2, axis=1).astype(np.float64)[:, ::2]  # not contiguous
    for given_x in (x, x.tolist(), np.asfortranarray(x), wide, wide.astype(">f4")):
        assert np.array_equal(codes.encode(resolution, given_x), expected)


def test_bit_balance() -> None:
    packed = bits.encode(np.array([[1, 1, 1, -1], [1, -1, 1, 1]], np.float32))
    assert bits.balance(packed, dims=4) == pytest.approx((0 + 1 + 0 + 1) / 4)


@pytest.mark.parametrize(
    "x",
    [
        np.ones(4),
        np.ones((2, 3)),
        np.array([[1, 2, 3, np.nan]]),
        np.array([[1e39, 0, 0, 0]]),
        np.array([["1", "2", "3", "4"]]),
        np.array([[True, False, True, True]]),
    ],
)
def test_bad_arrays_are_refused(x: Any) -> None:
    with pytest.raises(InvalidInput):
        codes.encode(Resolution(4, "f16"), x)


def test_what_a_halfvec_column_cannot_hold_is_refused() -> None:
    for number in (65520.0, -1e30):  # 65519 still rounds to 65504
        with pytest.raises(InvalidInput, match="float16"):
            codes.encode(Resolution(1, "bit"), [[number, 1.0]], base="f16")
    assert codes.encode(Resolution(2, "f16"), [[65519.0, 0.0]], base="f16")[0, 0] == 65504
    with pytest.raises(InvalidInput, match="'manhattan'; known are cosine, dot, euclidean"):
        codes.encode(Resolution(1, "f16"), [[1.0]], metric="manhattan")  # type: ignore[arg-type]


@pytest.mark.parametrize("dims", [1, 2, 3, 17, 96, 2049, 8193])
@pytest.mark.parametrize("rotation", ["random", "random1", "random123456789"])
def test_a_random_rotation_keeps_lengths_and_angles(dims: int, rotation: str) -> None:
    x = np.random.default_rng(dims).normal(size=(70, dims)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    before = x.copy()
    turned = rotate(rotation, x)
    assert turned.dtype == np.float32 and turned.shape == x.shape
    assert np.array_equal(x, before)
    assert np.allclose(turned @ turned.T, x @ x.T, atol=1e-5)
    assert np.array_equal(rotate(rotation, x[40:41]), turned[40:41])
    if dims > 3:
        other = rotate("random2", x)
        for a, b in ((turned, x), (turned, other), (other, x)):
            assert np.abs(np.einsum("ij,ij->i", a, b)).mean() < 5 / dims**0.5


def test_a_random_rotation_spreads_what_stands_in_one_place() -> None:
    for dims in (256, 1024, 1536, 3072):
        for place in (0, 1, dims // 2, dims - 1):
            one = np.zeros((1, dims), np.float32)
            one[0, place] = 1
            turned = rotate("random", one)[0]
            assert np.abs(turned).max() < 4 / dims**0.5
            assert np.count_nonzero(turned) > dims / 2


def test_rotated_signs_find_what_signs_lose() -> None:
    """A spectrum that decays starves the signs of all but the first dimensions."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(3000, 128)) * np.exp(-np.arange(128) / 12)
    truth = np.argsort(-codes.score(Resolution(128, "f32"), x[0], x), kind="stable")[:20]
    found = {}
    for rotation in (None, "random"):
        resolution = Resolution(128, "bit", rotation)
        signs = codes.encode(resolution, x)
        scores = codes.score(resolution, codes.prepare_query(resolution, x[0]), signs)
        found[rotation] = np.isin(truth, np.argsort(-scores, kind="stable")[:100]).mean()
    assert found["random"] > found[None] + 0.2


def test_what_is_no_rotation() -> None:
    for name in ("pca", "random0", "random1234567890", "randomised"):
        with pytest.raises(CapabilityError, match="rotation"):
            codes.encode(Resolution(4, "f16", name), np.ones((1, 4)))
    with pytest.raises(SpecError, match="write 8:bit~random"):
        codes.encode(Resolution(4, "bit", "random"), np.ones((1, 8)))
    with pytest.raises(InvalidInput, match="shape"):
        codes.prepare_query(Resolution(4, "f16"), np.ones((1, 4)))
