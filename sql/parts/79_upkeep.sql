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
    select
        sum(s.n_dead_tup), sum(s.n_dead_tup) / nullif(sum(s.n_live_tup + s.n_dead_tup)::double precision, 0),
        -- The oldest of its partitions; null as long as one of them was never looked after.
        case when bool_and(greatest(s.last_vacuum, s.last_autovacuum) is not null)
            then min(greatest(s.last_vacuum, s.last_autovacuum)) end,
        sum(s.n_tup_upd), sum(s.n_tup_hot_upd), sum((to_jsonb(s) ->> 'n_tup_newpage_upd')::bigint),
        min(coalesce((
            select o.option_value::integer
            from pg_options_to_table(c.reloptions) as o
            where o.option_name = 'fillfactor'), 100)),
        sum(pg_relation_size(c.oid))
    into dead, dead_share, vacuumed_at, updates, hot_updates, moved, fillfactor, bytes
    from funnelvec._heaps(relation) as h (oid)
    join pg_class as c on c.oid = h.oid
    join pg_stat_all_tables as s on s.relid = c.oid;
    -- A partitioned table has statistics of its own, which only `analyze` by name makes.
    select case when c.relkind = 'r' then s.n_mod_since_analyze end, greatest(s.last_analyze, s.last_autoanalyze)
    into changed, analyzed_at
    from pg_class as c
    left join pg_stat_all_tables as s on s.relid = c.oid
    where c.oid = relation;
    rows := funnelvec._rows(relation);
    row_bytes := coalesce(
        (
            select 28 + sum(w.avg_width)
            from (
                select distinct on (s.attname) s.avg_width
                from pg_stats as s
                join pg_class as c on c.oid = relation
                join pg_namespace as n on n.oid = c.relnamespace
                where s.schemaname = n.nspname and s.tablename = c.relname
                order by s.attname, s.inherited desc
            ) as w
        ),
        bytes / nullif(rows, 0)::double precision);
    analyzed := analyzed_at is not null or row_security_active(relation)
        or exists (
            select
            from pg_stats as s
            join pg_class as c on c.oid = relation
            join pg_namespace as n on n.oid = c.relnamespace
            where s.schemaname = n.nspname and s.tablename = c.relname);
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
    join pg_class as c on c.oid = relation
    join pg_namespace as n on n.oid = c.relnamespace
    where s.schemaname = n.nspname and s.tablename = c.relname and s.attname = column_name
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
