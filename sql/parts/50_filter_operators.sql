-- Filters: {"price": {"$lt": 50}, "$or": [...]} to a predicate over the user's table. Every name is looked up in the catalogue and
-- quoted, every value becomes a literal of the column's own type, so a filter can't say anything but a filter.
--
-- Two-valued on purpose, as on every engine: a field that is NULL matches $ne, $nin, $not and {"$exists": false}, nothing else.
-- Comparisons therefore stay bare (NULL counts as false under AND and OR, and indexes apply), and only negation spells NULL out.

-- Arrays, and arrays in JSON, match where an element does. A field of a JSON column is a path, "meta.size"; its value is compared by its
-- own JSON type, and one of another type does not match, since documents differ. JSON null is a missing value.

-- Compiling is part of every filtered search, so it is kept cheap: the column is looked up once and its type and kind are passed
-- down, objects are walked by plain expressions (a query over jsonb_each costs twenty of them), and only the entry point pins the
-- search_path, for all that it calls.

-- What a column can be compared with: integer, number, text, boolean, date, timestamp, uuid, json, or one of the first seven with
-- [] behind it; null for all other types.
create or replace function funnelvec._filter_kind(type oid)
returns text
language plpgsql stable parallel safe
as $body$
begin
    case type
    when 'int8'::regtype, 'int4'::regtype, 'int2'::regtype then return 'integer';
    when 'float8'::regtype, 'float4'::regtype, 'numeric'::regtype then return 'number';
    when 'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype then return 'text';
    when 'bool'::regtype then return 'boolean';
    when 'date'::regtype then return 'date';
    when 'timestamptz'::regtype, 'timestamp'::regtype then return 'timestamp';
    when 'uuid'::regtype then return 'uuid';
    when 'jsonb'::regtype, 'json'::regtype then return 'json';
    else
        -- A domain is what it is made of.
        return (
            select case t.typtype
                when 'd' then funnelvec._filter_kind(t.typbasetype)
                else nullif(funnelvec._filter_kind(t.typelem), 'json') operator(pg_catalog.||) '[]'
            end
            from pg_catalog.pg_type as t
            where t.oid operator(pg_catalog.=) type
                and (t.typtype operator(pg_catalog.=) 'd' or t.typcategory operator(pg_catalog.=) 'A'));
    end case;
end
$body$;

-- One value as a literal of the column's type.
create or replace function funnelvec._filter_literal(field text, type oid, kind text, value jsonb)
returns text
language plpgsql stable parallel safe
as $body$
declare
    given text := value #>> '{}';
    wanted text := jsonb_typeof(value);
    literal text;
    fits boolean;
begin
    case
    when kind = 'integer' then
        -- Wider than the column is fine: 3000000000 is larger than every integer, not an error.
        fits := wanted = 'number' and given ~ '^-?[0-9]{1,19}$';
        literal := format('%L::bigint', given);
    when kind = 'number' then
        fits := wanted = 'number';
        literal := format('%L::%s', given, format_type(type, null));
    when kind = 'text' then
        fits := wanted = 'string';
        literal := format('%L::text', given);
    when kind = 'boolean' then
        fits := wanted = 'boolean';
        literal := format('%L::boolean', given);
    when kind = 'date' then
        fits := wanted = 'string' and given ~ '^\d{4}-\d{2}-\d{2}$';
        literal := format('%L::date', given);
    when kind = 'timestamp' then
        fits := wanted = 'string'
            and given ~ '^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$';
        -- Without a zone it is UTC, whatever the session's time zone is.
        if given !~ '[T ].*(Z|[+-]\d{2}(:?\d{2})?)$' then
            given := given || case when length(given) = 10 then ' 00:00Z' else 'Z' end;
        end if;
        literal := case
            when type = 'timestamp'::regtype then format('(%L::timestamptz at time zone ''UTC'')', given)
            else format('%L::timestamptz', given)
        end;
    when kind = 'uuid' then
        fits := wanted = 'string' and given ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
        literal := format('%L::uuid', given);
    end case;
    -- The patterns leave these to the type's own input: February 30th, or a number beyond its type.
    if fits and (kind in ('date', 'timestamp') or kind in ('integer', 'number') and length(given) > 18) then
        begin
            execute format('select %s', literal);
        exception when data_exception then
            fits := false;
        end;
    end if;
    if not fits then
        raise exception using
            errcode = 'FV003',
            message = format('filter field "%s" has the type %s; the value %s does not fit',
                field, format_type(type, null), left(value::text, 100)),
            hint = case
                when wanted = 'null' then format('To ask for missing values write {"%s": {"$exists": false}}.', field)
                else format('Write %s.', case kind
                    when 'integer' then 'a whole number'
                    when 'number' then 'a number'
                    when 'text' then 'a string'
                    when 'boolean' then 'true or false'
                    when 'date' then 'a date such as "2026-01-31"'
                    when 'timestamp' then 'a time such as "2026-01-31T12:00:00Z"'
                    else 'a uuid in a string' end)
            end;
    end if;
    return literal;
