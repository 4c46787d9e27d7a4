"""Codes that only Qdrant has: what is asked of it, what comes back, and where it is too old."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models

import funnelvec as fv
from funnelvec.codes import int8
from funnelvec.engines.qdrant.compile import Plan, compile_search
from funnelvec.engines.qdrant.features import Version, codes_of
from funnelvec.engines.qdrant.vectors import Column
from funnelvec.errors import CapabilityError, SpecError
from funnelvec.funnel import Funnel
from funnelvec.resolution import CODES, OWN_CODES, Resolution
from tests.agreement import edge

DIMS = 32
VECTORS = (
    np.random.default_rng(3).normal(size=(400, DIMS)) * np.exp(-np.arange(DIMS) / 10)
).astype(np.float32)
COLUMN = Column("embedding", Resolution(DIMS, "f32"), "cosine")


def exact(query: Any) -> list[int]:
    cosines = VECTORS @ query / np.linalg.norm(VECTORS, axis=1)
    return [int(row) for row in np.argsort(-cosines)]


@pytest.fixture(scope="module")
def edge_table() -> Iterator[Any]:
    with edge.folder() as folder, fv.connect(f"edge:{folder}") as engine:
        table = engine.create("docs", dims=DIMS)
        table.add(range(len(VECTORS)), VECTORS)
        yield table


@pytest.mark.parametrize(
    ("resolution", "least", "bytes"),
    [
        ("16:int8", 0.95, 16),
        ("16:turbo", 0.9, 8),
        ("16:turbo8", 0.95, 16),
        ("32:bq1~random", 0.7, 4),
        ("32:bq15~random", 0.7, 6),
        ("32:bq2~random", 0.8, 8),
    ],
)
def test_edge_has_the_code_and_finds_what_is_near(
    edge_table: Any, resolution: str, least: float, bytes: int
) -> None:
    """Of the exact top 10 of the vectors that the code was made of, so many are among 60."""
    edge_table.add_resolution(resolution, index=True)
    edge_table.create_funnel("docs_search", f"{resolution}@60 > 32:f32", replace=True)
    edge_table.upsert([7], VECTORS[[7]])  # written through the other way too
    alone = len(resolution.split("~")) == 1
    shares = []
    for query in VECTORS[:40] + np.float32(0.01):
        wanted = exact(query)[:10]
        found = {hit.id for hit in edge_table.search(query, k=60)}
        shares.append(len(found & set(wanted)) / 10)
    assert np.mean(shares) >= least, (np.mean(shares), alone)
    (status,) = [s for s in edge_table.status() if s.resolution == resolution]
    assert (status.code_bytes, status.coverage) == (400 * bytes, 1.0)
    explained = edge_table.explain(VECTORS[0], k=5)
    assert [stage.rows_out for stage in explained.stages] == [60, 5]


def test_what_is_sent_says_what_is_compared() -> None:
    for code, encoding, bytes in (
        ("bq1", "one_bit", 4),
        ("bq15", "one_and_half_bits", 6),
        ("bq2", "two_bits", 8),
    ):
        stored = COLUMN.stored(Resolution(DIMS, code))  # type: ignore[arg-type]
        params = stored.params(index=True)
        assert isinstance(params.quantization_config, models.BinaryQuantization)
        binary = params.quantization_config.binary
        assert (binary.encoding, binary.query_encoding) == (encoding, "scalar8bits")
        assert params.on_disk and params.datatype == "float16" and stored.bytes == bytes
        plan = Plan(COLUMN, Funnel.parse(f"{DIMS}:bit@90 > {DIMS}:{code}@60 > {DIMS}:f32"))
        middle: Any = compile_search(plan, VECTORS[0], limit=5).prefetch
        # Exact search, and search without quantization, would read the originals.
        assert middle.params.exact is False
        assert middle.params.quantization.ignore is False
        assert middle.params.quantization.rescore is False
    turbo = COLUMN.stored(Resolution(DIMS, "turbo")).params(index=False)
    assert (turbo.datatype, turbo.quantization_config, turbo.on_disk) == ("turbo4", None, False)
    bytes_ = COLUMN.stored(Resolution(DIMS, "int8")).params(index=False)
    assert (bytes_.datatype, bytes_.distance, bytes_.quantization_config) == (
        "uint8",
        "Euclid",
        None,
    )


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_bytes_come_back_and_score_as_in_numpy(dims: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    column = Column("e", Resolution(dims, "f32"), "cosine")
    stored = column.stored(Resolution(dims, "int8"))
    vectors = rng.normal(size=(4, dims)).astype(np.float32)
    written = stored.encode(vectors)
    assert written.min() >= 1 and written.max() <= 255
    np.testing.assert_array_equal(stored.unpack(written), int8.encode(vectors))
    asked = stored.encode_one(vectors[0])
    np.testing.assert_array_equal(asked, written[0])
    distances = np.sqrt(((written - asked) ** 2).sum(axis=1).astype(np.float32))
    scores = int8.score(int8.encode(vectors)[0], int8.encode(vectors))
    assert scores[0] == 1.0
    for distance, score in zip(distances, scores, strict=True):
        assert stored.score(float(distance)) == score
        # A threshold leaves out what is as far as it, or farther.
        assert distance < np.float32(stored.threshold(float(score)))


@given(st.integers(64, 2000), st.integers(0, 2**32 - 1))
def test_bytes_are_near_the_cosine(dims: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(20, dims)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = int8.score(int8.encode(vectors)[0], int8.encode(vectors))
    # Six standard errors of what rounding to the grid does to a product.
    assert np.abs(scores - unit @ unit[0]).max() < 0.17 / np.sqrt(dims)


def test_zero_has_no_code() -> None:
    stored = COLUMN.stored(Resolution(4, "int8"))
    rows = np.zeros((2, DIMS), np.float32)
    rows[1, 0] = 1e-20
    assert stored.has_code(stored.encode(rows)).tolist() == [False, True]
    assert np.isnan(int8.score(int8.encode(rows)[1], int8.encode(rows))).tolist() == [True, False]


def test_what_no_code_is_for_is_refused() -> None:
    with fv.connect("memory:") as memory, fv.connect("qdrant-local::memory:") as engine:
        for each in (memory, engine):
            table = each.create("docs", dims=8, metric="dot")
            table.add(range(60), VECTORS[:60, :8])
            with pytest.raises(CapabilityError, match="int8 keeps directions, and under dot"):
                table.add_resolution("8:int8")
            assert table.status() == []
            table = each.create("more", dims=8)
            table.add(range(400), VECTORS[:, :8])
            table.fit_rotation("sphere", kind="sphering", dims=4, queries=VECTORS[:40, :8])
            with pytest.raises(SpecError, match="write 4:f16~sphere"):
                table.add_resolution("4:int8~sphere")
        table.add_resolution("8:turbo")
        with pytest.raises(CapabilityError, match="ends in turbo, whose scores are estimates"):
            table.create_funnel("more_search", "8:turbo", approximate=True)
        for code in OWN_CODES[1:]:
            with pytest.raises(CapabilityError, match=f"this engine has no code {code}"):
                memory.table("more").add_resolution(f"4:{code}")
        with pytest.raises(SpecError, match=r"unknown code 'int4'.*in Qdrant int8, turbo"):
            table.add_resolution("8:int4")


def test_codes_go_by_the_version_of_the_server() -> None:
    assert codes_of(None) == (*CODES, *OWN_CODES)
    assert set(codes_of(None)) - set(codes_of(Version(1, 19))) == {"turbo8"}
    assert set(codes_of(None)) - set(codes_of(Version(1, 18))) == {"turbo", "turbo8"}
