"""Resolutions as named vectors: what Qdrant stores for each code, and what its scores mean. Pure.

Vectors are encoded here, by `funnelvec.codes`, and not in the database:

- the vector column itself and ``f32`` prefixes have the distance of the column's metric;
- ``f16`` is stored as Float16; under cosine as a unit vector with the distance Dot, since Qdrant
  would divide what is rounded already by its length again;
- bits are stored as 1 and -1 with the distance Dot and binary quantization of one bit. That loses
  nothing: the sign of a sign is the sign. The dot product over the width is ``1 - 2 * hamming /
  width``. The originals stay on disk, where only scores of a last stage are taken from.

- ``int8`` is stored as Uint8, moved up by 128, with the distance Euclid: what is between two codes
  is the same as before, in whole numbers;
- ``turbo`` and ``turbo8`` are Qdrant's own 4 and 8 bits a number, with nothing beside them;
  ``bq1``, ``bq15`` and ``bq2`` its binary quantization with queries of 8 bits, and Float16 on
  disk.

Under cosine a prefix of zeros has no direction, so a point does not get that vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec import codes
from funnelvec.codes import Rotation, bits, floats, int8
from funnelvec.engines.qdrant.names import vector_name
from funnelvec.errors import CapabilityError
from funnelvec.resolution import OWN_CODES, Resolution
from funnelvec.types import BaseCode, Metric, needs_direction

__all__ = ["DISTANCES", "Column", "Stored", "below", "unsigned"]

DISTANCES: dict[Metric, models.Distance] = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "euclidean": models.Distance.EUCLID,
}
_Encoding = models.BinaryQuantizationEncoding
#: Qdrant's own binary codes: how numbers become bits, and bits of a number.
_BINARY = {
    "bq1": (_Encoding.ONE_BIT, 1.0),
    "bq15": (_Encoding.ONE_AND_HALF_BITS, 1.5),
    "bq2": (_Encoding.TWO_BITS, 2.0),
}
#: What else than 32-bit floats numbers are stored as, and bytes of one.
_DATATYPES = {
    "f16": (models.Datatype.FLOAT16, 2.0),
    "int8": (models.Datatype.UINT8, 1.0),
    "turbo": (models.Datatype.TURBO4, 0.5),
    "turbo8": (models.Datatype.TURBO8, 1.0),
}
#: Zero in bytes without a sign.
_MIDDLE = 128

#: Widest vector that Qdrant takes.
_WIDEST = 65_536

#: Between these lengths nothing over- or underflows in 32 bits, and Qdrant takes nothing for zero.
_SHORT, _LONG = 1e-3, 1e15

#: An index that is not there; Qdrant then goes through all points.
_NO_GRAPH = models.HnswConfigDiff(m=0)
#: Bytes of codes that comparisons of cost little.
_NARROW = 1_024
#: So many points a search goes through without it; Qdrant's own limit, and its least, in kB.
_SCANNED, _FULL_SCAN, _LEAST_SCAN = 2_000, 10_000, 10


def unsigned(raw: float) -> float:
    """Return a score that is Qdrant's own, zero without a sign."""
    return raw + 0.0


def below(score: float) -> float:
    """Return the next lower 32-bit float, which is none of the infinite ones."""
    with np.errstate(over="ignore"):
        found = np.nextafter(np.float32(score), np.float32(-np.inf))
    return float(np.clip(found, -3.4e38, 3.4e38))


@dataclass(frozen=True, slots=True)
class Column:
    """A vector that an application has: its name, its width and code, its metric, its rotations."""

    name: str
    base: Resolution
    metric: Metric
    rotations: Mapping[str, Rotation] = field(default_factory=dict, compare=False, repr=False)

    @property
    def code(self) -> BaseCode:
        """The code of the column itself."""
        return "f16" if self.base.code == "f16" else "f32"

    @property
    def directed(self) -> bool:
        """Whether a zero vector means nothing here."""
        return needs_direction(self.metric)

    def stored(self, resolution: Resolution) -> Stored:
        """How a resolution of the column is stored."""
        return Stored(self, resolution, self.rotations.get(resolution.rotation or ""))


