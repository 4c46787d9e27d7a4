"""The bank that hubs are measured with, in numpy: the twin of ``sql/parts/48_hub.sql``."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.corpus import NEIGHBOURS, hub_bias
from funnelvec.codes.floats import encode_direction
from funnelvec.engines import options
from funnelvec.errors import CalibrationError

__all__ = ["HubBank", "hashed"]

#: Rows of the bank whose mean stands for that of all.
_CENTRE = 300
#: What Postgres quotes in the text of a row.
_QUOTED = frozenset('"\\(), \t\n\r\v\f')


@dataclass(frozen=True, slots=True, eq=False)
class HubBank:
    """What hubs are measured with.

    Attributes
    ----------
    id
        What calibrations know it by.
    vectors
        (m, d) unit vectors, rounded to 16 bits.
    places
        The place of each row of the bank, by key.
    mean
        What hubs are less, so that an ordinary row has about 0.
    """

    id: str
    vectors: npt.NDArray[np.float32]
    places: dict[Any, int]
    mean: float

    @classmethod
    def draw(cls, keys: Sequence[Any], vectors: npt.NDArray[Any], *, sample: int) -> HubBank:
        """Draw a bank from all rows, by the hash of their keys.

        Raises
        ------
        CalibrationError
            If fewer than 20 rows have a vector that is not zero.
        """
        order = sorted(range(len(keys)), key=lambda row: hashed(keys[row]))
        drawn = [row for row in order[: 2 * sample + 100] if vectors[row].any()][:sample]
        if len(drawn) < options.LEAST_HUB_SAMPLE:
            raise CalibrationError(
                f"the table has {len(drawn)} rows with a vector that is not zero, and a hub column "
                f"is measured with at least {options.LEAST_HUB_SAMPLE}; load rows first"
            )
        units = _units(vectors[drawn])
        own = np.arange(min(_CENTRE, len(units)))
        mean = round(float(hub_bias(units[own], units, k=NEIGHBOURS, own=own).mean()), 9)
        places = {keys[row]: place for place, row in enumerate(drawn)}
        return cls(str(uuid.uuid4()), units, places, mean)

    def measure(self, keys: Sequence[Any], vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the hubs of rows; 0, that of an ordinary row, for a zero vector."""
        own = np.array([self.places.get(key, -1) for key in keys], dtype=np.intp)
        found = hub_bias(_units(vectors), self.vectors, k=NEIGHBOURS, own=own) - self.mean
        return np.where(vectors.any(axis=1), found, 0.0).astype(np.float32)


def _units(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Unit vectors as the bank keeps them, in 16 bits."""
    return encode_direction(vectors.astype(np.float32)).astype(np.float32)


def hashed(key: Any) -> tuple[bytes, str]:
    """What Postgres puts rows in order by: the hash of the text of their key as a row."""
    parts = key if isinstance(key, tuple) else (key,)
    text = f"({','.join(map(_quoted, parts))})"
    return hashlib.sha256(text.encode()).digest(), text


def _quoted(part: Any) -> str:
    text = str(part)
    if text and not any(each in _QUOTED for each in text):
        return text
    doubled = text.replace("\\", "\\\\").replace('"', '""')
    return f'"{doubled}"'
