"""Other versions of the SQL side, for tests of what happens between versions.

`Versions` holds four in a folder: 0.0.1, cut down from the real one; the real one; and 0.8.0 and
0.9.0, which go on from it. The steps between them are made by the release machinery from deltas
written here. They know little of the real parts, so that these can change: they touch the last
column of ``funnelvec.resolutions`` and objects of their own.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from funnelvec.install import apply, release, remove, render, state

CHECKOUT = Path(__file__).resolve().parents[2]
OLD, NOW, NEXT, NEW = "0.0.1", render.load_source().version, "0.8.0", "0.9.0"
CHAIN = (OLD, NOW, NEXT, NEW)

_LAST_COLUMN = re.compile(
    r"(create table if not exists funnelvec\.resolutions \(.*?)\n    (created_at [^\n]*),\n"
    r"(    primary key)",
    re.DOTALL,
)

#: In the old version alone.
OLD_PART = """
create or replace function funnelvec._gone() returns integer language sql immutable return 1;
"""
DELTA_TO_NOW = """
alter table funnelvec.resolutions add column {column};
drop function funnelvec._gone();
"""
NEXT_PART = """
create or replace function funnelvec._probe(a integer) returns text language sql immutable
return 'next';
"""
NEW_TABLE = """
create table if not exists funnelvec.notes (
    table_name regclass not null primary key,
    note text
);
comment on table funnelvec.notes is 'a table that this version brings';
alter table funnelvec.notes enable row level security;
drop policy if exists owners on funnelvec.notes;
create policy owners on funnelvec.notes using (funnelvec._owns(table_name));
do $$ begin
    if exists (select from pg_catalog.pg_extension as e where e.extname = 'funnelvec') then
        perform pg_catalog.pg_extension_config_dump('funnelvec.notes', '');
    end if;
end $$;
"""
NEW_PART = """
create or replace function funnelvec._probe(a integer, b integer default 0) returns text
language sql immutable return 'new';
create or replace function funnelvec._brought() returns bigint language sql stable
return (select count(*) from funnelvec.notes);
"""

#: A signature changes: what was granted on it is kept aside and given back.
DELTA_TO_NEW = """
create temporary table _fv_grants on commit drop as
    select a.grantee from pg_catalog.pg_proc as p, pg_catalog.aclexplode(p.proacl) as a
    where p.oid = 'funnelvec._probe(integer)'::regprocedure and a.privilege_type = 'EXECUTE';
drop function funnelvec._probe(integer);
-- @parts@
do $$
declare
    grantee oid;
begin
    if exists (select from _fv_grants) then
        revoke execute on function funnelvec._probe(integer, integer) from public;
    end if;
    for grantee in select g.grantee from _fv_grants as g loop
        execute pg_catalog.format(
            'grant execute on function funnelvec._probe(integer, integer) to %s',
            case grantee when 0 then 'public' else grantee::regrole::text end);
    end loop;
