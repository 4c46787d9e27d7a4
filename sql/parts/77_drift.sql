-- Drift: do people still ask what they asked when the calibration was fitted? The best score of each query in the log is compared with
-- those of the judged queries, by the test of Kolmogorov and Smirnov. A calibration that live scores have left is called stale: it may
-- still be right, but nobody has judged anything like them. The twin of funnelvec.calibration.drift.

-- The best scores of up to 200 of the judged queries, in order: as many as the text of a function, which repair() reads them from, takes
-- without growing large; in 32 bits for the same reason.
create or replace function funnelvec._best_scores(f funnelvec.funnels, judgments regclass)
returns double precision[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    result double precision[];
    logging text := current_setting('funnelvec.logging', true);
begin
    perform set_config('funnelvec.logging', 'off', true);
    execute format(
        'select array_agg(t.score order by t.score) from (select distinct j.query::text as text from %1$s as j order by 1 limit 200) as q '
        'cross join lateral %2$s(q.text::%3$s, 1, null::double precision, null::jsonb, null::jsonb, null::text) as t',
        judgments, funnelvec._function_name(f), (funnelvec._base(f.table_name, f.column_name)).type)
    into result;
    perform set_config('funnelvec.logging', coalesce(logging, ''), true);
    return result;
end
$body$;

-- Keep them with the calibration in force.
create or replace function funnelvec._keep_reference(funnel text, judgments regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel(funnel);
begin
    perform funnelvec._set_reference(f, to_jsonb(funnelvec._best_scores(f, judgments)::real[]));
end
$body$;

create or replace function funnelvec._set_reference(f funnelvec.funnels, reference jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
    update funnelvec.calibrations as c
    set reference = _set_reference.reference
    where (c.table_name, c.column_name, c.model, c.metric, c.last_stage, c.version)
        = (f.table_name, f.column_name, f.model, f.metric, funnelvec._last_stage(f.funnel), f.calibration);
    -- What the registry knows stands in the functions as well.
    perform funnelvec._write_function(g) from funnelvec._calibrated_together(f) as g where g.calibration = f.calibration;
end
$body$;

-- The largest distance between two empirical distributions, and the probability of one as large by chance (asymptotically; Stephens 1970).
create or replace function funnelvec._compare_scores(
    reference double precision[],
    live double precision[],
    out distance double precision,
    out p_value double precision
)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    n double precision := cardinality(reference) * cardinality(live) / (cardinality(reference) + cardinality(live))::double precision;
    lambda double precision;
begin
    select max(abs(d.here - d.there)) into distance
    from (
        select sum(u.first) over w / cardinality(reference) as here, sum(u.second) over w / cardinality(live) as there
        from (
            select r as score, 1::double precision as first, 0::double precision as second from unnest(reference) as r
            union all select l, 0, 1 from unnest(live) as l
        ) as u
        window w as (order by u.score)
    ) as d;
    lambda := (sqrt(n) + 0.12 + 0.11 / sqrt(n)) * distance;
    -- Below this the series does not settle, and the probability is 1 to ten digits.
    p_value := case when lambda < 0.2 then 1 else greatest(0, least(1, (
        select 2 * sum((case j % 2 when 1 then 1 else -1 end) * exp(-least(700, 2.0::double precision * j * j * lambda * lambda)))
        from generate_series(1, 100) as j))) end;
end
$body$;

-- The reference of the calibration in force; null where there is none that can be read.
create or replace function funnelvec._reference(f funnelvec.funnels)
returns double precision[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    return (
        select array_agg(r.score::double precision order by r.score::double precision)
        from funnelvec._calibration_row(f) as c
        cross join lateral jsonb_array_elements_text(case when jsonb_typeof(c.reference) = 'array' then c.reference else '[]' end) as r (score));
exception when data_exception then
    return null;
end
$body$;

-- The best scores of the newest 1,000 logged queries since the calibration; of those that nothing was left out of. Null without a log.
create or replace function funnelvec._live_scores(f funnelvec.funnels)
returns double precision[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    l record := funnelvec._logging(f);
    result double precision[];
begin
    if l.log is null or not has_table_privilege(l.log, 'select') then
        return null;
    end if;
    execute format(
        'select array_agg(q.best_score) from (select q.best_score from %s as q where q.asked_at > $1 and q.best_score is not null '
        'and q.min_relevance is null and q.filter is null and q.cutoff is null order by q.id desc limit 1000) as q', l.log)
    into result using (funnelvec._calibration_row(f)).fitted_at;
    return coalesce(result, '{}');
end
$body$;

-- Whether the scores of the log, or the given ones, still are those that the calibration was fitted to. `stale` is null where there is
-- too little to say: fewer than 20 judged or 50 live queries. It takes a difference that is not chance (p below 0.001) and not small
-- (0.15 of the queries).
create or replace function funnelvec.check_drift(
    funnel text,
    live double precision[] default null,
    out reference_queries integer,
    out live_queries integer,
    out distance double precision,
    out p_value double precision,
    out reference_median double precision,
    out live_median double precision,
    out stale boolean,
    out advice text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel($1);
begin
    perform funnelvec._need_calibration(f);
    if $2 is not null and exists (select from unnest($2) as s where s is null or not abs(s) < 1e300) then
        raise exception using
            errcode = 'FV004',
            message = 'live holds a score that is null or not finite',
            hint = 'Pass the best score of each query.';
    end if;
    select d.* into reference_queries, live_queries, distance, p_value, reference_median, live_median, stale, advice
    from funnelvec._drift(f, $2) as d;
end
$body$;

create or replace function funnelvec._drift(
    f funnelvec.funnels,
    given double precision[],
    out reference_queries integer,
    out live_queries integer,
    out distance double precision,
    out p_value double precision,
    out reference_median double precision,
    out live_median double precision,
    out stale boolean,
    out advice text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    reference double precision[] := coalesce(funnelvec._reference(f), '{}');
    live double precision[] := coalesce(given, funnelvec._live_scores(f));
begin
    reference_queries := cardinality(reference);
    live_queries := coalesce(cardinality(live), 0);
    reference_median := (select percentile_cont(0.5) within group (order by s) from unnest(reference) as s);
    live_median := (select percentile_cont(0.5) within group (order by s) from unnest(live) as s);
    if live is null then
        advice := format('nothing is known of live queries: select funnelvec.log_queries(%L);', funnelvec._function_name(f));
    elsif reference_queries < 20 or live_queries < 50 then
        advice := format('too few queries to compare: %s judged (20 are needed), %s live (50 are needed)', reference_queries, live_queries);
    end if;
    if reference_queries > 0 and live_queries > 0 then
        select c.distance, c.p_value into distance, p_value from funnelvec._compare_scores(reference, live) as c;
        if advice is null then
            stale := p_value < 0.001 and distance >= 0.15;
        end if;
    end if;
    if stale then
        advice := format('stale: the best score of live queries (median %s of %s) is not that of the judged ones (median %s of %s): judge '
            'some of them, and calibrate and certify again', round(live_median::numeric, 4), live_queries,
            round(reference_median::numeric, 4), reference_queries);
    end if;
end
$body$;

-- What status says of a calibration, and what there is to do; null where there is none.
create or replace function funnelvec._calibration_said(f funnelvec.funnels, out about text, out advice text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    fitted funnelvec.calibrations;
    drift record;
    seen bigint;
begin
    fitted := funnelvec._calibration_row(f);
    if fitted.version is null then
        return;
    end if;
    drift := funnelvec._drift(f, null);
    seen := (funnelvec._online_state(f) ->> 'seen')::bigint;
    about := concat_ws('; ',
        format('%s, version %s; %s pairs of %s queries, %s relevant; %s', fitted.family, fitted.version, fitted.pairs, fitted.queries,
            fitted.relevant, concat('score less ' || round((fitted.parameters ->> 'alpha')::numeric, 4) || ' times the hub; ') || to_char(fitted.fitted_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI UTC')),
        case when drift.stale = false then format('live queries score as the judged ones did (median %s of %s)', round(drift.live_median::numeric, 4),
            drift.live_queries) end,
        case when seen > 0 then format('feedback on %s rows since', seen) end);
    advice := case when drift.stale then drift.advice end;
exception when others then
    -- A registry that was written by hand is for repair() to speak of.
    if sqlstate not like 'FV%' then
        raise;
    end if;
    about := null;
end
$body$;

comment on function funnelvec.check_drift(text, double precision[])
    is 'whether the best scores of live queries (the query log, or the given ones) still are those that the calibration was fitted to';
