"""``funnelvec doctor``: what kind of vectors a table holds, and what to do about it.

`examine` takes an array; a table has the method ``doctor``. Each measure is a module of numpy
functions: lengths (`norms`), random pairs (`pairs`), effective rank (`rank`), copies
(`duplicates`), the prefix curve (`prefixes`, `stages`), balance of signs (`bits`), local
intrinsic dimension (`lid`), hubs (`hubness`), cosine against dot (`order`). `report` makes the
page.
"""

from __future__ import annotations

from funnelvec.doctor.diagnosis import Diagnosis, Measures
from funnelvec.doctor.examine import examine
from funnelvec.doctor.values import Finding

__all__ = ["Diagnosis", "Finding", "Measures", "examine"]
