"""The tuner without a database: its intervals, prices and simulations, and whole runs in memory."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import funnelvec as fv
from funnelvec import cli
from funnelvec.doctor import Diagnosis, examine
from funnelvec.doctor.fit import Fit, Found, Tuned
from funnelvec.errors import CalibrationError, InvalidInput, NotCalibrated
from funnelvec.reports import ResolutionStatus
from funnelvec.resolution import Resolution
from funnelvec.tuning import drift, keeping, run
from funnelvec.tuning.calls import Steps, drive
from funnelvec.tuning.candidates import Template, first_stages, middle_stages
from funnelvec.tuning.cost import Design, Prices, fitted, usual
from funnelvec.tuning.forecast import Forecast, affordable, forecast
from funnelvec.tuning.graphs import DENSE, LIGHT
from funnelvec.tuning.ground import About, Ground, Names
from funnelvec.tuning.keeping import packed
from funnelvec.tuning.measure import Measured
from funnelvec.tuning.search import _between, _shortest
from funnelvec.tuning.simulate import Losses, Simulated, best, ladder, simulate
from funnelvec.tuning.sure import interval, queries_needed, ratio_interval
from funnelvec.tuning.wanted import Wanted
from funnelvec.tuning.world import Axes, World

DIMS, ROWS = 64, 900
BASE = Resolution(DIMS, "f32")


def drawn(n: int, seed: int, dims: int = DIMS) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors whose first dimensions say most."""
    scale = np.exp(-np.arange(dims) / 20)
    return (np.random.default_rng(seed).standard_normal((n, dims)) * scale).astype(np.float32)


@pytest.fixture
def table() -> Any:
    made = fv.connect("memory:").create("docs", dims=DIMS, columns={"name": "text"})
    made.add(range(ROWS), drawn(ROWS, 1), columns={"name": [f"n{i}" for i in range(ROWS)]})
    return made


QUERIES = drawn(80, 2)


# -- how sure ------------------------------------------------------------------------------------


def test_intervals_are_those_of_clopper_and_pearson_for_single_trials() -> None:
    # Known values: 0 of 10, 5 of 10 and 99 of 100.
    assert interval(np.zeros(10)) == pytest.approx((0.0, 0.3085), abs=1e-4)
    halves = np.array([0.0, 1.0] * 5)
    low, high = interval(halves)
    # The variance of the sample is a little above p (1 - p), and never counts for fewer trials.
    assert (low, high) == pytest.approx((0.1871, 0.8129), abs=1e-4)
    assert interval(np.array([1.0] * 99 + [0.0])) == pytest.approx((0.9455, 0.99975), abs=2e-4)
    assert interval(np.ones(100)) == pytest.approx((0.9638, 1.0), abs=1e-4)


def test_an_interval_that_was_looked_at_is_wider() -> None:
    shares = np.array([1.0] * 95 + [0.5] * 5)
    once, twice = interval(shares, looks=1), interval(shares, looks=2)
    assert twice[0] < once[0] < interval(shares)[0] and twice[1] > once[1] > interval(shares)[1]
    assert interval(np.ones(200), looks=1)[0] == pytest.approx(0.978, abs=1e-3)
    # Others that found next to nothing widen it, others that found everything do not narrow it.
    assert interval(shares, others=np.zeros(3))[0] < interval(shares)[0]
    assert interval(shares, others=np.ones(500)) == interval(shares)


@pytest.mark.parametrize("together", [True, False])
def test_intervals_hold_what_they_say(together: bool) -> None:
    # Losses of whole queries, or of single rows: 1 % of the true answers either way.
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        if together:
            shares = 1.0 - (rng.random(200) < 0.01)
        else:
            shares = 1.0 - rng.binomial(10, 0.01, 200) / 10
        low, high = interval(shares)
        held += low <= 0.99 <= high
    assert held >= 0.94 * 200


def test_more_queries_for_higher_recalls() -> None:
    assert [queries_needed(recall) for recall in (0.9, 0.99, 0.999)] == [20, 91, 921]
    low, _ = interval(np.ones(queries_needed(0.99)))
    assert low >= 0.96


