-- measure_recall: what each stage of a funnel loses against exact search.

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
            hint = case when last_keep is null then 'Ask for at least one row.'
                else format('Ask for 1 to %s: each query is a row of the table, which takes a place of its own.', last_keep - 1)
            end;
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
    key record := funnelvec._key_sql(f.table_name);
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
    saved := array[current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan'), current_setting('enable_seqscan'),
        current_setting('enable_hashjoin'), current_setting('enable_mergejoin')];
    first_keep := coalesce((select p.keep from funnelvec._parse_funnel(f.funnel) as p where p.stage = 1), k + 1);
    select array_agg(format('select array(select s.key from (%s) as s)', u.head || u.tail) order by i) into statements
    from generate_series(1, stages - 1) as i
    cross join lateral funnelvec._statement(
        f, not funnelvec._indexed(f), format('$1::%s', base.type), null, '$2', '''-infinity''', upto => i) as u;
    exact_statement := format(
        'select array(select %1$s from %2$s as t where %1$s <> $2 and t.%3$I is not null%4$s '
        'order by (t.%3$I operator(%5$s.%6$s) $1::%7$s) + 0, %8$s limit $3)',
        key.identity, f.table_name, f.column_name,
        case when (funnelvec._metric(f.metric)).needs_direction then format(' and %s(t.%I) > 0', base.norm, f.column_name) end,
        home, (funnelvec._metric(f.metric)).operator, base.type, key.scan_order);
    for q in execute funnelvec._sample_sql(f, sample, seed) loop
        started := clock_timestamp();
        execute exact_statement into truth using q.vector, q.key, k;
        exact_ms := 1000 * extract(epoch from clock_timestamp() - started);
        perform funnelvec._scan_settings(greatest(saved[1]::integer, least(first_keep, 1000)),
            case when first_keep > 1000 or row_security_active(f.table_name) then 'relaxed_order' else saved[2] end, 'off',
            case when funnelvec._joins(f) then 'off' end, case when funnelvec._joins(f) then 'off' end);
        kept := '{}';
        for i in 1 .. stages - 1 loop
            execute statements[i] into answer using q.vector, k + 1;
            kept := kept || (select count(*)::integer from unnest(truth) as t where t = any (answer));
        end loop;
        perform funnelvec._scan_settings(saved[1]::integer, saved[2], saved[3], saved[4], saved[5]);
        started := clock_timestamp();
        -- With all of its arguments: a function of the same name with two would be the better match for two.
        execute format('select array(select row(%s)::text from %s($1::%s, $2, null::double precision, null::jsonb) as t)',
            (select string_agg(format('t.%I', n.name), ', ' order by n.ordinal) from funnelvec._key(f.table_name) as n),
            funnelvec._function_name(f), base.type)
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
    key record := funnelvec._key_sql(f.table_name);
    share double precision := least(100, 100 * (3.0 * sample + 100) / greatest(1, funnelvec._rows(f.table_name)));
begin
    return format(
        'select %1$s as key, t.%2$I::text as vector from %3$s as t %4$s '
        'where t.%2$I is not null and %5$s order by hashtextextended(%1$s, %6$s) limit %7$s',
        key.identity, f.column_name, f.table_name,
        case when share < 100 then format('tablesample bernoulli (%s) repeatable (%s)', share, seed) else '' end,
        funnelvec._directed(f, null, true), seed, sample);
end
$body$;

comment on function funnelvec.measure_recall(text, integer, integer, integer)
    is 'recall of a funnel against exact search on sampled rows, per stage, with the median times of both';
