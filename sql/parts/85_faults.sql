-- Faults: what renames, drops, moves and restores have put out of step. status() lists them, repair() mends them. Nothing here reads a
-- row of a user's table or guesses: a rename is followed where the catalogue proves it.

-- Vector columns that go by another name now: the codes that the registry has for the old name, or our index, are over the new one.
create or replace function funnelvec._moved_columns()
returns table (table_name regclass, column_name text, new_name text)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select r.table_name, r.column_name, min(e.name)
    from funnelvec.resolutions as r
    cross join lateral (
        select m.column_name as name
        from funnelvec._made_columns(r.table_name) as m
        where m.code_column = r.code_column and m.resolution = r.resolution
        union all
        select a.attname::text
        from pg_index as i
        join pg_class as c on c.oid = i.indexrelid
        join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indrelid = r.table_name and c.relname = r.index_name and r.code_column = r.column_name
        union all
        -- A trigger of a side table has the numbers of the columns that it waits for, the vector last.
        select a.attname::text
        from pg_trigger as t
        join pg_attribute as a on a.attrelid = t.tgrelid and a.attnum = t.tgattr[cardinality(t.tgattr::smallint[]) - 1]
        where t.tgrelid = r.table_name and not t.tgisinternal and cardinality(t.tgattr::smallint[]) > 0
            and t.tgfoid = to_regprocedure(format('%s()', r.side_table))
    ) as e
    group by r.table_name, r.column_name
    having count(distinct e.name) = 1 and min(e.name) <> r.column_name
$body$;

-- Code columns that go by another name now: the only column that holds just this resolution, and that no other row claims.
create or replace function funnelvec._moved_codes()
returns table (table_name regclass, column_name text, resolution text, new_name text)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select r.table_name, r.column_name, r.resolution, min(m.code_column)
    from funnelvec.resolutions as r
    cross join lateral funnelvec._made_columns(r.table_name) as m
    where m.column_name = r.column_name and m.resolution = r.resolution and r.metric = any (m.metrics)
        and r.code_column <> r.column_name and r.storage = 'column'
        and not exists (
            select from funnelvec.resolutions as o where o.table_name = r.table_name and o.code_column = m.code_column)
        and not exists (
            select from pg_attribute as a
            where a.attrelid = r.table_name and a.attname = r.code_column and a.attnum > 0 and not a.attisdropped)
    group by r.table_name, r.column_name, r.resolution
    having count(*) = 1
$body$;

-- Code columns of the caller's tables that the registry does not know. Their metric is the one that the column is kept for, else the
-- one of an index over them, else cosine where they may be of it, which is what add_resolution would take.
create or replace function funnelvec._unknown_columns()
returns table (table_name regclass, column_name text, resolution text, metric text, code_column text)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select c.oid::regclass, m.column_name, m.resolution, k.metric, m.code_column
    from pg_class as c
    cross join lateral funnelvec._made_columns(c.oid) as m
    cross join lateral (
        select coalesce(
            (select r.metric from funnelvec.resolutions as r where r.table_name = c.oid and r.column_name = m.column_name limit 1),
            (select f.metric from funnelvec.funnels as f where f.table_name = c.oid and f.column_name = m.column_name limit 1),
            (select case when o.opcname like '%\_cosine\_ops' then 'cosine' when o.opcname like '%\_ip\_ops' then 'dot'
                    when o.opcname like '%\_l2\_ops' then 'euclidean' end
             from pg_index as i
             join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
             join pg_opclass as o on o.oid = i.indclass[0]
             where i.indrelid = c.oid and a.attname = m.code_column and o.opcname <> 'bit_hamming_ops'
             order by i.indexrelid limit 1),
            'cosine')
    ) as k (metric)
    where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't' and funnelvec._owns(c.oid)
        and exists (select from pg_attribute as a where a.attrelid = c.oid and a.attgenerated = 's' and not a.attisdropped)
        and m.named_by_us and k.metric = any (m.metrics)
        and not exists (
            select from funnelvec.resolutions as r
            where r.table_name = c.oid
                and (r.code_column = m.code_column or r.column_name = m.column_name and r.resolution = m.resolution))
$body$;

-- What the second line of a function's body says of its funnel, as a row of the registry; all null where it says nothing usable.
create or replace function funnelvec._defined(function oid, out f funnelvec.funnels, out calibration jsonb)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    p pg_proc;
    said jsonb;