def test_the_ratio_of_times_has_an_interval() -> None:
    theirs = np.random.default_rng(0).uniform(1.0, 2.0, 200)
    ratio, low, high = ratio_interval(0.5 * theirs, theirs)
    assert ratio == pytest.approx(0.5) and low <= 0.5 <= high


# -- what it costs -------------------------------------------------------------------------------


def test_prices_are_found_again_from_times() -> None:
    true = usual("postgres", DIMS)
    floats, bits, between = Resolution(16, "f16"), Resolution(64, "bit"), Resolution(32, "f16")
    designs = [
        Design(template, keeps, true.milliseconds(template, keeps, true.rows))
        for template, keeps in (
            (Template((floats, BASE)), (20,)), (Template((floats, BASE)), (100,)),
            (Template((floats, BASE)), (400,)), (Template((bits, BASE)), (20,)),
            (Template((bits, BASE)), (400,)), (Template((floats, between, BASE)), (400, 20)),
            (Template((floats, between, BASE)), (400, 100)),
            (Template((floats, between, BASE)), (100, 20)),
        )
    ]  # fmt: skip
    scan = true.milliseconds(Template((BASE,)), (), true.rows)
    twice = [Design(each.template, each.keeps, 2 * each.milliseconds) for each in designs]
    found = fitted(twice, true, rows=true.rows, scan_ms=2 * scan, index_row=1e-3, encode_row=1e-4)
    for keeps in ((30,), (300,)):
        wanted = 2 * true.milliseconds(Template((floats, BASE)), keeps, true.rows)
        got = found.milliseconds(Template((floats, BASE)), keeps, true.rows)
        assert got == pytest.approx(wanted, rel=0.02)
    assert found.measured and not true.measured
    assert found.wide == pytest.approx(2 * true.wide, rel=0.05)


def test_mapping_a_query_has_its_price() -> None:
    prices, tuned = usual("postgres", DIMS), Resolution(16, "f16", "tuned")
    plain = prices.milliseconds(Template((Resolution(16, "f16"), BASE)), (50,), 1000)
    assert prices.milliseconds(Template((tuned, BASE)), (50,), 1000) == pytest.approx(
        plain + prices.map + 16 * DIMS * prices.map_number
    )
    # A random rotation is done in the database, and is in the price of the walk.
    turned = Template((Resolution(DIMS, "bit", "random"), BASE))
    assert prices.mapping(turned) == 0.0


def kept_prices(**changed: Any) -> dict[str, Any]:
    now = f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
    return {**packed(replace(usual("postgres", 64), key="k", at=now))[0], **changed}


def test_kept_prices_are_read_again_unless_they_are_old_or_no_prices() -> None:
    known = usual("postgres", 64)
    found = keeping._unpacked(replace(known, wide=9.0), "k", kept_prices())
    assert found is not None and found.kept and found.measured
    assert found.wide == pytest.approx(known.wide) and found.rows == known.rows
    assert json.loads(json.dumps(kept_prices())) == kept_prices()
    for wrong in (
        None, [], kept_prices(key="other"), kept_prices(at="2001-01-01T00:00:00Z"),
        kept_prices(at="soon"), kept_prices(at="2999-01-01T00:00:00Z"), kept_prices(wide="9"),
        kept_prices(wide=-1.0), kept_prices(rows=0), kept_prices(step_bits=float("nan")),
        kept_prices(rows=True), {"key": "k", "at": kept_prices()["at"]},
    ):  # fmt: skip
        assert keeping._unpacked(known, "k", wrong) is None


