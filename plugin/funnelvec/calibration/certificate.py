"""A certificate: what is promised of a funnel and its cutoff, and by what."""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from funnelvec.calibration.listed import AdapterCalibration
from funnelvec.calibration.stored import StoredCalibration
from funnelvec.errors import CalibrationError, InvalidInput
from funnelvec.types import Promised

__all__ = ["Certificate", "cutoff_at", "relevance_at"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """The promise of a cutoff, over queries and over the whole funnel.

    ``max_miss``: on average over new queries that come from where the judged ones came, a query
    loses at most `level` of its relevant rows among the exact top `k`, to the stages and to the
    cutoff (conformal risk control; Angelopoulos et al., ICLR 2024).

    ``min_precision``: on average over such queries, at least `level` of what is shown is relevant,
    and that holds with `confidence` over the choice of the judged queries (learn then test;
    Angelopoulos et al., 2021). A query that is shown nothing is shown nothing in vain.

    Attributes
    ----------
    kind
        ``max_miss`` (search with ``cutoff="certified"``) or ``min_precision``
        (``cutoff="precise"``).
    level
        The largest expected share that is lost, or the least of what is shown that is relevant.
    confidence
        Of ``min_precision``; None for ``max_miss``, which bounds an expectation.
    k
        How many rows it is about: searches ask for at least as many with ``max_miss``, for just as
        many with ``min_precision``.
    cutoff, relevance
        Rows of this score and better are kept, and what the calibration makes of it. By an adapter
        the score differs by query and is None.
    observed, low, high
        The mean over the judged queries at the cutoff of the share that is lost, or of the share
        of what is shown that is not relevant, and its 95 % bootstrap interval over queries.
    queries
        How many judged queries there were.
    without_relevant
        The share of them without a relevant row: among the exact top `k` (they count as losing
        nothing), or among the `k` rows that the search returns.
    answered
        The share of judged queries that are shown a row; None for ``max_miss``.
    approximate
        Whether the calibration was fitted to the same judgments and the cutoff hangs on it, so
        that the promise holds approximately. A cutoff on the score does not hang on it, but for a
        score that is corrected by a hub column.
    funnel
        The stages it is about. With others, or after another calibration, it is void.
    judgments_sha256
        Where it comes from.
    certified_at
        When, with a time zone.
    """

    kind: Promised
    level: float
    confidence: float | None
    k: int
    cutoff: float | None
    relevance: float | None
    observed: float
    low: float
    high: float
    queries: int
    without_relevant: float
    answered: float | None
    approximate: bool
    funnel: str
    judgments_sha256: str
    certified_at: datetime.datetime

    def __post_init__(self) -> None:
        if (
            self.kind not in get_args(Promised)
            or not 0 < self.level < 1
            or (self.confidence is None) != (self.kind == "max_miss")
            or (self.cutoff is None and self.relevance is None)
            or any(math.isnan(at) for at in (self.cutoff, self.relevance) if at is not None)
            or self.k < 1
            or self.queries < 1
        ):
            raise CalibrationError(
                f"not a certificate: {self.kind!r}, level {self.level!r}, confidence "
                f"{self.confidence!r}, cutoff {self.cutoff!r}, k {self.k!r}, {self.queries!r} "
                "queries"
            )

    @property
    def missed(self) -> float:
        """The share that the judged queries lose: `observed` of ``max_miss``."""
        if self.kind != "max_miss":
            raise AttributeError("a certificate of min_precision says nothing of what is missed")
        return self.observed

    def __str__(self) -> str:
        interval = f"{self.observed:.4f} ({self.low:.4f} to {self.high:.4f})"
        if self.kind == "max_miss":
            promise = (
                f"max_miss {self.level:g}: a query is expected to lose at most {self.level:.1%} of "
                f"its relevant rows among the exact top {self.k}; the judged ones lose {interval}"
            )
        else:
            promise = (
                f"min_precision {self.level:g}, confidence {self.confidence:g}: at least "
                f"{self.level:.1%} of what {self.k} rows show is expected to be relevant; of what "
                f"judged queries are shown, {interval} is not, and {self.answered:.1%} of them "
                "are shown a row"
            )
        cutoff = f"{_at('score', self.cutoff)}, {_at('relevance', self.relevance)}"
        lines = [
            promise,
            f"cutoff: {cutoff}; {self.queries} judged queries, {self.without_relevant:.1%} without "
            f"a relevant row; {self.funnel}; {self.certified_at:%Y-%m-%d %H:%M}",
        ]
        if self.approximate:
            lines.append(
                "approximate: the calibration was fitted to the same judgments; certify with others"
            )
        return "\n".join(lines)

    def check_asked(self, *, k: int, filtered: bool, continued: bool = False) -> None:
        """Refuse a search that the promise is not about.

        Raises
        ------
        InvalidInput
            If it asks for another number of rows, with a filter, or for a later page.
        """
        if k < self.k or (self.kind == "min_precision" and k != self.k):
            raise InvalidInput(
                f"k = {k}, and the certificate is about {self.k} rows; ask for k={self.k}, certify "
                "with another k, or use min_relevance, which promises nothing"
            )
        if filtered:
            raise InvalidInput(
                "the certificate is about searches without a filter; with one use min_relevance, "
                "which promises nothing"
            )
        if continued and self.kind == "min_precision":
            raise InvalidInput("the certificate of min_precision is about the first page")

    def to_json(self) -> str:
        """Write it as one JSON object; floats keep every digit."""
        content = {**asdict(self), "certified_at": self.certified_at.isoformat()}
        return json.dumps({"format": "certificate", "version": 2, **content})

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
            if content.pop("format") != "certificate" or content.pop("version") != 2:
                raise CalibrationError(f"not a certificate of version 2: {text!r:.80}")
            if content.keys() != {field.name for field in fields(cls)}:
                raise CalibrationError(f"a certificate with missing or unknown parts: {text!r:.80}")
            moment = datetime.datetime.fromisoformat(content.pop("certified_at"))
            return cls(**content, certified_at=moment)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CalibrationError(f"a certificate is a JSON object: {error}") from None


def _at(what: str, value: float | None) -> str:
    return f"{what} differs by query" if value is None else f"{what} {value:.6g}"


def relevance_at(calibration: StoredCalibration, cutoff: float) -> float | None:
    """Return what a calibration makes of one cutoff for all queries; None for an adapter."""
    if isinstance(calibration, AdapterCalibration):
        return None
    return float(calibration.apply(None, [cutoff])[0])


def cutoff_at(calibration: StoredCalibration, relevance: float) -> float | None:
    """Return the score that a relevance means for all queries; None for an adapter."""
    if isinstance(calibration, AdapterCalibration):
        return None
    return calibration.cutoff(None, relevance)
