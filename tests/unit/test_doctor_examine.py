"""A whole diagnosis: what it holds, in which forms, and what it refuses. The page of it."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import funnelvec as fv
from funnelvec.doctor import Diagnosis, Finding, examine
from funnelvec.doctor.examine import STEPS
from funnelvec.doctor.values import Histogram, digits, share
from funnelvec.errors import InvalidInput
from funnelvec.types import METRICS
from tests.unit.test_doctor import decaying, gaussian, unit

TOPICS = ["norms", "order", "pairs", "duplicates", "prefixes", "bits", "rank", "lid", "hubness"]
SETS = Path("/work/shared/data")


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    vectors = decaying(600, 32)
    vectors[5] = vectors[6]
    return examine(vectors, queries=100, table="products", vector="embedding", rows=50_000)


def test_every_finding_says_number_basis_normal_and_advice(found: Diagnosis) -> None:
    assert [finding.topic for finding in found.findings] == TOPICS
    for finding in found.findings:
        assert finding.number is not None and np.isfinite(finding.number)
        for text in (finding.title, finding.unit, finding.basis, finding.found, finding.normal):
            assert text
        assert finding.advice and finding.level in ("fine", "note", "problem")
        if finding.interval is not None:
            low, high = finding.interval
            assert low <= finding.number <= high, finding
    without = [f.topic for f in found.findings if f.interval is None]
    assert without == ["rank", "hubness"]  # of which only the size of the sample is known
    assert found.finding("lid").title == "Local intrinsic dimension"
    with pytest.raises(KeyError):
        found.finding("nothing")


def test_a_diagnosis_is_json_and_text(found: Diagnosis) -> None:
    read = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert read["findings"][0]["topic"] == "norms"
    assert read["measures"]["prefixes"]["stages"][0]["resolution"] == "2:f16"
    text = str(found)
    assert text.startswith("products.embedding: 32 dimensions, f32, cosine\n600 of 50,000 rows")
    assert max(map(len, text.splitlines())) <= 120
    for finding in found.findings:
        assert finding.title in text and finding.shown() in text
    assert "an estimate" in text  # what a larger table needs is said to be one


def test_the_same_seed_gives_the_same_diagnosis() -> None:
    vectors = decaying(300, 16)
    before = vectors.copy()
    first = examine(vectors, sample=200, queries=50, seed=3)
    assert examine(vectors, sample=200, queries=50, seed=3) == first
    assert examine(vectors, sample=200, queries=50, seed=4) != first
    assert np.array_equal(vectors, before)
    assert (first.rows, first.sample, first.queries) == (300, 200, 50)


def test_rows_are_called_by_their_ids_or_numbers() -> None:
    vectors = gaussian(100, 8)
    vectors[70] = vectors[30]
    assert "(row 30, row 70)" in examine(vectors).finding("duplicates").found
    named = examine(vectors, ids=[f"doc {i}" for i in range(100)])
    assert "(doc 30, doc 70)" in named.finding("duplicates").found
    drawn = examine(np.repeat(vectors[:3], 40, axis=0), ids=range(1000, 1120), sample=60)
    assert set(drawn.measures.duplicates.examples) <= {str(i) for i in range(1000, 1120)}


def test_progress_is_told_of_every_step() -> None:
    for rows in (2, 10, 100):
        told: list[tuple[int, int]] = []
        examine(gaussian(rows, 8), progress=lambda done, total: told.append((done, total)))  # noqa: B023
        assert told == [(i, STEPS) for i in range(1, STEPS + 1)]


def test_few_and_equal_rows_are_not_measured_and_that_is_said() -> None:
    two = examine([[1, 0], [0, 1]])
    assert [f.topic for f in two.findings] == TOPICS
    assert "2 different rows with neighbours are too few" in two.finding("lid").found
    for vectors in (np.ones((50, 4)), np.zeros((50, 4))):
        same = examine(vectors)
        assert same.measures.prefixes is None and same.measures.pairs is None
        assert same.finding("duplicates").number == 1
        assert same.finding("duplicates").level == "problem"
    corners = np.eye(40)  # every row equally far from all others
    assert examine(corners, metric="euclidean").finding("lid").number is None


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("code", ["f32", "f16"])
def test_every_metric_and_base_is_examined(metric: Any, code: Any) -> None:
    vectors = decaying(300, 48).astype(np.float16)
    vectors[0] = 0
    found = examine(vectors, metric=metric, code=code, queries=60)
    assert found.measures.stage is not None
    fv.Funnel.parse(found.measures.stage.funnel).check(dims=48, code=code, approximate=False)
    assert (found.finding("norms").level == "problem") == (metric == "cosine")
    json.dumps(found.as_json(), allow_nan=False)


def test_more_dimensions_than_rows() -> None:
    found = examine(gaussian(40, 700), queries=20)
    assert found.measures.rank is not None and found.measures.rank.limit == 39
    assert "few for that" in found.finding("rank").found


@pytest.mark.parametrize(
    ("vectors", "options", "said"),
    [
        ([[1.0, 2.0]], {}, "at least two vectors"),
        ([], {}, "shape"),
        ([1.0, 2.0], {}, "shape"),
        ([["a"], ["b"]], {}, "numbers"),
        ([[1.0], [float("nan")]], {}, "row 1"),
        ([[1e39], [1.0]], {}, "row 0"),
        (np.zeros((3, 0)), {}, "at least two vectors"),
        (object(), {}, "numbers"),
        ([[1], [2, 3]], {}, "cannot be read"),
        (np.eye(3), {"metric": "manhattan"}, "unknown metric"),
        (np.eye(3), {"metric": None}, "unknown metric"),
        (np.eye(3), {"sample": 1}, "sample must be"),
        (np.eye(3), {"sample": 2.5}, "sample must be"),
        (np.eye(3), {"queries": True}, "queries must be"),
        (np.eye(3), {"seed": -1}, "seed must be"),
        (np.eye(3), {"ids": [1, 2]}, "2 ids but 3 vectors"),
    ],
)
def test_what_cannot_be_examined(vectors: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        examine(vectors, **options)


NUMBERS = st.floats(-(2.0**127), 2.0**127, width=32) | st.sampled_from(
    [0.0, 1.0, -1.0, 1e-45, 65504.0]
)


@settings(max_examples=40)
@given(
    arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=NUMBERS
    ),
    st.sampled_from(METRICS),
)
def test_any_finite_vectors_are_examined_or_refused(vectors: Any, metric: Any) -> None:
    try:
        found = examine(vectors, metric=metric, queries=10)
    except InvalidInput:
        assert len(vectors) < 2
        return
    json.dumps(found.as_json(), allow_nan=False)
    assert str(found)


def test_figures_are_written_for_people() -> None:
    assert [digits(x) for x in (0, 0.41234, 41.23, 412.3, 12345.6, 0.00012, -0.5)] == [
        "0", "0.412", "41.2", "412", "12,346", "0.00012", "-0.5",
    ]  # fmt: skip
    assert [share(x) for x in (0, 1, 0.41, 0.999, 0.9999, 0.0004, 0.925, 1 - 1e-9)] == [
        "0 %", "100 %", "41 %", "99.9 %", "99.99 %", "0.04 %", "92.5 %", "100 %",
    ]  # fmt: skip
    one = Histogram.of(np.full(7, 3.0))
    assert sum(one.counts) == 7 and one.edges[0] < 3 < one.edges[-1]


# -- the page --------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """What stands in a page: its words, its ids, what it would load, and whether tags match."""

    VOID = ("meta", "link", "img", "br", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.labels: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.note(tag, dict(attrs))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(tag, dict(attrs))

    def note(self, tag: str, attrs: dict[str, str | None]) -> None:
        if attrs.get("id"):
            self.ids.append(str(attrs["id"]))
        if tag == "figure":
            self.labels.append(str(attrs["aria-label"]))
        for name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
            if attrs.get(name) is not None and not str(attrs[name]).startswith("#"):
                self.loads.append(str(attrs[name]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def page(found: Diagnosis) -> str:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from funnelvec.doctor.report import render_page

    return render_page(found)


def test_the_page_holds_everything_and_loads_nothing(page: str, found: Diagnosis) -> None:
    read = Page(page)
    assert read.loads == []
    assert not re.search(r"@import|<script|<iframe|url\((?!#)", page)
    assert len(read.ids) == len(set(read.ids))
    for used in re.findall(r'(?:href="|url\()#([^")]+)', page):
        assert used in read.ids, used
    words = " ".join(read.words.replace("\N{NO-BREAK SPACE}", " ").split())
    for finding in found.findings:
        for text in (finding.title, finding.found, finding.normal, finding.advice, finding.basis):
            assert text in words
    assert page.count("<figure") == page.count("<svg") == len(read.labels) == 7
    assert all(len(label) > 40 and label.endswith(".") for label in read.labels)


def test_the_page_follows_the_colours_of_the_reader(page: str) -> None:
    assert "prefers-color-scheme: dark" in page and "currentColor" in page
    assert "#010203" not in page  # what stood for the colour of text
    # matplotlib's own black and white would vanish on one of the two grounds.
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert not re.search(r"(fill|stroke): ?#(000000|ffffff)\b", svg)


def test_the_page_is_the_same_every_time(page: str, found: Diagnosis) -> None:
    from funnelvec.doctor.report import render_page

    assert render_page(found) == page


def test_names_of_tables_are_text(found: Diagnosis) -> None:
    pytest.importorskip("matplotlib")
    from funnelvec.doctor.report import render_page

    evil = "<script>alert(1)</script>&\"'"
    finding = dataclasses.replace(found.findings[0], found=evil)
    hostile = dataclasses.replace(found, table=evil, vector=evil, findings=(finding,))
    text = render_page(hostile)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert Page(text).words.count("alert(1)") == 5  # title and heading hold both names


def test_a_page_of_little_has_no_plots_of_nothing() -> None:
    pytest.importorskip("matplotlib")
    from funnelvec.doctor.report import render_page

    text = render_page(examine([[1, 0], [0, 1]]))
    Page(text)
    assert "<svg" not in text and "too few" in text


def test_the_page_is_written_whole_or_not_at_all(
    found: Diagnosis, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.html"
    assert found.write_report(target) == target
    first = target.read_bytes()
    # Drawing takes seconds, and this is about writing what was drawn.
    monkeypatch.setattr("funnelvec.doctor.report.render_page", lambda _: page)
    assert found.write_report(str(target)).read_bytes() == first
    with pytest.raises(InvalidInput, match="cannot write the report"):
        found.write_report(tmp_path / "no" / "out.html")
    monkeypatch.setattr(
        "os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(InvalidInput, match="No space left"):
        found.write_report(target)
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]
    assert target.read_bytes() == first


# -- tables in memory, and real data ---------------------------------------------------------------


def test_a_table_in_memory_draws_and_examines_itself() -> None:
    vectors = decaying(500, 24)
    with fv.connect("memory:") as engine:
        table = engine.create("docs", dims=24, dtype="f16", metric="dot")
        table.add(range(500), vectors)
        drawn = table.sample(200, seed=1)
        assert (len(set(drawn.ids)), drawn.rows, drawn.exact) == (200, 500, True)
        assert np.array_equal(drawn.vectors, vectors[list(drawn.ids)].astype("f2").astype("f4"))
        assert table.sample(200, seed=1).ids == drawn.ids != table.sample(200, seed=2).ids
        told: list[int] = []
        found = table.doctor(sample=300, queries=50, progress=lambda done, _: told.append(done))
        assert told == list(range(1, STEPS + 2))
        assert (found.title, found.rows, found.sample) == (
            "docs.embedding: 24 dimensions, f16, dot", 500, 300,
        )  # fmt: skip
        assert isinstance(found.findings[0], Finding)
        empty = engine.create("empty", dims=24)
        assert empty.sample().vectors.shape == (0, 24)
        with pytest.raises(InvalidInput, match="at least two vectors"):
            empty.doctor()


@pytest.mark.skipif(not SETS.is_dir(), reason="the evaluation sets are not here")
@pytest.mark.parametrize(
    ("file", "ordered", "full_signs"),
    [
        ("clinc/minilm384.f16.npy", "none", (0.98, 1.0)),
        ("dbpedia_entity/docs.minilm384.i8.npy", "none", (0.95, 0.99)),
        ("scale_arxiv/docs.wordllama256.i8.npy", "first", (0.7, 0.85)),
    ],
)
def test_real_models_are_told_apart(
    file: str, ordered: str, full_signs: tuple[float, float]
) -> None:
    """wordllama is Matryoshka-trained, MiniLM is not; signs serve the one and not the other."""
    if not (SETS / file).exists():
        pytest.skip("this set is not here")
    vectors = np.load(SETS / file, mmap_mode="r")
    found = examine(unit(vectors[:: len(vectors) // 5000].astype(np.float32)), queries=200)
    assert found.measures.prefixes is not None
    assert found.measures.prefixes.order == ordered
    widest = next(s for s in reversed(found.measures.prefixes.stages) if s.code == "bit")
    assert full_signs[0] <= widest.recall[1] <= full_signs[1]
    assert found.finding("norms").level == "fine"