def test_codes_beside_the_table_have_prices_of_their_own() -> None:
    inline = usual("postgres", DIMS)
    joined = replace(inline, kind="side", wide=3 * inline.wide, step_floats=2 * inline.step_floats)
    beside = ResolutionStatus(
        "docs", "embedding", "32:f16", "c", 9, 9, 1.0, None, "i", 10**6, storage="side"
    )
    for prices in (replace(inline, other=joined), replace(joined, other=inline)):
        found = forecasts(0.9, fv.Budget(), stored=(beside,), prices=prices)
        for each in found:
            stands = "side" if Resolution(32, "f16") in each.template.stages else "column"
            expected = (joined if stands == "side" else inline).milliseconds(
                each.template, each.keeps, 100_000
            )
            assert (each.kind, each.milliseconds) == (stands, pytest.approx(expected))
        assert {each.kind for each in found} == {"side", "column"}


def test_a_deeper_graph_costs_more_and_an_index_has_its_size() -> None:
    prices = usual("postgres", 1536)
    first = Resolution(128, "f16")
    assert prices.first(first, 100, 500_000) > prices.first(first, 100, 50_000)
    # docs/benchmark.md: 28.4 MB for 128:f16 and 408.8 MB for whole vectors, 50,000 rows each.
    assert prices.index_bytes(first, 50_000) == pytest.approx(28.4e6, rel=0.05)
    assert prices.index_bytes(Resolution(1536, "f32"), 50_000) == pytest.approx(409e6, rel=0.01)
    assert usual("memory", 64).index_bytes(first, 50_000) == 0


# -- what it finds -------------------------------------------------------------------------------


def world(table: Any, queries: Any, k: int = 10) -> World:
    rows = table.sample(ROWS).vectors
    axes = Axes(rows, metric="cosine", kept={})
    itself = np.full(len(queries), -1)
    return World(rows, queries, itself, base=BASE, metric="cosine", k=k, axes=axes)


@pytest.mark.parametrize(
    "stages", ["16:f16", "64:bit", "64:bit2~random", "16:f16 > 32:f16", "64:bit~random > 32:f16"]
)
def test_the_simulation_finds_what_the_engine_finds(table: Any, stages: str) -> None:
    resolutions = [Resolution.parse(each) for each in stages.split(" > ")]
    for each in resolutions:
        table.add_resolution(each)
    template = Template((*resolutions, BASE))
    simulated = simulate(world(table, QUERIES), template)
    for keeps in ((40, 20), (100, 30), (300, 12)):
        keeps = keeps[: len(resolutions)]
        table.create_funnel("f", template.funnel(keeps), replace=True)
        measured = table.measure_recall(queries=QUERIES, funnel="f")
        # Ties of bits go either way: the engine breaks them by key, the simulation by chance.
        near = 0.02 if "bit" in stages else 1e-6
        assert simulated.at(keeps) == pytest.approx(measured.recall, abs=near)
        first = simulated.first[simulated.keeps.index(keeps[0])]
        assert first == pytest.approx(measured.stages[0].recall, abs=near)


def test_long_answers_are_simulated_as_the_engine_finds_them(table: Any) -> None:
    middle = Resolution(32, "f16")
    for each in (Resolution(16, "f16"), middle):
        table.add_resolution(each)
    template = Template((Resolution(16, "f16"), middle, BASE))
    simulated = simulate(world(table, QUERIES[:20], k=120), template)
    for keeps in ((400, 140), (200, 180)):
        table.create_funnel("f", template.funnel(keeps), replace=True)
        measured = table.measure_recall(queries=QUERIES[:20], k=120, funnel="f")
        assert simulated.at(keeps) == pytest.approx(measured.recall, abs=1e-6)


def test_lists_stretch_for_larger_tables(table: Any) -> None:
    found = world(table, QUERIES)
    template = Template((Resolution(16, "f16"), BASE))
    plain, longer = simulate(found, template), simulate(found, template, stretch=4.0)
    assert longer.at((400,)) == plain.at((100,)) < plain.at((400,))
    assert 0.0 <= found.growth(Resolution(16, "f16"), 0.9) <= 1.0


def test_what_an_index_loses_is_learned() -> None:
    losses = Losses(indexed=True)
    assert losses.at(50) > losses.at(200) > 0.0
    losses.learn(100, 0.02)
    assert losses.at(100) == 0.02 and losses.at(200) == pytest.approx(0.01)
    assert Losses(indexed=False).at(50) == 0.0


