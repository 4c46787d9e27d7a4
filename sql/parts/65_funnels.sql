-- Creating a funnel writes one typed function into the table's own schema.

-- The name of the function, schema and all, as SQL writes it.
create or replace function funnelvec._function_name(f funnelvec.funnels)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select format('%I.%I', n.nspname, f.name)
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.oid = f.table_name
$body$;

-- Refuse a funnel that could not work, before anything is written.
create or replace function funnelvec._check_funnel(f funnelvec.funnels)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    base record := funnelvec._base(f.table_name, f.column_name);
    reserved text;
    s record;
begin
    perform funnelvec._check_owner(f.table_name);
    perform funnelvec._check_returns(f);
    if coalesce(f.name, '') = '' or octet_length(f.name) > 63 then
        raise exception using
            errcode = 'FV004',
            message = format('a funnel needs a name of 1 to 63 bytes; %L has %s', f.name, coalesce(octet_length(f.name), 0)),
            hint = 'The name becomes the name of a function.';
    end if;
    select k.name into reserved
    from funnelvec._key(f.table_name) as k
    where k.name in ('score', 'relevance', 'query', 'k', 'min_relevance', 'filter', 'after', 'cutoff') or k.name like '\_fv\_%'
    limit 1;
    if reserved is not null then
        raise exception using
            errcode = 'FV008',
            message = format('a key column of %s is named %L, which the search function uses itself', f.table_name, reserved),
            hint = format('Rename it: alter table %s rename column %I to ...', f.table_name, reserved);
    end if;
    for s in select * from funnelvec._parse_funnel(coalesce(f.pending, f.funnel)) as p order by p.stage loop
        if s.dims > base.dims then
            raise exception using
                errcode = 'FV001',
                message = format('stage %s (%s) is wider than column %L of %s, which has %s dimensions',
                    s.stage, s.resolution, f.column_name, f.table_name, base.dims),
                hint = format('Write at most %s dims.', base.dims);
        elsif s.code = 'f32' and base.code = 'f16' then
            raise exception using
                errcode = 'FV001',
                message = format('stage %s (%s) would hold more digits than the halfvec column %L of %s',
                    s.stage, s.resolution, f.column_name, f.table_name),
                hint = format('Write %s:f16.', s.dims);
        end if;
    end loop;
    if s.resolution is distinct from format('%s:%s', base.dims, base.code) and not f.approximate then
        raise exception using
            errcode = 'FV001',
            message = format('the last stage (%s) is not the base column, so scores would be approximate', s.resolution),
            hint = format('End with %s:%s, or pass approximate => true.', base.dims, base.code);
    end if;
    perform funnelvec._stages(f);
end
$body$;

-- Refuse columns to return that are not there, or whose names the function has taken.
create or replace function funnelvec._check_returns(f funnelvec.funnels)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    taken text;
begin
    if array_ndims(f.returns) > 1 or cardinality(f.returns) > 200 or exists (select from unnest(f.returns) as r where r is null) then
        raise exception using
            errcode = 'FV004',
            message = 'returns is not a list of up to 200 names of columns',
            hint = 'Such as returns => array[''name'', ''price''].';
    end if;
    perform funnelvec._returned(f);
    select r.name into taken
    from unnest(f.returns) as r (name)
    where r.name in ('score', 'relevance', 'query', 'k', 'min_relevance', 'filter', 'after', 'cutoff') or r.name like '\_fv\_%'
        or r.name in (select k.name from funnelvec._key(f.table_name) as k)
    group by r.name
    union all
    select r.name from unnest(f.returns) as r (name) group by r.name having count(*) > 1
    limit 1;
    if taken is not null then
        raise exception using
            errcode = 'FV008',
            message = format('the search function can''t return the column %L of %s: it has that name already', taken, f.table_name),
            hint = 'The key is returned anyway; leave out what is named twice, and rename a column called score, relevance, query, k, '
                'min_relevance, filter, after, cutoff or _fv_...';
    end if;
end
$body$;

