-- Certificates: a cutoff with a promise, over queries and over the whole funnel.
--   max_miss       the share of the relevant rows that a query loses, to the stages and to the cutoff, is at most so much on average:
--                  conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR 2024)
--   min_precision  of what a query is shown so much is relevant on average, with a confidence: learn then test (Angelopoulos, Bates,
--                  Candes, Jordan and Lei, 2021)
-- A funnel has at most one of each, in `certificate` as {"max_miss": {...}, "min_precision": {...}}.

-- The certificate of a funnel, if it is about this funnel and this calibration.
create or replace function funnelvec._certificate(f funnelvec.funnels, kind text)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select c.said
    from (select f.certificate -> kind) as c (said)
    where c.said ->> 'funnel' = f.funnel and c.said ->> 'calibration' = f.calibration::text
        and c.said ->> 'k' ~ '^[1-9]\d{0,8}$'
        -- What is missed is about the score where all queries have the same map, and about the relevance else; precision about the relevance.
        and case
            when kind = 'min_precision' and jsonb_typeof(c.said -> 'relevance') = 'number' then (c.said ->> 'relevance')::numeric between 0.001 and 0.999
            when kind = 'max_miss' and jsonb_typeof(c.said -> 'cutoff') = 'number' then (c.said ->> 'cutoff')::numeric between -1e300 and 1e300
            when kind = 'max_miss' and jsonb_typeof(c.said -> 'cutoff') = 'null' and jsonb_typeof(c.said -> 'relevance') = 'number'
                then (c.said ->> 'relevance')::numeric between 0 and 1
            else false end
$body$;

-- What the function of a funnel does with its argument `cutoff`.
create or replace function funnelvec._body_certified(f funnelvec.funnels)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    return format($text$    if cutoff is not null then
        if min_relevance is not null then
            raise exception using
                errcode = 'FV004',
                message = 'cutoff and min_relevance are given',
                hint = 'Give one of them: cutoff => ''certified'', or min_relevance => 0.7.';
        end if;
        case cutoff
        when 'certified' then
%1$s        when 'precise' then
%2$s        when 'best_f1' then
%3$s        else
            raise exception using
                errcode = 'FV004',
                message = format('cutoff is %%L', left(cutoff, 100)),
                hint = 'It is ''certified'' (max_miss), ''precise'' (min_precision) or ''best_f1''.';
        end case;
    end if;
$text$,
        funnelvec._body_promise(f, 'max_miss'), funnelvec._body_promise(f, 'min_precision'), funnelvec._body_best_f1(f));
end
$body$;

