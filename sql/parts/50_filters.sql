-- Filters: {"price": {"$lt": 50}, "$or": [...]} to a predicate over the user's table. Every name is looked up in the catalogue and
-- quoted, every value becomes a literal of the column's own type, so a filter can't say anything but a filter.
--
-- Two-valued on purpose, as on every engine: a field that is NULL matches $ne, $nin, $not and {"$exists": false}, nothing else.
-- Comparisons therefore stay bare (NULL counts as false under AND and OR, and indexes apply), and only negation spells NULL out.

-- What a column can be compared with: integer, number, text, boolean, date, timestamp, uuid; null for all other types.
create or replace function funnelvec._filter_kind(type oid)
returns text
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when t.typtype = 'd' then funnelvec._filter_kind(t.typbasetype)
        when t.oid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) then 'integer'
        when t.oid in ('float4'::regtype, 'float8'::regtype, 'numeric'::regtype) then 'number'
        when t.oid in ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) then 'text'
        when t.oid = 'bool'::regtype then 'boolean'
        when t.oid = 'date'::regtype then 'date'
        when t.oid in ('timestamp'::regtype, 'timestamptz'::regtype) then 'timestamp'
        when t.oid = 'uuid'::regtype then 'uuid'
    end
    from pg_type as t
    where t.oid = type
$body$;

-- One value as a literal of the column's type.
create or replace function funnelvec._filter_literal(field text, type oid, value jsonb)
returns text
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    kind text := funnelvec._filter_kind(type);
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
create or replace function funnelvec._filter_operator(field text, type oid, operator text, value jsonb, depth integer)
returns text
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    target text := format('t.%I', field);
    kind text := funnelvec._filter_kind(type);
    literals text;
begin
    case
    when operator = '$eq' then
        return format('%s = %s', target, funnelvec._filter_literal(field, type, value));
    when operator = '$ne' then
        return format('%s is distinct from %s', target, funnelvec._filter_literal(field, type, value));
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
            funnelvec._filter_literal(field, type, value));
    when operator in ('$in', '$nin') then
        if jsonb_typeof(value) <> 'array' or jsonb_array_length(value) not between 1 and 1000 then
            raise exception using
                errcode = 'FV003',
                message = format('%s of filter field "%s" needs a list of 1 to 1000 values', operator, field),
                hint = format('Such as {"%s": {"%s": [1, 2]}}.', field, operator);
        end if;
        select string_agg(funnelvec._filter_literal(field, type, v.value), ', ' order by v.ordinality) into literals
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
        return format('(%s) is not true', funnelvec._filter_field(field, type, value, depth + 1));
    else
        raise exception using
            errcode = 'FV003',
            message = format('unknown filter operator "%s" on field "%s"', operator, field),
            hint = 'The operators are $eq $ne $lt $lte $gt $gte $in $nin $exists $not.';
    end case;
end
$body$;

-- What is asked of one field: a bare value means $eq; several operators must all hold.
create or replace function funnelvec._filter_field(field text, type oid, value jsonb, depth integer)
returns text
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    predicate text;
begin
    if depth > 32 then
        raise exception using errcode = 'FV003', message = 'the filter is nested more than 32 levels deep';
    end if;
    if jsonb_typeof(value) <> 'object' then
        return funnelvec._filter_operator(field, type, '$eq', value, depth);
    end if;
    select string_agg(
        format('(%s)', funnelvec._filter_operator(field, type, e.key, e.value, depth)), ' and ' order by e.key)
    into predicate
    from jsonb_each(value) as e;
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
    terms text[] := '{}';
    term text;
    item record;
    type oid;
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
    for item in select e.key, e.value from jsonb_each(filter) as e order by e.key loop
        if item.key in ('$and', '$or') then
            if jsonb_typeof(item.value) <> 'array' or jsonb_array_length(item.value) = 0 then
                raise exception using
                    errcode = 'FV003',
                    message = format('%s needs a list of filters, not %s', item.key, left(item.value::text, 100)),
                    hint = format('Such as {"%s": [{"price": 5}, {"price": 7}]}.', item.key);
            end if;
            select string_agg(
                format('(%s)', funnelvec._filter_sql(table_name, v.value, depth + 1)),
                case item.key when '$and' then ' and ' else ' or ' end order by v.ordinality)
            into term
            from jsonb_array_elements(item.value) with ordinality as v;
        elsif item.key = '$not' then
            term := format('(%s) is not true', funnelvec._filter_sql(table_name, item.value, depth + 1));
        else
            type := funnelvec._filter_column(table_name, item.key);
            term := funnelvec._filter_field(item.key, type, item.value, depth);
        end if;
        terms := terms || format('(%s)', term);
    end loop;
    return array_to_string(terms, ' and ');
end
$body$;

-- The type of a column that a filter may name.
create or replace function funnelvec._filter_column(table_name regclass, field text)
returns oid
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    type oid;
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
    elsif funnelvec._filter_kind(type) is null then
        raise exception using
            errcode = 'FV003',
            message = format('filter field "%s" has the type %s, which filters can''t compare', field, format_type(type, null)),
            hint = 'Filters compare integers, numbers, text, booleans, dates, timestamps and uuids.';
    end if;
    return type;
end
$body$;
