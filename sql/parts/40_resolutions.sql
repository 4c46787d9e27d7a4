-- Storing a resolution: a generated column beside the vector, and an index over it where searches start.

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

-- A generated column that is just what we would make, but that the registry does not know: after `drop extension`, or a restore
-- without the registry's rows. It is taken over as it is.
create or replace function funnelvec._orphan_column(table_name regclass, column_name text, resolution text, metric text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    wanted record := funnelvec._parse_resolution(resolution);
    base record := funnelvec._base(table_name, column_name);
    stored record := funnelvec._code(wanted.dims, wanted.code, quote_ident(column_name), metric, base.code);
begin
    return (
        select a.attname
        from pg_attribute as a
        join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attrelid = table_name
            and a.attname = funnelvec._column_for(table_name, column_name, wanted.dims, wanted.code)
            and a.attgenerated = 's'
            and format_type(a.atttypid, a.atttypmod) = stored.type
            -- Postgres prints the expression in a way of its own: brackets, line ends, capitals.
            and lower(translate(pg_get_expr(d.adbin, d.adrelid), E'() \n', ''))
                = lower(translate(stored.expression, E'() \n', ''))
    );
end
$body$;

-- Refuse what can't be stored before anything is touched.
create or replace function funnelvec._check_resolution(
    table_name regclass,
    column_name text,
    resolution text,
    index boolean,
    allow_rewrite boolean,
    metric text
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
            hint = 'If that is acceptable now, pass allow_rewrite => true.';
    end if;
end
$body$;

create or replace function funnelvec.add_resolution(
    table_name regclass,
    column_name text,
    resolution text,
    index boolean default false,
    allow_rewrite boolean default false,
    m integer default 16,
    ef_construction integer default 64,
    metric text default null
)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    wanted record := funnelvec._parse_resolution(resolution);
    base record := funnelvec._base(table_name, column_name);
    kept_metric text := funnelvec._metric_of(table_name, column_name, metric);
    stored record := funnelvec._code(wanted.dims, wanted.code, quote_ident(column_name), kept_metric, base.code);
    code_column text;
begin
    perform funnelvec._check_resolution(table_name, column_name, resolution, index, allow_rewrite, kept_metric);
    perform funnelvec._check_index_options(m, ef_construction);
    code_column := coalesce(
        funnelvec._code_column(table_name, column_name, resolution),
        funnelvec._orphan_column(table_name, column_name, resolution, kept_metric));
    if code_column is null then
        code_column := funnelvec._column_for(table_name, column_name, wanted.dims, wanted.code);
        -- Storage main, set before the rewrite: codes stay in the row, where middle stages read them cheaply, and may still move
        -- out of a row that would not fit its page (with plain storage the application's INSERT would fail).
        execute format(
            'alter table %s add column %I %s generated always as (%s) stored, alter column %I set storage main',
            table_name, code_column, stored.type, stored.expression, code_column);
    end if;
    insert into funnelvec.resolutions (table_name, column_name, resolution, metric, code_column)
    values ($1, $2, $3, kept_metric, code_column)
    on conflict on constraint resolutions_pkey do update set code_column = excluded.code_column;
    if index and funnelvec._index_of(table_name, code_column, stored.opclass) is null then
        perform funnelvec._create_index(table_name, column_name, resolution, code_column, stored.opclass, m, ef_construction);
    end if;
    return code_column;
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
    set index_name = (select c.relname from pg_class as c where c.oid = funnelvec._index_of($1, $4, $5))
    where r.table_name = $1 and r.column_name = $2 and r.resolution = $3;
    perform funnelvec._write_function(f)
    from funnelvec.funnels as f
    where f.table_name = $1 and f.column_name = $2;
end
$body$;

-- Removes the code column and our index over it. The base column is never dropped: for it only the index that we made goes.
create or replace function funnelvec.drop_resolution(table_name regclass, column_name text, resolution text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    stored funnelvec.resolutions;
    users text;
begin
    perform funnelvec._parse_resolution(resolution);
    perform funnelvec._check_owner(table_name);
    select r.* into stored
    from funnelvec.resolutions as r
    where r.table_name = $1 and r.column_name = $2 and r.resolution = $3;
    if stored.code_column is null then
        raise exception using
            errcode = 'FV005',
            message = format('%s.%I has no resolution %s', table_name, column_name, resolution),
            hint = format('It has: %s.', coalesce(
                (select string_agg(r.resolution, ', ' order by r.resolution) from funnelvec.resolutions as r
                 where r.table_name = $1 and r.column_name = $2), 'none'));
    end if;
    select string_agg(f.name, ', ' order by f.name) into users
    from funnelvec.funnels as f
    cross join funnelvec._parse_funnel(f.funnel) as s
    where f.table_name = $1 and f.column_name = $2 and s.resolution = $3;
    if users is not null and stored.code_column <> stored.column_name then
        raise exception using
            errcode = 'FV008',
            message = format('resolution %s of %s is used by: %s', resolution, table_name, users),
            hint = 'Replace or drop those funnels first (funnelvec.drop_funnel).';
    end if;
    delete from funnelvec.resolutions as r
    where r.table_name = $1 and r.column_name = $2 and r.resolution = $3;
    if stored.code_column <> stored.column_name then
        execute format('alter table %s drop column if exists %I', table_name, stored.code_column);
    elsif stored.index_name is not null then
        execute format('drop index if exists %I.%I', (
            select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = $1
        ), stored.index_name);
        perform funnelvec._write_function(f) from funnelvec.funnels as f where f.table_name = $1 and f.column_name = $2;
    end if;
end
$body$;

comment on function funnelvec.add_resolution(regclass, text, text, boolean, boolean, integer, integer, text)
    is 'store a resolution of a vector column, such as 128:f16, in a generated column; index => true makes it a first stage';
comment on function funnelvec.drop_resolution(regclass, text, text)
    is 'remove a stored resolution (its column and index); refused while a funnel uses it';
