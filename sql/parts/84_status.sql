-- status: the stored resolutions and how well they cover the table.

-- The stored resolutions, how much of the table their index can see, and whether sign codes are balanced.
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
    advice text
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    r funnelvec.resolutions;
    stored record;
begin
    for r in
        select s.*
        from funnelvec.resolutions as s
        where (status.table_name is null or s.table_name = status.table_name)
            and exists (select from pg_class as c where c.oid = s.table_name)
        order by s.table_name::text, s.column_name, funnelvec._width(s.resolution), s.resolution
    loop
        "table" := r.table_name;
        column_name := r.column_name;
        resolution := r.resolution;
        code_column := r.code_column;
        select c.* into stored
        from funnelvec._parse_resolution(r.resolution) as p
        cross join lateral funnelvec._code(p.dims, p.code, 'x', r.metric, 'f32') as c;
        if not exists (
            select from pg_attribute as a
            where a.attrelid = r.table_name and a.attname = r.code_column and not a.attisdropped
        ) then
            rows := 0;
            filled := 0;
            coverage := 0;
            bit_balance := null;
            index_name := null;
            index_bytes := null;
            advice := format('column %s is gone or renamed', r.code_column);
            return next;
            continue;
        end if;
        select c.rows, c.filled, c.balance into rows, filled, bit_balance from funnelvec._coverage(r) as c;
        coverage := filled::double precision / nullif(rows, 0);
        index_name := funnelvec._index_of(r.table_name, r.code_column, stored.opclass);
        index_bytes := funnelvec._index_bytes(index_name);
        advice := concat_ws('; ',
            case when filled < rows then format('%s rows have no code that an index can see (null or zero)', rows - filled) end,
            case when bit_balance < 0.7 then 'signs are lopsided: expect poor recall from this sign code' end);
        return next;
    end loop;
end
$body$;

create or replace function funnelvec._width(resolution text)
returns integer
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select p.dims from funnelvec._parse_resolution(resolution) as p
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
            r.code_column, r.table_name, few, p.dims)
        into balance;
    end if;
end
$body$;

comment on function funnelvec.status(regclass)
    is 'stored resolutions: coverage, balance of sign codes, index and its size, advice';