begin
    select q.* into p from pg_proc as q where q.oid = function;
    said := substring(p.prosrc, '^[^\n]*\n-- (\{[^\n]*\})\n')::jsonb;
    f.table_name := to_regclass(
        (select format('%I.%I', n.nspname, said ->> 'table') from pg_namespace as n where n.oid = p.pronamespace));
    f.name := p.proname;
    f.column_name := said ->> 'column';
    f.funnel := said ->> 'funnel';
    f.metric := said ->> 'metric';
    f.model := coalesce(said ->> 'model', '');
    f.pending := said ->> 'pending';
    f.approximate := coalesce((said ->> 'approximate')::boolean, false);
    f.returns := (select array_agg(r.name order by r.ordinal)
        from jsonb_array_elements_text(nullif(said -> 'returns', 'null')) with ordinality as r (name, ordinal));
    f.created_at := now();
    f.logging := nullif(said -> 'logging', 'null');
    f.certificate := nullif(said -> 'certificate', 'null');
    f.tuned := nullif(said -> 'tuned', 'null');
    calibration := nullif(said -> 'calibration', 'null');
exception when data_exception then
    f := null;
    calibration := null;
end
$body$;

-- Search functions of the caller's that no funnel of the registry has. A function counts as written for a table only if its owner
-- has the rights of the table's owner, who alone may create funnels.
create or replace function funnelvec._unknown_functions()
returns table (function regprocedure, f funnelvec.funnels, calibration jsonb, verdict text)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select p.oid::regprocedure, d.f, d.calibration,
        case
            when (d.f).funnel is null then 'unreadable'
            when t.oid is null then 'drop'
            when funnelvec._owns(t.oid) and pg_has_role(p.proowner, t.relowner, 'usage') then 'adopt'
            else 'foreign'
        end
    from pg_proc as p
    cross join lateral funnelvec._defined(p.oid) as d
    left join pg_class as t on t.oid = (d.f).table_name and t.relkind in ('r', 'p')
    where starts_with(p.prosrc, funnelvec._mark()) and pg_has_role(p.proowner, 'usage')
        and not exists (
            select
            from funnelvec.funnels as g
            join pg_class as c on c.oid = g.table_name
            where c.relnamespace = p.pronamespace and g.name = p.proname)
$body$;

-- What is wrong with the function of a funnel, with the way out; null where it is what would be written now.
create or replace function funnelvec._function_fault(f funnelvec.funnels)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    p pg_proc;
    shape record;
begin
    select q.* into p from pg_proc as q where q.oid = funnelvec._function_oid(f);
    shape := funnelvec._function_shape(f);
    if funnelvec._function_body(f) = p.prosrc and p.proargnames = shape.names and p.proallargtypes = shape.types
        and (p.provolatile = 'v') = funnelvec._logs(f)
        and not p.prosecdef and p.proconfig = array['search_path=pg_catalog, pg_temp']
    then
        return null;
    elsif p.oid is not null then
        return 'stale: the table, its key, an index or funnelvec has changed: select funnelvec.repair();';
    end if;
    return coalesce(
        (select format('%s belongs to %s, who has no rights on the table; as its owner: alter function %1$s owner to %s;',
            q.oid::regprocedure, q.proowner::regrole, c.relowner::regrole)
         from pg_proc as q join pg_class as c on c.relnamespace = q.pronamespace
         where c.oid = f.table_name and q.proname = f.name and starts_with(q.prosrc, funnelvec._mark())
         limit 1),
        'missing: select funnelvec.repair();');
exception when others then
    -- Our own refusals say why the function can't be written; anything else is no finding.
    if sqlstate not like 'FV%' then
        raise;
    end if;
    return coalesce(
        (select format('column %I was renamed to %I: select funnelvec.repair();', m.column_name, m.new_name)
         from funnelvec._moved_columns() as m where m.table_name = f.table_name and m.column_name = f.column_name),
        (select format('what holds %s was renamed to %I: select funnelvec.repair();', m.resolution, m.new_name)
         from funnelvec._moved_codes() as m where m.table_name = f.table_name and m.column_name = f.column_name
         limit 1),
        format('can''t be written: %s', sqlerrm));
end
$body$;

