-- The parts of the body of a typed search function: checks, pages, and the tries in their order.

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
        %3$s;
    end if;
$text$ end,
        format('funnel %s has no calibration, so min_relevance has no meaning', f.name),
        format('Calibrate it: select funnelvec.calibrate(%L, judgments), with a table (query, key, relevant).',
            funnelvec._function_name(f)),
        funnelvec._assign_least(calibration, 'min_relevance'))
    || funnelvec._body_certified(f)
    || funnelvec._body_after(f)
    || format(
        E'    if filter is not null then\n        _fv_where := '' and ('' || funnelvec._filter_sql(%L, filter) || '')'';\n    end if;\n',
        f.table_name::text);
end
$body$;

-- The key columns with their types without a width: a value that is too long for the column is no error, only no row's.
create or replace function funnelvec._after_columns(f funnelvec.funnels)
returns table (ordinal integer, type text)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select k.ordinal, format_type(a.atttypid, -1)
    from funnelvec._key(f.table_name) as k
    join pg_attribute as a on a.attrelid = f.table_name and a.attname = k.name
$body$;

-- Where the next page begins: the score and the key of the last row of the page before, {"score": 0.93, "key": [17]}.
create or replace function funnelvec._body_after(f funnelvec.funnels)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select format($text$    if after is not null then
        perform funnelvec._check_after(after, %1$s);
        begin
            _fv_after := after ->> 'score';
%2$s        exception when data_exception then
            raise exception using
                errcode = 'FV004',
                message = format('after holds a value that does not fit: %%s', sqlerrm),
                hint = 'Pass the score and the key of the last row of the page before.';
        end;
        if _fv_after = 'NaN' then
            raise exception using errcode = 'FV004', message = 'the score in after is NaN, which no row has';
        end if;
    end if;
$text$,
        count(*),
        string_agg(format(E'            _fv_after_%s := after -> ''key'' ->> %s;\n', c.ordinal, c.ordinal - 1), '' order by c.ordinal))
    from funnelvec._after_columns(f) as c
$body$;

-- The form of a cursor; what stands in it is checked by its types.
create or replace function funnelvec._check_after(after jsonb, width integer)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
begin
    if jsonb_typeof(after) = 'object'
        and after ?& array['score', 'key'] and after - array['score', 'key'] = '{}'
        and jsonb_typeof(after -> 'score') in ('number', 'string')
        and jsonb_typeof(after -> 'key') = 'array'
    then
        if jsonb_array_length(after -> 'key') = width
            and not jsonb_path_exists(after, 'strict $.key[*] ? (@ == null || @.type() == "object" || @.type() == "array")')
        then
            return;
        end if;
    end if;
    raise exception using
        errcode = 'FV004',
        message = format('after is not the place of a row: %s', left(after::text, 100)),
        hint = format('Write {"score": 0.93, "key": [%s]}, with the score and the key of the last row of the page before.',
            case width when 1 then '17' else format('... %s values', width) end);
end
$body$;

-- When the static statement serves: the cutoff of the best F1 (NaN) is looked for by the dynamic one alone.
create or replace function funnelvec._unless_best_f1(f funnelvec.funnels)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    return case when funnelvec._calibration(f) is not null then ' and _fv_cutoff < ''NaN''' end;
end
$body$;

-- First stage without an index: one exact statement.
create or replace function funnelvec._body_scan(
    f funnelvec.funnels,
    names text[],
    numbers text[],
    using_codes text,
    after text[],
    after_numbers text[]
)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    least_score text := funnelvec._least_sql(f, '_fv_cutoff', '_fv_line');
    least_number text := funnelvec._least_sql(f, '$3', '$' || 4 + cardinality(names) + cardinality(after));
    asked_numbers text[] := funnelvec._asked_numbers(f, 5 + cardinality(names) + cardinality(after));
    static record := funnelvec._statement(f, true, '_fv_query', names, '_fv_k', least_score, after => after, asked => funnelvec._asked_names(f));
    dynamic record := funnelvec._statement(f, true, '$1', numbers, '$2', least_number, after => after_numbers, best_f1 => true,
        asked => asked_numbers);
