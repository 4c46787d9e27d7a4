"""The report of a calibration: what it measures, and the page, the plots and the numbers."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec import cli
from funnelvec.calibration.logistic import sigmoid
from funnelvec.errors import CalibrationError, InvalidInput
from funnelvec.evaluation import Answers, CalibrationReport, JudgedQueries, evaluate_answers
from funnelvec.evaluation.curves import (
    choose_points,
    densities,
    measure_point,
    precision_recall,
    reliability,
)
from funnelvec.evaluation.held_out import held_out_platt

TEXT = '<b>shop & "sons"</b>'


def judged(seed: int = 2, queries: int = 40) -> tuple[Any, fv.Judgments]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(300, 8)).astype(np.float32)
    asked = rows[:queries] + 0.3 * rng.normal(size=(queries, 8)).astype(np.float32)
    ids, labels = [], []
    for query in asked:
        scores = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-scores)[:25]
        ids += nearest.tolist()
        labels += (rng.random(25) < sigmoid(12 * (scores[nearest] - 0.6))).tolist()
    return rows, fv.Judgments(np.repeat(asked, 25, axis=0), ids, labels)


@pytest.fixture(scope="module")
def table() -> Any:
    rows, _ = judged()
    made = fv.connect("memory:").create(TEXT, dims=8)
    made.add(range(len(rows)), rows)
    made.create_funnel("things_search", "8:f32")
    return made


@pytest.fixture(scope="module")
def report(table: Any) -> CalibrationReport:
    judgments = judged()[1]
    fitted = table.calibrate(judgments, funnel="things_search")
    promise = table.certify(judgments, max_miss=0.2, k=25, funnel="things_search")
    return CalibrationReport.measure(
        table, judgments, fitted, k=25, funnel="things_search", certificates=[promise]
    )


def made(scores: Any, relevance: Any, labels: Any, counted: Any = None) -> Answers:
    labels = np.array(labels, dtype=bool)
    counted = np.ones(labels.shape, dtype=bool) if counted is None else np.array(counted)
    return Answers(
        scores=np.array(scores, dtype=float),
        relevance=np.array(relevance, dtype=float),
        labels=labels,
        judged=counted,
        counted=counted,
        totals=labels.sum(axis=1),
    )


def test_what_a_threshold_does_is_counted_query_by_query() -> None:
    answers = made(
        [[0.9, 0.8, 0.1], [0.7, 0.6, 0.5], [0.3, 0.2, np.nan]],
        [[0.9, 0.8, 0.1], [0.7, 0.6, 0.5], [0.3, 0.2, np.nan]],
        [[1, 0, 1], [1, 1, 0], [0, 0, 0]],
        np.ones((3, 3)) == [[1, 1, 1], [1, 1, 1], [1, 1, 0]],
    )
    assert answers.relevance is not None
    point = measure_point(
        "p", 0.55, answers.relevance, answers, lambda least: np.array([0.5, 0.6, np.inf])
    )
    assert point.recall == pytest.approx(3 / 4) and point.precision == pytest.approx(3 / 4)
    assert point.empty == pytest.approx(1 / 3)
    assert point.precisions.p50 == pytest.approx(0.75)  # of 1/2 and 1
    assert point.recalls.p10 == pytest.approx(0.55) and point.recalls.p90 == pytest.approx(0.95)
    assert point.sizes.p50 == 2 and point.cutoff.p50 == pytest.approx(0.55)
    assert point.cutoffs is not None and sum(point.cutoffs.counts) == 2
    nothing = measure_point("p", 1.0, answers.relevance, answers, lambda _: np.full(3, np.inf))
    assert nothing.empty == 1.0 and nothing.cutoffs is None and math.isnan(nothing.precision)


def test_bins_hold_all_pairs_and_their_intervals_the_share() -> None:
    rng = np.random.default_rng(0)
    relevance = rng.uniform(size=(50, 40))
    labels = rng.random((50, 40)) < relevance
    answers = made(relevance, relevance, labels)
    bins = reliability(relevance, answers)
    assert len(bins) == 20 and sum(each.pairs for each in bins) == 2000
    third = (relevance >= 0.1) & (relevance < 0.15)
    assert bins[2].pairs == third.sum() and bins[2].found == pytest.approx(labels[third].mean())
    assert all(each.low <= each.found <= each.high for each in bins)
    assert sum(each.low <= each.said <= each.high for each in bins) >= 17
    wrong = reliability(relevance**3, answers)
    assert sum(each.low <= each.said <= each.high for each in wrong) < 10
    shown = densities(answers)
    assert sum(shown.relevant.counts) == labels.sum()
    assert sum(shown.others.counts) == (~labels).sum()
    recall, precision = map(np.array, zip(*precision_recall(relevance, answers), strict=True))
    assert (np.diff(recall) >= 0).all() and recall[-1] == 1.0
    last = np.sort(relevance[labels])[0]  # the threshold that keeps all that is relevant
    assert precision[-1] == pytest.approx(labels.sum() / (relevance >= last).sum())


def test_points_are_those_given_and_the_usual_ones() -> None:
    rng = np.random.default_rng(1)
    relevance = -np.sort(-rng.uniform(size=(30, 20)), axis=1)
    answers = made(relevance, relevance, rng.random((30, 20)) < relevance)
    found = choose_points(relevance, answers, {"mine": 0.9})
    assert set(found) == {"mine", "one half", "keeps 95 %", "best mean F1"}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    point = measure_point("r", found["keeps 95 %"], relevance, answers, lambda p: np.full(30, p))
    assert 0.95 <= point.recall < 0.97

    def f1(least: float) -> float:
        kept = relevance >= least
        hits = (kept & answers.labels).sum(axis=1)
        return float((2 * hits / (kept.sum(axis=1) + answers.totals)).mean())

    best = max(f1(value) for value in np.unique(relevance))
    assert f1(found["best mean F1"]) == pytest.approx(best)


def test_held_out_relevance_has_not_seen_the_query() -> None:
    rng = np.random.default_rng(4)
    scores = -np.sort(-rng.uniform(size=(30, 20)), axis=1)
    labels = rng.random((30, 20)) < sigmoid(8 * (scores - 0.5))
    before = held_out_platt(made(scores, scores, labels))
    changed = labels.copy()
    changed[3] = ~changed[3]
    after = held_out_platt(made(scores, scores, changed))
    assert before is not None and after is not None
    np.testing.assert_array_equal(before[3], after[3])
    assert not np.array_equal(before, after)
    assert held_out_platt(made(scores[:6], scores[:6], np.zeros((6, 20)))) is None


def test_a_report_has_everything_the_page_shows(report: CalibrationReport) -> None:
    assert report.kind == "platt" and report.held_out
    names = [point.name for point in report.points]
    assert set(names) == {"certified", "one half", "keeps 95 %", "best mean F1"}
    certified = next(point for point in report.points if point.name == "certified")
    # One curve for all queries: the cutoff is that of the certificate.
    promise = report.certificates[0]
    assert certified.cutoff.p10 == pytest.approx(promise.cutoff, abs=1e-9)
    assert certified.cutoff.p90 == pytest.approx(promise.cutoff, abs=1e-9)
    content = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert content["format"] == 1 and 2 <= len(content["bins"]) <= 20
    assert content["certificates"][0]["level"] == 0.2
    assert sum(content["said"]["counts"]) == sum(each["pairs"] for each in content["bins"])
    assert content["evaluation"]["unjudged"] == "ignored"


class Page(HTMLParser):
    """Collects what a page loads and what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                self.loads.append(value)
            if name == "id" and value:
                self.ids.append(value)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_stands_alone_and_shows_every_plot(
    report: CalibrationReport, tmp_path: Path
) -> None:
    target = report.write(tmp_path / "out.html")
    source = target.read_text("utf-8")
    page = Page()
    page.feed(source)
    text = " ".join("".join(page.text).split())
    assert page.loads == [] and "script" not in page.tags
    assert page.tags.count("figure") == 5 == source.count('role="img"')
    assert len(page.ids) == len(set(page.ids))
    assert TEXT in text and TEXT not in source
    assert "loses at most" in text or "expected to lose at most" in text
    for word in ("Certificate", "reliability", "p10", "certified", "left without a row"):
        assert word in text or word in source, word
    for svg in re.findall(r"<svg.*?</svg>", source, re.DOTALL):
        ET.fromstring(svg.replace("xlink:href", "href"))
    assert "nan" not in text.lower().split()
    assert report.write(tmp_path / "again.html").read_text("utf-8") == source


