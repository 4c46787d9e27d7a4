"""Filters of every selectivity, over plain, indexed and correlated columns: full answers, and the cheaper way.

Every funnel here rescores what a code of full width shortlisted, so that its answer is the exact one
unless the index loses rows; where no index is used it has to be exact.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import psycopg
import pytest

from tests import databases
from tests.databases import OTHER
from tests.sql.tables import search, text, vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from tests.databases import Database, Server

    Connection = psycopg.Connection[Any]

ROWS, DIMS, KEEP, K = 10_000, 16, 50, 10
MATRIX = vectors(ROWS, dims=DIMS)
#: Row i has i here, in an order that has nothing to do with the vectors.
SHUFFLED = np.random.default_rng(1).permutation(ROWS)
QUERY = vectors(1, seed=9, dims=DIMS)[0]
#: A filter on `far` matches the rows that are farthest from QUERY.
SIMILARITY = (MATRIX @ QUERY) / np.linalg.norm(MATRIX, axis=1)
FAR = np.argsort(np.argsort(SIMILARITY))
COUNTS = (1, 10, 100, 1_000, 5_000, 10_000)  # 0.01 % to 100 %

TABLES = {
    "plain": "create table plain (id bigint primary key, embedding vector(16), bare int, indexed int, far int)",
    "halves": "create table halves (id bigint primary key, embedding halfvec(16), bare int, indexed int, far int)",
    "parts": "create table parts (id bigint primary key, embedding vector(16), bare int, indexed int, far int)"
    " partition by hash (id)",
}


class Case(NamedTuple):
    """A table with a funnel."""

    table: str


@pytest.fixture(scope="module")
def database(pg_server: Server) -> Iterator[Database]:
    made = databases.Database(pg_server, databases.new_name(pg_server))
    with databases.connected(pg_server.url()) as admin:
        databases.create_database(admin, made.name, template=pg_server.template("funnelvec"))
    with databases.connected(made.owner_url) as owner:
        for table, definition in TABLES.items():
            owner.execute(definition)  # type: ignore[arg-type]
            if table == "parts":
                for i in range(2):
                    owner.execute(
                        f"create table parts_{i} partition of parts"  # type: ignore[arg-type]
                        f" for values with (modulus 2, remainder {i})"
                    )
            with owner.cursor() as cursor, cursor.copy(f"copy {table} from stdin") as copy:  # type: ignore[arg-type]
                for i, row in enumerate(MATRIX):
                    copy.write_row((i, text(row), int(SHUFFLED[i]), int(SHUFFLED[i]), int(FAR[i])))
            base = "f16" if table == "halves" else "f32"
            owner.execute(f"create index on {table} (indexed)")  # type: ignore[arg-type]
            first = f"{DIMS}:bit" if table == "halves" else f"{DIMS}:f16"
            owner.execute(
                "select funnelvec.add_resolution(%s, 'embedding', %s, index => true,"
                " ef_construction => 32)",
                (table, first),
            )
            owner.execute(
                "select funnelvec.create_funnel(%s, %s, 'embedding', %s)",
                (
                    f"{table}_search", table,
                    f"{DIMS}:f16@{KEEP} > {DIMS}:f32" if base == "f32" else f"{DIMS}:bit@{ROWS} > {DIMS}:f16",
                ),
            )  # fmt: skip
            owner.execute(f"grant select on {table} to {OTHER}")  # type: ignore[arg-type]
        for name, keep in (("deep", 5_000), ("small", 10)):
            owner.execute(
                "select funnelvec.create_funnel(%s, 'plain', 'embedding', %s)",
                (name, f"{DIMS}:f16@{keep} > {DIMS}:f32"),
            )
        owner.execute("analyze")
    yield made
    pg_server.done_with.append(made.name)


@pytest.fixture
def owner(database: Database) -> Iterator[Connection]:
    with databases.connected(database.owner_url) as connection:
        yield connection


def exact_scores(query: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(ROWS,) cosines."""
    rows, wanted = MATRIX.astype(np.float64), query.astype(np.float64)
    scores: npt.NDArray[np.float64] = rows @ wanted / np.linalg.norm(rows, axis=1)
    return scores / np.linalg.norm(wanted)


