-- The functions of rotations: each stands in the schema of the table, owned by the table's owner, because generated columns and
-- triggers depend on it: they go on working without funnelvec. Its text says which rotation it is.

-- How the text of the function begins that a resolution needs; null where its rotation was never fitted. `asked` is for the map of
-- queries, where that is not the map of rows.
create or replace function funnelvec._rotator_mark(table_name regclass, column_name text, resolution text, asked boolean)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when funnelvec._is_random(p.rotation) then funnelvec._rotation_mark(p.dims, p.rotation, funnelvec._rotator_code(p.code))
        else (
            select funnelvec._fitted_mark(r, p.dims, funnelvec._rotator_code(p.code), $4)
            from funnelvec.rotations as r
            where r.table_name = $1 and r.column_name = $2 and r.name = p.rotation)
    end
    from funnelvec._parse_resolution($3) as p
$body$;

-- The whole text of that function.
create or replace function funnelvec._rotator_body(table_name regclass, column_name text, resolution text, asked boolean)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when funnelvec._is_random(p.rotation) then funnelvec._rotation_body(p.dims, p.rotation, funnelvec._rotator_code(p.code))
        else (
            select funnelvec._fitted_body(r, p.dims, funnelvec._rotator_code(p.code), $4)
            from funnelvec.rotations as r
            where r.table_name = $1 and r.column_name = $2 and r.name = p.rotation)
    end
    from funnelvec._parse_resolution($3) as p
$body$;

-- The function of a rotation, for the tables of one owner in one schema; null where it is not there yet. The mark is made once, and
-- no more of a text is read than it takes: maps are megabytes.
create or replace function funnelvec._rotator(table_name regclass, column_name text, resolution text, asked boolean)
returns regproc
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    mark constant text := funnelvec._rotator_mark(table_name, column_name, resolution, asked);
begin
    return (
        select p.oid::regproc
        from pg_class as c
        join pg_proc as p on p.pronamespace = c.relnamespace and p.proowner = c.relowner
        where c.oid = table_name and left(p.prosrc, length(mark)) = mark
        order by p.oid
        limit 1);
end
$body$;

