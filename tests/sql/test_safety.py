"""Attacks of one role on another, tried: planted rows, functions, casts, policies, names, values.

The attacker is OTHER, who may create things of his own in `public` and in a schema `lair`. Every trap
of his notes in the table `lair.caught` who ran into it; nothing may ever stand in there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests import databases
from tests.databases import OTHER, OWNER
from tests.sql.tables import fill, search, text, vectors

if TYPE_CHECKING:
    from tests.databases import Database, Server

    Connection = psycopg.Connection[Any]

Q = text(vectors(1, seed=3)[0])

#: What an owner, or an administrator, does in the course of a day.
DAY = (
    "select * from funnelvec.status()",
    "select * from funnelvec.repair(dry_run => true)",
    "select funnelvec.add_resolution('products', 'embedding', '8:f16', index => true)",
    "select funnelvec.create_funnel('g', 'products', 'embedding', '8:f16@50 > 32:f32', replace => true)",
    f"select * from public.products_search('{Q}', filter => '{{\"price\": {{\"$lt\": 90}}}}')",
    "select funnelvec.search_sql('products_search')",
    f"select * from funnelvec.explain('products_search', '{Q}')",
    "select * from funnelvec.measure_recall('products_search', 3)",
    "select * from funnelvec.calibrate('products_search', 'judgments')",
    "select funnelvec.relevance('products_search', 0.5)",
    "select funnelvec.cutoff('products_search', 0.5)",
    "select * from funnelvec.repair()",
    "select funnelvec.drop_funnel('g')",
    "select funnelvec.drop_resolution('products', 'embedding', '8:f16')",
)


@pytest.fixture(scope="module")
def shop_template(pg_server: Server) -> Iterator[Database]:
    """A calibrated funnel of the owner's, and the attacker's trap beside it."""
    with databases.copied(pg_server, pg_server.template("funnelvec")) as made:
        with databases.connected(made.owner_url) as owner:
            build(owner)
        with databases.connected(made.superuser_url) as admin:
            admin.execute(
                f"""
                create schema lair authorization {OTHER};
                grant usage on schema lair to public;
                grant create on schema public to public
                """  # type: ignore[arg-type]
            )
        with databases.connected(made.other_url) as attacker:
            attacker.execute(TRAP)
        yield made


def build(owner: Connection) -> None:
    fill(owner, vectors(300))
    owner.execute(
        "select funnelvec.add_resolution('products', 'embedding', '16:f16', index => true)"
    )
    owner.execute(
        "select funnelvec.create_funnel("
        "  'products_search', 'products', 'embedding', '16:f16@100 > 32:f32')"
    )
    owner.execute(
        """
        create table judgments as
        select q.embedding as query, h.id, h.score > 0.6 as relevant
        from (select * from products where id < 10) as q
        cross join lateral products_search(q.embedding, 20) as h;
        select funnelvec.calibrate('products_search', 'judgments')
        """
    )


TRAP = """
    create table lair.caught (who text);
    grant insert, select on lair.caught to public;
    create function lair.spring() returns boolean language plpgsql volatile as $$
    begin
        if current_user <> 'app_other' then
            insert into lair.caught values (current_user);
        end if;
        return true;
    end $$;
