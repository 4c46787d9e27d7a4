"""Requests for Qdrant, compiled without a database."""

from __future__ import annotations

import math
import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models

from funnelvec import filters
from funnelvec.engines.qdrant import names
from funnelvec.engines.qdrant.compile import (
    Limits,
    Plan,
    compile_search,
    rescore_request,
    scan_request,
)
from funnelvec.engines.qdrant.conditions import _seen_as, compile_filter
from funnelvec.engines.qdrant.features import Version, check_version
from funnelvec.engines.qdrant.payload import from_payload, to_payload
from funnelvec.engines.qdrant.vectors import Column
from funnelvec.errors import CapabilityError, InvalidInput
from funnelvec.funnel import Funnel
from funnelvec.kinds import convert
from funnelvec.resolution import Resolution

COSINE = Column("embedding", Resolution(8, "f32"), "cosine")
QUERY = np.arange(1, 9, dtype=np.float32)


def plan(funnel: str, *indexed: str, **rest: Any) -> Plan:
    column = rest.pop("column", COSINE)
    return Plan(column, Funnel.parse(funnel), frozenset(map(Resolution.parse, indexed)), **rest)


def test_a_funnel_is_nested_and_every_level_says_everything() -> None:
    filter = compile_filter(
        filters.check(filters.parse({"n": 1}), {"n": "integer"}), {"n": "integer"}
    )  # type: ignore[arg-type]
    request = compile_search(
        plan("8:bit@400 > 4:f16@100 > 8:f32", "8:bit"), QUERY, limit=11, filter=filter, cutoff=0.5
    )
    middle = request.prefetch
    assert isinstance(middle, models.Prefetch)
    inner = middle.prefetch
    assert isinstance(inner, models.Prefetch) and inner.prefetch is None
    assert [each.using for each in (request, middle, inner)] == [
        "embedding",
        "embedding_4_f16",
        "embedding_8_bit",
    ]
    assert [each.limit for each in (request, middle, inner)] == [11, 100, 400]
    assert [each.filter for each in (request, middle, inner)] == [None, None, filter]
    assert all(each.params is not None for each in (request, middle, inner))
    assert inner.params == models.SearchParams(
        hnsw_ef=400,
        exact=False,
        quantization=models.QuantizationSearchParams(ignore=False, rescore=False, oversampling=1.0),
    )
    for each in (request, middle):  # what rescores reads no codes that the collection may have
        assert each.params is not None and each.params.quantization is not None
        assert each.params.quantization.ignore is True
    assert request.with_payload is False and request.with_vector is False
    assert inner.query == [1.0] * 8
    assert inner.score_threshold is None and middle.score_threshold is None


def test_one_stage_is_exact_without_an_index_and_walks_the_graph_with_one() -> None:
    exact = compile_search(plan("8:f32"), QUERY, limit=3)
    assert exact.params is not None and exact.params.exact is True
    walked = compile_search(plan("8:f32", "8:f32"), QUERY, limit=3)
    assert walked.params is not None
    assert (walked.params.exact, walked.params.hnsw_ef) == (False, 64)


@given(st.floats(-1e6, 1e6), st.sampled_from(["cosine", "dot", "euclidean"]))
def test_a_threshold_keeps_every_float_from_the_cutoff_on(cutoff: float, metric: Any) -> None:
    stored = Column("e", Resolution(8, "f32"), metric).stored(Resolution(8, "f32"))
    threshold = stored.threshold(cutoff)
    score = np.float32(cutoff)
    if float(score) < cutoff:
        score = np.nextafter(score, np.float32(np.inf))
    raw = -score if stored.falls else score  # the lowest score that is to stay
    assert (np.float32(raw) < np.float32(threshold)) if stored.falls else raw > threshold
    assert math.isclose(abs(threshold), abs(cutoff), rel_tol=1e-6, abs_tol=1e-30)


def test_bits_score_as_the_cosine_of_signs() -> None:
    stored = COSINE.stored(Resolution(8, "bit"))
    a, b = stored.encode(np.stack([QUERY, -QUERY * [1, 1, 1, -1, 1, 1, 1, 1]]))
    assert stored.score(float(a @ b)) == 1 - 2 * 7 / 8
    assert stored.params(index=True).quantization_config is not None
    levels = Column("e", Resolution(64, "f32"), "dot").stored(Resolution(64, "bit3", "random"))
    assert levels.size == 3 * 64 and levels.name == "e_64_bit3_random"


def test_a_graph_over_narrow_codes_is_used_from_few_points_on() -> None:
    narrow = Column("e", Resolution(1_536, "f32"), "cosine")
    for text, threshold, m, effort in (("128:int8", 250, 32, 128), ("128:f16", 500, 32, 128),
                                       ("1536:f32", 10_000, 16, 100), ("4:int8", 10, 32, 128)):  # fmt: skip
        graph = narrow.stored(Resolution.parse(text)).graph(index=True)
        assert (graph.full_scan_threshold, graph.m, graph.ef_construct) == (threshold, m, effort)
        assert narrow.stored(Resolution.parse(text)).graph(index=False).m == 0


def test_a_query_without_a_direction_is_refused_where_there_must_be_one() -> None:
    query = np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=np.float32)
    with pytest.raises(InvalidInput, match="the first 4 numbers of the query are zero"):
        compile_search(plan("4:f16@5 > 8:f32"), query, limit=1)
    euclid = Column("embedding", Resolution(8, "f32"), "euclidean")
    compile_search(plan("4:f16@5 > 8:f32", column=euclid), query, limit=1)


