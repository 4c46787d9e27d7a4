-- Side tables: made, dropped, looked for, mended and taken back into the registry.

-- Make the side table, its triggers and grants, and the row of the registry, all at once and empty: nothing here takes long.
create or replace function funnelvec._add_side(
    table_name regclass,
    column_name text,
    resolution text,
    metric text,
    index_options jsonb
)
returns regclass
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    wanted record := funnelvec._parse_resolution(resolution);
    base record := funnelvec._base(table_name, column_name);
    stored record := funnelvec._code(wanted.dims, wanted.code, 'x', funnelvec._metric_at(table_name, column_name, resolution, metric), base.code);
    name text := funnelvec._side_name(table_name, column_name, resolution);
    home text;
    unlogged boolean;
    columns text;
    keys text;
    r funnelvec.resolutions;
begin
    perform funnelvec._check_sees_all(table_name);
    perform funnelvec._check_sees_now();
    select format('%I', n.nspname), c.relpersistence = 'u' into home, unlogged
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.oid = table_name;
    if to_regclass(format('%s.%I', home, name)) is not null or to_regprocedure(format('%s.%I()', home, name)) is not null then
        raise exception using
            errcode = 'FV008',
            message = format('%s.%I exists already; the side table of %s needs that name', home, name, resolution),
            hint = 'Rename or drop it first. What an earlier funnelvec left behind comes back with: select funnelvec.repair();';
    end if;
    select r0.* into r from funnelvec.resolutions as r0 where r0.table_name = $1 and r0.column_name = $2 and r0.resolution = $3;
    r.table_name := table_name;
    r.column_name := column_name;
    r.resolution := resolution;
    r.metric := metric;
    r.code_column := coalesce(r.code_column, funnelvec._column_for(table_name, column_name, resolution));
    r.storage := coalesce(r.storage, 'side');
    r.state := 'filling';
    -- What moves out of a column takes its index along.
    r.index_options := coalesce(index_options, (
        select jsonb_build_object(
            'm', coalesce((select o.option_value from pg_options_to_table(c.reloptions) as o where o.option_name = 'm')::integer, 16),
            'ef_construction', coalesce((select o.option_value from pg_options_to_table(c.reloptions) as o where o.option_name = 'ef_construction')::integer, 64))
        from pg_class as c where c.oid = funnelvec._index_of(table_name, r.code_column, stored.opclass)), r.index_options);
    r.index_name := null;
    r.filled_to := null;
    r.filled := 0;
    r.created_at := coalesce(r.created_at, now());
    select string_agg(k.declared, ', ' order by k.ordinal), string_agg(quote_ident(k.name), ', ' order by k.ordinal)
    into columns, keys
    from funnelvec._side_key(table_name) as k;
    perform funnelvec._lock_briefly('share row exclusive', table_name);
    execute format('create %s table %s.%I (%s, %I %s not null, primary key (%s))',
        case when unlogged then 'unlogged' else '' end, home, name, columns, r.code_column, stored.type, keys);
    r.side_table := format('%s.%I', home, name)::regclass;
    execute format('alter table %s alter column %I set storage main', r.side_table, r.code_column);
    if wanted.rotation is not null then
        -- Never used. It keeps the function of the rotation from being dropped under the trigger, whose text depends on nothing.
        execute format('alter table %s alter column %I set default %s', r.side_table, r.code_column,
            (funnelvec._code_of(table_name, column_name, resolution, 'null', metric)).expression);
    end if;
    execute format('comment on table %s is %L', r.side_table, format('%s of %s.%I, kept by triggers of funnelvec', resolution, table_name, column_name));
    if (select s.relowner <> b.relowner from pg_class as s, pg_class as b where s.oid = r.side_table and b.oid = table_name) then
        execute format('alter table %s owner to %s', r.side_table, (select c.relowner::regrole from pg_class as c where c.oid = table_name));
    end if;
    perform funnelvec._write_side_function(r);
    perform funnelvec._write_side_triggers(r);
    perform funnelvec._write_side_grants(r);
    delete from funnelvec.resolutions as d where d.table_name = $1 and d.column_name = $2 and d.resolution = $3;
    insert into funnelvec.resolutions select r.*;
    return r.side_table;
