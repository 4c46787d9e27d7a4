-- Switching searches over to what was filled and built, and leaving the place that a resolution has moved out of.

-- Switch searches over to a side table that is filled, and indexed if that was asked for: one short transaction. Funnels that waited for
-- it take their stages. After a move between column and side table a second call drops the place that was left.
create or replace function funnelvec.activate(table_name regclass, column_name text, resolution text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $body$
declare
    r funnelvec.resolutions;
    stored record;
    wanted record := funnelvec._parse_resolution(resolution);
    since xid;
begin
    perform funnelvec._base(table_name, column_name);
    perform funnelvec._check_owner(table_name);
    select s.* into r
    from funnelvec.resolutions as s
    where s.table_name = $1 and s.column_name = $2 and s.resolution = $3
    for update;
    since := (select s.xmin from funnelvec.resolutions as s where s.table_name = $1 and s.column_name = $2 and s.resolution = $3);
    if r.side_table is null and r.index_options is not null then
        perform funnelvec._use_index(r);
        return;
    elsif r.side_table is null and exists (
        select from funnelvec.windows as w where w.table_name = $1 and w.column_name = $2 and w.resolution = $3 and not w.ready)
    then
        perform funnelvec._use_windows($1, $2, $3);
        return;
    elsif r.side_table is null then
        raise exception using
            errcode = 'FV005',
            message = format('%s has no side table for %s of column %L', table_name, resolution, left(column_name, 100)),
            hint = 'Only side storage is activated: columns are used from the moment they are there.';
    elsif r.state = 'leaving' then
        perform funnelvec._wait_for_snapshots(since, format('searches were switched to the new place of %s', resolution));
        perform funnelvec._leave(r);
        return;
    end if;
    stored := funnelvec._code(wanted.dims, wanted.code, 'x', funnelvec._metric_at(r.table_name, r.column_name, r.resolution, r.metric), (funnelvec._base(table_name, column_name)).code);
    r.index_name := (
        select c.relname from pg_class as c where c.oid = funnelvec._index_of(r.side_table, r.code_column, stored.opclass));
    if r.state not in ('filled', 'ready', 'checking') or r.index_options is not null and r.index_name is null then
        raise exception using
            errcode = 'FV008',
            message = case when r.state in ('filled', 'ready', 'checking') then format('the index over %s is not built', r.side_table)
                else format('%s is not filled yet: %s rows so far', r.side_table, r.filled) end,
            hint = 'Next: ' || funnelvec._next_said(table_name);
    end if;
    if r.state = 'filled' then
        perform funnelvec._wait_for_snapshots(since, format('%s was filled', r.side_table));
    end if;
    r.state := case when r.storage = 'column' then 'leaving' when r.state = 'checking' then 'checking' else 'ready' end;
    r.storage := 'side';
    update funnelvec.resolutions as u
    set storage = r.storage, state = r.state, index_name = r.index_name, filled_to = null
    where u.table_name = $1 and u.column_name = $2 and u.resolution = $3;
    perform funnelvec._write_side_function(r);
    -- Who may search was perhaps granted while it was filled.
    perform funnelvec._write_side_grants(r);
    perform funnelvec._write_functions($1, $2);
end
$body$;

-- For writes that triggers did not see: rows of a partition that was attached, replication, session_replication_role. Nothing tells
-- that they happened, so whoever made them says so, and backfill compares every code with its vector. Searches go on meanwhile.
create or replace function funnelvec.recheck(table_name regclass)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    r funnelvec.resolutions;
    kept boolean := false;
begin
    perform funnelvec._check_table(table_name);
    perform funnelvec._check_owner(table_name);
    for r in
        select s.* from funnelvec.resolutions as s where s.table_name = $1 and s.side_table is not null
        order by s.column_name, s.resolution
        for update
    loop
        kept := true;
        -- What is being filled, or dropped, needs no check of its own.
        continue when r.state not in ('ready', 'filled') or not funnelvec._side_stands(r);
        r.filled := case r.state when 'ready' then 0 else r.filled end;
        r.state := case r.state when 'ready' then 'checking' else 'sweeping' end;
        update funnelvec.resolutions as u
        set state = r.state, filled = r.filled, filled_to = null
        where u.table_name = r.table_name and u.column_name = r.column_name and u.resolution = r.resolution;
        perform funnelvec._write_side_function(r);
    end loop;
    if not kept then
        raise exception using
            errcode = 'FV005',
            message = format('%s keeps no resolution in a side table', table_name),
            hint = 'Generated columns are always right; only side tables are checked.';
    end if;
    return funnelvec._next_said(table_name);
end
$body$;

-- Let searches use the index that was built for a column. Over a partitioned table it is made here: where each partition has its own,
-- Postgres takes those over, and nothing is built.
create or replace function funnelvec._use_index(r funnelvec.resolutions)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    wanted record := funnelvec._parse_resolution(r.resolution);
    stored record := funnelvec._code(wanted.dims, wanted.code, 'x', funnelvec._metric_at(r.table_name, r.column_name, r.resolution, r.metric), (funnelvec._base(r.table_name, r.column_name)).code);
    partitioned boolean := (select c.relkind = 'p' from pg_class as c where c.oid = r.table_name);
begin
    if partitioned and funnelvec._index_of(r.table_name, r.code_column, stored.opclass) is null then
        -- Nobody attaches a partition while this is held, so what is checked below is what Postgres finds.
        perform funnelvec._lock_briefly('share', r.table_name);
        if not exists (
            select from funnelvec._leaves(r.table_name) as l
            where not exists (
                select from funnelvec._indexes_over(l.relation, r.code_column, stored.opclass) as i where i.valid and not i.attached))
        then
            execute format('create index on %s using hnsw (%I %s) with (m = %s, ef_construction = %s)', r.table_name, r.code_column,
                stored.opclass, (r.index_options ->> 'm')::integer, (r.index_options ->> 'ef_construction')::integer);
        end if;
    end if;
    if funnelvec._index_of(r.table_name, r.code_column, stored.opclass) is null then
        raise exception using
            errcode = 'FV008',
            message = format('the index over %I of %s is not built', r.code_column, r.table_name),
            hint = 'Next: ' || funnelvec._next_said(r.table_name);
    end if;
    update funnelvec.resolutions as u
    set index_options = null,
        index_name = (select c.relname from pg_class as c where c.oid = funnelvec._index_of(r.table_name, r.code_column, stored.opclass))
    where u.table_name = r.table_name and u.column_name = r.column_name and u.resolution = r.resolution;
    perform funnelvec._write_functions(r.table_name, r.column_name);
end
$body$;

-- Drop the place that a resolution has moved out of.
create or replace function funnelvec._leave(r funnelvec.resolutions)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
    if r.storage = 'column' then
        perform funnelvec._drop_side(r);
        update funnelvec.resolutions as u
        set side_table = null, state = null, filled_to = null, filled = 0, index_options = null
        where u.table_name = r.table_name and u.column_name = r.column_name and u.resolution = r.resolution;
        return;
    end if;
    if exists (
        select from funnelvec._made_columns(r.table_name) as m
        where m.code_column = r.code_column and m.column_name = r.column_name and m.resolution = r.resolution)
    then
        perform funnelvec._lock_briefly('access exclusive', r.table_name);
        execute format('alter table %s drop column %I', r.table_name, r.code_column);
    end if;
    r.state := 'ready';
    update funnelvec.resolutions as u
    set state = r.state
    where u.table_name = r.table_name and u.column_name = r.column_name and u.resolution = r.resolution;
    perform funnelvec._write_side_function(r);
end
$body$;

-- Rewrite the functions of a column's funnels; those that waited for a resolution which is there now take it up.
create or replace function funnelvec._write_functions(table_name regclass, column_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels;
begin
    for f in select g.* from funnelvec.funnels as g where g.table_name = $1 and g.column_name = $2 order by g.name loop
        if f.pending is not null and not exists (
            select from funnelvec._parse_funnel(f.pending) as p
            where funnelvec._serves($1, $2, p.resolution) is not true)
        then
            f.funnel := f.pending;
            f.pending := null;
            f.calibration := funnelvec._latest_calibration(f);
            update funnelvec.funnels as u
            set funnel = f.funnel, pending = null, calibration = f.calibration
            where u.table_name = f.table_name and u.name = f.name;
        end if;
        perform funnelvec._write_function(f);
    end loop;
end
$body$;

comment on procedure funnelvec.backfill(regclass, integer)
    is 'fill the side tables of a table in batches, each committed; may be stopped and called again';
comment on function funnelvec.next_step(regclass)
    is 'the statement to run next until every resolution of a table is in use as it was asked for; null when none is left';
comment on function funnelvec.activate(regclass, text, text)
    is 'let searches use a side table that is filled and indexed, or an index that was built concurrently';
comment on function funnelvec.recheck(regclass)
    is 'have the next backfill compare every code of the side tables of a table with its vector, after writes that fired no triggers';