def test_strict_mode_is_respected() -> None:
    limits = Limits.of(
        models.StrictModeConfig(
            enabled=True, max_query_limit=100, search_max_hnsw_ef=80, search_allow_exact=False
        )
    )
    strict = plan("4:f16@90 > 8:f32", "4:f16", limits=limits)
    inner = compile_search(strict, QUERY, limit=5).prefetch
    assert isinstance(inner, models.Prefetch) and inner.params is not None
    assert inner.params.hnsw_ef == 80
    with pytest.raises(CapabilityError, match=r"stage 4:f16@200 takes 200 rows.*allows 100"):
        compile_search(plan("4:f16@200 > 8:f32", limits=limits), QUERY, limit=5)
    with pytest.raises(CapabilityError, match="search_allow_exact"):
        scan_request(strict, QUERY, limit=5, rows=100)
    request = rescore_request(strict, strict.last, QUERY, ids=[1], limit=5)
    assert request.params is not None and request.params.exact is False
    off = models.StrictModeConfig(enabled=False, max_query_limit=1)
    assert Limits.of(off) == Limits.of(None) == Limits()


@pytest.mark.parametrize(
    ("text", "reason"), [("1.14.1", "needs Qdrant 1.15, and this server is 1.14"), ("x", "is none")]
)
def test_old_servers_are_refused(text: str, reason: str) -> None:
    with pytest.raises(CapabilityError, match=reason):
        check_version(text)


def test_versions_are_compared_by_number() -> None:
    assert check_version("1.20.0-dev") > Version(1, 9)
    with pytest.raises(CapabilityError, match=r"adding needs Qdrant 1\.18"):
        Version(1, 16).require(Version(1, 18), "adding", "copy")


odd_names = st.text(st.sampled_from('a"\\%25C. é'), min_size=1, max_size=6)


@given(odd_names, odd_names)
def test_payload_keys_differ_as_columns_do_and_fit_into_a_path(a: str, b: str) -> None:
    assert (names.payload_key(a) == names.payload_key(b)) == (a == b)
    assert '"' not in names.payload_key(a) and "\\" not in names.payload_key(a)


def test_paths() -> None:
    assert names.payload_path("meta", ["a b", "c", ""]) == 'meta."a b".c.""'
    assert names.payload_path("meta.size") == '"meta.size"'
    with pytest.raises(CapabilityError, match="postgresql:// or memory:"):
        names.payload_path("meta", ['it"s'])


@given(st.integers(-(2**63), 2**63 - 1))
def test_whole_numbers_are_read_back_from_the_ids_of_points(key: int) -> None:
    id = names.point_id(key, "integer")
    assert names.key_of(id, "integer") == key
    assert isinstance(id, int) == (key >= 0)


def test_other_keys_have_points_of_their_own() -> None:
    assert names.key_of(names.point_id(uuid.UUID(int=7), "uuid"), "uuid") == uuid.UUID(int=7)
    ids = {names.point_id(key, "text") for key in ("a", "A", "", " ")}
    ids |= {names.point_id(key, ("text", "integer")) for key in [("a", 1), ("a", -1)]}
    assert len(ids) == 6
    with pytest.raises(InvalidInput, match="somebody else"):
        names.key_of(names.point_id("a", "text"), "integer")
    with pytest.raises(InvalidInput, match="holds the definition"):
        names.point_id(uuid.UUID(names.DEFINITION), "uuid")


documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
)


@given(documents)
def test_json_comes_back_and_an_empty_list_is_no_missing_value(document: Any) -> None:
    written = to_payload(document, "json")
    assert from_payload(written, "json") == document
    assert written != []


@given(st.lists(st.none() | st.floats(), max_size=3))
def test_numbers_come_back_with_those_that_json_has_not(numbers: list[Any]) -> None:
    written = to_payload(convert(numbers, "number[]"), "number[]")
    np.testing.assert_equal(from_payload(written, "number[]"), numbers)
    assert written != []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("date", "0001-01-01"),
        ("timestamp", "2024-02-29T23:59:59.999999Z"),
        ("timestamp", "2024-02-29T00:00:00+05:30"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000"),
    ],
)
def test_typed_values_come_back(kind: Any, value: str) -> None:
    converted = convert(value, kind)
    assert from_payload(to_payload(converted, kind), kind) == converted


def test_numbers_beyond_what_json_holds_are_refused() -> None:
    with pytest.raises(CapabilityError, match="64 bits in JSON"):
        to_payload({"a": [2**63]}, "json")


KINDS: dict[str, Any] = {"n": "integer", "x": "number", "t": "text", "j": "json", "f": "text[]"}


@pytest.mark.parametrize(
    ("filter", "reason"),
    [
        ({"t": {"$lt": "a"}}, "no order of text"),
        ({"f": {"$gte": "a"}}, "no order of text"),
        ({"j.a": {"$gt": "a"}}, "no order of text"),
        ({"n": {"$gt": 2**53}}, "orders numbers as doubles"),
        ({"j": 2**53 + 1}, "compares numbers as doubles"),
        ({"j": {"$lt": 2.0**60}}, "orders numbers as doubles"),
        ({'j.a"b': 1}, "has no path"),
    ],
)
def test_what_qdrant_cannot_decide_is_refused(filter: dict[str, Any], reason: str) -> None:
    parsed = filters.parse(filter)
    assert parsed is not None
    with pytest.raises(CapabilityError, match=reason) as caught:
        compile_filter(filters.check(parsed, KINDS), KINDS)
    assert "postgresql://" in str(caught.value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_qdrant_reads_back_is_next_to_what_was_written(number: float) -> None:
    low, high = _seen_as(number)
    assert low <= number <= high
    assert high - low <= 4 * math.ulp(number)
    if len(repr(number).strip("-0").replace(".", "").partition("e")[0]) <= 15:
        assert abs(number) > 1e22 or abs(number) < 1e-7 or low == high
