-- Fits of the families that SQL fits itself, and what Python needs to fit the others: 59_maps has what they mean.

create or replace function funnelvec._check_family(family text)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
begin
    if family is null or family not in ('platt', 'beta', 'isotonic') then
        raise exception using
            errcode = 'FV004',
            message = format('family is %s; SQL fits platt, beta and isotonic', coalesce(quote_literal(left(family, 100)), 'null')),
            hint = case when family in ('adapter', 'auto')
                then format('Python fits it, and SQL applies it: docs.calibrate(judgments, family="%s").', family)
                else 'family => ''platt'' is one curve for all queries.' end;
    end if;
end
$body$;

-- Fit a family to judged scores; the numbers as 59_maps has them.
create or replace function funnelvec._fit_family(family text, scores double precision[], labels boolean[])
returns jsonb
language plpgsql immutable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
declare
    line record;
    steps record;
begin
    if family = 'isotonic' then
        steps := funnelvec._fit_isotonic(scores, labels);
        if cardinality(steps.levels) < 2 then
            raise exception using
                errcode = 'FV007',
                message = 'by these judgments a higher score does not mean more relevant',
                hint = 'Check that relevant is true for relevant rows, and that the queries come from the same model as the column.';
        end if;
        return to_jsonb(steps);
    end if;
    line := funnelvec._fit_platt(scores, labels);
    if not line.slope > 0 then
        raise exception using
            errcode = 'FV007',
            message = format('the fitted slope is %s: by these judgments a higher score does not mean more relevant', line.slope),
            hint = 'Check that relevant is true for relevant rows, and that the queries come from the same model as the column.';
    end if;
    return to_jsonb(line) || case when family = 'beta'
        then to_jsonb(funnelvec._fit_beta(array(select line.slope * s + line."offset" from unnest(scores) as s), labels)) else '{}' end;
end
$body$;

-- Pooled adjacent violators: scores in order, each distinct one a block, pooled with the block before while that has no smaller share of
-- relevant rows. Shares are compared as whole numbers, so that two ways to the same share are the same.
create or replace function funnelvec._fit_isotonic(
    scores double precision[],
    labels boolean[],
    out low double precision[],
    out high double precision[],
    out levels double precision[]
)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    positives bigint := (select count(*) from unnest(labels) as l where l);
    most double precision := (positives + 1) / (positives + 2)::double precision;
    least_one double precision := 1 / (cardinality(labels) - positives + 2)::double precision;
    pairs bigint[] := '{}';
    hits bigint[] := '{}';
    n integer := 0;
    s record;
begin
    low := '{}';
    high := '{}';
    for s in
        select u.score, count(*) as pairs, count(*) filter (where u.label) as hits
        from unnest(scores, labels) as u (score, label)
        group by u.score
        order by u.score
    loop
        n := n + 1;
        low[n] := s.score;
        high[n] := s.score;
        pairs[n] := s.pairs;
        hits[n] := s.hits;
        while n > 1 and hits[n - 1] * pairs[n] >= hits[n] * pairs[n - 1] loop
            n := n - 1;
            high[n] := s.score;
            pairs[n] := pairs[n] + pairs[n + 1];
            hits[n] := hits[n] + hits[n + 1];
        end loop;
    end loop;
    low := low[:n];
    high := high[:n];
    levels := array(
        select least_one + (most - least_one) * (h / p::double precision)
        from unnest(hits[:n], pairs[:n]) with ordinality as u (h, p, i)
        order by u.i);
end
$body$;

-- The beta map behind a fitted line, by Newton's method against Platt's smoothed targets. A coefficient that comes out negative is left
-- out: the loss is convex, so the least loss without a negative one is found there.
create or replace function funnelvec._fit_beta(
    logits double precision[],
    labels boolean[],
    out a double precision,
    out b double precision,
    out c double precision
)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    fitted double precision[];
begin
    fitted := funnelvec._fit_beta_with(logits, labels, true, true);
    if fitted[1] < 0 and fitted[2] >= 0 then
        fitted := funnelvec._fit_beta_with(logits, labels, false, true);
    elsif fitted[2] < 0 and fitted[1] >= 0 then
        fitted := funnelvec._fit_beta_with(logits, labels, true, false);
    end if;
    if least(fitted[1], fitted[2]) < 0 or fitted[1] + fitted[2] <= 0 then
        raise exception using
            errcode = 'FV007',
            message = 'by these judgments a higher score does not mean more relevant',
            hint = 'Check that relevant is true for relevant rows, and that the queries come from the same model as the column.';
    end if;
    a := fitted[1];
    b := fitted[2];
    c := fitted[3];