def test_the_cheapest_keeps_or_the_best_in_time(table: Any) -> None:
    simulated = simulate(world(table, QUERIES), Template((Resolution(16, "f16"), BASE)))
    prices, losses = usual("postgres", DIMS), Losses(indexed=False)
    chosen = best(simulated, prices, rows=ROWS, target=0.9, losses=losses)
    assert chosen is not None and chosen[1] >= 0.9
    shorter = simulated.keeps[simulated.keeps.index(chosen[0][0]) - 1]
    assert simulated.at((shorter,)) < 0.9
    assert best(simulated, prices, rows=ROWS, target=1.01, losses=losses) is None
    fast = best(simulated, prices, rows=ROWS, target=0.9, losses=losses, within=chosen[2])
    assert fast is not None and fast[2] <= chosen[2] and fast[1] >= chosen[1]


def test_of_two_lists_of_one_funnel_the_shorter_is_taken() -> None:
    two = Template((Resolution(16, "f16"), BASE))
    three = Template((Resolution(16, "f16"), Resolution(32, "f16"), BASE))

    def took(template: Template, keeps: tuple[int, ...], milliseconds: float) -> Measured:
        return Measured(template, keeps, np.ones(3), np.full(3, milliseconds))

    # The longer list was asked at a quieter moment.
    short, long = took(two, (50,), 3.0), took(two, (80,), 2.0)
    either, other = took(three, (80, 20), 1.0), took(three, (60, 30), 2.0)
    assert _shortest([long, short, either, other]) == [short, either, other]


def test_lists_are_halved_between_what_does_and_what_cannot() -> None:
    stages = Template((Resolution(8, "f16"), Resolution(16, "f16"), Resolution(32, "f32")))
    keeps = ladder(10)
    recall = np.ones((len(keeps), len(keeps)))
    recall[: keeps.index(40)] = 0.9  # whatever the index: shorter lists do not hold the answers
    simulated = Simulated(stages, keeps, recall, recall[:, 0])

    def seen(found: float, *keeps: int) -> Measured:
        shares = np.full(100, found)
        return Measured(stages, keeps, shares, np.ones(100))

    assert _between(simulated, [seen(0.95, 60, 20)], 0.99) is None  # nothing has reached it
    lucky = [seen(1.0, 600, 15), seen(1.0, 250, 12)]
    assert _between(simulated, lucky, 0.99) == (100, 12)  # of 40 to 200
    fails = [*lucky, seen(0.98, 100, 12)]
    assert _between(simulated, fails, 0.99) == (160, 12)
    # A shorter second list may be why it failed.
    assert _between(simulated, [*lucky[:1], seen(0.98, 300, 12)], 0.99) == (160, 15)
    assert _between(simulated, [*lucky, seen(0.98, 200, 12)], 0.99) is None
    assert _between(simulated, [seen(1.0, 40, 12)], 0.99) is None


def test_keeps_of_long_answers_leave_room_for_a_stage_between() -> None:
    for k, least in ((1000, 0), (700, 0), (10, 900), (10, 200), (1, 0)):
        keeps = ladder(k, least)
        assert len(keeps) >= 5 and list(keeps) == sorted(set(keeps))
        assert keeps[0] > k and keeps[0] >= least


def test_candidates_fit_the_column() -> None:
    there = [Resolution(48, "f16")]
    firsts = first_stages(BASE, metric="cosine", there=there, fitted=0)
    assert firsts[0] == there[0] and BASE not in firsts
    assert all(each.dims <= DIMS and each.rotation in (None, "random") for each in firsts)
    wide = Resolution(1536, "f32")
    names = set(map(str, first_stages(wide, metric="cosine", there=[], fitted=512)))
    assert {"128:f16", "128:f16~tuned", "512:bit~tunedr", "1536:bit~random"} <= names
    between = middle_stages(Resolution(128, "f16"), wide, there=[], fitted=512)
    assert list(map(str, between)) == ["256:f16", "512:f16", "256:f16~tuned", "512:f16~tuned"]
    assert middle_stages(Resolution(32, "f16"), BASE, there=[], fitted=64) == []


