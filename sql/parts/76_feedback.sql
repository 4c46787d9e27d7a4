-- Feedback, one answer at a time: online Platt scaling with tracking (Gupta and Ramdas, "Online Platt Scaling with Calibeating", ICML 2023).
-- A Newton step on a line over the log-odds of the calibrated relevance, and running means in ten bins of what comes out of it. The twin
-- of funnelvec.calibration.online.OnlinePlatt, number for number. The state stands with the funnel, as
--   {"calibration": 3, "slope": 1, "offset": 0, "h": [h11, h12, h22], "means": [...], "counts": [...], "seen": 0}
-- and begins anew with another calibration. Searches don't read it; adopt_feedback makes a calibration of it.

-- The start leaves relevances as they are.
create or replace function funnelvec._online_start(version integer)
returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
    select jsonb_build_object(
        'calibration', version, 'slope', 1, 'offset', 0,
        'h', jsonb_build_array(1 / (0.1::double precision * 0.1), 0, 1 / (0.1::double precision * 0.1)),
        'means', (select jsonb_agg((i + 0.5::double precision) / 10 order by i) from generate_series(0, 9) as i),
        'counts', (select jsonb_agg(1) from generate_series(0, 9)),
        'seen', 0)
$body$;

-- The state of a funnel, if it is one and is about the calibration in force; else the start.
create or replace function funnelvec._online_state(f funnelvec.funnels)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    number numeric;
begin
    if f.feedback ->> 'calibration' = f.calibration::text
        and jsonb_array_length(f.feedback -> 'h') = 3 and jsonb_array_length(f.feedback -> 'means') = 10
        and jsonb_array_length(f.feedback -> 'counts') = 10 and (f.feedback ->> 'seen')::bigint >= 0
        and (f.feedback #>> '{h,0}')::double precision * (f.feedback #>> '{h,2}')::double precision
            > (f.feedback #>> '{h,1}')::double precision ^ 2
        and not exists (select from jsonb_array_elements_text(f.feedback -> 'counts') as c (n) where c.n::bigint < 1)
        and not exists (select from jsonb_array_elements_text(f.feedback -> 'means') as m (n) where m.n::double precision not between 0 and 1)
    then
        foreach number in array array[(f.feedback ->> 'slope')::numeric, (f.feedback ->> 'offset')::numeric] loop
            if number is null or abs(number) > 101 then
                return funnelvec._online_start(f.calibration);
            end if;
        end loop;
        return f.feedback;
    end if;
    return funnelvec._online_start(f.calibration);
exception when data_exception then
    return funnelvec._online_start(f.calibration);
end
$body$;

create or replace function funnelvec._sigmoid(z double precision)
returns double precision
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select case when z >= 0 then 1 / (1 + exp(-least(z, 700))) else exp(greatest(z, -700)) / (1 + exp(greatest(z, -700))) end
$body$;

-- What a state makes of a relevance: by the line alone, and with tracking.
create or replace function funnelvec._online_relevance(state jsonb, base double precision, out x double precision, out platt double precision,
    out bin integer, out tracked double precision)
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select l.x, p.p, b.bin, (state -> 'means' ->> b.bin)::double precision
    from (select greatest(1e-5::double precision, least(1 - 1e-5::double precision, base))) as h (held)
    cross join lateral (select ln(h.held / (1 - h.held))) as l (x)
    cross join lateral (
        select funnelvec._sigmoid((state ->> 'slope')::double precision * l.x + (state ->> 'offset')::double precision)) as p (p)
    cross join lateral (select least(floor(p.p * 10)::integer, 9)) as b (bin)
$body$;

-- The state after one label.
create or replace function funnelvec._online_step(state jsonb, base double precision, relevant boolean)
returns jsonb
language plpgsql immutable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
declare
    said record := funnelvec._online_relevance(state, base);
    y double precision := case when relevant then 1 else 0 end;
    g1 double precision := (said.platt - y) * said.x;
    g2 double precision := said.platt - y;
    h11 double precision := (state #>> '{h,0}')::double precision + g1 * g1;
    h12 double precision := (state #>> '{h,1}')::double precision + g1 * g2;
    h22 double precision := (state #>> '{h,2}')::double precision + g2 * g2;
    determinant double precision := h11 * h22 - h12 * h12;
    line record;
    count bigint := (state -> 'counts' ->> said.bin)::bigint;
begin
    line := funnelvec._online_projected(
        (state ->> 'slope')::double precision - (h22 * g1 - h12 * g2) / determinant / 0.1::double precision,
        (state ->> 'offset')::double precision - (h11 * g2 - h12 * g1) / determinant / 0.1::double precision,
        h11, h12, h22);
    return state || jsonb_build_object(
        'slope', line.slope, 'offset', line."offset", 'h', jsonb_build_array(h11, h12, h22), 'seen', (state ->> 'seen')::bigint + 1,
        'means', jsonb_set(state -> 'means', array[said.bin::text], to_jsonb((count * said.tracked + y) / (count + 1))),
        'counts', jsonb_set(state -> 'counts', array[said.bin::text], to_jsonb(count + 1)));
end
$body$;

-- The length of the solution of [[a, b], [b, c]] * x = (r1, r2).
create or replace function funnelvec._online_size(
    r1 double precision,
    r2 double precision,
    a double precision,
    b double precision,
    c double precision
)
returns double precision
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select sqrt(((c * r1 - b * r2) ^ 2 + (a * r2 - b * r1) ^ 2) / (a * c - b * b) ^ 2)
$body$;

-- The nearest point of the ball of radius 100, near in the norm of H: (H + m I)^-1 H theta for the multiplier m that puts it on the ball.
create or replace function funnelvec._online_projected(
    inout slope double precision,
    inout "offset" double precision,
    h11 double precision,
    h12 double precision,
    h22 double precision
)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    r1 double precision := h11 * slope + h12 * "offset";
    r2 double precision := h12 * slope + h22 * "offset";
    low double precision := 0;
    high double precision := 1;
    middle double precision;
begin
    if sqrt(slope * slope + "offset" * "offset") <= 100 then
        return;
    end if;
    -- First a multiplier that is large enough, then the halving.
    loop
        exit when funnelvec._online_size(r1, r2, h11 + high, h12, h22 + high) <= 100;
        high := high * 2;
    end loop;
    for round in 1 .. 200 loop
        middle := (low + high) / 2;
        if funnelvec._online_size(r1, r2, h11 + middle, h12, h22 + middle) > 100 then
            low := middle;
        else
            high := middle;
        end if;
    end loop;
    slope := ((h22 + high) * r1 - h12 * r2) / ((h11 + high) * (h22 + high) - h12 * h12);
    "offset" := ((h11 + high) * r2 - h12 * r1) / ((h11 + high) * (h22 + high) - h12 * h12);
end
$body$;

-- The score of one row for a query at the last stage, by its key as a list of values; null where the table has no such row.
create or replace function funnelvec._score_of(f funnelvec.funnels, query vector, key jsonb)
returns double precision
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    base record := funnelvec._base(f.table_name, f.column_name);
    last record;
    calibration jsonb := funnelvec._calibration(f);
    score double precision;
    width integer := (select count(*) from funnelvec._key(f.table_name));
begin
    if jsonb_typeof(key) is distinct from 'array' or jsonb_array_length(key) <> width
        or jsonb_path_exists(key, 'strict $[*] ? (@ == null || @.type() == "object" || @.type() == "array")')
    then
        raise exception using
            errcode = 'FV004',
            message = format('key is %s', coalesce(left(key::text, 100), 'null')),
            hint = format('It is a list with a value for each of the %s columns of the key: [17].', width);
    end if;
    perform funnelvec._check_query(f, query, 1);
    select s.* into last from funnelvec._stages(f) as s where s.keep is null;
    execute format('select %s from %s as t where %s',
        funnelvec._corrected_sql(calibration, funnelvec._similarity(last.dims, last.code, last.metric, format('%s %s %s',
            case last.storage when 'side' then format('(%s)',
                (funnelvec._code_of(f.table_name, f.column_name, last.resolution, format('t.%I', f.column_name), f.metric)).expression)
                else format('t.%I', last.code_column) end,
            last.operator, replace(last.encoded, '{query}', '$1::' || base.type))),
            case when calibration ? 'hub' then format('t.%I', (funnelvec._hub(f.table_name, f.column_name)).hub_column) end),
        f.table_name,
        (select string_agg(format('t.%I = ($2 ->> %s)::%s', k.name, k.ordinal - 1, c.type), ' and ' order by k.ordinal)
         from funnelvec._key(f.table_name) as k join funnelvec._after_columns(f) as c using (ordinal)))
    into score using query, key;
    return case when score < 'NaN' then score end;
exception when data_exception then
    raise exception using
        errcode = 'FV004',
        message = format('key holds a value that does not fit: %s', sqlerrm),
        hint = 'Pass the key of the row that was judged.';
end
$body$;

create or replace function funnelvec._feedback_row(state jsonb, out slope double precision, out "offset" double precision, out seen bigint,
    out means double precision[], out counts bigint[], out h double precision[])
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select (state ->> 'slope')::double precision, (state ->> 'offset')::double precision, (state ->> 'seen')::bigint,
        array(select m::double precision from jsonb_array_elements_text(state -> 'means') with ordinality as u (m, o) order by o),
        array(select c::bigint from jsonb_array_elements_text(state -> 'counts') with ordinality as u (c, o) order by o),
        array(select x::double precision from jsonb_array_elements_text(state -> 'h') with ordinality as u (x, o) order by o)
$body$;

-- Take in what somebody said of one row: one update. The row is named by the score that it came with, or by the query and its key.
create or replace function funnelvec.feedback(
    funnel text,
    relevant boolean,
    score double precision default null,
    query vector default null,
    key jsonb default null
)
returns table (
    slope double precision,
    "offset" double precision,
    seen bigint,
    means double precision[],
    counts bigint[],
    h double precision[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
#variable_conflict use_column
declare
    f funnelvec.funnels := funnelvec._funnel($1);
    found_score double precision := $3;
    base double precision;
    state jsonb;
begin
    perform funnelvec._check_owner(f.table_name);
    perform funnelvec._need_calibration(f);
    if $2 is null then
        raise exception using errcode = 'FV004', message = 'relevant is null', hint = 'Say true or false; no opinion is no feedback.';
    elsif ($3 is null) = ($5 is null) or $5 is not null and $4 is null then
        raise exception using
            errcode = 'FV004',
            message = 'which row was it? score, or key and query, is needed, and not both',
            hint = 'funnelvec.feedback(funnel, true, score => 0.71), or (funnel, true, query => $1, key => ''[17]'').';
    end if;
    if $5 is not null then
        found_score := funnelvec._score_of(f, $4, $5);
    end if;
    base := funnelvec.relevance($1, found_score, $4);
    if base is null then
        raise exception using
            errcode = 'FV004',
            message = case when $5 is null then format('score is %s', $3)
                else format('%s has no row with the key %s and a vector', f.table_name, left($5::text, 100)) end,
            hint = 'Pass the score or the key of a row that the search returned.';
    end if;
    -- The row that is updated may be newer than the one that was read.
    update funnelvec.funnels as u
    set feedback = funnelvec._online_step(funnelvec._online_state(u), base, $2)
    where u.table_name = f.table_name and u.name = f.name
    returning u.feedback into state;
    return query select r.* from funnelvec._feedback_row(state) as r;
end
$body$;

-- What feedback makes of a score: by the line alone, and with tracking, which follows whatever comes but may fall where scores rise.
create or replace function funnelvec.followed_relevance(
    funnel text,
    score double precision,
    query vector default null,
    out relevance double precision,
    out platt double precision,
    out tracked double precision
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    relevance := funnelvec.relevance($1, $2, $3);
    if relevance is not null then
        select o.platt, o.tracked into platt, tracked
        from funnelvec._online_relevance(funnelvec._online_state(funnelvec._funnel($1)), relevance) as o;
    end if;
end
$body$;

-- The state of a funnel.
create or replace function funnelvec.feedback_state(funnel text)
returns table (
    slope double precision,
    "offset" double precision,
    seen bigint,
    means double precision[],
    counts bigint[],
    h double precision[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel($1);
begin
    perform funnelvec._need_calibration(f);
    return query select r.* from funnelvec._feedback_row(funnelvec._online_state(f)) as r;
end
$body$;

-- Make the line of the feedback part of the calibration: a new version, which searches use. A line over the log-odds of a Platt curve is
-- a Platt curve again.
create or replace function funnelvec.adopt_feedback(funnel text)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel($1);
    fitted funnelvec.calibrations := funnelvec._calibration_row(f);
    line record;
begin
    perform funnelvec._check_owner(f.table_name);
    perform funnelvec._need_calibration(f);
    line := funnelvec._feedback_row(funnelvec._online_state(f));
    if fitted.family <> 'platt' then
        raise exception using
            errcode = 'FV004',
            message = format('the calibration of %s is of the family %s; feedback can be adopted by platt', f.name, fitted.family),
            hint = 'Calibrate again, with what was said as judgments.';
    elsif line.seen < 20 then
        raise exception using
            errcode = 'FV007',
            message = format('%s has had feedback %s times since it was calibrated, and 20 are needed', f.name, line.seen),
            hint = 'select funnelvec.feedback(...) takes it in.';
    elsif not line.slope > 0 then
        raise exception using
            errcode = 'FV007',
            message = format('by the feedback a higher score does not mean more relevant: its slope is %s', line.slope),
            hint = 'Calibrate again: select funnelvec.calibrate(...).';
    end if;
    f.calibration := funnelvec._keep_calibration(
        f, 'platt',
        fitted.parameters || jsonb_build_object(
            'slope', line.slope * (fitted.parameters ->> 'slope')::double precision,
            'offset', line.slope * (fitted.parameters ->> 'offset')::double precision + line."offset"),
        fitted.judgments_sha256, fitted.queries, fitted.pairs, fitted.relevant);
    -- Its queries are those that were judged.
    perform funnelvec._set_reference(f, fitted.reference);
    return f.calibration;
end
$body$;

comment on function funnelvec.feedback(text, boolean, double precision, vector, jsonb)
    is 'take in what somebody said of one row, named by its score or by query and key: one online step of a line over the relevances';
comment on function funnelvec.followed_relevance(text, double precision, vector)
    is 'the relevance of a score, and what feedback has made of it since the calibration';
comment on function funnelvec.feedback_state(text) is 'what feedback has come to since the calibration: the line, how often, and the means of its bins';
comment on function funnelvec.adopt_feedback(text) is 'make what feedback has come to the next version of the calibration, which searches use';