-- SQL for the rotated `source`. Refused: where the function is missing.
create or replace function funnelvec._rotated(table_name regclass, column_name text, resolution text, asked boolean, source text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    rotation text := (funnelvec._parse_resolution(resolution)).rotation;
    rotator text := funnelvec._rotator(table_name, column_name, resolution, asked and funnelvec._has_query_map(table_name, column_name, resolution));
begin
    if rotator is null then
        perform funnelvec._rotation_of(table_name, column_name, resolution);
        raise exception using
            errcode = 'FV005',
            message = format('the function of the rotation %s of %s is gone', rotation, table_name),
            hint = 'As the owner of the table: select funnelvec.repair(); or add_resolution, if it was never added.';
    end if;
    return format('%s(%s::%s.vector)', rotator, source, funnelvec._vector_schema());
end
$body$;

-- Make the functions that a resolution needs, where they are not there yet. Whoever may write the table has to be able to run them.
create or replace function funnelvec._make_rotators(table_name regclass, column_name text, resolution text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
    if (funnelvec._parse_resolution(resolution)).rotation is null then
        return;
    end if;
    perform funnelvec._make_rotator(table_name, column_name, resolution, false);
    if funnelvec._has_query_map(table_name, column_name, resolution) then
        perform funnelvec._make_rotator(table_name, column_name, resolution, true);
    end if;
end
$body$;

create or replace function funnelvec._make_rotator(table_name regclass, column_name text, resolution text, asked boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    p record := funnelvec._parse_resolution(resolution);
    code text := funnelvec._rotator_code(p.code);
    home text := (
        select format('%I', n.nspname) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = table_name);
    owner regrole := (select c.relowner::regrole from pg_class as c where c.oid = table_name);
    name text;
begin
    if funnelvec._rotator(table_name, column_name, resolution, asked) is not null then
        return;
    end if;
    name := funnelvec._fit_name((select c.relname::text from pg_class as c where c.oid = table_name),
        concat('_', p.rotation, '_', p.dims, '_' || code, case when asked then '_query' end));
    if exists (
        select from pg_proc as q join pg_namespace as n on n.oid = q.pronamespace
        where format('%I', n.nspname) = home and q.proname = name)
    then
        raise exception using
            errcode = 'FV008',
            message = format('%s.%I exists already; the rotation %s of %s needs that name', home, name, p.rotation, table_name),
            hint = case when funnelvec._is_random(p.rotation) then 'Rename or drop that function first.'
                else 'Rename or drop that function first, or fit the rotation under another name.' end;
    end if;
    execute format(
        'create function %s.%I(source %s.vector) returns %s language plpgsql immutable strict parallel safe as %L',
        home, name, funnelvec._vector_schema(), case when code is null then funnelvec._vector_schema() || '.vector' else 'bit varying' end,
        funnelvec._rotator_body(table_name, column_name, resolution, asked));
    if owner <> current_user::regrole then
        execute format('alter function %s.%I owner to %s', home, name, owner);
    end if;
    execute format('grant execute on function %s.%I to public', home, name);
    execute format('comment on function %s.%I is %L', home, name,
        format('rotation %s of vectors of %s dimensions%s, by funnelvec', p.rotation,
            (funnelvec._base(table_name, column_name)).dims, case when asked then ', for queries' end));
end
$body$;

-- What is a rotated resolution; rows of the registry may be written by hand.
create or replace function funnelvec._is_rotated(resolution text)
returns boolean
language sql immutable parallel safe
return case
    when resolution operator(pg_catalog.~) '^[1-9][0-9]{0,4}:(f32|f16|bit[2-4]?)~(random([1-9][0-9]{0,8})?|[a-z][a-z0-9_]{0,15})$'
        then pg_catalog.split_part(resolution, ':', 1)::integer operator(pg_catalog.<=) 16000
            and (pg_catalog.split_part(resolution, '~', 2) operator(pg_catalog.!~) '^random[0-9]*$'
                or funnelvec._is_random(pg_catalog.split_part(resolution, '~', 2)))
    else false
end;

-- Drop the functions of a rotation that no resolution of these tables needs any more; they stay where something else depends on them.
create or replace function funnelvec._drop_rotators(table_name regclass, column_name text, resolution text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    rotator regproc;
begin
    if not funnelvec._is_rotated(resolution) then
        return;
    end if;
    for asked in 0 .. 1 loop
        rotator := funnelvec._rotator(table_name, column_name, resolution, asked = 1);
        continue when rotator is null or exists (
            select
            from funnelvec.resolutions as r
            where not funnelvec._gone(r.table_name) and funnelvec._is_rotated(r.resolution)
                and split_part(r.resolution, '~', 2) = split_part($3, '~', 2)
                and funnelvec._rotator(r.table_name, r.column_name, r.resolution, asked = 1) = rotator);
        begin
            execute format('drop function %s', rotator::regprocedure);
        exception when dependent_objects_still_exist then
            null;
        end;
    end loop;
end
$body$;

-- Functions of the registry's resolutions that are gone, or are not what would be written now: the table has another name, or
-- pgvector another schema. `lost` where even the map is gone.
create or replace function funnelvec._rotation_faults()
returns table (table_name regclass, column_name text, resolution text, asked boolean, rotator regproc, lost boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    body text;
    mark text;
    seen text[] := '{}';
begin
    for table_name, column_name, resolution, asked in
        select r.table_name, r.column_name, r.resolution, s.asked
        from funnelvec.resolutions as r
        cross join (values (false), (true)) as s (asked)
        where funnelvec._is_rotated(r.resolution) and not funnelvec._gone(r.table_name)
            and (not s.asked or funnelvec._has_query_map(r.table_name, r.column_name, r.resolution))
            and exists (
                select from pg_attribute as a where a.attrelid = r.table_name and a.attname = r.column_name and not a.attisdropped)
        order by r.table_name::oid, r.column_name, r.resolution, s.asked
    loop
        -- Two codes of one width share a function.
        mark := table_name::oid || coalesce(funnelvec._rotator_mark(table_name, column_name, resolution, asked), resolution);
        continue when mark = any (seen);
        seen := seen || mark;
        rotator := funnelvec._rotator(table_name, column_name, resolution, asked);
        body := funnelvec._rotator_body(table_name, column_name, resolution, asked);
        continue when (select p.prosrc from pg_proc as p where p.oid = rotator) = body;
        lost := body is null;
        return next;
    end loop;
end
$body$;

-- Write the function of a rotation again.
create or replace function funnelvec._repair_rotator(table_name regclass, column_name text, resolution text, asked boolean)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    rotator regproc := funnelvec._rotator(table_name, column_name, resolution, asked);
    code text := funnelvec._rotator_code((funnelvec._parse_resolution(resolution)).code);
begin
    if rotator is null then
        perform funnelvec._rotation_of(table_name, column_name, resolution);
        perform funnelvec._make_rotator(table_name, column_name, resolution, asked);
        return 'write: it was missing';
    end if;
    execute format(
        'create or replace function %s(source %s.vector) returns %s language plpgsql immutable strict parallel safe as %L',
        rotator, funnelvec._vector_schema(), case when code is null then funnelvec._vector_schema() || '.vector' else 'bit varying' end,
        funnelvec._rotator_body(table_name, column_name, resolution, asked));
    return 'rewrite: it was stale';
exception when others then
    return format('not repaired: %s', sqlerrm);
end
$body$;
