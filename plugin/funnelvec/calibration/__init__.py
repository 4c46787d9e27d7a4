"""Calibration: from a raw score to the probability that a row is relevant."""

from __future__ import annotations

from funnelvec.calibration.base import Calibration
from funnelvec.calibration.beta import BetaCalibration
from funnelvec.calibration.certificate import Certificate
from funnelvec.calibration.isotonic import IsotonicCalibration
from funnelvec.calibration.listed import AdapterCalibration
from funnelvec.calibration.platt import Line, PlattCalibration, fit_platt
from funnelvec.calibration.reading import read_calibration
from funnelvec.calibration.stored import StoredCalibration

__all__ = [
    "AdapterCalibration",
    "BetaCalibration",
    "Calibration",
    "Certificate",
    "IsotonicCalibration",
    "Line",
    "PlattCalibration",
    "StoredCalibration",
    "fit_platt",
    "read_calibration",
]
