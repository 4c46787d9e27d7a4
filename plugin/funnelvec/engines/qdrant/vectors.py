"""Resolutions as named vectors: what Qdrant stores for each code, and what its scores mean. Pure.

Vectors are encoded here, by `funnelvec.codes`, and not in the database:

- the vector column itself and ``f32`` prefixes have the distance of the column's metric;
- ``f16`` is stored as Float16; under cosine as a unit vector with the distance Dot, since Qdrant
  would divide what is rounded already by its length again;
- bits are stored as 1 and -1 with the distance Dot and binary quantization of one bit. That loses
  nothing: the sign of a sign is the sign. The dot product over the width is ``1 - 2 * hamming /
  width``. The originals stay on disk, where only scores of a last stage are taken from.

Under cosine a prefix of zeros has no direction, so a point does not get that vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from funnelvec import codes
from funnelvec.codes import bits, floats
from funnelvec.engines.qdrant.names import vector_name
from funnelvec.errors import CapabilityError
from funnelvec.resolution import Resolution
from funnelvec.types import BaseCode, Metric, needs_direction

__all__ = ["DISTANCES", "Column", "Stored"]

DISTANCES: dict[Metric, models.Distance] = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "euclidean": models.Distance.EUCLID,
}
#: Widest vector that Qdrant takes.
_WIDEST = 65_536

#: Between these lengths nothing over- or underflows in 32 bits, and Qdrant takes nothing for zero.
_SHORT, _LONG = 1e-3, 1e15

#: An index that is not there; Qdrant then goes through all points.
_NO_GRAPH = models.HnswConfigDiff(m=0)
_GRAPH = models.HnswConfigDiff(m=16, ef_construct=100)


@dataclass(frozen=True, slots=True)
class Column:
    """A vector that an application has: its name, its width and code, and its metric."""

    name: str
    base: Resolution
    metric: Metric

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
        return Stored(self, resolution)


@dataclass(frozen=True, slots=True)
class Stored:
    """One resolution of a column as Qdrant stores it."""

    column: Column
    resolution: Resolution

    @property
    def is_base(self) -> bool:
        """Whether it is the column itself."""
        return self.resolution == self.column.base

    @property
    def is_bits(self) -> bool:
        """Whether it is compared bit by bit."""
        return codes.is_bits(self.resolution.code)

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
        halves = self.resolution.code == "f16" and not self.is_base
        if self.is_bits or (halves and self.column.metric == "cosine"):
            return models.Distance.DOT
        return DISTANCES[self.column.metric]

    @property
    def falls(self) -> bool:
        """Whether Qdrant's score is smaller for what is more similar."""
        return self.distance == models.Distance.EUCLID

    @property
    def bytes(self) -> int:
        """Bytes of one code in the form that a stage reads."""
        if self.is_bits:
            return (self.size + 7) // 8
        return self.size * (2 if self.resolution.code == "f16" else 4)

    def params(self, *, index: bool) -> models.VectorParams:
        """Return the configuration of the vector."""
        halves = self.is_bits or self.resolution.code == "f16"
        return models.VectorParams(
            size=self.size,
            distance=self.distance,
            datatype=models.Datatype.FLOAT16 if halves else models.Datatype.FLOAT32,
            hnsw_config=self.graph(index=index),
            quantization_config=self.quantization,
            # A last stage reads few rows; the operating system keeps what is read often.
            on_disk=self.is_bits or self.is_base,
        )

    def graph(self, *, index: bool) -> models.HnswConfigDiff:
        """Return the configuration of its index."""
        return _GRAPH if index else _NO_GRAPH

    @property
    def quantization(self) -> models.BinaryQuantization | None:
        """Return the configuration of what a first stage of bits reads."""
        if not self.is_bits:
            return None
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))

    def encode(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return what is stored for (n, dims) vectors of the column, (n, size) float32."""
        found = codes.encode(
            self.resolution, vectors, metric=self.column.metric, base=self.column.code
        )
        if self.distance == models.Distance.COSINE:
            # Qdrant divides by the length, but not where it is below 0.0003: it takes such for 0.
            return floats.directions(found.astype(np.float32, copy=False))
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
            encoded = self.encode(query[np.newaxis, :])
            return encoded[0] if self.has_code(encoded)[0] else None

        def short(query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
            prefix = query[:dims]
            length = float(prefix.dot(prefix)) ** 0.5
            if not _SHORT < length < _LONG:
                return thorough(query)
            # By the length of what is not of 16 bits Qdrant divides.
            return (prefix / length).astype(np.float16).astype(np.float32) if halves else prefix

        dims, halves = self.resolution.dims, not self.is_base and self.resolution.code == "f16"
        plain = self.is_base or self.resolution.code in ("f32", "f16")
        if plain and self.resolution.rotation is None and self.column.metric == "cosine":
            return short
        return thorough

    def has_code(self, encoded: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Tell which of (n, size) codes can be compared at all."""
        if self.column.directed:
            return np.asarray(encoded.any(axis=1))
        return np.ones(len(encoded), np.bool_)

    def score(self, raw: float) -> float:
        """Turn Qdrant's score into ours, which is higher for what is more similar."""
        return self.scorer()(raw)

    def scorer(self) -> Callable[[float], float]:
        """Return what `score` does; looking up how takes longer than doing it."""
        if self.is_bits:
            size = self.size
            return lambda raw: round(raw) / size
        if self.falls:
            return lambda raw: 0.0 - raw + 0.0
        return lambda raw: raw + 0.0

    def threshold(self, cutoff: float) -> float:
        """Return a threshold of Qdrant's that no score from `cutoff` on falls below.

        It compares 32-bit floats and leaves out what equals the threshold, so this is the float
        next to the cutoff; what lies between is left out by the caller.
        """
        raw = cutoff * self.size if self.is_bits else cutoff
        with np.errstate(over="ignore"):
            below = np.nextafter(np.float32(raw), np.float32(-np.inf))
        found = float(np.clip(below, -3.4e38, 3.4e38))
        return -found if self.falls else found

    def unpack(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return stored vectors, (n, size), as codes that `funnelvec.codes.score` takes."""
        if self.is_bits:
            return bits.encode(stored.astype(np.float32))
        return stored.astype(np.float16 if self.resolution.code == "f16" else np.float32)
