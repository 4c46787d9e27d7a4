"""What an install leaves in the catalog: the same in every mode, and by the house rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from funnelvec.install import apply
from tests.databases import Database, Server, connected
from tests.install.catalog import snapshot

Connection = psycopg.Connection[tuple[Any, ...]]

FUNCTIONS = r"""
select p.proname, p.oid::regprocedure::text,
       l.lanname = 'sql' and pg_get_function_arguments(p.oid) ~ '\m(vector|halfvec|bit)\M',
       p.prosecdef, p.proconfig,
       obj_description(p.oid, 'pg_proc'), has_function_privilege('app_other', p.oid, 'execute')
  from pg_proc p join pg_language l on l.oid = p.prolang
 where p.pronamespace = to_regnamespace('funnelvec')
"""


@pytest.mark.pg(18)
def test_extension_and_plain_install_leave_the_same(
    new_database: Callable[..., Database], pg_server: Server
) -> None:
    if pg_server.embedded is not None:
        pg_server.embedded.prepare_extension()
    found = []
    for mode in ("extension", "plain"):
        with connected(new_database("vector").owner_url) as owner:
            assert apply.install(owner, mode=mode).mode == mode
            found.append(snapshot(owner))
    extension, plain = found
    assert {kind for kind, _ in extension} >= {"schema", "function", "relation", "column"}
    assert extension.keys() == plain.keys()
    for key, facts in extension.items():
        assert facts == plain[key], key


def test_registry_is_secured_row_by_row(owner_conn: Connection) -> None:
    """Row-level security is on for every table that a role could write another's rows into."""
    tables = {
        name: secured
        for name, secured in owner_conn.execute(
            "select relname, relrowsecurity from pg_class"
            " where relnamespace = 'funnelvec'::regnamespace and relkind = 'r'"
        )
    }
    assert tables.pop("_install") is False  # readable by all, writable by its owner only
    assert tables and all(tables.values()), tables


def test_nobody_but_the_owner_writes_what_is_installed(pg_database: Database) -> None:
    with connected(pg_database.other_url) as other:
        for statement in (
            "insert into funnelvec._install (version, sha256) values ('9.9.9', '')",
            "delete from funnelvec._install",
            "create function funnelvec.mine() returns integer language sql return 1",
            "create table funnelvec.mine (x integer)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute(statement)
        assert other.execute("select funnelvec.version() is not null").fetchone() == (True,)


def test_functions_keep_the_house_rules(owner_conn: Connection) -> None:
    wrong = []
    names: list[str] = []
    for row in owner_conn.execute(FUNCTIONS).fetchall():
        name, signature, meets_an_index, definer, settings, comment, executable = row
        names.append(name)
        if definer:
            wrong.append(f"{signature}: security definer")
        # A SET clause keeps a function from being inlined, and then its index is not used.
        if meets_an_index and settings:
            wrong.append(f"{signature}: {settings}")
        # For a role that is no superuser, a fresh session cannot create such a function.
        if any(setting.startswith("hnsw.") for setting in settings or ()):
            wrong.append(f"{signature}: {settings}")
        if not comment and not name.startswith("_"):
            wrong.append(f"{signature}: no comment")
        if not executable:
            wrong.append(f"{signature}: not executable by everybody")
    assert names
    wrong += [f"{name}: overloaded" for name in set(names) if names.count(name) > 1]
    assert not wrong, "\n".join(wrong)


def test_tables_are_commented(owner_conn: Connection) -> None:
    bare = owner_conn.execute(
        "select relname from pg_class where relnamespace = 'funnelvec'::regnamespace"
        " and relkind in ('r', 'v', 'm', 'p') and obj_description(oid, 'pg_class') is null"
    ).fetchall()
    assert bare == []
