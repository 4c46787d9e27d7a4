-- The text of a typed search function.
--
-- Without a filter the statement is static, so its plan is cached; with one it is planned per call. Three tries, each only where
-- the one before it came back short:
--   1  the index as it is: iterating from the start where rows may be filtered away (a filter, row-level security) or where more
--      rows are wanted than hnsw.ef_search can give
--   2  the index, iterating: dead rows of the table also take places in the list that the index returns
--   3  no index: what it finds is all there is
-- Settings are saved, set for the call and put back: a SET clause on the function would fail for a role that is not superuser in
-- a fresh session, at CREATE and at restore; hnsw.* exist only once pgvector is loaded, which the check of the query does first.

create or replace function funnelvec._function_body(f funnelvec.funnels)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    declarations text;
    assignments text;
    names text[];
    numbers text[];
    using_codes text;
    indexed boolean := funnelvec._indexed(f);
begin
    -- The query's code per stage is computed once, into a variable: in the statement it would be computed again for every row.
    select
        string_agg(
            format(E'    _fv_code_%s %s;\n', s.stage,
                -- A width on bit is part of the value's type, on vector and halfvec a check that was just made.
                case when s.code = 'bit' then s.type else regexp_replace(s.type, '\(\d+\)$', '') end),
            '' order by s.stage) filter (where not s.is_base),
        string_agg(
            format(E'    _fv_code_%s := %s;\n', s.stage, replace(s.encoded, '{query}', '_fv_query'))
                || funnelvec._body_direction(s.stage, s.resolution, s.dims, s.norm),
            '' order by s.stage) filter (where not s.is_base),
        array_agg(case when s.is_base then '_fv_query' else '_fv_code_' || s.stage end order by s.stage),
        array_agg(case when s.is_base then '$1' else '$' || 3 + s.stage end order by s.stage),
        string_agg(case when s.is_base then ', null::text' else ', _fv_code_' || s.stage end, '' order by s.stage)
    into declarations, assignments, names, numbers, using_codes
    from funnelvec._stages(f) as s;
    return concat(
        funnelvec._mark(), E'\n#variable_conflict use_column\ndeclare\n',
        format(E'    _fv_query %s := query;\n', (funnelvec._base(f.table_name, f.column_name)).type),
        E'    _fv_k integer := k;\n',
        E'    _fv_cutoff double precision := ''-infinity'';\n',
        E'    _fv_where text;\n',
        case when indexed then
            E'    _fv_found bigint;\n    _fv_before bigint := 0;\n    _fv_iterate boolean;\n'
            '    _fv_ef_search text;\n    _fv_iterative_scan text;\n    _fv_seqscan text;\n' end,
        declarations,
        E'begin\n',
        funnelvec._body_checks(f),
        assignments,
        case when indexed then funnelvec._body_indexed(f, names, numbers, using_codes)
            else funnelvec._body_scan(f, names, numbers, using_codes) end,
        'end');
end
$body$;

