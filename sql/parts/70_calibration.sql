-- Relevance: from a raw score to the probability that the row answers the query, and back to a cutoff on the score.
-- Platt scaling (Platt 1999, with his smoothed targets): relevance = sigmoid(slope * score + offset). Other families: 59_maps, 71_families.

-- The calibration in force for a funnel.
create or replace function funnelvec._calibration_row(f funnelvec.funnels)
returns funnelvec.calibrations
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    found_one funnelvec.calibrations;
begin
    select c.* into found_one
    from funnelvec.calibrations as c
    where (c.table_name, c.column_name, c.model, c.metric, c.last_stage, c.version)
        = (f.table_name, f.column_name, f.model, f.metric, funnelvec._last_stage(f.funnel), f.calibration);
    if found_one.table_name is not null then
        perform funnelvec._check_row(
            found_one.table_name, found_one.metric, found_one.last_stage, null, found_one.family, found_one.parameters);
        if found_one.parameters ? 'hub' and not (funnelvec._suits(f.funnel, found_one.family, found_one.parameters)
            and funnelvec._in_step(f.table_name, f.column_name, found_one.parameters))
        then
            -- Its hub column is gone, and nobody has repaired the funnel yet.
            return null;
        end if;
    end if;
    return found_one;
end
$body$;

-- Its map with its family, as in 59_maps; null where there is none.
create or replace function funnelvec._calibration(f funnelvec.funnels)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select c.parameters || jsonb_build_object('family', c.family)
    from funnelvec._calibration_row(f) as c
    where c.version is not null
$body$;

create or replace function funnelvec._need_calibration(f funnelvec.funnels)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    if funnelvec._calibration(f) is null then
        raise exception using
            errcode = 'FV006',
            message = format('funnel %s has no calibration, so it has no relevance and no cutoff', f.name),
            hint = format('Calibrate it: select funnelvec.calibrate(%L, judgments), with a table (query, key, relevant).',
                funnelvec._function_name(f));
    end if;
    return funnelvec._calibration(f);
end
$body$;

-- The map of one query: an adapter's line comes from the shortlist that the search of this query has.
create or replace function funnelvec._calibration_at(f funnelvec.funnels, query vector, filter jsonb default null)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    calibration jsonb := funnelvec._need_calibration(f);
    list double precision[];
    logging text := current_setting('funnelvec.logging', true);
begin
    if calibration ->> 'family' <> 'adapter' then
        return calibration;
    elsif query is null then
        raise exception using
            errcode = 'FV004',
            message = format('the calibration of %s differs by query, and none is given', f.name),
            hint = 'Pass the query vector as the third argument.';
    end if;
    perform set_config('funnelvec.logging', 'off', true);
    -- What a search takes is a query of the type of the column, which may round it.
    execute format('select array_agg(t.score), $1::%s::%s.vector from %s($1::%1$s, $2, filter => $3) as t',
        (funnelvec._base(f.table_name, f.column_name)).type, funnelvec._vector_schema(), funnelvec._function_name(f))
    into list, query using query, (calibration ->> 'depth')::integer, filter;
    perform set_config('funnelvec.logging', coalesce(logging, ''), true);
    return case when list is not null then funnelvec._bound(calibration, list, query) end;
end
$body$;

-- Relevance of a score. An adapter has a map per query, the others one for all.
create or replace function funnelvec.relevance(funnel text, score double precision, query vector default null)
returns double precision
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    result double precision;
begin
    -- Scores of vectors stay far within these bounds; beyond them the product with the slope could overflow. No score, no relevance.
    execute 'select ' || funnelvec._relevance_sql(funnelvec._calibration_at(funnelvec._funnel(funnel), query), '$1')
    into result using case
        when score = 'NaN' then null
        when abs(score) < 1e-150 then 0
        else greatest(-1e150, least(1e150, score))
    end;
    return case when score < 'NaN' then result end;
end
$body$;

