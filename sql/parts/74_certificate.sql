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
-- CTE `scored` of the statement, within sight of an adapter's line (59_query_lines).
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