def truth(query: npt.NDArray[np.float32], mask: Any, *, k: int) -> list[int]:
    """The exact best k of the rows that match, ties by key."""
    order = np.lexsort((np.arange(ROWS), -exact_scores(query)))
    return [int(i) for i in order[np.asarray(mask)[order]][:k]]


def access(
    connection: Connection, funnel: str, query: Any, filter: dict[str, Any] | None, k: int = K
) -> str:
    row = connection.execute(
        "select access from funnelvec.explain(%s, %s, k => %s, filter => %s) where stage = 1",
        (funnel, text(query), k, None if filter is None else json.dumps(filter)),
    ).fetchone()
    assert row is not None
    return str(row[0])


def check(
    connection: Connection, case: Case, column: str, values: Any, count: int, query: Any
) -> str:
    """Search with a filter that matches `count` rows, compare with brute force, and say how it was done."""
    filter = {column: {"$lt": count}}
    ids = [
        row[0]
        for row in search(
            connection, f"{case.table}_search", text(query), k=K, filter=json.dumps(filter)
        )
    ]
    expected = truth(query, values < count, k=K)
    assert len(ids) == min(K, count)
    assert all(values[i] < count for i in ids)
    how = access(connection, f"{case.table}_search", query, filter)
    if how.startswith("index"):
        assert len({*ids} & {*expected}) >= 0.7 * len(expected), how
    else:
        # Row by row as good as the truth; a halfvec may swap rows that differ in the last digits.
        scores = exact_scores(query)
        assert np.abs(scores[ids] - scores[expected]).max() < (1e-3 if case is HALVES else 1e-6), (
            how
        )
    return how


PLAIN, HALVES, PARTS = Case("plain"), Case("halves"), Case("parts")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("column", ["bare", "indexed"])
@pytest.mark.parametrize("case", [PLAIN, HALVES, PARTS], ids=lambda case: case.table)
def test_every_selectivity(owner: Connection, case: Case, column: str, count: int) -> None:
    for seed in range(2):
        how = check(owner, case, column, SHUFFLED, count, vectors(1, seed=seed, dims=DIMS)[0])
        if count <= 1_000 or case is HALVES:  # whose keep is as large as the table
            narrow = "filter by index" if column == "indexed" and count <= 100 else ""
            assert how.startswith(narrow), how
            assert "iterating" not in how
        else:
            assert how.startswith("index") and "iterating" in how
        # The estimate is said, and it is of the order of the truth.
        told = float(how.split("about ")[1].split(" of")[0])
        assert count / 3 - 60 <= told <= 3 * count + 60
        assert how.endswith(f" of {ROWS} rows match") or case is PARTS


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("case", [PLAIN, HALVES, PARTS], ids=lambda case: case.table)
def test_a_filter_that_matches_only_far_rows(owner: Connection, case: Case, count: int) -> None:
    check(owner, case, "far", FAR, count, QUERY)


def test_a_wrong_estimate_costs_time_alone(owner: Connection) -> None:
    # Both columns hold the same, which the planner does not know: it believes in a quarter of the rows.
    one = {"bare": {"$lt": 5_000}, "indexed": {"$gte": 4_999}}
    found = search(owner, "plain_search", text(QUERY), filter=json.dumps(one))
    assert [row[0] for row in found] == np.flatnonzero(SHUFFLED == 4_999).tolist()
    # And the other way round: it believes in 64 rows of 800.
    many = {"bare": {"$lt": 800}, "indexed": {"$lt": 800}}
    found = search(owner, "plain_search", text(QUERY), filter=json.dumps(many))
    assert [row[0] for row in found] == truth(QUERY, SHUFFLED < 800, k=K)
    assert ", about 64 of " in access(owner, "plain_search", QUERY, many)


