"""What a funnel and its calibration are worth on judged queries."""

from __future__ import annotations

from funnelvec.evaluation.answers import Answers, JudgedQueries, Unjudged
from funnelvec.evaluation.calibration_report import CalibrationReport
from funnelvec.evaluation.evaluation import Evaluation, Figure, evaluate_answers

__all__ = [
    "Answers",
    "CalibrationReport",
    "Evaluation",
    "Figure",
    "JudgedQueries",
    "Unjudged",
    "evaluate_answers",
]
