"""Side-by-side measurements of searches, of peers' recipes, of filters, loads and writes.

`compare_codes` needs no database.

>>> from funnelvec import bench                                         # doctest: +SKIP
>>> report = bench.compare(None, bench.generate(rows=20_000))           # doctest: +SKIP
>>> report.versus[0].latency.text()                                     # doctest: +SKIP
'0.41 (0.40 to 0.43)'
"""

from __future__ import annotations

from funnelvec.bench.coding import CodeBench, compare_codes
from funnelvec.bench.data import Dataset, generate, load
from funnelvec.bench.loading import LoadBench, compare_loads
from funnelvec.bench.peers import compare_peers
from funnelvec.bench.peers_report import PeersReport
from funnelvec.bench.ranges import RangeSet, generate_ranges, load_ranges
from funnelvec.bench.report import BenchReport, Standing
from funnelvec.bench.run import compare
from funnelvec.bench.selectivity import FilterReport, measure_filters
from funnelvec.bench.stats import Ratio
from funnelvec.bench.tuning import compare_tuning
from funnelvec.bench.tuning_report import TuneBench
from funnelvec.bench.windowed import WindowReport
from funnelvec.bench.windows import measure_windows
from funnelvec.bench.writing import compare_writes
from funnelvec.bench.written import WriteBench

__all__ = [
    "BenchReport",
    "CodeBench",
    "Dataset",
    "FilterReport",
    "LoadBench",
    "PeersReport",
    "RangeSet",
    "Ratio",
    "Standing",
    "TuneBench",
    "WindowReport",
    "WriteBench",
    "compare",
    "compare_codes",
    "compare_loads",
    "compare_peers",
    "compare_tuning",
    "compare_writes",
    "generate",
    "generate_ranges",
    "load",
    "load_ranges",
    "measure_filters",
    "measure_windows",
]
