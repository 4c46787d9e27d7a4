"""Sign codes: does every bit split the rows in half?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from funnelvec.doctor.prefixes import KEEPS, Prefixes, widths
from funnelvec.doctor.rows import Prepared
from funnelvec.doctor.values import Finding, Histogram, Range, counted, digits, share

__all__ = ["Bits", "balances", "describe", "measure"]


@dataclass(frozen=True, slots=True)
class Bits:
    """Balance of the bits of the rows' signs.

    Attributes
    ----------
    balance, balance_interval
        Mean over all bits of ``2 * min(p, 1 - p)``, p the share of ones, as `status` reports it,
        and what it would be in 95 % of samples.
    constant, lopsided
        How many bits are the same in every row, and the same in nine rows of ten.
    by_width
        The balance of each prefix: (width, balance).
    histogram
        Of the balance of single bits.
    """

    balance: float
    balance_interval: Range
    constant: int
    lopsided: int
    by_width: tuple[tuple[int, float], ...]
    histogram: Histogram


def measure(rows: Prepared) -> Bits:
    """Measure the balance of every bit over the different rows."""
    each, errors = balances(rows)
    mean = float(each.mean())
    # Bits of one row depend on one another, so their errors are added, not averaged away.
    error = 1.96 * float(errors.mean())
    return Bits(
        balance=mean,
        balance_interval=(max(0.0, mean - error), min(1.0, mean + error)),
        constant=int((each == 0).sum()),
        lopsided=int((each < 0.2).sum()),
        by_width=tuple((width, float(each[:width].mean())) for width in widths(rows.dims)),
        histogram=Histogram.of(each, bins=40),
    )


def balances(rows: Prepared) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(d,) balance of each bit, and its standard error."""
    n = len(rows.order)
    ones = np.zeros(rows.dims, np.int64)
    for start in range(0, n, 2048):
        ones += np.count_nonzero(rows.given[rows.order[start : start + 2048]] > 0, axis=0)
    p = ones / n
    return 2 * np.minimum(p, 1 - p), 2 * np.sqrt(p * (1 - p) / n)


def describe(found: Bits, prefixes: Prefixes | None, rows: Prepared) -> Finding:
    """Say whether signs can serve as a first stage."""
    seen = f"On average a bit is {digits(found.balance)} of perfectly balanced"
    seen += f"; {found.lopsided} of {rows.dims} are the same in nine rows of ten"
    seen += f", {found.constant} in every row." if found.constant else "."
    poor, advice = found.balance < 0.6, "Measure a first stage of signs before you rely on it."
    if prefixes is not None:
        full = next(s for s in prefixes.stages if s.code == "bit" and s.width == rows.dims)
        kept = full.recall[KEEPS.index(100)]
        seen += f" {full.resolution}@100 keeps {share(kept)} of the top 10 in this sample."
        poor = kept < 0.9
        turned = next(s for s in prefixes.stages if s.code == "bit~random")
        better = turned.recall[KEEPS.index(100)]
        seen += f" After a random rotation: {share(better)}."
        if poor and better >= 0.9:
            advice = (
                f"Rotate before the signs are taken: {turned.resolution} takes as many bytes "
                f"({turned.bytes:,} a row). How many rows to keep is in the prefix curve."
            )
        elif poor:
            advice = (
                "Signs lose too much for a first stage here, and a list that makes up for it has "
                f"{min(full.keep, turned.keep):,} rows in this sample already: use floats; the "
                "prefix curve says which."
            )
        else:
            advice = (
                f"Signs work: {full.resolution} takes {full.bytes:,} bytes a row. How many rows to "
                "keep is in the prefix curve."
            )
    return Finding(
        topic="bits",
        title="Balance of the signs",
        level="problem" if poor and found.balance < 0.3 else "note" if poor else "fine",
        number=found.balance,
        unit="mean of 2 min(p, 1 - p) over all bits",
        interval=found.balance_interval,
        basis=counted(len(rows.order), "different row"),
        found=seen,
        normal=(
            "1 if each bit splits the rows in half; a constant bit says nothing. Balance is not "
            "enough: with fourfold rescoring signs kept 96 % for one model and 75 % for another "
            "(huggingface.co/blog/embedding-quantization)."
        ),
        advice=advice,
    )
