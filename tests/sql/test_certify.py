"""certify, and what `cutoff => 'certified'` keeps, loses and refuses."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from funnelvec.calibration.guarantees import conformal_threshold, hoeffding_bentkus
from tests import databases
from tests.sql.tables import FUNNELS, text, vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database, Server

    Connection = psycopg.Connection[Any]

Q = text(vectors(1, seed=3)[0])
K = 40


@pytest.fixture(scope="module")
def judged_template(pg_server: Server, products_template: Database) -> Iterator[Database]:
    """60 queries with 30 judged rows each, every tenth of them without a relevant one."""
    with databases.copied(pg_server, products_template.name) as made:
        with databases.connected(made.owner_url) as owner:
            judge(owner)
        yield made


@pytest.fixture
def judged_database(pg_server: Server, judged_template: Database) -> Iterator[Database]:
    with databases.copied(pg_server, judged_template.name) as database:
        yield database


@pytest.fixture
def judged(judged_database: Database) -> Iterator[Connection]:
    with databases.connected(judged_database.owner_url) as connection:
        yield connection


def judge(products: Connection) -> None:
    products.execute(
        """
        create table judgments as
        select q.embedding as query, h.id,
            q.id % 10 > 0 and abs(hashint8(h.id * 31 + q.id)) % 1000 < 1000 * h.score as relevant
        from (select * from products where id < 60) as q
        cross join lateral two_stages(q.embedding, 30) as h
        """
    )
    products.execute("select funnelvec.calibrate('two_stages', 'judgments')")


def certify(connection: Connection, **arguments: Any) -> dict[str, Any]:
    options = "".join(f", {name} => {value}" for name, value in arguments.items())
    cursor = connection.execute(
        f"select * from funnelvec.certify('two_stages', 'judgments'{options})"
    )
    row = cursor.fetchone()
    assert row is not None and cursor.description is not None
    return dict(zip((column.name for column in cursor.description), row, strict=True))


def certified(connection: Connection, query: str, k: int = K) -> list[tuple[Any, ...]]:
    return connection.execute(
        "select * from two_stages(%s, %s, cutoff => 'certified')", (query, k)
    ).fetchall()


def by_hand(connection: Connection) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Scores and labels of every query's exact top K; a row the funnel loses scores -9."""
    labels, scores = defaultdict(list), defaultdict(list)
    found = {
        (query, id): score
        for query, id, score in connection.execute(
            "select q.query::text, s.id, s.score from (select distinct query from judgments) as q"
            " cross join lateral two_stages(q.query, %s) as s",
            (K,),
        )
    }
    rows = connection.execute(
        """
        select q.query::text, t.id, coalesce(j.relevant, false)
        from (select distinct query from judgments) as q
        cross join lateral (select id from products order by (embedding <=> q.query) + 0 limit %s) as t
        left join judgments as j on j.query = q.query and j.id = t.id
        """,
        (K,),
    ).fetchall()
    for query, id, relevant in rows:
        labels[query].append(relevant)
        scores[query].append(found.get((query, id), -9.0))
    return (np.array(list(scores.values())), np.array(list(labels.values())))


def test_the_cutoff_is_the_one_of_conformal_risk_control(judged: Connection) -> None:
    scores, labels = by_hand(judged)
    for level in (0.05, 0.1, 0.3):
        found = certify(judged, max_miss=level, k=K)
        expected = conformal_threshold(scores, labels, max_miss=level)
        assert found["cutoff"] == pytest.approx(expected.threshold, abs=1e-6)
        assert found["observed"] == pytest.approx(expected.observed, abs=1e-9)
        assert found["low"] <= found["observed"] <= found["high"]
        assert (found["level"], found["top_k"], found["queries"]) == (level, K, 60)
        assert found["without_relevant"] == pytest.approx(0.1)
        assert found["stages"] == FUNNELS["two_stages"]


def test_a_certified_search_returns_what_the_cutoff_leaves(judged: Connection) -> None:
    found = certify(judged, max_miss=0.3, k=K)
    rows = judged.execute("select * from two_stages(%s, %s)", (Q, 100)).fetchall()
    kept = certified(judged, Q, 100)
    assert kept == [row for row in rows if row[1] >= found["cutoff"]]
    assert 0 < len(kept) < 100
    # The relevance that is told with it means the same cutoff.
    assert found["relevance"] == pytest.approx(
        judged.execute(
            "select funnelvec.relevance('two_stages', %s)", (found["cutoff"],)
        ).fetchone()[0]  # type: ignore[index]
    )


