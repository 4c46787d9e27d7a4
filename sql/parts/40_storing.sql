-- Adding and dropping one resolution; what may be stored, and where, is in 40_resolutions.sql.

-- Returns the name of the column, or of the side table. A side table of a table that has rows is empty at first, see next_step.
create or replace function funnelvec.add_resolution(
    table_name regclass,
    column_name text,
    resolution text,
    index boolean default false,
    allow_rewrite boolean default false,
    m integer default 16,
    ef_construction integer default 64,
    metric text default null,
    storage text default null,
    "concurrently" boolean default false
)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $body$
declare
    kept_metric text;
    wanted_storage text;
    wanted_index constant jsonb := case when index then jsonb_build_object('m', m, 'ef_construction', ef_construction) end;
    result text;
begin
    perform funnelvec._parse_resolution(resolution);
    perform funnelvec._base(table_name, column_name);
    kept_metric := funnelvec._metric_of(table_name, column_name, metric);
    wanted_storage := funnelvec._wanted_storage(table_name, column_name, resolution, storage);
    perform funnelvec._check_resolution(table_name, column_name, resolution, index, allow_rewrite, kept_metric, wanted_storage);
    perform funnelvec._check_index_options(m, ef_construction);
    perform funnelvec._make_rotators(table_name, column_name, resolution);
    if wanted_storage = 'side' then
        result := funnelvec._keep_in_side(table_name, column_name, resolution, kept_metric, wanted_index);
    else
        perform funnelvec._check_blocking(table_name, column_name, resolution, kept_metric, coalesce(index, false),
            coalesce(allow_rewrite, false), coalesce("concurrently", false));
        result := funnelvec._keep_in_column(table_name, column_name, resolution, kept_metric, m, ef_construction,
            coalesce(index, false) and not coalesce("concurrently", false));
        if index and "concurrently" and funnelvec._index_of(table_name, result, funnelvec._opclass(resolution, funnelvec._metric_at(table_name, column_name, resolution, kept_metric))) is null then
            update funnelvec.resolutions as r
            set index_options = wanted_index
            where r.table_name = $1 and r.column_name = $2 and r.resolution = $3;
        end if;
    end if;
    if funnelvec._next_said(table_name) is not null then
        raise notice '% is not finished; next: %', resolution, funnelvec._next_said(table_name);
    end if;
    return result;
end
$body$;

-- Building an index locks the table against writers until it is done: over a large table that is there already it is a decision, as
-- rewriting is. A new column is rewritten in under a stronger lock, and asked for before.
create or replace function funnelvec._check_blocking(
    table_name regclass,
    column_name text,
    resolution text,
    metric text,
    index boolean,
    allow_rewrite boolean,
    later boolean
)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    code_column text := funnelvec._code_column(table_name, column_name, resolution);
begin
    if later and exists (
        select from funnelvec.resolutions as r
        where r.table_name = $1 and r.column_name = $2 and r.resolution = $3 and r.side_table is not null)
    then
        raise exception using
            errcode = 'FV008',
            message = format('%s of %s.%I has a side table; what moves out of it takes its index along at once', resolution, table_name, column_name),
            hint = 'Leave concurrently out, or take the next step first: select funnelvec.next_step(...).';
    end if;
    if index and not allow_rewrite and not later and code_column is not null
        and funnelvec._rows(table_name) > funnelvec._rewrite_limit()
        and funnelvec._index_of(table_name, code_column, funnelvec._opclass(resolution, funnelvec._metric_at(table_name, column_name, resolution, metric))) is null
    then
        raise exception using
            errcode = 'FV008',
            message = format('building the index of %s over the %s rows of %s stops everybody from writing meanwhile',
                resolution, funnelvec._rows(table_name), table_name),
            hint = 'Pass concurrently => true and run what funnelvec.next_step says; or allow_rewrite => true, if that is acceptable now.';
    end if;
end
$body$;

