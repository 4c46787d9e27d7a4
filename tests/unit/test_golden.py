"""The numpy twins against golden values from a third implementation (tests/golden/make.py)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from funnelvec import codes
from funnelvec.calibration import (
    AdapterCalibration,
    BetaCalibration,
    IsotonicCalibration,
    PlattCalibration,
    StoredCalibration,
    fit_platt,
)
from funnelvec.calibration.beta import fit_beta_curve
from funnelvec.calibration.isotonic import fit_isotonic
from funnelvec.calibration.row_stats import RowStats
from funnelvec.codes import bits
from funnelvec.codes.maps import LinearMap, Rotation
from funnelvec.codes.rotations import rotate
from funnelvec.resolution import Resolution
from tests.golden import make

FOLDER = Path(make.__file__).parent


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def floats(texts: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([float.fromhex(text) for text in texts])


def by_name(case: dict[str, Any]) -> str:
    return str(case["name"])


def test_the_committed_files_are_what_make_writes() -> None:
    for name, text in make.files().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, (
            f"{name} is stale: run python tests/golden/make.py"
        )


@pytest.mark.parametrize("case", read("codes.json"), ids=by_name)
def test_codes_are_exact(case: dict[str, Any]) -> None:
    resolution = Resolution.parse(case["resolution"])
    vector = floats(case["vector"])[np.newaxis, :]
    code = codes.encode(resolution, vector, metric=case["metric"], base=case["base"])[0]
    if resolution.code == "bit":
        unpacked = np.unpackbits(code)
        assert "".join(map(str, unpacked[: resolution.dims])) == case["code"]
        assert not unpacked[resolution.dims :].any()
    else:
        expected = floats(case["code"]).astype(code.dtype)
        assert code.tobytes() == expected.tobytes(), (code, expected)  # the sign of zero counts


@pytest.mark.parametrize("case", read("rotations.json"), ids=by_name)
def test_rotations_are_exact(case: dict[str, Any]) -> None:
    vector = floats(case["vector"]).astype(np.float32)[np.newaxis, :]
    expected = floats(case["rotated"]).astype(np.float32)
    assert np.array_equal(rotate(case["rotation"], vector)[0], expected)


def fitted(case: dict[str, Any]) -> Rotation:
    """The map as a rotation that keeps lengths."""
    numbers = np.array(case["numbers"], np.int32)
    made = LinearMap(numbers, float.fromhex(case["step"]))
    return Rotation("pca", "pca", None, "dot", made, None, "0" * 64, 0, 0)


@pytest.mark.parametrize("case", read("maps.json"), ids=by_name)
def test_maps_agree(case: dict[str, Any]) -> None:
    vector, expected = floats(case["vector"]).astype(np.float32), floats(case["mapped"])
    rotation = fitted(case)
    found = rotation.apply(vector[np.newaxis, :])[0]
    # Rounded to 32 bits twice: the direction before, the result after.
    near = 1e-6 * np.linalg.norm(vector.astype(np.float64)) * rotation.row_map.step * 1e6
    assert np.abs(found - expected).max() <= near
    signs = codes.encode(
        Resolution(len(found), "bit", "pca"), [vector], metric="dot", rotation=rotation
    )
    clear = np.abs(expected) > near
    assert np.array_equal(np.unpackbits(signs[0])[: len(found)][clear], expected[clear] > 0)


@pytest.mark.parametrize("case", read("scores.json"), ids=by_name)
def test_scores_agree(case: dict[str, Any]) -> None:
    resolution = Resolution.parse(case["resolution"])
    column = {"metric": case["metric"], "base": case["base"]}
    query = codes.prepare_query(resolution, floats(case["query"]), **column)
    stored = codes.encode(resolution, floats(case["vector"])[np.newaxis, :], **column)
    (score,) = codes.score(resolution, query, stored, metric=case["metric"])
    expected = float.fromhex(case["score"])
    if resolution.code == "bit":
        assert bits.hamming(query, stored).tolist() == [case["hamming"]]
    assert score == pytest.approx(expected, abs=1e-12 * scale(case, query, stored[0]))


def scale(case: dict[str, Any], query: Any, stored: Any) -> float:
    """The size of the numbers that a score is made of; errors of rounding are relative to it."""
    if case["metric"] == "cosine" or "hamming" in case:
        return 1.0
    lengths = [float(np.linalg.norm(code.astype(np.float64))) for code in (query, stored)]
    return max(1.0, math.prod(lengths) if case["metric"] == "dot" else sum(lengths))


@pytest.mark.parametrize("case", read("calibration.json")["fits"], ids=by_name)
def test_platt_fits_agree(case: dict[str, Any]) -> None:
    line = fit_platt(floats(case["scores"]), np.array(case["labels"]) == 1)
    assert line.slope == pytest.approx(float.fromhex(case["slope"]), rel=1e-9)
    assert line.offset == pytest.approx(float.fromhex(case["offset"]), rel=1e-9)


def curve(slope: str, offset: str) -> PlattCalibration:
    return PlattCalibration(
        slope=float.fromhex(slope),
        offset=float.fromhex(offset),
        model=None,
        vector="embedding",
        metric="cosine",
        last_stage="24:f32",
        judgments_sha256="",
        n_pairs=0,
        n_relevant=0,
        n_queries=0,
    )


PROVENANCE: dict[str, Any] = {
    "model": None, "vector": "embedding", "metric": "cosine", "last_stage": "24:f32",
    "judgments_sha256": "", "n_pairs": 0, "n_relevant": 0, "n_queries": 0,
}  # fmt: skip


def check_map(map: StoredCalibration, case: dict[str, Any]) -> None:
    """Relevance to 1e-9, cutoffs to 1e-9 too: the limit of 1e-6 is for scores of a database."""
    relevance = map.apply(None, floats(case["asked"]))
    np.testing.assert_allclose(relevance, floats(case["relevance"]), rtol=0, atol=1e-9)
    cutoffs = [map.cutoff(None, wanted) for wanted in floats(case["wanted"])]
    np.testing.assert_allclose(cutoffs, floats(case["cutoffs"]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", read("families.json")["isotonic"], ids=by_name)
def test_isotonic_fits_and_maps_agree(case: dict[str, Any]) -> None:
    steps = fit_isotonic(floats(case["scores"]), np.array(case["labels"], dtype=bool))
    assert steps.low == tuple(floats(case["low"]))
    assert steps.high == tuple(floats(case["high"]))
    np.testing.assert_allclose(steps.relevance, floats(case["levels"]), rtol=1e-12)
    made = IsotonicCalibration(low=steps.low, high=steps.high, levels=steps.relevance, **PROVENANCE)
    check_map(made, case)


@pytest.mark.parametrize("case", read("families.json")["beta"], ids=by_name)
def test_beta_fits_agree(case: dict[str, Any]) -> None:
    line, end = fit_beta_curve(floats(case["scores"]), np.array(case["labels"], dtype=bool))
    assert line.slope == pytest.approx(float.fromhex(case["slope"]), rel=1e-9)
    found = (end.a, end.b, end.c)
    assert found == pytest.approx(tuple(floats(case["map"])), rel=1e-6, abs=1e-9)


def test_beta_maps_agree() -> None:
    for case in read("families.json")["beta_maps"]:
        slope, offset, a, b, c = floats(case["numbers"])
        check_map(BetaCalibration(slope=slope, offset=offset, a=a, b=b, c=c, **PROVENANCE), case)


@pytest.mark.parametrize("case", read("families.json")["adapters"], ids=by_name)
def test_adapters_agree(case: dict[str, Any]) -> None:
    def value(given: Any) -> Any:
        if isinstance(given, list):
            return tuple(map(value, given))
        is_hex = isinstance(given, str) and "0x" in given
        return float.fromhex(given) if is_hex else given

    parts = {name: value(given) for name, given in case["adapter"].items()}
    if "rows" in parts:
        parts["rows"] = RowStats.of({name: value(x) for name, x in parts["rows"].items()})
    adapter = AdapterCalibration(**parts, **PROVENANCE)
    query = np.array(floats(case["query"]), dtype=np.float32) if case["query"] else None
    at = adapter.at(query, np.random.default_rng(0).permutation(floats(case["list"])))
    assert at.slope == pytest.approx(float.fromhex(case["slope"]), rel=1e-12)
    assert at.offset == pytest.approx(float.fromhex(case["offset"]), rel=1e-9, abs=1e-9)
    check_map(at, case)


def test_relevance_agrees() -> None:
    for case in read("calibration.json")["maps"]:
        (relevance,) = curve(case["slope"], case["offset"]).apply(None, floats([case["score"]]))
        assert relevance == pytest.approx(float.fromhex(case["relevance"]), abs=1e-9), case


def test_cutoffs_agree() -> None:
    for case in read("calibration.json")["cutoffs"]:
        cutoff = curve(case["slope"], case["offset"]).cutoff(None, float.fromhex(case["relevance"]))
        assert cutoff == pytest.approx(float.fromhex(case["cutoff"]), rel=1e-9, abs=1e-9), case