def test_the_promise_holds_for_the_queries_that_made_it(judged: Connection) -> None:
    found = certify(judged, max_miss=0.1, k=K)
    scores, labels = by_hand(judged)
    counts = labels.sum(axis=1)
    lost = (labels & (scores < found["cutoff"])).sum(axis=1) / np.maximum(counts, 1)
    assert lost.mean() == pytest.approx(found["observed"], abs=1e-9)
    assert lost.mean() <= (0.1 * 61 - 1) / 60


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("two_stages(%s, 39, cutoff => 'certified')", "k is 39"),
        ("two_stages(%s, 40, cutoff => 'certified', filter => '{\"id\": 5}')", "without a filter"),
        ("two_stages(%s, 40, cutoff => 'best')", "cutoff is 'best'"),
        ("two_stages(%s, 40, cutoff => 'best_f1', min_relevance => 0.5)", "are given"),
        ("two_stages(%s, 40, min_relevance => 0.5, cutoff => 'certified')", "are given"),
    ],
)
def test_what_the_promise_is_not_about_is_refused(
    judged: Connection, search: str, said: str
) -> None:
    certify(judged, k=K)
    with pytest.raises(psycopg.Error, match=said) as caught:
        judged.execute(f"select * from {search}", (Q,))  # type: ignore[arg-type]
    assert caught.value.sqlstate == "FV004"


def test_without_a_certificate_there_is_no_certified_cutoff(judged: Connection) -> None:
    with pytest.raises(psycopg.Error, match="has no certificate") as caught:
        certified(judged, Q)
    assert caught.value.sqlstate == "FV006"
    assert "funnelvec.certify(" in str(caught.value.diag.message_hint)


def test_a_certificate_is_void_with_another_calibration_or_funnel(judged: Connection) -> None:
    certify(judged, k=K)
    assert certified(judged, Q)
    judged.execute("select funnelvec.calibrate('two_stages', 'judgments')")
    with pytest.raises(psycopg.Error, match="void"):
        certified(judged, Q)
    certify(judged, k=K)
    funnel, table = judged.execute(
        "select funnel, table_name::text from funnelvec.funnels where name = 'two_stages'"
    ).fetchone()  # type: ignore[misc]
    judged.execute(
        "select funnelvec.create_funnel('two_stages', %s, 'embedding', %s, replace => true)",
        (table, funnel),
    )
    with pytest.raises(psycopg.Error, match="has no certificate"):
        certified(judged, Q)


def test_too_few_queries_are_refused_with_the_number_needed(judged: Connection) -> None:
    with pytest.raises(
        psycopg.Error, match="needs at least 99 judged queries, and there are 60"
    ) as caught:
        certify(judged, max_miss=0.01)
    assert caught.value.sqlstate == "FV007"
    assert "Judge 39 more" in str(caught.value.diag.message_hint)
    can = str(caught.value.diag.message_hint).rsplit(" ", 1)[1].rstrip(".")
    assert certify(judged, max_miss=can)["level"] == float(can)


