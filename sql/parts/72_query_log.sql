-- The query log: a sample of the real queries of a funnel, for measuring, tuning and calibrating. Off until its owner asks for it.
--
-- The log is a table of the owner's beside the searched one, <funnel>_log. Searches run with the rights of whoever calls them, so it is
-- the caller who writes into it, and row-level security says what he may: add a row, as long as he may execute the search and read the
-- searched table, and remove rows that have expired. He reads nothing and changes nothing; the number, the time and the name of the
-- role are defaults of columns that he has no grant for, so he can't forge them. What he can do is log queries that he never asked.
--
-- `logging` of a funnel: {"table", "share", "keep_seconds", "max_rows", "roles"}; a share of 0 is a log that was stopped.

-- The settings of a funnel's log, checked, because its owner may have written them by hand; null where it never had one.
create or replace function funnelvec._logging(
    f funnelvec.funnels,
    out name text,
    out log regclass,
    out share double precision,
    out keep_seconds double precision,
    out max_rows bigint,
    out roles boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    if f.logging is null then
        return;
    end if;
    name := (
        select format('%I.%I', n.nspname, f.logging ->> 'table')
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where c.oid = f.table_name);
    log := to_regclass(name);
    share := f.logging ->> 'share';
    keep_seconds := f.logging ->> 'keep_seconds';
    max_rows := f.logging ->> 'max_rows';
    roles := f.logging ->> 'roles';
    if not coalesce(share between 0 and 1 and keep_seconds between 1 and 1e10 and max_rows between 1 and 1000000000
        and roles is not null and octet_length(f.logging ->> 'table') between 1 and 63, false)
    then
        raise data_exception;
    end if;
exception when data_exception then
    raise exception using
        errcode = 'FV004',
        message = format('the log of funnel %s has settings that can''t be: %s', f.name, left(f.logging::text, 200)),
        hint = format('Set it up again: select funnelvec.log_queries(%L);', f.name);
end
$body$;

-- The name of a log that should be there and is not. Settings that can't be are a fault of the function, and reported as one.
create or replace function funnelvec._lost_log(f funnelvec.funnels)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    return (select l.name from funnelvec._logging(f) as l where l.log is null);
exception when sqlstate 'FV004' then
    return null;
end
$body$;

create or replace function funnelvec._logs(f funnelvec.funnels)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select coalesce(l.share > 0, false) from funnelvec._logging(f) as l
$body$;

-- The parts that a logging search function has more than others; empty for those that don't log. 62_function puts them in.
create or replace function funnelvec._log_declarations(f funnelvec.funnels)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case when funnelvec._logs(f)
        then E'    _fv_returned integer := 0;\n    _fv_best double precision;\n    _fv_lock_timeout text;\n' else '' end
$body$;

create or replace function funnelvec._log_count(f funnelvec.funnels)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case when funnelvec._logs(f)
        then E'                _fv_returned := _fv_returned + 1;\n                _fv_best := coalesce(_fv_best, score);\n' else '' end
$body$;

-- The last thing that the search does. It never fails for it: what goes wrong in here is undone and forgotten, and it waits for
-- nobody. In a serializable transaction a write could make somebody's commit fail, so there it writes nothing.
create or replace function funnelvec._log_body(f funnelvec.funnels)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select case when not funnelvec._logs(f) then '' else format($text$    if random() < %1$s
        and current_setting('transaction_read_only') = 'off'
        and current_setting('transaction_isolation') <> 'serializable'
        and current_setting('funnelvec.logging', true) is distinct from 'off'
    then
        begin
            _fv_lock_timeout := current_setting('lock_timeout');
            perform set_config('lock_timeout', '50ms', true);
            insert into %2$s (query, k, min_relevance, filter, cutoff, returned, best_score)
            values (_fv_query, _fv_k, min_relevance, filter, left(cutoff, 20), _fv_returned, _fv_best);
            if random() < 0.005 then
                perform funnelvec._expire_queries(%2$L, %3$s, %4$s);
            end if;
            perform set_config('lock_timeout', _fv_lock_timeout, true);
        exception when others then
            null;
        end;
    end if;
$text$, funnelvec._literal(l.share), l.name, funnelvec._literal(l.keep_seconds), l.max_rows) end
    from funnelvec._logging(f) as l
$body$;

-- Remove what has expired. Whoever is not the owner can't read what he deletes, so he can't say which rows; the policy says it for
-- him, and nobody can widen it, for it is a restrictive one.
create or replace function funnelvec._expire_queries(log text, keep_seconds double precision, max_rows bigint)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    removed bigint := 0;
begin
    -- One at a time: two would wait for each other's rows.
    if pg_try_advisory_xact_lock(hashtext('funnelvec.expire'), hashtext(log)) then
        if row_security_active(log::regclass) then
            execute format('delete from %s', log::regclass);
        else
            execute format('delete from %s where asked_at < now() - make_interval(secs => $1) or id <= $2', log::regclass)
            using keep_seconds, pg_sequence_last_value(pg_get_serial_sequence(log, 'id')::regclass) - max_rows;
        end if;
        get diagnostics removed = row_count;
    end if;
    return removed;
end
$body$;

-- Make the table, or take the one that is there from the last time.
create or replace function funnelvec._make_log(f funnelvec.funnels)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    l record := funnelvec._logging(f);
    owner oid := (select c.relowner from pg_class as c where c.oid = f.table_name);
    base record := funnelvec._base(f.table_name, f.column_name);
    type text := format('%s(%s)', base.type, base.dims);
    columns text;
    grantee text;
begin
    if l.log is not null then
        select string_agg(a.attname || case a.attname when 'query' then ' ' || format_type(a.atttypid, a.atttypmod) else '' end,
            ', ' order by a.attnum)
        into columns
        from pg_attribute as a join pg_class as c on c.oid = a.attrelid
        where a.attrelid = l.log and c.relkind = 'r' and c.relowner = owner and a.attnum > 0 and not a.attisdropped;
        if columns is distinct from format('id, asked_at, query %s, k, min_relevance, filter, cutoff, returned, best_score, role', type) then
            raise exception using
                errcode = 'FV008',
                message = format('%s exists, and is not a log of queries to %s by its owner', l.log, f.table_name),
                hint = format('Rename or drop it: alter table %s rename to ...', l.log);
        end if;
        return;
    end if;
    execute format($text$
        create table %1$s (
            id bigint generated always as identity primary key,
            asked_at timestamptz not null default clock_timestamp(),
            query %2$s not null,
            k integer not null,
            min_relevance double precision,
            filter jsonb,
            cutoff text,
            returned integer not null,
            best_score double precision,
            role name
        )$text$, l.name, type);
    execute format('comment on table %s is %L', l.name,
        format('a sample of the queries of %s; funnelvec.stop_logging(..., forget => true) removes it', funnelvec._function_name(f)));
    -- Default privileges may have granted more than is meant here.
    for grantee in
        select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
        from pg_class as c cross join aclexplode(c.relacl) as a
        where c.oid = l.name::regclass and a.grantee <> c.relowner
    loop
        execute format('revoke all on table %s from %s', l.name, grantee);
    end loop;
    execute format('grant insert (query, k, min_relevance, filter, cutoff, returned, best_score), delete on table %s to public', l.name);
    execute format('grant select on sequence %s to public', pg_get_serial_sequence(l.name, 'id'));
    if owner <> (select r.oid from pg_roles as r where r.rolname = current_user) then
        execute format('alter table %s owner to %s', l.name, owner::regrole);
    end if;
end
$body$;

-- What callers may do with the log. Written with the search function each time, since it names the funnel and the table. Names are
-- looked up when a row comes, so that nothing depends on the log and either can be dropped.
create or replace function funnelvec._guard_log(f funnelvec.funnels)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    l record := funnelvec._logging(f);
    policy text;
begin
    if l.log is null or not funnelvec._owns(l.log) then
        return;
    end if;
    execute format('alter table %s enable row level security', l.log);
    for policy in
        select p.polname from pg_policy as p where p.polrelid = l.log and p.polname in ('callers', 'anybody', 'expired')
    loop
        execute format('drop policy %I on %s', policy, l.log);
    end loop;
    execute format($text$
        create policy callers on %1$s for insert with check (
            asked_at between transaction_timestamp() and clock_timestamp()
            and exists (
                select
                from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
                where p.proname = %2$L and n.nspname = %3$L and has_function_privilege(p.oid, 'execute'))
            and has_any_column_privilege(to_regclass(%4$L), 'select'))$text$,
        l.log, f.name, (select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = f.table_name),
        f.table_name::text);
    execute format('create policy anybody on %s for delete using (true)', l.log);
    execute format($text$
        create policy expired on %1$s as restrictive for delete using (
            asked_at < now() - make_interval(secs => %2$s)
            or id <= (select pg_sequence_last_value(pg_get_serial_sequence(%3$L, 'id')::regclass)) - %4$s)$text$,
        l.log, funnelvec._literal(l.keep_seconds), l.name, l.max_rows);
    execute format('alter table %s alter column role %s', l.log,
        case when l.roles then 'set default current_user' else 'drop default' end);
end
$body$;

create or replace function funnelvec.log_queries(
    funnel text,
    share double precision default 0.01,
    keep_for interval default '30 days',
    max_rows integer default 100000,
    roles boolean default false
)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel(funnel);
    seconds double precision := extract(epoch from keep_for);
    name text := f.name || '_log';
begin
    perform funnelvec._check_owner(f.table_name);
    if share is null or not share between 0 and 1 then
        raise exception using
            errcode = 'FV004',
            message = format('share is %s', coalesce(share::text, 'null')),
            hint = 'It is the share of queries to log, from 0 (none) to 1 (all).';
    elsif seconds is null or not seconds between 1 and 3200000000 then
        raise exception using
            errcode = 'FV004',
            message = format('keep_for is %s', coalesce(keep_for::text, 'null')),
            hint = 'Keep queries for a second to a hundred years.';
    elsif max_rows is null or max_rows not between 1 and 1000000000 then
        raise exception using
            errcode = 'FV004',
            message = format('max_rows is %s', coalesce(max_rows::text, 'null')),
            hint = 'Keep 1 to 1000000000 queries.';
    elsif octet_length(name) > 63 then
        raise exception using
            errcode = 'FV004',
            message = format('the log would need the name %L of %s bytes; Postgres allows 63', name, octet_length(name)),
            hint = 'Give the funnel a shorter name.';
    end if;
    f.logging := jsonb_build_object(
        'table', name, 'share', share, 'keep_seconds', seconds, 'max_rows', max_rows, 'roles', coalesce(roles, false));
    perform funnelvec._make_log(f);
    update funnelvec.funnels as u set logging = f.logging where u.table_name = f.table_name and u.name = f.name;
    perform funnelvec._write_function(f);
    return (funnelvec._logging(f)).name;
end
$body$;

create or replace function funnelvec.stop_logging(funnel text, forget boolean default false)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel(funnel);
    l record;
begin
    perform funnelvec._check_owner(f.table_name);
    if f.logging is null then
        return;
    end if;
    l := funnelvec._logging(f);
    f.logging := case when forget is not true then f.logging || '{"share": 0}' end;
    update funnelvec.funnels as u set logging = f.logging where u.table_name = f.table_name and u.name = f.name;
    perform funnelvec._write_function(f);
    if forget and l.log is not null then
        execute format('drop table %s', l.log);
    end if;
end
$body$;

-- Searches remove expired rows now and then; this does it now, for one funnel or all of the caller's.
create or replace function funnelvec.trim_query_log(funnel text default null)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels;
    l record;
    removed bigint := 0;
begin
    if funnel is not null then
        f := funnelvec._funnel(funnel);
        perform funnelvec._check_owner(f.table_name);
    end if;
    for f in
        select g.*
        from funnelvec.funnels as g
        where g.logging is not null and funnelvec._owns(g.table_name)
            and (trim_query_log.funnel is null or g.table_name = f.table_name and g.name = f.name)
    loop
        l := funnelvec._logging(f);
        continue when l.log is null;
        removed := removed + funnelvec._expire_queries(l.name, l.keep_seconds, l.max_rows);
    end loop;
    return removed;
end
$body$;

comment on function funnelvec.log_queries(text, double precision, interval, integer, boolean)
    is 'log a share of a funnel''s queries in the table <funnel>_log, which only the owner of the searched table can read; share => 0 stops';
comment on function funnelvec.stop_logging(text, boolean)
    is 'log no more queries of a funnel; forget => true also drops the table with those that were logged';
comment on function funnelvec.trim_query_log(text) is 'remove logged queries that are older or more than they may be; returns how many';