def test_plots_and_numbers_are_files_too(report: CalibrationReport, tmp_path: Path) -> None:
    image = report.write(tmp_path / "out.png").read_bytes()
    assert image.startswith(b"\x89PNG") and len(image) > 50_000
    content = json.loads(report.write(str(tmp_path / "out.json")).read_text("utf-8"))
    assert content == report.as_json()
    with pytest.raises(InvalidInput, match=r"\.html.*\.png.*\.json"):
        report.write(tmp_path / "out.pdf")
    with pytest.raises(InvalidInput, match="cannot write"):
        report.write(tmp_path / "no" / "out.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.png"]


def test_without_a_calibration_there_is_no_report(table: Any) -> None:
    answers = made([[0.9, 0.1]], [[0.9, 0.1]], [[1, 0]])
    bare = Answers(
        answers.scores, None, answers.labels, answers.judged, answers.counted, answers.totals
    )
    evaluation = evaluate_answers(bare, k=2, times=20)
    with pytest.raises(CalibrationError, match="calibrate the funnel"):
        CalibrationReport.of(bare, evaluation, object(), queries=np.ones((1, 2)))  # type: ignore[arg-type]
    queries = JudgedQueries.of(judged()[1])
    assert len(queries) == 40


def test_the_report_of_the_command_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = ["calibrate", "postgresql://nobody@127.0.0.1:1/none", "docs", "j.csv", "--report"]
    with pytest.raises(SystemExit):
        cli.main([*nowhere, str(tmp_path / "no" / "out.html")])
    assert "no file in a folder that exists" in capsys.readouterr().err
    assert cli.main([*nowhere, str(tmp_path / "out.txt")]) == 1
    assert "(.html)" in capsys.readouterr().err
