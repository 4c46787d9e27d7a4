-- What a table still needs until its resolutions are in use as they were asked for, a statement at a time: index builds and what they wait for.

-- HNSW indexes over a column with the operators that a resolution is searched by; `attached`: a part of the index of a partitioned table.
create or replace function funnelvec._indexes_over(relation regclass, code_column text, opclass text)
returns table (name regclass, valid boolean, attached boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select i.indexrelid::regclass, i.indisvalid and i.indisready, c.relispartition
    from pg_index as i
    join pg_class as c on c.oid = i.indexrelid
    join pg_am as m on m.oid = c.relam
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    join pg_opclass as o on o.oid = i.indclass[0]
    join pg_namespace as n on n.oid = o.opcnamespace
    where i.indrelid = relation and m.amname = 'hnsw' and i.indpred is null and a.attname = code_column
        and format('%I.%I', n.nspname, o.opcname) = opclass
    order by i.indexrelid
$body$;

-- The statement that brings a relation nearer to its index; both null where it has one. `waits`: somebody is at work there.
create or replace function funnelvec._index_step(
    relation regclass,
    code_column text,
    opclass text,
    options jsonb,
    out step text,
    out waits text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    broken regclass;
    found record;
    name text;
    number text := '';
begin
    if exists (select from funnelvec._indexes_over(relation, code_column, opclass) as i where i.valid and not i.attached) then
        return;
    end if;
    select i.name into broken
    from funnelvec._indexes_over(relation, code_column, opclass) as i
    where not i.valid and not i.attached
    limit 1;
    if broken is null then
        -- With a name, because two who run this at the same moment would else build it twice.
        loop
            name := funnelvec._fit_name((select format('%s_%s', c.relname, code_column) from pg_class as c where c.oid = relation), '_idx' || number);
            exit when not exists (
                select from pg_class as c join pg_class as t on t.oid = relation where c.relnamespace = t.relnamespace and c.relname = name);
            number := coalesce(nullif(number, '')::integer, 0) + 1;
        end loop;
        step := format('create index concurrently if not exists %I on %s using hnsw (%I %s) with (m = %s, ef_construction = %s);',
            name, relation, code_column, opclass, (options ->> 'm')::integer, (options ->> 'ef_construction')::integer);
        return;
    end if;
    found := funnelvec._broken_step(relation, broken);
    step := found.step;
    waits := found.waits;
end
$body$;

-- What to do about an index that is not valid: drop it, unless somebody is at work there.
create or replace function funnelvec._broken_step(relation regclass, broken regclass, out step text, out waits text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    builder integer;
begin
    -- A build holds this lock to its end, and so does VACUUM. Dropping would wait for it, and then drop what it has finished. Autovacuum
    -- (nobody's session) makes way for whoever waits for it.
    select l.pid into builder
    from pg_locks as l join pg_stat_activity as a on a.pid = l.pid and a.usesysid is not null
    where l.relation = _broken_step.relation and l.mode = 'ShareUpdateExclusiveLock' and l.granted and l.pid <> pg_backend_pid()
        and l.database = (select d.oid from pg_database as d where d.datname = current_database())
    limit 1;
    if builder is null then
        step := format('drop index concurrently %s;', broken);
    else
        waits := format('process %s is working on %s, perhaps building its index', builder, relation);
    end if;
end
$body$;

-- What the index of a column still needs that was asked for with concurrently => true. A partitioned table gets it leaf by leaf, because
-- Postgres builds no index over all of it concurrently; activate then puts one over those.
create or replace function funnelvec._column_step(r funnelvec.resolutions, opclass text, out step text, out waits text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    leaf regclass;
    found record;
begin
    if r.index_options is null
        or not exists (select from pg_attribute as a where a.attrelid = r.table_name and a.attname = r.code_column and not a.attisdropped)
    then
        return;
    elsif funnelvec._index_of(r.table_name, r.code_column, opclass) is null then
        for leaf in select l.relation from funnelvec._leaves(r.table_name) as l loop
            found := funnelvec._index_step(leaf, r.code_column, opclass, r.index_options);
            step := found.step;
            waits := coalesce(waits, found.waits);
            if step is not null then
                return;
            end if;
        end loop;
    end if;
    if waits is null then
        step := format('select funnelvec.activate(%L, %L, %L);', r.table_name::text, r.column_name, r.resolution);
    end if;
end
$body$;

-- Where the rows of a table are: in its partitions, else in itself.
create or replace function funnelvec._leaves(table_name regclass)
returns table (relation regclass)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select p.relid
    from pg_partition_tree(table_name) as p
    where p.isleaf and p.relid <> table_name
    union all
    select c.oid from pg_class as c where c.oid = table_name and c.relkind <> 'p'
    order by 1
$body$;

-- The statement that takes one resolution a step on; both null where it is in use as it was asked for.
create or replace function funnelvec._next_of(r funnelvec.resolutions, out step text, out waits text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    stored record;
    wanted record;
    found record;
begin
    if r.side_table is null and r.index_options is null or r.side_table is not null and not funnelvec._side_stands(r) then
        return;
    elsif r.state = 'leaving' then
        step := format('select funnelvec.activate(%L, %L, %L);', r.table_name::text, r.column_name, r.resolution);
        return;
    elsif r.state in ('filling', 'sweeping', 'checking') then
        step := format('call funnelvec.backfill(%L);', r.table_name::text);
        return;
    end if;
    wanted := funnelvec._parse_resolution(r.resolution);
    stored := funnelvec._code(wanted.dims, wanted.code, 'x', funnelvec._metric_at(r.table_name, r.column_name, r.resolution, r.metric), 'f32');
    if r.side_table is null then
        found := funnelvec._column_step(r, stored.opclass);
        step := found.step;
        waits := found.waits;
        return;
    elsif r.index_options is not null then
        found := funnelvec._index_step(r.side_table, r.code_column, stored.opclass, r.index_options);
        step := found.step;
        waits := found.waits;
    end if;
    if step is null and waits is null and (r.state = 'filled' or r.index_name is distinct from (
        select c.relname from pg_class as c where c.oid = funnelvec._index_of(r.side_table, r.code_column, stored.opclass)))
    then
        step := format('select funnelvec.activate(%L, %L, %L);', r.table_name::text, r.column_name, r.resolution);
    end if;
end
$body$;

-- The statement to run next for a table (null: none is left), so that a psql script can run it with \gexec until none is.
create or replace function funnelvec.next_step(table_name regclass)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $body$
declare
    n record := funnelvec._next_for(table_name);
begin
    if n.waits is not null then
        raise exception using
            errcode = 'FV008',
            message = n.waits,
            hint = 'Wait for it; an index that a stopped build left behind is dropped by the next call.';
    end if;
    return n.step;
end
$body$;

-- The first step that can be taken for a table; only where there is none, what has to be waited for.
create or replace function funnelvec._next_for(table_name regclass, out step text, out waits text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    r funnelvec.resolutions;
    w funnelvec.windows;
    n record;
begin
    perform funnelvec._check_table(table_name);
    for r in
        select s.* from funnelvec.resolutions as s
        where s.table_name = $1 and (s.side_table is not null or s.index_options is not null)
        order by s.column_name, s.resolution
    loop
        n := funnelvec._next_of(r);
        step := n.step;
        waits := case when n.step is null then coalesce(waits, n.waits) end;
        exit when step is not null;
    end loop;
    if step is not null then
        return;
    end if;
    for w in select s.* from funnelvec.windows as s where s.table_name = $1 and not s.ready order by s.column_name, s.resolution, s.by_column loop
        n := funnelvec._window_next(w);
        step := n.step;
        waits := case when n.step is null then coalesce(waits, n.waits) end;
        exit when step is not null;
    end loop;
    if step is null and exists (
        select from pg_attribute as v where v.attrelid = $1 and v.attnum > 0 and not v.attisdropped
            and (funnelvec._hub($1, v.attname)).filling)
    then
        step := format('call funnelvec.backfill(%L);', table_name::text);
    end if;
end
$body$;

-- The same for messages, which say what has to be waited for and go on.
create or replace function funnelvec._next_said(table_name regclass)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select coalesce(n.step, n.waits) from funnelvec._next_for(table_name) as n
$body$;
