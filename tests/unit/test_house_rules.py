"""Rules of the house that a machine can check: direction of imports, sizes, headers."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import funnelvec

ROOT = Path(funnelvec.__file__).parent
MODULES = {
    ".".join(("funnelvec", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}

VALUES = ("errors", "types", "reports", "kinds", "resolution", "funnel", "filters")
#: Part -> parts whose modules it may import; a part is also the whole below it. The first entry
#: that names a module or one of its packages counts, so the narrow ones stand first.
ARROWS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "judging": ("errors", "judging"),
    "types": ("errors", "judging"),
    "reports": ("types",),
    "kinds": ("errors", "types"),
    "resolution": ("errors", "types"),
    "funnel": ("errors", "types", "resolution"),
    "filters": ("errors", "types", "kinds"),
    "abstention": ("errors", "types", "calibration"),
    "codes": ("errors", "types", "resolution", "codes"),
    "calibration": ("errors", "types", "calibration"),
    "pages": ("errors", "pages"),
    "evaluation": ("errors", "types", "calibration", "evaluation", "pages"),
    "doctor": ("errors", "types", "resolution", "codes", "doctor", "pages"),
    "fitting.report": ("types",),
    "fitting": ("errors", "types", "resolution", "codes", "doctor.neighbours", "fitting"),
    "engines.protocols": ("types", "reports", "resolution", "doctor.diagnosis"),
    "engines.calibrating": ("types", "calibration.base"),
    "engines.certifying": (),
    "engines.adapted": ("errors", "types", "calibration.base", "engines.checks"),
    "engines.evaluated": (),
    "engines.evaluating": (
        *VALUES,
        "engines.base",
        "engines.checks",
        "engines.keys",
        "engines.options",
        "engines.progress",
        "evaluation",
    ),
    "engines.following": (),
    "engines.searching": ("types", "reports"),
    "engines.tunable": (),
    "engines.base": (
        *VALUES,
        "engines.calibrating",
        "engines.certifying",
        "engines.evaluated",
        "engines.following",
        "engines.hubbed",
        "engines.protocols",
        "engines.searching",
        "engines.storing",
        "engines.tunable",
    ),
    "engines.storing": VALUES,
    "engines.hubbed": VALUES,
    "engines.hubs": (*VALUES, "calibration", "codes", "engines.options"),
    "engines.memory_hub": (*VALUES, "engines.hubs", "engines.options", "engines.store"),
    "engines.together": (*VALUES, "engines.checks", "engines.options"),
    "engines.keys": VALUES,
    "engines.options": (*VALUES, "engines.keys"),
    "engines.checks": (
        *VALUES,
        "codes.bits",
        "codes.rotations",
        "engines.base",
        "engines.keys",
        "engines.options",
    ),
    "engines.asking": (
        *VALUES,
        "engines.base",
        "engines.checks",
        "engines.options",
        "engines.keys",
    ),
    "engines.progress": ("errors", "types", "reports", "engines.base"),
    "engines.rotating": (
        *VALUES,
        "codes.maps",
        "doctor.limits",
        "engines.asking",
        "engines.base",
        "engines.options",
        "engines.progress",
        "fitting",
    ),
    "engines.masks": VALUES,
    "engines.tuned": (
        *VALUES,
        "doctor.diagnosis",
        "doctor.limits",
        "engines.asking",
        "engines.base",
        "engines.checks",
        "engines.options",
        "engines.progress",
        "tuning",
    ),
    "engines.memory_tuning": (
        *VALUES,
        "codes",
        "doctor.fit",
        "engines.memory_observing",
        "engines.store",
        "engines.tuned",
        "tuning.ground",
    ),
    "engines.store": (
        *VALUES,
        "codes",
        "engines.base",
        "engines.checks",
        "engines.hubs",
        "engines.options",
        "engines.keys",
        "engines.masks",
    ),
    "engines.recall": (*VALUES, "engines.checks", "engines.options", "engines.keys"),
    "engines.judged": (*VALUES, "calibration", "engines.recall"),
    "engines.shortlists": (*VALUES, "calibration"),
    "engines.memory_searching": (
        *VALUES,
        "calibration",
        "engines.asking",
        "engines.base",
        "engines.checks",
        "engines.options",
        "engines.keys",
        "engines.store",
    ),
    "engines.memory_calibrating": (
        *VALUES,
        "calibration",
        "engines.keys",
        "engines.options",
        "engines.shortlists",
        "engines.store",
    ),
    "engines.memory_certifying": (
        *VALUES,
        "calibration",
        "engines.asking",
        "engines.checks",
        "engines.keys",
        "engines.judged",
        "engines.store",
    ),
    "engines.memory_following": (
        *VALUES,
        "calibration",
        "engines.asking",
        "engines.checks",
        "engines.keys",
        "engines.options",
        "engines.store",
    ),
    "engines.memory_observing": (
        *VALUES,
        "codes",
        "engines.memory_searching",
        "engines.recall",
        "engines.store",
    ),
    "engines.sources": (*VALUES, "engines.keys", "engines.pieces"),
    "engines.pieces": (*VALUES, "engines.keys", "engines.sources", "engines.arrow"),
    "engines.arrow": (*VALUES, "engines.keys", "engines.pieces", "engines.sources"),
    "engines.opening": (*VALUES, "engines.arrow", "engines.pieces", "engines.sources"),
    "engines.loads": (
        *VALUES,
        "engines.checks",
        "engines.options",
        "engines.keys",
        "engines.opening",
        "engines.sources",
    ),
    "engines.memory_loading": (
        *VALUES,
        "engines.base",
        "engines.checks",
        "engines.options",
        "engines.keys",
        "engines.loads",
        "engines.progress",
        "engines.sources",
        "engines.store",
    ),
    "engines.memory_examining": (
        *VALUES,
        "doctor",
        "engines.base",
        "engines.checks",
        "engines.options",
        "engines.progress",
        "engines.store",
    ),
    "engines.memory_rotating": (
        *VALUES,
        "engines.base",
        "engines.checks",
        "engines.progress",
        "engines.rotating",
        "engines.store",
        "fitting",
    ),
    "engines.memory_table": (
        *VALUES,
        "codes",
        "calibration",
        "doctor.fit",
        "engines.base",
        "engines.checks",
        "engines.options",
        "engines.asking",
        "engines.keys",
        "engines.memory_searching",
        "engines.memory_calibrating",
        "engines.memory_certifying",
        "engines.memory_following",
        "engines.loads",
        "engines.memory_loading",
        "engines.evaluating",
        "engines.memory_examining",
        "engines.memory_hub",
        "engines.memory_rotating",
        "engines.memory_tuning",
        "fitting.report",
        "engines.store",
        "engines.together",
        "engines.memory_observing",
    ),
    "engines.memory": (
        *VALUES,
        "engines.base",
        "engines.checks",
        "engines.options",
        "engines.keys",
        "engines.memory_table",
    ),
    "engines.postgres": (
        *VALUES,
        "codes",
        "calibration",
        "engines.asking",
        "doctor",
        "engines.base",
        "engines.checks",
        "engines.evaluating",
        "engines.hubs",
        "engines.options",
        "engines.keys",
        "engines.loads",
        "engines.progress",
        "engines.recall",
        "engines.rotating",
        "engines.shortlists",
        "engines.sources",
        "engines.tuned",
        "engines.together",
        "engines.postgres",
        "evaluation",
        "fitting",
        "tuning",
        "install",  # the embedded server puts the rendered extension into its folder
    ),
    "engines.qdrant": (
        *VALUES,
        "codes",
        "calibration",
        "doctor",
        "engines.asking",
        "engines.base",
        "engines.checks",
        "engines.evaluating",
        "engines.hubs",
        "engines.options",
        "engines.judged",
        "engines.keys",
        "engines.loads",
        "engines.progress",
        "engines.recall",
        "engines.rotating",
        "engines.shortlists",
        "engines.sources",
        "engines.store",
        "engines.tuned",
        "engines.together",
        "engines.qdrant",
        "tuning.ground",
        "fitting",
    ),
    "engines": (
        *VALUES,
        "codes",
        "calibration",
        "engines.base",
        "engines.checks",
        "engines.options",
    ),
    "tuning": (
        *VALUES,
        "codes",
        "calibration",
        "doctor",
        "fitting",
        "engines.base",
        "pages",
        "tuning",
    ),
    "install": ("errors", "types", "install"),
    # Programs that use what users use: the package's own names and the plain values, no engine.
    "demo": ("", *VALUES, "entry", "demo", "bench"),
    # The benchmark also runs SQL of its own beside ours, on the connection of a Postgres engine.
    "bench": (
        "",
        *VALUES,
        "entry",
        "codes",
        "doctor.lid",
        "doctor.neighbours",
        "fitting",
        "engines.checks",
        "engines.options",
        "engines.postgres",
        "tuning",  # the tuner's own candidates are what the grid is made of
        "calibration",  # the figures of relevance are measured on vectors, without an engine
        "pages",
        "bench",
    ),
    "entry": ("errors",),  # engines are imported when a URL asks for them
    "": ("errors",),  # the package itself
    # The shell: the outermost layer, which nothing else imports.
    "commands": (
        "",
        *VALUES,
        "entry",
        "engines.base",
        "engines.postgres",
        "tuning",
        "install",
        "demo",
        "doctor",
        "evaluation",
        "pages",
        "bench",
        "commands",
    ),
    "cli": ("", "errors", "commands"),
    "__main__": ("cli",),
}
DRIVERS = ("psycopg", "psycopg_pool", "qdrant_client", "qdrant_edge")
MAY_IMPORT_A_DRIVER = (
    "engines.postgres",
    "engines.qdrant",
    "install.apply",
    "install.remove",
    "install.state",
    "commands.connecting",  # where no engine can open: funnelvec is not installed there
    "commands.asking",
    "bench",
)


def part(module: str) -> str:
    return module.removeprefix("funnelvec").removeprefix(".")


def within(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == p or (p != "" and name.startswith(p + ".")) for p in parts)


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The tree of a file, which every rule looks at."""
    return ast.parse(path.read_text(encoding="utf-8"))


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    waiting = [node]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            yield child
            waiting.append(child)


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Modules that a file imports at run time, `from funnelvec import codes` resolved."""
    found: set[str] = set()
    for node in run_time_nodes(parsed(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                longer = f"{node.module}.{alias.name}"
                found.add(longer if longer in MODULES else str(node.module))
    return frozenset(found)


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    name = part(module)
    allowed = next((to for of, to in ARROWS.items() if within(name, (of,))), None)
    assert allowed is not None, f"{module} has no place in ARROWS; see DESIGN section 4"
    for imported in imports(MODULES[module]):
        if imported == "funnelvec" or imported.startswith("funnelvec."):
            assert within(part(imported), allowed), f"{module} may not import {imported}"


@pytest.mark.parametrize("module", MODULES)
def test_only_input_and_output_import_a_driver(module: str) -> None:
    drivers = {name for name in imports(MODULES[module]) if name.partition(".")[0] in DRIVERS}
    assert not drivers or within(part(module), MAY_IMPORT_A_DRIVER), f"{module}: {drivers}"


def test_nothing_imports_the_command_line() -> None:
    importers = {name for name, path in MODULES.items() if "funnelvec.cli" in imports(path)}
    assert importers <= {"funnelvec.__main__"}


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short_and_say_what_they_are(module: str) -> None:
    source = MODULES[module].read_text(encoding="utf-8")
    assert len(source.splitlines()) < 400, f"{module}: split it"
    assert ast.get_docstring(parsed(MODULES[module])), f"{module} has no docstring"


@pytest.mark.parametrize(
    "part", sorted((ROOT.parents[1] / "sql/parts").glob("*.sql")), ids=lambda p: p.stem
)
def test_parts_of_the_sql_are_short_and_say_what_they_are(part: Path) -> None:
    source = part.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 500, f"{part.name}: split it"
    assert source.startswith("-- "), f"{part.name} does not begin with what it is"


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module: str) -> None:
    for node in ast.walk(parsed(MODULES[module])):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            lines = (node.end_lineno or 0) - first.lineno + 1
            assert lines <= 50, f"{module}.{node.name} has {lines} lines; split it"


def public(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, kinds) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_documented(module: str) -> None:
    for node in public(parsed(MODULES[module])):
        assert ast.get_docstring(node), f"{module}.{node.name} has no docstring"
