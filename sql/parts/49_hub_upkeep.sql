-- Hub columns: filled, dropped, watched and mended.

-- Fill all rows in one rewrite, which builds the indexes anew; an update of each row would enter it into every index again.
create or replace function funnelvec._fill_hubs(
    table_name regclass,
    column_name text,
    hub_column text,
    bank text,
    neighbours integer,
    mean double precision
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    vectors text := funnelvec._vector_schema();
    helper text := (
        select format('%I.%I', n.nspname, funnelvec._fit_name(c.relname, '_fill'))
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = bank::regclass);
begin
    execute format(
        'create function %1$s(source %2$s.vector, key text) returns real language plpgsql stable set search_path = pg_catalog, pg_temp as %3$L',
        helper, vectors, format(
            E'declare\n    unit %1$s.halfvec;\nbegin\n    if %1$s.vector_norm(source) > 0 then\n        unit := %1$s.l2_normalize(source);\n        return %2$s;\n'
            '    end if;\n    return null;\nend',
            vectors, funnelvec._hub_sql(bank, neighbours, mean, 'unit', '$2')));
    execute format('alter table %s alter column %I type real using %s(%I::%s.vector, row(%s)::text)', table_name, hub_column, helper, column_name,
        vectors, (funnelvec._key_sql(table_name)).targets);
    execute format('drop function %s(%s.vector, text)', helper, vectors);
end
$body$;

-- Triggers fire by name: this one behind those of the application, which may set the vector. Who writes the hub has it measured.
create or replace function funnelvec._write_hub_trigger(table_name regclass, column_name text, hub_column text, bank text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
    execute format('create trigger %I before insert or update of %I, %I, %s on %s for each row execute function %s.%I()',
        funnelvec._fit_name('zz_' || bank, '_hub'), column_name, hub_column, (funnelvec._key_sql(table_name)).targets, table_name,
        (select format('%I', n.nspname) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = table_name), bank);
end
$body$;

-- Remove the hub column of a vector column, with its bank and trigger. Funnels whose calibration used it take the newest that does not.
create or replace function funnelvec.drop_hub(table_name regclass, column_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    h record;
begin
    perform funnelvec._base(table_name, column_name);
    perform funnelvec._check_owner(table_name);
    select k.* into h from funnelvec._hub(table_name, column_name) as k;
    if h.id is null then
        raise exception using
            errcode = 'FV005',
            message = format('%s.%I has no hub column', table_name, column_name),
            hint = format('select funnelvec.add_hub(%L, %L);', table_name::text, column_name);
    end if;
    perform funnelvec._lock_briefly('access exclusive', table_name);
    execute format('drop trigger %I on %s', h.trigger_name, table_name);
    execute format('drop function %s', h.function);
    execute format('alter table %s drop column %I', table_name, h.hub_column);
    if h.bank is not null then
        execute format('drop table %s', h.bank);
    end if;
    perform funnelvec._leave_hub(f) from funnelvec.funnels as f where f.table_name = $1 and f.column_name = $2;
end
$body$;

-- A funnel whose calibration was fitted with a hub column that is gone takes the newest calibration that it can use.
create or replace function funnelvec._leave_hub(f funnelvec.funnels)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    latest integer := funnelvec._latest_calibration(f);
begin
    if latest is distinct from f.calibration then
        f.calibration := latest;
        update funnelvec.funnels as u set calibration = latest where u.table_name = f.table_name and u.name = f.name;
    end if;
    perform funnelvec._write_function(f);
end
$body$;

-- Whether what a calibration was fitted with is still there: the hub column that its score is corrected by.
create or replace function funnelvec._in_step(table_name regclass, column_name text, parameters jsonb)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case when parameters ? 'hub' then coalesce(parameters ->> 'hub' = (funnelvec._hub($1, $2)).id, false) else true end
$body$;

-- The hub columns of tables that the caller may read: what they are measured with, how many rows have none, and what to do that
-- repair() does not. Reading a table of somebody else's with row-level security is left to whoever names it.
create or replace function funnelvec._hub_status(table_name regclass)
returns table ("table" regclass, column_name text, about text, advice text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    h record;
    believed bigint;
    missing bigint;
begin
    for "table", column_name in
        select t.tgrelid::regclass, v.attname
        from pg_trigger as t
        join pg_proc as p on p.oid = t.tgfoid
        join pg_attribute as v on v.attrelid = t.tgrelid and v.attnum = (t.tgattr::smallint[])[0]
        where starts_with(p.prosrc, funnelvec._hub_mark()) and t.tgparentid = 0
            and (_hub_status.table_name is null or t.tgrelid = _hub_status.table_name) and funnelvec._reads(t.tgrelid)
        order by 1, 2
    loop
        select k.* into h from funnelvec._hub("table", column_name) as k;
        continue when h.id is null;
        missing := null;
        if not h.filling and has_column_privilege("table", h.hub_column, 'select') and has_column_privilege("table", column_name, 'select')
            and not ("table" is distinct from _hub_status.table_name and row_security_active("table"))
        then
            believed := funnelvec._rows("table");
            execute format('select count(*) from %s as t %s where t.%I is not null and t.%I is null', "table",
                case when believed > 200000 then format('tablesample system (%s) repeatable (0)', 100 * 50000.0 / believed) else '' end,
                column_name, h.hub_column) into missing;
        end if;
        about := format('hub column %I: mean of the %s largest cosines with a bank of rows%s', h.hub_column, h.neighbours, ' in ' || h.bank);
        advice := concat_ws(E'\n',
            case when h.bank is null then format('its bank is gone, so new rows get none: select funnelvec.drop_hub(%L, %L); then add_hub',
                "table"::text, column_name) end,
            case when h.filling then format('rows are still to be filled in; calibrate waits for it: call funnelvec.backfill(%L);', "table"::text) end,
            case when missing > 0 then format('%s%s rows have none (written past its trigger, or zero): update %s set %I = null where %I is null;',
                case when believed > 200000 then 'of 50000 looked at, ' end, missing, "table", h.hub_column, h.hub_column) end);
        return next;
    end loop;
end
$body$;

-- What is out of step between a hub column and its trigger; null where nothing is.
create or replace function funnelvec._hub_fault(table_name regclass, column_name text)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    h record;
    p pg_proc;
    said jsonb;
begin
    select k.* into h from funnelvec._hub(table_name, column_name) as k;
    select q.* into p from pg_proc as q where q.oid = h.function;
    said := funnelvec._hub_said(p.prosrc);
    if h.id is not null and not h.enabled then
        return format('its trigger %I is disabled: select funnelvec.repair();', h.trigger_name);
    elsif h.id is not null and p.prosrc <> funnelvec._hub_body(
        table_name, column_name, h.hub_column, p.pronamespace::regnamespace::text, said ->> 'bank', h.id, h.neighbours, h.mean, h.filling)
    then
        return format('function %s is stale: select funnelvec.repair();', h.function);
    end if;
    return null;
end
$body$;

-- Functions of hub columns, of the caller's, that no trigger calls: the trigger was dropped, or the table. `table_name` is null where the
-- table or a column of it is gone.
create or replace function funnelvec._lost_hubs()
returns table (function regprocedure, table_name regclass, column_name text, hub_column text, bank regclass)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select p.oid, c.oid::regclass, d.said ->> 'column', d.said ->> 'hub', funnelvec._bank_of(p.oid)
    from pg_proc as p
    cross join lateral funnelvec._hub_said(p.prosrc) as d (said)
    left join pg_class as c on c.relnamespace = p.pronamespace and c.relname = d.said ->> 'table' and c.relkind in ('r', 'p')
        and c.relowner = p.proowner and (funnelvec._hub(c.oid, d.said ->> 'column')).id is null
        and 2 = (select count(*) from pg_attribute as a
                 where a.attrelid = c.oid and a.attname in (d.said ->> 'column', d.said ->> 'hub') and not a.attisdropped)
    where starts_with(p.prosrc, funnelvec._hub_mark()) and d.said is not null and pg_has_role(p.proowner, 'usage')
        and not exists (select from pg_trigger as t where t.tgfoid = p.oid)
    order by p.oid
$body$;

create or replace function funnelvec._repair_hubs()
returns table (what text, action text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    s record;
    h record;
begin
    for s in select l.* from funnelvec._lost_hubs() as l loop
        what := format('hub column %s.%I', s.table_name, s.hub_column);
        begin
            if s.table_name is null or s.bank is null then
                what := format('function %s', s.function);
                action := 'drop: its table, or what it reads, is gone';
                execute format('drop function %s', s.function);
                if s.bank is not null then
                    execute format('drop table %s', s.bank);
                end if;
            else
                action := 'write its trigger: it was missing';
                perform funnelvec._write_hub_trigger(s.table_name, s.column_name, s.hub_column, (
                    select p.proname::text from pg_proc as p where p.oid = s.function));
            end if;
        exception when others then
            action := format('not repaired: %s', sqlerrm);
        end;
        return next;
    end loop;
    for s in
        select t.* from funnelvec._hub_faults() as t where funnelvec._owns(t.table_name)
    loop
        select k.* into h from funnelvec._hub(s.table_name, s.column_name) as k;
        what := format('hub column %s.%I', s.table_name, h.hub_column);
        begin
            if not h.enabled then
                action := 'enable its trigger';
                execute format('alter table %s enable trigger %I', s.table_name, h.trigger_name);
            else
                action := 'rewrite its function: it was stale';
                perform funnelvec._set_filling(s.table_name, s.column_name, h.filling);
            end if;
        exception when others then
            action := format('not repaired: %s', sqlerrm);
        end;
        return next;
    end loop;
end
$body$;

-- Write the trigger function of a hub column anew, with whether rows are still to be filled in.
create or replace function funnelvec._set_filling(table_name regclass, column_name text, filling boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    h record;
    p pg_proc;
    said jsonb;
begin
    select k.* into h from funnelvec._hub(table_name, column_name) as k;
    select q.* into p from pg_proc as q where q.oid = h.function;
    said := funnelvec._hub_said(p.prosrc);
    perform funnelvec._write_hub_function(table_name, format('%s.%I', p.pronamespace::regnamespace, p.proname), funnelvec._hub_body(
        table_name, column_name, h.hub_column, p.pronamespace::regnamespace::text, said ->> 'bank', h.id, h.neighbours, h.mean, filling));
end
$body$;

-- One batch of rows that have no hub yet, of a column that was added concurrently: the trigger measures whatever row is written. Nothing
-- where none is to be filled.
create or replace function funnelvec._hub_step(table_name regclass, batch integer, out hub_column text, out state text, out written bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    h record;
    base record;
    measured bigint;
begin
    select k.*, v.attname::text as vector into h
    from pg_attribute as v
    cross join lateral funnelvec._hub(table_name, v.attname) as k
    where v.attrelid = table_name and v.attnum > 0 and not v.attisdropped and k.filling
    order by v.attname
    limit 1;
    if h.id is null then
        return;
    end if;
    if h.bank is null or not h.enabled then
        raise exception using
            errcode = 'FV008',
            message = format('the hub column %I of %s can''t be filled: its %s', h.hub_column, table_name,
                case when h.bank is null then 'bank is gone' else 'trigger is disabled' end),
            hint = case when h.bank is null then format('select funnelvec.drop_hub(%L, %L);', table_name::text, h.vector)
                else 'select funnelvec.repair();' end;
    end if;
    base := funnelvec._base(table_name, h.vector);
    execute format(
        'with few as (select %1$s from %2$s as t where t.%3$I is null and t.%4$I is not null and %5$s(t.%4$I) > 0 limit %6$s for update), '
        'done as (update %2$s as t set %3$I = null from few as j where %7$s returning t.%3$I) select count(*), count(d.%3$I) from done as d',
        (select string_agg(format('t.%I', k.name), ', ' order by k.ordinal) from funnelvec._key(table_name) as k),
        table_name, h.hub_column, h.vector, base.norm, batch, (funnelvec._key_sql(table_name)).joined)
    into written, measured;
    if written > 0 and measured = 0 then
        raise exception using
            errcode = 'FV008',
            message = format('the hub column %I of %s stays empty: its trigger finds nothing', h.hub_column, table_name),
            hint = format('select funnelvec.drop_hub(%L, %L); and add it again.', table_name::text, h.vector);
    end if;
    hub_column := h.hub_column;
    state := case when written < batch then 'ready' else 'filling' end;
    if state = 'ready' then
        perform funnelvec._set_filling(table_name, h.vector, false);
    end if;
end
$body$;

create or replace function funnelvec._hub_faults()
returns table (table_name regclass, column_name text, fault text)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select t.tgrelid::regclass, v.attname::text, f.fault
    from pg_trigger as t
    join pg_proc as p on p.oid = t.tgfoid
    join pg_attribute as v on v.attrelid = t.tgrelid and v.attnum = (t.tgattr::smallint[])[0]
    cross join lateral funnelvec._hub_fault(t.tgrelid, v.attname) as f (fault)
    where starts_with(p.prosrc, funnelvec._hub_mark()) and t.tgparentid = 0 and funnelvec._reads(t.tgrelid) and f.fault is not null
    order by 1, 2
$body$;

comment on function funnelvec.add_hub(regclass, text, integer, boolean, boolean)
    is 'give every row a column that says how much of a hub it is; the next calibrate takes as much of it off the score as helps';
comment on function funnelvec.drop_hub(regclass, text) is 'remove the hub column of a vector column, with its bank and trigger';