def test_names_of_the_run_fit_every_database() -> None:
    assert Names("docs").trial(1) == "docs_tune_try1"
    for table in ("é" * 60, "x" * 63, "My Table; drop"):
        name = Names(Names(table).copy).mark(Resolution(16_000, "bit4", "abcdefghijklmnop"))
        assert len(name.encode()) <= 63 and name.isascii() and " " not in name
    assert Names("A").prefix != Names("a").prefix


# -- whole runs ----------------------------------------------------------------------------------


def test_a_run_makes_the_funnel_and_leaves_nothing_else(table: Any) -> None:
    table.add_resolution("8:f16")  # the user's own, which never wins
    said: list[str] = []
    told: list[tuple[int, int]] = []
    report = table.tune(
        0.9, queries=QUERIES, on_step=said.append, progress=lambda *done: told.append(done)
    )
    assert report.met and report.recall >= 0.9 and report.applied
    assert report.low <= report.recall <= report.high
    assert (report.queries, report.checked, report.source) == (40, 40, "given")
    assert set(table._funnels) == {"docs_search"}
    assert str(table._funnels["docs_search"].funnel) == report.funnel
    stages = {stage.resolution for stage in fv.Funnel.parse(report.funnel).stages}
    left = {Resolution.parse(each.resolution) for each in table.status()}
    assert left == (stages | {Resolution(8, "f16")}) - {BASE}
    assert set(report.built) == set(map(str, left - {Resolution(8, "f16")}))
    assert any("simulating" in step for step in said) and told[-1] == (100, 100)
    # It finds what it says it finds, with queries of its own kind.
    fresh = table.measure_recall(queries=drawn(200, 5))
    assert fresh.recall >= report.low
    shown = str(report)
    assert report.funnel in shown and "measured" in shown and "simulated" in shown
    assert any(option.best for option in report.options)
    assert json.loads(json.dumps(report.as_json()))["funnel"] == report.funnel


def test_a_second_run_starts_from_the_first(table: Any) -> None:
    first = table.tune(0.9, queries=QUERIES)
    again = table.tune(0.9, queries=QUERIES)
    assert again.met and set(table._funnels) == {"docs_search"}
    # What the first one built is the user's now, so the second one does not take it away.
    assert set(first.built) <= {each.resolution for each in table.status()}


def test_the_funnel_keeps_its_model_and_columns(table: Any) -> None:
    table.create_funnel("mine", "64:f32", model="m", returns=["name"])
    report = table.tune(0.9, queries=QUERIES, funnel="mine")
    kept = table._funnels["mine"]
    assert (str(kept.funnel), kept.model, kept.returns) == (report.funnel, "m", ("name",))


