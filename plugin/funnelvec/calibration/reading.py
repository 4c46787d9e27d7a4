"""Reading a calibration of any family."""

from __future__ import annotations

import json
from typing import Any

from funnelvec.calibration.beta import BetaCalibration
from funnelvec.calibration.isotonic import IsotonicCalibration
from funnelvec.calibration.listed import AdapterCalibration
from funnelvec.calibration.platt import PlattCalibration
from funnelvec.calibration.stored import StoredCalibration
from funnelvec.errors import CalibrationError

__all__ = ["made", "read_calibration"]

_FAMILIES: dict[str, type[StoredCalibration]] = {
    family.kind: family
    for family in (PlattCalibration, BetaCalibration, IsotonicCalibration, AdapterCalibration)
}


def read_calibration(text: str) -> StoredCalibration:
    """Read what ``to_json`` of any family wrote.

    Raises
    ------
    CalibrationError
        If the text is not such an object, or of a version that this one does not read.
    """
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise CalibrationError(f"a calibration is a JSON object: {error}") from None
    kind = content.get("kind") if isinstance(content, dict) else None
    return _family(kind).from_json(text)


def made(family: str, parameters: dict[str, Any], **known: Any) -> StoredCalibration:
    """Make a calibration of what a database keeps.

    Parameters
    ----------
    parameters
        As `StoredCalibration.parameters` has them.
    known
        What it belongs to and comes from.
    """
    return _family(family).of({**parameters, **known})


def _family(kind: object) -> type[StoredCalibration]:
    if not isinstance(kind, str) or kind not in _FAMILIES:
        raise CalibrationError(
            f"not a calibration of {', '.join(_FAMILIES)}: {kind!r:.80}; a newer funnelvec may "
            "have written it"
        )
    return _FAMILIES[kind]
