"""Models of the client as those of Edge: what this package sends, and nothing else. Pure."""

from __future__ import annotations

import datetime
import uuid
from array import array
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge
from qdrant_client import models

from funnelvec.engines.qdrant.compile import Template
from funnelvec.errors import CapabilityError

__all__ = ["filter_of", "id_of", "index_of", "params_of", "prepared", "request_of"]

#: Makes a request of the vectors of the stages and the threshold of the last.
Requesting: TypeAlias = Callable[
    [Sequence[npt.NDArray[np.float32]], float | None], edge.QueryRequest
]

_DISTANCES = {
    models.Distance.COSINE: edge.Distance.Cosine,
    models.Distance.DOT: edge.Distance.Dot,
    models.Distance.EUCLID: edge.Distance.Euclid,
}
_DATATYPES = {
    models.Datatype.FLOAT32: edge.VectorStorageDatatype.Float32,
    models.Datatype.FLOAT16: edge.VectorStorageDatatype.Float16,
    models.Datatype.UINT8: edge.VectorStorageDatatype.Uint8,
    models.Datatype.TURBO4: edge.VectorStorageDatatype.Turbo4,  # type: ignore[attr-defined]
    models.Datatype.TURBO8: edge.VectorStorageDatatype.Turbo8,
}
_ENCODINGS = {
    None: None,
    models.BinaryQuantizationEncoding.ONE_BIT: edge.BinaryQuantizationEncoding.OneBit,
    models.BinaryQuantizationEncoding.ONE_AND_HALF_BITS: (
        edge.BinaryQuantizationEncoding.OneAndHalfBits
    ),
    models.BinaryQuantizationEncoding.TWO_BITS: edge.BinaryQuantizationEncoding.TwoBits,
}
_QUERIES = {
    None: None,
    models.BinaryQuantizationQueryEncoding.SCALAR8BITS: (
        edge.BinaryQuantizationQueryEncoding.Scalar8Bits
    ),
}
_SCHEMAS = {
    models.PayloadSchemaType.INTEGER: edge.PayloadSchemaType.Integer,
    models.PayloadSchemaType.FLOAT: edge.PayloadSchemaType.Float,
    models.PayloadSchemaType.KEYWORD: edge.PayloadSchemaType.Keyword,
    models.PayloadSchemaType.BOOL: edge.PayloadSchemaType.Bool,
    models.PayloadSchemaType.DATETIME: edge.PayloadSchemaType.Datetime,
    models.PayloadSchemaType.UUID: edge.PayloadSchemaType.Uuid,
}
_Index: TypeAlias = (
    edge.PayloadSchemaType
    | edge.IntegerIndexParams
    | edge.FloatIndexParams
    | edge.KeywordIndexParams
    | edge.UuidIndexParams
    | edge.DatetimeIndexParams
)
_INDEXES: dict[type, Callable[..., _Index]] = {
    models.IntegerIndexParams: edge.IntegerIndexParams,
    models.FloatIndexParams: edge.FloatIndexParams,
    models.KeywordIndexParams: edge.KeywordIndexParams,
    models.UuidIndexParams: edge.UuidIndexParams,
    models.DatetimeIndexParams: edge.DatetimeIndexParams,
}


def id_of(id: int | str | uuid.UUID) -> int | uuid.UUID:
    """Id of a point; text is that of a UUID."""
    return uuid.UUID(id) if isinstance(id, str) else id


def index_of(given: models.PayloadSchemaType | models.PayloadSchemaParams) -> _Index:
    """Payload index: its kind, or its parameters, of which we set one."""
    if isinstance(given, models.PayloadSchemaType):
        return _SCHEMAS[given]
    for params, made in _INDEXES.items():
        if isinstance(given, params):
            return made(enable_hnsw=given.enable_hnsw)
    raise CapabilityError(f"the payload index {given!r} has no form in Edge here")


def params_of(given: models.VectorParams) -> edge.EdgeVectorParams:
    """Configuration of a vector."""
    graph = given.hnsw_config
    return edge.EdgeVectorParams(
        given.size,
        _DISTANCES[given.distance],
        datatype=_DATATYPES[given.datatype or models.Datatype.FLOAT32],
        hnsw_config=None if graph is None else _graph(graph),
        quantization_config=_quantization(given.quantization_config),
        memory=edge.Memory.Cold if given.on_disk else None,
    )


def _graph(given: models.HnswConfigDiff) -> edge.HnswIndexConfig:
    # The defaults are those of the server; max_indexing_threads=1 leaves other cores alone.
    return edge.HnswIndexConfig(
        16 if given.m is None else given.m,
        given.ef_construct or 100,
        given.full_scan_threshold or 10_000,
        max_indexing_threads=given.max_indexing_threads or 1,
    )


def _quantization(given: Any) -> edge.BinaryQuantizationConfig | None:
    if given is None:
        return None
    if not isinstance(given, models.BinaryQuantization):
        raise CapabilityError(f"quantization {given!r} has no form in Edge here")
    return edge.BinaryQuantizationConfig(
        encoding=_ENCODINGS[given.binary.encoding],
        query_encoding=_QUERIES[given.binary.query_encoding],
        memory=edge.Memory.Pinned,
    )


