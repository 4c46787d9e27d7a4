"""The network form of the Cosine Adapter: models made here, trained here, run by onnxruntime."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import funnelvec as fv
from funnelvec.calibration import Calibration
from funnelvec.calibration.layers import Network
from funnelvec.calibration.logistic import sigmoid
from funnelvec.calibration.network import FAMILIES, NetworkAdapter
from funnelvec.calibration.platt import fit_platt
from funnelvec.calibration.train_network import Training, _Judged, _Start, train_network
from funnelvec.engines.adapted import AdaptedTable
from funnelvec.errors import CalibrationError, InvalidInput

DIMS = 4


def linear_model(columns: Any, ends: Any, *, name: str = "curve") -> bytes:
    """A model of one layer: curve = query @ columns + ends."""
    matrix, bias = np.array(columns, np.float32), np.array(ends, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["query", "matrix", "bias"], [name])],
        "small",
        [helper.make_tensor_value_info("query", TensorProto.FLOAT, ["n", len(matrix)])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", len(bias)])],
        [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(bias, "bias")],
    )
    return helper.make_model(  # type: ignore[no-any-return]
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()


def small(family: Any = "linear") -> NetworkAdapter:
    """Slope 4 + 2 q0, offset -2 + q1, power 1 + q2."""
    columns, ends = np.zeros((DIMS, 3)), [4.0, -2.0, 1.0]
    columns[0, 0], columns[1, 1], columns[2, 2] = 2.0, 1.0, 1.0
    width = 3 if family == "power" else 2
    return NetworkAdapter(linear_model(columns[:, :width], ends[:width]), family, DIMS)


QUERY = np.array([0.5, 1.0, 0.25, 0.0], np.float32)


@pytest.mark.parametrize(
    ("family", "power"), [("linear", None), ("sqrt", 0.5), ("quadratic", 2.0), ("power", 1.25)]
)
def test_relevance_and_cutoff_are_those_of_the_formula(family: Any, power: float | None) -> None:
    adapter = small(family)
    assert isinstance(adapter, Calibration)
    scores = np.array([[0.9, 0.3], [0.0, -0.4]])
    risen = scores if power is None else np.array([[0.9**power, 0.3**power], [0.0, 0.0]])
    np.testing.assert_allclose(adapter.apply(QUERY, scores), sigmoid(5 * risen - 1), atol=1e-6)
    for least in (0.3, 0.5, 0.9):
        cutoff = adapter.cutoff(QUERY, least)
        assert adapter.apply(QUERY, [cutoff])[0] == pytest.approx(least, abs=1e-6)
    # What a score of 0 reaches, every score reaches; only the straight line goes on below.
    low = adapter.cutoff(QUERY, 0.1)
    assert low == -math.inf if power is not None else low < 0
    assert adapter.cutoff(QUERY, 0.0) == -math.inf and adapter.cutoff(QUERY, 1.0) == math.inf
    with pytest.raises(InvalidInput, match="nan"):
        adapter.cutoff(QUERY, math.nan)


@pytest.mark.parametrize("family", FAMILIES)
def test_for_one_query_relevance_never_falls_as_the_score_rises(family: Any) -> None:
    rng = np.random.default_rng(0)
    scores = np.linspace(-1, 1, 401)
    for query in rng.uniform(-0.9, 0.9, (30, DIMS)).astype(np.float32):
        assert (np.diff(small(family).apply(query, scores)) >= 0).all()


def test_a_slope_that_is_not_positive_is_refused() -> None:
    falling = np.array([-3.0, 0, 0, 0], np.float32)
    with pytest.raises(CalibrationError, match="positive"):
        small().apply(falling, [0.5])
    assert small().apply(-falling, [0.5])[0] > 0.9
    with pytest.raises(CalibrationError, match="positive"):
        small("power").cutoff(np.array([0, 0, -2, 0], np.float32), 0.5)


def test_bad_models_and_queries_are_refused() -> None:
    with pytest.raises(CalibrationError, match="no ONNX model"):
        NetworkAdapter(b"nothing", "linear", DIMS).apply(QUERY, [0.5])
    with pytest.raises(CalibrationError, match="does not run"):
        NetworkAdapter(linear_model(np.ones((DIMS, 2)), [1, 1], name="x"), "linear", DIMS).apply(
            QUERY, [0.5]
        )
    with pytest.raises(CalibrationError, match=r"takes \(n, 3\)"):
        replace(small(), family="power").apply(QUERY, [0.5])
    with pytest.raises(InvalidInput, match=r"\(n, 4\)"):
        small().apply(QUERY[:3], [0.5])
    with pytest.raises(InvalidInput, match="depends on the query"):
        small().apply(None, [0.5])
    with pytest.raises(InvalidInput, match="not finite"):
        small().apply(np.full(DIMS, np.nan, np.float32), [0.5])
    for change in ({"family": "cubic"}, {"onnx": b""}, {"dims": 0}):
        with pytest.raises(CalibrationError):
            replace(small(), **change)
    with pytest.raises(CalibrationError, match="euclidean"):
        replace(small("sqrt"), metric="euclidean")


def test_it_prints_as_json_and_reads_back() -> None:
    adapter = replace(small("power"), model="m", n_pairs=7, judgments_sha256="ab")
    assert NetworkAdapter.from_json(adapter.to_json()) == adapter
    content = json.loads(adapter.to_json())
    for change in (
        {"kind": "platt"},
        {"version": 2},
        {"onnx_sha256": "0" * 64},
        {"onnx": "?"},
        {"more": 1},
        {"family": 7},
    ):
        with pytest.raises(CalibrationError):
            NetworkAdapter.from_json(json.dumps({**content, **change}))
    for text in ("", "[]", "nope", json.dumps({"kind": "network", "version": 1})):
        with pytest.raises(CalibrationError):
            NetworkAdapter.from_json(text)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_that_of_differences(family: Any) -> None:
    rng = np.random.default_rng(1)
    some = _Judged(
        rng.normal(size=(5, DIMS)),
        rng.uniform(0.05, 1, (5, 6)),
        (rng.random((5, 6)) < 0.4).astype(float),
        (rng.random((5, 6)) < 0.8).astype(float),
    )
    ends = np.array([0.3, -0.2, 0.1][: 3 if family == "power" else 2])
    start = _Start(0.4, 0.3, ends, family)
    network = Network.start(DIMS, 7, ends, seed=2)
    network.weights["matrix_3"] = rng.normal(size=network.weights["matrix_3"].shape)
    _, slope = start.losses(network.forward(some.queries), some)
    gradient = network.backward(slope)
    for name, value in network.weights.items():
        for place in list(np.ndindex(value.shape))[:6]:
            before, step = value[place], 1e-6
            losses = []
            for moved in (before + step, before - step):
                value[place] = moved
                losses.append(start.losses(network.forward(some.queries), some)[0])
            value[place] = before
            assert gradient[name][place] == pytest.approx(
                (losses[0] - losses[1]) / (2 * step), abs=1e-7
            ), (name, place)


def curved(seed: int, n: int = 400) -> tuple[Any, Any, Any]:
    """Queries whose first direction says where their curve lies."""
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(n, 8))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scores = rng.uniform(0, 1, (n, 25))
    truth = 8 * scores - 4 + 6 * queries[:, [0]]
    return queries, scores, rng.random((n, 25)) < sigmoid(truth)


@pytest.mark.parametrize("family", ["linear", "power"])
def test_a_trained_network_beats_platt_where_queries_differ(family: Any) -> None:
    queries, scores, labels = curved(0)
    heard: list[tuple[int, float]] = []
    how = Training(hidden=24, epochs=25, batch=64, rate=5e-3, dropout=0.1)
    adapter = train_network(
        queries, scores, labels, family=family, training=how,
        progress=lambda *at: heard.append(at),
    )  # fmt: skip
    assert heard[0][0] == 0 and min(loss for _, loss in heard) < heard[0][1]
    assert (adapter.dims, adapter.n_queries, adapter.n_pairs) == (8, 400, 10_000)
    fresh, tests, truth = curved(1, 150)
    line = fit_platt(scores.ravel(), labels.ravel())
    plain = sigmoid(line.slope * tests + line.offset)
    ours = np.stack([adapter.apply(q, s) for q, s in zip(fresh, tests, strict=True)])

    def loss(p: Any) -> float:
        return float(-np.log(np.where(truth, p, 1 - p)).mean())

    assert loss(ours) < 0.9 * loss(plain)
    scores = np.linspace(-0.2, 1, 50)
    assert all((np.diff(adapter.apply(query, scores)) >= 0).all() for query in fresh)


def test_training_that_learns_nothing_ends_as_platt() -> None:
    rng = np.random.default_rng(3)
    queries, scores = rng.normal(size=(60, 8)), rng.uniform(0, 1, (60, 20))
    labels = rng.random((60, 20)) < sigmoid(6 * scores - 3)
    counted = rng.random((60, 20)) < 0.9
    how = Training(hidden=8, epochs=3, rate=2.0, patience=3)  # steps far too large
    adapter = train_network(queries, scores, labels, counted=counted, family="linear", training=how)
    curves = adapter.curves(queries)
    assert len({curve.slope for curve in curves}) == 1 and curves[0].slope > 0
    groups = np.repeat(np.arange(2), 30)
    assert train_network(queries, scores, labels, groups=groups, training=how).family == "power"


def test_too_little_to_train_on_is_refused() -> None:
    queries, scores, labels = curved(0, 30)
    with pytest.raises(CalibrationError, match="at least 20"):
        train_network(queries[:10], scores[:10], labels[:10])
    with pytest.raises(CalibrationError, match="two groups"):
        train_network(queries, scores, labels, groups=np.zeros(30))
    with pytest.raises(CalibrationError, match="swapped"):
        train_network(queries, scores, ~(scores > 0.5))
    with pytest.raises(InvalidInput, match="do not fit"):
        train_network(queries, scores[:5], labels)
    with pytest.raises(InvalidInput, match="family"):
        train_network(queries, scores, labels, family="cubic")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="not finite"):
        train_network(queries, np.full_like(scores, np.inf), labels)
    for wrong in ({"hidden": 0}, {"dropout": 1.0}, {"rate": 0.0}, {"held_out": 1.0}):
        with pytest.raises(InvalidInput):
            Training(**wrong)


def test_a_table_is_searched_by_a_network() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(120, DIMS)).astype(np.float32)
    queries = rng.uniform(-0.9, 0.9, (12, DIMS)).astype(np.float32)
    ids, labels = [], []
    for query in queries:
        scores = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-scores)[::6]
        ids += nearest.tolist()
        labels += (rng.random(20) < sigmoid(8 * (scores[nearest] - 0.4))).tolist()
    with fv.connect("memory:") as engine:
        table = engine.create("things", dims=DIMS)
        table.add(range(120), rows)
        table.create_funnel("things_search", f"{DIMS}:f32")
        fitted = table.calibrate(fv.Judgments(np.repeat(queries, 20, axis=0), ids, labels))
        network = small("power")
        asked: list[float | None] = []

        class Heard:
            """Notes what the database is told."""

            def search(self, query: Any, **options: Any) -> Any:
                asked.append(options["min_relevance"])
                return table.search(query, **options)

        for line in (fitted, None):
            adapted = AdaptedTable(Heard(), network, fitted=line)  # type: ignore[arg-type]
            for query in queries:
                every = table.search(query, k=100)
                relevance = network.apply(query, [hit.score for hit in every])
                for least in (None, 0.0, 0.2, 0.6, 0.9999, 1.0):
                    found = adapted.search(query, k=100, min_relevance=least)
                    expected = [
                        (hit.id, hit.score, pytest.approx(value))
                        for hit, value in zip(every, relevance, strict=True)
                        if least is None or value >= least
                    ]
                    assert [(hit.id, hit.score, hit.relevance) for hit in found] == expected
                    if not found:
                        assert found.nearest is not None and found.nearest.id == every[0].id
                        assert found.nearest.relevance == pytest.approx(relevance[0])
            if line is not None:
                # The cutoff of each query is another, and the database hears of it.
                assert len({told for told in asked if told is not None}) > len(queries)
            asked.clear()
