"""How the demo prints a comparison: ratios to the full index that is as good, and honest words."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

pytest.importorskip("rich", reason="the cli extra is not installed")

from rich.console import Console

from funnelvec.bench import BenchReport, Ratio, Standing
from funnelvec.demo import comparison, show


def standing(
    label: str, recall: float, ms: float, *, index: int = 0, build: float = 0.0, name: str = ""
) -> Standing:
    return Standing(
        name=name or label,
        label=label,
        ours=label == "funnel",
        settings="",
        statement="select",
        recall=recall,
        times=({0: ms}, {0: 1.1 * ms}),
        index_bytes=index,
        total_bytes=200_000_000 + index,
        build_seconds=(build,) if build else (),
    )


def make_report() -> BenchReport:
    return BenchReport(
        dataset="generated, 1,536 dimensions",
        note="normal",
        rows=20_000,
        dims=1536,
        queries=100,
        k=10,
        rounds=2,
        server={},
        standings=(
            standing(
                "funnel",
                0.99,
                6.0,
                index=11_400_000,
                build=10.0,
                name="funnel 128:f16@100 > 512:f16@20 > 1536:f32",
            ),
            standing("full HNSW, ef 40", 0.76, 3.0, index=163_800_000, build=40.0),
            standing("full HNSW, ef 1000", 0.99, 1012.0, index=163_800_000, build=40.0),
            standing("exact", 1.0, 11820.0),
        ),
        overheads=(),
        notes=(),
    )


def test_rows_are_divided_by_the_full_index_that_is_as_good() -> None:
    default, matched, ours, exact = comparison.rows(make_report())
    assert matched[2::2] == ("1.00", "1.00", "1.00", "1.00")
    assert ours == ("funnel", "0.990", "1.00", "11.4", "0.07", "10.0", "0.25", "6.30", "0.01")
    assert default[:3] == ("full HNSW, ef 40", "0.760", "0.77")
    assert exact == ("exact", "1.000", "1.01", "none", "", "none", "", "12411.00", "11.7")


def test_a_ratio_that_says_nothing_is_a_question_mark() -> None:
    report = make_report()
    shaky = replace(report.ours, times=({0: 10.0}, {0: 9000.0}))
    report = replace(report, standings=(shaky, *report.standings[1:]))
    assert comparison.rows(report)[2][-1] == "?"
    assert "differ by more than the ratio" in comparison.legend(report)
    assert "unstable" in comparison.verdict(report)
    assert "pays" not in comparison.remark(report)


def test_words_follow_the_figures() -> None:
    def at(value: float, low: float | None = None, high: float | None = None) -> str:
        return comparison.speed(Ratio(value, low or value, high or value, 5))

    assert at(0.5) == "faster"
    assert at(0.9, 0.85, 0.95) == "hardly faster"
    assert at(0.9, 0.85, 1.05).startswith("about as fast")
    assert at(1.4, 1.2, 1.6) == "not faster"
    assert comparison.speed(None).startswith("about as fast")
    report = make_report()
    assert "pays" in comparison.remark(report)
    assert "256 dimensions the whole vector is small" in comparison.remark(
        replace(report, dims=256)
    )
    verdict = comparison.verdict(report)
    assert "14.4 times smaller" in verdict
    assert "of the default list (which finds 0.760)" in verdict


def test_a_full_index_that_never_finds_as_much_is_not_called_as_good() -> None:
    report = make_report()
    assert "shortest list" in comparison.legend(report)
    ours, default, best, exact = report.standings
    report = replace(report, standings=(ours, default, replace(best, recall=0.98), exact))
    assert "finds less than the funnel" in comparison.legend(report)


def test_a_default_that_is_as_good_stands_alone() -> None:
    report = make_report()
    ours, _, matched, exact = report.standings
    report = replace(report, standings=(ours, matched, exact))
    assert [row[0] for row in comparison.rows(report)] == ["full HNSW, ef 1000", "funnel", "exact"]
    assert "default list" not in comparison.verdict(report)
    assert "shortest list" not in comparison.legend(report)


def test_it_fits_into_80_columns() -> None:
    out = io.StringIO()
    show.Screen(Console(file=out, width=80)).comparison(make_report())
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    table = [line.split() for line in lines if "full HNSW, ef" in line][:2]
    assert [line[-2:] for line in table] == [["3.15", "0.00"], ["1062.60", "1.00"]]
