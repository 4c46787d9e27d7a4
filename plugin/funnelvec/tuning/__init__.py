"""Tuning: a recall in, the cheapest funnel that reaches it out.

>>> report = docs.tune(recall=0.99, k=10)                               # doctest: +SKIP
>>> print(report)                                                       # doctest: +SKIP

`funnelvec.tuning.run` is the whole of a run: a generator that says what is to be done on a table,
which every engine does in its own way (`funnelvec.tuning.calls`).
"""

from __future__ import annotations

from funnelvec.tuning.report import Option, TuningReport
from funnelvec.tuning.wanted import Budget

__all__ = ["Budget", "Option", "TuningReport"]
