-- explain: what each stage of one search lets through, and what it costs.

-- Settings that a search runs with (joins: null leaves them as they are), for the statements that run apart from the typed function.
-- For this transaction only.
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
-- plan. `ms` and the blocks are a stage's own; rows_in of the first stage is the size of the table; `notes` has a line for each
-- thing to look at, with the statement that mends it where there is one.
create or replace function funnelvec.explain(
    funnel text,
    query vector,
    k integer default 10,
    min_relevance double precision default null,
    filter jsonb default null,
    cutoff text default null
)
returns table (
    stage integer,
    resolution text,
    keep integer,
    rows_in bigint,
    rows_out bigint,
    ms double precision,
    access text,
    blocks_hit bigint,
    blocks_read bigint,
    notes text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel(funnel);
    predicate text := ' and (' || funnelvec._filter_sql(f.table_name, filter) || ')';
    least_score double precision;
    nearest text;
    stages integer := cardinality(string_to_array(f.funnel, '>'));
    run record;
    node jsonb;
    before jsonb := '{"Actual Total Time": 0, "Shared Hit Blocks": 0, "Shared Read Blocks": 0}';
    s record;
begin
    perform funnelvec._check_query(f, query, k);
    least_score := funnelvec._explained_cutoff(f, query, k, min_relevance, filter, cutoff);
    run := funnelvec._run_explained(f, query, k, coalesce(least_score, '-infinity'), predicate, funnelvec._window_for(f, filter));
    if least_score is not null and (run.plan #>> '{0,Plan,Actual Rows}')::numeric = 0 then
        nearest := funnelvec._nearest_note(f, query, filter);
    end if;
    rows_out := funnelvec._rows(f.table_name);
    for s in select * from funnelvec._stages(f) as g order by g.stage loop
        stage := s.stage;
        resolution := s.resolution;
        keep := s.keep;
        rows_in := rows_out;
        -- The plan of a stage holds the plans of those before it, and so do its figures.
        node := case when s.stage < stages then funnelvec._plan_node(run.plan, 'stage_' || s.stage) else run.plan #> '{0,Plan}' end;
        rows_out := (node ->> 'Actual Rows')::numeric;
        ms := round((node ->> 'Actual Total Time')::numeric - (before ->> 'Actual Total Time')::numeric, 3);
        blocks_hit := (node ->> 'Shared Hit Blocks')::bigint - (before ->> 'Shared Hit Blocks')::bigint;
        blocks_read := (node ->> 'Shared Read Blocks')::bigint - (before ->> 'Shared Read Blocks')::bigint;
        before := node;
        access := case when s.stage = 1 then run.tried else 'rescore' end
            || case when s.stage = stages then coalesce(', cutoff ' || case
                when abs(least_score) < 1e300 then round(least_score::numeric, 6)::text else least_score::text end, '') else '' end;
        notes := concat_ws(E'\n',
            case when s.stage = 1 then funnelvec._first_stage_notes(f, run, s.relation, predicate is not null) end,
            case when s.stage = stages then funnelvec._hub_note(f) end,
            case when s.stage = stages then funnelvec._cutoff_note(run.plan, least_score) end,
            funnelvec._codes_note(s.relation, s.code_column, s.dims, s.code, s.is_base, stages),
            case when blocks_read > 10 and blocks_read * 10 > blocks_hit + blocks_read then format(
                '%s of %s blocks were not in shared_buffers (%s)', blocks_read, blocks_hit + blocks_read,
                current_setting('shared_buffers')) end,
            case when s.stage = stages then nearest end);
        return next;
    end loop;
end
$body$;

-- The score from which on the search returns rows; null where it has no cutoff. What the search refuses is refused here, by the search.
create or replace function funnelvec._explained_cutoff(
    f funnelvec.funnels,
    query vector,
    k integer,
    min_relevance double precision,
    filter jsonb,
    cutoff text
)
returns double precision
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    result double precision;
    most integer := (select min(p.keep) from funnelvec._parse_funnel(f.funnel) as p);
    logging text := current_setting('funnelvec.logging', true);
begin
    if cutoff is null then
        return case when min_relevance is not null then funnelvec._cutoff_at(f, min_relevance, query, filter) end;
    end if;
    perform set_config('funnelvec.logging', 'off', true);
    -- The best F1 is about all rows of the last stage, of which the search may have asked for fewer.
    execute format('select min(t.score) from %s($1::%s, $2, $3, $4, null::jsonb, $5) as t',
        funnelvec._function_name(f), (funnelvec._base(f.table_name, f.column_name)).type)
    into result using query, case when cutoff = 'best_f1' then coalesce(most, k) else k end, min_relevance, filter, cutoff;
    perform set_config('funnelvec.logging', coalesce(logging, ''), true);
    return case cutoff
        when 'best_f1' then result
        else (
            select coalesce(
                case cutoff when 'certified' then (c.said ->> 'cutoff')::double precision end, funnelvec._cutoff_at(f, (c.said ->> 'relevance')::double precision, query))
            from funnelvec._certificate(f, case cutoff when 'certified' then 'max_miss' else 'min_precision' end) as c (said)) end;
end
$body$;

-- How close the best row came where nothing passes the cutoff; null where there is no row at all.
create or replace function funnelvec._nearest_note(f funnelvec.funnels, query vector, filter jsonb)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    best record;
    logging text := current_setting('funnelvec.logging', true);
begin
    perform set_config('funnelvec.logging', 'off', true);
    execute format('select t.score, t.relevance from %s($1::%s, 1, null::double precision, $2, null::jsonb, null::text) as t',
        funnelvec._function_name(f), (funnelvec._base(f.table_name, f.column_name)).type)
    into best using query, filter;
    perform set_config('funnelvec.logging', coalesce(logging, ''), true);
    return format('no row passes the cutoff: the best has the score %s%s', round(best.score::numeric, 6),
        ', relevance ' || round(best.relevance::numeric, 4));
end
$body$;

-- What the scores of the last stage are corrected by; null where they are as they come.
create or replace function funnelvec._hub_note(f funnelvec.funnels)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select format('the score is less %s times %I', round((c.calibration ->> 'alpha')::numeric, 6), (funnelvec._hub(f.table_name, f.column_name)).hub_column)
    from (select funnelvec._calibration(f)) as c (calibration)
    where c.calibration ? 'hub'
$body$;

-- What a cutoff does to the rows that reach the last stage; null without one.
create or replace function funnelvec._cutoff_note(plan jsonb, cutoff double precision)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select format('the cutoff leaves %s of the %s rows compared', n.passed, n.passed + n.removed)
    from (
        select (s.node ->> 'Actual Rows')::numeric::bigint, coalesce((s.node ->> 'Rows Removed by Filter')::numeric::bigint, 0)
        -- The scan outside of all CTEs; an adapter's line has one of its own.
        from jsonb_path_query(plan, 'strict $.** ? (@."CTE Name" == "scored" && exists (@."Filter"))', silent => true) as s (node)
        where s.node ->> 'Filter' like '%score >= %'
        limit 1
    ) as n (passed, removed)
    where cutoff is not null
$body$;

-- The plan of the try that answered, and how it came to that.
--   tried        how the first stage got at its rows
--   try          1 the index as it is, 2 the index iterating, 3 no index
--   rows_before  rows that the try before the last found; null where the first try answered
--   rows_found   rows that the last one found; wanted: rows that the stage keeps
create or replace function funnelvec._run_explained(
    f funnelvec.funnels,
    query vector,
    k integer,
    cutoff double precision,
    predicate text,
    within record,
    out plan jsonb,
    out tried text,
    out try integer,
    out rows_before bigint,
    out rows_found bigint,
    out wanted integer
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    filtered boolean := predicate is not null or row_security_active(f.table_name);
    narrow boolean := false;
    matching double precision;
    total_rows double precision;
    iterate boolean;
    joining boolean := funnelvec._joins(f);
    saved text[];
    statement record;
    node jsonb;
begin
    wanted := coalesce((select p.keep from funnelvec._parse_funnel(f.funnel) as p where p.stage = 1), k);
    -- current_setting knows hnsw.* once pgvector is loaded, which the check of the query has seen to.
    saved := array[current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan'), current_setting('enable_seqscan'),
        current_setting('enable_hashjoin'), current_setting('enable_mergejoin')];
    iterate := filtered or wanted > 1000;
    if filtered then
        select n.narrow, n.matching, n.total into narrow, matching, total_rows from funnelvec._narrow(f.table_name, predicate, wanted, within.share) as n;
    end if;
    for i in case when narrow or not funnelvec._indexed(f) then 3 else 1 end .. 3 loop
        continue when i = 2 and iterate;
        try := i;
        rows_before := rows_found;
        perform funnelvec._scan_settings(
            greatest(saved[1]::integer, least(wanted, 1000)),
            case when iterate or try = 2 then 'relaxed_order' else saved[2] end,
            case when try < 3 then 'off' else saved[3] end,
            case when joining and try < 3 then 'off' else saved[4] end,
            case when joining and try < 3 then 'off' else saved[5] end);
        statement := funnelvec._statement(
            f, try = 3, format('%L::%s', query, (funnelvec._base(f.table_name, f.column_name)).type), null,
            k::text, format('%L::double precision', cutoff));
        execute 'explain (analyze, buffers, costs off, format json) '
            || concat(statement.head, predicate, case when try < 3 then within.predicate end, statement.tail)
        into plan;
        node := funnelvec._plan_node(plan, 'stage_1');
        rows_found := (node ->> 'Actual Rows')::numeric;
        tried := funnelvec._access(node, iterate or try = 2)
            || case when try < 3 then coalesce(', window ' || regexp_replace(substring(within.predicate, 6), '(^| and )t\.', '\1', 'g'), '') else '' end
            || case when filtered then format(', about %s of %s rows match', matching, total_rows) else '' end
            || case when try = 3 and rows_before < rows_found then format(' (the index found %s)', rows_before) else '' end;
        exit when rows_found >= wanted;
    end loop;
    perform funnelvec._scan_settings(saved[1]::integer, saved[2], saved[3], saved[4], saved[5]);
end
$body$;

-- What there is to say of the first stage, a line each; null where there is nothing. `home` is the table whose codes it compares.
create or replace function funnelvec._first_stage_notes(
    f funnelvec.funnels,
    run record,
    home regclass,
    filtered boolean
)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    upkeep record := funnelvec._upkeep(home);
    notes text[] := '{}';
begin
    if not funnelvec._indexed(f) then
        notes := notes || format('no index, so every row was compared: select funnelvec.add_resolution(%L, %L, %L, index => true);',
            f.table_name::text, f.column_name, split_part(split_part(f.funnel, '>', 1), '@', 1));
    elsif run.try = 3 and run.rows_found > run.rows_before then
        notes := notes || format('the index found %s of the %s rows that the stage keeps; it was repeated without the index, which '
            'found %s', run.rows_before, run.wanted, run.rows_found);
    elsif run.try = 3 and run.rows_before is null then
        notes := notes || 'few rows match, so all of them were compared, which is less work than going through the index'::text;
    elsif run.try = 3 then
        notes := notes || 'to be sure of that, the stage was repeated without the index'::text;
    elsif run.try = 2 then
        notes := notes || format('the index found %s of the %s rows that the stage keeps, so it was searched again, iterating%s',
            run.rows_before, run.wanted, case when upkeep.dead > 0
                then format(': rows that are dead and not vacuumed take places in it: vacuum %s;', home) end);
    elsif run.tried like 'scan%' then
        notes := notes || 'the planner expected reading every row to be cheaper than the index'::text;
    end if;
    if run.rows_found < run.wanted then
        notes := format('%s rows %s, fewer than the %s that the stage keeps', run.rows_found,
            case when filtered then 'match' else 'have such a code' end, run.wanted) || notes;
    end if;
    return nullif(concat_ws(E'\n', nullif(array_to_string(notes, E'\n'), ''),
        funnelvec._stale_advice(home, upkeep.rows, upkeep.analyzed, upkeep.changed)), '');
end
$body$;

-- Codes out of line cost a look into the TOAST table each; for the column itself that is as it should be.
create or replace function funnelvec._codes_note(
    home regclass,
    code_column text,
    dims integer,
    code text,
    is_base boolean,
    stages integer
)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case when t.share > 0.05 then funnelvec._toasted_advice(home, code_column, t.share) end
    from funnelvec._toasted_by_statistics(home, code_column, funnelvec._code_bytes(dims, code)) as t (share)
    where not is_base and stages > 1
$body$;

-- How a first stage got at its rows: by its own index, by one on a filtered column, or through all of them.
create or replace function funnelvec._access(node jsonb, iterate boolean)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when n.nearest is not null then format('index %s%s', n.nearest, case when iterate then ', iterating' end)
        when n.filtering is not null then 'filter by index ' || n.filtering
        else 'scan'
    end
    from (
        select jsonb_path_query_first(node, 'strict $.** ? (exists (@."Order By"))."Index Name"', silent => true) #>> '{}',
            -- Not one that only looks up the other part of a row that was found: of two tables, the outer one drives.
            jsonb_path_query_first(
                node, 'strict $.** ? (@."Parent Relationship" != "Inner" && exists (@."Index Cond"))."Index Name"', silent => true) #>> '{}'
    ) as n (nearest, filtering)
$body$;

comment on function funnelvec.explain(text, vector, integer, double precision, jsonb, text)
    is 'run a search and show per stage: rows in, rows out, milliseconds, blocks, how it got at the rows, and what to look at';
