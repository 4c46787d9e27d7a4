"""A certificate: what is promised of a funnel and its cutoff, and by what."""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from funnelvec.calibration.listed import AdapterCalibration
from funnelvec.calibration.stored import StoredCalibration
from funnelvec.errors import CalibrationError, InvalidInput

__all__ = ["Certificate", "relevance_at"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """The promise of a cutoff: a query loses at most `level` of its relevant rows, on average.

    Relevant rows are the judged ones among the exact top `k`; all stages of the funnel and the
    cutoff lose together. Conformal risk control (Angelopoulos et al., ICLR 2024).

    Attributes
    ----------
    level
        The largest expected share, over new queries that come from where the judged ones came.
    k
        How many rows of the exact answer it is about; searches ask for at least as many.
    cutoff
        Rows of this score and better are kept.
    relevance
        What the calibration makes of the cutoff; None where that differs by query.
    missed, low, high
        The share that the judged queries lose at the cutoff, and its 95 % bootstrap interval over
        queries.
    queries
        How many judged queries there were.
    without_relevant
        The share of them that have no relevant row among the exact top `k`; they count as losing
        nothing.
    funnel
        The stages it is about. With others, or after another calibration, it is void.
    judgments_sha256
        Where it comes from.
    certified_at
        When, with a time zone.
    """

    level: float
    k: int
    cutoff: float
    relevance: float | None
    missed: float
    low: float
    high: float
    queries: int
    without_relevant: float
    funnel: str
    judgments_sha256: str
    certified_at: datetime.datetime

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or math.isnan(self.cutoff) or self.k < 1 or self.queries < 1:
            raise CalibrationError(
                f"not a certificate: level {self.level!r}, cutoff {self.cutoff!r}, k {self.k!r}, "
                f"{self.queries!r} queries"
            )

    def check_asked(self, *, k: int, filtered: bool) -> None:
        """Refuse a search that the promise is not about.

        Raises
        ------
        InvalidInput
            If it asks for fewer than `k` rows, or with a filter.
        """
        if k < self.k:
            raise InvalidInput(
                f"k = {k}, and the certificate is about {self.k} rows; ask for k={self.k}, certify "
                "with another k, or use min_relevance, which promises nothing"
            )
        if filtered:
            raise InvalidInput(
                "the certificate is about searches without a filter; with one use min_relevance, "
                "which promises nothing"
            )

    def to_json(self) -> str:
        """Write it as one JSON object; floats keep every digit."""
        content = {**asdict(self), "certified_at": self.certified_at.isoformat()}
        return json.dumps({"kind": "certificate", "version": 1, **content})

    @classmethod
    def from_json(cls, text: str) -> Certificate:
        """Read what `to_json` wrote.

        Raises
        ------
        CalibrationError
            If the text is not such an object.
        """
        try:
            content: Any = json.loads(text)
            if content.pop("kind") != "certificate" or content.pop("version") != 1:
                raise CalibrationError(f"not a certificate of version 1: {text!r:.80}")
            if content.keys() != {field.name for field in fields(cls)}:
                raise CalibrationError(f"a certificate with missing or unknown parts: {text!r:.80}")
            moment = datetime.datetime.fromisoformat(content.pop("certified_at"))
            return cls(**content, certified_at=moment)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CalibrationError(f"a certificate is a JSON object: {error}") from None


def relevance_at(calibration: StoredCalibration, cutoff: float) -> float | None:
    """Return what a calibration makes of one cutoff for all queries; None for an adapter."""
    if isinstance(calibration, AdapterCalibration):
        return None
    return float(calibration.apply(None, [cutoff])[0])
