"""Calibration: from a raw score to the probability that a row is relevant."""

from __future__ import annotations

from funnelvec.calibration.base import Calibration
from funnelvec.calibration.certificate import Certificate
from funnelvec.calibration.platt import Line, PlattCalibration, fit_platt

__all__ = ["Calibration", "Certificate", "Line", "PlattCalibration", "fit_platt"]
