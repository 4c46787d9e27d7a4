-- Which rows came since a funnel was tuned, as far as a table can tell, and what the funnel finds of them.

-- The key column that new rows have larger values of than old ones, as far as its type goes; null where no type says so. Of UUIDs those
-- of version 7 begin with the time; the largest of others is none of them, or says so by how few are larger later (_since).
create or replace function funnelvec._growing_key(table_name regclass)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select min(k.name)
    from funnelvec._key(table_name) as k
    join pg_attribute as a on a.attrelid = table_name and a.attname = k.name
    where a.atttypid = any (array['int2', 'int4', 'int8', 'date', 'timestamp', 'timestamptz', 'uuid']::regtype[])
        and 1 = (select count(*) from funnelvec._key(table_name))
$body$;

-- How many rows with a vector there are, the largest key, and how many pages: what `_since` compares with later.
create or replace function funnelvec._row_mark(table_name regclass, column_name text)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    key text := funnelvec._growing_key(table_name);
    rows bigint;
    last jsonb;
    pages bigint;
begin
    execute format('select count(t.%I) from %s as t', column_name, table_name) into rows;
    if key is not null then
        execute format('select to_jsonb(t.%1$I) from %2$s as t order by t.%1$I desc limit 1', key, table_name) into last;
        if substring(last #>> '{}', '^[0-9a-f]{8}-[0-9a-f]{4}-([0-9a-f])') <> '7' then
            last := null;
        end if;
    end if;
    -- A partitioned table has no pages of its own, and its leaves no common order.
    select pg_relation_size(c.oid) / current_setting('block_size')::bigint into pages
    from pg_class as c where c.oid = table_name and c.relkind = 'r';
    return jsonb_build_object('rows', rows, 'key', key, 'last', last, 'pages', pages, 'file', pg_relation_filenode(table_name)::bigint);
end
$body$;

-- The rows that came since a mark: how many of how many, a condition that holds for them, and how that was decided. Without a mark the
-- newest tenth, by the same orders. The condition is null where nothing tells which rows they are.
create or replace function funnelvec._since(
    table_name regclass,
    column_name text,
    mark jsonb,
    out rows bigint,
    out since bigint,
    out among text,
    out decided text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    now_there jsonb := funnelvec._row_mark(table_name, column_name);
    pages bigint := now_there ->> 'pages';
    grown bigint;
    last text := now_there ->> 'last';
    first_page bigint;
begin
    rows := now_there ->> 'rows';
    grown := rows - coalesce((mark ->> 'rows')::bigint, rows * 9 / 10);
    if last is not null and (mark is null or mark ->> 'key' = now_there ->> 'key' and mark ->> 'last' is not null) then
        last := mark ->> 'last';
        if mark is null then
            execute format('select to_jsonb(t.%1$I) #>> ''{}'' from %2$s as t order by t.%1$I desc offset %3$s limit 1',
                now_there ->> 'key', table_name, rows / 10) into last;
        end if;
        among := format('t.%I > %L', now_there ->> 'key', last);
        execute format('select count(t.%I) from %s as t where %s', column_name, table_name, among) into since;
        decided := format('%s is larger than %s', now_there ->> 'key', last);
        -- A key that does not grow has new rows anywhere, and few beyond the largest.
        if since > 0 and 2 * since >= grown then
            return;
        end if;
    end if;
    among := null;
    since := 0;
    decided := 'no row came since';
    if grown <= 0 then
        return;
    end if;
    if pages is null then
        since := grown;
        decided := 'counted; the key does not grow and a partitioned table has no order of its own, so which rows they are is not known';
        return;
    end if;
    if mark ->> 'file' = now_there ->> 'file' and (mark ->> 'pages')::bigint <= pages then
        first_page := mark ->> 'pages';
        decided := format('they lie behind the %s pages that the table had', first_page);
    else
        first_page := pages * (rows - grown) / rows;
        decided := format('in physical order, the last %s of %s rows%s', grown, rows,
            case when mark is not null then ' (the table has been written anew since)' else '' end);
    end if;
    among := format('t.ctid >= %L::tid', format('(%s,0)', first_page));
    execute format('select count(t.%I) from %s as t where %s', column_name, table_name, among) into since;
    if since = 0 then  -- they took the room of rows that were removed
        among := null;
        since := grown;
        decided := 'counted; the key does not grow and new rows took the room of old ones, so which rows they are is not known';
    end if;
end
$body$;

-- Keep what a tuning run found of a funnel beside it, with the rows that there are now.
create or replace function funnelvec._keep_tuned(funnel text, tuned jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel(funnel);
begin
    perform funnelvec._check_owner(f.table_name);
    f.tuned := tuned || jsonb_build_object('mark', funnelvec._row_mark(f.table_name, f.column_name), 'funnel', f.funnel,
        'at', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'));
    update funnelvec.funnels as u
    set tuned = f.tuned
    where u.table_name = f.table_name and u.name = f.name;
    perform funnelvec._write_function(f);
end
$body$;

-- What a tuning run found of a funnel; null where there was none, or the funnel is another since.
create or replace function funnelvec._tuned(f funnelvec.funnels)
returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select case when jsonb_typeof(f.tuned -> 'mark') = 'object' and f.tuned ->> 'funnel' = f.funnel then f.tuned end
$body$;

-- How much a funnel finds of the exact top k of rows: drawn from all, or from those that came since it was tuned.
create or replace function funnelvec._recall_since(
    funnel text,
    recent boolean,
    sample integer,
    k integer,
    seed integer,
    out rows bigint,
    out since bigint,
    out decided text,
    out recall double precision,
    out low double precision,
    out high double precision,
    out queries integer,
    out ms double precision
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel(funnel);
    among text;
    shares double precision[];
begin
    perform funnelvec._check_sample(f, sample, k, seed, null);
    queries := 0;
    if recent then
        select s.rows, s.since, s.among, s.decided into rows, since, among, decided
        from funnelvec._since(f.table_name, f.column_name, funnelvec._tuned(f) -> 'mark') as s;
        if among is null then
            return;
        end if;
    end if;
    select array_agg(m.kept[cardinality(m.kept)] / m.wanted::double precision), avg(m.funnel_ms + m.exact_ms)
    into shares, ms
    from funnelvec._measure(f, sample, k, seed, null, null, among) as m
    where m.wanted > 0;
    queries := coalesce(cardinality(shares), 0);
    recall := (select avg(s) from unnest(shares) as s);
    if queries > 0 then
        select b.low, b.high into low, high from funnelvec._bootstrap(shares, seed) as b;
    end if;
end
$body$;

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
