-- Looking at a funnel: what each stage lets through, what it loses, and the state of the stored resolutions.

-- Settings that a search runs with, for the statements that run apart from the typed function. For this transaction only.
create or replace function funnelvec._scan_settings(ef_search integer, iterative_scan text, seqscan text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
    perform set_config('hnsw.ef_search', ef_search::text, true);
    perform set_config('hnsw.iterative_scan', iterative_scan, true);
    perform set_config('enable_seqscan', seqscan, true);
end
$body$;

-- That a vector has a direction at every stage, as a condition over SQL for the vector (or, stored, over the columns of alias t).
create or replace function funnelvec._directed(f funnelvec.funnels, vector text, stored boolean)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select string_agg(
        format('%s.%s(%s) > 0', funnelvec._vector_schema(),
            case when s.code = 'f16' then 'l2_norm' else 'vector_norm' end,
            case when stored then format('t.%I', s.code_column) else replace(s.encoded, '{query}', vector) end),
        ' and ' order by s.stage)
    from (
        select g.stage, g.code, g.code_column, g.encoded from funnelvec._stages(f) as g where g.code <> 'bit'
        union all
        select 0, 'f32', f.column_name, '{query}'
    ) as s
$body$;

-- What the typed function refuses, for the functions that don't call it.
create or replace function funnelvec._check_query(f funnelvec.funnels, query vector, k integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    base record := funnelvec._base(f.table_name, f.column_name);
    last_keep integer := (
        select min(p.keep) from funnelvec._parse_funnel(f.funnel) as p);
    usable boolean;
begin
    execute format('select $1 is not null and %1$s.vector_dims($1) = $2', funnelvec._vector_schema())
    into usable using query, base.dims;
    if usable then
        execute format('select %s', funnelvec._directed(f, '$1', false)) into usable using query;
    end if;
    if usable is not true then
        raise exception using
            errcode = 'FV002',
            message = format('the query vector is null, zero (at some stage) or does not have %s dimensions, as %s.%I has',
                base.dims, f.table_name, f.column_name),
            hint = 'Pass the embedding of the query, by the model that made the column.';
    end if;
    if k is null or k < 1 or k > last_keep then
        raise exception using
            errcode = 'FV004',
            message = format('k is %s', coalesce(k::text, 'null')),
            hint = format('Ask for 1 to %s rows.', coalesce(last_keep::text, 'any number of'));
    end if;
end
$body$;

-- One node per stage of a plan: the CTE that stage became.
create or replace function funnelvec._plan_node(plan jsonb, name text)
returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select n.node
    from jsonb_path_query(plan, 'strict $.**{1 to last} ? (exists (@."Subplan Name"))', silent => true) as n (node)
    where n.node ->> 'Subplan Name' = 'CTE ' || name
    limit 1
$body$;

-- Run the search under EXPLAIN ANALYZE, with the settings and the three tries of the typed function, and read the stages off its
-- plan. `ms` is a stage's own time; rows_in of the first stage is the size of the table.
create or replace function funnelvec.explain(
    funnel text,
    query vector,
    k integer default 10,
    min_relevance double precision default null,
    filter jsonb default null
)
returns table (
    stage integer,
    resolution text,
    keep integer,
    rows_in bigint,
    rows_out bigint,
    ms double precision,
    access text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel(funnel);
    predicate text := ' and (' || funnelvec._filter_sql(f.table_name, filter) || ')';
    cutoff double precision := case when min_relevance is not null then funnelvec.cutoff(funnel, min_relevance, query) end;
    stages integer := cardinality(string_to_array(f.funnel, '>'));
    plan jsonb;
    tried text;
    node jsonb;
    total double precision;
    before double precision := 0;
    s record;
begin
    perform funnelvec._check_query(f, query, k);
    select r.plan, r.tried into plan, tried
    from funnelvec._run_explained(f, query, k, coalesce(cutoff, '-infinity'), predicate) as r;
    total := plan #>> '{0,Plan,Actual Total Time}';
    rows_out := funnelvec._rows(f.table_name);
    for s in select * from funnelvec._stages(f) as g order by g.stage loop
        stage := s.stage;
        resolution := s.resolution;
        keep := s.keep;
        rows_in := rows_out;
        node := funnelvec._plan_node(plan, 'stage_' || s.stage);
        access := case when s.stage = 1 then tried else 'rescore' end;
        if s.stage < stages then
            rows_out := (node ->> 'Actual Rows')::numeric;
            ms := round((node ->> 'Actual Total Time')::numeric - before::numeric, 3);
            before := node ->> 'Actual Total Time';
        else
            rows_out := (plan #>> '{0,Plan,Actual Rows}')::numeric;
            ms := round(total::numeric - before::numeric, 3);
            access := access || coalesce(', cutoff ' || round(cutoff::numeric, 6), '');
        end if;
        return next;
    end loop;
end
$body$;

-- The plan of the try that answered, and what its first stage went through.
create or replace function funnelvec._run_explained(
    f funnelvec.funnels,
    query vector,
    k integer,
    cutoff double precision,
    predicate text,
    out plan jsonb,
    out tried text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    wanted integer := coalesce((select p.keep from funnelvec._parse_funnel(f.funnel) as p where p.stage = 1), k);
    iterate boolean := predicate is not null or wanted > 1000 or row_security_active(f.table_name);
    saved text[];
    statement record;
    node jsonb;
    found_before bigint;
begin
    -- current_setting knows hnsw.* once pgvector is loaded, which the check of the query has seen to.
    saved := array[current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan'), current_setting('enable_seqscan')];
    for try in 1 .. 3 loop
        continue when try = 2 and iterate or try < 3 and not funnelvec._indexed(f);
        perform funnelvec._scan_settings(
            greatest(saved[1]::integer, least(wanted, 1000)),
            case when iterate or try = 2 then 'relaxed_order' else saved[2] end,
            case when try < 3 and predicate is null then 'off' else saved[3] end);
        statement := funnelvec._statement(
            f, try = 3, format('%L::%s', query, (funnelvec._base(f.table_name, f.column_name)).type), null,
            k::text, format('%L::double precision', cutoff));
        execute 'explain (analyze, costs off, format json) ' || statement.head || coalesce(predicate, '') || statement.tail
        into plan;
        node := funnelvec._plan_node(plan, 'stage_1');
        tried := funnelvec._access(node, iterate or try = 2)
            || case when try = 3 and found_before < (node ->> 'Actual Rows')::numeric
                then format(' (the index found %s)', found_before) else '' end;
        exit when (node ->> 'Actual Rows')::numeric >= wanted;
        found_before := (node ->> 'Actual Rows')::numeric;
    end loop;
    perform funnelvec._scan_settings(saved[1]::integer, saved[2], saved[3]);
end
$body$;

create or replace function funnelvec._access(node jsonb, iterate boolean)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when n.index is null then 'scan'
        else format('index %s%s', n.index, case when iterate then ', iterating' end)
    end
    from (select jsonb_path_query_first(node, 'strict $.**."Index Name"', silent => true) #>> '{}') as n (index)
$body$;

comment on function funnelvec.explain(text, vector, integer, double precision, jsonb)
    is 'run a search and show per stage: rows in, rows out, milliseconds, and how it got at the rows';

-- Recall of a funnel against exact search, stage by stage: the share of the exact top k that is still there after the stage. The
-- queries are rows of the table itself, drawn at random by `seed`; each row is left out of its own answer.
create or replace function funnelvec.measure_recall(
    funnel text,
    sample integer default 200,
    k integer default 10,
    seed integer default 0
)
returns table (
    stage integer,
    resolution text,
    keep integer,
    recall double precision,
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
    kept double precision[] := array_fill(0::double precision, array[stages]);
    wanted double precision := 0;
    funnel_times double precision[];
    exact_times double precision[];
    measured record;
begin
    perform funnelvec._check_sample(f, sample, k);
    queries := 0;
    for measured in select m.* from funnelvec._measure(f, sample, k, seed) as m loop
        queries := queries + 1;
        wanted := wanted + measured.wanted;
        kept := array(select a + b from unnest(kept, measured.kept) as u (a, b));
        funnel_times := funnel_times || measured.funnel_ms;
        exact_times := exact_times || measured.exact_ms;
    end loop;
    if wanted = 0 then
        raise exception using
            errcode = 'FV004',
            message = format('%s has no two rows to compare, so recall can''t be measured', f.table_name),
            hint = 'Load rows whose vectors are neither null nor zero first.';
    end if;
    funnel_ms := (select percentile_cont(0.5) within group (order by t) from unnest(funnel_times) as t);
    exact_ms := (select percentile_cont(0.5) within group (order by t) from unnest(exact_times) as t);
    for i in 1 .. stages loop
        select s.stage, s.resolution, s.keep into stage, resolution, keep from funnelvec._stages(f) as s where s.stage = i;
        recall := kept[i] / wanted;
        return next;
    end loop;
end
$body$;

create or replace function funnelvec._check_sample(f funnelvec.funnels, sample integer, k integer)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    last_keep integer := (select min(p.keep) from funnelvec._parse_funnel(f.funnel) as p);
begin
    if sample is null or sample not between 1 and 100000 then
        raise exception using
            errcode = 'FV004',
            message = format('sample is %s', coalesce(sample::text, 'null')),
            hint = 'Ask for 1 to 100000 queries.';
    elsif k is null or k < 1 or k >= last_keep then
        raise exception using
            errcode = 'FV004',
            message = format('k is %s', coalesce(k::text, 'null')),
            hint = format('Ask for 1 to %s: each query is a row of the table, which takes a place of its own.',
                coalesce((last_keep - 1)::text, 'any number of rows'));
    end if;
end
$body$;

-- One row per sampled query: how many rows the exact top k has, how many of them each stage kept, and both times.
create or replace function funnelvec._measure(
    f funnelvec.funnels,
    sample integer,
    k integer,
    seed integer,
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
    key record := funnelvec._key_column(f.table_name);
    base record := funnelvec._base(f.table_name, f.column_name);
    home text := funnelvec._vector_schema();
    stages integer := cardinality(string_to_array(f.funnel, '>'));
    statements text[];
    exact_statement text;
    saved text[];
    q record;
    truth text[];
    answer text[];
    started timestamptz;
    first_keep integer;
begin
    execute format('select %1$s.vector_dims(''[1]''::%1$s.vector)', home);
    saved := array[current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan'), current_setting('enable_seqscan')];
    first_keep := coalesce((select p.keep from funnelvec._parse_funnel(f.funnel) as p where p.stage = 1), k + 1);
    select array_agg(format('select array(select s.key_1::text from (%s) as s)', u.head || u.tail) order by i) into statements
    from generate_series(1, stages - 1) as i
    cross join lateral funnelvec._statement(
        f, not funnelvec._indexed(f), format('$1::%s', base.type), null, '$2', '''-infinity''', upto => i) as u;
    exact_statement := format(
        'select array(select t.%1$I::text from %2$s as t where t.%1$I::text <> $2 and t.%3$I is not null '
        'and %4$s.vector_norm(t.%3$I) > 0 order by (t.%3$I operator(%4$s.<=>) $1::%5$s) + 0, t.%1$I%6$s limit $3)',
        key.name, f.table_name, f.column_name, home, base.type, key.collated);
    for q in execute funnelvec._sample_sql(f, sample, seed) loop
        started := clock_timestamp();
        execute exact_statement into truth using q.vector, q.key, k;
        exact_ms := 1000 * extract(epoch from clock_timestamp() - started);
        perform funnelvec._scan_settings(greatest(saved[1]::integer, least(first_keep, 1000)),
            case when first_keep > 1000 then 'relaxed_order' else saved[2] end, 'off');
        kept := '{}';
        for i in 1 .. stages - 1 loop
            execute statements[i] into answer using q.vector, k + 1;
            kept := kept || (select count(*)::integer from unnest(truth) as t where t = any (answer));
        end loop;
        perform funnelvec._scan_settings(saved[1]::integer, saved[2], saved[3]);
        started := clock_timestamp();
        execute format('select array(select s.%I::text from %s($1::%s, $2) as s)', key.name, funnelvec._function_name(f), base.type)
        into answer using q.vector, k + 1;
        funnel_ms := 1000 * extract(epoch from clock_timestamp() - started);
        answer := (array_remove(answer, q.key))[:k];
        kept := kept || (select count(*)::integer from unnest(truth) as t where t = any (answer));
        wanted := cardinality(truth);
        return next;
    end loop;
end
$body$;

-- Rows drawn as queries: a repeatable sample by key, so that the same seed gives the same queries on the same data.
create or replace function funnelvec._sample_sql(f funnelvec.funnels, sample integer, seed integer)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    key record := funnelvec._key_column(f.table_name);
    share double precision := least(100, 100 * (3.0 * sample + 100) / greatest(1, funnelvec._rows(f.table_name)));
begin
    return format(
        'select t.%1$I::text as key, t.%2$I::text as vector from %3$s as t %4$s '
        'where %5$s order by hashtextextended(t.%1$I::text, %6$s) limit %7$s',
        key.name, f.column_name, f.table_name,
        case when share < 100 then format('tablesample bernoulli (%s) repeatable (%s)', share, seed) else '' end,
        funnelvec._directed(f, null, true), seed, sample);
end
$body$;

comment on function funnelvec.measure_recall(text, integer, integer, integer)
    is 'recall of a funnel against exact search on sampled rows, per stage, with the median times of both';

-- The stored resolutions, how much of the table their index can see, and whether sign codes are balanced.
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
    advice text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    r funnelvec.resolutions;
    stored record;
begin
    for r in
        select s.*
        from funnelvec.resolutions as s
        where (status.table_name is null or s.table_name = status.table_name)
            and exists (select from pg_class as c where c.oid = s.table_name)
        order by s.table_name::text, s.column_name, funnelvec._width(s.resolution), s.resolution
    loop
        "table" := r.table_name;
        column_name := r.column_name;
        resolution := r.resolution;
        code_column := r.code_column;
        select c.* into stored
        from funnelvec._parse_resolution(r.resolution) as p
        cross join lateral funnelvec._code(p.dims, p.code, 'x') as c;
        select c.rows, c.filled, c.balance into rows, filled, bit_balance from funnelvec._coverage(r) as c;
        coverage := filled::double precision / nullif(rows, 0);
        index_name := funnelvec._index_of(r.table_name, r.code_column, stored.opclass);
        index_bytes := pg_relation_size(index_name);
        advice := concat_ws('; ',
            case when filled < rows then format('%s rows have no code that an index can see (null or zero)', rows - filled) end,
            case when bit_balance < 0.7 then 'signs are lopsided: expect poor recall from this sign code' end);
        return next;
    end loop;
end
$body$;

create or replace function funnelvec._width(resolution text)
returns integer
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select p.dims from funnelvec._parse_resolution(resolution) as p
$body$;

-- Rows, and rows whose code an HNSW index can see: not null and, under cosine, not zero. Tables of more than 200,000 rows are
-- sampled by pages and scaled up. Balance of sign codes: mean over dimensions of 1 - |2 p - 1|, p = share of ones, on up to 1,000
-- rows; 1 where every dimension splits the rows in half, 0 where every dimension is constant.
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
    visible text := case p.code
        when 'bit' then format('t.%I is not null', r.code_column)
        when 'f16' then format('%s.l2_norm(t.%I) > 0', funnelvec._vector_schema(), r.code_column)
        else format('%s.vector_norm(t.%I) > 0', funnelvec._vector_schema(), r.code_column)
    end;
    believed bigint := funnelvec._rows(r.table_name);
    drawn text := case when believed > 200000
        then format('tablesample system (%s) repeatable (0)', 100 * 200000.0 / believed) else '' end;
    few text := format('tablesample bernoulli (%s) repeatable (0)', least(100, 100 * 4000.0 / greatest(1, believed)));
begin
    execute format('select count(*), count(*) filter (where %s) from %s as t %s', visible, r.table_name, drawn) into rows, filled;
    if drawn <> '' then
        filled := round(filled::numeric * believed / greatest(1, rows));
        rows := believed;
    end if;
    if p.code = 'bit' then
        execute format(
            'select avg(1 - abs(2 * b.p - 1)) from ('
            'select avg(get_bit(t.code, i)) as p '
            'from (select t.%1$I as code from %2$s as t %3$s where t.%1$I is not null limit 1000) as t '
            'cross join generate_series(0, %4$s - 1) as i group by i) as b',
            r.code_column, r.table_name, few, p.dims)
        into balance;
    end if;
end
$body$;

comment on function funnelvec.status(regclass)
    is 'stored resolutions: coverage, balance of sign codes, index and its size, advice';
