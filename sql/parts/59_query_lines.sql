-- Adapters: the line of a query, out of its shortlist and of the query itself.

-- The features of an adapter with their coefficients, and whether the query alone says what they are.
create or replace function funnelvec._features(calibration jsonb)
returns table (
    i integer,
    name text,
    of_query boolean,
    middle double precision,
    spread double precision,
    weight double precision,
    steepness double precision
)
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select e.i::integer, e.name, e.name ~ '^(query|place)', (calibration -> 'feature_means' ->> e.i::integer - 1)::double precision,
        (calibration -> 'feature_scales' ->> e.i::integer - 1)::double precision,
        (calibration -> 'offsets' ->> e.i::integer)::double precision, (calibration -> 'slopes' ->> e.i::integer)::double precision
    from jsonb_array_elements_text(calibration -> 'features') with ordinality as e (name, i)
$body$;

-- What the query itself adds to slope and base of its line, with what every query has, in steps that are SQL each: what a search works out before
-- it looks at the table. All null where an adapter reads the shortlist alone. Few operators, since each costs a search something.
--   whole     of `query`: its direction in 4096ths. Added to 3072 and taken off again, a number of 32 bits is rounded to those
--   features  of `whole`, and of `query` for its length: each in a unit of its own, less its mean, held to four deviations. The mean of the rows and
--             their main directions are whole numbers. All sums of products with those are exact in 32 bits, so that Python has the same to the
--             last digit
--   slope, base  of the features, whose names are `feature` and their number
create or replace function funnelvec._asked_steps(
    calibration jsonb,
    query text,
    whole text,
    feature text,
    out whole_sql text,
    out features_sql text[],
    out slope_sql text,
    out base_sql text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    rows jsonb := calibration -> 'rows';
    vectors text := funnelvec._vector_schema();
    scale double precision := calibration ->> 'score_scale';
    metric text := rows ->> 'metric';
    mean_length double precision := rows ->> 'mean_length';
    -- Vectors of the rows are in 3900ths.
    unit double precision := 1 / 3900::double precision;
    length text := format('%s.vector_norm(%s::%1$s.vector)', vectors, query);
    -- Under cosine a query has the length 1, and so have the rows.
    longer text := case when metric <> 'cosine' then ' * ' || length else '' end;
    mean text := format('%s.inner_product(%s, %L::%1$s.vector)', vectors, whole, rows ->> 'mean') || longer;
    square text := format('%s ^ 2 - 2 * %s * %s', length, funnelvec._literal(mean_length * unit), mean);
    spread text := (
        select format('%s.vector_norm(array[%s]::%1$s.vector) ^ 2', vectors,
            string_agg(format('%s.inner_product(%s, %L::%1$s.vector)', vectors, whole, d.notation), ', ' order by d.i))
        from jsonb_array_elements_text(rows -> 'directions') with ordinality as d (notation, i));
    away text := format('sqrt(greatest(1e-100, %s + %s))', square, funnelvec._constant(rows, 'square'));
    deviation text;
begin
    if rows is null then
        return;
    end if;
    whole_sql := format('%1$s.vector_sub(%1$s.vector_add(%1$s.l2_normalize(%2$s::%1$s.vector), %3$s), %3$s)', vectors, query,
        format('array_fill(3072::real, array[%s])::%s.vector', funnelvec._width(rows ->> 'mean'), vectors));
    -- The root of the mean squared distance. The deviation of distances is that along the line from the mean of the rows to the query.
    deviation := case metric
        when 'cosine' then format('sqrt(%s + %s * %s)', funnelvec._constant(rows, 'rest'),
            funnelvec._literal((rows ->> 'spread')::double precision * unit ^ 2), spread)
        when 'dot' then format('sqrt(%s + %s * %s) * %s', funnelvec._constant(rows, 'rest'),
            funnelvec._literal((rows ->> 'spread')::double precision * unit ^ 2), spread, length)
        else format('sqrt(greatest(0, %s * (%s + %s) + %s * (%s * %s * %s ^ 2 + %s - %s * %s))) / %s',
            funnelvec._constant(rows, 'rest'), square, funnelvec._literal(mean_length ^ 2), funnelvec._constant(rows, 'spread'),
            funnelvec._literal(unit ^ 2), spread, length, funnelvec._constant(rows, 'middle_square'),
            funnelvec._literal(2 * unit * (rows ->> 'middle_length')::double precision),
            format('%s.inner_product(%s, %L::%1$s.vector)', vectors, whole, rows ->> 'middle') || longer, away) end;
    select
        array_agg(format('greatest(%s, least(%s, %s - %s))', funnelvec._literal(-4 * f.spread / f.unit),
            funnelvec._literal(4 * f.spread / f.unit), f.expression, funnelvec._literal(f.middle / f.unit)) order by f.place),
        funnelvec._literal((calibration -> 'slopes' ->> 0)::double precision / scale)
            || string_agg(format(' + %s * %s%s', funnelvec._literal(f.steepness / f.spread / scale * f.unit), feature, f.place), '' order by f.place),
        funnelvec._literal((calibration -> 'offsets' ->> 0)::double precision)
            || string_agg(format(' + %s * %s%s', funnelvec._literal(f.weight / f.spread * f.unit), feature, f.place), '' order by f.place)
    into features_sql, slope_sql, base_sql
    from (
        select g.*, row_number() over (order by g.i) as place, u.unit, u.expression
        from funnelvec._features(calibration) as g
        cross join lateral (
            select unit, format('%s.inner_product(%s, %L::%1$s.vector)', vectors, whole, rows -> 'directions' ->> substring(g.name, 6)::integer) || longer
            where g.name ~ '^place'
            union all
            select 1, deviation where g.name = 'query_sd'
            union all
            select 1, '-' || away where g.name = 'query_mean' and metric = 'euclidean'
            union all
            select coalesce(nullif(mean_length, 0) * unit, 1), case when mean_length = 0 then '0' else mean end
            where g.name = 'query_mean' and metric <> 'euclidean'
        ) as u (unit, expression)
        where g.of_query
    ) as f;
end
$body$;

-- The same as one select of slope and base; null where an adapter reads the shortlist alone.
create or replace function funnelvec._asked_sql(calibration jsonb, query text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    steps record := funnelvec._asked_steps(calibration, query, 'a.whole', 'f.f');
begin
    if steps.whole_sql is null then
        return null;
    end if;
    return format(
        E'select %s as slope, %s as base\nfrom (\n    select %s\n    from (\n        select %s as whole\n        offset 0\n    ) as a\n    offset 0\n) as f',
        steps.slope_sql, steps.base_sql,
        (select string_agg(format('%s as f%s', u.feature, u.i), ', ' order by u.i) from unnest(steps.features_sql) with ordinality as u (feature, i)),
        steps.whole_sql);
end
$body$;

-- The line of a query by an adapter, slope * (score - score_mean) + base, as a select over the CTE `scored` with slope, base and found, the number
-- of its rows: one sort of the shortlist, and a few places of it. Empty for the other families. Features are held to four deviations, and the
-- slope to what was fitted as the least. Every operator costs a search something before a row is read, so what is constant is worked out here.
-- `asked` is SQL for slope and base as far as the query alone makes them (_asked_sql), where the adapter reads anything off that.
create or replace function funnelvec._line_sql(calibration jsonb, asked text[] default null)
returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    scale double precision := calibration ->> 'score_scale';
    places text;
    base text;
    slope text;
begin
    if calibration ->> 'family' is distinct from 'adapter' then
        return '';
    end if;
    select
        string_agg(format('greatest(%s, least(%s, l.list[least(%s, cardinality(l.list))] - %s)) as f%s, ',
            funnelvec._literal(-4 * f.spread), funnelvec._literal(4 * f.spread),
            least((calibration ->> 'depth')::integer, case f.name when 'last' then 200 else substring(f.name, 5)::integer + 1 end),
            funnelvec._literal(f.middle), f.i), '' order by f.i),
        string_agg(format(' + %s * f.f%s', funnelvec._literal(f.weight / f.spread), f.i), '' order by f.i),
        string_agg(format(' + %s * f.f%s', funnelvec._literal(f.steepness / f.spread / scale), f.i), '' order by f.i)
    into places, base, slope
    from funnelvec._features(calibration) as f
    where not f.of_query;
    return format(
        E'select greatest(%s%s, %s) as slope, %s%s as base, f.found\nfrom (\n    select %sl.found\n    from (\n'
        -- NaN comes first. A filter of the aggregate, or a count beside it, would look at every row.
        '        select case when a.list[1] = ''NaN'' then array_remove(a.list, ''NaN'') else a.list end as list,\n'
        '            coalesce(cardinality(a.list), 0)::bigint as found\n'
        '        from (select array_agg(r.score) as list from (select s.score from scored as s order by s.score desc) as r) as a\n'
        '        offset 0\n    ) as l\n    offset 0\n) as f\noffset 0',
        coalesce(asked[1], funnelvec._literal((calibration -> 'slopes' ->> 0)::double precision / scale)), slope,
        funnelvec._literal((calibration ->> 'floor')::double precision / scale),
        coalesce(asked[2], funnelvec._literal((calibration -> 'offsets' ->> 0)::double precision)), base, places);
end
$body$;

-- What an adapter is for a query with that shortlist: a beta map.
create or replace function funnelvec._bound(calibration jsonb, list double precision[], query vector default null)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
declare
    line record;
begin
    execute format('with scored as materialized (select s.score from unnest($1) as s (score)) '
        'select q.slope, q.base - q.slope * %s as "offset" from %s(%s) as q',
        funnelvec._constant(calibration, 'score_mean'), '(' || funnelvec._asked_sql(calibration, '$2') || ') as a cross join lateral ',
        funnelvec._line_sql(calibration, case when calibration ? 'rows' then array['a.slope', 'a.base'] end))
    into line using list, query;
    -- The list holds scores that are corrected already.
    return jsonb_build_object('family', 'beta', 'slope', line.slope, 'offset', line."offset",
        'a', calibration -> 'a', 'b', calibration -> 'b', 'c', calibration -> 'c');
end
$body$;
