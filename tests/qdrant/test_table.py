"""What a table in Qdrant does beyond the scenarios: writing, resolutions, funnels, two clients."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

import funnelvec as fv
from funnelvec.engines.qdrant import definition, names
from funnelvec.engines.qdrant.engine import QdrantEngine
from funnelvec.engines.qdrant.table import QdrantTable
from funnelvec.errors import (
    CapabilityError,
    Conflict,
    EngineError,
    FilterError,
    InvalidInput,
    NotFound,
    VersionMismatch,
)

RNG = np.random.default_rng(3)
VECTORS = RNG.normal(size=(60, 16)).astype(np.float32)


def filled(engine: QdrantEngine, **rest: Any) -> QdrantTable:
    table = engine.create("docs", dims=16, **rest)
    table.add(range(60), VECTORS)
    table.add_resolution("8:f16")
    table.create_funnel("docs_search", "8:f16@40 > 16:f32")
    return table


def test_written_rows_have_all_codes_and_deleted_ones_none(engine: QdrantEngine) -> None:
    table = filled(engine)
    table.upsert([5, 100], VECTORS[[7, 8]])
    assert len(table) == 61
    assert [hit.id for hit in table.search(VECTORS[7], k=2)] == [5, 7]
    assert table.delete([5, 7, 1000]) == 2
    assert len(table) == 59
    assert table.search(VECTORS[7], k=1)[0].id not in (5, 7)
    (status,) = table.status()
    assert (status.rows, status.filled, status.column) == (59, 59, "embedding_8_f16")


def test_a_resolution_is_added_to_a_table_in_use_in_any_batches(engine: QdrantEngine) -> None:
    table = engine.create("docs", dims=16, metric="euclidean")
    table.add(range(60), VECTORS)
    table.add_resolution("16:bit", concurrently=True)
    with pytest.raises(Conflict, match="is not filled yet"):
        table.create_funnel("docs_search", "16:bit@30 > 16:f32")
    assert "backfill() goes on" in table.status()[0].advice
    table.upsert([3], VECTORS[[9]])  # brings its code itself
    told: list[Any] = []
    assert table.backfill(batch=7, on_step=told.append) == 59
    assert [step.done for step in told] == [*range(7, 57, 7), 59]
    assert table.backfill() == 0
    (status,) = table.status()
    assert status.advice == "" and status.coverage == 1.0 and 0 < (status.bit_balance or 0) <= 1
    table.create_funnel("docs_search", "16:bit@30 > 16:f32")
    assert [hit.id for hit in table.search(VECTORS[9], k=2)] == [3, 9]


def test_a_prefix_of_zeros_has_no_code_and_is_counted(engine: QdrantEngine) -> None:
    table = engine.create("docs", dims=4)
    table.add([1, 2], [[1, 2, 3, 4], [0, 0, 3, 4]])
    table.add_resolution("2:f16")
    table.create_funnel("docs_search", "2:f16@2 > 4:f32")
    assert [hit.id for hit in table.search([1, 1, 1, 1], k=2)] == [1]
    (status,) = table.status()
    assert (status.rows, status.filled) == (2, 1) and "1 rows have no code" in status.advice
    notes = table.explain([1, 1, 1, 1], k=2).notes
    assert any("stage 1 keeps 2 rows and found 1 of 2" in note for note in notes)
    table.upsert([1], [[0, 0, 1, 1]])  # what it had goes
    assert table.status()[0].filled == 0


def test_add_is_all_or_none_and_upsert_keeps_other_columns(engine: QdrantEngine) -> None:
    table = engine.create("docs", dims=2, columns={"a": "integer", "b": "text"})
    table.add([1], [[1, 0]], columns={"a": [1], "b": ["x"]})
    with pytest.raises(Conflict, match="the key 1 is in table"):
        table.add([2, 1], [[1, 0], [0, 1]])
    with pytest.raises(InvalidInput, match="row 1, position 0"):
        table.add([2, 3], [[1, 0], [float("nan"), 1]])
    assert len(table) == 1
    table.create_funnel("docs_search", "2:f32", returns=["a", "b"])
    written = table.upsert([1, 2], [[0, 1], [1, 1]], columns={"a": [None, 7]})
    assert (written.inserted, written.updated) == (1, 1)
    hits = {hit.id: hit.columns for hit in table.search([1, 1])}
    assert hits == {1: {"a": None, "b": "x"}, 2: {"a": 7, "b": None}}


def test_ties_at_the_cut_go_by_key(engine: QdrantEngine) -> None:
    table = engine.create("docs", dims=2)
    table.add([*range(40, 0, -1), -3], np.repeat([[1.0, 2.0]], 41, axis=0))
    table.create_funnel("docs_search", "2:f32")
    assert [hit.id for hit in table.search([1, 2], k=4)] == [-3, 1, 2, 3]
    first = table.search([1, 2], k=4)
    assert [hit.id for hit in table.search([1, 2], k=4, after=first[-1])] == [4, 5, 6, 7]
    many = table.search_many([[1, 2], [2, 1]], k=4)
    assert [[hit.id for hit in hits] for hits in many] == [[-3, 1, 2, 3]] * 2


def test_recall_explain_and_samples(engine: QdrantEngine) -> None:
    table = filled(engine)
    report = table.measure_recall(sample=20, k=5)
    assert report.queries == 20 and 0.5 < report.stages[0].recall <= 1
    narrow = table.measure_recall(k=1, queries=VECTORS[:10])
    assert narrow.recall == 1.0
    explanation = table.explain(VECTORS[0], k=3)
    assert [(s.rows_in, s.rows_out, s.access) for s in explanation.stages] == [
        (60, 40, "scan"),
        (40, 3, "rescore"),
    ]
    sample = table.sample(10, seed=4)
    assert sample.rows == 60 and sample.ids == table.sample(10, seed=4).ids
    rows = VECTORS[[int(str(id)) for id in sample.ids]]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(sample.vectors, unit, rtol=1e-5, atol=1e-6)
    assert table.doctor(sample=50, queries=10) is not None


def test_funnels_and_resolutions_go_and_names_are_told(engine: QdrantEngine) -> None:
    table = filled(engine)
    with pytest.raises(Conflict, match="used by docs_search"):
        table.drop_resolution("8:f16")
    with pytest.raises(Conflict, match="stays"):
        table.drop_resolution("16:f32")
    with pytest.raises(Conflict, match="exists already"):
        table.create_funnel("docs_search", "16:f32")
    with pytest.raises(Conflict, match="was made for the metric cosine"):
        table.create_funnel("other", "16:f32", metric="dot")
    table.drop_funnel("docs_search")
    table.drop_resolution("8:f16")
    assert table.status() == []
    with pytest.raises(NotFound, match="has no funnel 'docs_search'"):
        table.search(VECTORS[0])
    with pytest.raises(NotFound, match="has no resolution 8:f16"):
        table.create_funnel("docs_search", "8:f16@5 > 16:f32")
    table.add_resolution("8:f16")  # and may come again
    assert table.status()[0].coverage == 1
    assert table.rotations() == []
    for refused in (
        lambda: table.log_queries(),
        lambda: table.add_window("8:f16", "price"),
        lambda: table.drop_window("8:f16", "price"),
    ):
        with pytest.raises(CapabilityError, match="postgresql://"):
            refused()


def test_hostile_names_of_columns_are_payload_keys_like_others(engine: QdrantEngine) -> None:
    """Quotes, dots, brackets and what looks like escapes; each is told apart from the others."""
    hostile = ['a"b', "a\\b", "a%22b", "a.b", "a", "a[]", "a[0].b", "é 😀", "'; drop", "must_not"]
    table = engine.create("docs", dims=2, columns=dict.fromkeys(hostile, "integer"))
    count = len(hostile)
    values = {
        name: [int(row == place) for row in range(count)] for place, name in enumerate(hostile)
    }
    table.add(range(count), np.ones((count, 2)), columns=values)
    table.create_funnel("docs_search", "2:f32", returns=hostile)
    for place, name in enumerate(hostile):
        (hit,) = table.search([1, 1], filter={name: 1})
        assert hit.id == place
        assert hit.columns == {other: int(other == name) for other in hostile}
    table.upsert([0], [[1, 1]], columns={'a"b': [None], "a.b": [7]})
    assert [hit.id for hit in table.search([1, 1], filter={"a.b": {"$gte": 7}})] == [0]
    assert table.search([1, 1], filter={'a"b': 1}) == []


def test_rows_that_cannot_be_are_refused_before_any_is_written(engine: QdrantEngine) -> None:
    table = filled(engine)
    for ids, vectors, words in (
        ([90, 91], VECTORS[:2, :5], r"shape \(n, 16\) of the column, not \(2, 5\)"),
        ([90, 91], np.where(np.eye(2, 16) > 0, np.inf, 1.0), "row 0"),
        ([90, 2**64], VECTORS[:2], "18446744073709551616"),
        ([90, "b"], VECTORS[:2], "'b'"),
        ([90, True], VECTORS[:2], "True"),
        ([90, 90], VECTORS[:2], "90"),
    ):
        for write in (table.add, table.upsert):
            if ids == [90, 90] and write == table.upsert:
                continue
            with pytest.raises(InvalidInput, match=words):
                write(ids, vectors)
    assert len(table) == 60 and table.search(VECTORS[0], k=1)[0].id != 90


def test_a_definition_from_before_hubs_and_tuning_is_read() -> None:
    with fv.connect("qdrant-local::memory:") as engine:
        table = filled(engine)
        deployment = table._collection.deployment
        content = json.loads(deployment.read("docs") or "")
        for vector in content["vectors"].values():
            del vector["hub"], vector["tuned"]
        deployment.write("docs", json.dumps({**content, "version": content["version"] + 1}),
                         version=content["version"] + 1)  # fmt: skip
        assert table.search(VECTORS[3], k=1)[0].id == 3
        table.add_hub(sample=20)
        assert table._vector().hub is not None


def test_names_that_are_not_there_or_taken(engine: QdrantEngine) -> None:
    with pytest.raises(NotFound, match="make it with create"):
        engine.table("nope")
    table = filled(engine)
    with pytest.raises(Conflict, match="exists already"):
        engine.create("docs", dims=3)
    with pytest.raises(NotFound, match="no vector column 'other', but 'embedding'"):
        engine.table("docs", vector="other")
    with pytest.raises(CapabilityError, match="no collection name with"):
        engine.create("a/b", dims=3)
    with pytest.raises(InvalidInput, match="_fv_"):
        engine.create("x", dims=3, columns={"_fv_x": "text"})
    with pytest.raises(InvalidInput, match="has 3 dimensions, the column has 16"):
        table.search([1, 2, 3])


def test_two_writers_of_one_definition(engine: QdrantEngine) -> None:
    """Whoever comes second is told, and nothing of the first is lost."""
    table = filled(engine)
    collection = table._collection
    deployment = collection.deployment
    before = collection.definition(fresh=True)

    def change(kept: definition.Definition) -> definition.Definition:
        other = before.next()  # another client comes in between
        deployment.write("docs", other.to_text(), version=other.version)
        return kept.with_vector(kept.vectors["embedding"])

    with pytest.raises(Conflict, match="another client has changed the definition"):
        collection.change(change)
    kept = collection.definition(fresh=True)
    assert kept.version == before.version + 1 and kept.vectors == before.vectors


def test_a_newer_definition_is_refused_and_a_damaged_one_is_named(engine: QdrantEngine) -> None:
    table = filled(engine)
    deployment = table._collection.deployment
    content = json.loads(deployment.read("docs") or "")
    for text, error in (
        (json.dumps({**content, "format": 99}), VersionMismatch),
        ('{"format": 1}', EngineError),
        ("nonsense", EngineError),
    ):
        version = json.loads(deployment.read("docs") or "{}").get("version", 0)
        version = table._collection.definition().version if version == 0 else version
        deployment.write("docs", text, version=content["version"] + 1)
        with pytest.raises(error):
            engine.table("docs")
        content["version"] += 1


# -- collections that other programs have made ---------------------------------------------------


@pytest.fixture
def client() -> QdrantClient:
    client = QdrantClient(":memory:")
    client.create_collection(
        "shop",
        vectors_config={
            "": models.VectorParams(size=16, distance=models.Distance.COSINE),
            "title": models.VectorParams(size=4, distance=models.Distance.DOT),
        },
        sparse_vectors_config={"words": models.SparseVectorParams()},
    )
    sparse = models.SparseVector(indices=[1], values=[2.0])
    client.upsert(
        "shop",
        [
            models.PointStruct(
                id=i,
                vector={"": v.tolist(), "title": [1.0, 0, 0, i], "words": sparse},
                payload={"price": i, "tags": ["a"]},
            )
            for i, v in enumerate(VECTORS)
        ],
    )
    return client


def test_a_collection_of_another_program_gets_a_funnel(client: QdrantClient) -> None:
    engine = fv.wrap(client)
    with pytest.raises(NotFound, match="say which by vector="):
        engine.table("shop")
    table = engine.table("shop", vector="")
    assert (table.key, table.dims, table.metric, len(table)) == ("id", 16, "cosine", 60)
    table.add_resolution("8:f16")
    table.create_funnel("shop_search", "8:f16@40 > 16:f32")
    assert table.search(VECTORS[4], k=1)[0].id == 4
    table.upsert([4, 77], VECTORS[[9, 10]])
    (record,) = client.retrieve("shop", [4], with_vectors=True)
    assert record.payload == {"price": 4, "tags": ["a"]}
    assert isinstance(record.vector, dict)
    assert record.vector["title"] == [1.0, 0, 0, 4.0]
    assert record.vector["words"] == models.SparseVector(indices=[1], values=[2.0])
    assert set(record.vector) == {"", "8_f16", "title", "words"}
    with pytest.raises(FilterError, match="when it has a payload index"):
        table.search(VECTORS[4], filter={"price": 3})
    engine.close()
    assert client.count("shop").count == 62  # our client is left open; the definition is a point
    again = fv.wrap(client).table("shop")  # now known by what is kept with it
    assert again.vector == "" and len(again) == 61
    assert [status.resolution for status in again.status()] == ["8:f16"]


def test_what_no_funnel_can_be_laid_over(client: QdrantClient) -> None:
    client.create_collection(
        "odd", vectors_config=models.VectorParams(size=4, distance=models.Distance.MANHATTAN)
    )
    with pytest.raises(CapabilityError, match="compared by Manhattan"):
        fv.wrap(client).table("odd")


def test_the_reserved_point_is_no_answer(client: QdrantClient) -> None:
    table = fv.wrap(client).table("shop", vector="title")
    table.create_funnel("shop_search", "4:f32")
    assert len(table.search([1, 1, 1, 1], k=100)) == 60
    assert len(client.query_points("shop", query=[1.0] * 4, using="title", limit=100).points) == 60
    assert client.retrieve("shop", [names.DEFINITION])[0].vector is None