-- Tables that are gone and how many rows of the registry they left. They belong to nobody.
create or replace function funnelvec._left_rows()
returns table (table_name regclass, number bigint)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select g.table_name, count(*)
    from (
        select r.table_name from funnelvec.resolutions as r
        union all select f.table_name from funnelvec.funnels as f
        union all select c.table_name from funnelvec.calibrations as c
        union all select w.table_name from funnelvec.windows as w
        union all select o.table_name from funnelvec.rotations as o
    ) as g
    where funnelvec._gone(g.table_name)
    group by g.table_name
    order by g.table_name::oid
$body$;

-- Everything that repair() looks at beside the rows of resolutions.
create or replace function funnelvec._problems()
returns table ("table" regclass, object text, advice text)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select l.table_name, format('table %s', l.table_name::oid),
        format('%s rows of the registry are left of a dropped table: select funnelvec.repair();', l.number)
    from funnelvec._left_rows() as l
    union all
    select r.table_name, format('rotation %s of %s', r.resolution, r.table_name),
        case when r.lost and r.rotator is null and not exists (
                select from funnelvec._unknown_rotations() as u
                where u.table_name = r.table_name and u.column_name = r.column_name and u.name = split_part(r.resolution, '~', 2))
                then format('its map is gone: select funnelvec.drop_resolution(%L, %L, %L); fit it again under another name',
                    r.table_name::text, r.column_name, r.resolution)
            when r.rotator is null then 'its function, or its map, is gone: select funnelvec.repair();'
            else format('function %s is stale: select funnelvec.repair();', r.rotator) end
    from funnelvec._rotation_faults() as r
    where not funnelvec._gone(r.table_name)
    union all
    select w.table_name, format('windows of %s by %I', w.table_name, w.by_column), s.fault
    from funnelvec.windows as w
    cross join lateral funnelvec._window_fault(w) as s (fault)
    where s.fault is not null and not funnelvec._gone(w.table_name)
    union all
    select h.table_name, format('hub column of %s.%I', h.table_name, h.column_name), h.fault
    from funnelvec._hub_faults() as h
    union all
    select l.table_name, format('hub column %s', coalesce(l.table_name::text || '.' || quote_ident(l.hub_column), l.function::text)),
        case when l.table_name is null then 'its table is gone: select funnelvec.repair();'
            else 'its trigger is gone, so new rows get none: select funnelvec.repair();' end
    from funnelvec._lost_hubs() as l
    union all
    select u.table_name, format('rotation %s of %s', u.name, u.table_name),
        'a fitted map that the registry does not know: select funnelvec.repair();'
    from funnelvec._unknown_rotations() as u
    union all
    select f.table_name, format('function %s', funnelvec._function_name(f)), s.fault
    from funnelvec.funnels as f
    cross join lateral funnelvec._function_fault(f) as s (fault)
    where s.fault is not null and not funnelvec._gone(f.table_name)
    union all
    select f.table_name, format('table %s', l.name),
        format('the query log of %s is gone: select funnelvec.stop_logging(%L, forget => true);', f.name, funnelvec._function_name(f))
    from funnelvec.funnels as f
    cross join lateral funnelvec._lost_log(f) as l (name)
    where l.name is not null and not funnelvec._gone(f.table_name)
    union all
    select u.table_name, format('column %s.%I', u.table_name, u.code_column),
        format('holds %s of %I, which the registry does not know: select funnelvec.repair();', u.resolution, u.column_name)
    from funnelvec._unknown_columns() as u
    where not exists (
        select from funnelvec._moved_codes() as m where m.table_name = u.table_name and m.new_name = u.code_column)
    union all
    select (u.r).table_name, format('side table %s', coalesce((u.r).side_table::text, u.function::text)),
        case when (u.r).table_name is null or (u.r).side_table is null then 'its table, or its codes, are gone: select funnelvec.repair();'
            else format('holds %s of %s, which the registry does not know: select funnelvec.repair();', (u.r).resolution, (u.r).table_name) end
    from funnelvec._unknown_sides() as u
    union all
    select (u.f).table_name, format('function %s', u.function),
        case u.verdict
            when 'adopt' then 'a search function that the registry does not know: select funnelvec.repair();'
            when 'drop' then 'its table is gone or is elsewhere: select funnelvec.repair();'
            when 'foreign' then format('it searches %s, which is not yours: drop function %s;', (u.f).table_name, u.function)
            else format('does not say which funnel it was made for; create the funnel again, or: drop function %s;', u.function)
        end
    from funnelvec._unknown_functions() as u
$body$;
