"""Filters on arrays and JSON: every type they come in, the indexes they can use, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.sql.tables import search, text, vectors

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

ROWS = 400
Q = text(vectors(1, seed=3, dims=8)[0])

TABLE = """
    create domain labels as text[];
    create domain label as varchar(9);
    create table things (
        id int primary key, embedding vector(8), words text[], short varchar(5)[], fixed char(4)[], small smallint[],
        whole int[], big bigint[], exact numeric[], single real[], named labels, domained label[], stamps timestamp[],
        meta jsonb, loose json, "meta.color" text, "a.b" jsonb, grid int[][]);
    insert into things
    select i, array_agg(sin(i * j)), array['w' || i % 7, 'x'], array['w' || i % 7], array['w' || i % 7], array[i % 7, 9],
        array[i % 7, null], array[i % 7], array[i % 7 + 0.5], array[i % 7 + 0.25], array['w' || i % 7],
        array['w' || i % 7], array[timestamp '2024-01-01' + i % 7 * interval '1 day'],
        jsonb_build_object('color', 'w' || i % 7, 'size', i % 7, 'tags', array['w' || i % 7, 'y'], 'on', i % 7 = 3,
            'none', null, 'deep', jsonb_build_object('er', i % 7), 'nested', '[[3]]'::jsonb,
            'mixed', case i % 2 when 0 then to_jsonb(i % 7) else to_jsonb('3'::text) end),
        json_build_object('color', 'w' || i % 7), 'c' || i % 7, jsonb_build_object('c', i % 7), array[[i % 7, 1], [2, 8]]
    from generate_series(1, 400) as i, generate_series(1, 8) as j group by i;
    insert into things (id, embedding) values (0, '[1,1,1,1,1,1,1,1]');
    create index things_words on things using gin (words);
    create index things_meta on things using gin (meta jsonb_path_ops);
    create index things_big on things using gin (big);
    analyze things;
    select funnelvec.create_funnel('f', 'things', 'embedding', '8:f32')
