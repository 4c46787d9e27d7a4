"""The benchmark of codes: what it lists, and that its figures move as they must."""

from __future__ import annotations

import json

import numpy as np
import pytest

from funnelvec import cli
from funnelvec.bench import compare_codes, generate
from funnelvec.bench.maps import sparse_projection, whitening
from funnelvec.errors import InvalidInput
from funnelvec.resolution import Resolution


def quiet(text: str) -> None:
    assert text


def test_codes_by_size_with_what_they_keep() -> None:
    dataset = generate(1200, 60, dims=128, seed=1)
    found = compare_codes(dataset, say=quiet)
    assert (found.rows, found.queries) == (1200, 30)
    by_name = {each.code: each for each in found.figures}
    assert [each.bytes for each in found.figures] == sorted(each.bytes for each in found.figures)
    assert by_name["64:f16"].bytes == 128 and by_name["128:bit"].bytes == 16
    assert by_name["32:f16"].recall > by_name["32:f16 of ~random"].recall + 0.1
    assert by_name["64:bit~pcar, query in floats"].recall > by_name["64:bit~pcar"].recall
    assert by_name["64:f16~pca"].rows < by_name["64:f16, sparse projection"].rows
    for each in found.figures:
        assert 0 <= each.recall <= 1 and 10 <= each.rows <= 1200
        if each.offered:
            Resolution.parse(each.code)  # what is offered can be written so
    turned = {each.code: each for each in compare_codes(dataset, turned=True, say=quiet).figures}
    assert turned["32:f16"].recall < by_name["32:f16"].recall - 0.1
    assert turned["32:f16~pca"].recall == pytest.approx(by_name["32:f16~pca"].recall, abs=0.02)


def test_too_few_rows_to_compare() -> None:
    with pytest.raises(InvalidInput, match="take 200"):
        compare_codes(generate(150, 20, dims=32), say=quiet)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "codes", "--rows", "300", "--dims", "64"]
    assert cli.main(arguments) == 0
    assert "best 100 hold" in capsys.readouterr().out
    assert cli.main([*arguments, "--turn", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "rotated at random" in found["dataset"] and len(found["figures"]) == 20


def test_projections_that_lost_are_what_they_are_called() -> None:
    sparse = sparse_projection(400, 50, 0)
    assert set(np.round(np.abs(np.unique(sparse)), 6)) == {0.0, round((20 / 50) ** 0.5, 6)}
    assert (sparse != 0).mean() == pytest.approx(1 / 20, rel=0.1)
    assert (sparse**2).sum(axis=0).mean() == pytest.approx(1.0, rel=0.1)
    rows = (generate(3000, 1, dims=16).rows + 0.5).astype(np.float32)
    mean, white = whitening(rows, 16, 0.0)
    whitened = (rows - mean) @ white.T
    assert np.allclose(np.cov(whitened.T), np.eye(16), atol=0.02)
    assert np.allclose(whitened.mean(axis=0), 0, atol=1e-6)
