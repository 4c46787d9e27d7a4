"""`bench qdrant` and `bench load` on Qdrant: that figures are measured, and of the same answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from funnelvec.bench import edge_peers, generate
from funnelvec.bench.edge_recipes import funnel_recipe, peers, templates
from funnelvec.bench.edge_report import EdgeBasis, EdgeStanding
from funnelvec.bench.edge_worker import Built, Process
from funnelvec.bench.layers import measure_layers
from funnelvec.bench.loading_points import compare_point_loads
from funnelvec.cli import main
from funnelvec.errors import InvalidInput, SpecError
from funnelvec.funnel import Funnel


def test_recipes_are_funnels_at_every_setting() -> None:
    recipe = funnel_recipe("128:f16 > 512:f16 > 1536:f32")
    assert recipe.funnel((12, 80)) == "128:f16@80 > 512:f16@12 > 1536:f32"
    assert next(iter(recipe.starts())) == (12,)
    for basis in ("own", "rotated"):
        for quick in (True, False):
            for each in templates(1_536, basis, quick=quick):
                made = funnel_recipe(each)
                Funnel.parse(made.funnel(tuple(values[-1] for _, values in made.knobs)))
    with pytest.raises(SpecError):
        funnel_recipe("nothing > 4:f32")
    assert {each.name for each in peers(quick=True)} < {each.name for each in peers(quick=False)}


def standing(family: str, ms: float, resident: int, seconds: float) -> EdgeStanding:
    built = Built(seconds / 2, seconds / 2, 5)
    return EdgeStanding(family, family, "", 1.0, ((ms, ms),), (ms,), (resident, 0), built)


def test_verdicts_compare_with_full_vectors_and_the_best_quantization() -> None:
    basis = EdgeBasis(
        "own",
        (
            standing("funnel", 1, 10, 10),
            standing("full HNSW", 6, 20, 40),
            standing("int8", 9, 10, 10),
            standing("turbo", 1.2, 10, 10),
        ),
        (),
    )
    assert [each.rpartition(": ")[2] for each in basis.verdicts()] == [
        *("reached", "missed", "reached", "missed"),
    ]
    assert "1.2 times the queries per second of the best quantization" in basis.verdicts()[3]


def test_one_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    few = [each for each in peers(quick=True) if each.name in ("full-dimension HNSW", "int8")]
    monkeypatch.setattr(edge_peers, "peers", lambda *, quick: few)
    layers: list[Any] = []
    monkeypatch.setattr(edge_peers, "measure_layers", lambda *_, **given: tuple(layers))
    arguments = ["bench", "qdrant", "--quick", "--rows", "300", "--dims", "16", "--rounds", "2"]
    arguments += ["--basis", "own", "--funnel", "8:f16 > 16:f32", "--json"]
    page = tmp_path / "qdrant.html"
    assert main([*arguments, "--report", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    (basis,) = found["bases"]
    ours, full, int8 = basis["standings"]
    assert [each["family"] for each in (ours, full, int8)] == ["funnel", "full HNSW", "int8"]
    for each in basis["standings"]:
        assert each["recall"] >= 0.99
        assert len(each["times"]) == 2 and len(each["times"][0]) == 100
        assert sum(each["memory"]) > 0 and each["built"]["disk_bytes"] > 300 * 16 * 4
        assert each["ours_better"]["rate"]["repeats"] == 2
    assert ours["setting"].startswith("8:f16@") and full["setting"] == "ef 16"
    settings = [each["settings"] for each in basis["traces"]]
    assert [each["name"] for each in basis["traces"]] == [
        each["name"] for each in (ours, full, int8)
    ]
    for each, tried in zip((ours, full, int8), settings, strict=True):
        assert max(one["recall"] for one in tried) >= each["recall"] and len(tried) > 1
    text = page.read_text()
    assert text.count("<svg") == 2 and "Recall against time" in text and "resident, MB" in text


def test_a_contestant_that_fails_says_why() -> None:
    with Process() as process:
        with pytest.raises(AttributeError):
            process.call("nothing_like_that")
        with pytest.raises(Exception, match="nowhere"):
            process.call("open", peers(quick=True)[0], "/nowhere", "/nowhere.npy")


@pytest.mark.parametrize("given", [{"target": 0.0}, {"rounds": 0}, {"bases": ["odd"]}, {"k": 0}])
def test_bad_arguments(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        edge_peers.compare_edge(generate(50, 2, dims=4), **given)


def test_our_layer_finds_what_the_request_by_hand_finds() -> None:
    found = measure_layers(
        generate(400, 5, dims=32), url=None, k=10, rounds=2, say=lambda text: None
    )
    assert [each.name for each in found] == ["Edge", "local mode"]
    assert all(each.same and each.ours_ms > 0 and each.ratio.repeats == 2 for each in found)


@pytest.mark.parametrize("url", ["edge:", "qdrant-local::memory:"])
def test_loads_are_compared(url: str) -> None:
    found = compare_point_loads(url, generate(60, 1, dims=8), resolution="4:f16", rounds=1)
    assert [each.name for each in found.paces][1:] == [
        *("load()", "load() with codes", "upsert(), points are there"),
    ]
    assert found.paces[0].versus is None and all(each.versus for each in found.paces[1:])
    assert json.dumps(found.as_json()) and len(found.section().rows) == 4