"""


@pytest.fixture
def pg_database(pg_server: Server, shop_template: Database) -> Iterator[Database]:
    with databases.copied(pg_server, shop_template.name) as database:
        yield database


@pytest.fixture
def owner(owner_conn: Connection) -> Connection:
    return owner_conn


@pytest.fixture
def attacker(pg_database: Database) -> Iterator[Connection]:
    with databases.connected(pg_database.other_url) as connection:
        yield connection


def assert_nobody_was_caught(attacker: Connection) -> None:
    assert attacker.execute("select * from lair.caught").fetchall() == []


def spend_a_day(database: Database, attacker: Connection, *, path: str = "public") -> None:
    """The owner and an administrator work as always, and get what they would without the attacker."""
    for url in (database.owner_url, database.superuser_url):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"set search_path = {path}")  # type: ignore[arg-type]
            for call in DAY:
                connection.execute(call)  # type: ignore[arg-type]
    assert_nobody_was_caught(attacker)


def refused(connection: Connection, call: str) -> str:
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(call)  # type: ignore[arg-type]
    return caught.value.sqlstate or ""


def test_the_trap_works(attacker: Connection, owner: Connection) -> None:
    owner.execute("select lair.spring()")
    assert attacker.execute("select * from lair.caught").fetchall() == [(OWNER,)]


def test_a_row_cannot_wait_for_a_table_of_somebody_elses(
    attacker: Connection, owner: Connection
) -> None:
    """Numbers of tables can be guessed; a row for the next one would be the next owner's."""
    number = owner.execute("select max(oid::bigint) + 5 from pg_class").fetchone()
    assert number is not None
    for rows in (
        "resolutions values ({}, 'embedding', '8:f16', 'cosine', 'id')",
        "funnels values ({}, 'f', 'embedding', '32:f32', 'cosine', false, '')",
        "calibrations values ({}, 'embedding', '', 'cosine', '32:f32', 9, 'platt',"
        """ '{{"slope": 1, "offset": 0}}', '', 0, 0, 0)""",
    ):
        assert refused(attacker, "insert into funnelvec." + rows.format(number[0])) == "42501"
        assert refused(attacker, "insert into funnelvec." + rows.format("'products'")) == "42501"
    attacker.execute("create view lair.v as select 1 as x")
    row = "resolutions values ('lair.v', 'embedding', '8:f16', 'cosine', 'x')"
    assert refused(attacker, f"insert into funnelvec.{row}") == "42501"
    # Nor can a row of one's own be moved over.
    attacker.execute("create table lair.t (id bigint primary key, embedding vector(32))")
    attacker.execute("select funnelvec.create_funnel('f', 'lair.t', 'embedding', '32:f32')")
    move = "update funnelvec.funnels set table_name = 'products' where name = 'f'"
    assert refused(attacker, move) == "42501"


def test_judgments_and_calibrations_are_for_readers_of_the_table(
    attacker: Connection, owner: Connection
) -> None:
    assert attacker.execute("select * from funnelvec.calibrations").fetchall() == []
    assert refused(attacker, "select * from judgments") == "42501"
    for call in (
        "select funnelvec.relevance('products_search', 0.5)",
        "select funnelvec.cutoff('products_search', 0.5)",
        "select * from funnelvec.calibrate('products_search', 'judgments')",
        "select funnelvec.search_sql('products_search')",
    ):
        assert refused(attacker, call) == "FV005"
    assert refused(attacker, f"select * from products_search('{Q}')") == "42501"
    # Judgments are the business of whoever calibrates: with a funnel of his own it is no way in.
    attacker.execute("create table lair.t (id bigint primary key, embedding vector(32))")
    attacker.execute("select funnelvec.create_funnel('f', 'lair.t', 'embedding', '32:f32')")
    assert refused(attacker, "select * from funnelvec.calibrate('f', 'judgments')") == "42501"
    owner.execute(f"grant select on products to {OTHER}")  # type: ignore[arg-type]
    assert len(attacker.execute("select * from funnelvec.calibrations").fetchall()) == 1
    assert refused(attacker, "select * from judgments") == "42501"


SHADOWS = """
    create function {0}.products_search(vector, integer) returns table (id bigint, score float8)
        language sql as 'select 1::bigint, 1.0::float8 where lair.spring()';
    create function {0}.format(text, text) returns text language sql as 'select ''x'' where lair.spring()';
    create function {0}.format(text, text, text) returns text
        language sql as 'select ''x'' where lair.spring()';
    create function {0}.count(text) returns bigint language sql as 'select 1 where lair.spring()';
    create function {0}.set_config(text, text, boolean) returns text
        language sql as 'select $2 where lair.spring()';
    create function {0}.vector_dims(vector) returns integer
        language sql as 'select 32 where lair.spring()';
    create function {0}.minus(integer, double precision) returns double precision
        language sql as 'select 1.0::float8 where lair.spring()';
    create operator {0}.- (leftarg = integer, rightarg = double precision, function = {0}.minus);
    create function {0}.near(vector, vector) returns double precision
        language sql as 'select 1.0::float8 where lair.spring()';
    create function {0}.same(bigint, integer) returns boolean language sql as 'select lair.spring()';
    create operator {0}.= (leftarg = bigint, rightarg = integer, function = {0}.same);
    create domain {0}.regclass as text check (lair.spring());
    create domain {0}.jsonb as text check (lair.spring());
"""


