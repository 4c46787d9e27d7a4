"""Which methods of a client's transport are intercepted, and why the others are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from funnelvec.engines.qdrant.hook import creating, reading, searching, writing
from funnelvec.engines.qdrant.hook.known import Hook
from funnelvec.engines.qdrant.hook.steps import Call, Given, Steps

__all__ = ["INTERCEPTED", "PASSED", "UPLOADS"]

Intercepted = Callable[[Hook, Given], Steps[Any]]


def _change(method: str) -> Intercepted:
    return lambda hook, given: writing.change_some(hook, method, given)


def _create(method: str) -> Intercepted:
    return lambda hook, given: creating.create(hook, method, given)


def _filtered(method: str, name: str) -> Intercepted:
    return lambda hook, given: reading.filtered(hook, method, name, given)


def _forgetting(method: str) -> Intercepted:
    """Make the call; what is known of its collection, or of all, may be otherwise afterwards."""

    def steps(hook: Hook, given: Given) -> Steps[Any]:
        try:
            return (yield Call(method, given))
        finally:
            hook.forget(given.get("collection_name"))

    return steps


INTERCEPTED: dict[str, Intercepted] = {
    "create_collection": _create("create_collection"),
    "recreate_collection": _create("recreate_collection"),
    "get_collection": reading.collection,
    "upsert": writing.upsert,
    "update_vectors": writing.update_vectors,
    "delete_vectors": writing.delete_vectors,
    "batch_update_points": writing.apply_all,
    "delete": _change("delete"),
    "set_payload": _change("set_payload"),
    "overwrite_payload": _change("overwrite_payload"),
    "delete_payload": _change("delete_payload"),
    "clear_payload": _change("clear_payload"),
    "query_points": searching.query_points,
    "query_batch_points": searching.query_batch_points,
    "query_points_groups": searching.query_points_groups,
    "scroll": reading.scroll,
    "retrieve": reading.retrieve,
    "count": _filtered("count", "count_filter"),
    "search_matrix_pairs": _filtered("search_matrix_pairs", "query_filter"),
    "search_matrix_offsets": _filtered("search_matrix_offsets", "query_filter"),
    "delete_vector_name": creating.drop_vector,
    "create_vector_name": _forgetting("create_vector_name"),
    "update_collection": _forgetting("update_collection"),
    "delete_collection": _forgetting("delete_collection"),
    "recover_snapshot": _forgetting("recover_snapshot"),
    "recover_shard_snapshot": _forgetting("recover_shard_snapshot"),
    "update_collection_aliases": _forgetting("update_collection_aliases"),
}
#: Plain functions on both clients, which draw points while they send others.
UPLOADS: dict[str, Callable[[Hook, Given, writing.Do], Any]] = {
    "upload_points": writing.upload_points,
    "upload_collection": writing.upload_collection,
}

_SAME = "says nothing of points or vectors"
_OWN = "goes through calls that are intercepted"
_MODELS = "lists models of fastembed"
_RAW = "hands out what is below the hook: what is written there is not kept in step"
#: What goes to the database as it is, and why that is right.
PASSED: dict[str, str] = {
    "close": "closes the transport, which the client that was hooked shares",
    "cluster_collection_update": _SAME,
    "cluster_status": _SAME,
    "cluster_telemetry": _SAME,
    "collection_cluster_info": _SAME,
    "collection_exists": _SAME,
    "create_full_snapshot": "holds the definition too",
    "create_payload_index": "is about fields; the definition has none of the application's",
    "create_shard_key": _SAME,
    "create_shard_snapshot": "holds the definition too",
    "create_snapshot": "holds the definition too",
    "delete_full_snapshot": _SAME,
    "delete_payload_index": "is about fields; the definition has none of the application's",
    "delete_shard_key": _SAME,
    "delete_shard_snapshot": _SAME,
    "delete_snapshot": _SAME,
    "facet": "counts values of a field; the definition has none of the application's",
    "get_aliases": _SAME,
    "get_collection_aliases": _SAME,
    "get_collections": "names collections only",
    "get_embedding_size": _MODELS,
    "get_optimizations": _SAME,
    "grpc_collections": _RAW,
    "grpc_points": _RAW,
    "http": _RAW,
    "info": _SAME,
    "init_options": "says how the client was made",
    "list_full_snapshots": _SAME,
    "list_image_models": _MODELS,
    "list_late_interaction_multimodal_models": _MODELS,
    "list_late_interaction_text_models": _MODELS,
    "list_shard_keys": _SAME,
    "list_shard_snapshots": _SAME,
    "list_snapshots": _SAME,
    "list_sparse_models": _MODELS,
    "list_text_models": _MODELS,
    "migrate": _OWN,
    "recover_current_peer": _SAME,
    "remove_peer": _SAME,
}
