-- status: the stored resolutions and how well they cover the table, and whatever is out of step with the registry.

-- What each row is about stands in `object`. Rows with `resolution` are about what is stored, or, as `storage` says, about a calibration, a
-- certificate or a hub column of scores at that resolution; rows without it are about something that repair() looks after: a function, a column, or
-- what a dropped table left behind.
create or replace function funnelvec.status(table_name regclass default null)
returns table (
    "table" regclass,
    column_name text,
    resolution text,
    code_column text,
    rows bigint,
    filled bigint,
    coverage double precision,
    bit_balance double precision,
    index_name regclass,
    index_bytes bigint,
    advice text,
    object text,
    storage text,
    code_bytes bigint,
    toasted double precision,
    index_growth double precision,
    dead_share double precision,
    changed bigint,
    vacuumed_at timestamptz,
    analyzed_at timestamptz,
    hot_share double precision,
    fillfactor integer
)
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $body$
declare
    r funnelvec.resolutions;
    parsed record;
    stored record;
    upkeep record;
    home regclass;
    fault text;
begin
    for r in
        select s.*
        from funnelvec.resolutions as s
        where (status.table_name is null or s.table_name = status.table_name)
            and exists (select from pg_class as c where c.oid = s.table_name)
        order by s.table_name::text, s.column_name, substring(s.resolution, '^[0-9]{1,5}')::integer, s.resolution
    loop
        "table" := r.table_name;
        column_name := r.column_name;
        resolution := r.resolution;
        code_column := r.code_column;
        object := case r.storage when 'side' then format('table %s', r.side_table) else format('column %s.%I', r.table_name, r.code_column) end;
        rows := 0;
        filled := 0;
        coverage := 0;
        bit_balance := null;
        index_name := null;
        index_bytes := null;
        storage := case when r.storage = 'side' then 'side' when r.code_column = r.column_name then 'base' else 'column' end;
        code_bytes := null;
        toasted := null;
        index_growth := null;
        dead_share := null;
        changed := null;
        vacuumed_at := null;
        analyzed_at := null;
        hot_share := null;
        fillfactor := null;
        fault := coalesce(funnelvec._resolution_fault(r), funnelvec._measure_fault(r, status.table_name is not null));
        if fault is not null then
            advice := fault;
            return next;
            continue;
        end if;
        -- What holds the codes and the index over them.
        home := case r.storage when 'side' then r.side_table else r.table_name end;
        parsed := funnelvec._parse_resolution(r.resolution);
        stored := funnelvec._code(parsed.dims, parsed.code, 'x', funnelvec._metric_at(r.table_name, r.column_name, r.resolution, r.metric), 'f32');
        select c.rows, c.filled, c.balance into rows, filled, bit_balance from funnelvec._coverage(r) as c;
        select c.bytes, c.toasted into code_bytes, toasted from funnelvec._code_sizes(home, r.code_column, parsed.dims, parsed.code) as c;
        coverage := filled::double precision / nullif(rows, 0);
        index_name := funnelvec._index_of(home, r.code_column, stored.opclass);
        index_bytes := funnelvec._index_bytes(index_name);
        index_growth := round((index_bytes / funnelvec._new_index_bytes(index_name, filled, parsed.dims, parsed.code))::numeric, 2);
        upkeep := funnelvec._upkeep(home);
        dead_share := round(upkeep.dead_share::numeric, 4);
        changed := upkeep.changed;
        vacuumed_at := upkeep.vacuumed_at;
        analyzed_at := upkeep.analyzed_at;
        hot_share := round(upkeep.hot_updates::numeric / nullif(upkeep.updates, 0), 4);
        fillfactor := upkeep.fillfactor;
        advice := concat_ws(E'\n',
            (select format('%s; next: %s',
                    case when r.side_table is null then 'its index is not built yet'
                        when r.state in ('ready', 'checking', 'leaving') then r.state || ', in use'
                        else r.state || ', not in use yet' end,
                    coalesce(n.step, n.waits))
                from funnelvec._next_of(r) as n
                where coalesce(n.step, n.waits) is not null),
            case when filled < rows then format('%s rows have no code that an index can see (null or zero%s)', rows - filled,
                case when r.storage = 'side' and r.state = 'ready' then format(', or written past the triggers: select funnelvec.recheck(%L);', r.table_name::text)
                    else '' end) end,
            case when bit_balance < 0.7 then 'signs are lopsided: expect poor recall from this sign code' end,
            case when storage <> 'base' and toasted > 0.05
                then funnelvec._toasted_advice(home, r.code_column, toasted) end,
            funnelvec._index_advice(r, home, index_name, index_bytes, index_growth, rows),
            funnelvec._vacuum_advice(home, rows + upkeep.dead, upkeep.dead_share),
            funnelvec._stale_advice(home, rows, upkeep.analyzed, changed),
            case when storage = 'column'
                then funnelvec._hot_advice(home, upkeep.updates, upkeep.hot_updates, upkeep.moved, upkeep.row_bytes) end);
        return next;
    end loop;
    return query
    select w.table_name, w.column_name, w.resolution, s.code_column, s.rows, s.held, s.held::double precision / nullif(s.rows, 0),
        null::double precision, s.index_name, s.index_bytes, s.advice, s.object, 'window', null::bigint, null::double precision,
        null::double precision, null::double precision, null::bigint, null::timestamptz, null::timestamptz, null::double precision, null::integer
    from funnelvec.windows as w
    cross join lateral funnelvec._window_status(w) as s
    where (status.table_name is null or w.table_name = status.table_name) and exists (select from pg_class as c where c.oid = w.table_name)
    order by w.table_name::text, w.column_name, w.resolution, w.by_column, s.number;
    return query
    select p."table", p.column_name, p.resolution, null::text, 0::bigint, 0::bigint, null::double precision, null::double precision,
        null::regclass, null::bigint, p.advice, p.object, p.storage, null::bigint, null::double precision, null::double precision,
        null::double precision, null::bigint, null::timestamptz, null::timestamptz, null::double precision, null::integer
    from funnelvec._promise_status(status.table_name) as p;
    return query
    select p."table", null::text, null::text, null::text, 0::bigint, 0::bigint, null::double precision, null::double precision,
        null::regclass, null::bigint, p.advice, p.object, null::text, null::bigint, null::double precision, null::double precision,
        null::double precision, null::bigint, null::timestamptz, null::timestamptz, null::double precision, null::integer
    from funnelvec._problems() as p
    where status.table_name is null or p."table" = status.table_name
    order by p."table"::text, p.object;
