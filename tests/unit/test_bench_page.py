"""The parts of `bench peers` that need no database: knobs, clients, ratios and the page."""

from __future__ import annotations

import html
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from funnelvec.bench import crowd, page
from funnelvec.bench.contestants import Contestant
from funnelvec.bench.data import generate, read_spectrum, rotated
from funnelvec.bench.knobs import Tried, turn
from funnelvec.bench.papers import PapersReport
from funnelvec.bench.peers_report import BasisReport, PeersReport, Reading, rate_ratio
from funnelvec.bench.published import adaptive, diskann
from funnelvec.bench.report import BenchReport, Standing
from funnelvec.bench.stage import Sizes
from funnelvec.bench.tuning_report import Cell, TuneBasis, TuneBench
from funnelvec.errors import InvalidInput, NotFound


def test_the_shortest_list_that_reaches_the_recall_is_found() -> None:
    asked: list[tuple[int, ...]] = []

    def measure(setting: tuple[int, ...]) -> tuple[float, float]:
        asked.append(setting)
        return min(1.0, setting[-1] / 60), float(setting[-1])

    best, trace = turn((("ef", (10, 20, 40, 60, 80, 100)),), measure, k=10, target=0.99)
    assert best == Tried((60,), 1.0, 60.0)
    assert len(asked) == len(set(asked)) <= 4  # halved, and nothing twice
    assert {each.setting for each in trace} == set(asked)
    # Two knobs: the second is never longer than the first, and the faster pair wins.
    knobs = (("first", (20, 40, 80)), ("second", (10, 20, 40, 80)))
    best, _ = turn(
        knobs, lambda s: (1.0 if s[0] >= 40 and s[1] >= 20 else 0.5, s[0] + s[1]), k=10, target=0.9
    )
    assert best.setting == (40, 20)
    # Out of reach: the dearest setting stands for it.
    best, _ = turn((("ef", (10, 20)),), lambda s: (0.3, 1.0), k=10, target=0.9)
    assert best.setting == (20,)
    # Nothing to turn.
    best, trace = turn((), lambda s: (1.0, 7.0), k=10, target=0.9)
    assert best == Tried((), 1.0, 7.0) and trace == (best,)
    # No list is as long as k.
    best, _ = turn((("ef", (10, 20)),), lambda s: (0.3, 1.0), k=50, target=0.9)
    assert best.setting == (20,)


class Client:
    """A contestant that notes what it was asked, and can wait for the others."""

    def __init__(self, barrier: threading.Barrier | None = None, *, every: int = 1) -> None:
        self.contestant = Contestant("c", "c", "t", "s", every=every)
        self.asked: list[Any] = []
        self.barrier = barrier

    def search(self, query: Any) -> list[tuple[Any, ...]]:
        if self.barrier is not None and not self.asked:
            self.barrier.wait(10)  # passes only if all clients ask at once
        self.asked.append(query)
        return []

    def sizes(self, schema: str) -> Sizes:
        return Sizes(0, 0)


def test_clients_ask_at_once_and_each_asks_everything() -> None:
    together = threading.Barrier(3)
    clients = [Client(together) for _ in range(3)]
    count, seconds = crowd.ask_together(clients, list(range(9)))
    assert count == 27 and seconds > 0
    assert [sorted(each.asked) for each in clients] == [list(range(9))] * 3
    assert [each.asked[0] for each in clients] == [0, 3, 6]
    assert crowd.ask_together([Client(every=4)], list(range(9)))[0] == 3

    class Failing(Client):
        def search(self, query: Any) -> list[tuple[Any, ...]]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crowd.ask_together([Client(), Failing()], [1, 2])
    found = crowd.take_turns_together([clients[:1], [Client()]], [1], rounds=2)
    assert [len(rates) for rates in found.rates] == [2, 2]
    with pytest.raises(InvalidInput, match="65"):
        crowd.check_clients(65)