-- The raw score that a relevance means for this query; null where an adapter has no row to read its line off.
create or replace function funnelvec._cutoff_at(f funnelvec.funnels, relevance double precision, query vector, filter jsonb default null)
returns double precision
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    result double precision;
begin
    if not relevance between 0 and 1 then
        raise exception using
            errcode = 'FV004',
            message = format('relevance is %s; a probability is between 0 and 1', relevance),
            hint = 'Such as 0.7.';
    end if;
    execute coalesce('select ' || funnelvec._cutoff_sql(funnelvec._calibration_at(f, query, filter), '$1'), 'select null')
    into result using relevance;
    return result;
end
$body$;

create or replace function funnelvec.cutoff(funnel text, relevance double precision, query vector default null)
returns double precision
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    return funnelvec._cutoff_at(funnelvec._funnel(funnel), relevance, query);
end
$body$;

-- Platt's fit by Newton's method with step halving, on standardised scores. Refused where the judgments can't carry it.
create or replace function funnelvec._fit_platt(
    scores double precision[],
    labels boolean[],
    out slope double precision,
    out "offset" double precision
)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    positives double precision := (select count(*) from unnest(labels) as l where l);
    negatives double precision := cardinality(labels) - positives;
    high double precision := (positives + 1) / (positives + 2);
    low double precision := 1 / (negatives + 2);
    mean double precision;
    deviation double precision;
    loss double precision;
    new_loss double precision;
    a double precision := 0;
    b double precision := ln((positives + 1) / (negatives + 1));
    step_a double precision;
    step_b double precision;
    g record;
begin
    select avg(s), stddev_pop(s) into mean, deviation from unnest(scores) as s;
    if not deviation > 0 then
        raise exception using
            errcode = 'FV007',
            message = format('all %s judged rows have the same score (%s)', cardinality(scores), mean),
            hint = 'Judge rows that differ: relevant ones and others that the search returns.';
    end if;
    loss := funnelvec._platt_loss(scores, labels, mean, deviation, high, low, a, b);
    for i in 1 .. 100 loop
        select
            sum((p.p - t.t) * x.x) as ga, sum(p.p - t.t) as gb,
            sum(p.p * (1 - p.p) * x.x * x.x) as haa, sum(p.p * (1 - p.p) * x.x) as hab, sum(p.p * (1 - p.p)) as hbb
        into g
        from unnest(scores, labels) as u (s, l)
        cross join lateral (select (u.s - mean) / deviation) as x (x)
        cross join lateral (select 1 / (1 + exp(-greatest(-700, least(700, a * x.x + b))))) as p (p)
        cross join lateral (select case when u.l then high else low end) as t (t);
        step_a := (g.hbb * g.ga - g.hab * g.gb) / (g.haa * g.hbb - g.hab * g.hab);
        step_b := (g.haa * g.gb - g.hab * g.ga) / (g.haa * g.hbb - g.hab * g.hab);
        for halving in 1 .. 30 loop
            new_loss := funnelvec._platt_loss(scores, labels, mean, deviation, high, low, a - step_a, b - step_b);
            -- Near the optimum the loss falls by less than its own rounding, and the full step is still the right one.
            exit when new_loss <= loss * (1 + 1e-12);
            step_a := step_a / 2;
            step_b := step_b / 2;
        end loop;
        a := a - step_a;
        b := b - step_b;
        loss := new_loss;
        exit when greatest(abs(step_a), abs(step_b)) < 1e-12;
    end loop;
    slope := a / deviation;
    "offset" := b - a * mean / deviation;
end
$body$;

-- Cross entropy against the smoothed targets, written so that no exponential overflows.
create or replace function funnelvec._platt_loss(
    scores double precision[],
    labels boolean[],
    mean double precision,
    deviation double precision,
    high double precision,
    low double precision,
    a double precision,
    b double precision
)
returns double precision
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select sum(greatest(z.z, 0) - z.z * case when u.l then high else low end + ln(1 + exp(-least(700, abs(z.z)))))
    from unnest(scores, labels) as u (s, l)
    cross join lateral (select a * (u.s - mean) / deviation + b) as z (z)
$body$;