def test_objects_planted_on_the_search_path(attacker: Connection, pg_database: Database) -> None:
    attacker.execute(SHADOWS.format("lair"))  # type: ignore[arg-type]
    # Whoever puts another's schema before pg_catalog runs what is in there himself, before any of
    # our functions is called; behind it, and in public, nothing planted comes into play.
    attacker.execute(
        "create operator lair.<=> (leftarg = vector, rightarg = vector, function = lair.near)"
    )
    spend_a_day(pg_database, attacker, path="lair, public")


def test_objects_planted_in_public(attacker: Connection, pg_database: Database) -> None:
    shadows = SHADOWS.replace(
        "create function {0}.vector_dims(vector)", "create function {0}.dims(vector)"
    )
    attacker.execute(shadows.format("public"))  # type: ignore[arg-type]
    spend_a_day(pg_database, attacker)


def test_temporary_objects_do_not_shadow(owner: Connection) -> None:
    """pg_temp stands last in the path, and one's own session is no attacker; still it has to work."""
    owner.execute("create temporary table products (id bigint, embedding vector(32))")
    owner.execute("create temporary table funnels (x integer)")
    assert len(search(owner, "products_search", Q)) == 10
    owner.execute("select funnelvec.repair()")
    owner.execute("select * from funnelvec.status()")
    with pytest.raises(psycopg.Error, match="temporary"):
        owner.execute(
            "select funnelvec.create_funnel('t', 'pg_temp.products', 'embedding', '32:f32')"
        )


def test_a_function_that_only_looks_like_ours(
    attacker: Connection, owner: Connection, pg_database: Database
) -> None:
    """Marked, in the owner's schema, with the definition of a funnel on the owner's table."""
    attacker.execute(
        """
        create function public.products_search(text) returns boolean language plpgsql as
            $$-- Generated by funnelvec.create_funnel; do not edit.
-- {"table": "products", "column": "embedding", "funnel": "32:f32", "metric": "cosine", "model": ""}
begin return lair.spring(); end$$;
        create function public.planted(vector) returns boolean language plpgsql as
            $$-- Generated by funnelvec.create_funnel; do not edit.
-- {"table": "products", "column": "embedding", "funnel": "32:f32", "metric": "cosine", "model": ""}
begin return lair.spring(); end$$;
        """
    )
    spend_a_day(pg_database, attacker)
    names = owner.execute("select name from funnelvec.funnels").fetchall()
    assert names == [("products_search",)]
    with pytest.raises(psycopg.Error, match="funnelvec did not make it"):
        owner.execute(
            "select funnelvec.create_funnel('planted', 'products', 'embedding', '32:f32')"
        )
    owner.execute("select funnelvec.drop_funnel('products_search')")
    left = owner.execute(
        "select count(*) from pg_proc where proname = 'products_search'"
    ).fetchone()
    assert left == (1,)


def test_a_funnel_of_the_same_name_is_not_in_the_way(
    attacker: Connection, pg_database: Database
) -> None:
    attacker.execute(
        """
        create table lair.products (id bigint primary key, embedding vector(32));
        grant select on lair.products to public;
        select funnelvec.create_funnel('products_search', 'lair.products', 'embedding', '32:f32')
        """
    )
    with psycopg.connect(pg_database.owner_url, autocommit=True) as owner:
        for call in DAY:
            owner.execute(call)  # type: ignore[arg-type]
    assert_nobody_was_caught(attacker)