"""
SEVENTH = {i for i in range(1, ROWS + 1) if i % 7 == 3}
BELOW = {i for i in range(1, ROWS + 1) if i % 7 < 3}
ALL = set(range(ROWS + 1))


@pytest.fixture(scope="module")
def things(pg_server: Any) -> Any:
    from tests import databases

    made = databases.Database(pg_server, databases.new_name(pg_server))
    with databases.connected(pg_server.url()) as admin:
        databases.create_database(admin, made.name, template=pg_server.template("funnelvec"))
    with databases.connected(made.owner_url) as owner:
        owner.execute(TABLE)  # type: ignore[arg-type]
        yield owner
    pg_server.done_with.append(made.name)


def found(connection: Connection, filter: dict[str, Any]) -> set[int]:
    return {row[0] for row in search(connection, "f", Q, k=1000, filter=json.dumps(filter))}


@pytest.mark.parametrize(
    ("filter", "ids"),
    [
        ({"words": "w3"}, SEVENTH), ({"short": "w3"}, SEVENTH), ({"fixed": "w3"}, SEVENTH), ({"small": 3}, SEVENTH),
        ({"whole": 3}, SEVENTH), ({"big": 3}, SEVENTH), ({"exact": 3.5}, SEVENTH), ({"single": 3.25}, SEVENTH),
        ({"named": "w3"}, SEVENTH), ({"domained": "w3"}, SEVENTH), ({"stamps": "2024-01-04"}, SEVENTH),
        ({"grid": 3}, SEVENTH), ({"grid": 8}, ALL - {0}),
        ({"words": {"$ne": "w3"}}, ALL - SEVENTH), ({"words": {"$nin": ["w3", "w4"]}}, {i for i in ALL if i == 0 or i % 7 not in (3, 4)}),
        ({"words": {"$in": ["w3", "nope"]}}, SEVENTH), ({"words": {"$exists": False}}, {0}),
        ({"words": {"$lt": "w3"}}, BELOW), ({"whole": {"$lt": 3}}, BELOW), ({"big": {"$gte": 3}}, ALL - BELOW - {0}),
        ({"whole": {"$not": {"$lt": 3}}}, ALL - BELOW), ({"stamps": {"$lt": "2024-01-04T00:00:00Z"}}, BELOW),
        # An element above and an element below: the same one need not be both.
        ({"small": {"$lt": 3, "$gt": 8}}, BELOW),
        # Beyond the type of the elements: larger than all of them, equal to none.
        ({"whole": 3_000_000_000}, set()), ({"whole": {"$ne": 3_000_000_000}}, ALL), ({"whole": {"$lt": 3_000_000_000}}, ALL - {0}),
        ({"small": {"$in": [3, 40_000]}}, SEVENTH), ({"small": {"$nin": [40_000]}}, ALL),
        ({"meta.color": "c3"}, SEVENTH),  # a column of that name comes first
        ({"meta.size": 3}, SEVENTH), ({"meta.size": 3.0}, SEVENTH), ({"meta.size": {"$lt": 3}}, BELOW),
        ({"meta.size": "3"}, set()), ({"meta.size": {"$ne": "3"}}, ALL), ({"meta.size": {"$lt": "9"}}, set()),
        ({"meta.tags": "w3"}, SEVENTH), ({"meta.tags": "y"}, ALL - {0}), ({"meta.tags": {"$lt": "w3"}}, BELOW),
        ({"meta.tags": {"$in": [f"v{i}" for i in range(20)] + ["w3"]}}, SEVENTH),
        ({"meta.size": {"$in": [*range(50, 70), 3]}}, SEVENTH), ({"meta.size": {"$nin": [*range(50, 70), 3]}}, ALL - SEVENTH),
        ({"meta.on": True}, SEVENTH), ({"meta.on": {"$ne": True}}, ALL - SEVENTH), ({"meta.deep.er": 3}, SEVENTH),
        ({"meta.deep.er": {"$gte": 3}}, ALL - BELOW - {0}), ({"meta.deep": 3}, set()),
        ({"meta.none": {"$exists": True}}, set()), ({"meta.deep": {"$exists": True}}, ALL - {0}),
        ({"meta.nowhere.at.all": {"$exists": False}}, ALL), ({"meta.nowhere": {"$ne": 1}}, ALL),
        ({"meta.nested": 3}, set()), ({"meta.nested": {"$gt": 1}}, set()),
        ({"meta.mixed": 3}, {i for i in SEVENTH if i % 2 == 0}), ({"meta.mixed": "3"}, {i for i in ALL if i % 2}),
        ({"meta.mixed": {"$gt": "2"}}, {i for i in ALL if i % 2}),
        ({"loose.color": "w3"}, SEVENTH), ({"loose.color": {"$gt": "w2"}}, ALL - BELOW - {0}),
        ({"a.b.c": 3}, SEVENTH), ({"meta": {"$exists": False}}, {0}), ({"meta": 3}, set()),
        ({"$or": [{"words": "w3"}, {"meta.size": {"$lt": 3}}]}, SEVENTH | BELOW),
        ({"$not": {"meta.tags": "w3"}}, ALL - SEVENTH),
    ],
    ids=str,
)  # fmt: skip
def test_matches(things: Connection, filter: dict[str, Any], ids: set[int]) -> None:
    assert found(things, filter) == ids


@pytest.mark.parametrize(
    ("filter", "index"),
    [
        ({"words": "w3"}, "things_words"),
        ({"words": {"$in": ["w3", "w4"]}}, "things_words"),
        ({"big": 3}, "things_big"),
        ({"meta.deep.er": 3}, "things_meta"),
        ({"meta.tags": "w3"}, "things_meta"),
        ({"meta.size": {"$in": [3, 4]}}, "things_meta"),
    ],
    ids=str,
)
def test_an_index_of_the_users_serves(
    things: Connection, filter: dict[str, Any], index: str
) -> None:
    with things.transaction(force_rollback=True):
        things.execute("set local enable_seqscan = off")
        shown = things.execute(
            "select funnelvec.search_sql('f', %s)", (json.dumps(filter),)
        ).fetchone()
        assert shown is not None
        things.execute(f"prepare shown(vector, integer) as {shown[0]}")
        plan = things.execute(f"explain execute shown('{Q}', 10)").fetchall()  # type: ignore[arg-type]
        things.execute("deallocate shown")
    assert any(index in line for (line,) in plan), plan


@pytest.mark.parametrize(
    "filter",
    [
        {"words": 1}, {"words": {"$in": []}}, {"words": {"$in": "w3"}}, {"words": ["w3"]}, {"whole": 1.5}, {"whole": "3"},
        {"words": {"$all": ["w3"]}}, {"words": {"$exists": 1}}, {"words": None}, {"meta.size": None}, {"meta.size": [3]},
        {"meta.size": {"$in": [None]}}, {"meta.size": {"$in": [[3]]}}, {"meta.size": {"$lt": True}}, {"meta.size": {"$gt": None}},
        {"words.0": "w3"}, {"id.x": 1}, {"nope.x": 1}, {".": 1}, {"meta.size": {"$regex": "x"}}, {"embedding": 1},
        {"meta" + ".a" * 33: 1}, {"x" * 100_000 + ".a": 1}, {"meta." + "." * 200: 1},
    ],
    ids=lambda filter: str(filter)[:60],
)  # fmt: skip
def test_refused(things: Connection, filter: dict[str, Any]) -> None:
    with pytest.raises(psycopg.Error) as caught:
        found(things, filter)
    assert caught.value.sqlstate == "FV003"


@pytest.mark.parametrize(
    "step", ["it's", 'a"b', "%s", "{query}", "\\", "$", " ", "'; drop table things; --", "日本"]
)
def test_any_key_is_a_step(things: Connection, step: str) -> None:
    with things.transaction(force_rollback=True):
        document = json.dumps({step: {step: [5, "v"]}})
        things.execute("update things set meta = %s, loose = %s where id = 9", (document, document))
        for column in ("meta", "loose"):
            for test in (
                5,
                "v",
                {"$gt": 4},
                {"$gte": "v"},
                {"$in": [*range(20)]},
                {"$exists": True},
            ):
                assert found(things, {f"{column}.{step}.{step}": test}) == {9}
