-- Storing a resolution: a generated column of the table (`column`) or a table beside it (`side`, 42_side.sql), and an index over it
-- where searches start.

-- Beyond this many rows adding a column is a decision: it rewrites the table while nobody can read or write it.
create or replace function funnelvec._rewrite_limit()
returns bigint
language sql immutable parallel safe
return 100000;

-- The name of the column that stores a resolution; too long a name is refused because Postgres would cut it silently.
create or replace function funnelvec._column_for(table_name regclass, column_name text, dims integer, code text)
returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    name text := format('%s_%s_%s', column_name, dims, code);
begin
    if octet_length(name) > 63 then
        raise exception using
            errcode = 'FV004',
            message = format('the column %L would need a name of %s bytes; Postgres allows 63', name, octet_length(name)),
            hint = format('Give the vector column a shorter name: alter table %s rename column %I to ...', table_name, column_name);
    end if;
    return name;
end
$body$;

-- Every generated column of a table that holds what add_resolution would make, whether or not the registry knows it: the catalogue
-- says which column it is computed from, and its expression what it computes. f16 codes look different under cosine. A column that
-- does not have the end of our names may be the user's own and is never taken over.
create or replace function funnelvec._made_columns(table_name regclass)
returns table (code_column text, column_name text, resolution text, metrics text[], named_by_us boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select c.code_column, c.column_name, c.resolution, array_agg(m.metric order by m.ordinality),
        right(c.code_column, length(c.ending)) = c.ending
    from (
        select
            a.attname::text as code_column, b.attname::text as column_name, a.atttypmod as dims, k.code,
            format('%s:%s', a.atttypmod, k.code) as resolution, format('_%s_%s', a.atttypmod, k.code) as ending,
            case bt.typname when 'vector' then 'f32' else 'f16' end as base_code,
            format_type(a.atttypid, a.atttypmod) as type, pg_get_expr(d.adbin, d.adrelid) as expression
        from pg_attribute as a
        join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
        join pg_type as at on at.oid = a.atttypid
        join (values ('vector', 'f32'), ('halfvec', 'f16'), ('bit', 'bit')) as k (type, code) on k.type = at.typname
        -- Versions differ in whether the column or its expression depends on the columns that it reads.
        join pg_depend as p
            on p.refclassid = 'pg_class'::regclass and p.refobjid = a.attrelid and p.refobjsubid <> a.attnum
            and (p.classid = 'pg_attrdef'::regclass and p.objid = d.oid
                or p.classid = 'pg_class'::regclass and p.objid = a.attrelid and p.objsubid = a.attnum)
        join pg_attribute as b on b.attrelid = a.attrelid and b.attnum = p.refobjsubid
        join pg_type as bt on bt.oid = b.atttypid
        where a.attrelid = table_name
            and a.attgenerated = 's'
            and not a.attisdropped
            and a.atttypmod between 1 and 16000
            and bt.typname in ('vector', 'halfvec') and b.attgenerated = ''
        group by a.attname, b.attname, a.atttypid, a.atttypmod, k.code, bt.typname, d.adbin, d.adrelid
    ) as c
    cross join unnest(array['cosine', 'dot', 'euclidean']) with ordinality as m (metric, ordinality)
    cross join lateral funnelvec._code(c.dims, c.code, quote_ident(c.column_name), m.metric, c.base_code) as s
    where c.type = s.type
        -- Postgres prints the expression in a way of its own: brackets, line ends, capitals.
        and lower(translate(c.expression, E'() \n', '')) = lower(translate(s.expression, E'() \n', ''))
    group by c.code_column, c.column_name, c.resolution, c.ending
$body$;

-- A column that is just what we would make, but that the registry does not know: after `drop extension`, or a restore without the
-- registry's rows. It is taken over as it is.
create or replace function funnelvec._orphan_column(table_name regclass, column_name text, resolution text, metric text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select m.code_column
    from funnelvec._made_columns($1) as m
    where m.column_name = $2 and m.resolution = $3 and $4 = any (m.metrics)
        and m.named_by_us
        and not exists (
            select from funnelvec.resolutions as r
            where r.table_name = $1 and r.code_column = m.code_column and r.storage = 'column')
    order by m.code_column
    limit 1
$body$;

-- Refuse what can't be stored before anything is touched.
create or replace function funnelvec._check_resolution(
    table_name regclass,
    column_name text,
    resolution text,
    index boolean,
    allow_rewrite boolean,
    metric text,
    storage text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    base record := funnelvec._base(table_name, column_name);
    wanted record := funnelvec._parse_resolution(resolution);
    stored record := funnelvec._code(wanted.dims, wanted.code, 'x', metric, base.code);
    taken boolean;
begin
    perform funnelvec._check_owner(table_name);
    if wanted.dims > base.dims then
        raise exception using
            errcode = 'FV001',
            message = format('resolution %s is wider than column %L of %s, which has %s dimensions',
                resolution, column_name, table_name, base.dims),
            hint = format('Ask for at most %s:%s.', base.dims, wanted.code);
    end if;
    if wanted.code = 'f32' and base.code = 'f16' then
        raise exception using
            errcode = 'FV001',
            message = format('resolution %s of %s.%I would store more digits than the halfvec column has',
                resolution, table_name, column_name),
            hint = format('Ask for %s:f16.', wanted.dims);
    end if;
    if index and wanted.dims > stored.index_limit then
        raise exception using
            errcode = 'FV009',
            message = format('pgvector indexes %s codes up to %s dimensions; %s has %s',
                wanted.code, stored.index_limit, resolution, wanted.dims),
            hint = 'Index a narrower resolution, or the bit code of this one, and let this one rescore.';
    end if;
    if storage = 'side' then
        perform funnelvec._check_side(table_name, column_name, resolution);
        return;
    end if;
    if funnelvec._code_column(table_name, column_name, resolution) is not null then
        return;
    end if;
    if funnelvec._orphan_column(table_name, column_name, resolution, metric) is not null then
        return;
    end if;
    select true into taken
    from pg_attribute as a
    where a.attrelid = table_name
        and a.attname = funnelvec._column_for(table_name, column_name, wanted.dims, wanted.code)
        and not a.attisdropped;
    if taken then
        raise exception using
            errcode = 'FV008',
            message = format('table %s already has a column %L, and funnelvec did not make it',
                table_name, funnelvec._column_for(table_name, column_name, wanted.dims, wanted.code)),
            hint = 'Rename or drop that column first.';
    end if;
    if not allow_rewrite and funnelvec._rows(table_name) > funnelvec._rewrite_limit() then
        raise exception using
            errcode = 'FV008',
            message = format('adding %s rewrites the %s rows of %s; nobody can read or write the table meanwhile',
                resolution, funnelvec._rows(table_name), table_name),
            hint = 'Pass storage => ''side'', which touches no row of it; or allow_rewrite => true, if that is acceptable now.';
    end if;
end
$body$;

-- What can't go into a side table.
create or replace function funnelvec._check_side(table_name regclass, column_name text, resolution text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
    if funnelvec._code_column(table_name, column_name, resolution) = column_name then
        raise exception using
            errcode = 'FV004',
            message = format('%s is the column %L of %s itself; it needs no side table', resolution, column_name, table_name),
            hint = 'Leave storage out.';
    end if;
    perform funnelvec._side_key(table_name);
end
$body$;

-- Where a resolution is to be kept: as asked, else where it is, else in a column.
create or replace function funnelvec._wanted_storage(table_name regclass, column_name text, resolution text, storage text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    if storage not in ('column', 'side') then
        raise exception using
            errcode = 'FV004',
            message = format('unknown storage %L', left(storage, 100)),
            hint = 'Known are column (a generated column: fastest, rewrites the table once) and side (a table beside it: for live tables).';
    end if;
    return coalesce(
        storage,
        (select case when r.side_table is not null and r.state <> 'leaving' then 'side' else r.storage end
         from funnelvec.resolutions as r where r.table_name = $1 and r.column_name = $2 and r.resolution = $3),
        'column');
end
$body$;

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
    if wanted_storage = 'side' then
        result := funnelvec._keep_in_side(table_name, column_name, resolution, kept_metric, wanted_index);
    else
        perform funnelvec._check_blocking(table_name, column_name, resolution, kept_metric, coalesce(index, false),
            coalesce(allow_rewrite, false), coalesce("concurrently", false));
        result := funnelvec._keep_in_column(table_name, column_name, resolution, kept_metric, m, ef_construction,
            coalesce(index, false) and not coalesce("concurrently", false));
        if index and "concurrently" and funnelvec._index_of(table_name, result, funnelvec._opclass(resolution, kept_metric)) is null then
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
        and funnelvec._index_of(table_name, code_column, funnelvec._opclass(resolution, metric)) is null
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
    stored record := funnelvec._code(wanted.dims, wanted.code, quote_ident(column_name), metric, base.code);
    code_column text := coalesce(
        funnelvec._code_column(table_name, column_name, resolution),
        funnelvec._orphan_column(table_name, column_name, resolution, metric));
    moved boolean := exists (
        select from funnelvec.resolutions as r
        where r.table_name = $1 and r.column_name = $2 and r.resolution = $3 and r.storage = 'side');
begin
    if code_column is null then
        code_column := funnelvec._column_for(table_name, column_name, wanted.dims, wanted.code);
        -- Storage main, set before the rewrite: codes stay in the row, where middle stages read them cheaply, and may still move
        -- out of a row that would not fit its page (with plain storage the application's INSERT would fail).
        execute format(
            'alter table %s add column %I %s generated always as (%s) stored, alter column %I set storage main',
            table_name, code_column, stored.type, stored.expression, code_column);
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
end
$body$;

comment on function funnelvec.add_resolution(regclass, text, text, boolean, boolean, integer, integer, text, text, boolean)
    is 'store a resolution of a vector column, such as 128:f16, in a generated column or (storage => side) in a table beside it; index => true makes it a first stage, concurrently => true leaves its index to next_step';
comment on function funnelvec.drop_resolution(regclass, text, text)
    is 'remove a stored resolution (its column and index); refused while a funnel uses it';
