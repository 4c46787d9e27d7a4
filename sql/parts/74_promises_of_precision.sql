-- What judgments can promise of precision, by learn-then-test.

-- Per judged query: what it is shown when it asks for k rows, each with its relevance and whether it is relevant. A row that nobody
-- judged has the label null where it is to be ignored, and false else.
create or replace function funnelvec._judged_shown(
    f funnelvec.funnels,
    judgments regclass,
    k integer,
    unjudged text,
    out relevances double precision[],
    out labels boolean[]
)
returns setof record
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    key record := funnelvec._key_sql(f.table_name);
    base record := funnelvec._base(f.table_name, f.column_name);
    search_statement text := format(
        'select array_agg(t.relevance order by t.ordinality), array_agg(case when %3$s = any ($3) then true when $5 or %3$s = any ($4) then false end '
        'order by t.ordinality) from %1$s($1::%2$s, $2, null::double precision, null::jsonb, null::jsonb, null::text) with ordinality as t',
        funnelvec._function_name(f), base.type, key.identity);
    q record;
    logging text := current_setting('funnelvec.logging', true);
begin
    perform set_config('funnelvec.logging', 'off', true);
    for q in execute format(
        'select j.query::text as vector, array_agg(%1$s) filter (where j.relevant and t.tableoid is not null) as good, '
        'array_agg(%1$s) filter (where not j.relevant and t.tableoid is not null) as bad '
        'from %2$s as j left join %3$s as t on %4$s group by j.query::text order by 1', key.identity, judgments, f.table_name, key.joined)
    loop
        execute search_statement into relevances, labels
        using q.vector, k, coalesce(q.good, '{}'), coalesce(q.bad, '{}'), unjudged = 'irrelevant';
        relevances := coalesce(relevances, '{}');
        labels := coalesce(labels, '{}');
        return next;
    end loop;
    perform set_config('funnelvec.logging', coalesce(logging, ''), true);
end
$body$;

-- Losses of every query at 199 thresholds on the relevance, from 0.995 (the strictest) down to 0.005: the share of the rows shown that
-- is not relevant, 0 where none is shown. Rows whose label is null don't count, unless nothing else is shown. One array for each threshold.
create or replace function funnelvec._precision_losses(
    relevances double precision[],
    labels boolean[],
    query_of integer[],
    queries integer,
    out step integer,
    out losses double precision[],
    out shown integer
)
returns setof record
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    with thresholds as (
        select array_agg(i / 200.0::double precision order by i) as ascending from generate_series(1, 199) as i
    ), counted as (
        select u.query, 200 - width_bucket(u.relevance, t.ascending) as step,
            count(*) as shown, count(u.label) as judged, count(*) filter (where u.label) as good
        from unnest(relevances, labels, query_of) as u (relevance, label, query) cross join thresholds as t
        group by 1, 2
    ), reached as (
        select s.step, q.query, sum(c.shown) over w as shown, sum(c.judged) over w as judged, sum(c.good) over w as good
        from generate_series(1, 199) as s (step)
        cross join generate_series(1, queries) as q (query)
        left join counted as c on (c.query, c.step) = (q.query, s.step)
        window w as (partition by q.query order by s.step)
    )
    select r.step,
        array_agg(case when coalesce(r.shown, 0) = 0 then 0 when r.judged = 0 then 1
            else 1 - r.good::double precision / r.judged::double precision end order by r.query),
        (count(*) filter (where r.shown > 0))::integer
    from reached as r
    group by r.step
    order by r.step
$body$;

-- The lowest threshold on the relevance that can be promised, as a step of _precision_losses, by fixed-sequence testing: from the
-- strictest on, until the first fails. Each one that passed is promised with the same confidence, so the choice among them is free: the
-- lowest one at which those queries that are shown something see enough that is relevant. Without that, an answer that is nearly always
-- empty would pass. `means` has the mean loss at each step, `shown` how many queries are shown a row.
create or replace function funnelvec._precise_step(
    means double precision[],
    shown integer[],
    queries integer,
    min_precision double precision,
    confidence double precision
)
returns integer
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    result integer;
begin
    for step in 1 .. cardinality(means) loop
        exit when funnelvec._hoeffding_bentkus(means[step], 1 - min_precision, queries) > 1 - confidence;
        if shown[step] > 0 and means[step] * queries <= (1 - min_precision) * shown[step] + 1e-9 then
            result := step;
        end if;
    end loop;
    return result;
end
$body$;

-- The highest precision in hundredths that can be promised; null where there is none. What a higher one passes, a lower one passes too.
create or replace function funnelvec._possible_precision(means double precision[], shown integer[], queries integer, confidence double precision)
returns double precision
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    low integer := 0;
    high integer := 100;
    middle integer;
begin
    while high - low > 1 loop
        middle := (low + high) / 2;
        if funnelvec._precise_step(means, shown, queries, middle / 100.0::double precision, confidence) is null then
            high := middle;
        else
            low := middle;
        end if;
    end loop;
    return nullif(low, 0) / 100.0::double precision;
end
$body$;

-- What certify keeps and returns of a promise of precision.
create or replace function funnelvec._certify_precision(
    f funnelvec.funnels,
    judgments regclass,
    min_precision double precision,
    confidence double precision,
    k integer,
    unjudged text,
    out relevance double precision,
    out losses double precision[],
    out answered double precision,
    out without_relevant double precision
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    answer record;
    relevances double precision[] := '{}';
    labels boolean[] := '{}';
    query_of integer[] := '{}';
    queries integer := 0;
    barren integer := 0;
    means double precision[];
    shown integer[];
    found_one integer;
begin
    for answer in select a.* from funnelvec._judged_shown(f, judgments, k, unjudged) as a loop
        queries := queries + 1;
        barren := barren + case when true = any (answer.labels) then 0 else 1 end;
        relevances := relevances || answer.relevances;
        labels := labels || answer.labels;
        query_of := query_of || array_fill(queries, array[cardinality(answer.labels)]);
    end loop;
    select array_agg((select avg(l) from unnest(p.losses) as l) order by p.step), array_agg(p.shown order by p.step) into means, shown
    from funnelvec._precision_losses(relevances, labels, query_of, queries) as p;
    found_one := funnelvec._precise_step(means, shown, queries, min_precision, confidence);
    if found_one is null then
        raise exception using
            errcode = 'FV007',
            message = format('min_precision %s can''t be promised with confidence %s by %s judged queries: where the fewest rows are '
                'shown, %s of them are relevant', min_precision, confidence, queries,
                coalesce((
                    select round((1 - u.mean * queries / u.shown)::numeric, 3)::text
                    from unnest(means, shown) with ordinality as u (mean, shown, step)
                    where u.shown > 0 order by u.step limit 1), 'none')),
            hint = coalesce(
                'Judge more queries or rows, or ask for min_precision => ' || funnelvec._possible_precision(means, shown, queries, confidence) || '.',
                'These judgments carry none: hardly anything that the search shows was judged relevant.');
    end if;
    relevance := (200 - found_one) / 200.0::double precision;
    losses := (
        select p.losses from funnelvec._precision_losses(relevances, labels, query_of, queries) as p where p.step = found_one);
    answered := shown[found_one] / queries::double precision;
    without_relevant := barren / queries::double precision;
end
$body$;