-- The operators that an index over a resolution is made for.
create or replace function funnelvec._opclass(resolution text, metric text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select c.opclass
    from funnelvec._parse_resolution(resolution) as p
    cross join lateral funnelvec._code(p.dims, p.code, 'x', metric, 'f32') as c
$body$;

-- The actions of ALTER TABLE that add the column of a resolution. Storage main, set before the rewrite: codes stay in the row, where
-- middle stages read them cheaply, and may still move out of a row that would not fit its page (with plain storage the application's
-- INSERT would fail).
create or replace function funnelvec._adding(table_name regclass, column_name text, resolution text, metric text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select format('add column %I %s generated always as (%s) stored, alter column %I set storage main', n.name, c.type, c.expression, n.name)
    from funnelvec._code_of(table_name, column_name, resolution, quote_ident(column_name), metric) as c
    cross join funnelvec._column_for(table_name, column_name, resolution) as n (name)
$body$;

create or replace function funnelvec._keep_in_column(
    table_name regclass,
    column_name text,
    resolution text,
    metric text,
    m integer,
    ef_construction integer,
    index boolean
)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    wanted record := funnelvec._parse_resolution(resolution);
    base record := funnelvec._base(table_name, column_name);
    stored record;
    code_column text := coalesce(
        funnelvec._code_column(table_name, column_name, resolution),
        funnelvec._orphan_column(table_name, column_name, resolution, metric));
    moved boolean := exists (
        select from funnelvec.resolutions as r
        where r.table_name = $1 and r.column_name = $2 and r.resolution = $3 and r.storage = 'side');
begin
    stored := funnelvec._code_of(table_name, column_name, resolution, quote_ident(column_name), metric);
    if code_column is null then
        code_column := funnelvec._column_for(table_name, column_name, resolution);
        execute format('alter table %s %s', table_name, funnelvec._adding(table_name, column_name, resolution, metric));
    end if;
    insert into funnelvec.resolutions (table_name, column_name, resolution, metric, code_column)
    values ($1, $2, $3, $4, code_column)
    on conflict on constraint resolutions_pkey do update
    set code_column = excluded.code_column, storage = 'column',
        -- A side table stays until the next step: searches that wait for this transaction still read it.
        state = case when resolutions.side_table is not null then 'leaving' end;
    -- What moves out of a side table takes its index along.
    index := index or moved and exists (
        select from funnelvec.resolutions as r
        where r.table_name = $1 and r.column_name = $2 and r.resolution = $3 and r.index_name is not null);
    if index and funnelvec._index_of(table_name, code_column, stored.opclass) is null then
        perform funnelvec._create_index(table_name, column_name, resolution, code_column, stored.opclass, m, ef_construction);
    elsif moved then
        perform funnelvec._write_functions(table_name, column_name);
    end if;
    return code_column;
end
$body$;

-- A side table begins empty and is filled in steps; over an empty table there is nothing to wait for.
create or replace function funnelvec._keep_in_side(
    table_name regclass,
    column_name text,
    resolution text,
    metric text,
    index_options jsonb
)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    stored funnelvec.resolutions;
    empty boolean;
begin
    select r.* into stored
    from funnelvec.resolutions as r
    where r.table_name = $1 and r.column_name = $2 and r.resolution = $3 and r.side_table is not null;
    if stored.side_table is null then
        stored.side_table := funnelvec._add_side(table_name, column_name, resolution, metric, index_options);
        execute format('select not exists (select from %s)', table_name) into empty;
        if empty then
            while (funnelvec._backfill_step(table_name, 10000)).state is not null loop
                null;
            end loop;
            if index_options is not null then
                execute replace(funnelvec.next_step(table_name), ' concurrently', '');
            end if;
            perform funnelvec.activate(table_name, column_name, resolution);
        end if;
    else
        update funnelvec.resolutions as r
        set storage = case when r.state = 'leaving' then 'side' else r.storage end,
            index_options = case when r.index_name is null then coalesce($5, r.index_options) else r.index_options end
        where r.table_name = $1 and r.column_name = $2 and r.resolution = $3;
        if stored.state = 'leaving' and stored.storage = 'column' then
            perform funnelvec._write_functions(table_name, column_name);
        end if;
    end if;
    return stored.side_table::text;
end
$body$;

create or replace function funnelvec._check_index_options(m integer, ef_construction integer)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
begin
    if m is null or m not between 2 and 100 then
        raise exception using
            errcode = 'FV004',
            message = format('m is %s; an HNSW index takes 2 to 100', coalesce(m::text, 'null')),
            hint = 'The default is 16.';
    end if;
    if ef_construction is null or ef_construction not between greatest(4, 2 * m) and 1000 then
        raise exception using
            errcode = 'FV004',
            message = format('ef_construction is %s; with m = %s it must be %s to 1000',
                coalesce(ef_construction::text, 'null'), m, greatest(4, 2 * m)),
            hint = 'The default is 64.';
    end if;
end
$body$;

-- The index takes the name that Postgres picks: it is unique and never too long. Functions whose first stage can use it are rewritten.
create or replace function funnelvec._create_index(
    table_name regclass,
    column_name text,
    resolution text,
    code_column text,
    opclass text,
    m integer,
    ef_construction integer
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
    execute format(
        'create index on %s using hnsw (%I %s) with (m = %s, ef_construction = %s)',
        table_name, code_column, opclass, m, ef_construction);
    update funnelvec.resolutions as r
    set index_name = (select c.relname from pg_class as c where c.oid = funnelvec._index_of($1, $4, $5)),
        -- It may have been asked for concurrently before; a side table that is being left keeps what it was asked for.
        index_options = case when r.side_table is not null then r.index_options end
    where r.table_name = $1 and r.column_name = $2 and r.resolution = $3;
    perform funnelvec._write_functions(table_name, column_name);
end
$body$;

-- Removes the code column or side table and our index over it. The base column is never dropped: for it only the index that we made goes.
create or replace function funnelvec.drop_resolution(table_name regclass, column_name text, resolution text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $body$
declare
    stored funnelvec.resolutions;
    users text;
    made regclass;
begin
    perform funnelvec._parse_resolution(resolution);
    perform funnelvec._check_table(table_name);
    perform funnelvec._check_owner(table_name);
    select r.* into stored
    from funnelvec.resolutions as r
    where r.table_name = $1 and r.column_name = $2 and r.resolution = $3;
    if stored.code_column is null then
        raise exception using
            errcode = 'FV005',
            message = format('%s has no resolution %s of the column %L', table_name, resolution, left(column_name, 100)),
            hint = format('It has: %s.', coalesce(
                (select string_agg(r.resolution, ', ' order by r.resolution) from funnelvec.resolutions as r
                 where r.table_name = $1 and r.column_name = $2), 'none'));
    end if;
    select string_agg(f.name, ', ' order by f.name) into users
    from funnelvec.funnels as f
    cross join lateral funnelvec._parse_funnel(coalesce(f.pending, f.funnel)) as s
    where f.table_name = $1 and f.column_name = $2 and s.resolution = $3;
    if users is not null and stored.code_column <> stored.column_name then
        raise exception using
            errcode = 'FV008',
            message = format('resolution %s of %s is used by: %s', resolution, table_name, users),
            hint = 'Replace or drop those funnels first (funnelvec.drop_funnel).';
    end if;
    perform funnelvec._wait_for_snapshots(
        (select p.xmin from funnelvec.funnels as f join pg_proc as p on p.oid = funnelvec._function_oid(f)
         where f.table_name = $1 and f.column_name = $2 order by age(p.xmin) limit 1),
        format('the funnels of %s.%I were changed', table_name, column_name));
    perform funnelvec._drop_windows($1, $2, $3, null);
    delete from funnelvec.resolutions as r
    where r.table_name = $1 and r.column_name = $2 and r.resolution = $3;
    if stored.side_table is not null then
        perform funnelvec._drop_side(stored);
    end if;
    if (stored.storage = 'column' or stored.state = 'leaving') and stored.code_column <> stored.column_name then
        -- A column that the row names and that holds no code is data of somebody's.
        if exists (select from funnelvec._made_columns($1) as m where m.code_column = stored.code_column and m.resolution = $3) then
            perform funnelvec._lock_briefly('access exclusive', table_name);
            execute format('alter table %s drop column %I', table_name, stored.code_column);
        end if;
    elsif stored.storage = 'column' and stored.index_name is not null then
        made := (
            select i.indexrelid
            from pg_index as i join pg_class as c on c.oid = i.indexrelid join pg_am as m on m.oid = c.relam
            where i.indrelid = $1 and c.relname = stored.index_name and m.amname = 'hnsw');
        if made is not null then
            perform funnelvec._lock_briefly('access exclusive', table_name);
            execute format('drop index %s', made);
        end if;
        perform funnelvec._write_function(f) from funnelvec.funnels as f where f.table_name = $1 and f.column_name = $2;
    end if;
    perform funnelvec._drop_rotators($1, $2, $3);
end
$body$;

comment on function funnelvec.add_resolution(regclass, text, text, boolean, boolean, integer, integer, text, text, boolean)
    is 'store a resolution of a vector column, such as 128:f16, in a generated column or (storage => side) in a table beside it; index => true makes it a first stage, concurrently => true leaves its index to next_step';
comment on function funnelvec.drop_resolution(regclass, text, text)
    is 'remove a stored resolution (its column and index); refused while a funnel uses it';
