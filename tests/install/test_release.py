"""Making, checking and freezing the steps between versions, without a database."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from funnelvec.errors import InstallError
from funnelvec.install import release
from funnelvec.install.render import find_steps, load_source, render_upgrade
from tests.install.sources import CHECKOUT, NEW, NEXT, NOW, OLD, Versions


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return Versions(tmp_path_factory.mktemp("versions"))


@pytest.fixture
def root(versions: Versions, tmp_path: Path) -> Path:
    """A checkout of the newest version, to spoil."""
    return shutil.copytree(versions.folder / NEW, tmp_path / "checkout")


def step(root: Path) -> Path:
    return root / "migrations" / f"funnelvec--{NEXT}--{NEW}.sql"


def thaw(root: Path) -> None:
    frozen = root / "migrations" / "frozen.sha256"
    kept = [line for line in frozen.read_text().splitlines() if step(root).name not in line]
    frozen.write_text("".join(f"{line}\n" for line in ["# released", "", *kept]))


def test_the_chain_is_in_order(versions: Versions) -> None:
    for version in (OLD, NOW, NEXT, NEW):
        assert release.check(versions.folder / version) == []
    source = versions.source(NEW)
    ends = [(found.start, found.end) for found in find_steps(source, OLD)]
    assert ends == [(OLD, NOW), (NOW, NEXT), (NEXT, NEW)]
    assert find_steps(source, NEW) == ()


def test_a_step_is_the_delta_with_all_functions(root: Path) -> None:
    """What stands behind the mark in the delta comes after the functions."""
    text = step(root).read_text()
    delta = (root / "migrations" / "delta" / f"{NEXT}--{NEW}.sql").read_text()
    before, after = delta.split(release.PARTS_HERE)
    assert text == before + release.functions(root) + after
    parts = sorted((root / "sql" / "parts").glob("[2-9]*.sql"))
    assert release.functions(root) == "".join(path.read_text() for path in parts)
    # The registry is tables: they are never created again, so they are the delta's business.
    assert "create table if not exists funnelvec.resolutions" not in text


def test_a_delta_without_the_mark_comes_first(root: Path) -> None:
    thaw(root)
    delta = root / "migrations" / "delta" / f"{NEXT}--{NEW}.sql"
    delta.write_text("select 'no line end'")
    _, text = release.compose(root, NEXT)
    assert text == "select 'no line end'\n" + release.functions(root)
    delta.write_text("")
    assert release.compose(root, NEXT)[1] == release.functions(root)


def test_the_delta_is_missing(root: Path) -> None:
    with pytest.raises(InstallError, match=rf"0\.5\.0--{NEW}\.sql is missing: write into it"):
        release.compose(root, "0.5.0")


@pytest.mark.parametrize(
    "line", ["\\echo x", "BEGIN;", "  commit ;", "alter extension funnelvec add table x;"]
)
def test_a_delta_stays_neutral(root: Path, line: str) -> None:
    """It also runs where none of these may stand."""
    delta = root / "migrations" / "delta" / f"{NEXT}--{NEW}.sql"
    delta.write_text(f"select 1;\n{line}\n")
    with pytest.raises(InstallError, match="inside one transaction") as caught:
        release.compose(root, NEXT)
    assert repr(line.strip()) in str(caught.value)


def test_a_released_step_is_neither_edited_nor_lost(root: Path) -> None:
    with pytest.raises(InstallError, match="released and frozen"):
        release.write_step(root, NEXT)
    step(root).write_text(step(root).read_text() + "-- a small repair\n")
    assert release.check(root) == [f"{step(root).name} is frozen and was changed"]
    step(root).unlink()
    problems = release.check(root)
    assert f"{step(root).name} is frozen and missing" in problems


def test_changed_parts_make_the_last_step_stale(root: Path) -> None:
    part = root / "sql" / "parts" / "96_probe.sql"
    part.write_text(part.read_text() + "-- more\n")
    assert release.check(root) == [
        f"{step(root).name} is frozen and sql/parts changed since: raise the version"
    ]
    thaw(root)
    (problem,) = release.check(root)
    assert problem.startswith(f"{step(root).name} is stale")
    release.write_step(root, NEXT)
    assert release.check(root) == []
    assert release.freeze(root) == [step(root).name]
    assert release.freeze(root) == []
    assert release.check(root) == []


def test_a_chain_and_never_all_pairs(root: Path) -> None:
    shutil.copy(step(root), root / "migrations" / f"funnelvec--{OLD}--{NEW}.sql")
    assert f"two steps begin at {OLD}: a chain, never all pairs" in release.check(root)


def test_a_step_that_leads_nowhere(root: Path) -> None:
    (root / "migrations" / "funnelvec--0.7.0--0.7.1.sql").touch()
    assert release.check(root) == [f"the steps from 0.7.0 on end at 0.7.1, not at {NEW}"]
    with pytest.raises(InstallError, match="nothing was frozen"):
        release.freeze(root)


def test_a_name_that_nobody_finds(root: Path) -> None:
    (root / "migrations" / "funnelvec--0.7--next.sql").touch()
    assert release.check(root) == ["funnelvec--0.7--next.sql is not named funnelvec--A--B.sql"]


def test_a_ring_of_steps_ends(root: Path) -> None:
    (root / "migrations" / "funnelvec--0.6.0--0.7.0.sql").touch()
    (root / "migrations" / "funnelvec--0.7.0--0.6.0.sql").touch()
    with pytest.raises(InstallError, match=r"no migration leads from funnelvec 0\.6\.0"):
        find_steps(load_source(root), "0.6.0")
    assert len(release.check(root)) == 2


def test_the_text_of_an_upgrade(versions: Versions) -> None:
    source = versions.source(NEW)
    text = render_upgrade(source, OLD)
    assert text.startswith("begin;\n") and text.endswith("commit;\n")
    # In the body of a procedure it stands further in.
    assert (
        len(re.findall(r"^begin;$", text, re.M)) == len(re.findall(r"^commit;$", text, re.M)) == 1
    )
    at = [text.index(found.text) for found in find_steps(source, OLD)]
    assert at == sorted(at)
    assert f"'{NEW}', '{source.sha256}'" in text
    assert not any(name in text for name in ("@from@", "@version@", "@sha256@"))


def test_the_commands(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    assert release.main(["check"]) == 0
    assert release.main(["step", NEXT]) == 1
    assert "released and frozen" in capsys.readouterr().err
    thaw(root)
    assert release.main(["step", NEXT]) == 0
    assert capsys.readouterr().out == f"migrations/{step(root).name}\n"
    assert release.main(["freeze"]) == 0
    assert capsys.readouterr().out == f"frozen: {step(root).name}\n"
    assert release.main(["freeze"]) == 0
    assert capsys.readouterr().out == "nothing to freeze\n"
    step(root).unlink()
    assert release.main(["check"]) == 1
    assert "is frozen and missing" in capsys.readouterr().out


def test_nothing_is_released_yet() -> None:
    """With the first release this test goes, and the chain of that release takes its place."""
    assert load_source(CHECKOUT).migrations == ()
