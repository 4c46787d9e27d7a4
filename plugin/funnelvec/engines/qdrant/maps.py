"""Fitted rotations of a column as they are kept with its collection. Pure.

What a rotation is stands in the definition; its numbers, a few megabytes, stand apart and are read
once, since a rotation never changes.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from funnelvec.codes.maps import Chain, Kind, LinearMap, Rotation
from funnelvec.errors import EngineError
from funnelvec.types import Metric

__all__ = ["KeptRotation", "packed", "unpacked"]


@dataclass(frozen=True, slots=True)
class KeptRotation:
    """What the definition says of a rotation.

    Attributes
    ----------
    token
        What its numbers are kept under.
    parts
        Reserved points that they take; 0 where they are in a file.
    ready
        Whether all of them are there; where not, somebody was stopped while writing them.
    fitted_at
        ISO text with a time zone.
    """

    name: str
    kind: Kind
    chain: Chain | None
    metric: Metric
    dims: int
    width: int
    two_maps: bool
    fitted_on: str
    rows: int
    queries: int
    recommended: bool
    fitted_at: str
    token: str
    parts: int
    ready: bool = False

    @classmethod
    def of(
        cls, rotation: Rotation, *, recommended: bool, fitted_at: str, token: str, parts: int
    ) -> KeptRotation:
        """Describe a rotation whose numbers are not written yet."""
        return cls(
            name=rotation.name,
            kind=rotation.kind,
            chain=rotation.chain,
            metric=rotation.metric,
            dims=rotation.dims,
            width=rotation.width,
            two_maps=rotation.query_map is not None,
            fitted_on=rotation.fitted_on,
            rows=rotation.rows,
            queries=rotation.queries,
            recommended=recommended,
            fitted_at=fitted_at,
            token=token,
            parts=parts,
        )

    @property
    def cuttable(self) -> bool:
        """Whether its first dimensions say more than others."""
        return self.chain is None

    @property
    def prefix_metric(self) -> Metric:
        """What its prefixes are compared by."""
        return "dot" if self.two_maps else self.metric


def packed(rotation: Rotation) -> bytes:
    """Write the numbers of a rotation: a line of JSON, then 32-bit integers, compressed."""
    maps = [each for each in (rotation.row_map, rotation.query_map) if each is not None]
    numbers = b"".join(each.numbers.astype("<i4").tobytes() for each in maps)
    head = {
        "steps": [each.step for each in maps],
        "shape": [rotation.width, rotation.dims],
        "sha256": hashlib.sha256(numbers).hexdigest(),
    }
    return json.dumps(head).encode() + b"\n" + zlib.compress(numbers, 1)


def unpacked(kept: KeptRotation, data: bytes) -> Rotation:
    """Read what `packed` wrote.

    Raises
    ------
    EngineError
        If it is damaged.
    """
    try:
        line, _, rest = data.partition(b"\n")
        head: dict[str, Any] = json.loads(line)
        numbers = zlib.decompress(rest)
        if hashlib.sha256(numbers).hexdigest() != head["sha256"]:
            raise ValueError("its checksum is another")
        if head["shape"] != [kept.width, kept.dims] or len(head["steps"]) != 1 + kept.two_maps:
            raise ValueError(f"it has the shape {head['shape']}")
        cut = np.frombuffer(numbers, "<i4").reshape(-1, kept.width, kept.dims)
        maps = [
            LinearMap(np.ascontiguousarray(each, np.int32), float(step))
            for each, step in zip(cut, head["steps"], strict=True)
        ]
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise EngineError(
            f"the rotation {kept.name}, as it is kept with the collection, is damaged: {error}; "
            "restore the collection from a snapshot, or drop the resolutions that use it and fit "
            "another"
        ) from error
    return Rotation(
        name=kept.name,
        kind=kept.kind,
        chain=kept.chain,
        metric=kept.metric,
        row_map=maps[0],
        query_map=maps[1] if kept.two_maps else None,
        fitted_on=kept.fitted_on,
        rows=kept.rows,
        queries=kept.queries,
    )
