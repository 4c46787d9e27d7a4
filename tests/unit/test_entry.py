"""`connect` and `wrap`, and the package's lazy names."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import funnelvec as fv
from funnelvec.engines.memory import MemoryEngine
from funnelvec.errors import InvalidInput, MissingDependency


@pytest.mark.parametrize("url", ["memory:", "MEMORY:"])
def test_memory(url: str) -> None:
    assert isinstance(fv.connect(url), MemoryEngine)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "names an engine by its scheme"),
        ("shop", "names an engine by its scheme"),
        (None, "names an engine by its scheme"),
        ("mysql://localhost", "unknown scheme 'mysql'; known: postgresql://"),
        ("memory:x", "'x'"),
        ("pg-embedded:", "needs a folder"),
        ("edge:", "edge: needs a folder"),
        ("qdrant-local:", "qdrant-local: needs a folder"),
    ],
)
def test_odd_urls(url: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        fv.connect(url)


@pytest.mark.parametrize("thing", [None, "postgresql:///x", object()])
def test_wrap_refuses_what_it_does_not_know(thing: object) -> None:
    with pytest.raises(InvalidInput, match="wrap takes a psycopg connection or pool, or a Qdrant"):
        fv.wrap(thing)


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("funnelvec.engines.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingDependency, match=r"pip install 'funnelvec\[postgres\]'"):
        fv.connect("postgresql:///shop")


def test_every_public_name_resolves() -> None:
    for name in fv.__all__:
        assert getattr(fv, name) is not None
    assert set(fv.__all__) <= set(dir(fv))
    with pytest.raises(AttributeError, match="nothing"):
        _ = fv.nothing


def test_the_functions_survive_the_import_of_any_submodule() -> None:
    """A submodule named like a public function would replace it in the package."""
    importlib.import_module("funnelvec.entry")
    importlib.import_module("funnelvec.funnel")
    assert callable(fv.connect)
    assert fv.Funnel.parse("8:f32").last.keep is None


def test_the_import_is_light() -> None:
    code = (
        "import sys, funnelvec; funnelvec.Resolution, funnelvec.Funnel, funnelvec.Hit, "
        "funnelvec.FunnelvecError; "
        "print(*(m for m in ('numpy', 'psycopg', 'rich') if m in sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_the_bare_import_loads_next_to_nothing() -> None:
    """What keeps it under 150 ms (docs/install.md has the figure): no clock needs to say so."""
    code = (
        "import sys; before = set(sys.modules); import funnelvec; "
        "print(*(m for m in sorted(set(sys.modules) - before)"
        "        if m.split('.')[0] not in sys.stdlib_module_names))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["funnelvec", "funnelvec.errors"]


def test_one_version_everywhere() -> None:
    control = Path(__file__).parents[2] / "sql" / "funnelvec.control"
    assert f"default_version = '{fv.__version__}'" in control.read_text()
