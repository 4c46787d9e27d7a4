"""Figures of answers against slow computations that share nothing with them."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.calibration import metrics
from funnelvec.errors import InvalidInput
from funnelvec.evaluation import Answers, JudgedQueries, evaluate_answers
from funnelvec.evaluation.pooled import Calibrated, Ranked, draws
from funnelvec.evaluation.ranking import ranking
from funnelvec.types import Hit, Judgments

N, K = 12, 15


@pytest.fixture(scope="module")
def answers() -> Answers:
    """Twelve queries of up to fifteen rows, with ties, gaps, and a query without a relevant row."""
    rng = np.random.default_rng(3)
    scores = -np.sort(-rng.uniform(0, 1, (N, K)).round(1), axis=1)
    relevance = 1 / (1 + np.exp(-(rng.normal(0, 1, (N, 1)) + 4 * (scores - 0.6))))
    labels = rng.random((N, K)) < relevance
    labels[4] = False
    there = np.arange(K) < rng.integers(5, K + 1, N)[:, None]
    judged = there & ((rng.random((N, K)) < 0.7) | labels)
    scores[~there] = relevance[~there] = np.nan
    return Answers(
        scores=scores,
        relevance=relevance,
        labels=labels & there,
        judged=judged,
        counted=there,
        totals=(labels & there).sum(axis=1) + np.where(np.arange(N) == 4, 0, rng.integers(0, 3, N)),
    )


def pairs(answers: Answers, values: Any, drawn: list[int]) -> list[tuple[float, bool, int]]:
    """(value, relevant, number of the drawn query) of every pair, query by query."""
    return [
        (float(values[i, j]), bool(answers.labels[i, j]), number)
        for number, i in enumerate(drawn)
        for j in range(K)
        if answers.counted[i, j]
    ]


def slow_pr_auc(found: list[tuple[float, bool, int]]) -> float:
    total = sum(relevant for _, relevant, _ in found)
    area, recall = 0.0, 0.0
    for threshold in sorted({value for value, _, _ in found}, reverse=True):
        kept = [relevant for value, relevant, _ in found if value >= threshold]
        area += (sum(kept) / total - recall) * sum(kept) / len(kept)
        recall = sum(kept) / total
    return area


def slow_kept(found: list[tuple[float, bool, int]], n: int) -> tuple[float, float, float, float]:
    total = sum(relevant for _, relevant, _ in found)
    for threshold in sorted({value for value, _, _ in found}, reverse=True):
        kept = [relevant for value, relevant, _ in found if value >= threshold]
        if sum(kept) >= 0.95 * total - 1e-9:
            left = {query for value, _, query in found if value >= threshold}
            return (
                threshold,
                sum(kept) / len(kept),
                1 - len(kept) / len(found),
                1 - len(left) / n,
            )
    raise AssertionError


def slow_ece(found: list[tuple[float, bool, int]], bins: int = 15) -> float:
    ordered = sorted(found, key=lambda pair: pair[0])
    size, rest = divmod(len(ordered), bins)
    total, place = 0.0, 0
    for number in range(bins):
        part = ordered[place : place + size + (number < rest)]
        place += len(part)
        said = sum(value for value, _, _ in part) / len(part)
        rate = sum(relevant for _, relevant, _ in part) / len(part)
        chance = rate * (1 - rate) / max(len(part) - 1, 1)
        total += len(part) / len(ordered) * math.sqrt(max((said - rate) ** 2 - chance, 0))
    return total


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_figures_of_pairs_are_those_of_slow_loops(answers: Answers, seed: int | None) -> None:
    drawn = list(range(N))
    if seed is not None:
        drawn = np.random.default_rng(seed).integers(0, N, N).tolist()
    weights = np.bincount(drawn, minlength=N).astype(float)
    for values in (answers.relevance, answers.scores):
        assert values is not None
        found = pairs(answers, values, drawn)
        ranked = Ranked.of(values, answers.labels, answers.counted)
        assert ranked.pr_auc(weights) == pytest.approx(slow_pr_auc(found), abs=1e-12)
        assert ranked.kept(weights) == pytest.approx(slow_kept(found, N), abs=1e-12)
    assert answers.relevance is not None
    found = pairs(answers, answers.relevance, drawn)
    every = Calibrated.of(answers.relevance, answers.labels, answers.counted)
    assert every.brier(weights) == pytest.approx(
        sum((value - relevant) ** 2 for value, relevant, _ in found) / len(found), abs=1e-12
    )
    assert every.log_loss(weights) == pytest.approx(
        -sum(math.log(v if r else 1 - v) for v, r, _ in found) / len(found), abs=1e-12
    )
    # Equal relevances of different labels may fall to either side of the edge of a bin.
    distinct = answers.relevance + np.random.default_rng(1).normal(0, 1e-7, (N, K))
    every = Calibrated.of(distinct, answers.labels, answers.counted)
    assert every.ece(weights) == pytest.approx(slow_ece(pairs(answers, distinct, drawn)), abs=1e-12)


def test_all_pairs_once_agree_with_the_measures_of_calibration() -> None:
    rng = np.random.default_rng(0)
    relevance = rng.uniform(size=(40, 30))
    labels = rng.random((40, 30)) < relevance**2
    whole, counted = np.ones(40), np.ones((40, 30), dtype=bool)
    ranked = Ranked.of(relevance, labels, counted)
    every = Calibrated.of(relevance, labels, counted)
    assert ranked.pr_auc(whole) == pytest.approx(metrics.pr_auc(relevance, labels))
    assert ranked.kept(whole).precision == pytest.approx(
        metrics.precision_at_recall(relevance, labels)
    )
    assert every.ece(whole) == pytest.approx(metrics.debiased_ece(relevance, labels))
    assert every.brier(whole) == pytest.approx(metrics.brier(relevance, labels))


def slow_ranking(answers: Answers, i: int, k: int) -> tuple[float, float, float]:
    """nDCG and recall of the best k of a query, and the reciprocal rank, from their definitions."""
    gains = [bool(answers.labels[i, j]) for j in range(K) if answers.counted[i, j]]
    total = int(answers.totals[i])
    found = sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:k]))
    ideal = sum(1 / math.log2(place + 2) for place in range(min(k, total)))
    first = next((1 / (place + 1) for place, gain in enumerate(gains) if gain), 0.0)
    return found / ideal, sum(gains[:k]) / total, first


@pytest.mark.parametrize("unjudged", ["irrelevant", "ignored"])
def test_measures_of_order_are_those_of_their_definitions(answers: Answers, unjudged: str) -> None:
    if unjudged == "ignored":
        answers = replace(answers, counted=answers.judged)
    found = ranking(answers, k=13)
    for i in range(N):
        if answers.totals[i] == 0:
            assert all(math.isnan(values[i]) for values in found.values())
            continue
        for cut in (10, 13):
            ndcg, recall, first = slow_ranking(answers, i, cut)
            assert found[f"ndcg@{cut}"][i] == pytest.approx(ndcg, abs=1e-9)
            assert found[f"recall@{cut}"][i] == pytest.approx(recall, abs=1e-9)
        assert found["reciprocal_rank"][i] == pytest.approx(first, abs=1e-9)


def test_an_evaluation_says_what_a_cutoff_does(answers: Answers) -> None:
    found = evaluate_answers(answers, k=K, min_relevance=0.6, times=50)
    assert answers.relevance is not None
    kept = [
        [j for j in range(K) if answers.counted[i, j] and answers.relevance[i, j] >= 0.6]
        for i in range(N)
    ]
    hits = [sum(answers.labels[i, j] for j in kept[i]) for i in range(N)]
    among = [sum(answers.labels[i, answers.counted[i]]) for i in range(N)]
    expected = {
        "kept": np.mean([len(each) for each in kept]),
        "empty": np.mean([not each for each in kept]),
        "precision": np.mean([h / len(each) for h, each in zip(hits, kept, strict=True) if each]),
        "missed": np.mean([(a - h) / a if a else 0 for a, h in zip(among, hits, strict=True)]),
        "f1": np.mean(
            [
                2 * hits[i] / (len(kept[i]) + answers.totals[i])
                for i in range(N)
                if answers.totals[i]
            ]
        ),
    }
    for name, value in expected.items():
        figure = found[f"{name}@min_relevance"]
        assert figure.value == pytest.approx(value, abs=1e-12), name
        assert figure.low <= figure.value <= figure.high
    assert found["pr_auc"].raw is not None and found["ndcg@10"].raw is None
    quarters = [each.name for each in found.figures if each.name.startswith("ece_")]
    assert quarters == ["ece_lowest", "ece_second", "ece_third", "ece_highest"]
    assert json.loads(json.dumps(found.as_json()))["figures"][0]["name"] == "ndcg@10"
    assert all(each.low <= each.value <= each.high for each in found.figures), str(found)
    text = str(found)
    assert "12 judged queries" in text and "count as irrelevant" in text
    assert all(each.name in text for each in found.figures)
    with pytest.raises(InvalidInput, match="there are ndcg@10"):
        found["ndcg"]


def test_intervals_are_over_queries_and_hold_what_is_true() -> None:
    """Of 60 made-up sets, nine in ten intervals hold the mean that the sets were drawn around."""
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        level = rng.beta(2, 2, (40, 1))  # pairs of a query are alike
        labels = rng.random((40, 10)) < level
        ones = np.ones((40, 10), dtype=bool)
        made = Answers(
            scores=np.tile(np.linspace(1, 0, 10), (40, 1)),
            relevance=np.full((40, 10), 0.5),
            labels=labels,
            judged=ones,
            counted=ones,
            totals=labels.sum(axis=1),
        )
        figure = evaluate_answers(made, k=10, min_relevance=0.5, times=100, seed=seed)[
            "precision@min_relevance"
        ]
        held += figure.low <= 0.5 <= figure.high
    assert held >= 51


def test_draws_are_counts_of_queries_drawn_with_replacement() -> None:
    drawn = draws(7, times=30, seed=1)
    assert drawn.shape == (30, 7) and (drawn.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(drawn, draws(7, times=30, seed=1))
    assert len(np.unique(drawn, axis=0)) > 20


def test_without_a_calibration_there_are_no_figures_of_relevance(answers: Answers) -> None:
    found = evaluate_answers(replace(answers, relevance=None), k=K, times=20)
    assert not found.calibrated and "no calibration" in str(found)
    names = {each.name for each in found.figures}
    assert "pr_auc" in names and "ece" not in names and "brier" not in names
    with pytest.raises(InvalidInput, match="calibrate it first"):
        evaluate_answers(replace(answers, relevance=None), k=K, min_relevance=0.5)


def test_judged_pairs_become_labels_of_the_rows_that_came_back() -> None:
    first, second = uuid.UUID(int=1), uuid.UUID(int=2)
    judgments = Judgments(
        np.array([[1.0, 0], [1, 0], [0, 1], [1, 0]]),
        [str(first).upper(), str(second), str(second), str(second)],
        np.array([True, False, True, True]),
    )
    queries = JudgedQueries.of(judgments)
    assert len(queries) == 2 and queries.vectors.tolist() == [[1, 0], [0, 1]]
    hits = [[Hit(second, 0.9, 0.8), Hit(uuid.UUID(int=3), 0.7, 0.6)], [Hit(first, 0.5, 0.5)]]
    found = Answers.of(queries, hits)
    # The second row was judged twice, and one of the two says that it is relevant.
    assert found.labels.tolist() == [[True, False], [False, False]]
    assert found.judged.tolist() == [[True, False], [False, False]]
    assert found.counted.tolist() == [[True, True], [True, False]]
    assert found.totals.tolist() == [2, 1] and math.isnan(found.scores[1, 1])
    left = Answers.of(queries, hits, unjudged="ignored")
    assert left.counted.tolist() == [[True, False], [False, False]]
    keys = Judgments(np.ones((1, 2)), [np.int64(7)], [True])
    assert Answers.of(JudgedQueries.of(keys), [[Hit(7, 0.1, None)]]).labels.all()
    pair = Judgments(np.ones((1, 2)), [("a", 1)], [True])
    assert Answers.of(JudgedQueries.of(pair), [[Hit(("a", 1), 0.1, None)]]).labels.all()
    with pytest.raises(InvalidInput, match="no judged row"):
        Answers.of(queries, [[], []], unjudged="ignored")
    with pytest.raises(InvalidInput, match="ignored"):
        Answers.of(queries, hits, unjudged="maybe")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="1 answers"):
        Answers.of(queries, hits[:1])


def test_a_table_is_evaluated() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(200, 8)).astype(np.float32)
    asked = np.repeat(rows[:30] + 0.3 * rng.normal(size=(30, 8)).astype(np.float32), 20, axis=0)
    ids, labels = [], []
    for query in asked[::20]:
        scores = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-scores)[:20]
        ids += nearest.tolist()
        labels += (rng.random(20) < scores[nearest] ** 2).tolist()
    judgments = Judgments(asked, ids, labels)
    with fv.connect("memory:") as engine:
        table = engine.create("things", dims=8)
        table.add(range(200), rows)
        table.create_funnel("things_search", "8:f32")
        bare = table.evaluate(judgments, times=20)
        assert not bare.calibrated and bare.k == 100 and bare.queries == 30
        table.calibrate(judgments)
        heard: list[tuple[int, int]] = []
        found = table.evaluate(
            judgments, k=20, min_relevance=0.5, times=20, progress=lambda *at: heard.append(at)
        )
        assert heard[-1] == (30, 30)
        assert found.judged == 1.0 and found["recall@20"].value == 1.0
        # One rising curve over the score: what it sorts, the score sorts alike.
        assert found["pr_auc"].value == pytest.approx(found["pr_auc"].raw)
        assert found["ece"].value < 0.1
        table.add_resolution("4:f16")
        table.create_funnel("short", "4:f16@10 > 8:f32")
        assert table.evaluate(judgments, funnel="short", times=20).k == 10
        with pytest.raises(InvalidInput, match="ask for 10 or less"):
            table.evaluate(judgments, funnel="short", k=11)
        for wrong in ({"times": 5}, {"seed": -1}, {"unjudged": "x"}, {"min_relevance": 2}):
            with pytest.raises(InvalidInput):
                table.evaluate(judgments, **wrong)
        with pytest.raises(InvalidInput, match="Judgments"):
            table.evaluate("judgments")  # type: ignore[arg-type]
