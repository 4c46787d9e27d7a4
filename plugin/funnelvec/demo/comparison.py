"""The bench's report of one case, as a table for 80 columns and what it comes to in words."""

from __future__ import annotations

from statistics import median

from funnelvec.bench import BenchReport, Ratio, Standing

# A search in this share of the time, or less, is called faster and not just hardly so.
_FASTER = 0.8


def head(report: BenchReport) -> tuple[str, ...]:
    """The headers of the table."""
    return ("", f"recall@{report.k}", "x", "index MB", "x", "build s", "x", "median ms", "x")


def rows(report: BenchReport) -> list[tuple[str, ...]]:
    """A row for full HNSW at its default, full HNSW as good as ours, the funnel, exact search."""
    return [_row(each, report.full[-1]) for each in (*report.full, report.ours, report.exact)]


def _row(one: Standing, base: Standing) -> tuple[str, ...]:
    ratios = one.over(base)
    built = bool(one.build_seconds)
    return (
        one.label,
        f"{one.recall:.3f}",
        f"{one.recall / base.recall:.2f}" if base.recall else "",
        f"{one.index_bytes / 1e6:.1f}" if one.index_bytes else "none",
        _shown(ratios.index) if one.index_bytes else "",
        f"{median(one.build_seconds):.1f}" if built else "none",
        _shown(ratios.build) if built else "",
        f"{median(one.milliseconds):.2f}",
        _shown(ratios.latency),
    )


def _shown(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    if not ratio.stable:
        return "?"
    return f"{ratio.value:.2f}" if ratio.value < 10 else f"{ratio.value:.1f}"


def legend(report: BenchReport) -> str:
    """How the table is to be read."""
    *others, base = report.full
    if base.recall < report.ours.recall:
        why = ", its longest list, though it finds less than the funnel"
    else:
        why = ", the shortest list that finds as much as the funnel" if others else ""
    unstable = any(_shown(each.over(base).latency) == "?" for each in report.standings)
    return (
        f"x: divided by {base.label}{why}. ef: hnsw.ef_search. Funnel: "
        f"{report.ours.name.removeprefix('funnel ')}; its build stores the codes too. "
        f"{report.queries} queries in turns, {report.rounds} rounds."
        + (" ?: the rounds differ by more than the ratio itself." if unstable else "")
    )


def verdict(report: BenchReport) -> str:
    """What was measured, in words: only what the ratios of this run say."""
    base = report.full[-1]
    ratios = report.ours.over(base)
    assert ratios.index is not None and ratios.total is not None  # both have an index
    others = [(report.exact, "exact search")]
    if len(report.full) > 1:
        default = report.full[0]
        others.insert(0, (default, f"the default list (which finds {default.recall:.3f})"))
    times = " and ".join(
        f"{_text(report.ours.over(other).latency)} of that of {name}" for other, name in others
    )
    return (
        f"The funnel's index is {1 / ratios.index.value:.1f} times smaller, table and indexes "
        f"together {ratios.total.value:.2f} of the size. A search takes "
        f"{_text(ratios.latency)} of the time of {base.label}; {times}."
    )


def _text(ratio: Ratio | None) -> str:
    return "-" if ratio is None else ratio.text()


def remark(report: BenchReport) -> str:
    """What vectors of this width have to do with it."""
    found = speed(report.ours.over(report.full[-1]).latency)
    if report.dims <= 512:
        return (
            f"At {report.dims} dimensions the whole vector is small already: the funnel saves "
            f"index, and its searches are {found}."
        )
    if found == "faster":
        return (
            f"At {report.dims:,} dimensions a funnel pays: the walk reads codes of a few "
            "dimensions, and only the shortlist is read in full."
        )
    return f"In this run the funnel's searches are {found}; what it saves here is index and build."


def speed(ratio: Ratio | None) -> str:
    """A ratio of times in words; a claim needs all rounds on its side."""
    if ratio is None or not ratio.stable or ratio.low < 1 < ratio.high:
        return "about as fast, as far as these rounds can tell"
    if ratio.value > 1:
        return "not faster"
    return "faster" if ratio.value <= _FASTER else "hardly faster"
