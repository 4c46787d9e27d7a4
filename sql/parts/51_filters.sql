-- Filters: the fields, and all of them together; single operators are in 50_filter_operators.sql.

-- What is asked of one field: a bare value means $eq; several operators must all hold.
create or replace function funnelvec._filter_field(
    field text,
    target text,
    path text[],
    type oid,
    kind text,
    value jsonb,
    depth integer
)
returns text
language plpgsql stable parallel safe
as $body$
declare
    pairs jsonb;
    predicate text;
begin
    if depth > 32 then
        raise exception using errcode = 'FV003', message = 'the filter is nested more than 32 levels deep';
    end if;
    if jsonb_typeof(value) <> 'object' then
        return funnelvec._filter_operator(field, target, path, type, kind, '$eq', value, depth);
    end if;
    pairs := jsonb_path_query_array(value, '$.keyvalue()');
    for i in 0 .. jsonb_array_length(pairs) - 1 loop
        predicate := concat(predicate || ' and ', '(',
            funnelvec._filter_operator(field, target, path, type, kind, pairs -> i ->> 'key', pairs -> i -> 'value', depth), ')');
    end loop;
    if predicate is null then
        raise exception using
            errcode = 'FV003',
            message = format('filter field "%s" has no operator', field),
            hint = format('Write {"%s": {"$eq": value}}.', field);
    end if;
    return predicate;
end
$body$;

-- The whole filter as a predicate over alias t, or null where it asks for nothing.
create or replace function funnelvec._filter_sql(table_name regclass, filter jsonb, depth integer default 1)
returns text
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    pairs jsonb;
    name text;
    value jsonb;
    target record;
    term text;
    predicate text;
begin
    if filter is null then
        return null;
    end if;
    if jsonb_typeof(filter) <> 'object' then
        raise exception using
            errcode = 'FV003',
            message = format('a filter is an object, not %s', left(filter::text, 100)),
            hint = 'Such as {"price": {"$lt": 50}}.';
    elsif depth > 32 then
        raise exception using errcode = 'FV003', message = 'the filter is nested more than 32 levels deep';
    end if;
    if filter = '{}' then
        if depth > 1 then
            raise exception using
                errcode = 'FV003',
                message = 'a filter inside $and, $or or $not is empty',
                hint = 'Leave it out; only a whole filter may be empty, and then it filters nothing.';
        end if;
        return null;
    end if;
    pairs := jsonb_path_query_array(filter, '$.keyvalue()');
    for i in 0 .. jsonb_array_length(pairs) - 1 loop
        name := pairs -> i ->> 'key';
        value := pairs -> i -> 'value';
        if name in ('$and', '$or') then
            term := funnelvec._filter_list(table_name, name, value, depth);
        elsif name = '$not' then
            term := format('(%s) is not true', funnelvec._filter_sql(table_name, value, depth + 1));
        else
            target := funnelvec._filter_column(table_name, name);
            term := funnelvec._filter_field(
                name, format('t.%I', target.name), target.path, target.type, target.kind, value, depth);
        end if;
        predicate := concat(predicate || ' and ', '(', term, ')');
    end loop;
    return predicate;
end
$body$;

-- $and and $or over a list of filters.
create or replace function funnelvec._filter_list(table_name regclass, operator text, filters jsonb, depth integer)
returns text
language plpgsql stable parallel safe
as $body$
declare
    predicate text;
begin
    if jsonb_typeof(filters) <> 'array' or jsonb_array_length(filters) = 0 then
        raise exception using
            errcode = 'FV003',
            message = format('%s needs a list of filters, not %s', operator, left(filters::text, 100)),
            hint = format('Such as {"%s": [{"price": 5}, {"price": 7}]}.', operator);
    end if;
    for i in 0 .. jsonb_array_length(filters) - 1 loop
        predicate := concat(predicate || case operator when '$and' then ' and ' else ' or ' end, '(',
            funnelvec._filter_sql(table_name, filters -> i, depth + 1), ')');
    end loop;
    return predicate;
end
$body$;

-- The column that a filter names, its type and kind. A column of just that name comes first; else the longest beginning, up to a dot,
-- that is a column of JSON, and the rest is the path in it, key by key.
create or replace function funnelvec._filter_column(
    table_name regclass,
    field text,
    out type oid,
    out kind text,
    out name text,
    out path text[]
)
language plpgsql stable parallel safe
as $body$
declare
    steps text[];
begin
    name := field;
    if field like '$%' then
        raise exception using
            errcode = 'FV003',
            message = format('unknown filter operator "%s"', left(field, 100)),
            hint = 'At the top of a filter: $and, $or, $not, or the name of a column.';
    end if;
    select a.atttypid into type
    from pg_attribute as a
    where a.attrelid = table_name and a.attname = field and a.attnum > 0 and not a.attisdropped;
    if type is null and strpos(field, '.') > 0 then
        steps := string_to_array(field, '.');
        if cardinality(steps) > 33 then
            raise exception using
                errcode = 'FV003',
                message = format('filter field "%s..." is a path of more than 32 steps', left(field, 100));
        end if;
        select a.atttypid, a.attname::text, steps[p.width + 1:] into type, name, path
        from generate_series(cardinality(steps) - 1, 1, -1) as p (width)
        join pg_attribute as a on a.attname = array_to_string(steps[:p.width], '.')
        where a.attrelid = table_name and a.attnum > 0 and not a.attisdropped
        order by p.width desc
        limit 1;
        if type is not null and funnelvec._filter_kind(type) is distinct from 'json' then
            raise exception using
                errcode = 'FV003',
                message = format('filter field "%s" is a path into column %I, which has the type %s',
                    left(field, 100), name, format_type(type, null)),
                hint = 'Paths lead into columns of type jsonb or json.';
        end if;
    end if;
    if type is null then
        raise exception using
            errcode = 'FV003',
            message = format('filter field "%s" is not a column of %s', left(field, 100), table_name),
            hint = format('Its columns: %s.', (
                select string_agg(a.attname, ', ' order by a.attnum)
                from pg_attribute as a
                where a.attrelid = table_name and a.attnum > 0 and not a.attisdropped
                    and funnelvec._filter_kind(a.atttypid) is not null));
    end if;
    kind := funnelvec._filter_kind(type);
    if kind = 'json' then
        path := coalesce(path, '{}');
    end if;
    if kind is null then
        raise exception using
            errcode = 'FV003',
            message = format('filter field "%s" has the type %s, which filters can''t compare', field, format_type(type, null)),
            hint = 'Filters compare integers, numbers, text, booleans, dates, timestamps and uuids, arrays of them, and JSON.';
    end if;
end
$body$;
