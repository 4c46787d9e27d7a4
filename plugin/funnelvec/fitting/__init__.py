"""Fitting rotations to a sample of vectors, and measuring whether they are worth it."""

from __future__ import annotations

from funnelvec.fitting.fit import Wanted, fit
from funnelvec.fitting.report import Comparison, RotationReport, RotationStatus

__all__ = ["Comparison", "RotationReport", "RotationStatus", "Wanted", "fit"]
