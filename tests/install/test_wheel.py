"""The package as it is delivered: a wheel in an empty environment does what the checkout does.

Nothing is fetched. The wheel is built without isolation and installed without dependencies; the
new environment finds those in the one that runs the tests, behind its own packages.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from funnelvec.install.render import load_source
from tests.databases import Database

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("hatchling") is None,
        reason="needs hatchling, which comes with: pip install 'funnelvec[test]'",
    ),
]

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCES = ("plugin", "sql", "migrations", "README.md", "LICENSE", "pyproject.toml")


def run(*command: str | Path, check: bool = True, **options: Any) -> Any:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        **options,
    )
    if check:
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done


@dataclass(frozen=True)
class Environment:
    """A virtual environment with funnelvec in it, and a folder far from any checkout."""

    python: Path
    elsewhere: Path

    def python_says(self, code: str) -> Any:
        printed = f"import json\n{code}\nprint(json.dumps(result))"
        return json.loads(run(self.python, "-c", printed, cwd=self.elsewhere).stdout)

    def funnelvec(self, *arguments: str) -> str:
        script = self.python.parent / "funnelvec"
        return str(run(script, *arguments, cwd=self.elsewhere).stdout)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy: what a build leaves behind must not land in the tree that is tested."""
    copy = tmp_path_factory.mktemp("wheel") / "checkout"
    copy.mkdir()
    for name in SOURCES:
        path = CHECKOUT / name
        if path.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "funnelvec--*.*.*.sql")
            shutil.copytree(path, copy / name, ignore=ignore if name == "sql" else None)
        else:
            shutil.copy(path, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    target = checkout.parent / "dist"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir")
    run(*pip, "wheel", *options, target, checkout)
    (found,) = target.glob("*.whl")
    return found


def environment(folder: Path, *what: str | Path) -> Environment:
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    made = Environment(folder / "venv" / "bin" / "python", folder / "elsewhere")
    made.elsewhere.mkdir()
    site = Path(
        run(
            made.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
        ).stdout.strip()
    )
    # Behind its own packages, and without the .pth files of the other one: no checkout comes along.
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("\n".join(others) + "\n")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", made.python)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--no-warn-script-location")
    run(*pip, "install", *options, *what)
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment(tmp_path_factory.mktemp("installed"), wheel)


@pytest.fixture(scope="module")
def editable(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment(tmp_path_factory.mktemp("editable"), "--editable", checkout)


def test_the_wheel_holds_the_package_and_its_sql_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"funnelvec/{path.relative_to(CHECKOUT / 'plugin' / 'funnelvec').as_posix()}"
        for path in (CHECKOUT / "plugin" / "funnelvec").rglob("*")
        if path.is_file() and path.suffix in (".py", ".sql", ".typed", ".json")
    }
    for folder, inside, pattern in (
        ("sql/parts", "_sql/parts", "*.sql"),
        ("sql/install", "_sql/install", "*.sql"),
        ("migrations", "_migrations", "**/*.*"),
    ):
        expected |= {
            f"funnelvec/{inside}/{path.relative_to(CHECKOUT / folder).as_posix()}"
            for path in (CHECKOUT / folder).glob(pattern)
        }
    expected.add("funnelvec/_sql/funnelvec.control")
    packaged = {name for name in names if ".dist-info/" not in name}
    assert expected <= packaged, sorted(expected - packaged)
    others = {name for name in packaged - expected if "__pycache__" not in name}
    shipped = {
        f"funnelvec/{path.relative_to(CHECKOUT / 'plugin' / 'funnelvec').as_posix()}"
        for path in (CHECKOUT / "plugin" / "funnelvec").rglob("*")
    }
    assert others <= shipped, sorted(others - shipped)
    assert "funnelvec/py.typed" in names


FACTS = """
import importlib, pkgutil, funnelvec
from funnelvec.install import render
source = render.load_source()
result = {
    "version": funnelvec.__version__,
    "body": source.sha256,
    "texts": [source.control, source.head, source.tail, source.release],
    "migrations": [list(pair) for pair in source.migrations],
    "public": {name: repr(type(getattr(funnelvec, name))) for name in funnelvec.__all__},
    "modules": sorted(m.name for m in pkgutil.walk_packages(funnelvec.__path__, "funnelvec.")),
    "typed": importlib.resources.files("funnelvec").joinpath("py.typed").is_file(),
}
"""


def test_wheel_and_editable_install_are_alike(
    installed: Environment, editable: Environment, checkout: Path
) -> None:
    code = "import importlib.resources\n" + FACTS
    ours, theirs = installed.python_says(code), editable.python_says(code)
    assert ours == theirs
    assert ours["body"] == load_source().sha256
    assert len(ours["modules"]) > 40
    where = "import funnelvec; result = funnelvec.__file__"
    assert str(installed.python.parents[1]) in installed.python_says(where)
    assert editable.python_says(where).startswith(str(checkout))


def test_every_module_of_the_wheel_can_be_imported(installed: Environment) -> None:
    failed = installed.python_says(
        """
import importlib, pkgutil, funnelvec
result = []
for module in pkgutil.walk_packages(funnelvec.__path__, "funnelvec."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except Exception as error:
            result.append(f"{module.name}: {error!r}")
"""
    )
    assert failed == []


@pytest.mark.parametrize("kind", ["installed", "editable"])
def test_the_commands_are_there(kind: str, request: pytest.FixtureRequest) -> None:
    one: Environment = request.getfixturevalue(kind)
    assert one.funnelvec("--version") == f"funnelvec {load_source().version}\n"
    assert "uninstall" in one.funnelvec("--help")
    assert load_source().body in one.funnelvec("render", "pgxs")
    module = run(one.python, "-m", "funnelvec", "--version", cwd=one.elsewhere)
    assert module.stdout == f"funnelvec {load_source().version}\n"


def test_install_search_and_uninstall_from_the_wheel(
    installed: Environment, new_database: Callable[..., Database]
) -> None:
    """The way of somebody who has just run pip, on a server with pgvector."""
    url = new_database("vector").owner_url
    done = json.loads(installed.funnelvec("install", url, "--mode", "plain", "--json"))
    assert (done["action"], done["mode"]) == ("installed", "plain")
    found = installed.python_says(
        f"""
import funnelvec as fv, numpy as np
vectors = np.random.default_rng(0).standard_normal((50, 8)).astype("float32")
with fv.connect({url!r}) as pg:
    notes = pg.create("notes", dims=8)
    notes.add(list(range(50)), vectors)
    notes.add_resolution("4:f16", index=True)
    notes.create_funnel("notes_search", "4:f16@50 > 8:f32")
    result = [hit.id for hit in notes.search(vectors[7], k=3)]
"""
    )
    assert found[0] == 7 and len(found) == 3
    assert "nothing to do" in installed.funnelvec("upgrade", url)
    gone = json.loads(installed.funnelvec("uninstall", url, "--data", "--json"))
    assert gone["dropped"] == ["public.notes.embedding_4_f16"]
