"""The demo's settings. They were fixed before any of its results were seen, and stay."""

from __future__ import annotations

from funnelvec.demo.corpus import Limits
from funnelvec.demo.questions import ANSWERABLE, MIN_RELEVANCE, UNANSWERABLE

__all__ = ["ANSWERABLE", "MIN_RELEVANCE", "UNANSWERABLE"]

# The corpus: 256 dimensions, searched by their first half.
CORPUS = Limits()
TABLE = "docs"
RESOLUTION = "128:f16"
FUNNEL = "128:f16@100 > 256:f32"

# The wide case, generated: a twelfth of the dimensions goes first.
WIDE_TABLE = "wide"
WIDE_ROWS = 20_000
WIDE_DIMS = 1_536
WIDE_FUNNEL = "128:f16@100 > 1536:f32"

# Both indexes get pgvector's build parameters (m 16, ef_construction 64) and the same list length.
EF_SEARCH = 100
BUILD_WORKERS = 1  # beside the leader: two cores build

K = 10
SHOWN = 3
RECALL_SAMPLE = 200
COMPARED_QUERIES = 50
SEED = 0

# Enough that neither contestant's index has to be read from disk or built outside of memory.
SHARED_BUFFERS_MB = 512
MAINTENANCE_MB = 256

# Fewer documents than this and the demo would not show a search.
LEAST_DOCUMENTS = 5_000
