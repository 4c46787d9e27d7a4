-- Which window a search goes by: the smallest that holds every row which the filter's ranges leave. It is looked for in each call, among
-- windows that stand as literals in the text of the search function.

-- What a filter asks of one column whatever else it asks: [[operator, value], ...] from its top and from inside $and. The filter has
-- been compiled before, so its form is known to be right.
create or replace function funnelvec._range_conditions(filter jsonb, field text)
returns jsonb
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    asked jsonb := filter -> field;
    found jsonb := '[]';
    part jsonb;
begin
    if jsonb_typeof(asked) = 'object' then
        select jsonb_agg(jsonb_build_array(c.key, c.value)) into found
        from jsonb_each(asked) as c
        where c.key in ('$eq', '$lt', '$lte', '$gt', '$gte');
    elsif asked is not null then
        found := jsonb_build_array(jsonb_build_array('$eq', asked));
    end if;
    for part in select p.value from jsonb_array_elements(filter -> '$and') as p loop
        found := coalesce(found, '[]') || funnelvec._range_conditions(part, field);
    end loop;
    return coalesce(found, '[]');
end
$body$;

-- The window for a filter: that a row lies in it, as a predicate over alias t, and its share of the rows; both null where there is none.
-- `windows` is what _window_literal has made. Bounds are compared as values of the column's type: a row with `price < 5` has a cell
-- before the first bound that is 5 or more.
create or replace function funnelvec._window(
    table_name regclass,
    filter jsonb,
    windows jsonb,
    out predicate text,
    out share double precision
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    w jsonb;
    asked jsonb;
    c jsonb;
    type oid;
    bounds text;
    value text;
    cells text[];
    upto text[];
    first integer;
    last integer;
    found record;
begin
    for w in select e.value from jsonb_array_elements(windows) as e loop
        asked := funnelvec._range_conditions(filter, w ->> 'by');
        continue when asked = '[]';
        -- Another column may have that name by now.
        type := (w ->> 'type')::regtype;
        continue when not exists (
            select from pg_attribute as a
            where a.attrelid = table_name and a.attname = w ->> 'by' and a.atttypid = (w ->> 'declared')::regtype and not a.attisdropped);
        bounds := format('%L::%s[]', w ->> 'bounds', case when w ->> 'kind' = 'integer' then 'bigint' else w ->> 'type' end);
        cells := '{0}';
        upto := array[(w ->> 'cells')];
        for c in select e.value from jsonb_array_elements(asked) as e loop
            value := funnelvec._filter_literal(w ->> 'by', type, w ->> 'kind', c -> 1);
            if c ->> 0 in ('$eq', '$gt', '$gte') then
                cells := cells || format('width_bucket(%s, %s)', value, bounds);
            end if;
            if c ->> 0 in ('$eq', '$lte') then
                upto := upto || format('width_bucket(%s, %s) + 1', value, bounds);
            elsif c ->> 0 = '$lt' then
                upto := upto || format('width_bucket(%1$s, %2$s) + case when %1$s = any (%2$s) then 0 else 1 end', value, bounds);
            end if;
        end loop;
        execute format('select greatest(%s), least(%s)', array_to_string(cells, ', '), array_to_string(upto, ', ')) into first, last;
        select e.value ->> 3 as sql, (e.value ->> 2)::double precision as share into found
        from jsonb_array_elements(w -> 'windows') as e
        where (e.value ->> 0)::integer <= first and (e.value ->> 1)::integer >= last
        order by 2
        limit 1;
        if found.share < coalesce(share, 1) then
            predicate := found.sql;
            share := found.share;
        end if;
    end loop;
end
$body$;

-- The windows that searches of a funnel may use, as they stand in its function; null where there are none. Only what is built counts.
create or replace function funnelvec._window_literal(f funnelvec.funnels)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
declare
    w funnelvec.windows;
    found record;
    listed jsonb;
    result jsonb;
begin
    for w in
        select s.* from funnelvec.windows as s
        where s.table_name = f.table_name and s.column_name = f.column_name and s.ready
            and s.resolution = (select p.resolution from funnelvec._parse_funnel(f.funnel) as p where p.stage = 1)
        order by s.by_column
    loop
        continue when funnelvec._window_fault(w) is not null;
        found := funnelvec._window_column(w.table_name, w.by_column);
        select jsonb_agg(
            jsonb_build_array(s.first, s.last, s.share, funnelvec._window_sql(format('t.%I', w.by_column), found.type, s.lo, s.hi))
            order by s.share, s.first)
        into listed
        from funnelvec._window_state(w, w.table_name) as s
        where s.valid;
        continue when listed is null;
        result := coalesce(result, '[]') || jsonb_build_array(jsonb_build_object(
            'by', w.by_column, 'type', found.type, 'kind', found.kind, 'cells', 2 << w.levels, 'bounds', w.bounds::text, 'windows', listed,
            'declared', (select format_type(a.atttypid, null) from pg_attribute as a where a.attrelid = w.table_name and a.attname = w.by_column)));
    end loop;
    return result;
end
$body$;

-- Where the function of a funnel asks for its window; empty where it has none, so that nothing is in its text that it does not use.
create or replace function funnelvec._body_window(f funnelvec.funnels)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case when l.windows is not null then format(
        E'        if filter is not null then\n'
        '            select '' and '' || _fv_window.predicate, _fv_window.share into _fv_within, _fv_share\n'
        '            from funnelvec._window(%L::regclass, filter, %L) as _fv_window;\n'
        '        end if;\n',
        f.table_name::text, l.windows) else '' end
    from (select funnelvec._window_literal(f)) as l (windows)
$body$;

-- The same for what runs apart from the function: ' and (window)' and its share, or nulls.
create or replace function funnelvec._window_for(f funnelvec.funnels, filter jsonb, out predicate text, out share double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    windows jsonb := funnelvec._window_literal(f);
begin
    if filter is not null and windows is not null and funnelvec._indexed(f) then
        select ' and ' || w.predicate, w.share into predicate, share from funnelvec._window(f.table_name, filter, windows) as w;
    end if;
end
$body$;

-- What repair needs to have the windows of a funnel back where the registry was lost, for the second line of its function.
create or replace function funnelvec._window_definition(f funnelvec.funnels)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
    select case when count(*) = 0 then '{}' else jsonb_build_object('windows', jsonb_agg(jsonb_build_object(
        'by_column', w.by_column, 'levels', w.levels, 'bounds', w.bounds, 'shares', w.shares, 'm', w.m, 'ef_construction', w.ef_construction,
        'ready', w.ready) order by w.by_column)) end
    from funnelvec.windows as w
    where w.table_name = f.table_name and w.column_name = f.column_name
        and w.resolution = (select p.resolution from funnelvec._parse_funnel(f.funnel) as p where p.stage = 1)
$body$;

-- Take back into the registry what the function of a funnel says of windows.
create or replace function funnelvec._adopt_windows(function oid, f funnelvec.funnels)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $body$
    insert into funnelvec.windows
    select r.*
    from pg_proc as p
    cross join lateral jsonb_array_elements(nullif(substring(p.prosrc, '^[^\n]*\n-- (\{[^\n]*\})\n')::jsonb -> 'windows', 'null')) as d (said)
    cross join lateral jsonb_populate_record(null::funnelvec.windows, d.said || jsonb_build_object(
        'table_name', f.table_name, 'column_name', f.column_name, 'created_at', now(),
        'resolution', (select s.resolution from funnelvec._parse_funnel(f.funnel) as s where s.stage = 1))) as r
    where p.oid = function
    on conflict do nothing
$body$;
