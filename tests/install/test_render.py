"""The SQL text of every delivery, without a database."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from funnelvec.errors import InstallError, InvalidInput
from funnelvec.install import release
from funnelvec.install.render import SqlSource, load_source, render, sql_version, write_files

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the SQL side to build in, below a path that every shell would split."""
    copy = tmp_path / "a checkout (with 'quotes' & spaces)"
    for folder in ("sql", "migrations"):
        shutil.copytree(
            CHECKOUT / folder, copy / folder, ignore=shutil.ignore_patterns("funnelvec--*")
        )
    return copy


@pytest.fixture
def fake_pg_config(tmp_path: Path) -> tuple[Path, Path]:
    """A pg_config whose share directory has a space in it, and that directory."""
    share = tmp_path / "post gres" / "share"
    program = tmp_path / "post gres" / "pg_config"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ntest "$1" = --sharedir && echo "{share}"\n')
    program.chmod(0o755)
    return program, share


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Flags of an outer make (this run may be `make test`) are not meant for this one.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    return subprocess.run(
        ["make", "-C", str(checkout / "sql"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def installed(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "extension").iterdir()}


def test_make_install_writes_what_render_says(
    checkout: Path, fake_pg_config: tuple[Path, Path], tmp_path: Path
) -> None:
    program, share = fake_pg_config
    stage = tmp_path / "st age"
    (checkout / "migrations" / "funnelvec--0.0.1--0.1.0.sql").write_text("select 1;\n")
    done = make(checkout, "install", f"DESTDIR={stage}", f"PG_CONFIG={program}")
    assert done.returncode == 0, done.stderr
    assert not share.exists(), "DESTDIR was ignored"

    source = load_source(checkout)
    written = {path.name: path.read_bytes() for path in write_files(source, tmp_path / "ours")}
    assert installed(Path(f"{stage}{share}")) == written
    assert written.keys() == {
        "funnelvec.control",
        f"funnelvec--{source.version}.sql",
        "funnelvec--0.0.1--0.1.0.sql",
    }
    assert written[f"funnelvec--{source.version}.sql"] == render(source, "pgxs").encode()


def test_make_follows_added_and_removed_parts(checkout: Path, tmp_path: Path) -> None:
    extra = checkout / "sql" / "parts" / "95_extra.sql"
    extra.write_text("select 'extra';\n")
    for _ in range(2):
        done = make(checkout, "install", f"SHAREDIR={tmp_path}")
        assert done.returncode == 0, done.stderr
        source = load_source(checkout)
        script = installed(tmp_path)[f"funnelvec--{source.version}.sql"]
        assert script == render(source, "pgxs").encode()
        extra.unlink(missing_ok=True)
    assert b"'extra'" not in script


def test_make_uninstall_removes_only_ours(checkout: Path, tmp_path: Path) -> None:
    assert make(checkout, "install", f"SHAREDIR={tmp_path}").returncode == 0
    neighbour = tmp_path / "extension" / "vector.control"
    neighbour.touch()
    assert make(checkout, "uninstall", f"SHAREDIR={tmp_path}").returncode == 0
    assert list((tmp_path / "extension").iterdir()) == [neighbour]
    assert make(checkout, "clean").returncode == 0
    assert not list((checkout / "sql").glob("funnelvec--*"))


def test_make_says_what_is_wrong_with_pg_config(checkout: Path, tmp_path: Path) -> None:
    done = make(checkout, "install", f"PG_CONFIG={tmp_path / 'nowhere'}", f"DESTDIR={tmp_path}")
    assert done.returncode != 0
    assert f'is PG_CONFIG="{tmp_path / "nowhere"}" right?' in done.stderr


def test_only_the_extension_script_has_psql_commands() -> None:
    source = load_source()
    script = render(source, "pgxs").splitlines()
    assert script[0].startswith("\\echo") and script[0].endswith("\\quit")
    for text in ("\n".join(script[1:]), render(source, "plain"), render(source, "tle")):
        assert not re.search(r"^\s*\\", text, re.MULTILINE)


def test_body_is_neutral() -> None:
    """One text for every delivery: nothing in it may depend on who runs it, or in what."""
    source = load_source()
    forbidden = r"^\s*(begin|commit|rollback|abort)\s*;|^\s*alter\s+extension\s|@\w+@"
    # What a procedure does when it is called is not done by the text.
    outside = re.sub(r"\$(\w*)\$.*?\$\1\$", "", source.body, flags=re.DOTALL)
    assert len(outside) > 10_000
    found = re.search(forbidden, outside, re.MULTILINE | re.IGNORECASE)
    assert found is None, found
    assert source.version not in source.body


def test_every_part_ends_its_last_line() -> None:
    for path in sorted((CHECKOUT / "sql" / "parts").glob("*.sql")):
        assert re.fullmatch(r"\d\d_[a-z_]+\.sql", path.name)
        assert path.read_bytes().endswith(b"\n"), path.name
        assert b"\r" not in path.read_bytes(), path.name


def test_plain_text_is_one_transaction_that_records_itself() -> None:
    source = load_source()
    text = render(source, "plain")
    assert text.startswith("begin;\n") and text.endswith("commit;\n")
    assert source.body in text
    assert f"'{source.version}', '{source.sha256}'" in text
    assert render(source, "plain", transaction=False) == text[len("begin;\n") : -len("commit;\n")]
    assert "@version@" not in text and "@sha256@" not in text


def test_hash_is_that_of_the_body() -> None:
    source = SqlSource("1", "", "select 1;\n", "", "", ())
    assert source.sha256 == hashlib.sha256(b"select 1;\n").hexdigest()


def test_unknown_target_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown target 'rpm'; there are: plain, pgxs, tle"):
        render(load_source(), "rpm")  # type: ignore[arg-type]


def test_there_is_one_version() -> None:
    """pyproject.toml reads the control file; what is installed must be of this version."""
    project = (CHECKOUT / "pyproject.toml").read_text()
    assert 'path = "sql/funnelvec.control"' in project
    pattern = re.search(r"""^pattern = "(.+)"$""", project, re.MULTILINE)
    control = (CHECKOUT / "sql" / "funnelvec.control").read_text()
    assert pattern is not None
    found = re.search(pattern.group(1), control)
    assert found is not None
    assert found.group("version") == sql_version()


def test_control_file_lets_an_owner_create_the_extension() -> None:
    control = load_source().control
    for line in ("superuser = false", "relocatable = false", "schema = funnelvec"):
        assert line in control.splitlines()
    assert "requires = 'vector'" in control.splitlines()


def test_package_brings_its_own_sql(tmp_path: Path) -> None:
    """Laid out as the wheel does it, far from any checkout."""
    package = tmp_path / "site" / "funnelvec"
    shutil.copytree(CHECKOUT / "plugin" / "funnelvec", package)
    for wheel_name, name in (("_sql", "sql"), ("_migrations", "migrations")):
        shutil.copytree(CHECKOUT / name, package / wheel_name)
    program = (
        "from funnelvec.install.render import load_source, __file__ as here;"
        "print(here); print(load_source().sha256)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    where, digest = done.stdout.splitlines()
    assert where == str(package / "install" / "render.py")
    assert digest == load_source().sha256


def test_wheel_is_told_to_bring_everything_that_is_read() -> None:
    project = (CHECKOUT / "pyproject.toml").read_text()
    for line in (
        '"sql/funnelvec.control" = "funnelvec/_sql/funnelvec.control"',
        '"sql/install" = "funnelvec/_sql/install"',
        '"sql/parts" = "funnelvec/_sql/parts"',
        '"migrations" = "funnelvec/_migrations"',
    ):
        assert line in project.splitlines()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=re.escape(str(tmp_path / "sql"))):
        load_source(tmp_path)


def test_control_without_version_is_refused(checkout: Path) -> None:
    (checkout / "sql" / "funnelvec.control").write_text("comment = 'x'\n")
    with pytest.raises(InstallError, match="no line default_version"):
        load_source(checkout)


def test_missing_head_is_named(checkout: Path) -> None:
    (checkout / "sql" / "install" / "plain_head.sql").unlink()
    with pytest.raises(InstallError, match=r"plain_head\.sql is missing"):
        load_source(checkout)


def test_migrations_are_in_order() -> None:
    """Released ones are as they were, the chain ends here, and the last step is not stale."""
    assert release.check(CHECKOUT) == []
