-- Windows: partial HNSW indexes over ranges of a number, a date or a time, so that a search with a range in its filter goes through
-- about as many rows as the range has, and not through the whole table (Engels et al., ICML 2024, "super-postfiltering").
--
-- Level by level windows have half the rows, and each begins in the middle of the one before it: 3 windows of a half of the rows, 7 of
-- a quarter, 15 of an eighth. A range of at most a quarter of the rows then lies in a window that has at most four times its rows, as
-- far as there are levels. The first window of a level has no lower bound, and the last one no upper bound. Rows where the column is
-- null are in none: no range holds them either.
--
-- Nothing depends on windows but time: a search keeps its filter, and 63_window_search names a window to the planner only where the
-- filter implies it. So bounds may be old and shares wrong, and an index may be gone.

-- What the levels of a plan end with, where nobody says how many: so few rows are compared as fast as they are looked for.
create or replace function funnelvec._window_floor()
returns bigint
language sql immutable parallel safe
return 8000;

create or replace function funnelvec._most_window_levels()
returns integer
language sql immutable parallel safe
return 6;

-- The windows of so many levels over cells of equal numbers of rows: from the cell `first` on, before the cell `last`.
create or replace function funnelvec._window_plan(levels integer)
returns table (level integer, first integer, last integer)
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
    select l.level, i.number * s.half, (i.number + 2) * s.half
    from generate_series(1, levels) as l (level)
    cross join lateral (select 1 << (levels - l.level)) as s (half)
    cross join lateral generate_series(0, (2 << l.level) - 2) as i (number)
$body$;

-- The windows of a row of the registry. Values that many rows have make bounds equal and windows the same: those are one. One that has
-- most of the rows is no gain over the index of all.
create or replace function funnelvec._windows_of(w funnelvec.windows)
returns table (level integer, first integer, last integer, lo text, hi text, share double precision)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select min(p.level), min(p.first), max(p.last), p.lo, p.hi, max(p.share)
    from (
        select g.level, g.first, g.last, w.bounds[g.first] as lo, w.bounds[g.last] as hi,
            (select round(sum(s)::numeric, 6)::double precision from unnest(w.shares[g.first + 1:g.last]) as s) as share
        from funnelvec._window_plan(least(w.levels, funnelvec._most_window_levels())) as g
    ) as p
    where p.share > 0 and p.share <= 0.75 and (p.lo <> p.hi) is not false
    group by p.lo, p.hi
    order by 1, 2
$body$;

-- That a row lies in a window, as the planner has to find it in the index and in a search, to the letter.
create or replace function funnelvec._window_sql(target text, type text, lo text, hi text)
returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
    select concat_ws(' and ',
        case when lo is not null then format('%s >= %L::%s', target, lo, type) end,
        case when hi is not null then format('%s < %L::%s', target, hi, type) end)
$body$;

