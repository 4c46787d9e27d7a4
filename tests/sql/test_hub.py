"""The hub column in SQL: what it holds, how it is kept in step, and what searches make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from funnelvec.calibration.corpus import hub_bias
from funnelvec.engines.hubs import hashed
from tests import databases
from tests.databases import OTHER
from tests.sql.tables import search, text, vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.databases import Database, Server

    Connection = psycopg.Connection[Any]

ROWS, DIMS = 200, 8
Q = text(vectors(1, seed=3, dims=DIMS)[0])


def data() -> np.ndarray[Any, Any]:
    found = vectors(ROWS, dims=DIMS)
    found[::3] += 1.0  # these lie together, where queries come by
    return found


FURNITURE = """
    select funnelvec.add_resolution('docs', 'embedding', '4:f16', index => true);
    select funnelvec.create_funnel('docs_search', 'docs', 'embedding', '4:f16@100 > 8:f32');
    select funnelvec.create_funnel('alone', 'docs', 'embedding', '8:f32');
    create table judgments as
    select q.embedding as query, h.id, h.id % 3 <> 0 and h.score > 0.4 as relevant
    from (select * from docs where id < 30) as q cross join lateral docs_search(q.embedding, 60) as h;
    select funnelvec.add_hub('docs', 'embedding');
    select funnelvec.calibrate('docs_search', 'judgments');
"""


@pytest.fixture(scope="module")
def template(pg_server: Server) -> Iterator[Database]:
    """A table with a hub column that its calibration takes into account."""
    database = databases.Database(pg_server, databases.new_name(pg_server))
    with databases.connected(pg_server.url()) as admin:
        databases.create_database(admin, database.name, template=pg_server.template("funnelvec"))
    with databases.connected(database.owner_url) as owner:
        owner.execute(
            "create table docs (id bigint primary key, embedding vector(8), price float8)"
        )
        with owner.cursor().copy("copy docs from stdin") as copy:
            for number, row in enumerate(data()):
                copy.write_row((number, text(row), float(number)))
        owner.execute(FURNITURE.encode())
    yield database
    with databases.connected(pg_server.url()) as admin:
        databases.drop_database(admin, database.name)


@pytest.fixture
def database(pg_server: Server, template: Database) -> Iterator[Database]:
    with databases.copied(pg_server, template.name) as copied:
        yield copied


@pytest.fixture
def docs(database: Database) -> Iterator[Connection]:
    with databases.connected(database.owner_url) as connection:
        yield connection


def one(connection: Connection, statement: str, *values: Any) -> Any:
    row = connection.execute(statement.encode(), values).fetchone()
    assert row is not None
    return row[0]


def hub(connection: Connection, key: int) -> float | None:
    found = one(connection, "select embedding_hub from docs where id = %s", key)
    return None if found is None else float(found)


def of(vector: np.ndarray[Any, Any], key: int = -1) -> float:
    """The raw hub of a vector: the mean of the 128 largest cosines with the rows but its own."""
    own = np.array([key if 0 <= key < ROWS else -1])
    return float(hub_bias(units(vector[np.newaxis]), units(data()), own=own)[0])


def units(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """As the bank keeps them."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return (rows / lengths).astype(np.float32).astype(np.float16).astype(np.float32)


def faults(connection: Connection) -> list[Any]:
    return connection.execute(
        "select object, advice from funnelvec.status() where advice <> '' order by 1"
    ).fetchall()


def test_every_row_has_its_hub(docs: Connection) -> None:
    found = np.array([hub(docs, key) for key in range(ROWS)], dtype=np.float64)
    wanted = np.array([of(row, key) for key, row in enumerate(data())])
    np.testing.assert_allclose(found, wanted - wanted.mean(), atol=1e-6)
    assert found[::3].mean() > 0.1 > found[1::3].mean()
    assert faults(docs) == []
    said = docs.execute("select object from funnelvec.status() where storage = 'hub'").fetchall()
    assert [row[0] for row in said] == [
        "hub column embedding_hub: mean of the 128 largest cosines with a bank of rows in public.docs_embedding_bank"
    ]