end
$body$;

-- An array has an element that passes; `type` and `kind` are of its elements. @> and && can use a GIN index.
create or replace function funnelvec._filter_array(
    field text,
    target text,
    type oid,
    kind text,
    operator text,
    value jsonb
)
returns text
language plpgsql stable parallel safe
as $body$
declare
    -- A whole number beyond the type of the elements equals none of them.
    largest numeric := case type when 'int2'::regtype then 32767 when 'int4'::regtype then 2147483647 end;
    element text := format_type(type, -1);
    literals text;
begin
    if operator in ('$lt', '$lte', '$gt', '$gte') then
        return format(
            '%s%s %s any (%s)', funnelvec._filter_literal(field, type, kind, value), case when kind = 'text' then ' collate "C"' end,
            case operator when '$lt' then '>' when '$lte' then '>=' when '$gt' then '<' else '<=' end, target);
    end if;
    select string_agg(l.literal, ', ' order by v.ordinality)
        filter (where largest is null or (v.value #>> '{}')::numeric between -largest - 1 and largest)
    into literals
    from jsonb_array_elements(value) with ordinality as v
    cross join lateral funnelvec._filter_literal(field, type, kind, v.value) as l (literal);
    return coalesce(format('%s && array[%s]::%s[]', target, literals, element), 'false');
end
$body$;

-- A value in JSON passes, or it is an array with an element that does. @> at the top of the column can use a GIN index.
create or replace function funnelvec._filter_json(
    field text,
    target text,
    path text[],
    operator text,
    value jsonb
)
returns text
language plpgsql stable parallel safe
as $body$
declare
    reached text := target;
    whole text;
    part text;
    step text;
    item jsonb;
    predicate text;
begin
    foreach step in array path loop
        reached := format('%s -> %L', reached, step);
    end loop;
    if operator = '$exists' then
        return format('(%s) <> ''null''::jsonb', reached);
    end if;
    for i in 0 .. jsonb_array_length(value) - 1 loop
        item := value -> i;
        if jsonb_typeof(item) not in ('string', 'number', 'boolean') then
            raise exception using
                errcode = 'FV003',
                message = format('filter field "%s" is in JSON; the value %s can''t be compared', field, left(item::text, 100)),
                hint = case
                    when item = 'null' then format('To ask for missing values write {"%s": {"$exists": false}}.', field)
                    else 'Write a string, a number, true or false.' end;
        end if;
        whole := item::text;
        part := format('[%s]', item);
        if operator = '$in' and (i < 8 or cardinality(path) = 0) then
            for s in reverse cardinality(path) .. 1 loop
                whole := format('{%s: %s}', to_jsonb(path[s]), whole);
                part := format('{%s: %s}', to_jsonb(path[s]), part);
            end loop;
            predicate := concat(predicate || ' or ', format('%s @> %L::jsonb', target, whole),
                case when cardinality(path) > 0 then format(' or %s @> %L::jsonb', target, part) end);
        end if;
    end loop;
    if operator <> '$in' then
        if jsonb_typeof(item) = 'boolean' then
            raise exception using
                errcode = 'FV003',
                message = format('filter field "%s" is in JSON; %s can''t compare with true or false', field, operator),
                hint = 'Use $eq, $ne, $in, $nin or $exists.';
        end if;
        -- type() keeps arrays in arrays out, which a path would look into.
        return format(
            'jsonb_path_exists(%s, ''$ ? (@.type() == "%s" && @ %s $v)'', %L)', reached, jsonb_typeof(item),
            case operator when '$lt' then '<' when '$lte' then '<=' when '$gt' then '>' else '>=' end,
            jsonb_build_object('v', item));
    elsif jsonb_array_length(value) > 8 and cardinality(path) > 0 then
        -- Hundreds of @> cost more per row than looking the value up in a list.
        return format(
            '(%1$s = any (%2$s) or jsonb_typeof(%1$s) = ''array'' and exists (select from jsonb_array_elements('
            'case jsonb_typeof(%1$s) when ''array'' then %1$s end) as e (value) where e.value = any (%2$s)))',
            '(' || reached || ')',
            format('%L::jsonb[]', array(select v.value from jsonb_array_elements(value) as v)));
    end if;
    return predicate;
end
$body$;

-- One operator on one field. `target` is SQL for its column; `path` leads on from there in JSON, and is null for other columns.
create or replace function funnelvec._filter_operator(
    field text,
    target text,
    path text[],
    type oid,
    kind text,
    operator text,
    value jsonb,
    depth integer
)
returns text
language plpgsql stable parallel safe
as $body$
declare
    literals text;
begin
    if kind = 'json' or kind like '%[]' then
        return funnelvec._filter_inside(field, target, path, type, kind, operator, value, depth);
    end if;
    case
    when operator = '$eq' then
        return format('%s = %s', target, funnelvec._filter_literal(field, type, kind, value));
    when operator = '$ne' then
        return format('%s is distinct from %s', target, funnelvec._filter_literal(field, type, kind, value));
    when operator in ('$lt', '$lte', '$gt', '$gte') then
        if kind in ('boolean', 'uuid') then
            raise exception using
                errcode = 'FV003',
                message = format('filter field "%s" has the type %s, which %s can''t compare', field, kind, operator),
                hint = 'Use $eq, $ne, $in, $nin or $exists.';
        end if;
        -- Text is ordered by code point on every engine, not by this database's collation.
        return format(
            '%s%s %s %s', target, case when kind = 'text' then ' collate "C"' end,
            case operator when '$lt' then '<' when '$lte' then '<=' when '$gt' then '>' else '>=' end,
            funnelvec._filter_literal(field, type, kind, value));
    when operator in ('$in', '$nin') then
        perform funnelvec._filter_list_value(field, operator, value);
        select string_agg(funnelvec._filter_literal(field, type, kind, v.value), ', ' order by v.ordinality) into literals
        from jsonb_array_elements(value) with ordinality as v;
        return format(case operator when '$in' then '%s in (%s)' else '(%s in (%s)) is not true' end, target, literals);
    when operator = '$exists' then
        perform funnelvec._filter_flag_value(field, value);
        return format('%s %s', target, case when value::boolean then 'is not null' else 'is null' end);
    else
        return funnelvec._filter_not(field, target, path, type, kind, operator, value, depth);
    end case;
end
$body$;

-- The same on what holds several values, or none of a given type: arrays and JSON.
create or replace function funnelvec._filter_inside(
    field text,
    target text,
    path text[],
    type oid,
    kind text,
    operator text,
    value jsonb,
    depth integer
)
returns text
language plpgsql stable parallel safe
as $body$
declare
    positive text := case operator when '$eq' then '$in' when '$ne' then '$in' when '$nin' then '$in' else operator end;
    many jsonb := case when operator in ('$in', '$nin') then value else jsonb_build_array(value) end;
    predicate text;
begin
    case
    when operator in ('$in', '$nin') then
        perform funnelvec._filter_list_value(field, operator, value);
    when operator = '$exists' then
        perform funnelvec._filter_flag_value(field, value);
    when operator in ('$eq', '$ne', '$lt', '$lte', '$gt', '$gte') then
        if kind in ('boolean[]', 'uuid[]') and operator not in ('$eq', '$ne') then
            raise exception using
                errcode = 'FV003',
                message = format('filter field "%s" has the type %s, which %s can''t compare', field, kind, operator),
                hint = 'Use $eq, $ne, $in, $nin or $exists.';
        end if;
    else
        return funnelvec._filter_not(field, target, path, type, kind, operator, value, depth);
    end case;
    if kind = 'json' then
        predicate := funnelvec._filter_json(
            field, case type when 'json'::regtype then target || '::jsonb' else target end, path, positive, many);
    elsif operator = '$exists' then
        predicate := format('%s is not null', target);
    else
        predicate := funnelvec._filter_array(
            field, target, funnelvec._element_type(type), rtrim(kind, '[]'), positive,
            case when positive = '$in' then many else value end);
    end if;
    return case
        when operator in ('$ne', '$nin') or operator = '$exists' and not value::boolean then format('(%s) is not true', predicate)
        else predicate
    end;
end
$body$;

create or replace function funnelvec._element_type(type oid)
returns oid
language sql stable parallel safe
as $body$
    select case t.typtype when 'd' then funnelvec._element_type(t.typbasetype) else t.typelem end
    from pg_catalog.pg_type as t
    where t.oid operator(pg_catalog.=) type
$body$;

-- $not, and what is no operator.
create or replace function funnelvec._filter_not(
    field text,
    target text,
    path text[],
    type oid,
    kind text,
    operator text,
    value jsonb,
    depth integer
)
returns text
language plpgsql stable parallel safe
as $body$
begin
    if operator <> '$not' then
        raise exception using
            errcode = 'FV003',
            message = format('unknown filter operator "%s" on field "%s"', operator, field),
            hint = 'The operators are $eq $ne $lt $lte $gt $gte $in $nin $exists $not.';
    elsif jsonb_typeof(value) <> 'object' then
        raise exception using
            errcode = 'FV003',
            message = format('$not of filter field "%s" needs an object, not %s', field, left(value::text, 100)),
            hint = format('Such as {"%s": {"$not": {"$lt": 5}}}, or {"%1$s": {"$ne": 5}}.', field);
    end if;
    return format('(%s) is not true', funnelvec._filter_field(field, target, path, type, kind, value, depth + 1));
end
$body$;

create or replace function funnelvec._filter_list_value(field text, operator text, value jsonb)
returns void
language plpgsql stable parallel safe
as $body$
begin
    if jsonb_typeof(value) <> 'array' or jsonb_array_length(value) not between 1 and 1000 then
        raise exception using
            errcode = 'FV003',
            message = format('%s of filter field "%s" needs a list of 1 to 1000 values', operator, field),
            hint = format('Such as {"%s": {"%s": [1, 2]}}.', field, operator);
    end if;
end
$body$;

create or replace function funnelvec._filter_flag_value(field text, value jsonb)
returns void
language plpgsql stable parallel safe
as $body$
begin
    if jsonb_typeof(value) <> 'boolean' then
        raise exception using
            errcode = 'FV003',
            message = format('$exists of filter field "%s" needs true or false, not %s', field, left(value::text, 100)),
            hint = format('Write {"%s": {"$exists": true}}.', field);
    end if;
end
$body$;
