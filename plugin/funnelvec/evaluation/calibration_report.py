"""A calibration, shown: what it says of judged queries beside what is so."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.base import Calibration
from funnelvec.calibration.certificate import Certificate
from funnelvec.errors import CalibrationError, InvalidInput
from funnelvec.evaluation.answers import Answers, Floats, JudgedQueries, Unjudged
from funnelvec.evaluation.curves import (
    Bin,
    Counts,
    Density,
    Point,
    choose_points,
    densities,
    measure_point,
    precision_recall,
    reliability,
    said,
)
from funnelvec.evaluation.evaluation import Evaluation, evaluate_answers
from funnelvec.evaluation.held_out import held_out_platt
from funnelvec.types import Judgments

__all__ = ["FORMATS", "CalibrationReport"]

FORMATS = (".html", ".png", ".json")
#: The cutoff that searches ask for by a promise.
_NAMES = {"max_miss": "certified", "min_precision": "precise"}


class Asked(Protocol):
    """What a report needs of a table."""

    @property
    def name(self) -> str:
        """Name of the table."""

    def answers(
        self,
        judgments: Judgments,
        *,
        k: int | None = None,
        unjudged: Unjudged = "irrelevant",
        funnel: str | None = None,
        progress: bool = False,
    ) -> Answers:
        """Ask every judged query."""


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """Everything that the page of a calibration shows.

    Attributes
    ----------
    kind
        Of the calibration, such as ``platt``.
    held_out
        Whether relevance is that of fits that had not seen the query; else it is that of the
        calibration itself, which is no surprise on the judgments that it was fitted to.
    evaluation
        Figures with their intervals, by the relevance of the table itself.
    bins, said
        The reliability diagram, and how many pairs are said to have which relevance.
    density
        Scores by label.
    curve
        Precision over recall of all pairs together: (recall, precision).
    points
        Thresholds, by falling relevance.
    certificates
        What cutoffs of the funnel promise.
    """

    kind: str
    held_out: bool
    evaluation: Evaluation
    bins: tuple[Bin, ...]
    said: Counts
    density: Density
    curve: tuple[tuple[float, float], ...]
    points: tuple[Point, ...]
    certificates: tuple[Certificate, ...] = ()

    @classmethod
    def measure(
        cls,
        table: Asked,
        judgments: Judgments,
        calibration: Calibration,
        *,
        k: int | None = None,
        funnel: str | None = None,
        unjudged: Unjudged = "ignored",
        certificates: Sequence[Certificate] = (),
        points: Mapping[str, float] | None = None,
        progress: bool = False,
    ) -> CalibrationReport:
        """Ask a table the judged queries, and measure what is to be shown.

        Parameters
        ----------
        table
            Of any engine that does not await, with this calibration in force.
        unjudged
            Rows that nobody judged have no part in the fit, so by default they have none here.
        """
        queries = JudgedQueries.of(judgments)
        depth = getattr(calibration, "depth", 0)  # of the shortlist, where that decides the map
        k = max(k or 100, depth) if depth else k
        answers = table.answers(judgments, k=k, unjudged=unjudged, funnel=funnel, progress=progress)
        evaluation = evaluate_answers(
            answers,
            k=answers.scores.shape[1] if k is None else k,
            table=table.name,
            funnel=funnel or f"{table.name}_search",
            unjudged=unjudged,
        )
        return cls.of(
            answers,
            evaluation,
            calibration,
            queries=queries.vectors,
            certificates=certificates,
            points=points,
        )

    @classmethod
    def of(
        cls,
        answers: Answers,
        evaluation: Evaluation,
        calibration: Calibration,
        *,
        queries: npt.NDArray[np.float32],
        certificates: Sequence[Certificate] = (),
        points: Mapping[str, float] | None = None,
        relevance: Floats | None = None,
    ) -> CalibrationReport:
        """Measure what is to be shown.

        Parameters
        ----------
        answers
            To the judged queries, by a table that has this calibration in force.
        queries
            (n, d) the judged queries.
        points
            Thresholds on relevance to show beside the usual ones, by name.
        relevance
            (n, K) of fits that had not seen the query. By default it is fitted here for Platt,
            and taken from the answers for other maps.

        Raises
        ------
        CalibrationError
            If the answers have no relevance.
        """
        if answers.relevance is None:
            raise CalibrationError("the answers have no relevance; calibrate the funnel first")
        kind = str(getattr(calibration, "kind", type(calibration).__name__))
        if relevance is None and kind == "platt":
            relevance = held_out_platt(answers)
        shown = answers.relevance if relevance is None else relevance
        given = dict(points or {})
        for each in certificates:
            if each.relevance is not None:
                given[_NAMES[each.kind]] = each.relevance

        maps = [
            calibration.at(query, scores[~np.isnan(scores)]) if not np.isnan(scores).all() else None
            for query, scores in zip(queries, answers.scores, strict=True)
        ]

        def cutoff(least: float) -> Floats:
            return np.array(
                [
                    math.nan if each is None else each.cutoff(query, least)
                    for query, each in zip(queries, maps, strict=True)
                ]
            )

        return cls(
            kind=kind,
            held_out=relevance is not None,
            evaluation=evaluation,
            bins=reliability(shown, answers),
            said=said(shown, answers),
            density=densities(answers),
            curve=precision_recall(shown, answers),
            points=tuple(
                measure_point(name, least, shown, answers, cutoff)
                for name, least in choose_points(shown, answers, given).items()
            ),
            certificates=tuple(certificates),
        )

    def as_json(self) -> dict[str, Any]:
        """The same as values that JSON knows; what is not a number is None."""
        content = {"format": 1, **asdict(self), "evaluation": self.evaluation.as_json()}
        content["certificates"] = [json.loads(each.to_json()) for each in self.certificates]
        plain: dict[str, Any] = _finite(content)
        return plain

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write it to a file, as its suffix says: a page (.html), plots (.png) or numbers (.json).

        Raises
        ------
        InvalidInput
            If the suffix is another or the file cannot be written.
        MissingDependency
            If the extra ``report`` is not installed and a page or plots are wanted.
        """
        from funnelvec.pages import write_file

        kind = check_format(path)
        if kind == ".json":
            return write_file(path, json.dumps(self.as_json(), indent=2, allow_nan=False) + "\n")
        from funnelvec.evaluation.report import render_page, render_png

        return write_file(path, render_page(self) if kind == ".html" else render_png(self))


def check_format(path: str | os.PathLike[str]) -> str:
    """Return the suffix of a report's file."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InvalidInput(
            f"{os.fspath(path)!r}: a report is a page (.html), plots (.png) or numbers (.json)"
        )
    return suffix


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