def test_published_recipes_say_what_they_run() -> None:
    found = adaptive("s", dims=1536, home="public").at((80,))
    assert (
        "sub_vector(embedding, 512)::vector(512)" in found.statement
        and "limit 80" in found.statement
    )
    assert ("hnsw.ef_search", "200") in found.settings
    assert ("hnsw.ef_search", "400") in adaptive("s", dims=1536, home="public").at((400,)).settings
    assert "m = 32, ef_construction = 400" in found.build[1]
    scale = diskann("s").at((50, 100))
    assert ("diskann.query_rescore", "50") in scale.settings
    assert ("diskann.query_search_list_size", "100") in scale.settings


def test_a_spectrum_comes_from_a_file_or_a_power(tmp_path: Path) -> None:
    values = np.array([1.0, 4.0, 2.0, 0.5], dtype=np.float32)
    np.save(tmp_path / "eigen.npy", values)
    dataset = generate(6000, 2, spectrum_of=str(tmp_path / "eigen.npy"))
    assert dataset.dims == 4 and "eigenvalues of eigen.npy" in dataset.note
    # Strongest first. Unit length bends the shares of four dimensions, but not their order.
    shares = dataset.rows.var(axis=0)
    assert (np.diff(shares) < 0).all()
    assert generate(10, 2, dims=2, spectrum_of=str(tmp_path / "eigen.npy")).dims == 2
    steep, said = read_spectrum("power:2", dims=3)
    assert (
        steep.tolist() == pytest.approx([36 / 49, 9 / 49, 4 / 49]) and said == "variance(i) ~ i^-2"
    )
    assert len(read_spectrum("power")[0]) == 1536
    for text, error in (
        ("power:x", InvalidInput), ("power:-1", InvalidInput), ("nowhere.npy", NotFound),
        (str(tmp_path / "eigen.npy"), InvalidInput),
    ):  # fmt: skip
        with pytest.raises(error):
            read_spectrum(text, dims=9)
    for wrong in (np.ones((2, 2)), np.array([1.0, -1.0]), np.zeros(3), np.array([np.nan])):
        np.save(tmp_path / "wrong.npy", wrong)
        with pytest.raises(InvalidInput):
            read_spectrum(str(tmp_path / "wrong.npy"))


def test_a_rotation_keeps_cosines_and_spreads_what_a_prefix_knew() -> None:
    dataset = generate(400, 5, dims=64)
    turned = rotated(dataset)
    np.testing.assert_allclose(
        turned.queries @ turned.rows.T, dataset.queries @ dataset.rows.T, atol=1e-5
    )
    assert (turned.rows[:, :8] ** 2).sum() < 0.5 * (dataset.rows[:, :8] ** 2).sum()
    assert "random rotation" in turned.note


def standing(name: str, ms: list[float], **changes: Any) -> Standing:
    given: dict[str, Any] = {
        "name": name, "label": name, "ours": False, "settings": "", "statement": "select 1",
        "recall": 0.99, "times": tuple({0: each, 20: each} for each in ms), "index_bytes": 5_000_000,
        "total_bytes": 9_000_000, "build_seconds": (2.0, 3.0), "family": name, "together": (90.0, 110.0),
        "recalls": (0.98, 1.0), "pages": 200.0, "load_seconds": 0.5, "rows": 1000,
    }  # fmt: skip
    return Standing(**{**given, **changes})


def report() -> PeersReport:
    mine = standing("funnel", [1.0, 1.0], ours=True, index_bytes=1_000_000, pages=50.0)
    rest = [
        standing("HNSW <b>", [2.0, 4.0]),
        standing("exact", [10.0, 50.0], index_bytes=0, build_seconds=(), pages=None),
    ]
    traces = tuple(
        (each.name, each.family, (Tried((10,), 0.8, 0.5), Tried((40,), 0.99, 1.5)))
        for each in (mine, *rest)
    )
    basis = BasisReport(
        "own", (mine, *rest), None, (("funnel", "keep 40", 0.99, 1.5),), traces=traces,
        bounds=(standing("library", [0.2, 0.2]),), reading=Reading("16:f16", 32_000, (1e9, 1e9)),
    )  # fmt: skip
    traces += (("library", "library", (Tried((10,), 1.0, 0.2),)),)
    return PeersReport(
        "d", "n", 1000, 32, 2, 10, 0.99, 1, 2, 4, None, (basis.__class__(**{
            **{name: getattr(basis, name) for name in basis.__slots__}, "traces": traces}),), ("a note",),
    )  # fmt: skip