def test_a_doubtful_estimate_is_looked_into_before_much_work(owner: Connection) -> None:
    both = {"bare": {"$lt": 2_000}, "indexed": {"$lt": 2_000}}  # 400 rows, it seems, and 2000 are
    with owner.transaction(force_rollback=True):
        # As on a table of many pages, where going without the index is a lot of work.
        owner.execute("set local seq_page_cost = 1000; set local random_page_cost = 1000")
        owner.execute("set local hnsw.max_scan_tuples = 400")
        how = access(owner, "plain_search", QUERY, both)
        told = float(how.split("about ")[1].split(" of")[0])
        assert how.startswith("index plain_embedding") and 1_000 < told < 3_000
        found = search(owner, "plain_search", text(QUERY), filter=json.dumps(both))
        assert len(found) == K and all(SHUFFLED[row[0]] < 2_000 for row in found)
        # One that is right is left as it is.
        how = access(owner, "plain_search", QUERY, {"bare": {"$lt": 300}})
        assert how.startswith("scan, about 3")


def test_a_narrow_filter_that_seemed_wide_is_repeated_without_the_index(owner: Connection) -> None:
    one = {"bare": {"$lt": 5_000}, "indexed": {"$gte": 4_999}}  # a quarter of the rows, it seems
    with owner.transaction(force_rollback=True):
        owner.execute("set local hnsw.max_scan_tuples = 500")
        found = search(owner, "small", text(QUERY), filter=json.dumps(one), k=5)
        assert [row[0] for row in found] == np.flatnonzero(SHUFFLED == 4_999).tolist()
        assert "(the index found 0)" in access(owner, "small", QUERY, one)


@pytest.mark.parametrize("count", COUNTS)
def test_row_level_security_is_a_filter_like_others(database: Database, count: int) -> None:
    with databases.connected(database.owner_url) as connection, connection.transaction(force_rollback=True):  # fmt: skip
        connection.execute("alter table plain enable row level security")
        connection.execute("alter table plain force row level security")
        connection.execute(f"create policy p on plain using (indexed < {count})")  # type: ignore[arg-type]
        ids = [row[0] for row in search(connection, "plain_search", text(QUERY))]
        expected = truth(QUERY, count > SHUFFLED, k=K)
        how = access(connection, "plain_search", QUERY, None)
        assert len(ids) == min(K, count)
        assert len({*ids} & {*expected}) >= 0.7 * len(expected)
        assert how.startswith("index plain_embedding") == (count > 1_000), how
        # With a filter beside the policy, both hold.
        both = [row[0] for row in search(connection, "plain_search", text(QUERY), filter='{"bare": {"$gte": 5}}')]  # fmt: skip
        mask = (count > SHUFFLED) & (SHUFFLED >= 5)
        assert len(both) == min(K, int(mask.sum()))
        assert all(mask[i] for i in both)


@pytest.mark.parametrize("count", [100, 1_000, 5_000, 10_000])
def test_a_keep_beyond_what_the_index_gives_at_once(owner: Connection, count: int) -> None:
    ids = [
        row[0]
        for row in search(
            owner, "deep", text(QUERY), k=3_000, filter=f'{{"bare": {{"$lt": {count}}}}}'
        )
    ]
    expected = truth(QUERY, count > SHUFFLED, k=3_000)
    assert len(ids) == len(expected) == min(3_000, count)
    assert len({*ids} & {*expected}) >= 0.98 * len(expected)
    assert len(search(owner, "deep", text(QUERY), k=5_000)) == 5_000


def test_the_shown_sql_is_the_one_that_runs(owner: Connection) -> None:
    def shown(filter: str) -> str:
        row = owner.execute("select funnelvec.search_sql('plain_search', %s)", (filter,)).fetchone()
        assert row is not None
        return str(row[0])

    assert ") + 0," in shown('{"indexed": {"$lt": 10}}')
    assert ") + 0," not in shown('{"indexed": {"$lt": 9000}}')


def test_names_that_look_like_a_plan(owner: Connection) -> None:
    with owner.transaction(force_rollback=True):
        owner.execute('create table " rows=7 width=1)" (id int primary key, embedding vector(16))')
        owner.execute("insert into \" rows=7 width=1)\" values (1, array_fill(1::real, '{16}'))")
        row = owner.execute(
            "select matching from funnelvec._narrow('\" rows=7 width=1)\"', ' and (t.id < 0)', 10)"
        ).fetchone()
        assert row is not None and row[0] != 7