end
$body$;

-- Take a side table away, triggers first. The user's table keeps what it was: columns, rows and storage.
create or replace function funnelvec._drop_side(r funnelvec.resolutions)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    t record;
    function regprocedure := to_regprocedure(format('%s()', r.side_table));
    stands boolean := funnelvec._side_stands(r);
begin
    -- A relation that the row names and that holds no codes of this table is data of somebody's.
    perform funnelvec._lock_briefly('access exclusive', variadic r.table_name || case when stands then array[r.side_table] end);
    for t in
        select g.tgname from pg_trigger as g
        where g.tgrelid = r.table_name and not g.tgisinternal and g.tgfoid = function
    loop
        execute format('drop trigger %I on %s', t.tgname, r.table_name);
    end loop;
    if starts_with((select p.prosrc from pg_proc as p where p.oid = function), funnelvec._side_mark()) then
        execute format('drop function %s', function);
    end if;
    if stands then
        execute format('drop table %s', r.side_table);
    end if;
end
$body$;

-- Trigger functions of side tables, of the caller's, that no row of the registry has: after `drop extension`, a restore without the
-- registry, or a dropped table. `r` is the row that they were made for; its table is null where no trigger calls them any more.
create or replace function funnelvec._unknown_sides()
returns table (function regprocedure, r funnelvec.resolutions)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    p record;
    said jsonb;
begin
    for p in
        select q.oid, q.prosrc, to_regclass(format('%I.%I', n.nspname, q.proname)) as side_table,
            (select t.tgrelid from pg_trigger as t where t.tgfoid = q.oid and t.tgparentid = 0 order by t.oid limit 1) as table_name
        from pg_proc as q
        join pg_namespace as n on n.oid = q.pronamespace
        where starts_with(q.prosrc, funnelvec._side_mark()) and pg_has_role(q.proowner, 'usage')
        order by q.oid
    loop
        continue when exists (
            select from funnelvec.resolutions as k where k.side_table = p.side_table and not funnelvec._gone(k.table_name));
        continue when p.table_name is not null and not funnelvec._owns(p.table_name);
        r := null;
        begin
            said := substring(p.prosrc, '^[^\n]*\n-- (\{[^\n]*\})\n')::jsonb;
            r.table_name := p.table_name;
            -- The column by its number in the trigger, which a rename does not change.
            r.column_name := (
                select a.attname
                from pg_trigger as t
                join pg_attribute as a on a.attrelid = t.tgrelid and a.attnum = t.tgattr[cardinality(t.tgattr::smallint[]) - 1]
                where t.tgrelid = p.table_name and t.tgfoid = p.oid and cardinality(t.tgattr::smallint[]) > 0
                limit 1);
            r.resolution := said ->> 'resolution';
            r.metric := said ->> 'metric';
            r.code_column := said ->> 'code_column';
            r.state := case when said ->> 'state' in ('filled', 'ready', 'checking', 'leaving') then said ->> 'state' else 'filling' end;
            r.index_options := nullif(said -> 'index', 'null');
        exception when data_exception then
            null;
        end;
        r.side_table := p.side_table;
        r.storage := 'side';
        r.filled := 0;
        r.created_at := now();
        function := p.oid;
        return next;
    end loop;
end
$body$;

