"""Multi-resolution vector search and calibrated relevance for pgvector and Qdrant.

>>> import funnelvec as fv                                              # doctest: +SKIP
>>> docs = fv.connect("postgresql:///shop").table("products")           # doctest: +SKIP
>>> docs.add_resolution("128:f16", index=True)                          # doctest: +SKIP
>>> docs.create_funnel("products_search", "128:f16@200 > 768:f32")      # doctest: +SKIP
>>> docs.search(query, k=10)                                            # doctest: +SKIP

Public names are resolved on first use, so that ``import funnelvec`` loads neither numpy nor a
database driver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from funnelvec import errors
from funnelvec.errors import FunnelvecError

if TYPE_CHECKING:
    from funnelvec.abstention import Abstention
    from funnelvec.calibration import Certificate, PlattCalibration
    from funnelvec.doctor import Diagnosis
    from funnelvec.entry import connect, connect_async, hook, wrap, wrap_async
    from funnelvec.funnel import Funnel, Stage
    from funnelvec.reports import (
        Explanation,
        LoadReport,
        Problem,
        RecallReport,
        Repair,
        ResolutionStatus,
        Sample,
        Upserted,
    )
    from funnelvec.resolution import Resolution
    from funnelvec.tuning import Budget, TuningReport
    from funnelvec.types import Answer, Hit, Judgments

__version__ = "0.1.0"

__all__ = [
    "Abstention",
    "Answer",
    "Budget",
    "Certificate",
    "Diagnosis",
    "Explanation",
    "Funnel",
    "FunnelvecError",
    "Hit",
    "Judgments",
    "LoadReport",
    "PlattCalibration",
    "Problem",
    "RecallReport",
    "Repair",
    "Resolution",
    "ResolutionStatus",
    "Sample",
    "Stage",
    "TuningReport",
    "Upserted",
    "__version__",
    "connect",
    "connect_async",
    "errors",
    "hook",
    "wrap",
    "wrap_async",
]

_HOME = {
    "Abstention": "funnelvec.abstention",
    "Answer": "funnelvec.types",
    "Certificate": "funnelvec.calibration",
    "Budget": "funnelvec.tuning",
    "Diagnosis": "funnelvec.doctor",
    "Explanation": "funnelvec.reports",
    "Funnel": "funnelvec.funnel",
    "Hit": "funnelvec.types",
    "Judgments": "funnelvec.types",
    "LoadReport": "funnelvec.reports",
    "PlattCalibration": "funnelvec.calibration",
    "Problem": "funnelvec.reports",
    "RecallReport": "funnelvec.reports",
    "Repair": "funnelvec.reports",
    "Resolution": "funnelvec.resolution",
    "ResolutionStatus": "funnelvec.reports",
    "Sample": "funnelvec.reports",
    "Stage": "funnelvec.funnel",
    "TuningReport": "funnelvec.tuning",
    "Upserted": "funnelvec.reports",
    "connect": "funnelvec.entry",
    "connect_async": "funnelvec.entry",
    "hook": "funnelvec.entry",
    "wrap": "funnelvec.entry",
    "wrap_async": "funnelvec.entry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
