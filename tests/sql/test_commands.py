"""install, status, search and explain on a real database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

import funnelvec as fv
from funnelvec import cli
from funnelvec.errors import InvalidInput
from tests import awaited
from tests.sql.tables import DIMS, ROWS, vectors

if TYPE_CHECKING:
    from tests.databases import Database


Q = vectors(1, seed=3)[0]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command that succeeds, and return what it printed, read if it is JSON."""

    def run(*arguments: str) -> Any:
        status = cli.main(arguments)
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return json.loads(captured.out) if "--json" in arguments else captured.out

    return run


def test_install_says_what_it_did_and_does_it_once(
    new_database: Callable[..., Database], call: Callable[..., Any]
) -> None:
    url = new_database("vector").owner_url
    planned = call("install", url, "--mode", "plain", "--dry-run")
    assert "create or replace function funnelvec.version" in planned
    assert call("install", url, "--mode", "plain", "--json", "--dry-run")["dry_run"] is True
    done = call("install", url, "--mode", "plain", "--json")
    assert (done["action"], done["mode"], done["dry_run"]) == ("installed", "plain", False)
    assert "nothing to do" in call("install", url)
    assert call("install", url, "--dry-run", "--json")["sql"] == ""


def test_install_without_pgvector_fails(
    new_database: Callable[..., Database], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["install", new_database("empty").owner_url]) == 1
    assert "create extension vector" in capsys.readouterr().err


