"""The bank that hubs are measured with, as it is kept with a collection. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from funnelvec.engines.hubs import HubBank
from funnelvec.engines.qdrant.names import payload_key, payload_path
from funnelvec.errors import EngineError

__all__ = ["HubState", "KeptHub", "hub_column", "packed_bank", "unpacked_bank"]

#: Its bank is being written; rows that have no number are being measured; all have; it goes.
HubState = Literal["writing", "filling", "ready", "dropping"]


@dataclass(frozen=True, slots=True)
class KeptHub:
    """What the definition says of the hub column of a vector.

    Attributes
    ----------
    column
        Its name, which tells the field of the payload.
    id
        What calibrations know it by, and its bank.
    mean
        What hubs are less.
    rows
        In the bank.
    parts
        Reserved points that the bank takes.
    """

    column: str
    id: str
    mean: float
    rows: int
    parts: int
    state: HubState = "writing"

    @property
    def key(self) -> str:
        """Key of the payload."""
        return payload_key(self.column)

    @property
    def path(self) -> str:
        """Path to it, in filters and formulas."""
        return payload_path(self.column)

    @property
    def measures(self) -> bool:
        """Whether rows that are written get a number."""
        return self.state in ("filling", "ready")


def hub_column(vector: str) -> str:
    """Name of the hub column of a vector; plain ``hub`` would be a likely name of others."""
    return f"{vector}_hub" if vector else "_fv_hub"


def packed_bank(bank: HubBank) -> bytes:
    """Write a bank whose places are by the ids of points: a line of JSON, then 16-bit floats."""
    numbers = bank.vectors.astype("<f2").tobytes()
    head = {
        "ids": sorted(bank.places, key=bank.places.__getitem__),
        "shape": list(bank.vectors.shape),
        "sha256": hashlib.sha256(numbers).hexdigest(),
    }
    return json.dumps(head).encode() + b"\n" + numbers


def unpacked_bank(kept: KeptHub, data: bytes | None) -> HubBank:
    """Read what `packed_bank` wrote; None where some of it is missing.

    Raises
    ------
    EngineError
        If it is damaged.
    """
    try:
        if data is None:
            raise ValueError("another program has removed reserved points")
        line, _, numbers = data.partition(b"\n")
        head: dict[str, Any] = json.loads(line)
        if hashlib.sha256(numbers).hexdigest() != head["sha256"]:
            raise ValueError("its checksum is another")
        vectors = np.frombuffer(numbers, "<f2").reshape(head["shape"]).astype(np.float32)
        if not len(vectors) == len(head["ids"]) == kept.rows:
            raise ValueError(f"it has {len(vectors)} rows of {kept.rows}")
        places = {id: place for place, id in enumerate(head["ids"])}
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"the bank of the hub column {kept.column}, as it is kept with the collection, is "
            f"damaged: {error}; drop_hub() and add_hub() make it anew"
        ) from error
    return HubBank(kept.id, vectors, places, kept.mean)