def test_looking_at_everything_runs_nobodys_code(
    attacker: Connection, pg_database: Database
) -> None:
    """status() of all tables: rows of a stranger's table, its policies, its types, broken rows."""
    attacker.execute(
        """
        create table lair.t (id bigint primary key, embedding vector(32));
        insert into lair.t select i, array_fill(i, array[32])::vector from generate_series(1, 9) as i;
        select funnelvec.add_resolution('lair.t', 'embedding', '16:f16', index => true);
        select funnelvec.create_funnel('f', 'lair.t', 'embedding', '16:f16@5 > 32:f32');
        alter table lair.t enable row level security;
        create policy trap on lair.t using (lair.spring());
        create type lair.evil as (x integer);
        create function lair.cast_it(lair.evil) returns public.vector language sql as
            'select ''[1]''::public.vector where lair.spring()';
        create cast (lair.evil as public.vector) with function lair.cast_it as implicit;
        alter table lair.t add column evil lair.evil default row(1)::lair.evil;
        insert into funnelvec.resolutions values ('lair.t', 'embedding', '8:f16', 'cosine', 'evil'),
            ('lair.t', 'evil', '8:f16', 'cosine', 'evil'), ('lair.t', 'x', 'y', 'z', 'evil'),
            ('lair.t', 'embedding', '16:bit', 'cosine', 'embedding_16_f16');
        insert into funnelvec.funnels values ('lair.t', 'x', 'evil', '32:f32', 'cosine', false, '');
        grant select on lair.t to public
        """
    )
    with psycopg.connect(pg_database.owner_url, autocommit=True) as owner:
        advice = dict(
            owner.execute(
                "select resolution, advice from funnelvec.status() where column_name = 'embedding'"
                """ and "table" = 'lair.t'::regclass"""
            ).fetchall()
        )
    assert "row-level security" in advice["16:f16"]
    assert "is gone, or is not what holds" in advice["16:bit"]
    spend_a_day(pg_database, attacker)


def test_rights_on_one_column_do_not_break_the_report(
    attacker: Connection, owner: Connection
) -> None:
    owner.execute(f"grant select (id) on products to {OTHER}")  # type: ignore[arg-type]
    rows = attacker.execute("select advice from funnelvec.status() where advice <> ''").fetchall()
    assert rows == [("not counted: you may not read the column",)]