def test_a_database_without_funnelvec_says_how_to_get_it(
    new_database: Callable[..., Database], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", new_database("vector").owner_url]) == 1
    assert "funnelvec install" in capsys.readouterr().err


def test_status_lists_resolutions_and_funnels(
    products_database: Database, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = products_database.owner_url
    found = call("status", url, "products", "--json")
    assert found == call("status", url, "--json")
    assert found["mode"] == products_database.server.install_mode
    by_name = {each["resolution"]: each for each in found["resolutions"]}
    assert by_name["16:f16"]["rows"] == ROWS
    assert by_name["16:f16"]["coverage"] == 1.0
    assert by_name["16:f16"]["index"] is not None
    assert by_name["32:bit"]["bit_balance"] > 0.9
    funnels = {each["name"]: each for each in found["funnels"]}
    assert funnels["two_stages"]["funnel"] == "16:f16@100 > 32:f32"
    assert funnels["two_stages"]["calibrated"] is False
    monkeypatch.setenv("FUNNELVEC_URL", url)
    text = call("status", "products")
    assert "16:f16@100 > 32:f32" in text
    assert "2,000" in text


def test_status_of_a_new_database(owner_url: str, call: Callable[..., Any]) -> None:
    found = call("status", owner_url, "--json")
    assert found["resolutions"] == found["funnels"] == []
    assert "no funnels" in call("status", owner_url)


def test_search_takes_a_query_from_json_a_file_or_a_row(
    products_database: Database, call: Callable[..., Any], tmp_path: Path
) -> None:
    url = products_database.owner_url
    query = vectors(ROWS)[5]
    np.save(tmp_path / "q.npy", query)
    base = ("search", url, "products", "--funnel", "two_stages", "--json")
    by_json = call(*base, "--query", json.dumps(query.tolist()))
    by_file = call(*base, "--query-file", str(tmp_path / "q.npy"))
    by_row = call(*base, "--like", "5", "-k", "9")
    assert by_json == by_file
    assert by_json["key"] == "id"
    assert by_json["hits"][0]["id"] == 5
    assert by_json["hits"][0]["score"] == pytest.approx(1, abs=1e-6)
    assert by_json["hits"][0]["relevance"] is None
    assert len(call(*base, "--like", "5", "-k", "100")["hits"]) == 99  # the funnel keeps 100
    # The row itself is left out, and the others follow as they did.
    assert [hit["id"] for hit in by_row["hits"]] == [hit["id"] for hit in by_json["hits"][1:]]


def test_search_filters_and_counts(products_database: Database, call: Callable[..., Any]) -> None:
    base = ("search", products_database.owner_url, "products", "--funnel", "two_stages")
    arguments = (*base, "--like", "5", "-k", "4", "--filter", '{"price": {"$lt": 1000}}')
    found = call(*arguments, "--json")
    assert len(found["hits"]) == 4
    assert all(hit["id"] < 1000 for hit in found["hits"])
    lines = call(*arguments).splitlines()
    assert lines[0].split() == ["id", "score", "relevance"]
    assert [line.split()[0] for line in lines[1:]] == [str(hit["id"]) for hit in found["hits"]]
    nothing = call(*base, "--like", "5", "--filter", '{"price": {"$lt": -1}}')
    assert nothing == "no hits\n"


def test_search_pages_and_prints_returned_columns(
    products_database: Database, products: Any, call: Callable[..., Any]
) -> None:
    products.execute(
        "select funnelvec.create_funnel('priced', 'products', 'embedding', '16:f16@100 > 32:f32',"
        " returns => array['price'])"
    )
    base = ("search", products_database.owner_url, "products", "--funnel", "priced", "--like", "5")
    hits = call(*base, "-k", "6", "--json")["hits"]
    (price,) = products.execute(
        "select price from products where id = %s", (hits[0]["id"],)
    ).fetchone()
    assert hits[0]["columns"] == {"price": price}
    rest = call(*base, "-k", "3", "--after", hits[2]["cursor"], "--json")["hits"]
    assert rest == hits[3:]
    head, *lines = (line.split() for line in call(*base, "-k", "6").splitlines())
    assert head == ["id", "price", "score", "relevance"]
    assert [line[:2] for line in lines] == [
        [str(h["id"]), str(h["columns"]["price"])] for h in hits
    ]
    assert cli.main([*base, "--after", "17"]) == 1


def test_explain_shows_every_stage(products_database: Database, call: Callable[..., Any]) -> None:
    arguments = ("explain", products_database.owner_url, "products", "--like", "7")
    found = call(*arguments, "--funnel", "three_stages", "--json")
    assert [stage["resolution"] for stage in found["stages"]] == ["16:f16", "32:bit", "32:f32"]
    assert found["stages"][0]["access"].startswith("index")
    assert found["stages"][0]["rows_out"] == 200
    text = call(*arguments, "--funnel", "three_stages")
    assert "rows out" in text
    assert "rescore" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--like", "999999"), "no row with the key '999999'"),
        (("--like", "five"), "five"),
        (("--query", "[1, 2]"), f"{DIMS}"),
        (("--query", '["a"]'), "real numbers"),
        (("--query", "[" + "0," * (DIMS - 1) + "0]"), "zero"),
        (("--query", str([1.0] * DIMS), "-k", "101"), "100"),
        (("--like", "5", "--funnel", "nope"), "two_stages"),
        (("--like", "5", "--min-relevance", "0.5"), "calibrat"),
        (("--like", "5", "--filter", '{"colour": 5}'), "colour"),
        (("--like", "5", "--filter", "[]"), "filter"),
        (("--like", "5", "--vector", "nope"), "nope"),
        (("--like", "5'; drop table products; --"), "drop table"),
    ],
)
def test_what_cannot_be_searched_is_one_line(
    products_database: Database,
    arguments: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = ["search", products_database.owner_url, "products"]
    chosen = [] if "--funnel" in arguments else ["--funnel", "two_stages"]
    assert cli.main([*base, *chosen, *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("funnelvec: error: ")
    assert said in line


def test_a_table_that_is_not_there(owner_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["search", owner_url, "nope", "--like", "1"], ["status", owner_url, "nope"]):
        assert cli.main(command) == 1
        assert "'nope' does not exist" in capsys.readouterr().err


def test_status_names_what_repair_would_mend(
    products_database: Database, products: Any, call: Callable[..., Any]
) -> None:
    products.execute("drop function two_stages")
    printed = call("status", products_database.owner_url)
    assert "two_stages" in printed and "repair" in printed
    (problem,) = call("status", products_database.owner_url, "--json")["problems"]
    assert "two_stages" in problem["object"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_repair_from_python(products_database: Database, products: Any, how: str) -> None:
    with awaited.opened(products_database.owner_url, how) as engine:
        assert (engine.problems(), engine.repair()) == ([], [])
        products.execute("drop function two_stages")
        products.execute("alter table products rename embedding_16_f16 to short")
        named = {problem.object: problem.advice for problem in engine.problems()}
        assert "select funnelvec.repair();" in named["function public.two_stages"]
        planned = engine.repair(dry_run=True)
        assert {problem.object: problem.advice for problem in engine.problems()} == named
        assert fv.Repair("function public.two_stages", "write: it was missing") in planned
        assert engine.repair() == planned
        assert (engine.problems(), engine.repair()) == ([], [])
        assert engine.table("products").search(Q, funnel="two_stages")
        for wrong in (None, "yes", 1):
            with pytest.raises(InvalidInput, match="dry_run must be True or False"):
                engine.repair(dry_run=wrong)  # type: ignore[arg-type]


def test_repair_in_the_shell(
    products_database: Database,
    products: Any,
    call: Callable[..., Any],
) -> None:
    url = products_database.owner_url
    assert call("repair", url) == "nothing to repair\n"
    products.execute("drop function two_stages")
    for _ in range(2):
        printed = call("repair", url, "--dry-run")
        assert printed == "function public.two_stages: write: it was missing\n"
    assert call("repair", url, "--json") == {
        "dry_run": False,
        "repairs": [{"object": "function public.two_stages", "action": "write: it was missing"}],
        "problems": [],
    }
    assert call("repair", url) == "nothing to repair\n"


def test_what_cannot_be_repaired_is_said(
    products_database: Database, products: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    products.execute("drop function two_stages")
    products.execute("create function two_stages(vector) returns int language sql as 'select 1'")
    products.execute("alter table products drop constraint products_pkey")
    assert cli.main(["repair", products_database.owner_url]) == 1
    printed = capsys.readouterr().out
    assert "two_stages: not repaired: " in printed and "left: function" in printed


@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_status_shows_the_metric(
    owner_conn: Any, owner_url: str, call: Callable[..., Any], metric: str
) -> None:
    owner_conn.execute("create table docs (id bigint primary key, embedding vector(4))")
    owner_conn.execute(
        "select funnelvec.add_resolution('docs', 'embedding', '2:f16', metric => %s)", (metric,)
    )
    owner_conn.execute(
        "select funnelvec.create_funnel('docs_search', 'docs', 'embedding', '4:f32')"
    )
    found = call("status", owner_url, "--json")
    assert [each["metric"] for each in (*found["resolutions"], *found["funnels"])] == [metric] * 2
    lines = call("status", owner_url).splitlines()
    assert sum(metric in line.split() for line in lines) == 2


# -- load ----------------------------------------------------------------------------------------


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "sku": range(500),
            "vec": pa.array(list(vectors(500, seed=4)), pa.list_(pa.float32())),
            "price": [float(i) for i in range(500)],
            "colour": ["red"] * 500,
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=90)
    return tmp_path / "rows.parquet"


def test_load_reads_files_and_goes_on(
    pg_database: Database, call: Callable[..., Any], rows_file: Path
) -> None:
    url, names = pg_database.owner_url, ["--ids", "sku", "--vectors", "vec"]
    with fv.connect(url) as engine:
        engine.create("docs", dims=DIMS, columns={"price": "number", "name": "text"})
    planned = call("load", url, "docs", str(rows_file), *names, "--dry-run")
    assert planned.startswith("500 rows can be loaded into docs; nothing was written")
    said = call("load", url, "docs", str(rows_file), *names, "--columns", "price,name=colour")
    assert said.startswith("loaded 500 rows into docs in ")
    done = call(
        "load",
        url,
        "docs",
        str(rows_file),
        *names,
        "--upsert",
        "--batch",
        "200",
        "--name",
        "again",
        "--json",
    )
    assert (done["updated"], done["batches"], done["unused"]) == (500, 3, ["colour"])
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*), min(name), sum(price) from docs").fetchone()
        assert row == (500, "red", 499 * 250)
        connection.execute("update funnelvec.loads set finished_at = null where name = 'again'")
    said = call("load", url, "docs", str(rows_file), *names, "--upsert", "--name", "again")
    assert "loaded 0 rows" in said and "500 rows were in from before" in said
    assert "not used: colour" in said
    done = call("load", url, "docs", str(rows_file), *names, "--upsert", "--restart", "--json")
    assert (done["skipped"], done["updated"]) == (0, 500)


def test_load_reads_arrays(pg_database: Database, call: Callable[..., Any], tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", vectors(50))
    np.save(tmp_path / "k.npy", np.arange(50))
    with fv.connect(pg_database.owner_url) as engine:
        engine.create("docs", dims=DIMS)
    arguments = ["docs", str(tmp_path / "v.npy"), "--ids", str(tmp_path / "k.npy"), "--json"]
    assert call("load", pg_database.owner_url, *arguments)["inserted"] == 50


def test_load_that_fails_says_where_and_how_to_go_on(
    pg_database: Database, rows_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, names = pg_database.owner_url, ["--ids", "sku", "--vectors", "vec"]
    with fv.connect(url) as engine:
        docs = engine.create("docs", dims=DIMS)
        docs.add([450], vectors(1))
    assert cli.main(["load", url, "docs", str(rows_file), *names, "--batch", "100"]) == 1
    said = capsys.readouterr().err
    assert "(id)=(450) already exists" in said and "400 rows of" in said and "goes on" in said
    assert cli.main(["load", url, "docs", str(rows_file), *names, "--upsert"]) == 0
    assert "loaded 100 rows into docs (99 new, 1 changed)" in capsys.readouterr().out
    assert cli.main(["load", url, "docs", str(rows_file)]) == 1
    assert "no column 'id'" in capsys.readouterr().err
    assert cli.main(["load", url, "docs", "/nowhere.parquet"]) == 1
    assert "there is no file" in capsys.readouterr().err


def test_an_interrupted_load_says_how_to_go_on(
    pg_database: Database,
    rows_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from funnelvec.engines import arrow

    def pressed(self: Any, start: int, size: int) -> Any:
        for number, chunk in enumerate(read(self, start, size)):
            if number == 2:
                raise KeyboardInterrupt
            yield chunk

    read = arrow.ParquetSource.chunks
    monkeypatch.setattr(arrow.ParquetSource, "chunks", pressed)
    with fv.connect(pg_database.owner_url) as engine:
        engine.create("docs", dims=DIMS)
    arguments = ["docs", str(rows_file), "--ids", "sku", "--vectors", "vec", "--batch", "100"]
    assert cli.main(["load", pg_database.owner_url, *arguments]) == 130
    said = capsys.readouterr().err
    assert "funnelvec: interrupted: 200 rows of" in said and "goes on after them" in said