def test_writes_keep_it_in_step(docs: Connection) -> None:
    mean = of(data()[5], 5) - (hub(docs, 5) or 0)
    new = text(data()[5] + np.float32(0.1))
    docs.execute("insert into docs values (500, %s)", (new,))
    assert hub(docs, 500) == pytest.approx(of(data()[5] + 0.1) - mean, abs=1e-6)
    docs.execute("update docs set embedding = %s where id = 7", (new,))
    assert hub(docs, 7) == pytest.approx(of(data()[5] + 0.1, 7) - mean, abs=1e-6)
    # A row of the bank that takes another key has its old self as a neighbour.
    docs.execute("update docs set id = 501 where id = 9")
    assert hub(docs, 501) == pytest.approx(of(data()[9]) - mean, abs=1e-6)
    # Nobody writes a hub of his own, and what does not change the vector changes nothing.
    before = hub(docs, 11)
    docs.execute("update docs set embedding_hub = 5 where id = 11")
    docs.execute("update docs set price = 1, embedding = embedding where id = 11")
    assert hub(docs, 11) == before
    docs.execute("update docs set embedding = null where id = 11")
    assert hub(docs, 11) is None
    docs.execute("insert into docs values (502, '[0,0,0,0,0,0,0,0]'), (503, null)")
    assert (hub(docs, 502), hub(docs, 503)) == (None, None)
    found = docs.execute(
        "select id, relevance from docs_search(%s, 100)", (text(data()[5]),)
    ).fetchall()
    assert 502 not in {row[0] for row in found} and 500 in {row[0] for row in found}


def test_searches_go_by_the_corrected_score(docs: Connection) -> None:
    alpha = one(docs, "select (parameters ->> 'alpha')::float8 from funnelvec.calibrations")
    assert alpha > 0.2
    wanted = docs.execute(
        "select id, 1 - (embedding <=> %s) - %s * embedding_hub from docs order by 2 desc, 1 limit 20",
        (Q, alpha),
    ).fetchall()
    found = search(docs, "docs_search", Q, k=20, filter='{"price": {"$gte": 0}}')
    assert [row[0] for row in found][:5] == [row[0] for row in wanted][:5]
    known = dict(wanted)
    for key, score, relevance in found:
        assert score == pytest.approx(known.get(key, score), abs=1e-12)
        assert relevance == pytest.approx(
            one(docs, "select funnelvec.relevance('docs_search', %s)", score), abs=1e-12
        )
    middle = (found[9][2] + found[10][2]) / 2
    assert search(docs, "docs_search", Q, k=20, min_relevance=middle) == found[:10]
    cutoff = one(docs, "select funnelvec.cutoff('docs_search', %s)", middle)
    assert found[9][1] > cutoff > found[10][1]
    notes = one(
        docs, "select notes from funnelvec.explain('docs_search', %s, 20) where stage = 2", Q
    )
    assert f"the score is less {alpha:.6f} times embedding_hub" in notes
    # The next page begins behind the corrected score.
    place = f'{{"score": {found[4][1]!r}, "key": [{found[4][0]}]}}'
    assert search(docs, "docs_search", Q, k=5, after=place) == found[5:10]
    # A single stage has no shortlist to put into another order, and its score is the raw one.
    alone = search(docs, "alone", Q, k=3)
    assert alone[0][1] == pytest.approx(
        one(docs, "select max(1 - (embedding <=> %s)) from docs", Q), abs=1e-12
    )
    assert alone[0][2] is None


def test_without_a_hub_in_force_the_text_is_what_it_was(docs: Connection) -> None:
    text = "select prosrc from pg_proc where proname = 'docs_search'"
    assert "embedding_hub" in one(docs, text)
    docs.execute("select funnelvec.drop_hub('docs', 'embedding')")
    docs.execute("select funnelvec.calibrate('docs_search', 'judgments')")
    before = one(docs, text)
    docs.execute("select funnelvec.add_hub('docs', 'embedding')")
    assert "hub" not in before and one(docs, text) == before


def test_what_fails_the_hub_fails_no_write(docs: Connection) -> None:
    docs.execute("alter table docs rename column embedding to vec")
    docs.execute("alter table docs rename column embedding_hub to hubness")
    docs.execute("alter table docs rename column id to number")
    docs.execute("insert into docs values (600, %s)", (text(data()[5]),))
    # Its own vector is in the bank under another key.
    assert one(docs, "select hubness from docs where number = 600") > one(
        docs, "select hubness from docs where number = 5"
    )
    assert len(docs.execute("select * from funnelvec.repair()").fetchall()) >= 2
    assert faults(docs) == []
    assert len(docs.execute("select * from docs_search(%s)", (Q,)).fetchall()) == 10
    docs.execute("drop table docs_embedding_bank")
    docs.execute("insert into docs values (601, %s)", (text(data()[6]),))
    assert one(docs, "select hubness from docs where number = 601") is None
    (said,) = [advice for what, advice in faults(docs) if "hub column" in what]
    assert said.startswith("its bank is gone") and "1 rows have none" in said
    docs.execute("select funnelvec.drop_hub('docs', 'vec')")
    assert faults(docs) == []


