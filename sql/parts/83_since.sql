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
