-- repair: mends what 85_faults finds, on the tables that the caller owns.

-- Takes a function back into the registry: the resolutions that its stages need, its calibration, its funnel. All of it goes through
-- the checks that create_funnel makes.
create or replace function funnelvec._adopt_function(f funnelvec.funnels, calibration jsonb)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    taken funnelvec.calibrations;
begin
    perform funnelvec._check_row(f.table_name, f.metric, f.funnel, f.name);
    f.metric := funnelvec._metric_of(f.table_name, f.column_name, f.metric);
    insert into funnelvec.resolutions (table_name, column_name, resolution, metric, code_column)
    select f.table_name, f.column_name, o.resolution, f.metric, o.code_column
    from (
        select p.resolution, funnelvec._orphan_column(f.table_name, f.column_name, p.resolution, f.metric) as code_column
        from funnelvec._parse_funnel(f.funnel) as p
    ) as o
    where o.code_column is not null
    on conflict do nothing;
    perform funnelvec._check_funnel(f);
    if calibration is not null then
        perform funnelvec._check_row(
            f.table_name, f.metric, f.funnel, f.name, calibration ->> 'family', coalesce(calibration -> 'parameters', '{}'));
        taken := jsonb_populate_record(null::funnelvec.calibrations, calibration);
        taken.table_name := f.table_name;
        taken.column_name := f.column_name;
        taken.model := f.model;
        taken.metric := f.metric;
        taken.last_stage := funnelvec._last_stage(f.funnel);
        insert into funnelvec.calibrations select taken.* on conflict do nothing;
        f.calibration := taken.version;
    end if;
    insert into funnelvec.funnels select f.*;
end
$body$;