def test_ratios_stand_only_where_they_are_steadier_than_wide() -> None:
    found = report()
    mine, full, exact = found.bases[0].standings
    faster = rate_ratio(mine, full)
    assert faster is not None and (faster.value, faster.low, faster.high) == (3.0, 2.0, 4.0)
    figures, ratios, bounds, _ = found.bases[0].sections(k=10, target=0.99, clients=4)
    assert figures.head[6] == "4 clients" and figures.rows[0][1] == "0.9900 (0.9800 to 1.0000)"
    assert ratios.rows[0][1] == "3.0 (2.0 to 4.0)" and ratios.rows[0][4] == "5.0"
    assert ratios.rows[1][1].startswith("unstable") and ratios.rows[1][4] == "-"
    # 32 kB at 1 GB/s are 0.032 ms, of which ours takes 31.
    assert bounds.rows[1][2:] == ("0.03", "-", "-", "31.2 (31.2 to 31.2)")
    assert figures.rows[2][-1] == "2,000" and exact.pages is None


def test_the_page_holds_every_table_and_plot_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = report()
    (path,) = page.write_report(found, str(tmp_path / "out.html"), title="bench")
    text = path.read_text()
    assert text.count("<svg") == 2 and "<b>" not in text
    assert not re.search(r'(src|href)="(?!#)', text) and "http" not in re.sub(
        r"http://www.w3.org\S*", "", text
    )
    for section in found.sections():
        assert html.escape(section.title) in text
    assert "a note" in text
    written = page.write_report(found, str(tmp_path / "out.png"), title="bench")
    assert [each.name for each in written] == ["out-recall-own.png", "out-bars-own.png"]
    assert all(each.read_bytes().startswith(b"\x89PNG") for each in written)
    # The plain comparison has bars only, and papers have tables only.
    side = BenchReport(
        dataset="d", note="n", rows=9, dims=4, queries=2, k=3, rounds=2, server={},
        standings=found.bases[0].standings, overheads=(), notes=(),
    )  # fmt: skip
    (written_page,) = page.write_report(side, str(tmp_path / "side.html"), title="bench")
    assert written_page.read_text().count("<svg") == 1
    # The tuner among what it could have chosen.
    cells = tuple(Cell(f"8:f16@{keep} > 16:f32", keep / 100, keep / 10) for keep in (50, 90, 99))
    tuned = TuneBasis(
        "own", cells[1].funnel, 0.9, 0.8, 1.0, 90, True, cells[1], cells[2], None, cells[2], None,
        0.9, 40, 3, 1.0, 20.0, 9.0, 3, None, cells,
    )  # fmt: skip
    tuning = TuneBench("set", 9, 16, 90, 10, 0.9, 5, (tuned,), 21.0)
    (written_page,) = page.write_report(tuning, str(tmp_path / "tune.html"), title="bench")
    text = written_page.read_text()
    assert text.count("<svg") == 1 and "8:f16@90" in text and "beside 3 settings" in text
    papers = PapersReport((), ("nothing there",), 0.0)
    (written_page,) = page.write_report(papers, str(tmp_path / "papers.html"), title="bench")
    assert "nothing there" in written_page.read_text()
    with pytest.raises(InvalidInput, match="no plots"):
        page.write_report(papers, str(tmp_path / "papers.png"), title="bench")
    for wrong in ("out.pdf", str(tmp_path / "none" / "out.html")):
        with pytest.raises(InvalidInput):
            page.check_path(wrong)