-- What is out of step with a side table, with the way out; null where nothing is.
create or replace function funnelvec._side_fault(r funnelvec.resolutions)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    way_out constant text := ': select funnelvec.repair();';
begin
    if not funnelvec._side_stands(r) then
        return format('the side table %s is gone, or is not what holds %s%s then funnelvec.add_resolution', r.side_table, r.resolution, way_out);
    elsif exists (select from funnelvec._side_triggers(r) as t where not t.present or t.disabled) then
        return format('a trigger that keeps %s in step is missing or disabled, so codes may be out of date%s', r.side_table, way_out);
    elsif not exists (
        select from pg_proc as p
        where p.oid = to_regprocedure(format('%s()', r.side_table)) and p.prosrc = funnelvec._side_function_body(r) and p.prosecdef)
    then
        return format('the trigger function of %s is stale: a column was renamed, or funnelvec has changed%s', r.side_table, way_out);
    elsif exists (select from funnelvec._side_grants(r)) or funnelvec._side_open(r) then
        return format('who may read %s is not who may read %s%s', r.side_table, r.table_name, way_out);
    end if;
    return null;
end
$body$;

-- Mends a side table. Where a trigger was missing or disabled, writes went by it: backfill then compares every code with its vector.
-- Searches go on meanwhile: a stale code can cost a row its place in a shortlist, never give it a wrong score.
create or replace function funnelvec._repair_side(r funnelvec.resolutions)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    -- What is about to be dropped need not be right any more.
    missed boolean := not (r.storage = 'column' and r.state = 'leaving')
        and exists (select from funnelvec._side_triggers(r) as t where not t.present or t.disabled);
begin
    if missed then
        perform funnelvec._check_sees_now();
        if r.state in ('ready', 'checking') then
            perform funnelvec._lock_briefly('share row exclusive', r.table_name);
            r.state := 'checking';
        else
            perform funnelvec._lock_briefly('access exclusive', r.table_name, r.side_table);
            -- A move into the side table is turned round: searches go back to the column, which is still there.
            if r.storage = 'side' and r.state = 'leaving' then
                r.storage := 'column';
                update funnelvec.resolutions as u
                set storage = r.storage, state = 'filling'
                where u.table_name = r.table_name and u.column_name = r.column_name and u.resolution = r.resolution;
                perform funnelvec._write_functions(r.table_name, r.column_name);
            end if;
            -- What is there may be stale, and filling would leave it alone.
            execute format('truncate %s', r.side_table);
            r.state := 'filling';
        end if;
        update funnelvec.resolutions as u
        set state = r.state, filled_to = null, filled = 0
        where u.table_name = r.table_name and u.column_name = r.column_name and u.resolution = r.resolution;
    end if;
    perform funnelvec._write_side_function(r);
    perform funnelvec._write_side_triggers(r);
    perform funnelvec._write_side_grants(r);
    return case when missed then format('write its triggers; next: %s', funnelvec._next_said(r.table_name))
        else 'rewrite its trigger function and grants' end;
end
$body$;

-- What is left of a side table whose table, or whose codes, are gone.
create or replace function funnelvec._drop_unknown_side(function regprocedure, side_table regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    t record;
begin
    for t in
        select g.tgname, g.tgrelid::regclass as relation from pg_trigger as g where g.tgfoid = function and g.tgparentid = 0
    loop
        perform funnelvec._lock_briefly('access exclusive', t.relation);
        execute format('drop trigger %I on %s', t.tgname, t.relation);
    end loop;
    execute format('drop function %s', function);
    if exists (select from pg_class as c where c.oid = side_table and c.relkind = 'r' and pg_has_role(c.relowner, 'usage')) then
        execute format('drop table %s', side_table);
    end if;
end
$body$;

-- Takes a side table back into the registry, through the checks that add_resolution makes.
create or replace function funnelvec._adopt_side(r funnelvec.resolutions)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
    perform funnelvec._parse_resolution(r.resolution);
    r.metric := funnelvec._metric_of(r.table_name, r.column_name, r.metric);
    if not funnelvec._side_stands(r) then
        raise exception using
            errcode = 'FV005',
            message = format('the table %s is gone, or is not what its trigger function says', r.side_table),
            hint = 'Drop the triggers of that function, then the function.';
    end if;
    insert into funnelvec.resolutions select r.* on conflict do nothing;
end
$body$;
