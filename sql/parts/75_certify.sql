-- Certifying a funnel, and what there is of certificates.

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