def test_a_table_that_moves_leaves_its_bank_where_it_is(docs: Connection) -> None:
    docs.execute("create schema elsewhere; alter table docs set schema elsewhere")
    docs.execute("select funnelvec.repair(); set search_path = elsewhere, public")
    docs.execute("insert into docs values (600, %s)", (text(data()[5]),))
    assert hub(docs, 600) is not None
    assert [row for row in faults(docs) if "hub" in row[0]] == []
    assert len(docs.execute("select * from elsewhere.docs_search(%s)", (Q,)).fetchall()) == 10
    docs.execute("select funnelvec.drop_hub('docs', 'embedding')")
    assert one(docs, "select to_regclass('public.docs_embedding_bank')") is None


def test_repair_brings_the_trigger_back(docs: Connection) -> None:
    trigger = one(docs, "select tgname from pg_trigger where not tgisinternal")
    docs.execute(f"alter table docs disable trigger {trigger}".encode())
    docs.execute("insert into docs values (700, %s)", (text(data()[5]),))
    assert any("is disabled" in advice for _, advice in faults(docs))
    docs.execute("select funnelvec.repair()")
    (said,) = faults(docs)
    docs.execute(said[1].split(": ", 1)[1].encode())
    assert hub(docs, 700) is not None and faults(docs) == []
    docs.execute(f"drop trigger {trigger} on docs".encode())
    assert any("its trigger is gone" in advice for _, advice in faults(docs))
    docs.execute("select funnelvec.repair()")
    assert faults(docs) == []
    docs.execute("insert into docs values (701, %s)", (text(data()[5]),))
    assert hub(docs, 701) == hub(docs, 700)
    # Whoever drops the column has the searches mended, and the rest goes with the table.
    docs.execute("alter table docs drop column embedding_hub cascade")
    with pytest.raises(psycopg.Error):
        docs.execute("select * from docs_search(%s)", (Q,))
    docs.execute("select funnelvec.repair()")
    assert {row[2] for row in search(docs, "docs_search", Q)} == {None}
    assert faults(docs) == []
    assert one(docs, "select to_regclass('docs_embedding_bank')") is None


def test_rows_are_filled_in_batches(docs: Connection) -> None:
    kept = [hub(docs, key) for key in range(ROWS)]
    about = one(docs, "select object from funnelvec.status() where storage = 'hub'")
    docs.execute("select funnelvec.drop_hub('docs', 'embedding')")
    docs.execute("insert into docs values (900, null), (901, '[0,0,0,0,0,0,0,0]')")
    docs.execute("select funnelvec.add_hub('docs', 'embedding', concurrently => true)")
    assert hub(docs, 5) is None
    step = one(docs, "select funnelvec.next_step('docs')")
    assert step == "call funnelvec.backfill('public.docs');"
    assert step in dict(faults(docs))[about]
    docs.execute("update docs set embedding = embedding where id = 5")
    assert hub(docs, 5) is not None  # whoever writes a row has it measured
    docs.execute(step.replace("docs')", "docs', 60)").encode())
    assert one(docs, "select funnelvec.next_step('docs')") is None
    assert [hub(docs, key) for key in range(ROWS)] == kept
    assert dict(faults(docs))[about].startswith(
        "1 rows have none (written past its trigger, or zero)"
    )


def test_refusals(docs: Connection, database: Database) -> None:
    for statement, state in (
        ("select funnelvec.add_hub('docs', 'embedding')", "FV008"),
        ("select funnelvec.add_hub('docs', 'price')", "FV009"),
        ("select funnelvec.add_hub('docs', 'embedding', 19)", "FV004"),
        ("select funnelvec.add_hub('docs', 'embedding', null)", "FV004"),
        ("select funnelvec.drop_hub('judgments', 'query')", "FV005"),
    ):
        with pytest.raises(psycopg.Error) as refused:
            docs.execute(statement.encode())
        assert refused.value.sqlstate == state, statement
        assert refused.value.diag.message_hint
    docs.execute("create table few (id int primary key, embedding vector(8))")
    docs.execute("insert into few select id, embedding from docs where id < 19")
    with pytest.raises(psycopg.Error, match="at least 20") as refused:
        docs.execute("select funnelvec.add_hub('few', 'embedding')")
    assert refused.value.sqlstate == "FV007"
    assert one(docs, "select to_regclass('few_embedding_bank')") is None
    docs.execute("alter table few add embedding_hub int")
    with pytest.raises(psycopg.Error, match="funnelvec did not make it"):
        docs.execute("select funnelvec.add_hub('few', 'embedding')")
    with psycopg.connect(database.other_url, autocommit=True) as other:
        for call in ("add_hub('few', 'embedding')", "drop_hub('docs', 'embedding')"):
            with pytest.raises(psycopg.Error) as refused:
                other.execute(f"select funnelvec.{call}".encode())
            assert refused.value.sqlstate == "42501"


