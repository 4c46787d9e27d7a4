-- Narrow or wide: whether the rows that a filter leaves are better all compared, or looked for in the index.
--
-- The index gives rows in order of distance, whatever the filter, so it goes through keep * (all rows / matching rows) of them until
-- the first keep is full, and gives up after hnsw.max_scan_tuples. Comparing all matching rows costs what the planner says that
-- fetching them costs, by an index on the filtered column or a scan. Which of the two is less work depends on both, so it is asked
-- for every call: one EXPLAIN of the filter alone, about a tenth of a millisecond. It decides about time only: where the estimate
-- was wrong, the tries of the typed function still find every row.
--
-- Of conditions in JSON, and of two columns that go together, the planner knows next to nothing and believes in few rows. So before
-- much work is done on its word, about a thousand rows are drawn, and their share counts if it is a good deal larger.

-- With a window (63_window_search) the index has that share of the rows alone, and it goes through as many fewer.

-- `filtered` is ' and (predicate)' or null, where row-level security alone filters. `matching` and `total` are what the planner
-- believes of the table as this role sees it. Volatile, because EXPLAIN may not stand in a stable function.
create or replace function funnelvec._narrow(
    table_name regclass,
    filtered text,
    keep integer,
    share double precision default null,
    out narrow boolean,
    out matching double precision,
    out total double precision
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $body$
declare
    -- In the planner's units, fitted to times with everything in memory (docs/benchmark.md, filters): one row that the index goes
    -- through, with its neighbours, and one row that is compared and sorted.
    visit constant double precision := 10;
    comparison constant double precision := 0.25;
    -- Work that is worth a look at so many rows beforehand.
    doubtful constant double precision := 20000;
    drawn constant double precision := 1000;
    line text;
    cost double precision;
    -- Known once pgvector is loaded; 20000 is its default.
    limited double precision := coalesce(current_setting('hnsw.max_scan_tuples', true), '20000');
    visits double precision;
    looked_at double precision;
    sampled double precision;
begin
    execute format('explain select from %s as t where true%s', table_name, filtered) into line;
    cost := substring(line, '\(cost=[0-9.]+\.\.([0-9.]+) rows=[0-9]+ width=[0-9]+\)$');
    matching := greatest(1, substring(line, ' rows=([0-9]+) width=[0-9]+\)$')::double precision);
    select case c.relkind
        when 'r' then c.reltuples
        else (
            select sum(greatest(0, l.reltuples))
            from pg_partition_tree(table_name) as p join pg_class as l on l.oid = p.relid
            where p.isleaf)
    end
    into total
    from pg_class as c
    where c.oid = table_name;
    if total > 0 is not true then
        -- Never analysed: what the planner makes of the size of the table.
        execute format('explain select from %s', table_name) into line;
        total := substring(line, ' rows=([0-9]+) width=[0-9]+\)$');
    end if;
    total := greatest(total, matching);
    visits := keep * greatest(matching, total * coalesce(share, 1)) / matching;
    narrow := coalesce(visits > limited or cost + comparison * matching < visit * visits, false);
    if narrow and filtered is not null and cost + comparison * matching > doubtful and total > drawn then
        -- The same rows each time, so that the next page is answered the same way.
        execute format('select count(*), count(*) filter (where true%s) from %s as t tablesample system (%s) repeatable (1)',
            filtered, table_name, 100 * drawn / total)
        into looked_at, sampled;
        if sampled >= 10 and sampled / looked_at * total > 3 * matching then
            matching := round(sampled / looked_at * total);
            visits := keep * greatest(matching, total * coalesce(share, 1)) / matching;
            narrow := visits > limited or cost + comparison * matching < visit * visits;
        end if;
    end if;
end
$body$;