-- The cutoff of a certificate. A promise is given for nothing less than what it is about: so many rows of the whole table. What is
-- missed only shrinks with more rows; how much of what is shown is relevant does not stay the same with more or with fewer.
create or replace function funnelvec._body_promise(f funnelvec.funnels, kind text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
declare
    certificate jsonb := funnelvec._certificate(f, kind);
    k integer := certificate ->> 'k';
    other text := case kind when 'max_miss' then 'min_precision' else 'max_miss' end;
begin
    if certificate is null then
        return format($text$            raise exception using
                errcode = 'FV006',
                message = %1$L,
                hint = %2$L;
$text$,
            case
                when f.certificate -> kind is null then format('funnel %s has no certificate of %s', f.name, kind)
                else format('the certificate of %s is void: it is about the funnel %s with another calibration or other stages',
                    f.name, f.certificate -> kind ->> 'funnel') end,
            format('Certify it: select * from funnelvec.certify(%L, judgments, %s => ...), with a table (query, key, relevant).%s',
                funnelvec._function_name(f), kind,
                case when funnelvec._certificate(f, other) is not null then format(' It has one of %s: cutoff => %L.', other,
                    case other when 'max_miss' then 'certified' else 'precise' end) end));
    end if;
    return format($text$            if k %4$s %1$s or filter is not null%5$s then
                raise exception using
                    errcode = 'FV004',
                    message = case when k %4$s %1$s then format('k is %%s, and the certificate is about %1$s rows', k)
                        when filter is not null then 'the certificate is about searches without a filter'
                        else 'the certificate is about the first page' end,
                    hint = %2$L;
            end if;
            %3$s;
$text$,
        k,
        format('Ask for k => %s without a filter, certify with another k, or use min_relevance, which promises nothing.', k),
        case when kind = 'max_miss' and certificate ->> 'cutoff' is not null
            then '_fv_cutoff := ' || funnelvec._literal((certificate ->> 'cutoff')::double precision)
            else funnelvec._assign_least(funnelvec._calibration(f), funnelvec._literal((certificate ->> 'relevance')::double precision)) end,
        case kind when 'max_miss' then '<' else '<>' end,
        case kind when 'min_precision' then ' or after is not null' end);
end
$body$;

-- NaN stands for the cutoff that the statement finds itself (60_search).
create or replace function funnelvec._body_best_f1(f funnelvec.funnels)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when funnelvec._calibration(f) is null then format($text$            raise exception using
                errcode = 'FV006',
                message = %1$L,
                hint = %2$L;
$text$,
            format('funnel %s has no calibration, so nothing is known of the F1 of an answer', f.name),
            format('Calibrate it: select funnelvec.calibrate(%L, judgments), with a table (query, key, relevant).',
                funnelvec._function_name(f)))
        else concat(
            -- The rows of a single stage begin where the page does, and a cutoff that moves with the page is none.
            case when f.funnel not like '%>%' then $text$            if after is not null then
                raise exception using
                    errcode = 'FV004',
                    message = 'best_f1 of a single stage is about its first page',
                    hint = 'Use a funnel of two stages, or min_relevance.';
            end if;
$text$ end,
            E'            _fv_cutoff := ''NaN'';\n')
    end
$body$;

-- The score down to which an answer promises the best F1: 2 * (relevant rows kept) / (rows kept + relevant rows), each expected by the
-- relevances of the rows of the last stage. One cutoff: rows of equal scores are kept or dropped together. As an expression over the
-- CTE `scored` of the statement, within sight of an adapter's line (59_maps).
create or replace function funnelvec._best_f1_sql(calibration jsonb)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select format(
        E'(\n    select b.score\n    from (\n'
        '        select r.score, sum(r.p) over w / (count(*) over w + sum(r.p) over ()) as gain\n'
        '        from (select s.score, %s as p from scored as s where s.score < ''NaN'') as r\n'
        '        window w as (order by r.score desc)\n'
        '    ) as b\n    order by b.gain desc, b.score desc\n    limit 1\n)',
        funnelvec._relevance_sql(calibration, 's.score'))
$body$;

-- Per judged query: its relevant rows among the exact top k, and of those that the funnel finds what a cutoff is on, in the column `measure` of
-- the answer: score or relevance.
create or replace function funnelvec._judged_answers(
    f funnelvec.funnels,
    judgments regclass,
    k integer,
    measure text,
    out relevant integer,
    out scores double precision[]
)
returns setof record
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    key record := funnelvec._key_sql(f.table_name);
    base record := funnelvec._base(f.table_name, f.column_name);
    exact_statement text := funnelvec._exact_sql(f, '');
    search_statement text := format(
        'select array(select t.%4$I from %1$s($1::%2$s, $2, null::double precision, null::jsonb, null::jsonb, null::text) as t '
        'where %3$s = any ($3))', funnelvec._function_name(f), base.type, key.identity, measure);
    q record;
    truth text[];
    wanted text[];
    logging text := current_setting('funnelvec.logging', true);
begin
    perform set_config('funnelvec.logging', 'off', true);
    for q in execute format(
        'select j.query::text as vector, array_agg(distinct %1$s) filter (where j.relevant and t.tableoid is not null) as rows '
        'from %2$s as j left join %3$s as t on %4$s group by j.query::text order by 1', key.identity, judgments, f.table_name, key.joined)
    loop
        execute exact_statement into truth using q.vector, '', k;
        wanted := array(select r from unnest(q.rows) as r where r = any (truth));
        relevant := cardinality(wanted);
        scores := '{}';
        if relevant > 0 then
            execute search_statement into scores using q.vector, k, wanted;
        end if;
        return next;
    end loop;
    perform set_config('funnelvec.logging', coalesce(logging, ''), true);
end
$body$;

-- The highest cutoff within the budget. `relevant` has a number per query; `scores` the scores of the relevant rows that were found,
-- `query_of` whose they are.
create or replace function funnelvec._certified_cutoff(
    relevant integer[],
    scores double precision[],
    query_of integer[],
    max_miss double precision,
    out cutoff double precision,
    out losses double precision[],
    out by_stages double precision
)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    n integer := cardinality(relevant);
begin
    by_stages := (
        select sum(1 - coalesce(c.number, 0) / r.number::double precision)
        from unnest(relevant) with ordinality as r (number, query)
        left join (select q, count(*) from unnest(query_of) as q group by q) as c (query, number) on c.query = r.query
        where r.number > 0);
    select max(s.score) into cutoff
    from (
        select u.score, coalesce(sum(1 / relevant[u.query]::double precision) over (
            order by u.score groups between unbounded preceding and 1 preceding), 0) as below
        from unnest(scores, query_of) as u (score, query)
    ) as s
    where by_stages + s.below <= max_miss * (n + 1) - 1 + 1e-9;
    losses := array(
        select case when r.number = 0 then 0
            else 1 - (select count(*) from unnest(scores, query_of) as u (score, query) where u.query = r.query and u.score >= cutoff)
                / r.number::double precision end
        from unnest(relevant) with ordinality as r (number, query)
        order by r.query);
end
$body$;

-- Refusals of certify that need no search.
create or replace function funnelvec._check_certify(
    f funnelvec.funnels,
    max_miss double precision,
    min_precision double precision,
    confidence double precision,
    k integer,
    unjudged text
)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    most integer := (select min(p.keep) from funnelvec._parse_funnel(f.funnel) as p);
begin
    if max_miss is not null and min_precision is not null then
        raise exception using
            errcode = 'FV004',
            message = 'max_miss and min_precision are given',
            hint = 'Certify them one after the other; a funnel keeps one certificate of each.';
    elsif max_miss is not null and not (max_miss > 0 and max_miss < 1) then
        raise exception using
            errcode = 'FV004',
            message = format('max_miss is %s', max_miss),
            hint = 'Give the share of relevant rows that may be lost, such as 0.05.';
    elsif min_precision is not null and not (min_precision > 0 and min_precision < 1) then
        raise exception using
            errcode = 'FV004',
            message = format('min_precision is %s', min_precision),
            hint = 'Give the share of relevant rows among those shown, such as 0.9.';
    elsif confidence is null or not (confidence > 0 and confidence < 1) then
        raise exception using
            errcode = 'FV004',
            message = format('confidence is %s', coalesce(confidence::text, 'null')),
            hint = 'Give a probability between 0 and 1, such as 0.95.';
    elsif k is null or k < 1 or k > most then
        raise exception using
            errcode = 'FV004',
            message = format('k is %s', coalesce(k::text, 'null')),
            hint = coalesce(format('Certify 1 to %s rows: that is what reaches the last stage of %s.', most, f.funnel), 'Certify at least one row.');
    elsif unjudged is null or unjudged not in ('irrelevant', 'ignored') then
        raise exception using
            errcode = 'FV004',
            message = format('unjudged is %s', coalesce(quote_literal(left(unjudged, 100)), 'null')),
            hint = 'Rows that nobody judged are ''irrelevant'', or ''ignored'': left out of what was shown.';
    end if;
end
$body$;

-- How many judged queries a promise takes at the least; fewer could not carry it even if all of them were without a fault.
create or replace function funnelvec._check_queries(
    max_miss double precision,
    min_precision double precision,
    confidence double precision,
    queries integer
)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    needed integer := case when min_precision is null then least(ceil(1 / max_miss - 1 - 1e-9), 2147483647)
        else least(ceil(ln(1 - confidence) / ln(min_precision) - 1e-9), 2147483647) end;
    can double precision := case when min_precision is null then ceil(1000.0 / (queries + 1)) / 1000
        else floor(1000 * (1 - confidence) ^ (1.0 / greatest(1, queries))) / 1000 end;
begin
    if queries < needed then
        raise exception using
            errcode = 'FV007',
            message = format('%s needs at least %s judged queries, and there are %s',
                case when min_precision is null then format('max_miss %s', max_miss)
                    else format('min_precision %s with confidence %s', min_precision, confidence) end, needed, queries),
            hint = format('Judge %s more queries, or ask for %s => %s.', needed - queries,
                case when min_precision is null then 'max_miss' else 'min_precision' end, can);
    end if;
end
$body$;

-- Refuses what the judgments can't carry, and says what they could.
create or replace function funnelvec._check_certified(
    f funnelvec.funnels,
    by_stages double precision,
    cutoff double precision,
    max_miss double precision,
    k integer,
    queries integer
)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
begin
    if by_stages is null then
        raise exception using
            errcode = 'FV007',
            message = format('no judged query has a relevant row among the exact top %s, so there is nothing to promise', k),
            hint = 'Judge rows that the search returns.';
    elsif cutoff is null then
        raise exception using
            errcode = 'FV007',
            message = format('max_miss %s can''t be promised for %s: its stages alone lose %s of the relevant rows', max_miss, f.funnel,
                round((by_stages / queries)::numeric, 4)),
            hint = format('Keep more rows in its stages, or ask for max_miss => %s.',
                ceil(1000 * (by_stages + 1) / (queries + 1)) / 1000);
    end if;
end
$body$;

-- p-value of "the risk is above `level`" for n losses from 0 to 1 with this mean (Hoeffding, Bentkus); the twin of
-- funnelvec.calibration.guarantees.hoeffding_bentkus.
create or replace function funnelvec._hoeffding_bentkus(mean double precision, level double precision, n integer)
returns double precision
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    low double precision := least(mean, level);
    divergence double precision := 0;
    failures integer := ceil(n * mean - 1e-9);
    term double precision := n * ln(1 - level);
    tail double precision := 0;
begin
    if low > 0 then
        divergence := divergence + low * ln(low / level);
    end if;
    if low < 1 then
        divergence := divergence + (1 - low) * ln((1 - low) / (1 - level));
    end if;
    if failures >= n then
        tail := 1;
    else
        for i in 0 .. failures loop
            -- An exponential below the range of double precision is an error in SQL.
            tail := tail + case when term > -700 then exp(term) else 0 end;
            term := term + ln((n - i) / (i + 1)::double precision) + ln(level / (1 - level));
        end loop;
    end if;
    return least(1, case when n * divergence < 700 then exp(-n * divergence) else 0 end, exp(1.0::double precision) * tail);
end
$body$;

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

-- Certify the cutoff of a funnel by judgments of whole queries. A cutoff by max_miss is on the raw score, so it makes no difference
-- whether the calibration was fitted to the same judgments. One by min_precision is a threshold on the relevance, and so is one by max_miss
-- where queries have maps of their own; a hub column changes the score itself. With the judgments that such a cutoff hangs on, the promise
-- is approximate, and said to be.
create or replace function funnelvec.certify(
    funnel text,
    judgments regclass,
    max_miss double precision default null,
    k integer default null,
    min_precision double precision default null,
    confidence double precision default 0.95,
    unjudged text default 'irrelevant'
)
returns table (
    kind text,
    level double precision,
    at_confidence double precision,
    top_k integer,
    cutoff double precision,
    relevance double precision,
    observed double precision,
    low double precision,
    high double precision,
    queries integer,
    without_relevant double precision,
    answered double precision,
    approximate boolean,
    stages text,
    calibration integer,
    judgments_sha256 text,
    certified_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
#variable_conflict use_column
declare
    f funnelvec.funnels := funnelvec._funnel($1);
    wanted integer := coalesce($4, least(100, (select min(p.keep) from funnelvec._parse_funnel(f.funnel) as p)));
    budget double precision := case when $5 is null then coalesce($3, 0.05) end;
    fitted funnelvec.calibrations := funnelvec._calibration_row(f);
    precise record;
    missing record;
    losses double precision[];
    by_query boolean := fitted.family = 'adapter';
begin
    perform funnelvec._check_owner(f.table_name);
    perform funnelvec._need_calibration(f);
    perform funnelvec._check_judgments(f, $2);
    perform funnelvec._check_certify(f, $3, $5, $6, wanted, $7);
    judgments_sha256 := (funnelvec._judged_scores(f, $2)).sha256;
    execute format('select count(distinct j.query::text) from %s as j', $2) into queries;
    perform funnelvec._check_queries(budget, $5, $6, queries);
    if $5 is null then
        missing := funnelvec._certify_miss(f, $2, budget, wanted, queries, case when by_query then 'relevance' else 'score' end);
        kind := 'max_miss';
        level := budget;
        approximate := judgments_sha256 = fitted.judgments_sha256 and (by_query or fitted.parameters ? 'hub');
        -- By an adapter one score is another relevance for each query, and the other way round.
        cutoff := case when not by_query then missing.cutoff end;
        relevance := case when by_query then funnelvec._just_below(missing.cutoff) else funnelvec.relevance($1, missing.cutoff) end;
        losses := missing.losses;
        without_relevant := missing.without_relevant;
    else
        precise := funnelvec._certify_precision(f, $2, $5, $6, wanted, $7);
        kind := 'min_precision';
        level := $5;
        at_confidence := $6;
        approximate := judgments_sha256 = fitted.judgments_sha256;
        cutoff := case when not by_query then funnelvec.cutoff($1, precise.relevance) end;
        relevance := precise.relevance;
        losses := precise.losses;
        without_relevant := precise.without_relevant;
        answered := precise.answered;
    end if;
    top_k := wanted;
    observed := (select avg(l) from unnest(losses) as l);
    select b.low, b.high into low, high from funnelvec._bootstrap(losses, 0) as b;
    stages := f.funnel;
    calibration := f.calibration;
    certified_at := clock_timestamp();
    f.certificate := coalesce(f.certificate, '{}') || jsonb_build_object(kind, jsonb_build_object(
        'level', level, 'confidence', certify.at_confidence, 'k', top_k, 'cutoff', certify.cutoff, 'relevance', certify.relevance,
        'observed', observed, 'low', low, 'high', high, 'queries', queries, 'without_relevant', without_relevant, 'answered', answered,
        'approximate', approximate, 'funnel', stages, 'calibration', certify.calibration, 'judgments_sha256', certify.judgments_sha256,
        'certified_at', to_char(certified_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')));
    update funnelvec.funnels as u
    set certificate = f.certificate
    where u.table_name = f.table_name and u.name = f.name;
    perform funnelvec._write_function(f);
    return next;
end
$body$;

-- A relevance that a row of relevance p still passes when a search turns it into a score: the way there and back rounds. By so little in
-- log-odds, that nothing else passes.
create or replace function funnelvec._just_below(p double precision)
returns double precision
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select greatest(0, p - 1e-9 * p * (1 - p) - 4.5e-16)
$body$;

-- What certify keeps and returns of a promise about what is missed. The cutoff is one on `measure`, as in _judged_answers.
create or replace function funnelvec._certify_miss(
    f funnelvec.funnels,
    judgments regclass,
    max_miss double precision,
    k integer,
    queries integer,
    measure text,
    out cutoff double precision,
    out losses double precision[],
    out without_relevant double precision
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    answer record;
    result record;
    relevant integer[] := '{}';
    scores double precision[] := '{}';
    query_of integer[] := '{}';
begin
    for answer in select a.* from funnelvec._judged_answers(f, judgments, k, measure) as a loop
        relevant := relevant || answer.relevant;
        scores := scores || answer.scores;
        query_of := query_of || array_fill(cardinality(relevant), array[cardinality(answer.scores)]);
    end loop;
    result := funnelvec._certified_cutoff(relevant, scores, query_of, max_miss);
    perform funnelvec._check_certified(f, result.by_stages, result.cutoff, max_miss, k, queries);
    cutoff := result.cutoff;
    losses := result.losses;
    without_relevant := (select avg((r = 0)::integer) from unnest(relevant) as r);
end
$body$;

-- A certificate as columns; nothing where somebody has written by hand what can't be read.
create or replace function funnelvec._certificate_row(
    certificate jsonb,
    out level double precision,
    out confidence double precision,
    out k integer,
    out cutoff double precision,
    out relevance double precision,
    out observed double precision,
    out low double precision,
    out high double precision,
    out queries integer,
    out without_relevant double precision,
    out answered double precision,
    out approximate boolean,
    out funnel text,
    out judgments_sha256 text,
    out certified_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    select r.* into level, confidence, k, cutoff, relevance, observed, low, high, queries, without_relevant, answered, approximate, funnel,
        judgments_sha256, certified_at
    from jsonb_to_record(case when jsonb_typeof(certificate) = 'object' then certificate else '{}' end) as r (
        level double precision, confidence double precision, k integer, cutoff double precision, relevance double precision,
        observed double precision, low double precision, high double precision, queries integer, without_relevant double precision,
        answered double precision, approximate boolean, funnel text, judgments_sha256 text, certified_at timestamptz);
exception when data_exception then
    level := null;
end
$body$;

-- Every certificate that the caller may see, with what has become of it.
create or replace function funnelvec.list_certificates(table_name regclass default null)
returns table (
    "table" regclass,
    funnel text,
    kind text,
    state text,
    level double precision,
    confidence double precision,
    top_k integer,
    cutoff double precision,
    relevance double precision,
    observed double precision,
    low double precision,
    high double precision,
    queries integer,
    without_relevant double precision,
    answered double precision,
    approximate boolean,
    stages text,
    judgments_sha256 text,
    certified_at timestamptz
)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select f.table_name, funnelvec._function_name(f), c.kind,
        case when funnelvec._certificate(f, c.kind) is not null then 'in force' else 'void: the funnel or its calibration has changed' end,
        r.level, r.confidence, r.k, r.cutoff, r.relevance, r.observed, r.low, r.high, r.queries, r.without_relevant, r.answered,
        r.approximate, r.funnel, r.judgments_sha256, r.certified_at
    from funnelvec.funnels as f
    cross join unnest(array['max_miss', 'min_precision']) as c (kind)
    cross join lateral funnelvec._certificate_row(f.certificate -> c.kind) as r
    where (list_certificates.table_name is null or f.table_name = list_certificates.table_name) and r.level is not null
        and exists (select from pg_class as t where t.oid = f.table_name)
    order by f.table_name::text, f.name, c.kind
$body$;

comment on function funnelvec.certify(text, regclass, double precision, integer, double precision, double precision, text)
    is 'certify a cutoff by judgments of whole queries: max_miss, the share of relevant rows that is lost (search with cutoff => ''certified''), or min_precision, the share of relevant rows among those shown (cutoff => ''precise'')';
comment on function funnelvec.list_certificates(regclass) is 'what was promised of each funnel, by what judgments, and whether it is in force';