-- Rows of the registry: those of dropped tables go, those of renamed columns follow, those that describe nothing go.
create or replace function funnelvec._repair_rows()
returns table (what text, action text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    g record;
    r funnelvec.resolutions;
    fault text;
begin
    for g in select l.table_name from funnelvec._left_rows() as l loop
        delete from funnelvec.resolutions as d where d.table_name = g.table_name;
        delete from funnelvec.funnels as d where d.table_name = g.table_name;
        delete from funnelvec.calibrations as d where d.table_name = g.table_name;
        delete from funnelvec.loads as d where d.table_name = g.table_name;
        delete from funnelvec.windows as d where d.table_name = g.table_name;
        delete from funnelvec.rotations as d where d.table_name = g.table_name;
        what := format('table %s', g.table_name::oid);
        action := 'remove the rows of the dropped table';
        return next;
    end loop;
    for what, action in
        select format('column %s.%I', m.table_name, m.new_name), format('follow the rename of %I', m.column_name)
        from funnelvec._moved_columns() as m
        where funnelvec._owns(m.table_name)
    loop
        return next;
    end loop;
    perform funnelvec._follow_columns();
    for g in select m.* from funnelvec._moved_codes() as m where funnelvec._owns(m.table_name) loop
        update funnelvec.resolutions as u
        set code_column = g.new_name
        where u.table_name = g.table_name and u.column_name = g.column_name and u.resolution = g.resolution;
        what := format('column %s.%I', g.table_name, g.new_name);
        action := format('follow the rename of what holds %s', g.resolution);
        return next;
    end loop;
    for what, action in select a.what, a.action from funnelvec._adopt_rotations() as a loop
        return next;
    end loop;
    for g in select f.* from funnelvec._rotation_faults() as f where funnelvec._owns(f.table_name) loop
        what := format('rotation %s of %s', g.resolution, g.table_name);
        action := funnelvec._repair_rotator(g.table_name, g.column_name, g.resolution, g.asked);
        return next;
    end loop;
    for r in
        select s.* from funnelvec.resolutions as s where s.side_table is not null and funnelvec._owns(s.table_name)
    loop
        continue when not funnelvec._side_stands(r) or funnelvec._side_fault(r) is null;
        what := format('side table %s', r.side_table);
        action := funnelvec._repair_side(r);
        return next;
    end loop;
    for r in select s.* from funnelvec.resolutions as s where funnelvec._owns(s.table_name) loop
        fault := funnelvec._resolution_fault(r);
        continue when fault is null;
        delete from funnelvec.resolutions as d
        where d.table_name = r.table_name and d.column_name = r.column_name and d.resolution = r.resolution;
        what := format('resolution %s of %s.%I', left(r.resolution, 100), r.table_name, r.column_name);
        action := format('remove the row: %s', split_part(fault, ': select', 1));
        return next;
    end loop;
    return query select v.what, v.action from funnelvec._repair_windows() as v;
    return query select v.what, v.action from funnelvec._repair_hubs() as v;
end
$body$;

-- Windows: a column that was renamed is followed, and what searches can't use goes. Their indexes stay: they are of use without us.
create or replace function funnelvec._repair_windows()
returns table (what text, action text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    w funnelvec.windows;
    moved record;
    fault text;
begin
    for moved in select m.* from funnelvec._moved_windows() as m where funnelvec._owns(m.table_name) loop
        update funnelvec.windows as u
        set by_column = moved.new_name
        where u.table_name = moved.table_name and u.column_name = moved.column_name and u.resolution = moved.resolution
            and u.by_column = moved.by_column;
        what := format('windows of %s by %I', moved.table_name, moved.new_name);
        action := format('follow the rename of %I', moved.by_column);
        return next;
    end loop;
    for w in select s.* from funnelvec.windows as s where funnelvec._owns(s.table_name) loop
        fault := funnelvec._window_fault(w);
        continue when fault is null;
        delete from funnelvec.windows as d
        where d.table_name = w.table_name and d.column_name = w.column_name and d.resolution = w.resolution and d.by_column = w.by_column;
        what := format('windows of %s by %I', w.table_name, w.by_column);
        action := format('remove the row: %s', split_part(fault, ': select', 1));
        return next;
    end loop;
end
$body$;

-- All rows of all renamed columns at once: two columns may have swapped their names.
create or replace function funnelvec._follow_columns()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    moved jsonb := (
        select jsonb_object_agg(m.table_name::oid::text || ' ' || m.column_name, m.new_name)
        from funnelvec._moved_columns() as m
        where funnelvec._owns(m.table_name));
    resolutions funnelvec.resolutions[];
    funnels funnelvec.funnels[];
    calibrations funnelvec.calibrations[];
    windows funnelvec.windows[];
    rotations funnelvec.rotations[];
begin
    with gone as (
        delete from funnelvec.resolutions as d where moved ? (d.table_name::oid::text || ' ' || d.column_name) returning d.*)
    select array_agg(jsonb_populate_record(d::funnelvec.resolutions, jsonb_build_object('column_name', n.name,
        'code_column', case when d.code_column = d.column_name then n.name else d.code_column end)))
    into resolutions from gone as d cross join lateral (select moved ->> (d.table_name::oid::text || ' ' || d.column_name)) as n (name);
    insert into funnelvec.resolutions select u.* from unnest(resolutions) as u on conflict do nothing;
    with gone as (
        delete from funnelvec.funnels as d where moved ? (d.table_name::oid::text || ' ' || d.column_name) returning d.*)
    select array_agg(jsonb_populate_record(d::funnelvec.funnels, jsonb_build_object('column_name', n.name,
        'returns', array_replace(d.returns, d.column_name, n.name))))
    into funnels from gone as d cross join lateral (select moved ->> (d.table_name::oid::text || ' ' || d.column_name)) as n (name);
    insert into funnelvec.funnels select u.* from unnest(funnels) as u on conflict do nothing;
    with gone as (
        delete from funnelvec.calibrations as d where moved ? (d.table_name::oid::text || ' ' || d.column_name) returning d.*)
    select array_agg(jsonb_populate_record(d::funnelvec.calibrations, jsonb_build_object('column_name', n.name)))
    into calibrations from gone as d cross join lateral (select moved ->> (d.table_name::oid::text || ' ' || d.column_name)) as n (name);
    insert into funnelvec.calibrations select u.* from unnest(calibrations) as u on conflict do nothing;
    with gone as (
        delete from funnelvec.windows as d where moved ? (d.table_name::oid::text || ' ' || d.column_name) returning d.*)
    select array_agg(jsonb_populate_record(d::funnelvec.windows, jsonb_build_object('column_name', n.name)))
    into windows from gone as d cross join lateral (select moved ->> (d.table_name::oid::text || ' ' || d.column_name)) as n (name);
    insert into funnelvec.windows select u.* from unnest(windows) as u on conflict do nothing;
    with gone as (
        delete from funnelvec.rotations as d where moved ? (d.table_name::oid::text || ' ' || d.column_name) returning d.*)
    select array_agg(r) into rotations from gone as r;
    insert into funnelvec.rotations
    select (funnelvec._renamed_rotation(u, moved ->> (u.table_name::oid::text || ' ' || u.column_name))).* from unnest(rotations) as u
    on conflict do nothing;
end
$body$;

-- Functions and code columns that the registry does not know are taken over; a function whose table is gone is dropped, unless a
-- funnel of that name has lost its function: the table went to another schema, and the function follows with its grants.
create or replace function funnelvec._repair_unknown()
returns table (what text, action text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    u record;
    home text;
begin
    for u in select k.* from funnelvec._unknown_sides() as k loop
        what := format('side table %s', coalesce((u.r).side_table::text, u.function::text));
        begin
            if (u.r).table_name is null or (u.r).side_table is null then
                action := format('drop: its %s', case when (u.r).table_name is null then 'table is gone' else 'codes are gone' end);
                perform funnelvec._drop_unknown_side(u.function, (u.r).side_table);
            else
                action := format('take over as %s of %s.%I', (u.r).resolution, (u.r).table_name, (u.r).column_name);
                perform funnelvec._adopt_side(u.r);
            end if;
        exception when others then
            action := format('not repaired: %s', sqlerrm);
        end;
        return next;
    end loop;
    for u in select k.* from funnelvec._unknown_functions() as k where k.verdict in ('adopt', 'drop') order by k.function::text loop
        what := format('function %s', u.function);
        begin
            select format('%I', min(n.nspname)) into home
            from funnelvec.funnels as f
            join pg_class as c on c.oid = f.table_name
            join pg_namespace as n on n.oid = c.relnamespace
            where f.name = (u.f).name and f.funnel = (u.f).funnel
                and funnelvec._owns(f.table_name) and funnelvec._function_oid(f) is null
            having count(*) = 1;
            if u.verdict = 'adopt' then
                action := 'take over';
                perform funnelvec._adopt_function(u.f, u.calibration);
                perform funnelvec._adopt_windows(u.function, u.f);
            elsif home is not null then
                action := format('move to schema %s, where its table is', home);
                execute format('alter function %s set schema %s', u.function, home);
            else
                action := 'drop: its table is gone';
                execute format('drop function %s', u.function);
            end if;
        exception when others then
            action := format('not repaired: %s', sqlerrm);
        end;
        return next;
    end loop;
    for u in select k.* from funnelvec._unknown_columns() as k order by k.table_name::text, k.code_column loop
        what := format('column %s.%I', u.table_name, u.code_column);
        action := format('take over as %s of %I', u.resolution, u.column_name);
        insert into funnelvec.resolutions (table_name, column_name, resolution, metric, code_column)
        values (u.table_name, u.column_name, u.resolution, u.metric, u.code_column)
        on conflict do nothing;
        return next;
    end loop;
    update funnelvec.resolutions as r
    set index_name = c.relname
    from pg_class as c
    where r.index_name is null and funnelvec._owns(r.table_name)
        and c.oid = funnelvec._index_of(case r.storage when 'side' then r.side_table else r.table_name end, r.code_column, (
            select s.opclass
            from funnelvec._parse_resolution(r.resolution) as p
            cross join lateral funnelvec._code(p.dims, p.code, 'x', funnelvec._metric_at(r.table_name, r.column_name, r.resolution, r.metric), 'f32') as s));
end
$body$;

create or replace function funnelvec._repair_functions()
returns table (what text, action text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels;
    fault text;
begin
    for f in
        select g.* from funnelvec.funnels as g where funnelvec._owns(g.table_name) order by funnelvec._function_name(g)
    loop
        fault := funnelvec._function_fault(f);
        continue when fault is null;
        what := format('function %s', funnelvec._function_name(f));
        begin
            -- Its calibration may be about a hub column that is gone.
            if f.calibration is not null and (funnelvec._calibration_row(f)).version is null then
                f.calibration := funnelvec._latest_calibration(f);
                update funnelvec.funnels as u set calibration = f.calibration where u.table_name = f.table_name and u.name = f.name;
            end if;
            perform funnelvec._write_function(f);
            action := case when fault like 'missing%' then 'write: it was missing' else 'rewrite: it was stale' end;
        exception when others then
            action := format('not repaired: %s', sqlerrm);
        end;
        return next;
    end loop;
end
$body$;

create or replace function funnelvec.repair(dry_run boolean default false)
returns table (what text, action text)
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $body$
declare
    objects text[];
    actions text[];
begin
    -- A dry run does it all and takes it back, so what it says is what would happen.
    begin
        select array_agg(r.what), array_agg(r.action) into objects, actions from funnelvec._repair_rows() as r;
        select objects || array_agg(r.what), actions || array_agg(r.action) into objects, actions from funnelvec._repair_unknown() as r;
        select objects || array_agg(r.what), actions || array_agg(r.action) into objects, actions from funnelvec._repair_functions() as r;
        if dry_run is distinct from false then
            raise exception using errcode = 'FV000', message = 'dry run';
        end if;
    exception when sqlstate 'FV000' then
        null;
    end;
    return query select u.o, u.a from unnest(objects, actions) with ordinality as u (o, a, i) order by u.i;
end
$body$;

comment on function funnelvec.repair(boolean)
    is 'mend what renames, drops, moves and restores left of your tables out of step; dry_run => true only says what it would do';