-- The column that windows run over: what its type is made of, and of which kind that is. Refused: what has no numeric order.
create or replace function funnelvec._window_column(
    table_name regclass,
    by_column text,
    out type_id oid,
    out type text,
    out kind text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    with recursive made_of (type, level) as (
        select a.atttypid, 0
        from pg_attribute as a
        where a.attrelid = table_name and a.attname = by_column and a.attnum > 0 and not a.attisdropped
        union all
        select t.typbasetype, m.level + 1 from made_of as m join pg_type as t on t.oid = m.type and t.typtype = 'd'
    )
    select m.type into type_id from made_of as m order by m.level desc limit 1;
    type := format_type(type_id, null);
    kind := funnelvec._filter_kind(type_id);
    if type_id is null then
        raise exception using
            errcode = 'FV005',
            message = format('table %s has no column %s', table_name, coalesce(quote_literal(left(by_column, 100)), 'null')),
            hint = 'Name the column whose ranges searches filter by.';
    elsif kind is null or kind not in ('integer', 'number', 'date', 'timestamp') then
        raise exception using
            errcode = 'FV009',
            message = format('column %L of %s has the type %s; windows are over numbers, dates and times', by_column, table_name, type),
            hint = 'A filter on it runs as it did: iterating through the index, or comparing all rows that match.';
    end if;
end
$body$;

-- What a row of the registry says, checked: whoever owns the table may have written it by hand, and bounds that do not ascend would
-- make a search leave rows out. Returns the type of the column.
create or replace function funnelvec._check_windows(w funnelvec.windows)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
set timezone = 'UTC'
as $body$
declare
    found record := funnelvec._window_column(w.table_name, w.by_column);
    ascending boolean;
begin
    perform funnelvec._parse_resolution(w.resolution);
    begin
        if w.levels not between 1 and funnelvec._most_window_levels() or array_position(w.bounds, null) is not null
            or cardinality(w.bounds) is distinct from (2 << w.levels) - 1 or cardinality(w.shares) is distinct from 2 << w.levels
            or array_position(w.shares, null) is not null
        then
            ascending := false;
        else
            execute format(
                'select bool_and(b.value >= b.before) is not false from ('
                'select u.value, lag(u.value) over (order by u.ordinality) from unnest($1::%s[]) with ordinality as u (value, ordinality)'
                ') as b (value, before)', found.type)
            into ascending using w.bounds;
        end if;
        perform funnelvec._check_index_options(w.m, w.ef_construction);
    exception when data_exception or sqlstate 'FV004' then
        ascending := false;
    end;
    if not ascending then
        raise exception using
            errcode = 'FV004',
            message = format('the windows of %s by %s say nothing usable', w.table_name, w.by_column),
            hint = format('select funnelvec.drop_window(%L, %L, %L, %L); then add them again.', w.table_name::text, w.column_name, w.resolution, w.by_column);
    end if;
    return found.type;
end
$body$;

-- The operators that the codes of a resolution are searched by.
create or replace function funnelvec._window_opclass(table_name regclass, column_name text, resolution text)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select funnelvec._opclass($3, funnelvec._metric_at($1, $2, $3, funnelvec._metric_of($1, $2, null)))
$body$;

-- HNSW indexes over a code that hold one range of one column, whoever made them: `lo` and `hi` as the type prints its values. The
-- settings are for that: the catalogue prints times in the session's zone, and dates in its style.
create or replace function funnelvec._window_indexes(relation regclass, code_column text, opclass text)
returns table (name regclass, valid boolean, attached boolean, by_column text, lo text, hi text, rows double precision)
language sql stable
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
set timezone = 'UTC'
set extra_float_digits = 1
as $body$
    select i.indexrelid::regclass, i.indisvalid and i.indisready, c.relispartition, d.names[1], r.lo, r.hi,
        case c.relkind when 'I' then (select sum(greatest(0, l.reltuples)) from pg_partition_tree(c.oid) as p join pg_class as l on l.oid = p.relid where p.isleaf)
            else greatest(0, c.reltuples) end
    from pg_index as i
    join pg_class as c on c.oid = i.indexrelid
    join pg_am as m on m.oid = c.relam
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    join pg_opclass as o on o.oid = i.indclass[0]
    join pg_namespace as n on n.oid = o.opcnamespace
    cross join lateral (
        select array_agg(b.attname::text)
        from (select distinct d.refobjsubid from pg_depend as d
              where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid and d.refclassid = 'pg_class'::regclass
                  and d.refobjid = i.indrelid and d.refobjsubid <> a.attnum and d.refobjsubid > 0) as s
        join pg_attribute as b on b.attrelid = i.indrelid and b.attnum = s.refobjsubid
    ) as d (names)
    cross join lateral (
        select regexp_match(pg_get_expr(i.indpred, i.indrelid), format('^\((?:\(?%1$s >= (%2$s)\)?)?(?: AND )?(?:\(?%1$s < (%2$s)\)?)?\)$',
            -- A column of a domain is read as what that is made of.
            format('(?:%1$s|\(%1$s\)::[a-z ]+)', regexp_replace(quote_ident(d.names[1]), '([!-/:-@[-`{-~])', '\\\1', 'g')),
            '''[^'']*''::[a-z ]+|[0-9.]+'))
    ) as v (bounds)
    cross join lateral (
        select regexp_replace(v.bounds[1], '^''(.*)''::.*$', '\1'), regexp_replace(v.bounds[2], '^''(.*)''::.*$', '\1')
    ) as r (lo, hi)
    where i.indrelid = relation and m.amname = 'hnsw' and a.attname = code_column
        and format('%I.%I', n.nspname, o.opcname) = opclass
        -- Nothing but one range of one column: a bound, or both.
        and cardinality(d.names) = 1 and coalesce(r.lo, r.hi) is not null
    order by i.indexrelid
$body$;

-- The index of each window over a table or a leaf of it; `name` is null where there is none.
create or replace function funnelvec._window_state(w funnelvec.windows, relation regclass)
returns table (
    level integer,
    first integer,
    last integer,
    lo text,
    hi text,
    share double precision,
    name regclass,
    valid boolean,
    attached boolean,
    rows double precision
)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    -- Read once, not once for every window.
    with stored as materialized (
        select s.code_column from funnelvec._stored(w.table_name, w.column_name, w.resolution) as s
    ), indexes as materialized (
        select i.*
        from stored as s
        cross join lateral funnelvec._window_indexes($2, s.code_column,
            funnelvec._window_opclass(w.table_name, w.column_name, w.resolution)) as i
    )
    select distinct on (p.level, p.first) p.level, p.first, p.last, p.lo, p.hi, p.share, i.name, i.valid, i.attached, i.rows
    from funnelvec._windows_of(w) as p
    cross join stored as s
    left join indexes as i
        on i.by_column = w.by_column and i.lo is not distinct from p.lo and i.hi is not distinct from p.hi
    order by p.level, p.first, i.valid desc, i.attached, i.name::oid
$body$;

-- Bounds and shares of the rows as they are now, or as a sample of a large table has them. Shares are of all rows.
create or replace function funnelvec._measure_windows(w funnelvec.windows, type text)
returns funnelvec.windows
language plpgsql stable
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
set timezone = 'UTC'
set extra_float_digits = 1
as $body$
declare
    believed bigint := funnelvec._rows(w.table_name);
    sampled text := case when believed > 200000 then format('tablesample system (%s) repeatable (0)', 100 * 100000.0 / believed) else '' end;
    known double precision;
begin
    if w.levels is null then
        execute format('select count(t.%I) / greatest(1, count(*))::double precision from %s as t %s', w.by_column, w.table_name, sampled)
        into known;
        w.levels := least(3, floor(log(2, greatest(1, (known * believed / funnelvec._window_floor())::numeric))));
        if w.levels < 1 then
            raise exception using
                errcode = 'FV009',
                message = format('%s has about %s rows with a value in %I; searches among so few are as fast without windows',
                    w.table_name, round(known * believed), w.by_column),
                hint = format('From %s rows on they are worth it. Pass levels => 1 to have them all the same.', 2 * funnelvec._window_floor());
        end if;
    end if;
    execute format(
        'select percentile_disc(array(select i / %1$s::double precision from generate_series(1, %1$s - 1) as i)) within group (order by t.%2$I::%3$s)::text[] '
        'from %4$s as t %5$s', 2 << w.levels, w.by_column, type, w.table_name, sampled)
    into w.bounds;
    execute format(
        'select array(select round(coalesce(c.number, 0) / greatest(1, sum(c.number) over ()), 6)::double precision '
        'from generate_series(0, %1$s) as i '
        'full join (select width_bucket(t.%2$I::%3$s, $1::%3$s[]) as cell, count(*) as number from %4$s as t %5$s group by 1) as c on c.cell = i '
        'order by i nulls last)', (2 << w.levels) - 1, w.by_column, type, w.table_name, sampled)
    into w.shares using w.bounds;
    -- The last one is of the rows without a value.
    w.shares := w.shares[:2 << w.levels];
    if w.bounds is null or array_position(w.bounds, null) is not null or not exists (select from funnelvec._windows_of(w)) then
        raise exception using
            errcode = 'FV009',
            message = format('column %I of %s takes too few values to make windows of', w.by_column, w.table_name),
            hint = case when believed = 0 then 'Load the rows first: windows begin and end where the rows say.'
                else 'Ranges of it hold most of the rows, or none.' end;
    end if;
    return w;
end
$body$;

-- Where windows can be: over codes in the table itself, where searches start from an index.
create or replace function funnelvec._check_window(
    table_name regclass,
    column_name text,
    resolution text,
    by_column text,
    levels integer
)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    place record;
begin
    perform funnelvec._parse_resolution(resolution);
    perform funnelvec._base(table_name, column_name);
    perform funnelvec._check_owner(table_name);
    if levels not between 1 and funnelvec._most_window_levels() then
        raise exception using
            errcode = 'FV004',
            message = format('levels is %s', levels),
            hint = format('Ask for 1 to %s; %s make %s windows.', funnelvec._most_window_levels(), 3, 25);
    end if;
    place := funnelvec._stored(table_name, column_name, resolution);
    if place.storage = 'side' then
        raise exception using
            errcode = 'FV009',
            message = format('%s of %s.%I is kept in a side table, which does not hold %I', resolution, table_name, column_name, by_column),
            hint = format('Windows need the code and the column in one table: select funnelvec.add_resolution(%L, %L, %L, storage => ''column'');',
                table_name::text, column_name, resolution);
    elsif place.code_column is null or not funnelvec._starts_with_index(table_name, column_name, resolution) then
        raise exception using
            errcode = 'FV005',
            message = format('%s.%I has no index over %s, and windows are parts of one', table_name, column_name, resolution),
            hint = format('select funnelvec.add_resolution(%L, %L, %L, index => true);', table_name::text, column_name, resolution);
    end if;
    perform funnelvec._window_column(table_name, by_column);
end
$body$;
