-- What a user's table looks like: its vector column, its key, its owner.

-- The vector column, or the reason why it can't be one.
create or replace function funnelvec._base(table_name regclass, column_name text, out dims integer, out type text)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    relation pg_class;
    attribute pg_attribute;
    type_name text;
    vectors text;
begin
    select c.* into relation from pg_class as c where c.oid = table_name;
    if relation.oid is null then
        raise exception using
            errcode = 'FV005',
            message = format('there is no table %s', coalesce(table_name::text, 'null')),
            hint = 'Write it as SQL does: schema.table, with double quotes where a name needs them.';
    end if;
    if relation.relkind <> 'r' then
        raise exception using
            errcode = 'FV009',
            message = format(
                '%s is a %s; this version works on ordinary tables',
                table_name,
                case relation.relkind
                    when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
                    when 'p' then 'partitioned table' else format('relation of kind "%s"', relation.relkind)
                end),
            hint = 'Name the table that holds the vectors.';
    end if;
    if relation.relpersistence = 't' then
        raise exception using
            errcode = 'FV009',
            message = format('%s is a temporary table; its funnels would outlive it', table_name),
            hint = 'Use an ordinary or an unlogged table.';
    end if;
    select a.* into attribute
    from pg_attribute as a
    where a.attrelid = table_name and a.attname = column_name and a.attnum > 0 and not a.attisdropped;
    if attribute.attnum is null then
        select string_agg(quote_literal(a.attname), ', ' order by a.attnum) into vectors
        from pg_attribute as a join pg_type as t on t.oid = a.atttypid
        where a.attrelid = table_name and t.typname = 'vector' and a.attgenerated = '' and a.attnum > 0;
        raise exception using
            errcode = 'FV005',
            message = format('table %s has no column %s', table_name, coalesce(quote_literal(column_name), 'null')),
            hint = coalesce('Its vector columns: ' || vectors || '.', 'It has no column of type vector.');
    end if;
    type_name := format_type(attribute.atttypid, null);
    if (
        select t.typname <> 'vector' or format('%I', n.nspname) <> funnelvec._vector_schema()
        from pg_type as t join pg_namespace as n on n.oid = t.typnamespace
        where t.oid = attribute.atttypid
    ) then
        raise exception using
            errcode = 'FV009',
            message = format('column %L of %s has the type %s; this version needs vector', column_name, table_name, type_name),
            hint = 'Name the column that holds the embeddings.';
    end if;
    if attribute.atttypmod < 1 then
        raise exception using
            errcode = 'FV009',
            message = format('column %L of %s does not say how many dimensions its vectors have', column_name, table_name),
            hint = format('alter table %s alter column %I type vector(N);', table_name, column_name);
    end if;
    dims := attribute.atttypmod;
    type := format('%s.vector', funnelvec._vector_schema());
end
$body$;

-- The columns that identify a row: the primary key, else the oldest unique index over columns that are never null.
create or replace function funnelvec._key(table_name regclass)
returns table (ordinal integer, name text, type text)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    columns smallint[];
begin
    select i.indkey::smallint[] into columns
    from pg_index as i
    where i.indrelid = table_name
        and i.indisunique and i.indisvalid and i.indimmediate
        and i.indpred is null and i.indexprs is null
        and not exists (
            select from pg_attribute as a
            where a.attrelid = table_name and a.attnum = any (i.indkey) and not a.attnotnull)
    order by i.indisprimary desc, i.indnkeyatts, i.indexrelid
    limit 1;
    if columns is null then
        raise exception using
            errcode = 'FV005',
            message = format('table %s has no key that says which row a hit is', table_name),
            hint = 'Give it a primary key, or a unique index over a column that is not null.';
    end if;
    if cardinality(columns) > 1 then
        raise exception using
            errcode = 'FV009',
            message = format('the key of table %s has %s columns; this version needs a key of one column',
                table_name, cardinality(columns)),
            hint = 'Add a unique index over one column that is not null and make it the primary key.';
    end if;
    return query
    select k.ordinality::integer, a.attname::text, format_type(a.atttypid, a.atttypmod)
    from unnest(columns) with ordinality as k (attnum, ordinality)
    join pg_attribute as a on a.attrelid = table_name and a.attnum = k.attnum
    order by k.ordinality;
end
$body$;

-- Refuse early and clearly what the registry's row-level security and ALTER TABLE would refuse later.
create or replace function funnelvec._check_owner(table_name regclass)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    if not funnelvec._owns(table_name) then
        raise exception using
            errcode = '42501',
            message = format('must be owner of table %s', table_name),
            hint = format('Its owner is %s.', (select c.relowner::regrole from pg_class as c where c.oid = table_name));
    end if;
end
$body$;

-- How many rows the table has, as the planner believes; counted where it has no belief.
create or replace function funnelvec._rows(table_name regclass)
returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    counted bigint := (select c.reltuples from pg_class as c where c.oid = table_name);
begin
    if counted < 0 then
        execute format('select count(*) from %s', table_name) into counted;
    end if;
    return counted;
end
$body$;

-- The column that holds a resolution: the base column itself, a registered code column, or null.
create or replace function funnelvec._code_column(table_name regclass, column_name text, resolution text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    wanted record := funnelvec._parse_resolution(resolution);
begin
    if wanted.code = 'f32' and wanted.dims = (funnelvec._base(table_name, column_name)).dims then
        return column_name;
    end if;
    return (
        select r.code_column
        from funnelvec.resolutions as r
        join pg_attribute as a on a.attrelid = r.table_name and a.attname = r.code_column and not a.attisdropped
        where r.table_name = $1 and r.column_name = $2 and r.resolution = $3
    );
end
$body$;

-- The usable HNSW index over a column with the operators that the resolution is searched by; the smallest where there are several.
create or replace function funnelvec._index_of(table_name regclass, code_column text, opclass text)
returns regclass
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select i.indexrelid::regclass
    from pg_index as i
    join pg_class as c on c.oid = i.indexrelid
    join pg_am as m on m.oid = c.relam
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    join pg_opclass as o on o.oid = i.indclass[0]
    join pg_namespace as n on n.oid = o.opcnamespace
    where i.indrelid = $1
        and m.amname = 'hnsw'
        and i.indisvalid and i.indpred is null
        and a.attname = $2
        and format('%I.%I', n.nspname, o.opcname) = $3
    order by pg_relation_size(i.indexrelid), i.indexrelid
    limit 1
$body$;
