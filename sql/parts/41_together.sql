-- Storing all that a funnel needs at once: a table is rewritten once, however many columns an ALTER TABLE adds.

-- Returns the names of the columns and side tables, in the order of the stages. The first stage gets the index; the column itself is
-- there already.
create or replace function funnelvec.add_resolutions(
    table_name regclass,
    column_name text,
    funnel text,
    index boolean default true,
    allow_rewrite boolean default false,
    m integer default 16,
    ef_construction integer default 64,
    metric text default null,
    storage text default null,
    "concurrently" boolean default false
)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    kept_metric text;
    wanted text[];
    stored_in text;
    missing text[] := '{}';
    names text[] := '{}';
    base record := funnelvec._base(table_name, column_name);
begin
    -- The indexed one last: nothing is added to the table after its index is built.
    select array_agg(p.resolution order by p.stage desc) into wanted
    from (select f.resolution, min(f.stage) as stage from funnelvec._parse_funnel(funnel) as f group by f.resolution) as p
    where p.stage = 1 or p.resolution <> format('%s:%s', base.dims, base.code);
    kept_metric := funnelvec._metric_of(table_name, column_name, metric);
    perform funnelvec._check_index_options(m, ef_construction);
    for i in 1 .. cardinality(wanted) loop
        stored_in := funnelvec._wanted_storage(table_name, column_name, wanted[i], storage);
        perform funnelvec._check_resolution(
            table_name, column_name, wanted[i], coalesce(index, false) and i = cardinality(wanted), coalesce(allow_rewrite, false), kept_metric, stored_in);
        if stored_in = 'column'
            and funnelvec._code_column(table_name, column_name, wanted[i]) is null
            and funnelvec._orphan_column(table_name, column_name, wanted[i], kept_metric) is null
        then
            missing := missing || wanted[i];
        end if;
    end loop;
    -- add_resolution takes the columns over, as it does those that a lost registry has left.
    if cardinality(missing) > 1 then
        perform funnelvec._make_rotators(table_name, column_name, r.resolution) from unnest(missing) as r (resolution);
        execute format('alter table %s %s', table_name, (
            select string_agg(funnelvec._adding(table_name, column_name, r.resolution, kept_metric), ', ' order by r.place)
            from unnest(missing) with ordinality as r (resolution, place)));
    end if;
    for i in 1 .. cardinality(wanted) loop
        names := funnelvec.add_resolution(
            table_name, column_name, wanted[i], index => coalesce(index, false) and i = cardinality(wanted), allow_rewrite => allow_rewrite,
            m => m, ef_construction => ef_construction, metric => kept_metric, storage => storage, "concurrently" => "concurrently") || names;
    end loop;
    return names;
end
$body$;

comment on function funnelvec.add_resolutions(regclass, text, text, boolean, boolean, integer, integer, text, text, boolean)
    is 'store every resolution that a funnel such as 128:f16@100 > 512:f16@20 > 1536:f32 needs, in one rewrite of the table; the first stage gets an index';
