"""What the catalog holds of an install, in a form that two databases can be compared in."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

# One row per fact, without object numbers, so that two databases can be compared.
SNAPSHOT = """
with home as (select to_regnamespace('funnelvec')::oid as oid)
select 'schema' as kind, n.nspname::text as name,
       array[n.nspowner::regrole::text, n.nspacl::text] as facts
  from pg_namespace n, home where n.oid = home.oid
union all
select 'function', p.oid::regprocedure::text,
       array[pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc'), p.proacl::text,
             p.proowner::regrole::text]
  from pg_proc p, home where p.pronamespace = home.oid and p.prokind in ('f', 'p')
union all
select 'relation', c.oid::regclass::text,
       array[c.relkind::text, c.relrowsecurity::text, c.relforcerowsecurity::text, c.relacl::text,
             obj_description(c.oid, 'pg_class'), c.relowner::regrole::text]
  from pg_class c, home where c.relnamespace = home.oid
union all
select 'column', format('%s.%s', a.attrelid::regclass, a.attname),
       array[a.attnum::text, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
             a.attgenerated::text, a.attidentity::text, pg_get_expr(d.adbin, d.adrelid)]
  from pg_attribute a
  join pg_class c on c.oid = a.attrelid
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum,
       home
 where c.relnamespace = home.oid and a.attnum > 0 and not a.attisdropped
union all
select 'constraint', format('%s.%s', o.conrelid::regclass, o.conname),
       array[pg_get_constraintdef(o.oid)]
  from pg_constraint o, home where o.connamespace = home.oid
union all
select 'index', i.indexrelid::regclass::text, array[pg_get_indexdef(i.indexrelid)]
  from pg_index i join pg_class c on c.oid = i.indexrelid, home where c.relnamespace = home.oid
union all
select 'policy', format('%s.%s', p.polrelid::regclass, p.polname),
       array[p.polcmd::text, p.polpermissive::text, p.polroles::text,
             pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)]
  from pg_policy p join pg_class c on c.oid = p.polrelid, home where c.relnamespace = home.oid
union all
select 'trigger', format('%s.%s', t.tgrelid::regclass, t.tgname), array[pg_get_triggerdef(t.oid)]
  from pg_trigger t join pg_class c on c.oid = t.tgrelid, home
 where c.relnamespace = home.oid and not t.tgisinternal
union all
select 'type', t.typname::text, array[t.typtype::text, format_type(t.typbasetype, t.typtypmod)]
  from pg_type t, home where t.typnamespace = home.oid and t.typtype in ('d', 'e', 'r')
"""

# What belongs to the extension; the rows of which tables pg_dump takes; what it takes for granted.
MEMBERS = """
select pg_describe_object(d.classid, d.objid, 0),
       d.objid = any (e.extconfig),
       (select array_agg(p.initprivs::text order by p.objsubid)
          from pg_init_privs p where (p.classoid, p.objoid) = (d.classid, d.objid))
  from pg_extension e
  join pg_depend d on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid
   and d.deptype = 'e'
 where e.extname = 'funnelvec'
"""


def snapshot(conn: Connection) -> dict[tuple[str, str], list[str | None]]:
    rows = conn.execute(SNAPSHOT).fetchall()
    found = {(kind, name): facts for kind, name, facts in rows}
    assert len(found) == len(rows)
    return found


def members(conn: Connection) -> set[tuple[Any, ...]]:
    rows = conn.execute(MEMBERS).fetchall()
    return {(what, dumped, tuple(granted or ())) for what, dumped, granted in rows}