begin
    return format(
        E'    if _fv_where is null%8$s then\n        %6$s\n%1$s%2$s%7$s    else\n'
        '        %6$s execute %3$L || coalesce(_fv_where, '''') || %4$L\n        using _fv_query, _fv_k, _fv_cutoff%5$s%7$s    end if;\n',
        static.head, static.tail, dynamic.head, dynamic.tail, using_codes,
        -- A log wants to know what came back, which `return query` does not say.
        case when funnelvec._logs(f)
            then format('for %s%s, score, relevance in', (funnelvec._key_sql(f.table_name)).targets, (funnelvec._returned_sql(f)).targets) else 'return query' end,
        case when funnelvec._logs(f)
            then format(E'\n            loop\n                return next;\n%s            end loop;\n', funnelvec._log_count(f)) else E';\n' end,
        funnelvec._unless_best_f1(f));
end
$body$;

create or replace function funnelvec._body_indexed(
    f funnelvec.funnels,
    names text[],
    numbers text[],
    using_codes text,
    after text[],
    after_numbers text[],
    joining boolean
)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    least_score text := funnelvec._least_sql(f, '_fv_cutoff', '_fv_line');
    least_number text := funnelvec._least_sql(f, '$3', '$' || 4 + cardinality(names) + cardinality(after));
    asked_numbers text[] := funnelvec._asked_numbers(f, 5 + cardinality(names) + cardinality(after));
    static record := funnelvec._statement(f, false, '_fv_query', names, '_fv_k', least_score, counted => true, after => after,
        asked => funnelvec._asked_names(f));
    dynamic record := funnelvec._statement(f, false, '$1', numbers, '$2', least_number, counted => true, after => after_numbers, best_f1 => true,
        asked => asked_numbers);
    exact record := funnelvec._statement(f, true, '$1', numbers, '$2', least_number, counted => true, after => after_numbers, best_f1 => true,
        asked => asked_numbers);
    keep text := coalesce((select p.keep::text from funnelvec._parse_funnel(f.funnel) as p where p.stage = 1), '_fv_k');
    key record := funnelvec._key_sql(f.table_name);
    windows text := funnelvec._body_window(f);
    consume text;
begin
    consume := format(
        E'            loop\n                exit when _fv_try < 3 and _fv_found < %s;\n                exit when score is null;\n'
        '                return next;\n%s            end loop;\n', keep, funnelvec._log_count(f));
    return format($text$    _fv_ef_search := current_setting('hnsw.ef_search');
    _fv_iterative_scan := current_setting('hnsw.iterative_scan');
    _fv_seqscan := current_setting('enable_seqscan');
%14$s    if _fv_where is not null or row_security_active(%2$L::regclass) then
        _fv_iterate := true;
%18$s        _fv_narrow := (funnelvec._narrow(%2$L::regclass, _fv_where, %1$s%19$s)).narrow;
    else
        _fv_iterate := %1$s > 1000;
    end if;
%13$s    perform set_config('hnsw.ef_search', greatest(_fv_ef_search::integer, least(%1$s, 1000))::text, true);
    if not _fv_narrow then
%15$s        perform set_config('enable_seqscan', 'off', true);
    end if;
    for _fv_try in case when _fv_narrow then 3 else 1 end .. 3 loop
        continue when _fv_try = 2 and _fv_iterate;
        if _fv_try = 2 or _fv_iterate then
            perform set_config('hnsw.iterative_scan', 'relaxed_order', true);
        end if;
        if _fv_try = 3 then
            perform set_config('enable_seqscan', _fv_seqscan, true);
%16$s        end if;
        if _fv_try < 3 and _fv_where is null%21$s then
            for %3$s, score, relevance, _fv_found in
%4$s%5$s
%10$s        else
            for %3$s, score, relevance, _fv_found in execute case
                when _fv_try < 3 then
%6$L || coalesce(_fv_where, '') %20$s|| %7$L
                else
%8$L || coalesce(_fv_where, '') || %9$L
                end
            using _fv_query, _fv_k, _fv_cutoff%11$s
%10$s        end if;
        if _fv_try = 3 and not _fv_narrow and _fv_found > _fv_before then
            raise notice 'the index found %% of the %% rows that the first stage of %% keeps; the stage was repeated without it',
                _fv_before, _fv_found, %12$L;
        end if;
        exit when _fv_found >= %1$s;
        _fv_before := _fv_found;
    end loop;
    perform set_config('hnsw.ef_search', _fv_ef_search, true);
    perform set_config('hnsw.iterative_scan', _fv_iterative_scan, true);
    perform set_config('enable_seqscan', _fv_seqscan, true);
%17$s$text$,
        keep, f.table_name::text, key.targets || coalesce((funnelvec._returned_sql(f)).targets, ''), static.head, static.tail,
        dynamic.head, dynamic.tail, exact.head, exact.tail, consume, using_codes, f.name,
        -- An index can't begin behind a row, and a single stage keeps no rows to begin among.
        case when f.funnel not like '%>%' then E'    _fv_narrow := _fv_narrow or after is not null;\n' end,
        -- Only a nested loop keeps the order of the index when the first stage looks rows up in another table.
        case when joining then
            E'    _fv_hashjoin := current_setting(''enable_hashjoin'');\n'
            '    _fv_mergejoin := current_setting(''enable_mergejoin'');\n' end,
        case when joining then
            E'        perform set_config(''enable_hashjoin'', ''off'', true);\n'
            '        perform set_config(''enable_mergejoin'', ''off'', true);\n' end,
        case when joining then
            E'            perform set_config(''enable_hashjoin'', _fv_hashjoin, true);\n'
            '            perform set_config(''enable_mergejoin'', _fv_mergejoin, true);\n' end,
        case when joining then
            E'    perform set_config(''enable_hashjoin'', _fv_hashjoin, true);\n'
            '    perform set_config(''enable_mergejoin'', _fv_mergejoin, true);\n' end,
        windows,
        case when windows <> '' then ', _fv_share' end,
        case when windows <> '' then '|| coalesce(_fv_within, '''') ' end, funnelvec._unless_best_f1(f));
end
$body$;