#: The first gets out of a text, out of the body of a function and out of a name, whichever it is in.
HOSTILE = [
    "32:f32', false)$body$; select lair.spring(); --\n\"; drop table products; --\n'; drop table products; --\n\\'",
    "",
]
COLUMNS = {
    "resolutions": ("column_name", "resolution", "metric", "code_column", "index_name"),
    "funnels": ("name", "column_name", "funnel", "metric", "model"),
    "calibrations": ("column_name", "model", "metric", "last_stage", "family", "judgments_sha256"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("registry", "column"), [(table, each) for table, names in COLUMNS.items() for each in names]
)
def test_values_written_by_hand_never_run(
    owner: Connection, attacker: Connection, superuser_url: str, registry: str, column: str
) -> None:
    """Whatever an administrator, or the owner, writes into the registry: refused, or only a value."""
    owner.execute(f"create table kept as select * from funnelvec.{registry}")  # type: ignore[arg-type]
    with psycopg.connect(superuser_url, autocommit=True) as admin:
        for hostile in HOSTILE:
            admin.execute(
                f"update funnelvec.{registry} set {column} = %s",  # type: ignore[arg-type]
                (hostile,),
            )
            for connection, calls in ((admin, (DAY[0], DAY[6], DAY[11])), (owner, DAY)):
                for call in calls:
                    try:
                        connection.execute(call)  # type: ignore[arg-type]
                    except psycopg.Error as error:
                        assert (error.sqlstate or "").startswith("FV"), (hostile, call, error)
            reset(admin, registry)
    count = owner.execute("select count(*) from products").fetchone()
    assert count == (300,)
    assert_nobody_was_caught(attacker)


def reset(admin: Connection, registry: str) -> None:
    """Begin again from what the owner had."""
    admin.execute(
        f"""
        delete from funnelvec.{registry};
        insert into funnelvec.{registry} select * from kept
        """  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "parameters",
    [
        "{}",
        "[]",
        "null",
        '"x"',
        '{"slope": "1; drop table products", "offset": 0}',
        '{"slope": 1, "offset": "0) from products; drop table products; --"}',
        '{"slope": null, "offset": null}',
        '{"slope": 1e999, "offset": 0}',
        '{"slope": 1e-999, "offset": 0}',
        '{"slope": 0, "offset": 0}',
        '{"slope": -1, "offset": 0}',
        '{"slope": 1, "offset": 1e-400}',
        '{"slope": {"a": 1}, "offset": [0]}',
        '{"slope": "NaN", "offset": 0}',
    ],
)
def test_parameters_written_by_hand_never_run(owner: Connection, parameters: str) -> None:
    owner.execute("update funnelvec.calibrations set parameters = %s", (parameters,))
    for call in (*DAY[4:8], "select * from funnelvec.status()", "select * from funnelvec.repair()"):
        try:
            owner.execute(call)  # type: ignore[arg-type]
        except psycopg.Error as error:
            assert (error.sqlstate or "").startswith("FV"), (call, error)
    for call in DAY[9:11]:
        with pytest.raises(psycopg.Error, match=r"Calibrate again|calibration of") as caught:
            owner.execute(call)  # type: ignore[arg-type]
        assert caught.value.sqlstate == "FV004"
    owner.execute("select funnelvec.calibrate('products_search', 'judgments')")  # the way out
    assert search(owner, "products_search", Q)[0][2] is not None


def test_dropping_by_a_hostile_row_drops_nothing_else(owner: Connection) -> None:
    owner.execute("create table other (id bigint constraint precious primary key)")
    owner.execute("select funnelvec.add_resolution('products', 'embedding', '32:f32')")
    owner.execute("select funnelvec.add_resolution('products', 'embedding', '8:f16')")
    owner.execute(
        "update funnelvec.resolutions set index_name = 'precious' where resolution = '32:f32';"
        "update funnelvec.resolutions set code_column = 'price' where resolution = '8:f16'"
    )
    for resolution in ("32:f32", "8:f16"):
        owner.execute(
            "select funnelvec.drop_resolution('products', 'embedding', %s)", (resolution,)
        )
    assert owner.execute("select to_regclass('precious') is not null").fetchone() == (True,)
    assert owner.execute("select count(price) from products").fetchone() == (300,)


@pytest.mark.parametrize("forced", [False, True])
def test_row_level_security_holds_for_whoever_calls(
    owner: Connection, attacker: Connection, forced: bool
) -> None:
    """A reader sees his rows in every function; an owner under FORCE sees his in calibrate too."""
    owner.execute(f"grant select on products to {OTHER}")  # type: ignore[arg-type]
    owner.execute("alter table products enable row level security")
    owner.execute("create policy few on products using (id % 10 = 0)")
    if forced:
        owner.execute("alter table products force row level security")
    who = owner if forced else attacker
    rows = search(who, "products_search", Q, k=30)
    assert len(rows) == 30 and all(row[0] % 10 == 0 for row in rows)
    stages = who.execute(
        f"select rows_out from funnelvec.explain('products_search', '{Q}', 30)"  # type: ignore[arg-type]
    ).fetchall()
    assert stages == [(30,), (30,)]
    recall = who.execute("select recall from funnelvec.measure_recall('products_search', 20)")
    assert recall.fetchall() == [(1.0,), (1.0,)]
    counted = who.execute("select rows from funnelvec.status('products')").fetchone()
    assert counted == (30,)
    judged = "select pairs, missing from funnelvec.calibrate('products_search', 'judgments')"
    if forced:
        visible = owner.execute("select count(*) from judgments where id % 10 = 0").fetchone()
        try:
            pairs, missing = owner.execute(judged).fetchone() or (None, None)
            assert visible == (pairs,) and missing == 180 - pairs
        except psycopg.Error as error:
            assert error.sqlstate == "FV007" and "not in the table" in str(error)
    else:
        assert refused(attacker, judged) == "42501"
        assert (owner.execute(judged).fetchone() or (0, 1))[1] == 0
