-- Families of maps from score to relevance, as expressions: what is fitted (71_families, Python) becomes literals in the text of
-- searches. For one query relevance never falls as the score rises, whatever the numbers: they are checked here.
--   platt     {"slope", "offset"}                   sigmoid(slope * score + offset)
--   beta      {"slope", "offset", "a", "b", "c"}    a beta map (Kull et al., 2017) behind the line
--   isotonic  {"low", "high", "levels"}             steps, and a line from each to the next
--   adapter   {"depth", "features", ...}            a line per query, read off its shortlist, and with {"rows"} off the query; a beta map behind it
-- Each may have {"hub", "alpha"} too: the score is less so much of the hub column of that id (48_hub), before anything else.

-- Fits give nothing further out, where a product with a score could leave the range of double precision.
create or replace function funnelvec._is_number(value jsonb)
returns boolean
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
    select coalesce(case when jsonb_typeof(value) = 'number'
        then (value #>> '{}')::numeric = 0 or abs((value #>> '{}')::numeric) between 1e-100 and 1e100 end, false)
$body$;

create or replace function funnelvec._are_numbers(list jsonb, length integer)
returns boolean
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
    select coalesce(case when jsonb_typeof(list) = 'array' then jsonb_array_length(list) = length
        and (select bool_and(funnelvec._is_number(e.value)) is distinct from false from jsonb_array_elements(list) as e) end, false)
$body$;

-- Numbers of a list as an array.
create or replace function funnelvec._numbers(list jsonb)
returns double precision[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
    select coalesce(array_agg(e.value::double precision order by e.place), '{}')
    from jsonb_array_elements_text(list) with ordinality as e (value, place)
$body$;

-- Why these are no numbers of such a map; null where they are.
create or replace function funnelvec._map_fault(family text, parameters jsonb)
returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    needed text[] := case family
        when 'platt' then array['slope', 'offset']
        when 'beta' then array['slope', 'offset', 'a', 'b', 'c']
        when 'isotonic' then '{}'
        when 'adapter' then array['depth', 'score_mean', 'score_scale', 'floor', 'a', 'b', 'c'] end;
    steps integer := case when jsonb_typeof(parameters -> 'levels') = 'array' then jsonb_array_length(parameters -> 'levels') end;
    width integer := case when jsonb_typeof(parameters -> 'features') = 'array' then jsonb_array_length(parameters -> 'features') end;
    name text;
begin
    if (parameters ? 'alpha' or parameters ? 'hub') and not (
        funnelvec._is_number(parameters -> 'alpha') and (parameters ->> 'alpha')::numeric > 0 and jsonb_typeof(parameters -> 'hub') = 'string') is true
    then
        return format('the alpha %s', coalesce(left(parameters ->> 'alpha', 100), 'null'));
    end if;
    foreach name in array needed loop
        -- What divides is positive, and a beta map rises.
        if not funnelvec._is_number(parameters -> name)
            or name in ('slope', 'score_scale', 'floor') and (parameters ->> name)::numeric <= 0
            or name in ('a', 'b') and (parameters ->> name)::numeric < 0
        then
            return format('the %s %s', name, coalesce(left(parameters ->> name, 100), 'null'));
        end if;
    end loop;
    if family in ('beta', 'adapter') and (parameters ->> 'a')::numeric + (parameters ->> 'b')::numeric <= 0 then
        return 'a beta map that does not rise';
    elsif family = 'isotonic' and (
        steps is null or steps = 0 or not (funnelvec._are_numbers(parameters -> 'low', steps) and funnelvec._are_numbers(parameters -> 'high', steps)
            and funnelvec._are_numbers(parameters -> 'levels', steps)))
    then
        return 'steps without numbers';
    elsif family = 'isotonic' and exists (
        select
        from (
            select l.low, h.high, v.level, lag(h.high) over (order by l.i) as before, lag(v.level) over (order by l.i) as below
            from unnest(funnelvec._numbers(parameters -> 'low')) with ordinality as l (low, i)
            join unnest(funnelvec._numbers(parameters -> 'high')) with ordinality as h (high, i) on h.i = l.i
            join unnest(funnelvec._numbers(parameters -> 'levels')) with ordinality as v (level, i) on v.i = l.i
        ) as s
        where s.low > s.high or s.before >= s.low or s.below >= s.level or s.level <= 0 or s.level >= 1)
    then
        return 'steps that do not rise';
    elsif family = 'adapter' and (
        width is null or (parameters ->> 'depth')::numeric not between 20 and 200
        or (parameters ->> 'depth')::numeric <> trunc((parameters ->> 'depth')::numeric)
        or exists (select from jsonb_array_elements(parameters -> 'features') as e
            where e.value #>> '{}' is null or e.value #>> '{}' !~ '^(last|rank\d{1,3}|query_mean|query_sd|place\d)$')
        or not (funnelvec._are_numbers(parameters -> 'feature_means', width) and funnelvec._are_numbers(parameters -> 'feature_scales', width)
            and funnelvec._are_numbers(parameters -> 'offsets', width + 1) and funnelvec._are_numbers(parameters -> 'slopes', width + 1))
        or exists (select from unnest(funnelvec._numbers(parameters -> 'feature_scales')) as s where s <= 0))
    then
        return 'an adapter whose parts do not go together';
    elsif family = 'adapter' then
        return funnelvec._rows_fault(parameters);
    end if;
    return null;
end
$body$;

-- The same of the statistics of rows that features of the query are read off: RowStats in Python says what each is. Vectors are whole numbers in
-- pgvector's notation, so short that 32 bits hold all sums of their products exactly.
create or replace function funnelvec._rows_fault(parameters jsonb)
returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    rows jsonb := parameters -> 'rows';
    metric text := rows ->> 'metric';
    width integer := case when jsonb_typeof(rows -> 'directions') = 'array' then jsonb_array_length(rows -> 'directions') end;
    -- One more than the last direction that is read; 0 for the mean alone, null where nothing is read off the query.
    needed integer := (
        select max(case when e.name ~ '^place' then substring(e.name, 6)::integer + 1 when e.name = 'query_sd' then 1 else 0 end)
        from jsonb_array_elements_text(parameters -> 'features') as e (name)
        where e.name ~ '^(query|place)');
begin
    if rows is null then
        return case when needed is not null then 'an adapter that reads something of the query, and no statistics of rows' end;
    elsif (needed <= width and width <= 8 and rows ->> 'format' = '1' and metric in ('cosine', 'dot', 'euclidean')
            and funnelvec._are_numbers(jsonb_build_array(rows -> 'mean_length', rows -> 'square', rows -> 'spread', rows -> 'rest',
                rows -> 'middle_length', rows -> 'middle_square'), 6)
            and jsonb_typeof(rows -> 'mean') = 'string') is not true
        or exists (
            select from unnest(array['mean_length', 'square', 'spread', 'rest', 'middle_length', 'middle_square']) as n (name)
            where (rows ->> n.name)::numeric < 0)
        or exists (
            select
            from jsonb_array_elements((rows -> 'directions') || (rows -> 'mean') || case when metric = 'euclidean' then rows -> 'middle' else '[]' end) as e
            where jsonb_typeof(e.value) <> 'string' or e.value #>> '{}' !~ '^\[-?\d{1,4}(,-?\d{1,4})*\]$'
                or funnelvec._width(e.value #>> '{}') <> funnelvec._width(rows ->> 'mean'))
    then
        return 'statistics of rows that this version does not read';
    end if;
    return null;
end
$body$;

-- The number of dimensions of a vector in pgvector's notation.
create or replace function funnelvec._width(notation text)
returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
    select length(notation) - length(replace(notation, ',', '')) + 1
$body$;

-- Refuse a calibration that this version can't apply: whoever owns a table may write its rows of the registry by hand.
create or replace function funnelvec._check_calibration(table_name regclass, family text, parameters jsonb)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    fault text;
begin
    if family is null or family not in ('platt', 'beta', 'isotonic', 'adapter') then
        raise exception using
            errcode = 'FV004',
            message = format('the calibration of %s is of the unknown family %L', table_name, left(family, 100)),
            hint = 'This version knows platt, beta, isotonic and adapter. Calibrate again.';
    end if;
    fault := funnelvec._map_fault(family, parameters);
    if fault is not null then
        raise exception using
            errcode = 'FV004',
            message = format('the calibration of %s has %s', table_name, fault),
            hint = 'Calibrate again.';
    end if;
end
$body$;

-- Whether a funnel keeps as many rows before its last stage as a calibration looks at. What is corrected by a hub column is put into another
-- order, for which there has to be a shortlist.
create or replace function funnelvec._suits(funnel text, family text, parameters jsonb)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select (family <> 'adapter' or coalesce(
        case when jsonb_typeof(parameters -> 'depth') = 'number' then (parameters ->> 'depth')::numeric end
            <= (select min(p.keep) from funnelvec._parse_funnel(funnel) as p), false))
        and (not parameters ? 'hub' or funnel like '%>%')
$body$;

-- A double precision literal that reads back as the same number.
create or replace function funnelvec._literal(number double precision)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
    select format('''%s''::double precision', number)
$body$;

create or replace function funnelvec._literals(list jsonb)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
    select format('%L::double precision[]', funnelvec._numbers(list)::text)
$body$;

-- A number of a calibration as a literal.
create or replace function funnelvec._constant(calibration jsonb, name text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select funnelvec._literal((calibration ->> name)::double precision)
$body$;

-- A score less what the calibration takes off for a hub; `hub` is SQL for the row's hub, which may be null.
create or replace function funnelvec._corrected_sql(calibration jsonb, score text, hub text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select case when calibration ? 'hub' then format('%s - %s * coalesce(%s, 0)', score, funnelvec._constant(calibration, 'alpha'), hub) else score end
$body$;

-- The beta map from log-odds to log-odds: a * ln(p) - b * ln(1 - p) + c for the probability of z. Without a SET clause, so that it is
-- inlined where it is called for every row of an answer; z has to be within [-700, 700].
create or replace function funnelvec._beta(z double precision, a double precision, b double precision, c double precision)
returns double precision
language sql immutable parallel safe
return (
    (b operator(pg_catalog.*) greatest(z, 0)) operator(pg_catalog.-) (a operator(pg_catalog.*) greatest(operator(pg_catalog.-) z, 0))
) operator(pg_catalog.+) (
    ((b operator(pg_catalog.-) a) operator(pg_catalog.*) pg_catalog.ln(
        1::double precision operator(pg_catalog.+) pg_catalog.exp(operator(pg_catalog.-) pg_catalog.abs(z))))
    operator(pg_catalog.+) c
);

-- The log-odds that the map takes to `wanted`; infinite where it reaches none. With b > a the map is convex, else concave, and Newton's
-- method from the right side of the root never steps over it. The map of the asymptotes alone gives such a side. Without a SET clause: a search
-- with a least relevance calls this, and putting the setting back takes a sixth of its time.
create or replace function funnelvec._beta_inverse(wanted double precision, a double precision, b double precision, c double precision)
returns double precision
language plpgsql immutable parallel safe
as $body$
declare
    height double precision := wanted operator(pg_catalog.-) c;
    z double precision;
    step double precision;
    shrunk double precision;
begin
    if pg_catalog.abs(wanted) operator(pg_catalog.=) 'infinity'::pg_catalog.float8 then
        return wanted;
    elsif height operator(pg_catalog.<=) 0::pg_catalog.float8 and a operator(pg_catalog.=) 0::pg_catalog.float8 then
        return '-infinity';
    elsif height operator(pg_catalog.>=) 0::pg_catalog.float8 and b operator(pg_catalog.=) 0::pg_catalog.float8 then
        return 'infinity';
    end if;
    z := height operator(pg_catalog./) case when height operator(pg_catalog.>=) 0::pg_catalog.float8 then b else a end;
    -- With one coefficient 0 a step far from the root is about 1 long.
    for i in 1 .. 1000 loop
        shrunk := pg_catalog.exp(operator(pg_catalog.-) least(700::pg_catalog.float8, pg_catalog.abs(z)));
        step := (
            (b operator(pg_catalog.*) greatest(z, 0)) operator(pg_catalog.-) (a operator(pg_catalog.*) greatest(operator(pg_catalog.-) z, 0))
            operator(pg_catalog.+) ((b operator(pg_catalog.-) a) operator(pg_catalog.*) pg_catalog.ln(1::pg_catalog.float8 operator(pg_catalog.+) shrunk))
            operator(pg_catalog.-) height
        ) operator(pg_catalog./) (
            (case when z operator(pg_catalog.>=) 0::pg_catalog.float8 then b operator(pg_catalog.+) (a operator(pg_catalog.*) shrunk)
                else (b operator(pg_catalog.*) shrunk) operator(pg_catalog.+) a end)
            operator(pg_catalog./) (1::pg_catalog.float8 operator(pg_catalog.+) shrunk));
        z := z operator(pg_catalog.-) step;
        -- What is left after such a step is its square.
        exit when pg_catalog.abs(step) operator(pg_catalog.<=) (1e-9::pg_catalog.float8 operator(pg_catalog.*) greatest(1::pg_catalog.float8, pg_catalog.abs(z)));
    end loop;
    -- Lines are held to 700, so no score gets further.
    return case when z operator(pg_catalog.>) 700::pg_catalog.float8 then 'infinity'::pg_catalog.float8
        when z operator(pg_catalog.<) (-700)::pg_catalog.float8 then '-infinity'::pg_catalog.float8 else z end;
end
$body$;

-- Relevance by steps, and the least score of a relevance. Inlined like _beta.
create or replace function funnelvec._stepped(score double precision, low double precision[], high double precision[], levels double precision[])
returns double precision
language sql immutable parallel safe
return case
    when score operator(pg_catalog.<) low[1] then levels[1]
    when score operator(pg_catalog.<=) high[pg_catalog.width_bucket(score, low)]
        or score operator(pg_catalog.>=) low[pg_catalog.cardinality(low)]
        then levels[pg_catalog.width_bucket(score, low)]
    else levels[pg_catalog.width_bucket(score, low)] operator(pg_catalog.+) (
        (
            (levels[pg_catalog.width_bucket(score, low) operator(pg_catalog.+) 1] operator(pg_catalog.-) levels[pg_catalog.width_bucket(score, low)])
            operator(pg_catalog.*) (score operator(pg_catalog.-) high[pg_catalog.width_bucket(score, low)])
        ) operator(pg_catalog./) (
            low[pg_catalog.width_bucket(score, low) operator(pg_catalog.+) 1] operator(pg_catalog.-) high[pg_catalog.width_bucket(score, low)]))
end;

create or replace function funnelvec._stepped_cutoff(
    relevance double precision,
    low double precision[],
    high double precision[],
    levels double precision[]
)
returns double precision
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when relevance <= levels[1] then '-infinity'
        when relevance > levels[cardinality(levels)] then 'infinity'
        when relevance = levels[i] then low[i]
        else high[i] + (relevance - levels[i]) / (levels[i + 1] - levels[i]) * (low[i + 1] - high[i])
    end
    from width_bucket(relevance, levels) as i
$body$;

-- The line of a query, before what comes behind it. An adapter's is in q, the row of _line_sql.
create or replace function funnelvec._logit_sql(calibration jsonb, score text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when calibration ->> 'family' = 'adapter' then format('q.slope * (%s - %s) + q.base', score, funnelvec._constant(calibration, 'score_mean'))
        else format('%s * %s + %s', funnelvec._constant(calibration, 'slope'), score, funnelvec._constant(calibration, 'offset'))
    end
$body$;

create or replace function funnelvec._beta_arguments(calibration jsonb)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select format('%s, %s, %s', funnelvec._constant(calibration, 'a'), funnelvec._constant(calibration, 'b'), funnelvec._constant(calibration, 'c'))
$body$;

-- Relevance as an expression over a score. Beyond 700 the exponential would leave the range of double precision; the result is
-- 0 or 1 long before.
create or replace function funnelvec._relevance_sql(calibration jsonb, score text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when calibration is null then 'null::double precision'
        when calibration ->> 'family' = 'isotonic' then format('funnelvec._stepped(%s, %s, %s, %s)', score,
            funnelvec._literals(calibration -> 'low'), funnelvec._literals(calibration -> 'high'), funnelvec._literals(calibration -> 'levels'))
        when calibration ->> 'family' in ('beta', 'adapter') then format(
            '1 / (1 + exp(-greatest(-700, least(700, funnelvec._beta(greatest(-700, least(700, %s)), %s)))))',
            funnelvec._logit_sql(calibration, score), funnelvec._beta_arguments(calibration))
        else format('1 / (1 + exp(-greatest(-700, least(700, %s))))', funnelvec._logit_sql(calibration, score))
    end
$body$;

-- What the line of a query has to reach for the relevance p, as an expression over p.
create or replace function funnelvec._threshold_sql(calibration jsonb, p text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select format(case when calibration ->> 'family' in ('beta', 'adapter') then 'funnelvec._beta_inverse(%s, %s)' else '%s' end, format(
            'case when %1$s <= 0 then ''-infinity''::double precision when %1$s >= 1 then ''infinity''::double precision '
            'else ln(%1$s / (1 - %1$s)) end', p),
        case when calibration ->> 'family' in ('beta', 'adapter') then funnelvec._beta_arguments(calibration) end)
$body$;

-- The score from which on the relevance is at least p, as an expression over p; null for an adapter, whose queries differ.
create or replace function funnelvec._cutoff_sql(calibration jsonb, p text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when calibration is null or calibration ->> 'family' = 'adapter' then null
        when calibration ->> 'family' = 'isotonic' then format(
            'case when %1$s <= 0 then ''-infinity''::double precision when %1$s >= 1 then ''infinity''::double precision '
            'else funnelvec._stepped_cutoff(%1$s, %2$s, %3$s, %4$s) end', p,
            funnelvec._literals(calibration -> 'low'), funnelvec._literals(calibration -> 'high'), funnelvec._literals(calibration -> 'levels'))
        else format('(%s - %s) / %s', funnelvec._threshold_sql(calibration, p), funnelvec._constant(calibration, 'offset'),
            funnelvec._constant(calibration, 'slope'))
    end
$body$;