def test_others_write_and_search_with_no_right_on_the_bank(
    docs: Connection, database: Database
) -> None:
    docs.execute(f"grant select, insert, update on docs to {OTHER}".encode())
    with psycopg.connect(database.other_url, autocommit=True) as other:
        other.execute("insert into docs values (800, %s)", (text(data()[5]),))
        assert hub(other, 800) is not None
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute("select * from docs_embedding_bank")
        with pytest.raises(psycopg.Error):
            other.execute(
                "create trigger mine before insert on docs for each row execute function docs_embedding_bank()"
            )
        assert search(other, "docs_search", Q) == search(docs, "docs_search", Q)
        assert (
            other.execute("select * from funnelvec.status('docs') where advice <> ''").fetchall()
            == []
        )


def test_dump_and_restore(
    pg_server: Server, docs: Connection, database: Database, new_database: Callable[[str], Database]
) -> None:
    found = search(docs, "docs_search", Q, k=30)
    kept = [hub(docs, key) for key in range(ROWS)]
    dump = pg_server.run("pg_dump", "-Fp", "--no-comments", database.owner_url)
    target = new_database("vector")
    with databases.connected(target.superuser_url) as admin:
        admin.execute("create extension if not exists vector")
    pg_server.run("psql", "-q", "-d", target.owner_url, stdin=dump)
    with databases.connected(target.owner_url) as restored:
        assert search(restored, "docs_search", Q, k=30) == found
        assert [hub(restored, key) for key in range(ROWS)] == kept
        restored.execute("insert into docs values (900, %s)", (text(data()[5]),))
        docs.execute("insert into docs values (900, %s)", (text(data()[5]),))
        assert hub(restored, 900) == hub(docs, 900)
        assert faults(restored) == []
        assert (
            one(restored, "select version from funnelvec.calibrate('docs_search', 'judgments')")
            == 2
        )


@pytest.mark.parametrize("kind", ["partitioned", "halfvec", "dot"])
def test_kinds_of_tables(docs: Connection, kind: str) -> None:
    vector = "halfvec(8)" if kind == "halfvec" else "vector(8)"
    docs.execute(
        f"create table t (a int, b text, v {vector}, primary key (a, b))"
        f"{' partition by hash (a)' if kind == 'partitioned' else ''}".encode()
    )
    if kind == "partitioned":
        for part in (0, 1):
            docs.execute(
                f"create table t_{part} partition of t for values with (modulus 2, remainder {part})".encode()
            )
    # Of unit vectors the inner product is the cosine, so that the same judgments do for all.
    source = "l2_normalize(embedding)" if kind == "dot" else "embedding"
    docs.execute(f"insert into t select id, 'a, \"b\"', {source} from docs".encode())
    docs.execute("select funnelvec.add_hub('t', 'v', sample => 100)")
    last = "8:f16" if kind == "halfvec" else "8:f32"
    metric = "dot" if kind == "dot" else "cosine"
    docs.execute("select funnelvec.add_resolution('t', 'v', '4:f16', metric => %s)", (metric,))
    docs.execute(
        "select funnelvec.create_funnel('t_search', 't', 'v', %s)", (f"4:f16@100 > {last}",)
    )
    docs.execute(
        b"create table j as select q.v as query, h.a, h.b, row_number() over (partition by q.a, h.a % 3 = 0 order by h.score desc)"
        b"  < case when h.a % 3 = 0 then 8 else 15 end as relevant"
        b" from (select * from t where a < 30) as q cross join lateral t_search(q.v, 60) as h"
    )
    docs.execute("select funnelvec.calibrate('t_search', 'j')")
    assert one(
        docs,
        "select parameters ? 'alpha' from funnelvec.calibrations where table_name = 't'::regclass",
    )
    docs.execute("insert into t values (1000, 'x', %s)", (text(data()[5]),))
    assert one(docs, "select v_hub from t where a = 1000") is not None
    assert len(docs.execute("select * from t_search(%s, 20)", (Q,)).fetchall()) == 20
    assert one(docs, "select min(recall) from funnelvec.measure_recall('t_search', 20)") > 0.3
    assert [f for f in faults(docs) if "hub" in f[0]] == []


def test_a_bank_is_drawn_in_the_same_order_in_numpy(docs: Connection) -> None:
    for part in ("", "plain", "a b", 'a"b', "a\\b", "(x)", "ü,", "\t"):
        said = one(docs, "select row(%s::int, %s::text)::text", 5, part)
        assert hashed((5, part))[1] == said
    drawn = docs.execute("select key from docs_embedding_bank order by number").fetchall()
    assert [row[0] for row in drawn] == [f"({key})" for key in sorted(range(ROWS), key=hashed)]