@dataclass(frozen=True, slots=True)
class Stored:
    """One resolution of a column as Qdrant stores it; `rotation` where it has a fitted one."""

    column: Column
    resolution: Resolution
    rotation: Rotation | None = None

    @property
    def metric(self) -> Metric:
        """What its codes are compared by."""
        return codes.compared_by(self.column.metric, self.rotation)

    @property
    def is_base(self) -> bool:
        """Whether it is the column itself."""
        return self.resolution == self.column.base

    @property
    def is_bits(self) -> bool:
        """Whether it is compared bit by bit."""
        return codes.is_bits(self.resolution.code)

    @property
    def is_quantized(self) -> bool:
        """Whether a first stage reads something else than what is stored as the vector."""
        return self.is_bits or self.resolution.code in _BINARY

    @property
    def name(self) -> str:
        """Name of the vector."""
        return self.column.name if self.is_base else vector_name(self.resolution, self.column.name)

    @property
    def size(self) -> int:
        """How many numbers the vector has.

        Raises
        ------
        CapabilityError
            If Qdrant takes none so wide.
        """
        width = self.resolution.dims * (bits.levels(self.resolution.code) if self.is_bits else 1)
        if width > _WIDEST:
            raise CapabilityError(
                f"resolution {self.resolution} has {width} bits, and Qdrant takes {_WIDEST}; "
                "choose a code of fewer bits, or use a postgresql:// table"
            )
        return width

    @property
    def distance(self) -> models.Distance:
        """What Qdrant compares the vectors by."""
        if self.resolution.code == "int8":
            return models.Distance.EUCLID
        halves = self.resolution.code in ("f16", *_BINARY) and not self.is_base
        if self.is_bits or (halves and self.metric == "cosine"):
            return models.Distance.DOT
        return DISTANCES[self.metric]

    @property
    def falls(self) -> bool:
        """Whether Qdrant's score is smaller for what is more similar."""
        return self.distance == models.Distance.EUCLID

    @property
    def bytes(self) -> int:
        """Bytes of one code in the form that a stage reads."""
        code = self.resolution.code
        if self.is_bits:
            return (self.size + 7) // 8
        if code in _BINARY:
            return math.ceil(self.size * _BINARY[code][1] / 8)
        return math.ceil(self.size * _DATATYPES.get(code, (None, 4.0))[1])

    def params(
        self, *, index: bool, m: int | None = None, ef_construction: int | None = None
    ) -> models.VectorParams:
        """Return the configuration of the vector."""
        datatype, _ = _DATATYPES.get(self.resolution.code, (models.Datatype.FLOAT32, 4.0))
        return models.VectorParams(
            size=self.size,
            distance=self.distance,
            datatype=models.Datatype.FLOAT16 if self.is_quantized else datatype,
            hnsw_config=self.graph(index=index, m=m, ef_construction=ef_construction),
            quantization_config=self.quantization,
            # A last stage reads few rows; the operating system keeps what is read often.
            on_disk=self.is_quantized or self.is_base,
        )

    def graph(
        self, *, index: bool, m: int | None = None, ef_construction: int | None = None
    ) -> models.HnswConfigDiff:
        """Return the configuration of its index.

        Qdrant goes through all points where their vectors take less than 10,000 kB, which of
        narrow codes are tens of thousands, and takes several times as long as its graph. A graph
        over narrow codes has twice the links of Qdrant's own: what it misses, no keep brings back,
        and to look longer for fewer links takes longer than to keep more.
        """
        if not index:
            return _NO_GRAPH
        code = "f16" if self.is_quantized else self.resolution.code
        width = self.size * _DATATYPES.get(code, (None, 4.0))[1]
        links, effort = (32, 128) if width <= _NARROW else (16, 100)
        m = m or links
        return models.HnswConfigDiff(
            m=m,
            ef_construct=ef_construction or max(2 * m, effort),
            full_scan_threshold=min(_FULL_SCAN, max(_LEAST_SCAN, round(_SCANNED * width / 1024))),
        )

    @property
    def quantization(self) -> models.BinaryQuantization | None:
        """Return the configuration of what a first stage of bits reads."""
        if not self.is_quantized:
            return None
        config = models.BinaryQuantizationConfig(always_ram=True)
        if not self.is_bits:
            config.encoding, _ = _BINARY[self.resolution.code]
            config.query_encoding = models.BinaryQuantizationQueryEncoding.SCALAR8BITS
        return models.BinaryQuantization(binary=config)

    def encode(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return what is stored for (n, dims) vectors of the column, (n, size) float32."""
        return self._written(
            codes.encode(
                self._encoded_as(),
                vectors,
                metric=self.column.metric,
                base=self.column.code,
                rotation=self.rotation,
            )
        )

    def _encoded_as(self) -> Resolution:
        """What is encoded here of a resolution whose code is Qdrant's to make."""
        if self.resolution.code not in OWN_CODES or self.resolution.code == "int8":
            return self.resolution
        halves = self.resolution.code in _BINARY or self.column.code == "f16"
        return replace(self.resolution, code="f16" if halves else "f32")

    def encode_one(self, query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return what a (dims,) query is asked with, (size,) float32."""
        if self.rotation is None:
            asked: npt.NDArray[np.float32] = self.encode(query[np.newaxis, :])[0]
            return asked
        mapped = self.rotation.map_query(query, self.resolution.dims)[np.newaxis, :]
        found = codes.encode_rotated(self._encoded_as(), mapped, metric=self.metric)
        written: npt.NDArray[np.float32] = self._written(found)[0]
        return written

    def _written(self, found: codes.Codes) -> npt.NDArray[np.float32]:
        """Codes as the numbers of a vector in Qdrant."""
        if self.distance == models.Distance.COSINE:
            # Qdrant divides by the length, but not where it is below 0.0003: it takes such for 0.
            return floats.directions(found.astype(np.float32, copy=False))
        if self.resolution.code == "int8":
            return found.astype(np.float32) + _MIDDLE
        if not self.is_bits:
            return found.astype(np.float32, copy=False)
        signs = np.unpackbits(found, axis=1, count=self.size).astype(np.float32)
        return np.asarray(2 * signs - 1, np.float32)

    def encoder(self) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32] | None]:
        """Return what makes of a (dims,) query, checked, what is searched by: (size,) float32.

        It is what `encode` makes of it, or None where that says nothing. Prefixes take a short
        way, since the checks and copies that a million rows do not notice cost a search a tenth
        of its time.
        """

        def thorough(query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
            encoded = self.encode_one(query)
            return encoded if self.has_code(encoded[np.newaxis, :])[0] else None

        def short(query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
            prefix = query[:dims] if fitted is None else fitted.map_query(query, dims)
            length = float(prefix.dot(prefix)) ** 0.5
            if not _SHORT < length < _LONG:
                return thorough(query)
            if not halves:  # Qdrant divides by the length
                return prefix
            found: npt.NDArray[np.float32] = (prefix / length).astype(np.float16).astype(np.float32)
            return found

        dims, fitted, code = self.resolution.dims, self.rotation, self.resolution.code
        halves = code == "f16" and not self.is_base
        plain = self.is_base or code in ("f32", "f16", "turbo", "turbo8")
        random = self.resolution.rotation is not None and fitted is None
        if plain and not random and self.metric == self.column.metric == "cosine":
            return short
        return thorough

    def has_code(self, encoded: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Tell which of (n, size) codes can be compared at all."""
        if needs_direction(self.metric):
            nothing = _MIDDLE if self.resolution.code == "int8" else 0
            return np.asarray((encoded != nothing).any(axis=1))
        return np.ones(len(encoded), np.bool_)

    def score(self, raw: float) -> float:
        """Turn Qdrant's score into ours, which is higher for what is more similar."""
        return self.scorer()(raw)

    def scorer(self) -> Callable[[float], float]:
        """Return what `score` does; looking up how takes longer than doing it."""
        if self.is_bits:
            size = self.size
            return lambda raw: round(raw) / size
        if self.resolution.code == "int8":  # the root of a whole number
            size = self.size
            return lambda raw: float(int8.similarity(np.rint(np.float64(raw) ** 2), size))
        if self.falls:
            return lambda raw: 0.0 - raw + 0.0
        return unsigned

    def threshold(self, cutoff: float) -> float:
        """Return a threshold of Qdrant's that no score from `cutoff` on falls below.

        It compares 32-bit floats and leaves out what equals the threshold, so this is the float
        next to the cutoff; what lies between is left out by the caller.
        """
        raw = cutoff * self.size if self.is_bits else cutoff
        if self.resolution.code == "int8":
            raw = -math.sqrt(max(0.0, 1.0 - cutoff) * 2.0) * int8.scale(self.size)
        found = below(raw)
        return -found if self.falls else found

    def unpack(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return stored vectors, (n, size), as codes that `funnelvec.codes.score` takes."""
        if self.is_bits:
            return bits.encode(stored.astype(np.float32))
        if self.resolution.code == "int8":
            return (stored.astype(np.int16) - _MIDDLE).astype(np.int8)
        return stored.astype(np.float16 if self.resolution.code == "f16" else np.float32)
