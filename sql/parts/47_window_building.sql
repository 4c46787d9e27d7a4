-- Windows: made, built a statement at a time, used and dropped.

-- Whether a resolution has an index, or is to get one by next_step.
create or replace function funnelvec._starts_with_index(table_name regclass, column_name text, resolution text)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select exists (
            select from funnelvec.resolutions as r
            where r.table_name = $1 and r.column_name = $2 and r.resolution = $3 and r.index_options is not null)
        or funnelvec._index_of(s.relation, s.code_column, funnelvec._window_opclass($1, $2, $3)) is not null
    from funnelvec._stored($1, $2, $3) as s
$body$;

-- The statement that makes the index of a window; `name` is free, or Postgres would refuse it.
create or replace function funnelvec._window_index_sql(
    w funnelvec.windows,
    relation regclass,
    lo text,
    hi text,
    level integer,
    "concurrently" boolean
)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    place record := funnelvec._stored(w.table_name, w.column_name, w.resolution);
    front text := format('%s_%s_%s', (select c.relname from pg_class as c where c.oid = relation), place.code_column, w.by_column);
    name text;
    number integer := 1;
begin
    loop
        name := funnelvec._fit_name(front, format('_w%s_%s', level, number));
        exit when not exists (
            select from pg_class as c join pg_class as t on t.oid = relation where c.relnamespace = t.relnamespace and c.relname = name);
        number := number + 1;
    end loop;
    return format('create index %s%I on %s using hnsw (%I %s) with (m = %s, ef_construction = %s) where %s;',
        case when "concurrently" then 'concurrently if not exists ' end, name, relation, place.code_column,
        funnelvec._window_opclass(w.table_name, w.column_name, w.resolution), w.m, w.ef_construction,
        funnelvec._window_sql(format('%I', w.by_column), funnelvec._check_windows(w), lo, hi));
end
$body$;

-- Make the windows of a column, for searches that start at a resolution of it. Returns how many there are. Called again it makes those
-- that are missing.
create or replace function funnelvec.add_window(
    table_name regclass,
    column_name text,
    resolution text,
    "by" text,
    levels integer default null,
    m integer default 16,
    ef_construction integer default 64,
    allow_rewrite boolean default false,
    "concurrently" boolean default false
)
returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    w funnelvec.windows;
    later constant boolean := coalesce("concurrently", false);
begin
    perform funnelvec._check_window(table_name, column_name, resolution, "by", levels);
    perform funnelvec._check_index_options(m, ef_construction);
    select s.* into w
    from funnelvec.windows as s
    where s.table_name = $1 and s.column_name = $2 and s.resolution = $3 and s.by_column = $4;
    if w.levels <> add_window.levels then
        raise exception using
            errcode = 'FV008',
            message = format('%s of %s.%I has windows by %I of %s levels', resolution, table_name, column_name, "by", w.levels),
            hint = format('select funnelvec.drop_window(%L, %L, %L, %L); first.', table_name::text, column_name, resolution, "by");
    end if;
    if not later and not coalesce(allow_rewrite, false) and funnelvec._rows(table_name) > funnelvec._rewrite_limit()
        and (w.table_name is null or exists (select from funnelvec._window_state(w, table_name) as s where s.valid is not true))
    then
        raise exception using
            errcode = 'FV008',
            message = format('building windows over the %s rows of %s stops everybody from writing meanwhile', funnelvec._rows(table_name), table_name),
            hint = 'Pass concurrently => true and run what funnelvec.next_step says; or allow_rewrite => true, if that is acceptable now.';
    end if;
    if w.table_name is null then
        w.table_name := table_name;
        w.column_name := column_name;
        w.resolution := resolution;
        w.by_column := "by";
        w.levels := levels;
        w.m := m;
        w.ef_construction := ef_construction;
        w.ready := false;
        w.created_at := now();
        w := funnelvec._measure_windows(w, (funnelvec._window_column(table_name, "by")).type);
        insert into funnelvec.windows select w.*;
    end if;
    if later then
        update funnelvec.windows as u set ready = false
        where u.table_name = $1 and u.column_name = $2 and u.resolution = $3 and u.by_column = $4
            and exists (select from funnelvec._window_state(w, $1) as s where s.valid is not true);
        -- They say what their table's windows are, from which repair reads them back.
        perform funnelvec._write_functions($1, $2);
        if funnelvec._next_said(table_name) is not null then
            raise notice 'windows of % are not finished; next: %', table_name, funnelvec._next_said(table_name);
        end if;
    else
        perform funnelvec._build_windows(w);
        perform funnelvec._use_windows(table_name, column_name, resolution);
    end if;
    return (select count(*) from funnelvec._windows_of(w));
