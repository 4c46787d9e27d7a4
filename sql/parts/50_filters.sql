-- Filters: {"price": {"$lt": 50}, "$or": [...]} to a predicate over the user's table. Every name is looked up in the catalogue and
-- quoted, every value becomes a literal of the column's own type, so a filter can't say anything but a filter.
--
-- Two-valued on purpose, as on every engine: a field that is NULL matches $ne, $nin, $not and {"$exists": false}, nothing else.
-- Comparisons therefore stay bare (NULL counts as false under AND and OR, and indexes apply), and only negation spells NULL out.

-- Compiling is part of every filtered search, so it is kept cheap: the column is looked up once and its type and kind are passed
-- down, objects are walked by plain expressions (a query over jsonb_each costs twenty of them), and only the entry point pins the
-- search_path, for all that it calls.

-- What a column can be compared with: integer, number, text, boolean, date, timestamp, uuid; null for all other types.
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
    else
        -- A domain is what it is made of.
        return (
            select funnelvec._filter_kind(t.typbasetype)
            from pg_catalog.pg_type as t
            where t.oid operator(pg_catalog.=) type and t.typtype operator(pg_catalog.=) 'd');
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

-- One operator on one field.
create or replace function funnelvec._filter_operator(
    field text,
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
    target text := format('t.%I', field);
    literals text;
begin
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
        if jsonb_typeof(value) <> 'array' or jsonb_array_length(value) not between 1 and 1000 then
            raise exception using
                errcode = 'FV003',
                message = format('%s of filter field "%s" needs a list of 1 to 1000 values', operator, field),
                hint = format('Such as {"%s": {"%s": [1, 2]}}.', field, operator);
        end if;
        select string_agg(funnelvec._filter_literal(field, type, kind, v.value), ', ' order by v.ordinality) into literals
        from jsonb_array_elements(value) with ordinality as v;
        return format(case operator when '$in' then '%s in (%s)' else '(%s in (%s)) is not true' end, target, literals);
    when operator = '$exists' then
        if jsonb_typeof(value) <> 'boolean' then
            raise exception using
                errcode = 'FV003',
                message = format('$exists of filter field "%s" needs true or false, not %s', field, left(value::text, 100)),
                hint = format('Write {"%s": {"$exists": true}}.', field);
        end if;
        return format('%s %s', target, case when value::boolean then 'is not null' else 'is null' end);
    when operator = '$not' then
        if jsonb_typeof(value) <> 'object' then
            raise exception using
                errcode = 'FV003',
                message = format('$not of filter field "%s" needs an object, not %s', field, left(value::text, 100)),
                hint = format('Such as {"%s": {"$not": {"$lt": 5}}}, or {"%1$s": {"$ne": 5}}.', field);
        end if;
        return format('(%s) is not true', funnelvec._filter_field(field, type, kind, value, depth + 1));
    else
        raise exception using
            errcode = 'FV003',
            message = format('unknown filter operator "%s" on field "%s"', operator, field),
            hint = 'The operators are $eq $ne $lt $lte $gt $gte $in $nin $exists $not.';
    end case;
end
$body$;

-- What is asked of one field: a bare value means $eq; several operators must all hold.
create or replace function funnelvec._filter_field(field text, type oid, kind text, value jsonb, depth integer)
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
        return funnelvec._filter_operator(field, type, kind, '$eq', value, depth);
    end if;
    pairs := jsonb_path_query_array(value, '$.keyvalue()');
    for i in 0 .. jsonb_array_length(pairs) - 1 loop
        predicate := concat(predicate || ' and ', '(',
            funnelvec._filter_operator(field, type, kind, pairs -> i ->> 'key', pairs -> i -> 'value', depth), ')');
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
            term := funnelvec._filter_field(name, target.type, target.kind, value, depth);
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

-- The type and kind of a column that a filter may name.
create or replace function funnelvec._filter_column(table_name regclass, field text, out type oid, out kind text)
language plpgsql stable parallel safe
as $body$
begin
    if field like '$%' then
        raise exception using
            errcode = 'FV003',
            message = format('unknown filter operator "%s"', left(field, 100)),
            hint = 'At the top of a filter: $and, $or, $not, or the name of a column.';
    end if;
    select a.atttypid into type
    from pg_attribute as a
    where a.attrelid = table_name and a.attname = field and a.attnum > 0 and not a.attisdropped;
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
    if kind is null then
        raise exception using
            errcode = 'FV003',
            message = format('filter field "%s" has the type %s, which filters can''t compare', field, format_type(type, null)),
            hint = 'Filters compare integers, numbers, text, booleans, dates, timestamps and uuids.';
    end if;
end
$body$;
