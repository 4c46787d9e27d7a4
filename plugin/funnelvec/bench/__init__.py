"""Side-by-side measurements: `compare` searches, `compare_loads` loads.

>>> from funnelvec import bench                                         # doctest: +SKIP
>>> report = bench.compare(None, bench.generate(rows=20_000))           # doctest: +SKIP
>>> report.versus[0].latency.text()                                     # doctest: +SKIP
'0.41 (0.40 to 0.43)'
"""

from __future__ import annotations

from funnelvec.bench.data import Dataset, generate, load
from funnelvec.bench.loading import LoadBench, compare_loads
from funnelvec.bench.report import BenchReport, Standing
from funnelvec.bench.run import compare
from funnelvec.bench.selectivity import FilterReport, measure_filters
from funnelvec.bench.stats import Ratio

__all__ = [
    "BenchReport",
    "Dataset",
    "FilterReport",
    "LoadBench",
    "Ratio",
    "Standing",
    "compare",
    "compare_loads",
    "generate",
    "load",
    "measure_filters",
]
