"""The example of docs/qdrant.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from funnelvec.engines.qdrant import names

PAGE = (Path(__file__).parents[2] / "docs" / "qdrant.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("url", ["edge", "qdrant-local::memory:"])
def test_the_example_runs(url: str, edge_folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    exec(found[1].replace("edge:./data", f"edge:{edge_folder}" if url == "edge" else url), {})
    printed = capsys.readouterr().out
    assert printed.startswith("7 1.0\n")
    assert "funnel 16:f16@200 > 64:f32" in printed


def test_the_id_of_the_definition_is_what_the_page_says() -> None:
    assert names.DEFINITION in PAGE