@pytest.mark.parametrize("when", ["storing", "measuring [0-9]", "in turns"])
def test_an_interrupted_run_goes_on(table: Any, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(text: str) -> None:
        if re.search(when, text):
            raise KeyboardInterrupt

    # The exact scan may win here and build nothing, so the prices are those of a slow one.
    monkeypatch.setattr(run, "find_prices", priced_like_postgres)
    built = counting(table, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        table.tune(0.9, queries=QUERIES, on_step=stop)
    before = {each.resolution for each in table.status()}
    assert before or when == "storing"
    assert not any("_try" in name for name in table._funnels)
    assert "docs_search" not in table._funnels
    report = table.tune(0.9, queries=QUERIES)
    assert max(built.values()) == 1  # nothing was stored twice
    assert set(table._funnels) == {"docs_search"}
    stages = {str(stage.resolution) for stage in fv.Funnel.parse(report.funnel).stages}
    assert {each.resolution for each in table.status()} == stages - {str(BASE)}


def priced_like_postgres(*_: Any, **__: Any) -> Steps[Prices]:
    return usual("postgres", DIMS)
    yield  # a generator, as the one that measures


def counting(table: Any, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what is stored in a table; its scratch tables are others."""
    counts: Counter[str] = Counter()
    kept: Callable[..., None] = table.add_resolution

    def add(resolution: Any, **options: Any) -> None:
        counts[str(resolution)] += 1
        kept(resolution, **options)

    monkeypatch.setattr(table, "add_resolution", add)
    return counts


def state(table: Any) -> Any:
    return repr(table.status()), dict(table._funnels), repr(table.rotations())


def test_a_dry_run_and_a_copy_change_nothing(table: Any) -> None:
    table.create_funnel("docs_search", "64:f32")
    before = state(table)
    dry = table.tune(0.9, queries=QUERIES, dry_run=True)
    assert dry.dry_run and not dry.applied and not dry.built and dry.checked == 0
    assert not any(option.measured for option in dry.options)
    copied = table.tune(0.9, queries=QUERIES, on_copy=500)
    assert not copied.applied and copied.rows == 500 and "on a copy" in " ".join(copied.notes)
    assert state(table) == before


def test_rows_as_queries_are_left_out_of_their_answers_and_warned_of(table: Any) -> None:
    report = table.tune(0.9, queries="rows")
    assert report.source == "rows of the table" and "resemble" in report.notes[0]
    # Each row would find itself, so no recall could be below 0.1.
    shares = [option for option in report.options if option.measured]
    assert shares and report.recall >= 0.9


def test_a_sample_says_that_it_is_one(table: Any) -> None:
    report = table.tune(0.9, queries=QUERIES, sample=400)
    assert (report.sample, report.rows) == (400, ROWS) and "400 of 900" in " ".join(report.notes)
    assert report.recall == pytest.approx(table.measure_recall(queries=QUERIES).recall, abs=0.08)


def test_budgets_bind(table: Any) -> None:
    small = table.tune(0.9, queries=QUERIES, budget={"memory": 8 * ROWS + 8 * ROWS}, dry_run=True)
    assert all(option.memory <= 16 * ROWS for option in small.options)
    none = table.tune(0.9, queries=QUERIES, budget=fv.Budget(build=1e-9), dry_run=True)
    assert none.funnel == "64:f32"
    fast = table.tune(0.9, queries=QUERIES, budget={"latency": 1000.0})
    assert fast.recall >= 0.99 and fast.met  # all the time in the world finds nearly everything
    never = table.tune(0.9, queries=QUERIES, budget={"latency": 1e-6}, dry_run=True)
    assert not never.met and "the budget of 1e-06 ms was missed" in str(never)
    assert never.milliseconds <= 1.05 * min(option.milliseconds for option in never.options)


def judged(table: Any) -> fv.Judgments:
    """For each query its 30 nearest rows, relevant where they are near."""
    rows = table.sample(ROWS)
    units = rows.vectors / np.linalg.norm(rows.vectors, axis=1, keepdims=True)
    asked = QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True)
    cosines = asked @ units.T
    near = np.argsort(-cosines, axis=1)[:, :30]
    least = np.sort(cosines, axis=1)[:, -8][:, np.newaxis]
    labels = np.take_along_axis(cosines, near, axis=1) >= least
    ids = [rows.ids[row] for row in near.ravel()]
    return fv.Judgments(np.repeat(QUERIES, 30, axis=0), ids, labels.ravel())


def test_stages_and_cutoff_are_chosen_together(table: Any) -> None:
    judgments = judged(table)
    table.create_funnel("docs_search", "64:f32", model="m")
    with pytest.raises(NotCalibrated):
        table.tune(0.9, queries=QUERIES, max_miss=0.1, judgments=judgments)
    assert table.status() == [] and set(table._funnels) == {"docs_search"}
    table.calibrate(judgments)
    with pytest.raises(CalibrationError, match="needs at least"):
        table.tune(0.9, queries=QUERIES, max_miss=0.001, judgments=judgments)
    assert table.status() == []
    report = table.tune(0.9, queries=QUERIES, max_miss=0.1, judgments=judgments)
    assert report.met and report.certificate is not None
    assert report.certificate.funnel == report.funnel and report.certificate.missed <= 0.1
    # The promise is in force for the funnel that was made.
    hits = table.search(QUERIES[0], k=10, cutoff="certified")
    assert len(hits) <= 10 and hits[0].relevance is not None
    assert "Certified" in str(report) and json.dumps(report.as_json())


def test_the_doctor_points_to_a_funnel_that_was_outgrown(table: Any) -> None:
    table.add_resolution("16:f16")
    table.create_funnel("docs_search", "16:f16@400 > 64:f32")
    table.create_funnel("short", "16:f16@12 > 64:f32")
    found = table.doctor(queries=60)
    fine, short = found.funnels
    assert (fine.name, fine.advice) == ("docs_search", ()) and fine.tuned is None
    (said,) = short.advice
    assert said.startswith("keeps 12 rows of 16:f16") and "tune again" in said
    missing = drift.judged(found, replace(fine, coverage={"16:f16": 0.5}))
    assert "50.0% of the rows" in missing.advice[0]
    assert "LOOK funnel short" in str(found) and json.dumps(found.as_json())
    assert table.doctor(queries=60, funnels=False).funnels == ()


@cache
def examined() -> Diagnosis:
    return examine(drawn(300, 1), queries=20)


@pytest.mark.parametrize(
    ("everywhere", "recent", "since", "said"),
    [
        (0.97, 0.96, 100, None),
        (0.97, 0.92, 100, "of rows that came since it was tuned, 10 % of the rows,"),
        (0.91, 0.875, 100, "tuned for 0.9"),  # no less than elsewhere by much, and too little
        (0.85, None, 100, "of the rows it finds 0.8500"),
        (None, None, 400, None),
        (None, None, 600, "60 % of the rows came since"),
    ],
)
def test_what_the_doctor_makes_of_recall_on_new_rows(
    everywhere: float | None, recent: float | None, since: int, said: str | None
) -> None:
    def found(recall: float | None, **more: Any) -> Found:
        if recall is None:
            return Found(**more)
        return Found(recall, recall - 0.02, recall + 0.02, 100, **more)

    fit = Fit(
        "docs_search", "16:f16@900 > 64:f32", Tuned(0.9, 10, 0.95, 0.92, 0.98, 900, "2026"),
        found(everywhere), found(recent, rows=1000, since=since, decided="by id"),
    )  # fmt: skip
    advice = drift.judged(examined(), fit).advice
    assert len(advice) == (said is not None)
    assert said is None or (said in advice[0] and advice[0].endswith("tune again"))


# -- index settings ------------------------------------------------------------------------------


def forecasts(
    recall: float, budget: fv.Budget, *, stored: tuple[Any, ...] = (), prices: Prices | None = None
) -> list[Forecast]:
    """What a run would forecast on an engine with indexes."""
    world = World(
        drawn(ROWS, 1), QUERIES[:20], np.full(20, -1), base=BASE, metric="cosine", k=10,
        axes=Axes(drawn(ROWS, 1), metric="cosine", kept={}),
    )  # fmt: skip
    wanted = Wanted(
        recall, 10, None, None, budget, None, None, "f", None, False, 500, None, True, False, 0
    )
    about = About("docs", "embedding", BASE, "cosine", "id", "postgres")
    ground = Ground.of(about, 100_000, {}, {}, list(stored))
    prices = usual("postgres", DIMS) if prices is None else prices
    steps = forecast(ground, wanted, world, prices, indexed=True)
    kept, beyond = drive(steps, None, say=lambda step: None)
    assert all(affordable(each.sizes, wanted) for each in kept)
    assert not any(affordable(each.sizes, wanted) for each in beyond)
    return [each for each in kept if each.simulated]


def test_the_usual_index_is_taken_where_nothing_binds() -> None:
    found = forecasts(0.9, fv.Budget())
    assert found and all(each.graph is None for each in found)
    smallest = min(each.sizes.memory for each in found)
    assert smallest == 8192 * -(-100_000 // (8160 // (8 + 300)))  # 64 bits, and 16 links a level


def test_an_index_of_fewer_links_where_a_budget_binds() -> None:
    usual_ones = forecasts(0.9, fv.Budget())
    for name in ("memory", "build"):
        least = min(getattr(each.sizes, name) for each in usual_ones)
        found = forecasts(0.9, fv.Budget(**{name: 0.9 * least}))
        assert found and {each.graph for each in found} == {LIGHT}
        assert all(getattr(each.sizes, name) <= 0.9 * least for each in found)
    # An index that stands is not built again for it.
    first = min(usual_ones, key=lambda each: each.sizes.memory).template.first
    there = ResolutionStatus("docs", "embedding", str(first), "c", 9, 9, 1.0, None, "i", 10**9)
    found = forecasts(0.9, fv.Budget(memory=2e7), stored=(there,))
    assert all(each.template.first != first for each in found)


def test_an_index_of_more_links_where_no_list_reaches_the_recall() -> None:
    found = forecasts(0.9992, fv.Budget())
    assert all((each.graph is DENSE) == each.reaches for each in found)
    assert any(each.graph is DENSE for each in found)
    assert all(each.graph is None for each in forecasts(0.9992, fv.Budget(latency=5.0)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"recall": 1.0}, "recall must be"),
        ({"recall": True}, "recall must be"),
        ({"recall": "0.9"}, "recall must be"),
        ({"k": 0}, "k must be"),
        ({"queries": QUERIES[:30]}, "it takes 40"),
        ({"recall": 0.999, "queries": QUERIES}, "it takes 1842"),
        ({"queries": "slow"}, "'log' or 'rows'"),
        ({"queries": QUERIES[:, :5]}, "5"),
        ({"budget": {"time": 5}}, "memory, storage, build, latency"),
        ({"budget": {"memory": -1}}, "above 0"),
        ({"max_miss": 0.1}, "go together"),
        ({"max_miss": 0.1, "judgments": 5}, "Judgments"),
        ({"sample": 10}, "sample must be"),
        ({"on_copy": 10}, "on_copy must be"),
        ({"on_step": 5}, "on_step"),
        ({"dry_run": "no"}, "dry_run"),
    ],
)
def test_bad_input_is_refused_before_anything_is_read(
    table: Any, wrong: dict[str, Any], said: str
) -> None:
    before = state(table)
    with pytest.raises(InvalidInput, match=said):
        table.tune(**{"recall": 0.9, **wrong})
    assert state(table) == before


def test_too_few_rows_are_refused() -> None:
    table = fv.connect("memory:").create("docs", dims=4)
    table.add(range(30), drawn(30, 1, dims=4))
    with pytest.raises(InvalidInput, match="too few to tune"):
        table.tune(0.9)


def test_the_page_and_the_picture(table: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = table.tune(0.9, queries=QUERIES, dry_run=True)
    page = report.write_report(tmp_path / "tuned.html").read_text("utf-8")
    assert "<svg" in page and report.funnel.replace(">", "&gt;") in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    picture = report.write_plot(tmp_path / "tuned.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5_000
    with pytest.raises(InvalidInput, match="png, svg, pdf"):
        report.write_plot(tmp_path / "tuned.doc")


def test_the_command_reads_sizes_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["docs", "--memory", "much"], "no size such as"),
        (["docs", "--report", "/no/such/folder/x.html"], "--report"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["tune", "memory:", *arguments])
        assert said in capsys.readouterr().err
    assert cli.main(["tune", "memory:", "docs", "--plot", "frontier.doc"]) == 1
    assert "png, svg, pdf" in capsys.readouterr().err
    assert cli.main(["tune", "memory:", "docs", "--queries", "/no/file.npy"]) == 1
    assert "no file" in capsys.readouterr().err