create or replace function funnelvec._check_function_name(f funnelvec.funnels, replace boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    foreign_one text;
    other_table regclass;
begin
    select p.oid::regprocedure::text into foreign_one
    from pg_proc as p
    join pg_class as c on c.relnamespace = p.pronamespace
    where c.oid = f.table_name and p.proname = f.name
        and not (starts_with(p.prosrc, funnelvec._mark()) and pg_has_role(p.proowner, c.relowner, 'usage'))
    limit 1;
    if foreign_one is not null then
        raise exception using
            errcode = 'FV008',
            message = format('the function %s exists and funnelvec did not make it', foreign_one),
            hint = 'Give the funnel another name.';
    end if;
    select g.table_name into other_table
    from funnelvec.funnels as g
    where g.name = f.name and funnelvec._function_name(g) = funnelvec._function_name(f) and (g.table_name <> f.table_name or not replace)
    limit 1;
    if other_table is not null then
        raise exception using
            errcode = 'FV008',
            message = format('the funnel %s exists, on table %s', funnelvec._function_name(f), other_table),
            hint = case when other_table = f.table_name then 'To change it pass replace => true.'
                else 'Give the funnel another name.' end;
    end if;
end
$body$;

-- The newest calibration of what a funnel ends in that it can use.
create or replace function funnelvec._latest_calibration(f funnelvec.funnels)
returns integer
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select max(c.version)
    from funnelvec.calibrations as c
    where (c.table_name, c.column_name, c.model, c.metric, c.last_stage)
        = (f.table_name, f.column_name, f.model, f.metric, funnelvec._last_stage(f.funnel))
        and funnelvec._suits(f.funnel, c.family, c.parameters) and funnelvec._in_step(f.table_name, f.column_name, c.parameters)
$body$;

-- A funnel that needs a resolution which is still being filled waits for it. Meanwhile it runs as it did before, or, if it is new,
-- without those stages. The last stage has to be there: it gives the scores.
create or replace function funnelvec._meanwhile(f funnelvec.funnels)
returns funnelvec.funnels
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    before text;
    waiting text;
    without text;
begin
    select
        string_agg(p.resolution, ', ' order by p.stage) filter (where s.ready = false),
        string_agg(p.resolution || coalesce('@' || p.keep, ''), ' > ' order by p.stage) filter (where s.ready is distinct from false or p.keep is null)
    into waiting, without
    from funnelvec._parse_funnel(f.funnel) as p
    cross join lateral (select funnelvec._serves(f.table_name, f.column_name, p.resolution)) as s (ready);
    if waiting is null then
        return f;
    end if;
    select g.funnel into before
    from funnelvec.funnels as g
    where g.table_name = f.table_name and g.name = f.name and g.column_name = f.column_name
        and funnelvec._last_stage(g.funnel) = funnelvec._last_stage(f.funnel)
        and not exists (
            select from funnelvec._parse_funnel(g.funnel) as p
            where funnelvec._serves(f.table_name, f.column_name, p.resolution) is not true);
    f.pending := f.funnel;
    f.funnel := coalesce(before, without);
    raise notice 'funnel % runs % until % of % is filled; next: %', f.name, f.funnel, waiting, f.table_name, funnelvec._next_said(f.table_name);
    return f;
end
$body$;

create or replace function funnelvec.create_funnel(
    name text,
    table_name regclass,
    column_name text,
    funnel text,
    approximate boolean default false,
    replace boolean default false,
    model text default null,
    metric text default null,
    returns text[] default null
)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $body$
declare
    f funnelvec.funnels;
begin
    f.name := name;
    f.table_name := table_name;
    f.column_name := column_name;
    f.approximate := coalesce(approximate, false);
    f.model := coalesce(model, '');
    f.returns := nullif(returns, '{}');
    select string_agg(p.resolution || coalesce('@' || p.keep, ''), ' > ' order by p.stage) into f.funnel
    from funnelvec._parse_funnel(funnel) as p;
    perform funnelvec._base(table_name, column_name);
    f.metric := funnelvec._metric_of(table_name, column_name, metric);
    f := funnelvec._meanwhile(f);
    perform funnelvec._check_funnel(f);
    perform funnelvec._check_function_name(f, coalesce(replace, false));
    f.calibration := funnelvec._latest_calibration(f);
    f.created_at := now();
    -- Feedback goes by the calibration, and is forgotten with it.
    select g.logging, g.feedback into f.logging, f.feedback
    from funnelvec.funnels as g where g.table_name = f.table_name and g.name = f.name;
    delete from funnelvec.funnels as g where g.table_name = f.table_name and g.name = f.name;
    insert into funnelvec.funnels select f.*;
    perform funnelvec._write_function(f);
    return (select p.oid::regprocedure::text from pg_proc as p where p.oid = funnelvec._function_oid(f));
end
$body$;

-- The function of a funnel. One that somebody without the rights of the table's owner made only looks like it.
create or replace function funnelvec._function_oid(f funnelvec.funnels)
returns oid
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select p.oid
    from pg_proc as p join pg_class as c on c.relnamespace = p.pronamespace
    where c.oid = f.table_name and p.proname = f.name and starts_with(p.prosrc, funnelvec._mark())
        and pg_has_role(p.proowner, c.relowner, 'usage')
    order by p.proargtypes[0] = (
        select a.atttypid from pg_attribute as a where a.attrelid = f.table_name and a.attname = f.column_name) desc nulls last, p.oid
    limit 1
$body$;

-- Remove a funnel and its function. Its calibration stays: it belongs to the column and the last stage.
create or replace function funnelvec.drop_funnel(name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel(name);
begin
    perform funnelvec._check_owner(f.table_name);
    if funnelvec._function_oid(f) is not null then
        execute format('drop function %s', funnelvec._function_oid(f)::regprocedure);
    end if;
    delete from funnelvec.funnels as g where g.table_name = f.table_name and g.name = f.name;
end
$body$;

-- Names and types of what the function of a funnel takes and returns, as pg_proc keeps them.
create or replace function funnelvec._function_shape(f funnelvec.funnels, out names text[], out types oid[])
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select
        array['query', 'k', 'min_relevance', 'filter', 'after', 'cutoff']
            || case when funnelvec._maps_key(f) is not null then array['_fv_mapped', '_fv_maps'] end || array_agg(k.name order by k.ordinal)
            || array(select r.name from funnelvec._returned(f) as r order by r.ordinal) || array['score', 'relevance'],
        array[(funnelvec._base(f.table_name, f.column_name)).type::regtype::oid, 'int4'::regtype, 'float8'::regtype, 'jsonb'::regtype,
                'jsonb'::regtype, 'text'::regtype]
            || case when funnelvec._maps_key(f) is not null
                then array[to_regtype(funnelvec._vector_schema() || '.vector[]')::oid, 'text'::regtype::oid] end
            || array_agg(a.atttypid order by k.ordinal)
            || array(select r.type_id from funnelvec._returned(f) as r order by r.ordinal) || array['float8'::regtype::oid, 'float8'::regtype]
    from funnelvec._key(f.table_name) as k
    join pg_attribute as a on a.attrelid = f.table_name and a.attname = k.name
$body$;

-- (Re)write the function of a funnel. Everything it needs stands in its text as a literal: it reads no registry when it runs.
-- Replacing keeps its grants; where the key or the vector column has changed its name or type it is made anew, with the same grants.
create or replace function funnelvec._write_function(f funnelvec.funnels)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $body$
declare
    key record := funnelvec._key_sql(f.table_name);
    base record := funnelvec._base(f.table_name, f.column_name);
    shape record := funnelvec._function_shape(f);
    definition text := format(
        E'create or replace function %s(query %s, k integer default 10, min_relevance double precision default null, '
        'filter jsonb default null, after jsonb default null, cutoff text default null%s)\nreturns table (%s%s, score double precision, relevance double precision)\n'
        'language plpgsql %s\nset search_path = pg_catalog, pg_temp\nas %L',
        funnelvec._function_name(f), base.type,
        -- Whoever has mapped the query says so; nobody has to.
        case when funnelvec._maps_key(f) is not null
            then format(', _fv_mapped %s.vector[] default null, _fv_maps text default null', funnelvec._vector_schema()) end,
        key.columns, (funnelvec._returned_sql(f)).columns,
        -- A log is written to; that a stable function may not do.
        case when funnelvec._logs(f) then 'volatile parallel unsafe' else 'stable parallel restricted' end,
        funnelvec._function_body(f));
    known pg_proc;
    written regprocedure;
    owner text := (select c.relowner::regrole from pg_class as c where c.oid = f.table_name);
begin
    select p.* into known from pg_proc as p where p.oid = funnelvec._function_oid(f);
    if known.proargnames <> shape.names or known.proallargtypes <> shape.types then
        execute format('drop function %s', known.oid::regprocedure);
        execute definition;
        perform funnelvec._grant_again(funnelvec._function_oid(f), known);
    else
        execute definition;
    end if;
    written := funnelvec._function_oid(f);
    execute format('comment on function %s is %L', written, format('funnel %s on %s.%I', f.funnel, f.table_name, f.column_name));
    -- An administrator may create a funnel for somebody, who could not change it if it were the administrator's.
    if (select p.proowner::regrole::text <> owner from pg_proc as p where p.oid = written)
        and (select r.rolsuper from pg_roles as r where r.rolname = current_user)
    then
        execute format('alter function %s owner to %s', written, owner);
    end if;
    perform funnelvec._guard_log(f);
end
$body$;

-- The grants that a function had, for the one that takes its place. No grants on record mean what every new function has.
create or replace function funnelvec._grant_again(function regprocedure, known pg_proc)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    kept record;
begin
    if known.proacl is null then
        return;
    end if;
    execute format('revoke all on function %s from public', function);
    for kept in select * from aclexplode(known.proacl) as a where a.grantee <> known.proowner loop
        execute format(
            'grant execute on function %s to %s%s', function,
            case kept.grantee when 0 then 'public' else kept.grantee::regrole::text end,
            case when kept.is_grantable then ' with grant option' end);
    end loop;
end
$body$;

comment on function funnelvec.create_funnel(text, regclass, text, text, boolean, boolean, text, text, text[])
    is 'create a funnel and its search function, such as products_search(query, k, min_relevance, filter, after, cutoff)';
comment on function funnelvec.drop_funnel(text) is 'drop a funnel and its search function';