end $$;
drop table _fv_grants;
"""


class Versions:
    """Four versions of the SQL side below one folder: ``source(OLD)``, ..., ``source(NEW)``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for version in CHAIN:
            shutil.copytree(
                CHECKOUT / "sql",
                folder / version / "sql",
                ignore=shutil.ignore_patterns("funnelvec--*"),
            )
            (folder / version / "migrations" / "delta").mkdir(parents=True)
            (folder / version / "migrations" / "frozen.sha256").touch()
            control = folder / version / "sql" / "funnelvec.control"
            control.write_text(
                control.read_text().replace(
                    f"default_version = '{NOW}'", f"default_version = '{version}'"
                )
            )
        column = self._cut_down()
        self._part(NEXT, "96_probe", NEXT_PART)
        for version in (NEXT, NEW):
            # A new table is registered with what `create extension` takes over, too.
            adopt = folder / version / "sql" / "parts" / "05_adopt.sql"
            adopt.write_text(adopt.read_text().replace("'funnels',", "'funnels', 'notes',"))
            self._part(version, "15_notes", NEW_TABLE)
        self._part(NEW, "96_probe", NEW_PART)
        deltas = (DELTA_TO_NOW.format(column=column), NEW_TABLE, DELTA_TO_NEW)
        for start, end, delta in zip(CHAIN, CHAIN[1:], deltas, strict=False):
            self._step(start, end, delta)

    def source(self, version: str) -> render.SqlSource:
        return render.load_source(self.folder / version)

    def publish(self, share: Path) -> None:
        """Put the other versions where ``create extension`` finds them, beside the real one.

        Each file appears at once and whole: other tests are loading extensions from there.
        """
        for version in (OLD, NEXT, NEW):
            render.write_files(self.source(version), self.folder / "files")
        for path in (self.folder / "files" / "extension").glob("*.sql"):
            waiting = share / f"{os.getpid()}-{path.name}"
            shutil.copy(path, waiting)
            waiting.replace(share / "extension" / path.name)

    def _cut_down(self) -> str:
        registry = self.folder / OLD / "sql" / "parts" / "10_registry.sql"
        text, count = _LAST_COLUMN.subn(r"\1\n\3", registry.read_text())
        found = _LAST_COLUMN.search(registry.read_text())
        assert count == 1 and found is not None, "created_at is no longer last in resolutions"
        registry.write_text(text)
        # The last part would only warn; the one before it has functions.
        for part in sorted((self.folder / OLD / "sql" / "parts").glob("*.sql"))[-2:]:
            part.unlink()
        self._part(OLD, "96_probe", OLD_PART)
        return found[2]

    def _part(self, version: str, name: str, text: str) -> None:
        (self.folder / version / "sql" / "parts" / f"{name}.sql").write_text(text)

    def _step(self, start: str, end: str, delta: str) -> None:
        """Release the step to version `end`, which every later version then carries."""
        root = self.folder / end
        (root / "migrations" / "delta" / f"{start}--{end}.sql").write_text(delta)
        step = release.write_step(root, start)
        release.freeze(root)
        for later in CHAIN[CHAIN.index(end) + 1 :]:
            shutil.copy(step, self.folder / later / "migrations")
            shutil.copy(root / "migrations" / "frozen.sha256", self.folder / later / "migrations")


@contextmanager
def packaged(monkeypatch: pytest.MonkeyPatch, source: render.SqlSource) -> Iterator[None]:
    """Let the Python package be the one that carries this SQL."""
    with monkeypatch.context() as patched:
        for module in (apply, state, remove):
            patched.setattr(module, "load_source", lambda: source)
        yield


def seed(conn: Any) -> None:
    """A table with a resolution, an index, a funnel, a calibration, and a grant."""
    conn.execute(
        """
        create table items (id integer primary key, embedding vector(8) not null);
        insert into items
            select i, array_agg(sin(i * 7 + j))::vector
            from generate_series(1, 60) as i, generate_series(1, 8) as j group by i;
        select funnelvec.add_resolution('items', 'embedding', '4:f16', index => true);
        select funnelvec.add_resolution('items', 'embedding', '8:bit');
        select funnelvec.create_funnel('items_search', 'items', 'embedding', '4:f16@40 > 8:f32');
        create table judgments as
            select q.embedding as query, d.id, 1 - (d.embedding <=> q.embedding) > 0.5 as relevant
            from items as q, items as d where q.id <= 12;
        update judgments set relevant = not relevant where id % 9 = 0;
        select funnelvec.calibrate('items_search', 'judgments');
        grant execute on function funnelvec.version() to app_other;
        """
    )


ROWS = """
select 'resolutions', (to_jsonb(r) - 'created_at')::text from funnelvec.resolutions as r
union all
select 'funnels', (to_jsonb(f) - 'created_at')::text from funnelvec.funnels as f
union all
select 'calibrations', to_jsonb(c)::text from funnelvec.calibrations as c
order by 1, 2
"""


def registry(conn: Any) -> list[tuple[str, str]]:
    """The registry's rows, without the column that the old version lacks."""
    rows: list[tuple[str, str]] = conn.execute(ROWS).fetchall()
    return rows


def answer(conn: Any, more: str = "") -> list[tuple[Any, ...]]:
    """What a search finds: the same before and after, or something was lost."""
    query = f"select * from items_search((select embedding from items where id = 5), k => 5{more})"
    rows: list[tuple[Any, ...]] = conn.execute(query).fetchall()
    return rows
