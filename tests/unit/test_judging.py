"""Judgments from rows, files, clicks, answers: what they mean is stated, never guessed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec.errors import InvalidInput, NotFound, PositionBias

QUERIES = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
ROWS = {"query": QUERIES, "id": [1, 2, 3], "relevant": [True, False, True]}


def encoder(texts: list[str]) -> Any:
    """The length of a text, and its first letter."""
    assert len(set(texts)) == len(texts), "a text was encoded twice"
    return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float64)


def pairs(judgments: fv.Judgments) -> list[tuple[Any, ...]]:
    rows = zip(judgments.queries.tolist(), judgments.ids, judgments.labels.tolist(), strict=True)
    return [(tuple(query), id, label) for query, id, label in rows]


def test_rows_in_every_form_say_the_same() -> None:
    pa = pytest.importorskip("pyarrow")
    expected = fv.Judgments(np.array(QUERIES, np.float32), [1, 2, 3], np.array([True, False, True]))
    turned = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    for rows in (ROWS, turned, pa.table(ROWS), {**ROWS, "query": np.array(QUERIES)}):
        assert fv.Judgments.from_rows(rows).sha256 == expected.sha256


def test_a_grade_counts_from_where_it_is_said_to() -> None:
    rows = {"query": QUERIES, "id": [1, 2, 3], "grade": [0, 1, 2]}
    for least, expected in ((1, [False, True, True]), (2, [False, False, True])):
        found = fv.Judgments.from_rows(rows, grade="grade", relevant_from=least)
        assert found.labels.tolist() == expected
    with pytest.raises(InvalidInput, match="relevant_from= belong together"):
        fv.Judgments.from_rows(rows, grade="grade")
    with pytest.raises(InvalidInput, match="neither true nor false: 2"):
        fv.Judgments.from_rows(rows, label="grade")
    with pytest.raises(InvalidInput, match="no grade: 'good'"):
        fv.Judgments.from_rows({**rows, "grade": ["good"] * 3}, grade="grade", relevant_from=1)


def test_a_missing_label_is_what_the_caller_says() -> None:
    rows = {**ROWS, "relevant": [True, None, float("nan")]}
    with pytest.raises(InvalidInput, match="unjudged='irrelevant'"):
        fv.Judgments.from_rows(rows)
    assert fv.Judgments.from_rows(rows, unjudged="ignored").ids == (1,)
    assert fv.Judgments.from_rows(rows, unjudged="irrelevant").labels.tolist() == [
        True, False, False,
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match="there is no judged row"):
        fv.Judgments.from_rows({**ROWS, "relevant": [None] * 3}, unjudged="ignored")
    with pytest.raises(InvalidInput, match="unjudged must be"):
        fv.Judgments.from_rows(ROWS, unjudged="guess")  # type: ignore[arg-type]


def test_texts_go_through_the_encoder_once_each() -> None:
    rows = {**ROWS, "query": ["abc", "b", "abc"]}
    found = fv.Judgments.from_rows(rows, encoder=encoder)
    assert found.queries.tolist() == [[3.0, 97.0], [1.0, 98.0], [3.0, 97.0]]
    with pytest.raises(InvalidInput, match=r"query 0 is a text, 'abc'.*encoder="):
        fv.Judgments.from_rows(rows)
    with pytest.raises(InvalidInput, match=r"2 texts and gave back float64 of shape \(1, 2\)"):
        fv.Judgments.from_rows(rows, encoder=lambda texts: np.ones((1, 2)))


def test_keys_of_several_columns_are_tuples() -> None:
    rows = {**ROWS, "shop": ["a", "b", "c"]}
    assert fv.Judgments.from_rows(rows, id=("shop", "id")).ids == (("a", 1), ("b", 2), ("c", 3))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"id": [1], "relevant": [True]}, "no column 'query'"),
        ({"query": QUERIES, "relevant": [True] * 3}, "no column 'id'"),
        ({**ROWS, "id": [1]}, "one value for each"),
        ([], "none"),
        ([1, 2], "rows are mappings"),
        ("query", "rows with names"),
        ({**ROWS, "query": [[1.0], [1.0, 2.0], [1.0]]}, "not vectors of one width"),
        ({**ROWS, "query": [None, [1.0, 2.0], [1.0, 2.0]]}, "query 0 is missing"),
        ({**ROWS, "id": 5}, "no list of values"),
    ],
)
def test_rows_that_cannot_be_read(rows: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        fv.Judgments.from_rows(rows)


def test_files(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({**ROWS, "other": [0, 0, 0]}), tmp_path / "judged.parquet")
    with (tmp_path / "judged.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "query", "relevant"])
        for query, id, label in zip(*ROWS.values(), strict=True):
            writer.writerow([id, json.dumps(query), str(label).lower()])
    expected = fv.Judgments.from_rows(ROWS).sha256
    assert fv.Judgments.from_parquet(tmp_path / "judged.parquet").sha256 == expected
    assert fv.Judgments.from_csv(tmp_path / "judged.csv").sha256 == expected
    texts = fv.Judgments.from_csv(tmp_path / "judged.csv", text_ids=True)
    assert texts.ids == ("1", "2", "3")
    with pytest.raises(InvalidInput, match=r"no column 'stars' \(it has: query, id, relevant"):
        fv.Judgments.from_parquet(tmp_path / "judged.parquet", grade="stars", relevant_from=1)
    with pytest.raises(InvalidInput, match="no column 'asked'"):
        fv.Judgments.from_csv(tmp_path / "judged.csv", query="asked")
    for read in (fv.Judgments.from_parquet, fv.Judgments.from_csv):
        with pytest.raises(NotFound, match="no file"):
            read(tmp_path / "gone")
    (tmp_path / "broken").write_bytes(b"\xff\xfe\x00")
    for read in (fv.Judgments.from_parquet, fv.Judgments.from_csv):
        with pytest.raises(InvalidInput):
            read(tmp_path / "broken")


def test_keys_of_a_csv_that_only_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    (tmp_path / "j.csv").write_text('query,id,relevant\n"[1,2]",007,1\n"[1,2]",8,0\n')
    assert fv.Judgments.from_csv(tmp_path / "j.csv").ids == ("007", "8")


# -- clicks ----------------------------------------------------------------------------------------


def shown(*answers: tuple[str, str]) -> list[dict[str, Any]]:
    """One row per result: "abC" shows rows a, b, c in this order, and C was clicked."""
    return [
        {"query": query, "session": number, "id": row.lower(), "position": place, "clicked": row.isupper()}
        for number, (query, rows) in enumerate(answers)
        for place, row in enumerate(rows)
    ]  # fmt: skip


def test_clicks_judge_what_was_passed_on_the_way_to_them() -> None:
    rows = shown(("q", "abCde"), ("p", "xyz"))
    with pytest.warns(PositionBias, match="biased by position"):
        found = fv.Judgments.from_clicks(rows, shown="session", encoder=encoder)
    # d and e stand below the lowest click, and nothing of the second answer was clicked.
    assert [(id, label) for _, id, label in pairs(found)] == [
        ("a", False),
        ("b", False),
        ("c", True),
    ]


def test_a_row_that_was_clicked_once_in_two_answers_is_relevant_or_left_out() -> None:
    rows = shown(("q", "abC"), ("q", "acB"), ("q", "aC"))
    with pytest.warns(PositionBias):
        found = fv.Judgments.from_clicks(rows, shown="session", encoder=encoder)
    assert dict((id, label) for _, id, label in pairs(found)) == {"a": False, "b": True, "c": True}
    with pytest.warns(PositionBias):
        strict = fv.Judgments.from_clicks(rows, shown="session", min_clicks=2, encoder=encoder)
    assert dict((id, label) for _, id, label in pairs(strict)) == {"a": False, "c": True}


def test_clicks_that_say_nothing() -> None:
    with pytest.raises(InvalidInput, match="no answer was clicked"):
        fv.Judgments.from_clicks(shown(("q", "abc")), encoder=encoder)
    with pytest.raises(InvalidInput, match="min_clicks"):
        fv.Judgments.from_clicks(shown(("q", "aB")), min_clicks=0, encoder=encoder)
    with pytest.raises(InvalidInput, match="no column 'rank'"):
        fv.Judgments.from_clicks(shown(("q", "aB")), position="rank", encoder=encoder)
    with pytest.raises(InvalidInput, match="position in row 0"):
        fv.Judgments.from_clicks([{**shown(("q", "A"))[0], "position": "top"}], encoder=encoder)


# -- answers ---------------------------------------------------------------------------------------


@pytest.fixture
def table() -> Any:
    with fv.connect("memory:") as engine:
        made = engine.create("things", dims=2)
        angles = np.linspace(0.0, 1.5, 8)
        made.add(range(8), np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
        made.create_funnel("things_search", "2:f32")
        yield made


def test_a_judge_is_asked_about_every_hit(table: Any) -> None:
    asked = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    found = fv.Judgments.from_judge(table, asked, lambda query, hit: hit.id % 2 == 0, k=3)
    assert [(id, label) for _, id, label in pairs(found)] == [
        (0, True), (1, False), (2, True), (7, False), (6, True), (5, False),
    ]  # fmt: skip
    graded = fv.Judgments.from_judge(table, asked, lambda _, hit: hit.id, k=3, relevant_from=6)
    assert graded.labels.tolist() == [False] * 3 + [True, True, False]
    some = fv.Judgments.from_judge(table, asked, lambda _, hit: True if hit.id else None, k=3)
    assert len(some) == 5
    with pytest.raises(InvalidInput, match="no opinion of any hit"):
        fv.Judgments.from_judge(table, asked, lambda query, hit: None)
    with pytest.raises(InvalidInput, match="2 queries, but 1 answers"):
        fv.Judgments.from_answers(asked, [[]], lambda query, hit: True)


def test_a_judge_is_asked_with_the_text(table: Any) -> None:
    heard = []
    fv.Judgments.from_judge(
        table, ["ab", "c"], lambda query, hit: bool(heard.append(query)) or True, k=1,
        encoder=encoder,
    )  # fmt: skip
    assert heard == ["ab", "c"]


def test_known_items_are_completed_with_what_the_search_returns(table: Any) -> None:
    known = fv.Judgments.known_items(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), [0, 5])
    assert known.labels.all()
    whole = known.with_unjudged(table, k=3)
    assert [(id, label) for _, id, label in pairs(whole)] == [
        (0, True), (5, True), (1, False), (2, False), (7, False), (6, False),
    ]  # fmt: skip
    answers = table.search_many(known.unique_queries, k=3)
    assert known.with_answers(answers).sha256 == whole.sha256
    assert whole.with_unjudged(table, k=3).sha256 == whole.sha256
    with pytest.raises(InvalidInput, match="2 different queries, but 1 answers"):
        known.with_answers(answers[:1])
