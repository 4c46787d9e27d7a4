-- Fitting a calibration to judged rows: their scores, how much of a hub is taken off, what is refused, what is kept.

-- The judged rows of a funnel with their scores. The judgments: a table with a column `query` (vector), the key column of the
-- searched table, and `relevant` (boolean). Judged rows that the searched table does not have (any more) have no score.
create or replace function funnelvec._judged_scores(
    f funnelvec.funnels,
    judgments regclass,
    out scores double precision[],
    out labels boolean[],
    out queries integer,
    out missing integer,
    out sha256 text,
    out hubs double precision[],
    out query_of integer[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    key record := funnelvec._key_sql(f.table_name);
    base record := funnelvec._base(f.table_name, f.column_name);
    bad bigint;
begin
    execute format(
        'select count(*) from %1$s as j where j.query is null or j.relevant is null or %2$s '
        'or %3$s.vector_dims(j.query) <> %4$s%5$s', judgments,
        (select string_agg(format('j.%I is null', k.name), ' or ') from funnelvec._key(f.table_name) as k),
        funnelvec._vector_schema(), base.dims,
        case when (funnelvec._metric(f.metric)).needs_direction then format(' or %s(j.query) = 0', base.norm) end)
    into bad;
    if bad > 0 then
        raise exception using
            errcode = 'FV007',
            message = format('%s rows of %s have a null, a zero query vector, or one without %s dimensions', bad, judgments, base.dims),
            hint = format('Each row needs query (%s dimensions), %s and relevant.', base.dims, key.targets);
    end if;
    execute format(
        $text$
        select
            array_agg(s.score) filter (where s.score < 'NaN'),
            array_agg(s.relevant) filter (where s.score < 'NaN'),
            count(distinct s.query_sha256) filter (where s.score < 'NaN'),
            count(*) filter (where s.score is null or s.score = 'NaN'),
            encode(sha256(string_agg(s.sha256, '' order by s.sha256)), 'hex'),
            array_agg(s.hub) filter (where s.score < 'NaN'),
            array_agg(s.query_number) filter (where s.score < 'NaN')
        from (select j.*, dense_rank() over (order by j.query_sha256)::integer as query_number from (%s) as j order by j.sha256) as s
        $text$,
        funnelvec._judged_sql(f, judgments))
    into scores, labels, queries, missing, sha256, hubs, query_of;
end
$body$;

-- The judged rows with their raw scores at the last stage, as a select of score, relevant, query, query_sha256 and sha256 of the whole, in its
-- order, the row's hub, 0 where the column has none, and its key.
create or replace function funnelvec._judged_sql(f funnelvec.funnels, judgments regclass)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    key record := funnelvec._key_sql(f.table_name);
    hub text := (funnelvec._hub(f.table_name, f.column_name)).hub_column;
    last record;
begin
    select s.* into last from funnelvec._stages(f) as s where s.keep is null;
    return format(
        $text$
            select %1$s as score, j.relevant, j.query,
                sha256(convert_to(j.query::text, 'UTF8')) as query_sha256,
                sha256(convert_to(row(j.query, %2$s, j.relevant)::text, 'UTF8')) as sha256, %6$s as hub, row(%2$s)::text as key
            from %3$s as j left join %4$s as t on %5$s
            order by 5
        $text$,
        funnelvec._similarity(last.dims, last.code, last.metric, format('%s %s %s',
            case last.storage when 'side' then format('(%s)',
                (funnelvec._code_of(f.table_name, f.column_name, last.resolution, format('t.%I', f.column_name), f.metric)).expression)
                else format('t.%I', last.code_column) end,
            last.operator, replace(last.encoded, '{query}', 'j.query'))),
        (select string_agg(format('j.%I', k.name), ', ' order by k.ordinal) from funnelvec._key(f.table_name) as k),
        judgments, f.table_name, key.joined,
        case when hub is null then '0::double precision' else format('coalesce(t.%I, 0)::double precision', hub) end);
end
$body$;

-- How much of the hub to take off the score; 0 where that does not help. The two weights of a logistic regression on score and hub say how
-- much; over held-out queries its log loss has to be lower than Platt's on the score alone by more than a standard error of the difference.
-- Queries go into the five folds by their mean score, so that it makes no difference in which order they come; more than 300 say no more.
create or replace function funnelvec._choose_alpha(scores double precision[], hubs double precision[], labels boolean[], query_of integer[])
returns double precision
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    place integer[];
    gain double precision[] := '{}';
    fit record;
    fitted double precision[];
    line record;
    held record;
begin
    -- The place of every pair's query among those that are looked at, null for the others.
    select array_agg(case when r.place % r.step = 0 then r.place / r.step end order by u.i) into place
    from unnest(query_of) with ordinality as u (query, i)
    join (
        select m.query, row_number() over (order by m.mean, m.query)::integer - 1 as place, greatest(1, ceil(count(*) over () / 300.0)::integer) as step
        from (select w.query, avg(w.score) as mean from unnest(query_of, scores) as w (query, score) group by w.query) as m
    ) as r on r.query = u.query;
    for fold in 0 .. 5 loop
        -- The last round is the fit to all of them.
        select array_agg(u.s order by i) as scores, array_agg(u.h order by i) as hubs, array_agg(u.l order by i) as labels into fit
        from unnest(scores, hubs, labels, place) with ordinality as u (s, h, l, place, i)
        where u.place is not null and u.place % 5 <> fold;
        fitted := funnelvec._fit_hub(fit.scores, fit.hubs, fit.labels);
        if fitted is null then
            return 0;
        end if;
        exit when fold = 5;
        line := funnelvec._fit_platt(fit.scores, fit.labels);
        if not line.slope > 0 then
            return 0;
        end if;
        gain := gain || array(
            select sum(funnelvec._log_loss(line.slope * u.s + line."offset", u.l) - funnelvec._log_loss(
                fitted[1] * u.s + fitted[2] * u.h + fitted[3], u.l))
            from unnest(scores, hubs, labels, place) as u (s, h, l, place)
            where u.place % 5 = fold
            group by u.place);
    end loop;
    if fitted[2] >= 0 then
        return 0;
    end if;
    return (
        select case when avg(g) > stddev_pop(g) / sqrt(count(*)) then -fitted[2] / fitted[1] else 0 end
        from unnest(gain) as g);
end
$body$;

-- The weights of score and hub and the offset, by log loss against Platt's smoothed targets; null where these pairs can't tell.
create or replace function funnelvec._fit_hub(scores double precision[], hubs double precision[], labels boolean[])
returns double precision[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    m record;
    theta double precision[];
begin
    -- Fewer carry no Platt curve either.
    if (select count(*) filter (where l) < 10 or count(*) filter (where not l) < 10 from unnest(labels) as l) then
        return null;
    end if;
    select avg(s) as score, stddev_pop(s) as score_scale, avg(h) as hub, stddev_pop(h) as hub_scale into m from unnest(scores, hubs) as u (s, h);
    if not (m.score_scale > 1e-9 and m.hub_scale > 1e-9) then
        return null;
    end if;
    theta := funnelvec._fit_two(
        array(select (s - m.score) / m.score_scale from unnest(scores) as s), array(select (h - m.hub) / m.hub_scale from unnest(hubs) as h),
        labels, true, true);
    if not theta[1] > 0 then
        return null;
    end if;
    return array[theta[1] / m.score_scale, theta[2] / m.hub_scale,
        theta[3] - theta[1] * m.score / m.score_scale - theta[2] * m.hub / m.hub_scale];
end
$body$;

create or replace function funnelvec._log_loss(z double precision, label boolean)
returns double precision
language sql immutable parallel safe
return (greatest(z, 0) operator(pg_catalog.-) case when label then z else 0 end) operator(pg_catalog.+) pg_catalog.ln(
    1::double precision operator(pg_catalog.+) pg_catalog.exp(operator(pg_catalog.-) least(700, pg_catalog.abs(z))));

-- A judgments table that lacks a column is refused by name, before anything is read.
create or replace function funnelvec._check_judgments(f funnelvec.funnels, judgments regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    key record := funnelvec._key_sql(f.table_name);
    base record := funnelvec._base(f.table_name, f.column_name);
    missing text;
begin
    select string_agg(format('%I %s', w.name, w.type), ', ') into missing
    from (
        select 'query', base.type, true
        union all
        select k.name, k.type, false from funnelvec._key(f.table_name) as k
        union all
        select 'relevant', 'boolean', true
    ) as w (name, type, exact)
    where not exists (
        select from pg_attribute as a
        where a.attrelid = judgments and a.attname = w.name and a.attnum > 0 and not a.attisdropped
            and (not w.exact or a.atttypid = w.type::regtype));
    if missing is not null then
        raise exception using
            errcode = 'FV005',
            message = format('the judgments %s lack: %s', coalesce(judgments::text, 'null'), missing),
            hint = format('A judgment is a row (query %s, %s, relevant boolean).', base.type, key.columns);
    end if;
end
$body$;

create or replace function funnelvec._check_enough(positives bigint, negatives bigint, queries integer, missing integer)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
begin
    if positives < 10 or negatives < 10 or coalesce(queries, 0) < 5 then
        raise exception using
            errcode = 'FV007',
            message = format('too few judgments: %s relevant and %s not relevant rows, from %s queries%s',
                positives, negatives, coalesce(queries, 0),
                case when missing > 0 then format('; %s judged rows are not in the table', missing) end),
            hint = 'At least 10 relevant and 10 not relevant rows from 5 queries are needed; a few hundred are better.';
    end if;
end
$body$;

-- The funnels that share a calibration: same column, model, metric and last stage.
create or replace function funnelvec._calibrated_together(f funnelvec.funnels)
returns setof funnelvec.funnels
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select g.*
    from funnelvec.funnels as g
    where (g.table_name, g.column_name, g.model, g.metric, funnelvec._last_stage(g.funnel))
        = (f.table_name, f.column_name, f.model, f.metric, funnelvec._last_stage(f.funnel))
$body$;

-- Keep a fitted map as the next version, and write it into the functions of the funnels that can use it.
create or replace function funnelvec._keep_calibration(
    f funnelvec.funnels,
    family text,
    parameters jsonb,
    judgments_sha256 text,
    queries integer,
    pairs integer,
    relevant integer
)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    version integer;
begin
    perform funnelvec._check_owner(f.table_name);
    perform funnelvec._check_calibration(f.table_name, family, parameters);
    if not funnelvec._suits(f.funnel, family, parameters) then
        raise exception using
            errcode = 'FV004',
            message = format('%s keeps fewer rows before its last stage than the %s that the calibration looks at', f.funnel, parameters ->> 'depth'),
            hint = 'Create the funnel with larger keeps.';
    elsif funnelvec._width(parameters #>> '{rows,mean}') <> (funnelvec._base(f.table_name, f.column_name)).dims then
        raise exception using
            errcode = 'FV004',
            message = format('the calibration has statistics of rows of %s dimensions; %s.%I has %s', funnelvec._width(parameters #>> '{rows,mean}'),
                f.table_name, f.column_name, (funnelvec._base(f.table_name, f.column_name)).dims),
            hint = 'Calibrate again.';
    end if;
    -- Versions are counted per column and last stage; two fits at once take their numbers one after the other.
    perform pg_advisory_xact_lock(hashtext('funnelvec.calibrate'), f.table_name::oid::integer);
    version := 1 + coalesce((
        select max(c.version)
        from funnelvec.calibrations as c
        where (c.table_name, c.column_name, c.model, c.metric, c.last_stage)
            = (f.table_name, f.column_name, f.model, f.metric, funnelvec._last_stage(f.funnel))), 0);
    insert into funnelvec.calibrations values (
        f.table_name, f.column_name, f.model, f.metric, funnelvec._last_stage(f.funnel), version, family,
        parameters, judgments_sha256, queries, pairs, relevant);
    update funnelvec.funnels as u
    set calibration = version
    from funnelvec._calibrated_together(f) as g
    where u.table_name = g.table_name and u.name = g.name and funnelvec._suits(g.funnel, family, parameters);
    perform funnelvec._write_function(g)
    from funnelvec._calibrated_together(f) as g
    where funnelvec._suits(g.funnel, family, parameters);
    return version;
end
$body$;

create or replace function funnelvec.calibrate(
    funnel text,
    judgments regclass,
    out version integer,
    inout family text default 'platt',
    out slope double precision,
    out "offset" double precision,
    out queries integer,
    out pairs integer,
    out relevant integer,
    out missing integer,
    out judgments_sha256 text,
    out parameters jsonb
)
language plpgsql
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
#variable_conflict use_column
declare
    f funnelvec.funnels := funnelvec._funnel($1);
    judged record;
    hub text := (select h.id from funnelvec._hub(f.table_name, f.column_name) as h where not h.filling);
    alpha double precision := 0;
begin
    perform funnelvec._check_owner(f.table_name);
    perform funnelvec._check_family(calibrate.family);
    perform funnelvec._check_judgments(f, $2);
    judged := funnelvec._judged_scores(f, $2);
    queries := judged.queries;
    pairs := coalesce(cardinality(judged.labels), 0);
    relevant := (select count(*) from unnest(judged.labels) as l where l);
    missing := judged.missing;
    judgments_sha256 := judged.sha256;
    perform funnelvec._check_enough(relevant, pairs - relevant, queries, missing);
    if hub is not null and f.funnel like '%>%' then
        alpha := funnelvec._choose_alpha(judged.scores, judged.hubs, judged.labels, judged.query_of);
    end if;
    parameters := funnelvec._fit_family(
        calibrate.family, array(select u.s - alpha * u.h from unnest(judged.scores, judged.hubs) with ordinality as u (s, h, i) order by u.i),
        judged.labels);
    if alpha > 0 then
        parameters := parameters || jsonb_build_object('hub', hub, 'alpha', alpha);
    end if;
    slope := parameters -> 'slope';
    "offset" := parameters -> 'offset';
    version := funnelvec._keep_calibration(
        f, calibrate.family, calibrate.parameters, calibrate.judgments_sha256, calibrate.queries, calibrate.pairs, calibrate.relevant);
    perform funnelvec._keep_reference($1, $2);
end
$body$;

comment on function funnelvec.calibrate(text, regclass, text)
    is 'fit relevance from judgments, a table (query vector, <key column>, relevant boolean), for all funnels with the same last stage; family: platt, beta or isotonic';
comment on function funnelvec.relevance(text, double precision, vector) is 'the relevance of a raw score, by the calibration in force; an adapter needs the query';
comment on function funnelvec.cutoff(text, double precision, vector) is 'the raw score from which on the relevance is at least this; an adapter needs the query';
