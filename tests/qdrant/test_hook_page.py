"""The example of docs/qdrant-hook.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "qdrant-hook.md").read_text(encoding="utf-8")


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    exec(found[1], {})
    first, *_, count, coverage = capsys.readouterr().out.splitlines()
    assert first == "7 1.0 {'price': 7}"
    assert count == "count=1000 64" and coverage == "1.0"