def test_what_the_stages_lose_alone_is_said_with_what_can_be_promised(judged: Connection) -> None:
    judged.execute(
        "select funnelvec.create_funnel('lossy', 'products', 'embedding', '16:f16@40 > 32:f32')"
    )
    # Relevant is only what the first stage does not keep: no cutoff brings that back.
    judged.execute("delete from judgments")
    judged.execute(
        """
        insert into judgments
        select q.embedding, t.id, true
        from products as q
        cross join lateral (select p.id from products as p order by (p.embedding <=> q.embedding) + 0 limit 40) as t
        where q.id < 60 and t.id not in (select s.id from lossy(q.embedding, 40) as s)
        """
    )
    with pytest.raises(psycopg.Error, match=r"stages alone lose 1\.0000") as caught:
        judged.execute("select funnelvec.certify('lossy', 'judgments', k => 40)")
    assert caught.value.sqlstate == "FV007"
    judged.execute("update judgments set relevant = false")
    with pytest.raises(psycopg.Error, match="nothing to promise"):
        judged.execute("select funnelvec.certify('lossy', 'judgments', k => 40)")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_miss": 0}, "max_miss is 0"),
        ({"max_miss": 1}, "max_miss is 1"),
        ({"max_miss": "'nan'"}, "max_miss is NaN"),
        ({"max_miss": 0.1, "min_precision": 0.9}, "max_miss and min_precision are given"),
        ({"min_precision": 1}, "min_precision is 1"),
        ({"min_precision": 0.9, "confidence": 0}, "confidence is 0"),
        ({"min_precision": 0.9, "confidence": "null"}, "confidence is null"),
        ({"min_precision": 0.9, "unjudged": "'guess'"}, "unjudged is 'guess'"),
        ({"k": 0}, "k is 0"),
        ({"k": 100000}, "k is 100000"),
    ],
)
def test_arguments_out_of_range(judged: Connection, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(psycopg.Error, match=said) as caught:
        certify(judged, **arguments)
    assert caught.value.sqlstate == "FV004"


def test_a_funnel_without_a_calibration_cannot_be_certified(judged: Connection) -> None:
    judged.execute(
        "select funnelvec.create_funnel('new', 'products', 'embedding', '32:f32', model => 'another')"
    )
    with pytest.raises(psycopg.Error, match="has no calibration") as caught:
        judged.execute("select funnelvec.certify('new', 'judgments')")
    assert caught.value.sqlstate == "FV006"


def test_only_the_owner_certifies(judged: Connection, judged_database: Database) -> None:
    judged.execute("grant select on products, judgments to public")
    certify(judged, k=K)
    with databases.connected(judged_database.other_url) as other:
        with pytest.raises(psycopg.Error, match="must be owner"):
            certify(other)
        assert certified(other, Q) == certified(judged, Q)


def test_a_certificate_is_read_back_from_the_function(judged: Connection) -> None:
    certify(judged, max_miss=0.3, k=K)
    before = certified(judged, Q, 100)
    registered = "select certificate from funnelvec.funnels where name = 'two_stages'"
    known = judged.execute(registered).fetchone()
    judged.execute("delete from funnelvec.funnels")
    judged.execute("select funnelvec.repair()")
    assert judged.execute(registered).fetchone() == known
    assert certified(judged, Q, 100) == before


@pytest.mark.parametrize(
    "change",
    [
        '{"k": "40); drop table products; --"}',
        '{"cutoff": "0); --"}',
        '{"cutoff": 1e999}',
        '{"k": 0}',
    ],
)
def test_an_odd_certificate_is_none(judged: Connection, change: str) -> None:
    certify(judged, k=K)
    judged.execute(
        "update funnelvec.funnels set certificate = jsonb_build_object('max_miss',"
        " certificate -> 'max_miss' || %s) where name = 'two_stages'",
        (change,),
    )
    judged.execute("select funnelvec._write_function(funnelvec._funnel('two_stages'))")
    with pytest.raises(psycopg.Error, match="void"):
        certified(judged, Q)
    assert judged.execute("select count(*) > 0 from products").fetchone() == (True,)


def test_the_p_value_is_that_of_python(judged: Connection) -> None:
    for mean, level, n in (
        (0.0, 0.1, 29), (0.0, 0.1, 2000), (0.05, 0.1, 60), (0.1, 0.1, 60), (0.2, 0.1, 60),
        (0.5, 0.9, 3000), (1.0, 0.5, 10), (0.001, 0.99, 5000), (0.3, 0.31, 1),
    ):  # fmt: skip
        found = judged.execute(
            "select funnelvec._hoeffding_bentkus(%s, %s, %s)", (mean, level, n)
        ).fetchone()
        assert found == (pytest.approx(hoeffding_bentkus(mean, level, n), rel=1e-9, abs=1e-300),)


def test_status_shows_certificates_and_what_has_become_of_them(judged: Connection) -> None:
    certify(judged, max_miss=0.3, k=K)
    certify(judged, min_precision=0.3, k=K)
    shown = (
        "select object, advice from funnelvec.status('products') where storage = 'certificate'"
        " order by object"
    )
    missed, precise = judged.execute(shown).fetchall()
    assert missed[0].startswith("certificate of public.two_stages: max_miss 0.3; 40 rows")
    assert "10.0 % without a relevant row" in missed[0] and missed[0].endswith("; in force")
    assert precise[0].startswith(
        "certificate of public.two_stages: min_precision 0.3, confidence 0.95; 40 rows"
    )
    assert "approximate: the calibration was fitted to the same judgments" in precise[0]
    assert (missed[1], precise[1]) == ("", "")
    assert judged.execute("select count(*) from funnelvec._problems()").fetchone() == (0,)
    judged.execute("select funnelvec.calibrate('two_stages', 'judgments')")
    for _, advice in judged.execute(shown).fetchall():
        assert "void" in advice and "select * from funnelvec.certify(" in advice
    kinds = judged.execute(
        "select kind, state, level, confidence, top_k, queries from funnelvec.list_certificates()"
    ).fetchall()
    void = "void: the funnel or its calibration has changed"
    assert kinds == [
        ("max_miss", void, 0.3, None, K, 60), ("min_precision", void, 0.3, 0.95, K, 60),
    ]  # fmt: skip
