"""What a run of the demo found, as values; `show` prints them, ``--json`` writes them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from funnelvec.bench import BenchReport
from funnelvec.reports import Explanation, RecallReport, ResolutionStatus
from funnelvec.types import Hit


@dataclass(frozen=True, slots=True)
class Found:
    """A hit with the document behind it."""

    hit: Hit
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A question, the hits that reached the threshold, and the nearest rows if none did."""

    question: str
    hits: tuple[Found, ...]
    nearest: tuple[Found, ...] = ()


@dataclass(frozen=True, slots=True)
class Server:
    """The embedded server of this run."""

    directory: str
    psql: str
    url: str
    postgres: str
    pgvector: str
    funnelvec: str


@dataclass(frozen=True, slots=True)
class Fit:
    """The calibration of this run; `cutoff` is the cosine that relevance 0.5 means."""

    slope: float
    offset: float
    cutoff: float
    queries: int
    pairs: int
    relevant: int


@dataclass(frozen=True, slots=True)
class Built:
    """The table of documents, ready to be searched; seconds per step."""

    documents: int
    files: int
    gather_seconds: float
    encode_seconds: float
    load_seconds: float
    resolution_seconds: float
    status: ResolutionStatus
    recall: RecallReport
    fit: Fit


@dataclass(frozen=True, slots=True)
class DemoReport:
    """Everything that one run printed; None or empty where a step was left out."""

    server: Server
    built: Built | None = None
    answers: tuple[Answer, ...] = ()
    unanswerable: tuple[Answer, ...] = ()
    explanation: Explanation | None = None
    comparisons: tuple[BenchReport, ...] = ()
    seconds: float = 0.0

    @property
    def empty_share(self) -> float | None:
        """Share of the unanswerable questions that were answered with nothing."""
        if not self.unanswerable:
            return None
        return sum(not answer.hits for answer in self.unanswerable) / len(self.unanswerable)

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            **asdict(replace(self, comparisons=())),
            "comparisons": [each.as_json() for each in self.comparisons],
            "empty_share": self.empty_share,
        }