-- A query may have no direction in its first dimensions; then no cosine with it means anything. Signs compare all the same.
create or replace function funnelvec._body_direction(stage integer, resolution text, dims integer, norm text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case when norm is null then '' else format(
        $text$    if %1$s(_fv_code_%2$s) = 0 then
        raise exception using
            errcode = 'FV002',
            message = 'the query vector is zero in its first %3$s dimensions: at stage %2$s (%4$s) it has no direction',
            hint = 'Use a funnel without that stage for this query.';
    end if;
$text$,
        norm, stage, dims, resolution) end
$body$;

-- Refusals, the cutoff and the filter.
create or replace function funnelvec._body_checks(f funnelvec.funnels)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $body$
declare
    base record := funnelvec._base(f.table_name, f.column_name);
    directed boolean := (funnelvec._metric(f.metric)).needs_direction;
    calibration jsonb := funnelvec._calibration(f);
    last_keep integer := (
        select p.keep from funnelvec._parse_funnel(f.funnel) as p where p.keep is not null order by p.stage desc limit 1);
begin
    return format($text$    if query is null or %1$s.vector_dims(query) <> %2$s%6$s then
        raise exception using
            errcode = 'FV002',
            message = case
                when query is null then 'the query vector is null'
                when %1$s.vector_dims(query) <> %2$s then
                    format('the query vector has %%s dimensions; %%s has %2$s', %1$s.vector_dims(query), %3$L)
                else 'the query vector is zero: it has no direction, so nothing is similar to it'
            end,
            hint = 'Pass the embedding of the query, by the model that made the column.';
    end if;
    if k is null or k < 1%4$s then
        raise exception using
            errcode = 'FV004',
            message = format('k is %%s', coalesce(k::text, 'null')),
            hint = %5$L;
    end if;
$text$,
        funnelvec._vector_schema(), base.dims, format('%s.%I', f.table_name, f.column_name),
        ' or k > ' || last_keep,
        case when last_keep is null then 'Ask for at least one row.'
            else format('Ask for 1 to %s rows: that is what the stage before the last keeps. For more, create the funnel '
                        'with larger keeps.', last_keep) end,
        case when directed then format(' or %s(query) = 0', base.norm) end)
    || format(
        case when calibration is null then $text$    if min_relevance is not null then
        raise exception using
            errcode = 'FV006',
            message = %1$L,
            hint = %2$L;
    end if;
$text$ else $text$    if min_relevance is not null then
        if not min_relevance between 0 and 1 then
            raise exception using
                errcode = 'FV004',
                message = format('min_relevance is %%s; a probability is between 0 and 1', min_relevance),
                hint = 'Such as 0.7.';
        end if;
        _fv_cutoff := %3$s;
    end if;
$text$ end,
        format('funnel %s has no calibration, so min_relevance has no meaning', f.name),
        format('Calibrate it: select funnelvec.calibrate(%L, judgments), with a table (query, key, relevant).',
            funnelvec._function_name(f)),
        funnelvec._cutoff_sql(calibration, 'min_relevance'))
    || format(
        E'    if filter is not null then\n        _fv_where := '' and ('' || funnelvec._filter_sql(%L, filter) || '')'';\n    end if;\n',
        f.table_name::text);
end
$body$;

-- First stage without an index: one exact statement.
create or replace function funnelvec._body_scan(f funnelvec.funnels, names text[], numbers text[], using_codes text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    static record := funnelvec._statement(f, true, '_fv_query', names, '_fv_k', '_fv_cutoff');
    dynamic record := funnelvec._statement(f, true, '$1', numbers, '$2', '$3');
begin
    return format(
        E'    if _fv_where is null then\n        return query\n%s%s;\n    else\n'
        '        return query execute %L || _fv_where || %L\n        using _fv_query, _fv_k, _fv_cutoff%s;\n    end if;\n',
        static.head, static.tail, dynamic.head, dynamic.tail, using_codes);
end
$body$;

create or replace function funnelvec._body_indexed(f funnelvec.funnels, names text[], numbers text[], using_codes text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    static record := funnelvec._statement(f, false, '_fv_query', names, '_fv_k', '_fv_cutoff', counted => true);
    dynamic record := funnelvec._statement(f, false, '$1', numbers, '$2', '$3', counted => true);
    exact record := funnelvec._statement(f, true, '$1', numbers, '$2', '$3', counted => true);
    keep text := coalesce((select p.keep::text from funnelvec._parse_funnel(f.funnel) as p where p.stage = 1), '_fv_k');
    key record := funnelvec._key_sql(f.table_name);
    consume text;
begin
    consume := format(
        E'            loop\n                exit when _fv_try < 3 and _fv_found < %s;\n                exit when score is null;\n'
        '                return next;\n            end loop;\n', keep);
    return format($text$    _fv_ef_search := current_setting('hnsw.ef_search');
    _fv_iterative_scan := current_setting('hnsw.iterative_scan');
    _fv_seqscan := current_setting('enable_seqscan');
    _fv_iterate := _fv_where is not null or %1$s > 1000 or row_security_active(%2$L::regclass);
    perform set_config('hnsw.ef_search', greatest(_fv_ef_search::integer, least(%1$s, 1000))::text, true);
    if _fv_where is null then
        perform set_config('enable_seqscan', 'off', true);
    end if;
    for _fv_try in 1 .. 3 loop
        continue when _fv_try = 2 and _fv_iterate;
        if _fv_try = 2 or _fv_iterate then
            perform set_config('hnsw.iterative_scan', 'relaxed_order', true);
        end if;
        if _fv_try = 3 then
            perform set_config('enable_seqscan', _fv_seqscan, true);
        end if;
        if _fv_try < 3 and _fv_where is null then
            for %3$s, score, relevance, _fv_found in
%4$s%5$s
%10$s        else
            for %3$s, score, relevance, _fv_found in execute case
                when _fv_try < 3 then
%6$L || coalesce(_fv_where, '') || %7$L
                else
%8$L || coalesce(_fv_where, '') || %9$L
                end
            using _fv_query, _fv_k, _fv_cutoff%11$s
%10$s        end if;
        if _fv_try = 3 and _fv_found > _fv_before then
            raise notice 'the index found %% of the %% rows that the first stage of %% keeps; the stage was repeated without it',
                _fv_before, _fv_found, %12$L;
        end if;
        exit when _fv_found >= %1$s;
        _fv_before := _fv_found;
    end loop;
    perform set_config('hnsw.ef_search', _fv_ef_search, true);
    perform set_config('hnsw.iterative_scan', _fv_iterative_scan, true);
    perform set_config('enable_seqscan', _fv_seqscan, true);
$text$,
        keep, f.table_name::text, key.targets, static.head, static.tail,
        dynamic.head, dynamic.tail, exact.head, exact.tail, consume, using_codes, f.name);
end
$body$;
