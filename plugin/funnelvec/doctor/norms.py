"""Lengths of vectors: are they unit vectors, and how much do they differ?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from funnelvec.doctor.rows import Prepared
from funnelvec.doctor.values import Finding, Histogram, Range, counted, digits, share

__all__ = ["Norms", "describe", "measure"]

#: A length this close to 1 is 1 after rounding to 16-bit floats.
_UNIT = 2e-3
_UNEVEN = 0.05


@dataclass(frozen=True, slots=True)
class Norms:
    """Lengths of the rows of a sample.

    Attributes
    ----------
    mean, sd, variation
        Mean, standard deviation, and their quotient (0 where the mean is 0).
    variation_interval
        95 % interval of the quotient, from its large-sample variance.
    smallest, largest, quantiles
        Extremes, and the lengths at 1, 25, 50, 75 and 99 percent.
    zero, unit
        Share of rows of length 0, and of length 1 as far as 16-bit floats tell.
    """

    mean: float
    sd: float
    variation: float
    variation_interval: Range
    smallest: float
    largest: float
    quantiles: tuple[float, ...]
    zero: float
    unit: float
    histogram: Histogram


def measure(rows: Prepared) -> Norms:
    """Measure the lengths of all rows of the sample, copies included."""
    norms, n = rows.norms, len(rows)
    mean, sd = float(norms.mean()), float(norms.std(ddof=1))
    variation = sd / mean if mean else 0.0
    # Delta method, with the sample's own third and fourth moments: lengths are not normal.
    error = 0.0
    if mean and sd:
        z = (norms - mean) / sd
        skew, kurtosis = float((z**3).mean()), float((z**4).mean())
        spread = variation**2 - variation * skew + (kurtosis - 1) / 4
        error = variation * float(np.sqrt(max(0.0, spread) / n))
    return Norms(
        mean=mean,
        sd=sd,
        variation=variation,
        variation_interval=(max(0.0, variation - 1.96 * error), variation + 1.96 * error),
        smallest=float(norms.min()),
        largest=float(norms.max()),
        quantiles=tuple(map(float, np.percentile(norms, (1, 25, 50, 75, 99)))),
        zero=float((norms == 0).mean()),
        unit=float((np.abs(norms - 1) < _UNIT).mean()),
        histogram=Histogram.of(norms),
    )


def describe(found: Norms, rows: Prepared) -> Finding:
    """Say whether lengths carry something that the metric uses or loses."""
    uneven = found.variation > _UNEVEN
    if found.unit == 1:
        seen = "All vectors have length 1."
    else:
        seen = (
            f"Lengths go from {digits(found.smallest)} to {digits(found.largest)} around "
            f"{digits(found.mean)}; they differ by {share(found.variation)} of the mean."
        )
    if found.zero:
        seen += f" {share(found.zero)} of the rows are zero vectors."
    return Finding(
        topic="norms",
        title="Lengths of the vectors",
        level="problem" if found.zero and rows.metric == "cosine" else "note" if uneven else "fine",
        number=found.variation,
        unit="standard deviation / mean of the lengths",
        interval=found.variation_interval,
        basis=counted(len(rows), "row"),
        found=seen,
        normal=(
            "Most text models return unit vectors (0). Above 0.05 the length says something, and "
            "a model trained on inner products means it to (Steck et al. 2024)."
        ),
        advice=_advice(found, rows, uneven=uneven),
    )


def _advice(found: Norms, rows: Prepared, *, uneven: bool) -> str:
    advice = []
    if found.zero and rows.metric == "cosine":
        advice.append(
            "Zero vectors have no cosine and no search finds them: embed those rows again, or set "
            "them to null."
        )
    if found.unit == 1:
        advice.append("Nothing to do: cosine, dot and euclidean rank unit vectors alike.")
    elif not uneven:
        advice.append("Nothing to do: lengths hardly change any order.")
    elif rows.metric == "cosine":
        advice.append(
            "Cosine throws the lengths away. Keep it only if the model was trained with cosine or "
            "normalised vectors; see the finding on the order."
        )
    else:
        advice.append(
            f"The metric {rows.metric} uses the lengths. Keep it if the model was trained with it, "
            "and do not normalise at loading."
        )
    return " ".join(advice)
