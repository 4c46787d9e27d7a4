-- measure_recall: what each stage of a funnel loses against exact search.

-- Recall of a funnel against exact search, stage by stage: the mean over the queries of the share of the exact top k that is still
-- there after the stage, with a 95 % interval. The queries are those of the column `query` of `queries_from`, or else rows of the
-- table itself; each row is left out of its own answer. Both are drawn by `seed`. With a filter both searches have it.
create or replace function funnelvec.measure_recall(
    funnel text,
    sample integer default 200,
    k integer default 10,
    seed integer default 0,
    queries_from regclass default null,
    filter jsonb default null
)
returns table (
    stage integer,
    resolution text,
    keep integer,
    recall double precision,
    low double precision,
    high double precision,
    queries integer,
    funnel_ms double precision,
    exact_ms double precision
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel(funnel);
    stages integer := cardinality(string_to_array(f.funnel, '>'));
    asked integer := 0;
    shares double precision[];
    funnel_times double precision[];
    exact_times double precision[];
    measured record;
begin
    perform funnelvec._check_sample(f, sample, k, seed, queries_from);
    queries := 0;
    for measured in select m.* from funnelvec._measure(f, sample, k, seed, queries_from, filter) as m loop
        asked := asked + 1;
        continue when measured.wanted = 0;
        queries := queries + 1;
        -- One array, query after query: an array of arrays would be copied whole with every query.
        shares := shares || array(select a / measured.wanted::double precision from unnest(measured.kept) as a);
        funnel_times := funnel_times || measured.funnel_ms;
        exact_times := exact_times || measured.exact_ms;
    end loop;
    if queries = 0 then
        raise exception using
            errcode = 'FV004',
            message = case
                when asked > 0 and filter is not null then format('no row of %s matches the filter, so there is no recall', f.table_name)
                when asked > 0 or queries_from is null then
                    format('%s has no two rows to compare, so recall can''t be measured', f.table_name)
                else format('%s has no query that can be asked of %s', queries_from, f.name)
            end,
            hint = case
                when asked > 0 and filter is not null then 'Widen the filter.'
                when asked > 0 or queries_from is null then 'Load rows whose vectors are neither null nor zero first.'
                else format('Its column query needs vectors of %s dimensions, neither null nor zero at a stage.',
                    (funnelvec._base(f.table_name, f.column_name)).dims)
            end;
    end if;
    funnel_ms := (select round(percentile_cont(0.5) within group (order by t)::numeric, 3) from unnest(funnel_times) as t);
    exact_ms := (select round(percentile_cont(0.5) within group (order by t)::numeric, 3) from unnest(exact_times) as t);
    for i in 1 .. stages loop
        select s.stage, s.resolution, s.keep into stage, resolution, keep from funnelvec._stages(f) as s where s.stage = i;
        select round(m.mean::numeric, 9), round(b.low::numeric, 9), round(b.high::numeric, 9) into recall, low, high
        from (
            select avg(s), array_agg(s order by o) from unnest(shares) with ordinality as u (s, o) where (o - 1) % stages = i - 1
        ) as m (mean, shares)
        cross join lateral funnelvec._bootstrap(m.shares, seed) as b;
        return next;
    end loop;
end
$body$;

-- A 95 % interval for the mean of `shares` by the percentile bootstrap (Efron 1979): the mean of each of 1,000 samples of the same
-- size, drawn with replacement. The draws are numbers mixed from a counter and the seed, so that the same seed gives the same
-- interval everywhere; funnelvec.engines.recall does the same in Python.
create or replace function funnelvec._bootstrap(shares double precision[], seed integer, out low double precision, out high double precision)
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select p.limits[1], p.limits[2]
    from (
        select percentile_cont(array[0.025, 0.975]) within group (order by m.mean) as limits
        from (
            select avg(shares[1 + ((e.x * cardinality(shares)) >> 32)])
            from generate_series(0, 999) as b
            cross join generate_series(0, cardinality(shares) - 1) as i
            cross join lateral (select ((seed::bigint & 4294967295) * 1640531527 + b::bigint * cardinality(shares) + i) & 4294967295) as a (x)
            cross join lateral (select ((a.x # (a.x >> 16)) * 569420461) & 4294967295) as c (x)
            cross join lateral (select ((c.x # (c.x >> 15)) * 1935289751) & 4294967295) as d (x)
            cross join lateral (select d.x # (d.x >> 15)) as e (x)
            group by b
        ) as m (mean)
    ) as p
$body$;

create or replace function funnelvec._check_sample(
    f funnelvec.funnels,
    sample integer,
    k integer,
    seed integer,
    queries_from regclass
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    -- A row that is its own query takes a place, which the funnel has to have.
    most integer := (
        select min(p.keep) - case when queries_from is null then 1 else 0 end from funnelvec._parse_funnel(f.funnel) as p);
begin
    if sample is null or sample not between 1 and 100000 then
        raise exception using
            errcode = 'FV004',
            message = format('sample is %s', coalesce(sample::text, 'null')),
            hint = 'Ask for 1 to 100000 queries.';
    elsif k is null or k < 1 or k > most or k = 2147483647 then
        raise exception using
            errcode = 'FV004',
            message = format('k is %s', coalesce(k::text, 'null')),
            hint = case
                when most is null then 'Ask for at least one row.'
                when queries_from is null
                    then format('Ask for 1 to %s: each query is a row of the table, which takes a place of its own.', most)
                else format('Ask for 1 to %s rows.', most)
            end;
    elsif seed is null then
        raise exception using errcode = 'FV004', message = 'seed is null', hint = 'Give a number, or leave it out.';
    elsif queries_from is not null and not exists (
        select
        from pg_attribute as a
        join pg_type as t on t.oid = a.atttypid
        join pg_extension as e on e.extname = 'vector' and e.extnamespace = t.typnamespace
        where a.attrelid = queries_from and a.attname = 'query' and t.typname in ('vector', 'halfvec')
            and a.attnum > 0 and not a.attisdropped)
    then
        raise exception using
            errcode = 'FV005',
            message = format('%s has no column query of the type vector or halfvec', queries_from),
            hint = 'Name a table or a view that has one, such as a query log.';
    end if;
end
$body$;

-- One row per query: how many rows the exact top k has, how many of them each stage kept, and both times. `among` is a condition
-- for the rows that are drawn as queries.
-- Rows that are as near as the k-th count as well as those that stand before it: among duplicates it does not matter which ones come.
create or replace function funnelvec._measure(
    f funnelvec.funnels,
    sample integer,
    k integer,
    seed integer,
    queries_from regclass,
    filter jsonb,
    among text default null,
    out wanted integer,
    out kept integer[],
    out funnel_ms double precision,
    out exact_ms double precision
)
returns setof record
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    base record := funnelvec._base(f.table_name, f.column_name);
    predicate text := coalesce(' and (' || funnelvec._filter_sql(f.table_name, filter) || ')', '');
    more integer := case when queries_from is null then 1 else 0 end;
    stages integer := cardinality(string_to_array(f.funnel, '>'));
    by_index text[];
    by_scan text[];
    within record := funnelvec._window_for(f, filter);
    exact_statement text := funnelvec._exact_sql(f, predicate);
    search_statement text;
    q record;
    truth text[];
    answer text[];
    started timestamptz;
    logging text;
begin
    execute format('select %1$s.vector_dims(''[1]''::%1$s.vector)', funnelvec._vector_schema());
    select
        array_agg(format('select array(select s.key from (%s) as s)', concat(u.head, predicate, within.predicate, u.tail)) order by i)
            filter (where not exact and funnelvec._indexed(f)),
        array_agg(format('select array(select s.key from (%s) as s)', u.head || predicate || u.tail) order by i) filter (where exact)
    into by_index, by_scan
    from generate_series(1, stages - 1) as i
    cross join unnest(array[false, true]) as exact
    cross join lateral funnelvec._statement(
        f, exact, format('$1::%s', base.type), null, '$2', '''-infinity''', upto => i) as u;
    -- With all of its arguments: a function of the same name with two would be the better match for two.
    search_statement := format('select array(select row(%s)::text from %s($1::%s, $2, null::double precision, $3::jsonb, null::jsonb, null::text) as t)',
        (select string_agg(format('t.%I', n.name), ', ' order by n.ordinal) from funnelvec._key(f.table_name) as n),
        funnelvec._function_name(f), base.type);
    -- Queries of a measurement are nobody's; they don't go into the log that the next one is made with.
    logging := current_setting('funnelvec.logging', true);
    perform set_config('funnelvec.logging', 'off', true);
    for q in execute case when queries_from is null then funnelvec._sample_sql(f, sample, seed, among)
        else funnelvec._queries_sql(f, queries_from, sample, seed) end
    loop
        started := clock_timestamp();
        execute exact_statement into truth using q.vector, q.key, k;
        exact_ms := 1000 * extract(epoch from clock_timestamp() - started);
        wanted := least(k, cardinality(truth));
        kept := funnelvec._kept(f, by_index, by_scan, q.vector, k + more, truth, predicate, within.share);
        started := clock_timestamp();
        execute search_statement into answer using q.vector, k + more, filter;
        funnel_ms := 1000 * extract(epoch from clock_timestamp() - started);
        answer := (array_remove(answer, q.key))[:k];
        kept := kept || (select count(*)::integer from unnest(truth) as t where t = any (answer));
        kept := array(select least(a, wanted) from unnest(kept) with ordinality as u (a, o) order by o);
        return next;
    end loop;
    perform set_config('funnelvec.logging', coalesce(logging, ''), true);
end
$body$;

-- How many rows of `truth` each stage but the last keeps, with the tries and settings of the typed function.
create or replace function funnelvec._kept(
    f funnelvec.funnels,
    by_index text[],
    by_scan text[],
    vector text,
    k integer,
    truth text[],
    predicate text,
    share double precision
)
returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    saved text[] := array[current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan'), current_setting('enable_seqscan'),
        current_setting('enable_hashjoin'), current_setting('enable_mergejoin')];
    joining boolean := funnelvec._joins(f);
    keep integer := coalesce((select p.keep from funnelvec._parse_funnel(f.funnel) as p where p.stage = 1), k);
    filtered boolean := predicate <> '' or row_security_active(f.table_name);
    iterate boolean := filtered or keep > 1000;
    narrow boolean := filtered and (funnelvec._narrow(f.table_name, nullif(predicate, ''), keep, share)).narrow;
    statements text[];
    answer text[];
    kept integer[] := '{}';
begin
    for try in case when narrow or by_index is null then 3 else 1 end .. 3 loop
        continue when try = 2 and iterate;
        statements := case when try < 3 then by_index else by_scan end;
        perform funnelvec._scan_settings(greatest(saved[1]::integer, least(keep, 1000)),
            case when iterate or try = 2 then 'relaxed_order' else saved[2] end,
            case when try < 3 then 'off' else saved[3] end,
            case when joining and try < 3 then 'off' else saved[4] end,
            case when joining and try < 3 then 'off' else saved[5] end);
        exit when statements is null;
        execute statements[1] into answer using vector, k;
        exit when cardinality(answer) >= keep;
    end loop;
    for i in 1 .. coalesce(cardinality(statements), 0) loop
        if i > 1 then
            execute statements[i] into answer using vector, k;
        end if;
        kept := kept || (select count(*)::integer from unnest(truth) as t where t = any (answer));
    end loop;
    perform funnelvec._scan_settings(saved[1]::integer, saved[2], saved[3], saved[4], saved[5]);
    return kept;
end
$body$;

-- The exact answer, as an array of keys: $1 = query vector, $2 = key of the row to leave out, $3 = k. Rows as near as the k-th are in
-- it, up to a number that no duplicate should reach.
create or replace function funnelvec._exact_sql(f funnelvec.funnels, predicate text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    key record := funnelvec._key_sql(f.table_name);
    base record := funnelvec._base(f.table_name, f.column_name);
    metric record := funnelvec._metric(f.metric);
    calibration jsonb := funnelvec._calibration(f);
begin
    return format(
        'select array(select s.key from (select %1$s as key from %2$s as t where %1$s <> $2 and t.%3$I is not null%4$s%8$s '
        'order by (t.%3$I operator(%5$s.%6$s) $1::%7$s) + %9$s fetch first ($3) rows with ties) as s limit 10000 + $3)',
        key.identity, f.table_name, f.column_name,
        case when metric.needs_direction then format(' and %s(t.%I) > 0', base.norm, f.column_name) end,
        funnelvec._vector_schema(), metric.operator, base.type, predicate,
        -- A distance grows by what the score loses to a hub.
        case when calibration ? 'hub' then format('%s * coalesce(t.%I, 0)', funnelvec._constant(calibration, 'alpha'),
            (funnelvec._hub(f.table_name, f.column_name)).hub_column) else '0' end);
end
$body$;

-- Rows drawn as queries: a repeatable sample by key, so that the same seed gives the same queries on the same data. Of a large table
-- only some pages are read, enough of them that neighbours on a page are seldom drawn together. With a condition `among`, which an
-- index or the physical order serves, all rows that it holds for may be drawn.
create or replace function funnelvec._sample_sql(f funnelvec.funnels, sample integer, seed integer, among text default null)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    key record := funnelvec._key_sql(f.table_name);
    rows bigint := funnelvec._rows(f.table_name);
    share double precision := case
        when among is not null then 100
        when rows > 200000 then least(100, 100 * (30.0 * sample + 3000) / rows)
        else least(100, 100 * (3.0 * sample + 100) / greatest(1, rows))
    end;
begin
    return format(
        'select %1$s as key, t.%2$I::text as vector from %3$s as t %4$s '
        'where t.%2$I is not null and %5$s order by hashtextextended(%1$s, %6$s) limit %7$s',
        key.identity, f.column_name, f.table_name,
        case when share < 100 then format('tablesample %s (%s) repeatable (%s)',
            case when rows > 200000 then 'system' else 'bernoulli' end, share, seed) else '' end,
        concat_ws(' and ', funnelvec._directed(f, null, true), '(' || among || ')'), seed, sample);
end
$body$;

-- The same of given queries; those that can't be asked are passed over. They are no rows of the table, so nothing is left out for them.
create or replace function funnelvec._queries_sql(f funnelvec.funnels, queries_from regclass, sample integer, seed integer)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    base record := funnelvec._base(f.table_name, f.column_name);
begin
    return format(
        'select '''' as key, q.query::text as vector from %1$s as q '
        'where case when q.query is null or %2$s.vector_dims(q.query) <> %3$s then false else %4$s end '
        'order by hashtextextended(q.query::text, %5$s) limit %6$s',
        queries_from, funnelvec._vector_schema(), base.dims, funnelvec._directed(f, format('q.query::%s', base.type), false), seed, sample);
end
$body$;

comment on function funnelvec.measure_recall(text, integer, integer, integer, regclass, jsonb)
    is 'recall of a funnel against exact search, per stage, with a 95 % interval and the median times of both; queries are sampled rows, or the column query of a table';
