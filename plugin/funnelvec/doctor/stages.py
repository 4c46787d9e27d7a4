"""Which first stage the prefix curve speaks for, and what it says in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from funnelvec.doctor.prefixes import KEEPS, TARGET, Prefixes, Stage
from funnelvec.doctor.rows import K, Prepared
from funnelvec.doctor.values import Finding, Level, share

__all__ = ["Choice", "choose", "describe", "rounded"]

#: A list that costs little to rescore, and the longest that hnsw.ef_search allows at once.
USUAL, LONGEST = 200, 1000
#: Widest codes that HNSW indexes; bits are beyond any column.
_INDEXED = {"f16": 4000}


@dataclass(frozen=True, slots=True)
class Choice:
    """A first stage to try.

    Attributes
    ----------
    funnel
        Its funnel, ending in the column itself.
    resolution, bytes
        The first stage, and bytes of one of its codes.
    keep_sample, keep_table
        Shortlist that holds 99 % of the top 10 in the sample, and what the table would need if
        the list goes on growing as it grew inside the sample.
    smaller, smaller_bytes
        A funnel whose first stage is smaller and needs a longer list, if there is one.
    """

    funnel: str
    resolution: str
    bytes: int
    keep_sample: int
    keep_table: int
    smaller: str | None
    smaller_bytes: int | None


def rounded(keep: float) -> int:
    """Round a shortlist up to two digits that count, and to at least twice what is asked for."""
    keep = max(2.0 * K, keep)
    step = int(10 ** max(0, math.floor(math.log10(keep)) - 1))
    return step * math.ceil(round(keep / step, 6))


def choose(found: Prefixes, rows: Prepared) -> Choice | None:
    """The smallest first stage that holds 99 % of the top 10 with a list of a usual length.

    Where none does, one with a longer list; None where none is short enough for HNSW. At equal
    size the shorter list wins.
    """
    fitting = []
    for stage in found.stages:
        grown = rounded(stage.keep_at(found.rows, rows.population))
        if grown <= LONGEST and stage.width <= _INDEXED.get(stage.code, stage.width):
            fitting.append((stage.bytes, grown, stage))
    if not fitting:
        return None
    size, grown, stage = min(fitting, key=lambda each: (each[1] > USUAL, *each[:2]))
    smaller = min(fitting, key=lambda each: each[:2])
    return Choice(
        funnel=_funnel(stage, grown, rows),
        resolution=stage.resolution,
        bytes=size,
        keep_sample=rounded(stage.keep),
        keep_table=grown,
        smaller=_funnel(smaller[2], smaller[1], rows) if smaller[0] < size else None,
        smaller_bytes=smaller[0] if smaller[0] < size else None,
    )


def _funnel(stage: Stage, keep: int, rows: Prepared) -> str:
    ending = f"{rows.dims}:{rows.base}"
    return ending if stage.resolution == ending else f"{stage.resolution}@{keep} > {ending}"


def describe(found: Prefixes, choice: Choice | None, rows: Prepared) -> Finding:
    """Say whether the first dimensions carry more, and which first stage to try."""
    shown = _shown(found, rows)
    hundred = KEEPS.index(100)
    seen = (
        f"Prefix {shown.width} of {rows.dims} finds {share(shown.recall[0])} of the exact top 10 "
        f"alone and keeps {share(shown.recall[hundred])} in a shortlist of 100."
    )
    if found.gain is not None and shown.control is not None:
        seen += f" {shown.width} dimensions drawn at random find {share(shown.control[0])}. "
        seen += {
            "first": "The first dimensions carry more than others: Matryoshka-trained, or ordered "
            "by PCA.",
            "none": "The first dimensions carry no more than any others: not Matryoshka.",
            "unknown": "",
        }[found.order]
    return Finding(
        topic="prefixes",
        title="Prefix curve",
        level=_level(choice, rows),
        number=shown.recall[hundred],
        unit=f"share of the top 10 that {shown.resolution}@100 keeps",
        interval=shown.intervals[hundred],
        basis=f"{found.queries:,} queries, {found.rows:,} different rows",
        found=seen,
        normal=(
            "Matryoshka-trained ImageNet vectors lost nothing with 16 of 2,048 dimensions and a "
            "shortlist of 200 (Kusupati et al. 2022, mAP@10 65.27 and 65.20). Other models lose "
            "what random dimensions lose."
        ),
        advice=_advice(found, choice, rows),
    )


def _shown(found: Prefixes, rows: Prepared) -> Stage:
    """The float prefix nearest to a quarter of the width stands for the curve."""
    floats = [stage for stage in found.stages if stage.code == "f16"]
    return min(floats, key=lambda stage: (abs(4 * stage.width - rows.dims), stage.width))


def _level(choice: Choice | None, rows: Prepared) -> Level:
    if choice is None:
        return "problem"
    return "fine" if choice.bytes <= rows.dims else "note"


def _advice(found: Prefixes, choice: Choice | None, rows: Prepared) -> str:
    if choice is None:
        best = min(found.stages, key=lambda stage: (stage.keep, stage.bytes))
        return (
            f"No first stage reaches {TARGET:g} with a list of {LONGEST:,}: the best, "
            f"{best.resolution}, needs {rounded(best.keep):,} rows in this sample already. Search "
            "the column itself."
        )
    wide = f"{rows.dims}:{rows.base}"
    full = rows.dims * (4 if rows.base == "f32" else 2)
    if choice.funnel == wide:
        advice = f"Nothing shorter serves: index the column itself, '{wide}'."
    else:
        advice = (
            f"Try '{choice.funnel}': {choice.bytes:,} bytes a row in the first stage instead of "
            f"{full:,}."
        )
    if choice.smaller is not None:
        advice += (
            f" Smaller, with a longer list: '{choice.smaller}' ({choice.smaller_bytes:,} bytes)."
        )
    if found.order == "none":
        whole = [s for s in found.stages if s.code in ("bit", "bit~random")]
        whole = [stage for stage in whole if stage.width == rows.dims]
        signs = min(whole, key=lambda stage: (stage.keep, stage.resolution))
        advice += " Cutting off dimensions costs more than with a Matryoshka model"
        if rounded(signs.keep_at(found.rows, rows.population)) <= LONGEST:
            advice += f": prefer all signs ({signs.resolution}) to a short prefix"
        advice += "."
    advice += f" In this sample {choice.keep_sample:,} rows hold {TARGET:g} of the top 10"
    if rows.is_whole:
        return f"{advice}. measure_recall() then measures the index as well."
    return (
        f"{advice}; a larger table needs more, since more rows come between. Carried on as it "
        f"grew from a quarter of the sample to all of it, that is {choice.keep_table:,} for "
        f"{rows.population:,} rows: an estimate, so measure_recall() after create_funnel()."
    )
