-- Upkeep: what PostgreSQL itself knows of a table (its counters and statistics), for explain and status. Nothing here reads a row.

-- The relation and, where it is partitioned, its leaves: what holds rows.
create or replace function funnelvec._heaps(relation regclass)
returns setof regclass
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select c.oid::regclass from pg_class as c where c.oid = relation and c.relkind = 'r'
    union
    select p.relid from pg_partition_tree(relation) as p where p.isleaf
$body$;

-- Counters since they were last reset, over all partitions.
--   dead_share      of the row versions on disk, those that nobody can see any more
--   changed         rows inserted, updated or deleted since the last analyze
--   analyzed        whether the planner has statistics; true where one may not see them
--   moved           updates whose new version went to another page; null where PostgreSQL does not count them (before 16)
--   row_bytes       of a row on its page, by the statistics; without them, of the pages per row
create or replace function funnelvec._upkeep(
    relation regclass,
    out rows bigint,
    out dead bigint,
    out dead_share double precision,
    out changed bigint,
    out vacuumed_at timestamptz,
    out analyzed_at timestamptz,
    out analyzed boolean,
    out updates bigint,
    out hot_updates bigint,
    out moved bigint,
    out fillfactor integer,
    out row_bytes double precision
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    bytes bigint;
begin
    -- By the functions under the view pg_stat_all_tables: to plan that takes longer than all the rest.
    select
        sum(s.dead), sum(s.dead) / nullif(sum(s.live + s.dead)::double precision, 0),
        -- The oldest of its partitions; null as long as one of them was never looked after.
        case when bool_and(s.vacuumed_at is not null) then min(s.vacuumed_at) end,
        sum(pg_stat_get_tuples_updated(c.oid)), sum(pg_stat_get_tuples_hot_updated(c.oid)),
        min(coalesce((
            select o.option_value::integer
            from pg_options_to_table(c.reloptions) as o
            where o.option_name = 'fillfactor'), 100)),
        sum(pg_relation_size(c.oid))
    into dead, dead_share, vacuumed_at, updates, hot_updates, fillfactor, bytes
    from funnelvec._heaps(relation) as h (oid)
    join pg_class as c on c.oid = h.oid
    cross join lateral (
        select pg_stat_get_live_tuples(c.oid), pg_stat_get_dead_tuples(c.oid),
            greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid))
    ) as s (live, dead, vacuumed_at);
    if current_setting('server_version_num')::integer >= 160000 then
        select sum(pg_stat_get_tuples_newpage_updated(h.oid)) into moved from funnelvec._heaps(relation) as h (oid);
    end if;
    -- A partitioned table has statistics of its own, which only `analyze` by name makes.
    select
        case when c.relkind = 'r' then pg_stat_get_mod_since_analyze(c.oid) end,
        greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid))
    into changed, analyzed_at
    from pg_class as c
    where c.oid = relation;
    rows := funnelvec._rows(relation);
    select 28 + sum(w.avg_width) into row_bytes
    from (
        -- The names first: joined, the view would be read for all tables there are.
        select distinct on (s.attname) s.avg_width
        from pg_stats as s
        where s.tablename = (select c.relname from pg_class as c where c.oid = relation)
            and s.schemaname = (
                select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = relation)
        order by s.attname, s.inherited desc
    ) as w;
    -- Every column that has statistics has a width.
    analyzed := analyzed_at is not null or row_bytes is not null or row_security_active(relation);
    row_bytes := coalesce(row_bytes, bytes / nullif(rows, 0)::double precision);
end
$body$;

-- What to do where the planner's statistics no longer fit; null where they do, or where the table is small.
create or replace function funnelvec._stale_advice(relation regclass, rows bigint, analyzed boolean, changed bigint)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case
        when rows < 10000 then null
        when not analyzed then format('the planner has no statistics of %1$s: analyze %1$s;', relation)
        when changed > greatest(10000, rows / 5)
            then format('%s rows of %s have changed since its last analyze: analyze %2$s;', changed, relation)
    end
$body$;

-- Bytes of a code as it stands in a row; short values have a header of one byte instead of four.
create or replace function funnelvec._code_bytes(dims integer, code text)
returns integer
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
    select case when b.bytes <= 130 then b.bytes - 3 else b.bytes end
    from (select case code when 'f32' then 8 + 4 * dims when 'f16' then 8 + 2 * dims else 8 + (dims * funnelvec._levels(code) + 7) / 8 end) as b (bytes)
$body$;

-- The share of codes that lie out of line, in the TOAST table, by the statistics: a value there counts with its pointer of 18 bytes,
-- one in the row with its length. Null where there are no statistics that one may see. Vectors longer than the toaster's threshold
-- are told apart by this; the shortest codes never leave the row.
create or replace function funnelvec._toasted_by_statistics(relation regclass, column_name text, bytes integer)
returns double precision
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case when bytes < 32 then 0 else greatest(0, least(1, (bytes - s.avg_width) / (bytes - 18)::double precision)) end
    from pg_stats as s
    where s.tablename = (select c.relname from pg_class as c where c.oid = relation)
        and s.schemaname = (select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = relation)
        and s.attname = column_name
    order by s.inherited desc
    limit 1
$body$;

create or replace function funnelvec._toasted_advice(relation regclass, column_name text, share double precision)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select format('%s %% of the codes in %I lie out of line, where each costs a look into the TOAST table: ', round(100 * share), column_name)
        || case
            when a.attstorage = 'm' then 'the rows are too long; store fewer or narrower resolutions'
            else format('alter table %s alter column %I set storage main; new rows then keep them, vacuum full %1$s; moves the others '
                '(nobody can use the table meanwhile)', relation, column_name)
        end
    from pg_attribute as a
    where a.attrelid = relation and a.attname = column_name
$body$;
