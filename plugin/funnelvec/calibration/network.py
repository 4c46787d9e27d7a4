"""The Cosine Adapter in the form of its paper: a network maps the query to its own curve.

J. Lin et al., "Relevance Filtering for Embedding-based Retrieval" (CIKM 2024). The network is an
ONNX model and onnxruntime runs it, in the client; the database gets the cutoff as a number.
`train_network` makes one; any other model with the same input and output will do.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from funnelvec.calibration.logistic import Floats, sigmoid
from funnelvec.errors import CalibrationError, InvalidInput, MissingDependency
from funnelvec.types import Metric

__all__ = ["FAMILIES", "Curve", "Family", "NetworkAdapter"]

#: How the score enters: as it is, or the part of it above 0 to the power 1/2, 2, or of the query.
Family: TypeAlias = Literal["linear", "sqrt", "quadratic", "power"]
FAMILIES: tuple[Family, ...] = get_args(Family)

_POWERS = {"sqrt": 0.5, "quadratic": 2.0}


class Curve(NamedTuple):
    """Log-odds of relevance for one query: ``slope * g(score) + offset``.

    g is the score itself where `power` is None, else ``max(score, 0) ** power``.
    """

    slope: float
    offset: float
    power: float | None


@dataclass(frozen=True, slots=True)
class NetworkAdapter:
    """Relevance by a curve per query, which a network gives.

    Attributes
    ----------
    onnx
        The model: input ``query`` float32 (n, dims), output ``curve`` float32 (n, 2): slope,
        positive, and offset; for the family ``power`` (n, 3) with the power, positive.
    family
        How the score enters; all but ``linear`` take scores below 0 for 0.
    dims
        Width of the query.
    model, vector, metric, last_stage
        What it belongs to; see `PlattCalibration`.
    judgments_sha256, n_pairs, n_relevant, n_queries
        Where it comes from.
    version
        Of this format.

    Raises
    ------
    CalibrationError
        If a value is out of range.
    """

    kind: ClassVar[str] = "network"

    onnx: bytes
    family: Family
    dims: int
    model: str | None = None
    vector: str = ""
    metric: Metric = "cosine"
    last_stage: str = ""
    judgments_sha256: str = ""
    n_pairs: int = 0
    n_relevant: int = 0
    n_queries: int = 0
    version: int = 1

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise CalibrationError(
                f"there is no family {self.family!r}; choose from {', '.join(FAMILIES)}"
            )
        model: Any = self.onnx
        if not isinstance(model, bytes) or not model or self.dims < 1:
            raise CalibrationError(
                f"a network adapter has an ONNX model and a width of at least 1, not {self.dims!r}"
            )
        if self.metric == "euclidean" and self.family != "linear":
            raise CalibrationError(
                f"scores under euclidean are never above 0, so the family {self.family!r} would "
                "see nothing of them; use linear"
            )

    def curves(self, queries: npt.ArrayLike) -> list[Curve]:
        """Return the curve of each of (n, dims) queries.

        Raises
        ------
        CalibrationError
            If the model gives another shape, or a slope that is not positive: relevance has to
            rise with the score.
        MissingDependency
            If onnxruntime is not installed.
        """
        matrix = np.ascontiguousarray(queries, dtype=np.float32)
        if matrix.ndim != 2 or matrix.shape[1] != self.dims:
            raise InvalidInput(f"queries have the shape (n, {self.dims}), not {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise InvalidInput("a query holds a number that is not finite")
        found = np.asarray(_run(self.onnx, matrix), dtype=np.float64)
        width = 3 if self.family == "power" else 2
        if found.shape != (len(matrix), width):
            raise CalibrationError(
                f"the model gives {found.shape} for {len(matrix)} queries; the family "
                f"{self.family!r} takes (n, {width})"
            )
        positive = found[:, [0]] if width == 2 else found[:, [0, 2]]
        if not np.isfinite(found).all() or not (positive > 0).all():
            odd = found[~(np.isfinite(found).all(axis=1) & (positive > 0).all(axis=1))][0]
            raise CalibrationError(
                f"the model gives the curve {odd.tolist()} for a query; slope and power have to "
                "be positive, so that relevance rises with the score"
            )
        fixed = _POWERS.get(self.family)
        return [
            Curve(float(row[0]), float(row[1]), float(row[2]) if width == 3 else fixed)
            for row in found
        ]

    def apply(
        self, query: npt.NDArray[np.float32] | None, scores: npt.ArrayLike
    ) -> npt.NDArray[np.float64]:
        """Return the relevance of each score for this query, same shape."""
        curve = self._curve(query)
        values = np.asarray(scores, dtype=np.float64)
        risen: Floats = values if curve.power is None else np.maximum(values, 0.0) ** curve.power
        return sigmoid(curve.slope * risen + curve.offset)

    def cutoff(self, query: npt.NDArray[np.float32] | None, relevance: float) -> float:
        """Return the score that reaches `relevance` for this query.

        -inf where every score does, +inf from 1 on.
        """
        if math.isnan(relevance):
            raise InvalidInput("relevance must be a number, not nan")
        if relevance <= 0:
            return -math.inf
        if relevance >= 1:
            return math.inf
        curve = self._curve(query)
        risen = (math.log(relevance / (1.0 - relevance)) - curve.offset) / curve.slope
        if curve.power is None:
            return risen
        # Scores below 0 stand for 0, which all reach what 0 reaches.
        if risen <= 0.0:
            return -math.inf
        logarithm = math.log(risen) / curve.power
        return math.exp(logarithm) if logarithm < 700.0 else math.inf

    def at(self, query: npt.NDArray[np.float32] | None, shortlist: npt.ArrayLike) -> NetworkAdapter:
        """Return itself: the curve depends on the query, not on its shortlist."""
        return self

    def _curve(self, query: npt.NDArray[np.float32] | None) -> Curve:
        if query is None:
            raise InvalidInput("this calibration depends on the query; pass its vector")
        return self.curves(np.asarray(query, dtype=np.float32).reshape(1, -1))[0]

    def to_json(self) -> str:
        """Write it as one JSON object, the model in base64 with its hash."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["onnx"] = base64.b64encode(self.onnx).decode("ascii")
        return json.dumps(
            {"kind": self.kind, "onnx_sha256": hashlib.sha256(self.onnx).hexdigest(), **content}
        )

    @classmethod
    def from_json(cls, text: str) -> NetworkAdapter:
        """Read what `to_json` wrote.

        Raises
        ------
        CalibrationError
            If the text is not such an object, of another version, or the model was changed.
        """
        try:
            content: Any = json.loads(text)
            if not isinstance(content, dict) or content.pop("kind", None) != cls.kind:
                raise CalibrationError(f"not a calibration of kind {cls.kind!r}: {text!r:.80}")
            if content.get("version") != 1:
                raise CalibrationError(
                    f"this version of funnelvec reads network adapters of version 1, not "
                    f"{content.get('version')!r}; upgrade funnelvec"
                )
            sha256 = content.pop("onnx_sha256")
            model = base64.b64decode(content.pop("onnx"), validate=True)
            if hashlib.sha256(model).hexdigest() != sha256:
                raise CalibrationError("the model of a network adapter does not have its hash")
            return cls(onnx=model, **content)
        except (ValueError, TypeError, KeyError) as error:
            raise CalibrationError(f"a network adapter is a JSON object: {error}") from None


def _run(model: bytes, queries: npt.NDArray[np.float32]) -> Any:
    session = _session(model)
    try:
        return session.run(["curve"], {"query": queries})[0]
    except Exception as error:  # onnxruntime has classes of its own for everything
        raise CalibrationError(f"the model of the network adapter does not run: {error}") from None


@lru_cache(maxsize=16)
def _session(model: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency.of("onnxruntime", extra="onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one query at a time: threads cost more than they bring
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CalibrationError(f"the network adapter holds no ONNX model: {error}") from None