end
$body$;

-- What stands behind relevances and cutoffs: the calibration of each funnel, its certificates, hub columns, and what they say.
create or replace function funnelvec._promise_status(table_name regclass)
returns table ("table" regclass, column_name text, resolution text, object text, storage text, advice text)
language sql
set search_path = pg_catalog, pg_temp
as $body$
    select c."table", f.column_name, regexp_replace(f.funnel, '^.*>\s*', ''),
        format('certificate of %s: %s %s%s; %s rows, score at least %s (relevance %s), %s %s (%s to %s); %s judged queries, %s %% without a '
            'relevant row; %s; %s; %s%s', c.funnel, c.kind, c.level, ', confidence ' || c.confidence, c.top_k,
            coalesce(round(c.cutoff::numeric, 6)::text, 'by query'), coalesce(round(c.relevance::numeric, 4)::text, 'by query'),
            case c.kind when 'max_miss' then 'missed' else 'not relevant' end, round(c.observed::numeric, 4), round(c.low::numeric, 4),
            round(c.high::numeric, 4), c.queries, round((100 * c.without_relevant)::numeric, 1), c.stages,
            to_char(c.certified_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI UTC'), c.state,
            case when c.approximate then '; approximate: the calibration was fitted to the same judgments' end),
        'certificate',
        case when c.state <> 'in force'
            then format('%s: select * from funnelvec.certify(%L, judgments, %s => %s);', c.state, c.funnel, c.kind, c.level) else '' end
    from funnelvec.list_certificates(_promise_status.table_name) as c
    join funnelvec.funnels as f on f.table_name = c."table" and funnelvec._function_name(f) = c.funnel
    union all
    select f.table_name, f.column_name, regexp_replace(f.funnel, '^.*>\s*', ''), format('calibration of %s: %s', funnelvec._function_name(f), d.about),
        'calibration', coalesce(d.advice, '')
    from funnelvec.funnels as f
    cross join lateral funnelvec._calibration_said(f) as d
    where (_promise_status.table_name is null or f.table_name = _promise_status.table_name) and d.about is not null
        and exists (select from pg_class as t where t.oid = f.table_name)
    union all
    select h."table", h.column_name, b.dims || ':' || b.code, h.about, 'hub', h.advice
    from funnelvec._hub_status(_promise_status.table_name) as h
    cross join lateral funnelvec._base(h."table", h.column_name) as b
    order by 1, 4
$body$;

-- Each window of a row of the registry, by the statistics of its index: what it holds, what to do. Nothing for one that has a fault.
create or replace function funnelvec._window_status(w funnelvec.windows)
returns table (
    number bigint,
    object text,
    code_column text,
    rows bigint,
    held bigint,
    index_name regclass,
    index_bytes bigint,
    advice text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    total bigint;
    type text;
    next_one text;
begin
    if funnelvec._window_fault(w) is not null then
        return;
    end if;
    total := funnelvec._rows(w.table_name);
    type := funnelvec._check_windows(w);
    next_one := (select coalesce(n.step, n.waits) from funnelvec._window_next(w) as n);
    return query
    select row_number() over (order by s.level, s.first), format('window %s', funnelvec._window_sql(quote_ident(w.by_column), type, s.lo, s.hi)),
        (funnelvec._stored(w.table_name, w.column_name, w.resolution)).code_column, total, s.rows::bigint, s.name, funnelvec._index_bytes(s.name),
        coalesce(case
            when next_one is not null then format('not in use yet; next: %s', next_one)
            when s.valid is not true then format('its index is gone or not valid: select funnelvec.add_window(%L, %L, %L, %L);',
                w.table_name::text, w.column_name, w.resolution, w.by_column)
            when s.rows >= 10000 and s.rows > 2 * s.share * total then format(
                'it has %s %% of the rows, and had %s %% when it was made: select funnelvec.drop_window(%L, %L, %L, %L); then add_window again',
                round(100 * s.rows / total), round((100 * s.share)::numeric), w.table_name::text, w.column_name, w.resolution, w.by_column)
        end, '')
    from funnelvec._window_state(w, w.table_name) as s;
end
$body$;

-- Why a row does not describe a stored resolution, with the way out; null where it does.
create or replace function funnelvec._resolution_fault(r funnelvec.resolutions)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    if exists (select from funnelvec._moved_columns() as m where m.table_name = r.table_name and m.column_name = r.column_name) then
        return (
            select format('column %I was renamed to %I: select funnelvec.repair();', m.column_name, m.new_name)
            from funnelvec._moved_columns() as m
            where m.table_name = r.table_name and m.column_name = r.column_name);
    end if;
    perform funnelvec._check_row(r.table_name, r.metric, r.resolution);
    if r.side_table is not null then
        return funnelvec._side_fault(r);
    end if;
    if funnelvec._code_column(r.table_name, r.column_name, r.resolution) is not distinct from r.code_column then
        return null;
    end if;
    return coalesce(
        (select format('column %I was renamed to %I: select funnelvec.repair();', r.code_column, m.new_name)
         from funnelvec._moved_codes() as m
         where m.table_name = r.table_name and m.column_name = r.column_name and m.resolution = r.resolution),
        format('column %I is gone, or is not what holds %s: select funnelvec.repair(); then funnelvec.add_resolution',
            r.code_column, r.resolution));
exception when others then
    -- Our own refusals say what is wrong with the row; anything else is no finding.
    if sqlstate not like 'FV%' then
        raise;
    end if;
    return format('%s: select funnelvec.repair();', sqlerrm);
end
$body$;

-- Why a column is not counted. Reading a table of somebody else's runs his row-level security policies with one's own rights:
-- that is left to whoever names the table.
create or replace function funnelvec._measure_fault(r funnelvec.resolutions, named boolean)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when not has_column_privilege(case r.storage when 'side' then r.side_table else r.table_name end, r.code_column, 'select')
            then 'not counted: you may not read the column'
        when not named and row_security_active(r.table_name)
            then format('not counted, because it has row-level security: select * from funnelvec.status(%L);', r.table_name::text)
    end
$body$;

-- Rows, and rows whose code an HNSW index can see: not null and, under cosine, not zero. Tables of more than 200,000 rows are
-- sampled, 50,000 rows by pages, and scaled up. Balance of sign codes: mean over dimensions of 1 - |2 p - 1|, p = share of ones, on
-- about 1,000 rows; 1 where every dimension splits the rows in half, 0 where every dimension is constant.
create or replace function funnelvec._coverage(
    r funnelvec.resolutions,
    out rows bigint,
    out filled bigint,
    out balance double precision
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    p record := funnelvec._parse_resolution(r.resolution);
    norm text := (funnelvec._code(p.dims, p.code, 'x', funnelvec._metric_at(r.table_name, r.column_name, r.resolution, r.metric), 'f32')).norm;
    visible text := case
        when norm is null then format('t.%I is not null', r.code_column)
        else format('%s(t.%I) > 0', norm, r.code_column)
    end;
    believed bigint := funnelvec._rows(r.table_name);
    large boolean := believed > 200000;
    drawn text := case when large then format('tablesample system (%s) repeatable (0)', 100 * 50000.0 / believed) else '' end;
    few text := format('tablesample %s (%s) repeatable (0)', case when large then 'system' else 'bernoulli' end,
        least(100, 100 * 1000.0 / greatest(1, believed)));
begin
    if r.storage = 'side' then
        -- Rows without a vector have no code, and need none.
        visible := format('exists (select from %s as s where %s and %s)', r.side_table,
            funnelvec._side_join(r.side_table, 's', r.table_name),
            case when norm is null then 'true' else format('%s(s.%I) > 0', norm, r.code_column) end);
    end if;
    execute format('select count(*), count(*) filter (where %s) from %s as t %s', visible, r.table_name, drawn) into rows, filled;
    if large then
        filled := round(filled::numeric * believed / greatest(1, rows));
        rows := believed;
    end if;
    if p.code = 'bit' then
        execute format(
            'select avg(1 - abs(2 * b.p - 1)) from ('
            'select avg(get_bit(t.code, i)) as p '
            'from (select t.%1$I as code from %2$s as t %3$s where t.%1$I is not null limit 1500) as t '
            'cross join generate_series(0, %4$s - 1) as i group by i) as b',
            r.code_column, case r.storage when 'side' then r.side_table else r.table_name end, few, p.dims)
        into balance;
    end if;
end
$body$;

-- Bytes of all codes of a relation, and the share of them that is out of line: counted where PostgreSQL can tell (17 and later), else
-- from its statistics. Sampled as the coverage is.
create or replace function funnelvec._code_sizes(
    relation regclass,
    code_column text,
    dims integer,
    code text,
    out bytes bigint,
    out toasted double precision
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    believed bigint := funnelvec._rows(relation);
    large boolean := believed > 200000;
    counted bigint;
begin
    execute format(
        'select count(*), sum(pg_column_size(t.%1$I)), %2$s::double precision / nullif(count(t.%1$I), 0) from %3$s as t %4$s',
        code_column,
        case when current_setting('server_version_num')::integer >= 170000
            then format('count(*) filter (where pg_column_toast_chunk_id(t.%I) is not null)', code_column) else 'null' end,
        relation,
        case when large then format('tablesample system (%s) repeatable (0)', 100 * 50000.0 / believed) else '' end)
    into counted, bytes, toasted;
    toasted := coalesce(
        toasted, funnelvec._toasted_by_statistics(relation, code_column, funnelvec._code_bytes(dims, code)));
    if large then
        bytes := round(bytes::numeric * believed / greatest(1, counted));
    end if;
end
$body$;

-- Bytes that an HNSW index over so many rows has when it is new: on each page as many elements as fit, each with its code and the
-- links of its levels (a level more has one of m). Rows with the same code share an element, so with many duplicates it is less.
create or replace function funnelvec._new_index_bytes(index_name regclass, rows bigint, dims integer, code text)
returns double precision
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select 8192 * (1 + case
        when e.bytes + n.bytes + 8 <= 8160 then ceil(rows / floor(8160 / (e.bytes + n.bytes + 8)))
        else rows + ceil(rows / floor(8160 / (n.bytes + 4))) end)
    from (
        select coalesce((
            select o.option_value::double precision
            from pg_class as c cross join pg_options_to_table(c.reloptions) as o
            where c.oid = index_name and o.option_name = 'm'), 16)
    ) as i (m)
    cross join lateral (
        select 8 * ceil((80 + case code when 'f32' then 4 * dims when 'f16' then 2 * dims else (dims * funnelvec._levels(code) + 7) / 8 end) / 8.0)
    ) as e (bytes)
    cross join lateral (select 8 * ceil((4 + (2 + 1 / (i.m - 1)) * i.m * 6) / 8)) as n (bytes)
    where rows > 0
$body$;

create or replace function funnelvec._index_advice(
    r funnelvec.resolutions,
    home regclass,
    index_name regclass,
    index_bytes bigint,
    growth double precision,
    rows bigint
)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    buffers bigint := pg_size_bytes(current_setting('shared_buffers'));
    cache bigint := pg_size_bytes(current_setting('effective_cache_size'));
    starts text;
    broken regclass;
begin
    select i.indexrelid into broken
    from pg_index as i
    join pg_class as c on c.oid = i.indexrelid
    join pg_am as m on m.oid = c.relam
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = home and m.amname = 'hnsw' and not i.indisvalid and a.attname = r.code_column and i.indpred is null
        -- What is being built, or comes next, stands in the first line.
        and r.index_options is null
    limit 1;
    if index_name is null and rows >= 10000 and r.index_options is null then
        select string_agg(f.name, ', ' order by f.name) into starts
        from funnelvec.funnels as f
        cross join lateral funnelvec._parse_funnel(f.funnel) as p
        where f.table_name = r.table_name and f.column_name = r.column_name and p.stage = 1 and p.resolution = r.resolution;
    end if;
    return nullif(concat_ws(E'\n',
        case when broken is not null then format('the index %s is not valid, its building was interrupted: drop index %1$s;', broken) end,
        case when starts is not null then format('%s starts here and has no index, so it compares every row: '
            'select funnelvec.add_resolution(%L, %L, %L, index => true, concurrently => true);', starts, r.table_name::text, r.column_name, r.resolution) end,
        case when growth > 1.5 and index_bytes > 1000000 then format(
            'the index has %s times the size of a new one: reindex index concurrently %s;', growth, index_name) end,
        case
            when index_bytes > cache then format('the index (%s) does not fit into effective_cache_size (%s), so searches read from '
                'the disk: start with fewer dimensions or a bit code, or give the server more memory',
                pg_size_pretty(index_bytes), current_setting('effective_cache_size'))
            when index_bytes > buffers then format('the index (%s) does not fit into shared_buffers (%s)',
                pg_size_pretty(index_bytes), current_setting('shared_buffers'))
        end), '');
end
$body$;

create or replace function funnelvec._vacuum_advice(relation regclass, versions bigint, dead_share double precision)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case when versions >= 10000 and dead_share > 0.1 then format(
        '%s %% of the row versions of %s are dead, and take places in what an index returns: vacuum %2$s;',
        round(100 * dead_share), relation) end
$body$;

-- Null where all pages have that much room. A partitioned table has no pages, so it takes no fillfactor: each partition has its own.
create or replace function funnelvec._fillfactor_statements(relation regclass, wanted integer)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select string_agg(format('alter table %s set (fillfactor = %s);', h.oid, wanted), ' ' order by h.number) filter (where h.number <= 3)
        || case when max(h.number) > 3 then format(' and so for %s more partitions;', max(h.number) - 3) else '' end
    from (
        select l.oid, row_number() over (order by l.oid::text) as number
        from funnelvec._heaps(relation) as l (oid)
        join pg_class as c on c.oid = l.oid
        where coalesce((
            select o.option_value::integer from pg_options_to_table(c.reloptions) as o where o.option_name = 'fillfactor'), 100) > wanted
    ) as h
$body$;

-- An update that changes no indexed column is cheap (HOT) where its page has room for one more version of the row. Codes in the row
-- make rows long, and a page that was filled to the end has no room. Room is no help where an indexed column changes, as codes with an
-- index do with their vector: such updates stay on their page if there is room, and are not HOT.
create or replace function funnelvec._hot_advice(
    relation regclass,
    updates bigint,
    hot bigint,
    moved bigint,
    row_bytes double precision
)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case when updates >= 1000 and hot < 0.5 * updates
            and (moved is null or moved >= 0.5 * updates and hot >= updates - moved - hot)
        then format(
            '%s %% of %s updates were HOT; the others entered every index again. Leave room on the pages: %s '
            'pages that are full stay so until they are rewritten (vacuum full)',
            round(100.0 * hot / updates), updates, w.statements) end
    -- Room for two versions more; half a page at least stays for rows.
    from funnelvec._fillfactor_statements(relation, greatest(50, least(90, 100 - ceil(200 * row_bytes / 8192)))::integer) as w (statements)
    where w.statements is not null
$body$;

comment on function funnelvec.status(regclass)
    is 'stored resolutions: coverage, sizes, index, what has to be looked after, with the statements; and what repair() would mend';
