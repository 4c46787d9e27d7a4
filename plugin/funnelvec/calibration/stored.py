"""What every fitted calibration has: where it belongs and comes from, and its text."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from funnelvec.errors import CalibrationError, InvalidInput
from funnelvec.types import Judgments, Metric

__all__ = ["StoredCalibration", "log_odds", "provenance_of"]

_Kind = TypeVar("_Kind", bound="StoredCalibration")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCalibration:
    """The base of the families.

    Attributes
    ----------
    model, vector, metric, last_stage
        What the fit belongs to: the name of the embedding model (None if not said), the vector
        column, and the resolution that gives the score.
    judgments_sha256, n_pairs, n_relevant, n_queries
        Where it comes from. Provenance only, never compared with the live table.
    version
        Of this format.
    hub, alpha
        The hub column that the score is corrected by, and how strongly: scores are those of the
        database less ``alpha`` times the hub of the row. None and 0 where there is no correction.
    """

    kind: ClassVar[str] = ""

    model: str | None
    vector: str
    metric: Metric
    last_stage: str
    judgments_sha256: str
    n_pairs: int
    n_relevant: int
    n_queries: int
    version: int = 1
    hub: str | None = None
    alpha: float = 0.0

    @property
    def provenance(self) -> dict[str, Any]:
        """What the families have in common, to make one from another."""
        return {field.name: getattr(self, field.name) for field in fields(StoredCalibration)}

    @property
    def parameters(self) -> dict[str, Any]:
        """The fitted numbers alone, as the database keeps them."""
        common = self.provenance
        parts = asdict(self).items()
        own = {name: value for name, value in parts if name not in common and value is not None}
        return own if self.hub is None else {**own, "hub": self.hub, "alpha": self.alpha}

    def apply(
        self, query: npt.NDArray[np.float32] | None, scores: npt.ArrayLike
    ) -> npt.NDArray[np.float64]:
        """Return the relevance of each score, same shape."""
        raise NotImplementedError

    def cutoff(self, query: npt.NDArray[np.float32] | None, relevance: float) -> float:
        """Return the score from which on the relevance is at least this."""
        raise NotImplementedError

    def at(
        self, query: npt.NDArray[np.float32] | None, shortlist: npt.ArrayLike
    ) -> StoredCalibration:
        """Return the map of one query, given the scores that reached the last stage.

        A map that is the same for every query is itself.
        """
        return self

    def serves(self, keep: int | None) -> bool:
        """Whether a funnel whose last shortlist has `keep` rows (None: no shortlist) can use it.

        A correction puts rows into another order, for which there has to be a shortlist.
        """
        return self.hub is None or keep is not None

    def to_json(self) -> str:
        """Write the fit as one JSON object; floats keep every digit."""
        return json.dumps({"kind": self.kind, **asdict(self)})

    @classmethod
    def from_json(cls: type[_Kind], text: str) -> _Kind:
        """Read what `to_json` wrote.

        Raises
        ------
        CalibrationError
            If the text is not such an object, or of another kind or version.
        """
        try:
            content: Any = json.loads(text)
        except ValueError as error:
            raise CalibrationError(f"a calibration is a JSON object: {error}") from None
        if not isinstance(content, dict) or content.pop("kind", None) != cls.kind:
            raise CalibrationError(f"not a calibration of kind {cls.kind!r}: {text!r:.80}")
        if content.get("version") != 1:
            raise CalibrationError(
                f"this version of funnelvec reads calibrations of version 1, not "
                f"{content.get('version')!r}; upgrade funnelvec"
            )
        # What has a default need not be said, and was not before there was such a thing.
        unsaid = {part.name: part.default for part in fields(cls) if part.default is not MISSING}
        content = {**unsaid, **content}
        wanted = {field.name for field in fields(cls)}
        if content.keys() != wanted:
            odd = ", ".join(sorted(content.keys() ^ wanted))
            raise CalibrationError(f"a calibration with missing or unknown parts: {odd}")
        return cls.of(content)

    @classmethod
    def of(cls: type[_Kind], content: dict[str, Any]) -> _Kind:
        """Make one of its parts as JSON has them: lists become tuples.

        Raises
        ------
        CalibrationError
            If a part is of the wrong type.
        """
        parts = {name: cls._part(name, value) for name, value in content.items()}
        try:
            return cls(**parts)
        except TypeError as error:
            raise CalibrationError(f"a calibration with parts of the wrong type: {error}") from None

    @classmethod
    def _part(cls, name: str, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


def provenance_of(
    judgments: Judgments, *, model: str | None, vector: str, metric: Metric, last_stage: str
) -> dict[str, Any]:
    """Return what a fit to `judgments` says of itself."""
    return {
        "model": model,
        "vector": vector,
        "metric": metric,
        "last_stage": last_stage,
        "judgments_sha256": judgments.sha256,
        "n_pairs": len(judgments),
        "n_relevant": int(judgments.labels.sum()),
        "n_queries": judgments.distinct_queries,
    }


def log_odds(relevance: float) -> float:
    """Return the log-odds of a probability; infinite at 0 and below, and from 1.

    Raises
    ------
    InvalidInput
        If it is not a number.
    """
    if math.isnan(relevance):
        raise InvalidInput("relevance must be a number, not nan")
    if relevance <= 0:
        return -math.inf
    if relevance >= 1:
        return math.inf
    return math.log(relevance / (1.0 - relevance))