end
$body$;

-- Log-odds as a * x + b * y + c, by Newton's method against Platt's smoothed targets. Ridge of 1e-6, so that columns that nearly agree have
-- an answer. A coefficient that is left out has a curvature of its own and no slope, which keeps it at 0.
create or replace function funnelvec._fit_two(xs double precision[], ys double precision[], labels boolean[], with_x boolean, with_y boolean)
returns double precision[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    ridge constant double precision := 1e-6;
    positives double precision := (select count(*) from unnest(labels) as l where l);
    high double precision := (positives + 1) / (positives + 2);
    low double precision := 1 / (cardinality(labels) - positives + 2);
    targets double precision[] := array(select case when l then high else low end from unnest(labels) with ordinality as u (l, i) order by i);
    theta double precision[] := '{0,0,0}';
    next_theta double precision[];
    loss double precision := 'infinity';
    new_loss double precision;
    step double precision[];
    g record;
begin
    for i in 1 .. 100 loop
        select
            sum((p.p - u.t) * u.x) + ridge * theta[1] as gx, sum((p.p - u.t) * u.y) + ridge * theta[2] as gy,
            sum(p.p - u.t) + ridge * theta[3] as gc,
            sum(w.w * u.x * u.x) + ridge + case when with_x then 0 else 1 end as xx, sum(w.w * u.x * u.y) as xy, sum(w.w * u.x) as xc,
            sum(w.w * u.y * u.y) + ridge + case when with_y then 0 else 1 end as yy, sum(w.w * u.y) as yc, sum(w.w) + ridge as cc
        into g
        from unnest(xs, ys, targets) as u (x, y, t)
        cross join lateral (
            select 1 / (1 + exp(-greatest(-700, least(700, theta[1] * u.x + theta[2] * u.y + theta[3]))))
        ) as p (p)
        cross join lateral (select p.p * (1 - p.p)) as w (w);
        step := funnelvec._solve_three(g.xx, g.xy, g.xc, g.yy, g.yc, g.cc, g.gx, g.gy, g.gc);
        for halving in 1 .. 30 loop
            next_theta := array[theta[1] - step[1], theta[2] - step[2], theta[3] - step[3]];
            select sum(greatest(z.z, 0) - z.z * u.t + ln(1 + exp(-least(700, abs(z.z)))))
                + ridge / 2 * (next_theta[1] ^ 2 + next_theta[2] ^ 2 + next_theta[3] ^ 2)
            into new_loss
            from unnest(xs, ys, targets) as u (x, y, t)
            cross join lateral (select next_theta[1] * u.x + next_theta[2] * u.y + next_theta[3]) as z (z);
            -- Near the optimum the loss falls by less than its own rounding, and the full step is still the right one.
            exit when new_loss <= loss * (1 + 1e-12);
            step := array[step[1] / 2, step[2] / 2, step[3] / 2];
        end loop;
        theta := next_theta;
        loss := new_loss;
        exit when greatest(abs(step[1]), abs(step[2]), abs(step[3])) < 1e-9;
    end loop;
    return theta;
end
$body$;

create or replace function funnelvec._fit_beta_with(logits double precision[], labels boolean[], with_a boolean, with_b boolean)
returns double precision[]
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    -- ln p and -ln(1 - p) of every pair.
    select funnelvec._fit_two(
        array_agg(case when with_a then least(u.z, 0) - ln(1 + exp(-least(700, abs(u.z)))) else 0 end order by u.i),
        array_agg(case when with_b then greatest(u.z, 0) + ln(1 + exp(-least(700, abs(u.z)))) else 0 end order by u.i),
        labels, with_a, with_b)
    from unnest(logits) with ordinality as u (z, i)
$body$;

-- Three equations with a symmetric positive matrix, by Cholesky's decomposition.
create or replace function funnelvec._solve_three(
    xx double precision, xy double precision, xc double precision, yy double precision, yc double precision, cc double precision,
    gx double precision, gy double precision, gc double precision
)
returns double precision[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
    a double precision := sqrt(xx);
    b double precision := xy / a;
    c double precision := xc / a;
    d double precision := sqrt(greatest(yy - b * b, 1e-300));
    e double precision := (yc - b * c) / d;
    f double precision := sqrt(greatest(cc - c * c - e * e, 1e-300));
    u double precision := gx / a;
    v double precision := (gy - b * u) / d;
    w double precision := (gc - c * u - e * v) / f;
    z double precision := w / f;
    y double precision := (v - e * z) / d;
begin
    return array[(u - b * y - c * z) / a, y, z];
end
$body$;

-- What Python fits an adapter to: per judged query its pairs, the query, the keys of its relevant rows, and the `depth` best scores of its shortlist. Judged rows without a score
-- are left out, as in _judged_scores, and so are queries that have none. Scores are raw; where the column has a hub, each comes with the hub of
-- its row, and of the shortlist there is all that the funnel keeps: a correction may bring any of it to the front.
create or replace function funnelvec._judged_lists(
    funnel text,
    judgments regclass,
    depth integer,
    out scores double precision[],
    out labels boolean[],
    out list double precision[],
    out hubs double precision[],
    out list_hubs double precision[],
    out query text,
    out wanted text[]
)
returns setof record
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel(funnel);
    logging text := current_setting('funnelvec.logging', true);
    hub text := case when f.funnel like '%>%' then (funnelvec._hub(f.table_name, f.column_name)).hub_column end;
    search_statement text := format('select array_agg(t.score), null::double precision[] from %s($1::%s, $2) as t',
        funnelvec._function_name(f), (funnelvec._base(f.table_name, f.column_name)).type);
    q record;
begin
    perform funnelvec._check_owner(f.table_name);
    perform funnelvec._check_judgments(f, judgments);
    if hub is not null then
        -- What the search has taken off is put back.
        search_statement := format(
            'select array_agg(r.score + %s * r.hub), array_agg(r.hub) from (select s.score, coalesce(t.%I, 0)::double precision as hub '
            'from %s($1::%s, $2) as s join %s as t on %s) as r',
            coalesce(funnelvec._constant(funnelvec._calibration(f), 'alpha'), '0'), hub, funnelvec._function_name(f),
            (funnelvec._base(f.table_name, f.column_name)).type, f.table_name, (
                select string_agg(format('t.%1$I %2$s s.%1$I', k.name, funnelvec._key_operator(a.atttypid, 3)), ' and ' order by k.ordinal)
                from funnelvec._key(f.table_name) as k
                join pg_attribute as a on a.attrelid = f.table_name and a.attname = k.name));
        depth := case when depth > 0 then (select min(p.keep) from funnelvec._parse_funnel(f.funnel) as p) else depth end;
    end if;
    perform set_config('funnelvec.logging', 'off', true);
    for q in execute format(
        'select min(s.query::text) as query, array_agg(s.score order by s.sha256) as scores, array_agg(s.relevant order by s.sha256) as labels, '
        'array_agg(s.hub order by s.sha256) as hubs, array_agg(s.key order by s.sha256) filter (where s.relevant) as wanted '
        'from (%s) as s where s.score < ''NaN'' group by s.query_sha256 order by s.query_sha256', funnelvec._judged_sql(f, judgments))
    loop
        scores := q.scores;
        labels := q.labels;
        query := q.query;
        wanted := q.wanted;
        hubs := case when hub is not null then q.hubs end;
        if depth > 0 then
            execute search_statement into list, list_hubs using q.query, depth;
        end if;
        return next;
    end loop;
    perform set_config('funnelvec.logging', coalesce(logging, ''), true);
end
$body$;
