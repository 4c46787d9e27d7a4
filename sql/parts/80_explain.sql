-- explain: what each stage of one search lets through, and what it costs.

-- Settings that a search runs with (joins: null leaves them as they are), for the statements that run apart from the typed function. For this transaction only.
create or replace function funnelvec._scan_settings(
    ef_search integer,
    iterative_scan text,
    seqscan text,
    hashjoin text default null,
    mergejoin text default null
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
    perform set_config('hnsw.ef_search', ef_search::text, true);
    perform set_config('hnsw.iterative_scan', iterative_scan, true);
    perform set_config('enable_seqscan', seqscan, true);
    perform set_config('enable_hashjoin', hashjoin, true) where hashjoin is not null;
    perform set_config('enable_mergejoin', mergejoin, true) where mergejoin is not null;
end
$body$;

-- That a vector has a direction at every stage, as a condition over SQL for the vector, `source`, or, stored, over the columns of alias t.
create or replace function funnelvec._directed(f funnelvec.funnels, source text, stored boolean)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select coalesce(
        string_agg(
            format('%s(%s) > 0', s.norm,
                case
                -- A code in a side table is computed again from the vector: no other table has to be read for it.
                when stored and s.storage = 'side' then replace(s.encoded, '{query}', format('t.%I', f.column_name))
                when stored then format('t.%I', s.code_column)
                else replace(s.encoded, '{query}', source)
            end),
            ' and ' order by s.stage),
        'true')
    from (
        select g.stage, g.norm, g.code_column, g.encoded, g.storage from funnelvec._stages(f) as g where g.norm is not null
        union all
        select 0, (funnelvec._base(f.table_name, f.column_name)).norm, f.column_name, '{query}', 'base'
        where (funnelvec._metric(f.metric)).needs_direction
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
        execute format('select %s', funnelvec._directed(f, '$1::' || base.type, false)) into usable using query;
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
            hint = case when last_keep is null then 'Ask for at least one row.'
                else format('Ask for 1 to %s rows.', last_keep) end;
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
    saved := array[current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan'), current_setting('enable_seqscan'),
        current_setting('enable_hashjoin'), current_setting('enable_mergejoin')];
    for try in 1 .. 3 loop
        continue when try = 2 and iterate or try < 3 and not funnelvec._indexed(f);
        perform funnelvec._scan_settings(
            greatest(saved[1]::integer, least(wanted, 1000)),
            case when iterate or try = 2 then 'relaxed_order' else saved[2] end,
            case when try < 3 and predicate is null then 'off' else saved[3] end,
            case when funnelvec._joins(f) and try < 3 then 'off' else saved[4] end,
            case when funnelvec._joins(f) and try < 3 then 'off' else saved[5] end);
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
    perform funnelvec._scan_settings(saved[1]::integer, saved[2], saved[3], saved[4], saved[5]);
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