end
$body$;

create or replace function funnelvec._build_windows(w funnelvec.windows)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    s record;
begin
    for s in select t.* from funnelvec._window_state(w, w.table_name) as t where t.valid is not true loop
        if s.name is not null then
            execute format('drop index %s', s.name);
        end if;
        execute funnelvec._window_index_sql(w, w.table_name, s.lo, s.hi, s.level, false);
    end loop;
end
$body$;

-- Let searches use the windows of a resolution that are built. Over a partitioned table the indexes are made here: where each partition
-- has its own, Postgres takes those over and builds nothing.
create or replace function funnelvec._use_windows(table_name regclass, column_name text, resolution text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    w funnelvec.windows;
    n record;
begin
    for w in
        select s.* from funnelvec.windows as s
        where s.table_name = $1 and s.column_name = $2 and s.resolution = $3 and not s.ready
        order by s.by_column
    loop
        if (select c.relkind = 'p' from pg_class as c where c.oid = $1) then
            -- Nobody attaches a partition while this is held.
            perform funnelvec._lock_briefly('share', $1);
        end if;
        n := funnelvec._window_leaf_step(w);
        if coalesce(n.step, n.waits) is not null then
            raise exception using
                errcode = 'FV008',
                message = format('the windows of %s by %s are not built', $1, w.by_column),
                hint = 'Next: ' || coalesce(n.step, n.waits);
        end if;
        perform funnelvec._build_windows(w);
        update funnelvec.windows as u set ready = true
        where u.table_name = $1 and u.column_name = $2 and u.resolution = $3 and u.by_column = w.by_column;
    end loop;
    perform funnelvec._write_functions($1, $2);
end
$body$;

-- The first statement that a window still needs before all of them are built, leaf by leaf; both null where none is.
create or replace function funnelvec._window_leaf_step(w funnelvec.windows, out step text, out waits text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    leaf regclass;
    s record;
    found record;
begin
    for leaf in select l.relation from funnelvec._leaves(w.table_name) as l loop
        for s in select t.* from funnelvec._window_state(w, leaf) as t where t.valid is not true loop
            if s.name is null then
                step := funnelvec._window_index_sql(w, leaf, s.lo, s.hi, s.level, true);
                return;
            end if;
            found := funnelvec._broken_step(leaf, s.name);
            step := found.step;
            waits := coalesce(waits, found.waits);
            if step is not null then
                return;
            end if;
        end loop;
    end loop;
end
$body$;

-- The statement that takes windows a step on; both null where they are in use.
create or replace function funnelvec._window_next(w funnelvec.windows, out step text, out waits text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    found record;
begin
    if w.ready or funnelvec._window_fault(w) is not null then
        return;
    end if;
    found := funnelvec._window_leaf_step(w);
    step := found.step;
    waits := found.waits;
    if step is null and waits is null then
        step := format('select funnelvec.activate(%L, %L, %L);', w.table_name::text, w.column_name, w.resolution);
    end if;
end
$body$;

-- Why windows can't be used, with the way out; null where they can.
create or replace function funnelvec._window_fault(w funnelvec.windows)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    moved text := (select m.new_name from funnelvec._moved_windows() as m
        where m.table_name = w.table_name and m.column_name = w.column_name and m.resolution = w.resolution and m.by_column = w.by_column);
    place record;
begin
    if moved is not null then
        return format('column %I was renamed to %I: select funnelvec.repair();', w.by_column, moved);
    end if;
    perform funnelvec._check_windows(w);
    place := funnelvec._stored(w.table_name, w.column_name, w.resolution);
    if place.storage is null or place.storage = 'side' then
        return format('%s.%I does not keep %s in the table: select funnelvec.repair();', w.table_name, w.column_name, w.resolution);
    end if;
    return null;
exception when others then
    -- Our own refusals say what is wrong with the row; anything else is no finding.
    if sqlstate not like 'FV%' then
        raise;
    end if;
    return format('%s: select funnelvec.repair();', sqlerrm);
end
$body$;

-- Columns of windows that go by another name now: no window is over the old name, and those of one other column are as the row says.
create or replace function funnelvec._moved_windows()
returns table (table_name regclass, column_name text, resolution text, by_column text, new_name text)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select w.table_name, w.column_name, w.resolution, w.by_column, min(i.by_column)
    from funnelvec.windows as w
    cross join lateral funnelvec._windows_of(w) as p
    join funnelvec.resolutions as r
        on r.table_name = w.table_name and r.column_name = w.column_name and r.resolution = w.resolution and r.storage = 'column'
    cross join lateral funnelvec._window_indexes(w.table_name, r.code_column, funnelvec._window_opclass(w.table_name, w.column_name, w.resolution)) as i
    where i.lo is not distinct from p.lo and i.hi is not distinct from p.hi
    group by w.table_name, w.column_name, w.resolution, w.by_column
    having count(distinct i.by_column) = 1 and min(i.by_column) <> w.by_column
$body$;

-- Remove windows and their indexes. Searches with a range in their filter go on by the index of all rows.
create or replace function funnelvec.drop_window(table_name regclass, column_name text, resolution text, "by" text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
    perform funnelvec._parse_resolution(resolution);
    perform funnelvec._check_table(table_name);
    perform funnelvec._check_owner(table_name);
    if not exists (
        select from funnelvec.windows as w
        where w.table_name = $1 and w.column_name = $2 and w.resolution = $3 and w.by_column = $4)
    then
        raise exception using
            errcode = 'FV005',
            message = format('%s has no windows by %s over %s of the column %L', table_name, coalesce(quote_literal(left("by", 100)), 'null'),
                resolution, left(column_name, 100)),
            hint = format('It has: %s.', coalesce((
                select string_agg(format('%s by %s', w.resolution, w.by_column), ', ' order by w.resolution, w.by_column)
                from funnelvec.windows as w where w.table_name = $1 and w.column_name = $2), 'none'));
    end if;
    perform funnelvec._drop_windows(table_name, column_name, resolution, "by");
    perform funnelvec._write_functions(table_name, column_name);
end
$body$;

-- All windows of a resolution, or those by one column, with their indexes.
create or replace function funnelvec._drop_windows(table_name regclass, column_name text, resolution text, by_column text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    made regclass[];
    w funnelvec.windows;
    leaf regclass;
begin
    for w in
        delete from funnelvec.windows as d
        where d.table_name = $1 and d.column_name = $2 and d.resolution = $3 and d.by_column = coalesce($4, d.by_column)
        returning d.*
    loop
        -- Parts of an index of the whole table go with it.
        for leaf in select l.relation from funnelvec._leaves($1) as l union select $1 loop
            made := made || array(select s.name from funnelvec._window_state(w, leaf) as s where s.name is not null and not s.attached);
        end loop;
    end loop;
    if cardinality(made) > 0 then
        perform funnelvec._lock_briefly('access exclusive', $1);
        execute format('drop index %s', (select string_agg(n::text, ', ') from unnest(made) as n));
    end if;
end
$body$;

comment on function funnelvec.add_window(regclass, text, text, text, integer, integer, integer, boolean, boolean)
    is 'partial indexes over ranges of a number, date or time, which searches with such a range in their filter use; concurrently => true leaves them to next_step';
comment on function funnelvec.drop_window(regclass, text, text, text)
    is 'remove the windows of a resolution by a column, and their indexes';
