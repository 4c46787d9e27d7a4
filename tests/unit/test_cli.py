"""The command line as people run it: help, usage errors, exit statuses, one-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from funnelvec import __version__, cli
from funnelvec.commands import target
from funnelvec.commands.output import print_json, print_table
from funnelvec.errors import FunnelvecError

# Nothing listens on port 1, so this fails at once, without a name to be looked up.
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "funnelvec", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_version_and_help_do_without_numpy_and_a_driver() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"funnelvec {__version__}\n")
    code = (
        "import sys\nfrom funnelvec import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'psycopg', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_help_lists_all_commands_and_the_variables() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("demo", "install", "status", "search", "explain", "bench", "FUNNELVEC_URL"):
        assert word in done.stdout


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help_with_examples_and_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert "examples:" in text
    assert f"funnelvec {command}" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["serch"], "invalid choice"),
        (["search"], "required"),
        (["search", "docs"], "--query"),
        (["search", NOWHERE, "--query", "[1]"], "which table"),
        (["search", "docs", "more", "--query", "[1]"], "unexpected: more"),
        (["search", "docs", "--query", "[1"], "--query: not JSON"),
        (["search", "docs", "--query", "[1]", "--filter", "price < 5"], "--filter: not JSON"),
        (["search", "docs", "--query", "[1]", "--like", "5"], "not allowed with"),
        (["search", "docs", "--query", "[1]", "-k", "many"], "from 1 on"),
        (["search", "docs", "--like", "1", "-k", "0"], "from 1 on"),
        (["explain", "docs", "--query", "[1]", "--min-relevance", "high"], "invalid float"),
        (["load", NOWHERE, "docs"], "which files"),
        (["load", "docs", "f.parquet", "--columns", "=a"], "--columns"),
        (["load", "docs", "f.parquet", "--name", "x", "--restart"], "for going on"),
        (["bench", "lod"], "invalid choice"),
        (["status", NOWHERE, "docs", "more"], "unexpected: more"),
        (["install", NOWHERE, "--mode", "magic"], "invalid choice"),
        (["install", NOWHERE, "more"], "unrecognized"),
        (["doctor", NOWHERE], "which table"),
        (["doctor", NOWHERE, "docs", "--report", "/no/such/folder/x.html"], "--report"),
        (["doctor", NOWHERE, "docs", "--report", "/"], "--report"),
        (["doctor", "docs", "--sample", "many"], "invalid int"),
        (["bench", "--queries", "q.npy"], "go with --data"),
        (["bench", "--data", "v.npy", "--dims", "7"], "--dims"),
        (["bench", "--qui"], "unrecognized"),
        (["bench", "--data", "v.npy", "--spectrum", "power"], "--spectrum"),
        (["bench", "relevance", "--data", "d", "--basis", "rotated"], "changes no cosine"),
        (["bench", "papers", "--spectrum", "power"], "--spectrum"),
        (["bench", "--paper", "leanvec"], "--paper goes with papers"),
        (
            ["bench", "load", "--report", "x.html"],
            "--report goes with search, peers, qdrant, tune, papers",
        ),
        (["bench", "--report", "x.pdf"], "an .html or a .png"),
        (["bench", "peers", "--report", "/no/such/folder/x.html"], "no folder"),
    ],
)
def test_wrong_usage_is_status_two(
    arguments: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "usage: funnelvec" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", NOWHERE], "cannot use the server"),
        (["install", NOWHERE], "cannot use the server"),
        (["install", NOWHERE, "--dry-run"], "cannot use the server"),
        (["search", NOWHERE, "docs", "--query", "[1]"], "cannot use the server"),
        (["explain", "memory:", "docs", "--query", "[1]"], "works on Postgres"),
        (["search", "http://127.0.0.1:1", "docs", "--query", "[1]"], "does not answer"),
        (["search", "ftp://localhost", "docs", "--query", "[1]"], "ftp"),
        (["install", "memory:"], "install works on"),
        (["install", "pg-embedded:/nowhere/at/all", "--dry-run"], "no database"),
        (["search", NOWHERE, "docs", "--query-file", "/nowhere.npy"], "no file '/nowhere.npy'"),
        (["doctor", NOWHERE, "docs"], "cannot use the server"),
        (["doctor", NOWHERE, "docs", "--sample", "1"], "sample must be"),
        (["doctor", NOWHERE, "docs", "--queries", "9"], "queries must be"),
        (["doctor", NOWHERE, "docs", "--seed", "-1"], "seed must be"),
        (["doctor", "memory:", "docs"], "'docs' does not exist"),
        (["bench", "--data", "/nowhere.npy"], "no file '/nowhere.npy'"),
        (["bench", "--rows", "0"], "0 rows"),
        (["bench", "--rows", "9", "--funnel", "128:f17"], "128:f17"),
        (["bench", "--rows", "9", "--funnel", "64:f16@5 > 1536:f32"], "k=10 is more than"),
        (["bench", "--rows", "9", "-k", "0"], "k"),
        (["bench", "--rows", "9", "--rounds", "0"], "rounds"),
        (["bench", "--rows", "9", "--url", "memory:"], "runs on Postgres"),
        (["bench", "--rows", "9", "--spectrum", "power:x"], "exponent"),
        (["bench", "--rows", "9", "--spectrum", "/nowhere.npy"], "no file '/nowhere.npy'"),
        (["bench", "--rows", "9", "--builds", "0"], "builds"),
        (["bench", "peers", "--rows", "90", "--clients", "0"], "clients must be 1 to 64"),
        (["bench", "peers", "--quick", "--grown-from", "5000"], "fewer than 1,500"),
        (["bench", "papers", "--paper", "mrl"], "choose from matryoshka"),
        (["bench", "papers", "--data", "/nowhere"], "no folder '/nowhere'"),
    ],
)
def test_failures_are_status_one_and_one_line(
    arguments: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(list(arguments)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("funnelvec: error: ")
    assert said in line


def test_a_failure_has_no_traceback_outside_either() -> None:
    done = run("status", FUNNELVEC_URL=NOWHERE)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("funnelvec: error: cannot use the server")
    assert done.stderr.count("\n") == 1


def test_the_url_comes_from_the_argument_then_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FUNNELVEC_URL", "postgresql:///from_environment")
    assert read("status") == ("postgresql:///from_environment", "")
    assert read("status", "docs") == ("postgresql:///from_environment", "docs")
    assert read("status", '"My Docs"') == ("postgresql:///from_environment", '"My Docs"')
    assert read("status", "shop.docs") == ("postgresql:///from_environment", "shop.docs")
    assert read("status", "postgresql:///x") == ("postgresql:///x", "")
    assert read("status", "pg-embedded:./db", "docs") == ("pg-embedded:./db", "docs")
    monkeypatch.delenv("FUNNELVEC_URL")
    # libpq fills in the rest from PGHOST, PGDATABASE and the like.
    assert read("status", "docs") == ("postgresql://", "docs")


def read(*arguments: str) -> tuple[str, str]:
    args = cli._parser(arguments).parse_args(arguments)
    return target.read_target(args, table=True)


def test_libpq_reads_its_own_variables() -> None:
    done = run("status", FUNNELVEC_URL="", PGHOST="127.0.0.1", PGPORT="1", PGUSER="nobody")
    assert done.returncode == 1
    assert "port 1" in done.stderr


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "funnelvec: interrupted\n"),
        (FunnelvecError("one\n\ttwo"), 1, "funnelvec: error: one two\n"),
    ],
)
def test_interruptions_and_errors_become_statuses(
    raised: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("funnelvec.commands.status.opened", fail)
    assert cli.main(["status", NOWHERE]) == status
    assert capsys.readouterr().err == said


def test_an_error_that_is_not_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("funnelvec.commands.status.opened", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["status", NOWHERE])


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = (
        "import sys\nfrom funnelvec import cli\nfrom funnelvec.commands import status\n"
        "def chatter(args):\n    while True:\n        print('x' * 999)\n"
        "status.run = chatter\nsys.exit(cli.main(['status']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == 141


def test_tables_in_pipes_are_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 200
    print_table(("name", "n"), [(long, 1), ("y [b]", None)], title="title")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "title"
    assert lines[2] == f"{long}  1"
    assert lines[3] == "y [b]"


def test_json_takes_every_kind_of_key(capsys: pytest.CaptureFixture[str]) -> None:
    import datetime
    import uuid
    from decimal import Decimal

    day, name = datetime.date(2026, 1, 31), uuid.UUID(int=7)
    print_json({"a": [day, name, Decimal("3"), Decimal("0.5"), float("nan"), None, True]})
    assert json.loads(capsys.readouterr().out) == {
        "a": ["2026-01-31", str(name), 3, 0.5, None, None, True]
    }


def test_a_dry_run_of_the_demo_writes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    done = run("demo", "--dry-run", "--keep", str(tmp_path / "db"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "db").exists()
