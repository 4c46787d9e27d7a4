-- What judgments can promise of what is missed, by conformal risk control, and how many of them any promise takes.

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
