"""Online Platt scaling against a direct transcription of its recurrences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from funnelvec.calibration.online import OnlinePlatt
from funnelvec.errors import CalibrationError, InvalidInput


def stream(n: int, seed: int = 0, drift: float = 0.0) -> list[tuple[float, bool]]:
    """Base relevances that are too sure of themselves; with drift they get worse."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, 2.0, n)
    truth = 0.5 * logits - 0.8 + drift * np.linspace(0, 1, n)
    labels = rng.random(n) < 1 / (1 + np.exp(-truth))
    return [(1 / (1 + math.exp(-z)), bool(y)) for z, y in zip(logits, labels, strict=True)]


def test_a_replay_is_the_transcription_with_inverses_that_stay_inverses() -> None:
    beta = 0.1
    theta, inverse, h = np.zeros(2), np.eye(2) * beta**2, np.eye(2) / beta**2
    state = OnlinePlatt()
    for base, label in stream(400):
        x = math.log(min(max(base, 1e-5), 1 - 1e-5) / (1 - min(max(base, 1e-5), 1 - 1e-5)))
        f = np.array([x, 1.0])
        p = 1 / (1 + math.exp(-theta @ f))
        assert state.relevance(base).platt == pytest.approx(p, abs=1e-9)
        g = (p - label) * f
        inverse = inverse - inverse @ np.outer(g, g) @ inverse / (1 + g @ inverse @ g)
        h = h + np.outer(g, g)
        theta = theta - inverse @ g / beta
        state = state.update(base, label)
        assert (state.slope, state.offset) == pytest.approx(tuple(theta), abs=1e-8)
        assert state.h == pytest.approx((h[0, 0], h[0, 1], h[1, 1]), rel=1e-12)
    np.testing.assert_allclose(inverse @ h, np.eye(2), atol=1e-8)
    assert state.seen == 400


def error_of(pairs: list[tuple[float, bool]]) -> float:
    """Calibration error in ten bins of one width."""
    values, labels = np.array([p for p, _ in pairs]), np.array([y for _, y in pairs])
    bins = np.minimum((values * 10).astype(int), 9)
    return float(
        sum(
            abs(labels[bins == b].mean() - values[bins == b].mean()) * (bins == b).mean()
            for b in np.unique(bins)
        )
    )


@pytest.mark.parametrize("drift", [0.0, 3.0])
def test_each_step_mends_more(drift: float) -> None:
    state, base, platt, tracked = OnlinePlatt(), [], [], []
    for value, label in stream(4_000, seed=1, drift=drift):
        said = state.relevance(value)  # before the label is seen
        base.append((value, label))
        platt.append((said.platt, label))
        tracked.append((said.tracked, label))
        state = state.update(value, label)
    assert error_of(platt) < error_of(base) / 2
    assert error_of(tracked) < error_of(platt) + 0.005
    assert error_of(tracked) < 0.05


def test_running_means_are_the_means_of_the_labels_in_the_bin() -> None:
    state, seen = OnlinePlatt(), {b: [(b + 0.5) / 10] for b in range(10)}
    for base, label in stream(300, seed=2):
        place = min(int(state.relevance(base).platt * 10), 9)
        seen[place].append(float(label))
        state = state.update(base, label)
    for b in range(10):
        assert state.means[b] == pytest.approx(np.mean(seen[b]))
        assert state.counts[b] == len(seen[b])


def test_the_state_stays_within_its_ball() -> None:
    state = replace(OnlinePlatt(), slope=99.9, offset=-5.0)
    for base, label in ((1.0, False), (0.0, True), (1.0, False)) * 20:
        state = state.update(base, label)
        assert math.hypot(state.slope, state.offset) <= 100.0 + 1e-9


def test_a_projection_is_the_nearest_point_in_the_norm_of_h() -> None:
    from funnelvec.calibration.online import _projected

    h = np.array([[3.0, 1.0], [1.0, 2.0]])
    outside = np.array([150.0, -80.0])
    found = np.array(_projected(150.0, -80.0, (3.0, 1.0, 2.0)))
    assert np.linalg.norm(found) == pytest.approx(100.0)
    angles = np.linspace(0, 2 * np.pi, 20_001)
    ring = 100.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1) - outside
    best = np.einsum("nd,de,ne->n", ring, h, ring).min()
    assert (found - outside) @ h @ (found - outside) == pytest.approx(best, rel=1e-6)


def test_without_feedback_unchanged_is_unchanged() -> None:
    for base in (0.001, 0.3, 0.999):
        assert OnlinePlatt.unchanged().relevance(base).platt == pytest.approx(base)


def test_states_are_written_read_and_checked() -> None:
    state = OnlinePlatt()
    for base, label in stream(50):
        state = state.update(base, label)
    assert OnlinePlatt.from_json(state.to_json()) == state
    for text in ("", "[]", "{}", '{"kind": "online-platt", "version": 2}'):
        with pytest.raises(CalibrationError):
            OnlinePlatt.from_json(text)
    for change in (
        {"slope": float("nan")},
        {"h": (1.0, 2.0, 1.0)},
        {"means": (0.5,)},
        {"counts": (0,) * 10},
    ):
        with pytest.raises(CalibrationError):
            replace(state, **change)
    for base in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidInput, match="probability"):
            state.update(base, True)
