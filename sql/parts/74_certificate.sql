-- Certificates: a cutoff on the score that loses at most a share of the relevant rows, on average over queries. Conformal risk control
-- (Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR 2024) over the whole funnel: what its stages lose counts like what the cutoff does.

-- The certificate of a funnel, if it is about this funnel and this calibration.
create or replace function funnelvec._certificate(f funnelvec.funnels)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select f.certificate
    where f.certificate ->> 'funnel' = f.funnel and f.certificate ->> 'calibration' = f.calibration::text
        and f.certificate ->> 'k' ~ '^[1-9]\d{0,8}$'
        and case when jsonb_typeof(f.certificate -> 'cutoff') = 'number'
            then (f.certificate ->> 'cutoff')::numeric between -1e300 and 1e300 else false end
$body$;

-- What the function of a funnel does with its argument `cutoff`. The promise is about that many rows of the whole table, so it is
-- given for nothing less.
create or replace function funnelvec._body_certified(f funnelvec.funnels)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
declare
    certificate jsonb := funnelvec._certificate(f);
begin
    return format($text$    if cutoff is not null then
        if cutoff <> 'certified' or min_relevance is not null then
            raise exception using
                errcode = 'FV004',
                message = case when cutoff <> 'certified' then format('cutoff is %%L', left(cutoff, 100))
                    else 'cutoff and min_relevance are given' end,
                hint = 'Give one of them: cutoff => ''certified'', or min_relevance => 0.7.';
        end if;
%1$s    end if;
$text$,
        case when certificate is null then format($text$        raise exception using
            errcode = 'FV006',
            message = %1$L,
            hint = %2$L;
$text$,
            case when f.certificate is null then format('funnel %s has no certificate', f.name)
                else format('the certificate of %s is void: it is about the funnel %s with another calibration or other stages',
                    f.name, f.certificate ->> 'funnel') end,
            format('Certify it: select * from funnelvec.certify(%L, judgments), with a table (query, key, relevant).',
                funnelvec._function_name(f)))
        else format($text$        if k < %1$s or filter is not null then
            raise exception using
                errcode = 'FV004',
                message = case when k < %1$s then format('k is %%s, and the certificate is about %1$s rows', k)
                    else 'the certificate is about searches without a filter' end,
                hint = %2$L;
        end if;
        _fv_cutoff := %3$s;
$text$,
            (certificate ->> 'k')::integer,
            format('Ask for k => %s without a filter, certify with another k, or use min_relevance, which promises nothing.',
                (certificate ->> 'k')::integer),
            funnelvec._literal((certificate ->> 'cutoff')::double precision)) end);
end
$body$;

-- Per judged query: its relevant rows among the exact top k, and the scores of those that the funnel finds.
create or replace function funnelvec._judged_answers(
    f funnelvec.funnels,
    judgments regclass,
    k integer,
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
        'select array(select t.score from %1$s($1::%2$s, $2, null::double precision, null::jsonb, null::jsonb, null::text) as t '
        'where %3$s = any ($3))', funnelvec._function_name(f), base.type, key.identity);
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
create or replace function funnelvec._check_certify(f funnelvec.funnels, max_miss double precision, k integer, queries integer)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    most integer := (select min(p.keep) from funnelvec._parse_funnel(f.funnel) as p);
    needed integer;
begin
    if max_miss is null or not (max_miss > 0 and max_miss < 1) then
        raise exception using
            errcode = 'FV004',
            message = format('max_miss is %s', coalesce(max_miss::text, 'null')),
            hint = 'Give the share of relevant rows that may be lost, such as 0.05.';
    elsif k is null or k < 1 or k > most then
        raise exception using
            errcode = 'FV004',
            message = format('k is %s', coalesce(k::text, 'null')),
            hint = coalesce(format('Certify 1 to %s rows: that is what reaches the last stage of %s.', most, f.funnel), 'Certify at least one row.');
    end if;
    needed := least(ceil(1 / max_miss - 1 - 1e-9), 2147483647)::integer;
    if queries < needed then
        raise exception using
            errcode = 'FV007',
            message = format('max_miss %s needs at least %s judged queries, and there are %s', max_miss, needed, queries),
            hint = format('Judge %s more queries, or ask for max_miss => %s.', needed - queries, ceil(1000.0 / (queries + 1)) / 1000);
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

-- Certify the cutoff of a funnel by judgments of whole queries; rows that nobody judged count as not relevant. The cutoff is on the raw
-- score, so it makes no difference whether the calibration was fitted to the same judgments.
create or replace function funnelvec.certify(
    funnel text,
    judgments regclass,
    max_miss double precision default 0.05,
    k integer default null
)
returns table (
    level double precision,
    top_k integer,
    cutoff double precision,
    relevance double precision,
    missed double precision,
    low double precision,
    high double precision,
    queries integer,
    without_relevant double precision,
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
    judged record;
    answer record;
    result record;
    relevant integer[] := '{}';
    scores double precision[] := '{}';
    query_of integer[] := '{}';
begin
    perform funnelvec._check_owner(f.table_name);
    perform funnelvec._need_calibration(f);
    perform funnelvec._check_judgments(f, $2);
    judged := funnelvec._judged_scores(f, $2);
    execute format('select count(distinct j.query::text) from %s as j', $2) into queries;
    perform funnelvec._check_certify(f, $3, wanted, queries);
    for answer in select a.* from funnelvec._judged_answers(f, $2, wanted) as a loop
        relevant := relevant || answer.relevant;
        scores := scores || answer.scores;
        query_of := query_of || array_fill(cardinality(relevant), array[cardinality(answer.scores)]);
    end loop;
    result := funnelvec._certified_cutoff(relevant, scores, query_of, $3);
    perform funnelvec._check_certified(f, result.by_stages, result.cutoff, $3, wanted, queries);
    level := $3;
    top_k := wanted;
    cutoff := result.cutoff;
    -- By an adapter one score is another relevance for each query.
    relevance := case when funnelvec._calibration(f) ->> 'family' <> 'adapter' then funnelvec.relevance($1, result.cutoff) end;
    missed := (select avg(l) from unnest(result.losses) as l);
    select b.low, b.high into low, high from funnelvec._bootstrap(result.losses, 0) as b;
    without_relevant := (select avg((r = 0)::integer) from unnest(relevant) as r);
    stages := f.funnel;
    calibration := f.calibration;
    judgments_sha256 := judged.sha256;
    certified_at := clock_timestamp();
    f.certificate := jsonb_build_object(
        'level', level, 'k', top_k, 'cutoff', certify.cutoff, 'relevance', certify.relevance, 'missed', missed, 'low', low, 'high', high,
        'queries', queries, 'without_relevant', without_relevant, 'funnel', stages, 'calibration', certify.calibration,
        'judgments_sha256', certify.judgments_sha256,
        'certified_at', to_char(certified_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'));
    update funnelvec.funnels as u
    set certificate = f.certificate
    where u.table_name = f.table_name and u.name = f.name;
    perform funnelvec._write_function(f);
    return next;
end
$body$;

comment on function funnelvec.certify(text, regclass, double precision, integer)
    is 'certify a cutoff that loses at most max_miss of the relevant rows among the exact top k, on average over queries; then search with cutoff => ''certified''';
