from __future__ import annotations

import numpy as np

from funnelvec.demo.synthetic import generate, spectrum


def test_the_spectrum_is_the_stated_one() -> None:
    variance = spectrum(1_536)
    assert abs(variance.sum() - 1) < 1e-12
    # The ratio of two dimensions follows from the formula alone.
    np.testing.assert_allclose(variance[99] / variance[3], (4 / 100) ** 0.5 * np.exp(-96 / 170))
    shares = np.cumsum(variance)[[63, 127, 255, 511]]
    np.testing.assert_allclose(shares, [0.59, 0.77, 0.91, 0.98], atol=0.006)


def test_rows_follow_it() -> None:
    rows = generate(4_000, 1, dims=256, seed=3).rows
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    # Scaling rows to unit length keeps the shape; 4,000 draws give each variance to about 2 %.
    expected = spectrum(256)
    measured = (rows.astype(np.float64) ** 2).mean(axis=0)
    np.testing.assert_allclose(
        measured[10:] / measured[10:].sum(), expected[10:] / expected[10:].sum(), rtol=0.12
    )


def test_same_seed_same_vectors_and_queries_are_not_rows() -> None:
    a, b, c = (generate(300, 20, dims=64, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.rows, b.rows)
    np.testing.assert_array_equal(a.queries, b.queries)
    assert not np.array_equal(a.rows, c.rows)
    assert (a.queries @ a.rows.T).max() < 0.999


def test_a_prefix_finds_what_the_whole_vector_finds() -> None:
    """What makes the set worth searching by funnel: a twelfth of the width keeps the top 10."""
    sample = generate(4_000, 40, seed=0)
    exact = np.argsort(-(sample.queries @ sample.rows.T), axis=1)[:, :10]
    prefix = sample.rows[:, :128] / np.linalg.norm(sample.rows[:, :128], axis=1, keepdims=True)
    near = np.argsort(-(sample.queries[:, :128] @ prefix.T), axis=1)[:, :100]
    kept = np.mean([np.isin(e, n).mean() for e, n in zip(exact, near, strict=True)])
    assert kept > 0.99
