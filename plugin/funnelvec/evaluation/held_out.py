"""Relevance of queries that had no part in the fit, so that a report does not flatter it."""

from __future__ import annotations

import numpy as np

from funnelvec.calibration.candidates import folds
from funnelvec.calibration.logistic import sigmoid
from funnelvec.calibration.platt import fit_platt
from funnelvec.errors import CalibrationError
from funnelvec.evaluation.answers import Answers, Floats

__all__ = ["held_out_platt"]


def held_out_platt(answers: Answers, *, seed: int = 0) -> Floats | None:
    """Return (n, K) relevance, each query's by a Platt fit to the other four fifths of the queries.

    None where four fifths are too few for a fit.
    """
    found = np.full(answers.scores.shape, np.nan)
    try:
        for fit, held in folds(np.arange(len(answers)), seed=seed):
            some = answers.counted[fit]
            line = fit_platt(
                answers.scores[fit][some], answers.labels[fit][some], n_queries=len(fit)
            )
            found[held] = sigmoid(line.slope * answers.scores[held] + line.offset)
    except CalibrationError:
        return None
    return found
