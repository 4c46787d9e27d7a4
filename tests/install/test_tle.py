"""The text for pg_tle. There is no pg_tle here: its functions are stood in for by ones with the
same names and arguments, so that what they are given can be looked at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from funnelvec import cli
from funnelvec.install.render import SqlSource, load_source, render
from tests.databases import Database, connected
from tests.install.sources import NEW, NEXT, NOW, OLD, Versions

Connection = psycopg.Connection[tuple[Any, ...]]

# Signatures of pg_tle 1.5, docs/03_managing_extensions.md; the tables are ours.
STAND_IN = """
create schema pgtle;
create table pgtle.extensions (
    name text primary key, version text, description text, ext text, requires text[], schema text,
    default_version text
);
create table pgtle.paths (name text, source text, target text, path text, ext text);
create function pgtle.install_extension(
    name text, version text, description text, ext text,
    requires text[] default null, schema text default null)
returns boolean language sql as $$
    insert into pgtle.extensions values ($1, $2, $3, $4, $5, $6, $2); select true $$;
create function pgtle.install_update_path(name text, fromvers text, tovers text, ext text)
returns boolean language sql as $$
    insert into pgtle.paths values ($1, $2, $3, $2 || '--' || $3, $4); select true $$;
create function pgtle.set_default_version(name text, version text)
returns boolean language sql as $$
    update pgtle.extensions set default_version = $2 where extensions.name = $1; select true $$;
create function pgtle.available_extensions()
returns table (name name, default_version text, description text) language sql as $$
    select name, default_version, description from pgtle.extensions $$;
create function pgtle.extension_update_paths(name name)
returns table (source text, target text, path text) language sql as $$
    select source, target, path from pgtle.paths where paths.name = $1 $$;
"""


@pytest.fixture
def admin(new_database: Callable[..., Database]) -> Iterator[Connection]:
    with connected(new_database("empty").superuser_url) as connection:
        connection.execute(STAND_IN)
        yield connection


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return Versions(tmp_path_factory.mktemp("versions"))


def test_pg_tle_gets_the_very_body(admin: Connection) -> None:
    source = load_source()
    admin.execute(render(source, "tle").encode())
    rows = admin.execute("select * from pgtle.extensions").fetchall()
    about = re.search(r"^comment = '(.+)'$", source.control, re.MULTILINE)
    assert about is not None
    assert rows == [
        ("funnelvec", NOW, about[1], source.body, ["vector"], "funnelvec", source.version)
    ]


def test_update_paths_are_the_migrations(admin: Connection, versions: Versions) -> None:
    source = versions.source(NEW)
    admin.execute(render(source, "tle").encode())
    rows = admin.execute("select source, target, ext from pgtle.paths order by 1").fetchall()
    assert rows == [(step.start, step.end, step.text) for step in source.steps]
    assert [row[:2] for row in rows] == [(OLD, NOW), (NOW, NEXT), (NEXT, NEW)]


def test_over_an_older_version_only_what_is_new_is_added(
    admin: Connection, versions: Versions
) -> None:
    for version in (NOW, NEW, NEW):
        admin.execute(render(versions.source(version), "tle").encode())
    rows = admin.execute("select version, default_version from pgtle.extensions").fetchall()
    assert rows == [(NOW, NEW)]
    paths = admin.execute("select source, target from pgtle.paths order by 1").fetchall()
    assert paths == [(OLD, NOW), (NOW, NEXT), (NEXT, NEW)]


@pytest.mark.parametrize(
    "body",
    ["select $fv0$x$fv0$;", "-- $fv0$ $fv1$ $fv", "ends in $fv0", "$fv0$fv1$fv2", "'$$'", ""],
)
def test_the_quotes_do_not_occur_in_what_they_quote(admin: Connection, body: str) -> None:
    source = replace(
        load_source(),
        body=body,
        control=f"comment = '{body.replace(chr(39), '')}'",
        migrations=((f"funnelvec--{OLD}--{NOW}.sql", body),),
    )
    text = render(source, "tle")
    for tag in set(re.findall(r"=> (\$fv\d+\$)", text)):
        assert tag[:-1] not in body
    admin.execute(text.encode())
    assert admin.execute("select ext from pgtle.extensions").fetchone() == (body,)
    assert admin.execute("select ext from pgtle.paths").fetchone() == (body,)


def test_every_dollar_tag_of_ours_is_free_in_the_real_text() -> None:
    source = load_source()
    assert "$fv0" not in source.body
    assert render(source, "tle").count("$fv0$") == 4  # the description, and the body


def test_the_command_needs_no_database(capsys: pytest.CaptureFixture[str]) -> None:
    source: SqlSource = load_source()
    for target in ("plain", "pgxs", "tle"):
        assert cli.main(["render", target]) == 0
        assert capsys.readouterr().out == render(source, target)  # type: ignore[arg-type]
    assert cli.main(["render", "tle", "--json"]) == 0
    assert f'"sha256": "{source.sha256}"' in capsys.readouterr().out
