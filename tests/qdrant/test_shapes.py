"""Requests hold nothing that the server they go to does not know; servers ignore such fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

import funnelvec as fv
from tests.agreement import edge
from tests.qdrant import shapes
from tests.qdrant.facade import Server

VECTORS = np.random.default_rng(3).normal(size=(220, 8)).astype(np.float32)
#: Those between them are sent the same as the older of their neighbours.
VERSIONS = ["1.15.5", "1.18.3", "1.20.0"]


def used(engine: Any) -> None:
    """Everything that funnelvec sends."""
    table = engine.create("docs", dims=8, columns={"n": "integer", "seen": "timestamp"})
    table.load(VECTORS, ids=range(220), columns={"n": range(220)}, batch_size=150)
    table.fit_rotation(dims=4, queries=VECTORS[:30])
    table.add_resolutions("8:bit@90 > 4:f16~pca@60 > 8:f32", allow_rewrite=True)
    table.add_resolution("4:int8", allow_rewrite=True)
    table.add_resolution("8:bq2~random", index=True, allow_rewrite=True)
    table.create_funnel("docs_search", "8:bit@90 > 4:f16~pca@60 > 8:f32", returns=["n"])
    table.create_funnel("more", "8:bq2~random@90 > 4:int8@60 > 8:f32")
    near = [int(np.argmax(VECTORS @ query)) for query in VECTORS[:40]]
    ids = [id for row, best in enumerate(near) for id in (best, (row + 100) % 220)]
    judged = fv.Judgments(np.repeat(VECTORS[:40], 2, axis=0), ids, [True, False] * 40)
    table.calibrate(judged)
    table.certify(judged, max_miss=0.3, k=20)
    filter = {"$or": [{"n": {"$in": [1, 7]}}, {"$not": {"seen": {"$lt": "2024-01-01"}}}]}
    assert table.search(VECTORS[7], k=5, filter=filter, min_relevance=0.01)
    table.search(VECTORS[7], k=20, cutoff="certified")
    table.search_many(VECTORS[:3], funnel="more")
    table.explain(VECTORS[0])
    table.measure_recall(sample=5)
    hubbed(table)
    table.upsert([5], VECTORS[[9]])
    table.delete([6])
    table.status()


def hubbed(table: Any) -> None:
    """Searches by a corrected score: some rows score high with what they do not answer."""
    table.add_hub()
    units = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    scores = units[:25] @ units.T
    near = np.argsort(-scores, axis=1)[:, 1:13]
    labels = np.take_along_axis(scores - 2 * (units @ units.mean(axis=0)), near, axis=1) > 0.75
    judged = fv.Judgments(
        np.repeat(VECTORS[:25], 12, axis=0), near.ravel().tolist(), labels.ravel()
    )
    assert table.calibrate(judged).alpha > 0
    assert table.search(VECTORS[7], k=5, min_relevance=0.01)
    table.measure_recall(sample=5)
    table.drop_hub()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_of_that_version_knows_all_of_it(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "version", version)
    with edge.folder() as folder:
        Path(folder).mkdir()
        server = Server(Path(folder))
        with fv.connect(server.url) as engine:
            used(engine)
        sent = {f"{method} {shape(path)}" for method, path, body in server.log if body}
        server.close()
    copied = version < "1.18"
    in_place = {"PATCH N", "PUT N/vectors/N", "PUT N/points/vectors"}
    expected = set(shapes.ROOTS) - (in_place if copied else {"POST aliases"})
    assert {each for each in sent if each in shapes.ROOTS} == expected


def shape(path: str) -> str:
    parts = path.removeprefix("/collections/").split("/")
    if parts == ["aliases"]:
        return "aliases"
    return "/".join(
        ["N", *(p if n != 2 or parts[1] != "vectors" else "N" for n, p in enumerate(parts) if n)]
    )


def test_what_a_server_does_not_know_is_found() -> None:
    upsert = {"points": [], "update_filter": {"must": [{"has_vector": "a"}]}}
    shapes.check("PUT", "/collections/docs/points", upsert, version="1.16.0")
    with pytest.raises(ValueError, match=r"points.update_filter is unknown to a server of 1\.15"):
        shapes.check("PUT", "/collections/docs/points", upsert, version="1.15.5")
    made = models.CreateCollection(
        vectors={"a": models.VectorParams(size=2, distance="Dot", datatype="turbo8")}
    )
    body = json.loads(made.model_dump_json(exclude_unset=True))
    shapes.check("PUT", "/collections/docs", body, version="1.20.0")
    with pytest.raises(ValueError, match=r"'turbo8' is unknown to a server of 1\.19"):
        shapes.check("PUT", "/collections/docs", body, version="1.19.4")
    nested = {"searches": [{"prefetch": {"prefetch": {"params": {"acorn": True}}}}]}
    with pytest.raises(ValueError, match=r"prefetch.prefetch.params.acorn is unknown"):
        shapes.check("POST", "/collections/docs/points/query/batch", nested, version="1.20.0")
    with pytest.raises(ValueError, match=r"filter.must.geo is unknown"):
        shapes.check(
            "POST", "/collections/docs/points/count", {"filter": {"must": [{"geo": 1}]}},
            version="1.20.0",
        )  # fmt: skip