def request_of(given: models.QueryRequest) -> edge.QueryRequest:
    """A search; the vector that a level looks at is part of its query in Edge."""
    return edge.QueryRequest(
        limit=given.limit or 10,
        query=_query(given.query, given.using),
        prefetches=_prefetches(given.prefetch),
        filter=None if given.filter is None else filter_of(given.filter),
        params=_params(given.params),
        score_threshold=given.score_threshold,
        with_payload=given.with_payload or False,  # type: ignore[arg-type]
        with_vector=False,
    )


def prepared(given: Template) -> Requesting:
    """What `request_of` makes of a search, with all translated before but what a query brings."""
    nearest, prefetch, search = edge.Query.Nearest, edge.Prefetch, edge.QueryRequest
    stages = [
        (
            each.using,
            each.limit or 10,
            None if each.filter is None else filter_of(each.filter),
            _params(each.params),
        )
        for each in given.stages
    ]
    last, params = given.search, _params(given.search.params)
    using, limit, payload = last.using, last.limit or 10, last.with_payload or False
    filter = None if last.filter is None else filter_of(last.filter)
    corrected = None if given.correction is None else _query(last.query, None)

    def request(
        vectors: Sequence[npt.NDArray[np.float32]], threshold: float | None
    ) -> edge.QueryRequest:
        inner: list[edge.Prefetch] = []
        for (name, keep, condition, how), vector in zip(stages, vectors, strict=False):
            query = nearest(_numbers(vector), using=name)
            inner = [
                prefetch(limit=keep, query=query, prefetches=inner, filter=condition, params=how)
            ]
        return search(
            limit=limit,
            query=corrected or nearest(_numbers(vectors[-1]), using=using),
            prefetches=inner,
            filter=filter,
            params=params,
            score_threshold=threshold,
            with_payload=payload,  # type: ignore[arg-type]
            with_vector=False,
        )

    return request


def _numbers(vector: npt.NDArray[np.float32]) -> Any:
    # Edge takes the numbers one by one, which are made in half the time from this as from a list.
    return array("f", vector.tobytes())


def _query(given: Any, using: str | None) -> Any:
    if isinstance(given, models.FormulaQuery):
        return edge.Formula(_expression(given.formula), given.defaults or {})
    return _nearest(given, using)


def _expression(given: Any) -> edge.Expression:
    """What stands in formulas of ours: numbers, paths, sums, products, signs."""
    match given:
        case str():
            return edge.Expression.Variable(given)
        case int() | float():
            return edge.Expression.Constant(given)
        case models.SumExpression():
            return edge.Expression.Sum([_expression(each) for each in given.sum])
        case models.MultExpression():
            return edge.Expression.Mult([_expression(each) for each in given.mult])
        case models.NegExpression():
            return edge.Expression.Neg(_expression(given.neg))
        case _:
            raise CapabilityError(f"the expression {given!r} has no form in Edge here")


def _nearest(vector: Any, using: str | None) -> edge.Query:
    return edge.Query.Nearest(vector, using=using)


def _prefetches(given: Any) -> list[edge.Prefetch]:
    if given is None:
        return []
    return [
        edge.Prefetch(
            limit=given.limit,
            query=_nearest(given.query, given.using),
            prefetches=_prefetches(given.prefetch),
            filter=None if given.filter is None else filter_of(given.filter),
            params=_params(given.params),
            score_threshold=given.score_threshold,
        )
    ]


def _params(given: models.SearchParams | None) -> edge.SearchParams | None:
    if given is None:
        return None
    codes = given.quantization
    return edge.SearchParams(
        hnsw_ef=given.hnsw_ef,
        exact=bool(given.exact),
        quantization=None
        if codes is None
        else edge.QuantizationSearchParams(
            ignore=bool(codes.ignore), rescore=codes.rescore, oversampling=codes.oversampling
        ),
    )


def filter_of(given: models.Filter) -> edge.Filter:
    """A filter; Edge takes lists where the client's models take single conditions too."""
    return edge.Filter(
        must=_conditions(given.must),
        should=_conditions(given.should),
        must_not=_conditions(given.must_not),
    )


def _conditions(given: Any) -> list[Any] | None:
    if given is None:
        return None
    return [_condition(each) for each in (given if isinstance(given, list) else [given])]


def _condition(given: models.Condition) -> Any:
    match given:
        case models.Filter():
            return filter_of(given)
        case models.IsEmptyCondition():
            return edge.IsEmptyCondition(given.is_empty.key)
        case models.HasIdCondition():
            return edge.HasIdCondition({id_of(id) for id in given.has_id})
        case models.HasVectorCondition():
            return edge.HasVectorCondition(given.has_vector)
        case models.FieldCondition():
            return edge.FieldCondition(
                given.key, match=_match(given.match), range=_range(given.range)
            )
        case _:
            raise CapabilityError(f"the condition {given!r} has no form in Edge here")


def _match(given: Any) -> Any:
    if given is None:
        return None
    if isinstance(given, models.MatchAny):
        return edge.MatchAny(given.any)
    # Edge would take True for the number 1; a boolean of numpy's is no number.
    value: Any = np.bool_(given.value) if isinstance(given.value, bool) else given.value
    return edge.MatchValue(value)


def _range(given: Any) -> Any:
    if given is None:
        return None
    bounds = {bound: getattr(given, bound) for bound in ("lt", "lte", "gt", "gte")}
    if isinstance(given, models.Range):
        return edge.RangeFloat(**bounds)
    return edge.RangeDateTime(
        **{
            bound: value.isoformat() if isinstance(value, datetime.date) else value
            for bound, value in bounds.items()
        }
    )
