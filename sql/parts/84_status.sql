-- status: the stored resolutions and how well they cover the table, and whatever is out of step with the registry.

-- What each row is about stands in `object`. Rows of stored resolutions have `resolution`; rows without it are about something that
-- repair() looks after: a function, a column, or what a dropped table left behind.
create or replace function funnelvec.status(table_name regclass default null)
returns table (
    "table" regclass,
    column_name text,
    resolution text,
    code_column text,
    rows bigint,
    filled bigint,
    coverage double precision,
    bit_balance double precision,
    index_name regclass,
    index_bytes bigint,
    advice text,
    object text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    r funnelvec.resolutions;
    stored record;
    fault text;
begin
    for r in
        select s.*
        from funnelvec.resolutions as s
        where (status.table_name is null or s.table_name = status.table_name)
            and exists (select from pg_class as c where c.oid = s.table_name)
        order by s.table_name::text, s.column_name, substring(s.resolution, '^[0-9]{1,5}')::integer, s.resolution
    loop
        "table" := r.table_name;
        column_name := r.column_name;
        resolution := r.resolution;
        code_column := r.code_column;
        object := case r.storage when 'side' then format('table %s', r.side_table) else format('column %s.%I', r.table_name, r.code_column) end;
        rows := 0;
        filled := 0;
        coverage := 0;
        bit_balance := null;
        index_name := null;
        index_bytes := null;
        fault := coalesce(funnelvec._resolution_fault(r), funnelvec._measure_fault(r, status.table_name is not null));
        if fault is not null then
            advice := fault;
            return next;
            continue;
        end if;
        select c.* into stored
        from funnelvec._parse_resolution(r.resolution) as p
        cross join lateral funnelvec._code(p.dims, p.code, 'x', r.metric, 'f32') as c;
        select c.rows, c.filled, c.balance into rows, filled, bit_balance from funnelvec._coverage(r) as c;
        coverage := filled::double precision / nullif(rows, 0);
        index_name := funnelvec._index_of(case r.storage when 'side' then r.side_table else r.table_name end, r.code_column, stored.opclass);
        index_bytes := funnelvec._index_bytes(index_name);
        advice := concat_ws('; ',
            case when funnelvec._next_of(r) is not null then format('%s, not in use yet; next: %s', r.state, funnelvec._next_of(r)) end,
            case when filled < rows then format('%s rows have no code that an index can see (null or zero)', rows - filled) end,
            case when bit_balance < 0.7 then 'signs are lopsided: expect poor recall from this sign code' end);
        return next;
    end loop;
    return query
    select p."table", null::text, null::text, null::text, 0::bigint, 0::bigint, null::double precision, null::double precision,
        null::regclass, null::bigint, p.advice, p.object
    from funnelvec._problems() as p
    where status.table_name is null or p."table" = status.table_name
    order by p."table"::text, p.object;
end
$body$;

-- Why a row does not describe a stored resolution, with the way out; null where it does.
create or replace function funnelvec._resolution_fault(r funnelvec.resolutions)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    if exists (select from funnelvec._moved_columns() as m where m.table_name = r.table_name and m.column_name = r.column_name) then
        return (
            select format('column %I was renamed to %I: select funnelvec.repair();', m.column_name, m.new_name)
            from funnelvec._moved_columns() as m
            where m.table_name = r.table_name and m.column_name = r.column_name);
    end if;
    perform funnelvec._check_row(r.table_name, r.metric, r.resolution);
    if r.side_table is not null then
        return funnelvec._side_fault(r);
    end if;
    if funnelvec._code_column(r.table_name, r.column_name, r.resolution) is not distinct from r.code_column then
        return null;
    end if;
    return coalesce(
        (select format('column %I was renamed to %I: select funnelvec.repair();', r.code_column, m.new_name)
         from funnelvec._moved_codes() as m
         where m.table_name = r.table_name and m.column_name = r.column_name and m.resolution = r.resolution),
        format('column %I is gone, or is not what holds %s: select funnelvec.repair(); then funnelvec.add_resolution',
            r.code_column, r.resolution));
exception when others then
    -- Our own refusals say what is wrong with the row; anything else is no finding.
    if sqlstate not like 'FV%' then
        raise;
    end if;
    return format('%s: select funnelvec.repair();', sqlerrm);
end
$body$;

-- Why a column is not counted. Reading a table of somebody else's runs his row-level security policies with one's own rights:
-- that is left to whoever names the table.
create or replace function funnelvec._measure_fault(r funnelvec.resolutions, named boolean)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when not has_column_privilege(case r.storage when 'side' then r.side_table else r.table_name end, r.code_column, 'select')
            then 'not counted: you may not read the column'
        when not named and row_security_active(r.table_name)
            then format('not counted, because it has row-level security: select * from funnelvec.status(%L);', r.table_name::text)
    end
$body$;

-- Rows, and rows whose code an HNSW index can see: not null and, under cosine, not zero. Tables of more than 200,000 rows are
-- sampled by pages and scaled up. Balance of sign codes: mean over dimensions of 1 - |2 p - 1|, p = share of ones, on up to 1,000
-- rows; 1 where every dimension splits the rows in half, 0 where every dimension is constant.
create or replace function funnelvec._coverage(
    r funnelvec.resolutions,
    out rows bigint,
    out filled bigint,
    out balance double precision
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    p record := funnelvec._parse_resolution(r.resolution);
    norm text := (funnelvec._code(p.dims, p.code, 'x', r.metric, 'f32')).norm;
    visible text := case
        when norm is null then format('t.%I is not null', r.code_column)
        else format('%s(t.%I) > 0', norm, r.code_column)
    end;
    believed bigint := funnelvec._rows(r.table_name);
    drawn text := case when believed > 200000
        then format('tablesample system (%s) repeatable (0)', 100 * 200000.0 / believed) else '' end;
    few text := format('tablesample bernoulli (%s) repeatable (0)', least(100, 100 * 4000.0 / greatest(1, believed)));
begin
    if r.storage = 'side' then
        -- Rows without a vector have no code, and need none.
        visible := format('exists (select from %s as s where %s and %s)', r.side_table,
            funnelvec._side_join(r.side_table, 's', r.table_name),
            case when norm is null then 'true' else format('%s(s.%I) > 0', norm, r.code_column) end);
    end if;
    execute format('select count(*), count(*) filter (where %s) from %s as t %s', visible, r.table_name, drawn) into rows, filled;
    if drawn <> '' then
        filled := round(filled::numeric * believed / greatest(1, rows));
        rows := believed;
    end if;
    if p.code = 'bit' then
        execute format(
            'select avg(1 - abs(2 * b.p - 1)) from ('
            'select avg(get_bit(t.code, i)) as p '
            'from (select t.%1$I as code from %2$s as t %3$s where t.%1$I is not null limit 1000) as t '
            'cross join generate_series(0, %4$s - 1) as i group by i) as b',
            r.code_column, case r.storage when 'side' then r.side_table else r.table_name end, few, p.dims)
        into balance;
    end if;
end
$body$;

comment on function funnelvec.status(regclass)
    is 'stored resolutions: coverage, balance of sign codes, index and its size, advice; and what repair() would mend';
