-- What a tuning run asks of the database beside searches.

-- A funnel that is made now for a model, with lists as long as any calibration may want; it is kept nowhere. What a tuning run tries scores
-- like it.
create or replace function funnelvec._long_funnel(table_name regclass, column_name text, metric text, model text)
returns funnelvec.funnels
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels;
    base record := funnelvec._base(table_name, column_name);
begin
    f.name := '';
    f.table_name := table_name;
    f.column_name := column_name;
    f.metric := funnelvec._metric_of(table_name, column_name, metric);
    f.model := coalesce(model, '');
    f.funnel := format('1:bit@999999999 > %s:%s', base.dims, base.code);
    f.calibration := funnelvec._latest_calibration(f);
    return f;
end
$body$;

-- How many rows the calibration of a funnel looks at before the last stage, and how much of a hub its scores are less; null for none.
create or replace function funnelvec._score_rule(f funnelvec.funnels, out depth integer, out alpha double precision)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case when c.map ->> 'family' = 'adapter' then (c.map ->> 'depth')::integer end,
        case when c.map ? 'hub' then (c.map ->> 'alpha')::double precision end
    from (select funnelvec._calibration(f)) as c (map)
$body$;

-- The score of the k-th row of an exact search by the scores of a funnel; `own` is the key of the row that the query is, which is left out.
create or replace function funnelvec._worst(f funnelvec.funnels, query text, own text, k integer)
returns double precision
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    base record := funnelvec._base(f.table_name, f.column_name);
    metric record := funnelvec._metric(f.metric);
    found double precision;
begin
    execute format(
        'select min(s.score) from (select %1$s as score from %2$s as t where t.%3$I is not null and %4$s is distinct from $2%5$s '
        'order by 1 desc limit $3) as s',
        funnelvec._corrected_sql(
            funnelvec._calibration(f),
            funnelvec._similarity(base.dims, base.code, f.metric, format('t.%I operator(%s.%s) $1::%s',
                f.column_name, funnelvec._vector_schema(), metric.operator, base.type)),
            format('t.%I', (funnelvec._hub(f.table_name, f.column_name)).hub_column)),
        f.table_name, f.column_name, (funnelvec._key_sql(f.table_name)).identity,
        case when metric.needs_direction then format(' and %s(t.%I) > 0', base.norm, f.column_name) end)
    into found using query, own, k;
    return found;
end
$body$;

-- The hub column of a vector column, where there is one that has all its rows and that the caller may read; else null.
create or replace function funnelvec._readable_hub(table_name regclass, column_name text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select h.hub_column
    from funnelvec._hub($1, $2) as h
    where not h.filling and has_column_privilege($1, h.hub_column, 'select')
$body$;

-- What tells this server from others, as far as times go: prices that a tuning run has measured hold while it stays the same. Null where
-- nobody says which server it is.
create or replace function funnelvec._machine()
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    return (
        select concat_ws(' ', c.system_identifier, current_setting('server_version_num'), e.extversion, current_setting('shared_buffers'))
        from pg_control_system() as c
        cross join pg_extension as e
        where e.extname = 'vector');
exception when insufficient_privilege then
    return null;
end
$body$;
