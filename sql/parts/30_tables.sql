-- What a user's table looks like: its vector column, its key, its owner.

-- The vector column, or the reason why it can't be one. `code` is the code that its type stands for, `norm` the function that gives
-- the length of its vectors.
create or replace function funnelvec._base(
    table_name regclass,
    column_name text,
    out dims integer,
    out type text,
    out code text,
    out norm text
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    attribute record;
    vectors text;
begin
    perform funnelvec._check_table(table_name);
    select a.atttypid, a.atttypmod, t.typname, quote_ident(n.nspname) as home into attribute
    from pg_attribute as a
    join pg_type as t on t.oid = a.atttypid
    join pg_namespace as n on n.oid = t.typnamespace
    where a.attrelid = table_name and a.attname = column_name and a.attnum > 0 and not a.attisdropped;
    if not found then
        select string_agg(quote_literal(a.attname), ', ' order by a.attnum) into vectors
        from pg_attribute as a join pg_type as t on t.oid = a.atttypid
        where a.attrelid = table_name and t.typname in ('vector', 'halfvec') and a.attgenerated = '' and a.attnum > 0;
        raise exception using
            errcode = 'FV005',
            message = format('table %s has no column %s', table_name, coalesce(quote_literal(column_name), 'null')),
            hint = coalesce('Its vector columns: ' || vectors || '.', 'It has no column of type vector or halfvec.');
    end if;
    if attribute.typname not in ('vector', 'halfvec') or attribute.home <> funnelvec._vector_schema() then
        raise exception using
            errcode = 'FV009',
            message = format('column %L of %s has the type %s; funnelvec needs vector or halfvec',
                column_name, table_name, format_type(attribute.atttypid, null)),
            hint = 'Name the column that holds the embeddings.';
    end if;
    if attribute.atttypmod < 1 then
        raise exception using
            errcode = 'FV009',
            message = format('column %L of %s does not say how many dimensions its vectors have', column_name, table_name),
            hint = format('alter table %s alter column %I type %s(N);', table_name, column_name, attribute.typname);
    end if;
    dims := attribute.atttypmod;
    type := format('%s.%s', attribute.home, attribute.typname);
    code := case attribute.typname when 'vector' then 'f32' else 'f16' end;
    norm := format('%s.%s', attribute.home, case attribute.typname when 'vector' then 'vector_norm' else 'l2_norm' end);
end
$body$;

-- How a resolution of a column is stored, computed from the expression `source` of the column's type: what _code says of it, behind
-- its rotation if it has one; `asked` where the source is a query, for which a rotation may have a map of its own.
create or replace function funnelvec._code_of(
    table_name regclass,
    column_name text,
    resolution text,
    source text,
    metric text,
    asked boolean default false,
    out dims integer,
    out code text,
    out rotation text,
    out type text,
    out expression text,
    out operator text,
    out opclass text,
    out index_limit integer,
    out norm text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    base record := funnelvec._base(table_name, column_name);
    base_code text := base.code;
begin
    select p.dims, p.code, p.rotation into dims, code, rotation from funnelvec._parse_resolution(resolution) as p;
    if rotation is not null then
        source := funnelvec._rotated(table_name, column_name, resolution, asked, source);
        -- A rotated halfvec is a vector. Two maps under cosine give what is never too long for f16, so that nothing has to be looked at.
        base_code := case when code = 'f16' and metric = 'cosine' and funnelvec._has_query_map(table_name, column_name, resolution)
            then 'f16' else 'f32' end;
    end if;
    select c.type, c.expression, c.operator, c.opclass, c.index_limit, c.norm
    into type, expression, operator, opclass, index_limit, norm
    from funnelvec._code(dims, code, source, funnelvec._metric_at(table_name, column_name, resolution, metric), base_code) as c;
end
$body$;

-- A relation that rows can be searched in.
create or replace function funnelvec._check_table(table_name regclass)
returns void
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    relation pg_class;
begin
    select c.* into relation from pg_class as c where c.oid = table_name;
    if relation.oid is null then
        raise exception using
            errcode = 'FV005',
            message = format('there is no table %s', coalesce(table_name::text, 'null')),
            hint = 'Write it as SQL does: schema.table, with double quotes where a name needs them.';
    elsif relation.relkind not in ('r', 'p') then
        raise exception using
            errcode = 'FV009',
            message = format(
                '%s is a %s; funnelvec works on tables',
                table_name,
                case relation.relkind
                    when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
                    else format('relation of kind "%s"', relation.relkind)
                end),
            hint = 'Name the table that holds the vectors.';
    elsif relation.relispartition then
        raise exception using
            errcode = 'FV009',
            message = format('%s is a partition; resolutions and funnels belong to the whole table', table_name),
            hint = format('Name %s.', (
                select p.relid from pg_partition_ancestors(table_name) as p offset 1 limit 1));
    elsif relation.relpersistence = 't' then
        raise exception using
            errcode = 'FV009',
            message = format('%s is a temporary table; its funnels would outlive it', table_name),
            hint = 'Use an ordinary or an unlogged table.';
    end if;
end
$body$;

-- The columns that identify a row: the primary key, else the oldest unique index over columns that are never null. `collated` is
-- what ORDER BY needs behind a column: text goes by code point, whatever the database's collation.
create or replace function funnelvec._key(table_name regclass)
returns table (ordinal integer, name text, type text, collated text)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    columns smallint[];
begin
    select k.columns into columns
    from pg_index as i
    -- Columns that the index only includes say nothing about which row it is. Arrays made from an int2vector begin at 0.
    cross join lateral (select (i.indkey::smallint[])[0:i.indnkeyatts - 1]) as k (columns)
    where i.indrelid = table_name
        and i.indisunique and i.indisvalid and i.indimmediate
        and i.indpred is null and i.indexprs is null
        and not exists (
            select from pg_attribute as a
            where a.attrelid = table_name and a.attnum = any (k.columns) and not a.attnotnull)
    order by i.indisprimary desc, i.indnkeyatts, i.indexrelid
    limit 1;
    if columns is null then
        raise exception using
            errcode = 'FV005',
            message = format('table %s has no key that says which row a hit is', table_name),
            hint = 'Give it a primary key, or a unique index over a column that is not null.';
    end if;
    return query
    select k.ordinality::integer, a.attname::text, format_type(a.atttypid, a.atttypmod),
        case when a.attcollation = 0 then '' else ' collate "C"' end
    from unnest(columns) with ordinality as k (attnum, ordinality)
    join pg_attribute as a on a.attrelid = table_name and a.attnum = k.attnum
    order by k.ordinality;
end
$body$;

-- The key in the forms that generated SQL needs; %s-free text, ready to be put in.
--   columns     key columns as the search function returns them: "a" bigint, "b" text
--   names       t."a" as key_1, t."b" as key_2        (from the table)
--   carried     s.key_1, s.key_2                      (between stages)
--   returned    s.key_1 as "a", s.key_2 as "b"        (to the caller)
--   targets     "a", "b"
--   ordering    s.key_1, s.key_2 collate "C"          (ties)
--   scan_order  t."a", t."b" collate "C"
--   row         row(t."a", t."b")::text               (one text that identifies a row)
--   joined      t."a" = j."a" and t."b" = j."b"
create or replace function funnelvec._key_sql(
    table_name regclass,
    out columns text,
    out names text,
    out carried text,
    out returned text,
    out targets text,
    out ordering text,
    out scan_order text,
    out identity text,
    out joined text,
    out width integer
)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select
        string_agg(format('%I %s', k.name, k.type), ', ' order by k.ordinal),
        string_agg(format('t.%I as key_%s', k.name, k.ordinal), ', ' order by k.ordinal),
        string_agg(format('s.key_%s', k.ordinal), ', ' order by k.ordinal),
        string_agg(format('s.key_%s as %I', k.ordinal, k.name), ', ' order by k.ordinal),
        string_agg(format('%I', k.name), ', ' order by k.ordinal),
        string_agg(format('s.key_%s%s', k.ordinal, k.collated), ', ' order by k.ordinal),
        string_agg(format('t.%I%s', k.name, k.collated), ', ' order by k.ordinal),
        format('row(%s)::text', string_agg(format('t.%I', k.name), ', ' order by k.ordinal)),
        string_agg(format('t.%1$I = j.%1$I', k.name), ' and ' order by k.ordinal),
        count(*)::integer
    from funnelvec._key(table_name) as k
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

-- How many rows the table has, as the planner believes. Where it has no belief, they are counted, beyond 256 MB on 1 % of the pages.
create or replace function funnelvec._rows(table_name regclass)
returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    counted bigint;
begin
    -- A partitioned table holds no rows itself; its leaves do.
    select case when bool_or(c.reltuples < 0) then -1 else sum(c.reltuples) end into counted
    from pg_class as c
    where c.oid = table_name and c.relkind = 'r'
        or c.oid in (select p.relid from pg_partition_tree(table_name) as p where p.isleaf);
    if counted is null or counted < 0 then
        if (select sum(pg_relation_size(p.relid)) from pg_partition_tree(table_name) as p) > 268435456
            or pg_relation_size(table_name) > 268435456
        then
            execute format('select 100 * count(*) from %s tablesample system (1) repeatable (0)', table_name) into counted;
        else
            execute format('select count(*) from %s', table_name) into counted;
        end if;
    end if;
    return counted;
end
$body$;

-- Bytes of an index, over all partitions.
create or replace function funnelvec._index_bytes(index_name regclass)
returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select coalesce(
        (select sum(pg_relation_size(p.relid)) from pg_partition_tree(index_name) as p),
        pg_relation_size(index_name))::bigint
$body$;

-- The metric that a vector column is kept for: the one asked for, else that of its resolutions and funnels, else cosine. One column
-- has one metric, because its codes and indexes are made for one.
create or replace function funnelvec._metric_of(table_name regclass, column_name text, metric text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    kept text := (
        select r.metric from funnelvec.resolutions as r where r.table_name = $1 and r.column_name = $2
        union
        select f.metric from funnelvec.funnels as f where f.table_name = $1 and f.column_name = $2
        limit 1);
begin
    perform funnelvec._metric(coalesce(metric, 'cosine'));
    if metric <> kept then
        raise exception using
            errcode = 'FV008',
            message = format('%s.%I has resolutions or funnels for the metric %s, not %s', table_name, column_name, kept, metric),
            hint = format('Drop them first, or keep to %s.', kept);
    end if;
    return coalesce(metric, kept, 'cosine');
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
    base record := funnelvec._base(table_name, column_name);
begin
    if wanted.code = base.code and wanted.dims = base.dims and wanted.rotation is null then
        return column_name;
    end if;
    return (
        select r.code_column
        from funnelvec.resolutions as r
        join pg_attribute as a on a.attrelid = r.table_name and a.attname = r.code_column and not a.attisdropped
        where r.table_name = $1 and r.column_name = $2 and r.resolution = $3 and r.storage = 'column'
            and a.attgenerated = 's'
            -- Computed from this column, and not from one that had its name before. Versions differ in whether it is the column or
            -- its expression that depends.
            and exists (
                select
                from pg_depend as d
                join pg_attribute as b on b.attrelid = d.refobjid and b.attnum = d.refobjsubid
                where d.refclassid = 'pg_class'::regclass and d.refobjid = a.attrelid and b.attname = $2
                    and (d.classid = 'pg_class'::regclass and d.objid = a.attrelid and d.objsubid = a.attnum
                        or d.classid = 'pg_attrdef'::regclass and d.objid = (
                            select e.oid from pg_attrdef as e where e.adrelid = a.attrelid and e.adnum = a.attnum)))
            and format_type(a.atttypid, a.atttypmod) = (funnelvec._code(wanted.dims, wanted.code, 'x', r.metric, base.code)).type
    );
end
$body$;

-- Where a resolution is read: the relation and column, and whether it may be read yet. Nothing where it is not stored. `storage` is
-- 'base' for the vector column itself, else 'column' or 'side'.
create or replace function funnelvec._stored(
    table_name regclass,
    column_name text,
    resolution text,
    out relation regclass,
    out code_column text,
    out storage text,
    out ready boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    r funnelvec.resolutions;
begin
    code_column := funnelvec._code_column(table_name, column_name, resolution);
    if code_column is not null then
        relation := table_name;
        storage := case when code_column = column_name then 'base' else 'column' end;
        ready := true;
        return;
    end if;
    select s.* into r
    from funnelvec.resolutions as s
    where s.table_name = $1 and s.column_name = $2 and s.resolution = $3 and s.storage = 'side';
    if r.side_table is not null and funnelvec._side_stands(r) then
        relation := r.side_table;
        code_column := r.code_column;
        storage := 'side';
        ready := r.state in ('ready', 'checking', 'leaving');
    end if;
end
$body$;

-- Whether a search may read a resolution: null where it is not stored, false while it is being filled.
create or replace function funnelvec._serves(table_name regclass, column_name text, resolution text)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select s.ready from funnelvec._stored($1, $2, $3) as s
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
    order by funnelvec._index_bytes(i.indexrelid), i.indexrelid
    limit 1
$body$;
