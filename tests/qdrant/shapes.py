"""Shapes of the requests that funnelvec sends, as servers from 1.15 to 1.20 publish them.

A field has the first version that knows it. Written down from the models of qdrant-client 1.15.1,
1.16.2, 1.17.1, 1.18.0, 1.19.1 and 1.20.0, which are generated from the OpenAPI document of each
server: a server ignores fields that it does not know, so an old one would quietly do something
else. Only what funnelvec can send is here; what stands in no table is refused.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["check"]

OLD = "1.15"
#: Fields by object: the first version, and what objects its value holds, if any.
SHAPES: dict[str, dict[str, tuple[str, ...]]] = {
    "CreateCollection": {
        **dict.fromkeys(
            ("shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload",
             "wal_config", "strict_mode_config", "sparse_vectors", "quantization_config"),
            (OLD,),
        ),
        "vectors": (OLD, "VectorParams"),
        "hnsw_config": (OLD, "HnswConfig"),
        "optimizers_config": (OLD, "OptimizersConfig"),
        "metadata": ("1.16",),
    },
    "UpdateCollection": {"vectors": (OLD, "VectorParamsDiff")},
    "VectorParams": {
        "size": (OLD,),
        "distance": (OLD,),
        "datatype": (OLD, "Datatype"),
        "on_disk": (OLD,),
        "hnsw_config": (OLD, "HnswConfig"),
        "quantization_config": (OLD, "Quantization"),
        "multivector_config": (OLD,),
        "memory": ("1.19",),
    },
    "VectorParamsDiff": {
        "on_disk": (OLD,),
        "hnsw_config": (OLD, "HnswConfig"),
        "quantization_config": (OLD, "Quantization"),
    },
    "HnswConfig": {
        **dict.fromkeys(
            ("m", "ef_construct", "full_scan_threshold", "max_indexing_threads", "on_disk",
             "payload_m"), (OLD,),
        ),
        "inline_storage": ("1.16",),
        "memory": ("1.19",),
    },
    "OptimizersConfig": {
        **dict.fromkeys(
            ("deleted_threshold", "vacuum_min_vector_number", "default_segment_number",
             "max_segment_size", "memmap_threshold", "indexing_threshold", "flush_interval_sec",
             "max_optimization_threads"), (OLD,),
        ),
        "prevent_unoptimized": ("1.17",),
    },
    "Quantization": {"binary": (OLD, "BinaryQuantization")},
    "BinaryQuantization": {
        "always_ram": (OLD,),
        "encoding": (OLD,),
        "query_encoding": (OLD,),
        "memory": ("1.19",),
    },
    "QueryBatch": {"searches": (OLD, "Query")},
    "Query": {
        **dict.fromkeys(
            ("using", "score_threshold", "limit", "offset", "with_vector", "with_payload",
             "shard_key"), (OLD,),
        ),
        "query": (OLD, "Nearest"),
        "prefetch": (OLD, "Prefetch"),
        "filter": (OLD, "Filter"),
        "params": (OLD, "SearchParams"),
    },
    "Prefetch": {
        **dict.fromkeys(("using", "score_threshold", "limit"), (OLD,)),
        "query": (OLD, "Nearest"),
        "prefetch": (OLD, "Prefetch"),
        "filter": (OLD, "Filter"),
        "params": (OLD, "SearchParams"),
    },
    "Nearest": {
        "nearest": (OLD,),
        "formula": (OLD, "Expression"),
        "defaults": (OLD,),
    },
    "Expression": dict.fromkeys(("sum", "mult", "neg"), (OLD, "Expression")),
    "SearchParams": {
        "hnsw_ef": (OLD,),
        "exact": (OLD,),
        "indexed_only": (OLD,),
        "quantization": (OLD, "QuantizationSearch"),
    },
    "QuantizationSearch": dict.fromkeys(("ignore", "rescore", "oversampling"), (OLD,)),
    "Filter": dict.fromkeys(("must", "must_not", "should"), (OLD, "Condition")),
    "Condition": {
        **dict.fromkeys(("must", "must_not", "should"), (OLD, "Condition")),
        "key": (OLD,),
        "match": (OLD, "Match"),
        "range": (OLD, "Range"),
        "has_id": (OLD,),
        "has_vector": (OLD,),
        "is_empty": (OLD, "Field"),
    },
    "Field": {"key": (OLD,)},
    "Match": {"value": (OLD,), "any": (OLD,)},
    "Range": dict.fromkeys(("lt", "lte", "gt", "gte"), (OLD,)),
    "Upsert": {
        "points": (OLD, "Point"),
        "shard_key": (OLD,),
        "update_filter": ("1.16", "Filter"),
        "update_mode": ("1.17",),
    },
    "Point": dict.fromkeys(("id", "vector", "payload"), (OLD,)),
    "UpdateVectors": {
        "points": (OLD, "PointVectors"),
        "shard_key": (OLD,),
        "update_filter": ("1.16", "Filter"),
    },
    "PointVectors": dict.fromkeys(("id", "vector"), (OLD,)),
    "SetPayload": {
        **dict.fromkeys(("payload", "points", "key", "shard_key"), (OLD,)),
        "filter": (OLD, "Filter"),
    },
    "DeletePayload": {
        **dict.fromkeys(("keys", "points", "shard_key"), (OLD,)),
        "filter": (OLD, "Filter"),
    },
    "Operations": {"operations": (OLD, "Operation")},
    "Operation": {"set_payload": (OLD, "SetPayload")},
    "Delete": {"points": (OLD,), "filter": (OLD, "Filter"), "shard_key": (OLD,)},
    "Scroll": {
        **dict.fromkeys(("offset", "limit", "with_payload", "with_vector", "shard_key"), (OLD,)),
        "filter": (OLD, "Filter"),
    },
    "Count": {"exact": (OLD,), "filter": (OLD, "Filter"), "shard_key": (OLD,)},
    "Retrieve": dict.fromkeys(("ids", "with_payload", "with_vector", "shard_key"), (OLD,)),
    "Index": {"field_name": (OLD,), "field_schema": (OLD, "IndexParams")},
    "IndexParams": {"type": (OLD,), "enable_hnsw": ("1.17",)},
    "Aliases": {"actions": (OLD, "AliasAction")},
    "AliasAction": {"create_alias": (OLD, "Alias")},
    "Alias": dict.fromkeys(("collection_name", "alias_name"), (OLD,)),
    "AddVector": {"dense": ("1.18", "DenseVector")},
    "DenseVector": {
        "size": ("1.18",),
        "distance": ("1.18",),
        "multivector_config": ("1.18",),
        "datatype": ("1.18", "Datatype"),
    },
}  # fmt: skip
#: Values that came later than the field.
VALUES = {
    "Datatype": {"float32": OLD, "float16": OLD, "uint8": OLD, "turbo4": "1.19", "turbo8": "1.20"}
}
#: What is sent where; ``N`` is a name.
ROOTS = {
    "PUT N": "CreateCollection",
    "PATCH N": "UpdateCollection",
    "PUT N/index": "Index",
    "PUT N/points": "Upsert",
    "POST N/points": "Retrieve",
    "PUT N/points/vectors": "UpdateVectors",
    "POST N/points/payload": "SetPayload",
    "POST N/points/payload/delete": "DeletePayload",
    "POST N/points/batch": "Operations",
    "POST N/points/delete": "Delete",
    "POST N/points/scroll": "Scroll",
    "POST N/points/count": "Count",
    "POST N/points/query": "Query",
    "POST N/points/query/batch": "QueryBatch",
    "POST aliases": "Aliases",
    "PUT N/vectors/N": "AddVector",
}
#: Objects by names that the application chose.
_NAMED = {("CreateCollection", "vectors"), ("UpdateCollection", "vectors")}


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def check(method: str, path: str, body: Any, *, version: str) -> None:
    """Refuse what a server of that version does not know.

    Raises
    ------
    ValueError
        If there is such a field, or a value of one; the message says where.
    """
    rest = re.sub(r"^/collections/", "", path)
    name = "aliases" if rest == "aliases" else re.sub(r"^[^/]+", "N", rest)
    name = re.sub(r"(?<=/vectors/).+", "N", name)
    root = ROOTS.get(f"{method} {name}")
    if root is not None and body is not None:
        _check(body, root, version, f"{method} {name}")


def _check(given: Any, shape: str, version: str, where: str) -> None:
    if shape in VALUES:
        since = VALUES[shape].get(given)
        if since is None or _number(version) < _number(since):
            raise ValueError(f"{where}: {given!r} is unknown to a server of {version}")
        return
    if isinstance(given, list):
        for each in given:
            if isinstance(each, dict):
                _check(each, shape, version, where)
        return
    if not isinstance(given, dict):
        return
    for field, value in given.items():
        known = SHAPES[shape].get(field)
        place = f"{where}.{field}"
        if value is None:
            continue
        if known is None or _number(version) < _number(known[0]):
            raise ValueError(f"{place} is unknown to a server of {version}")
        for child in known[1:]:
            named = (shape, field) in _NAMED and not (isinstance(value, dict) and "size" in value)
            for each in value.values() if named else [value]:
                _check(each, child, version, place)
