"""The words of the page: what each plot shows, and what it says here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from funnelvec.evaluation.calibration_report import CalibrationReport
    from funnelvec.evaluation.curves import Quantiles

__all__ = ["Section", "number", "sections", "share", "spread"]


@dataclass(frozen=True, slots=True)
class Section:
    """A plot's heading, what it shows, and what to look for."""

    topic: str
    title: str
    found: str
    advice: str


def number(value: float) -> str:
    """Four digits, or a dash for what is not a number."""
    return "-" if not math.isfinite(value) else f"{value:.4g}"


def share(value: float) -> str:
    """A share as per cent."""
    return "-" if not math.isfinite(value) else f"{100 * value:.3g} %"


def spread(found: Quantiles) -> str:
    """Tenth, half and nine tenths of the queries."""
    return f"{number(found.p10)} / {number(found.p50)} / {number(found.p90)}"


def sections(report: CalibrationReport) -> tuple[Section, ...]:
    """One per plot, in the order of the page."""
    return (
        _reliability(report),
        _density(report),
        _curve(report),
        _spread(report),
        _cutoff(report),
    )


def _reliability(report: CalibrationReport) -> Section:
    odd = [each for each in report.bins if not each.low <= each.said <= each.high]
    seen = (
        "Relevance is that of fits which had not seen the query (five parts of the queries)."
        if report.held_out
        else "Relevance is that of the calibration itself, on the judgments given. If it was "
        "fitted to these very judgments, the diagram flatters it."
    )
    outside = (
        "Every step holds what it says, as far as its size can tell."
        if not odd
        else f"{len(odd)} of {len(report.bins)} steps differ from it by more than chance."
    )
    return Section(
        "reliability",
        "What relevance says, and what is so",
        f"Pairs in steps of relevance, with their 95 % interval. {outside} {seen}",
        "Points above the line: rows are relevant more often than is said. A curve that bends away "
        "from the line at the right end matters most, since that is where cutoffs are.",
    )


def _density(report: CalibrationReport) -> Section:
    relevant = sum(report.density.relevant.counts)
    others = sum(report.density.others.counts)
    return Section(
        "density",
        "Scores by label",
        f"{relevant:,} relevant pairs and {others:,} others, each drawn to the same area; dotted: "
        "the score that relevance one half means, in the median query.",
        "Where the two overlap, no cutoff on the score tells rows apart.",
    )


def _curve(report: CalibrationReport) -> Section:
    said = "; ".join(
        f"{each.name} (relevance {number(each.relevance)}): recall {share(each.recall)}, precision "
        f"{share(each.precision)}"
        for each in report.points
    )
    return Section(
        "curve",
        "Precision and recall of one threshold",
        f"Of all pairs together, recall against the relevant rows that came back. {said}.",
        "Pick a point, and pass its relevance as min_relevance.",
    )


def _spread(report: CalibrationReport) -> Section:
    said = "; ".join(f"{each.name} {share(each.empty)}" for each in report.points)
    return Section(
        "spread",
        "What single queries get",
        f"From the tenth to the ninetieth percentile of the queries, the line is the median. "
        f"Queries that are left without a row: {said}.",
        "One threshold is an average over queries. Where the bars are long, say what is promised "
        "as an average, or certify it.",
    )


def _cutoff(report: CalibrationReport) -> Section:
    same = all(
        each.cutoff.p10 == each.cutoff.p90 or math.isnan(each.cutoff.p50) for each in report.points
    )
    how = (
        "This calibration is one curve for all queries, so each threshold is one score."
        if same
        else "Each query has a cutoff of its own."
    )
    said = "; ".join(f"{each.name} {spread(each.cutoff)}" for each in report.points)
    return Section(
        "cutoff",
        "Cutoffs on the raw score, and the rows they keep",
        f"{how} Cutoff at p10 / p50 / p90: {said}.",
        "The raw score is what the database compares with; it is pushed down as it stands here.",
    )
