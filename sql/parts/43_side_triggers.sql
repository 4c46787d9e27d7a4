-- Side tables: the triggers that keep the codes in step with the user's table, and who may read them.

-- The trigger function. It is the only one of ours with its owner's rights: whoever may write the user's table need not be able to
-- write the side table, and nobody else should. Nobody can call it (it returns trigger) or attach it (execute is revoked). It must
-- never fail a write of the application's: it uses nothing of the schema funnelvec, and a renamed column is found by its number.
create or replace function funnelvec._side_function_body(r funnelvec.resolutions)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    wanted record := funnelvec._parse_resolution(r.resolution);
    base record := funnelvec._base(r.table_name, r.column_name);
    code record := funnelvec._code_of(r.table_name, r.column_name, r.resolution, '_fv_vector', r.metric);
    keys text[];
    declarations text;
    olds text;
    news text;
    by_number_old text;
    by_number_new text;
    own text[];
    old_row text;
    new_row text;
begin
    select
        array_agg(k.name order by k.ordinal),
        string_agg(format(E'    _fv_old_%1$s %2$s;\n    _fv_new_%1$s %2$s;\n', k.ordinal, k.type), '' order by k.ordinal),
        string_agg(format(E'            _fv_old_%s := old.%I;\n', k.ordinal, k.name), '' order by k.ordinal),
        string_agg(format(E'            _fv_new_%s := new.%I;\n', k.ordinal, k.name), '' order by k.ordinal),
        string_agg(format(E'            execute format(''select ($1).%%I'', _fv_names[%1$s]) into _fv_old_%1$s using old;\n', k.ordinal), '' order by k.ordinal),
        string_agg(format(E'            execute format(''select ($1).%%I'', _fv_names[%1$s]) into _fv_new_%1$s using new;\n', k.ordinal), '' order by k.ordinal),
        array_agg(a.attname::text order by k.ordinal),
        string_agg(format('s.%I = _fv_old_%s', a.attname, k.ordinal), ' and ' order by k.ordinal),
        string_agg(format('s.%I = _fv_new_%s', a.attname, k.ordinal), ' and ' order by k.ordinal)
    into keys, declarations, olds, news, by_number_old, by_number_new, own, old_row, new_row
    from funnelvec._key(r.table_name) as k
    join pg_attribute as a on a.attrelid = r.side_table and a.attnum = k.ordinal;
    return format($text$%1$s
-- %2$s
#variable_conflict use_column
declare
%3$s    _fv_vector %4$s;
    _fv_names text[];
begin
    -- Somebody has dropped the codes: that must not stop anybody from writing.
    if to_regclass(%20$L) is null then
        return null;
    end if;
    if tg_op = 'TRUNCATE' then
        truncate %5$s;
        return null;
    end if;
    begin
        if tg_op <> 'INSERT' then
%6$s        end if;
        if tg_op <> 'DELETE' then
%7$s            _fv_vector := new.%8$I;
        end if;
    exception when undefined_column then
        -- A column has been renamed: the trigger keeps the numbers of the columns, the key and then the vector.
        select array_agg(a.attname order by c.ordinality) into _fv_names
        from pg_trigger as t
        cross join unnest(t.tgattr::smallint[]) with ordinality as c (attnum, ordinality)
        join pg_attribute as a on a.attrelid = t.tgrelid and a.attnum = c.attnum
        where t.oid = (
            select f.oid
            from pg_trigger as g join pg_trigger as f on f.tgrelid = g.tgrelid and f.tgfoid = g.tgfoid
            where g.tgrelid = tg_relid and g.tgname = tg_name and cardinality(f.tgattr::smallint[]) > 0
            limit 1);
        if tg_op <> 'INSERT' then
%9$s        end if;
        if tg_op <> 'DELETE' then
%10$s            execute format('select ($1).%%I', _fv_names[%11$s]) into _fv_vector using new;
        end if;
    end;
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and row(%12$s) is distinct from row(%13$s) then
        delete from %5$s as s where %14$s;
    end if;
    if tg_op <> 'DELETE' and _fv_vector is null then
        delete from %5$s as s where %15$s;
    elsif tg_op <> 'DELETE' then
        insert into %5$s as s (%16$s, %17$I)
        values (%13$s, %18$s)
        on conflict (%16$s) do update set %17$I = excluded.%17$I where s.%17$I operator(%19$s.<>) excluded.%17$I;
    end if;
    return null;
end$text$,
        funnelvec._side_mark(), funnelvec._side_definition(r), declarations, base.type, r.side_table, olds, news, r.column_name,
        by_number_old, by_number_new, cardinality(keys) + 1,
        (select string_agg('_fv_old_' || i, ', ' order by i) from generate_series(1, cardinality(keys)) as i),
        (select string_agg('_fv_new_' || i, ', ' order by i) from generate_series(1, cardinality(keys)) as i),
        old_row, new_row, (select string_agg(quote_ident(n), ', ' order by i) from unnest(own) with ordinality as u (n, i)),
        r.code_column, code.expression, case when wanted.code ~ '^bit' then 'pg_catalog' else funnelvec._vector_schema() end,
        r.side_table::text);
end
$body$;

-- The second line of the body: what the registry knows of the side table, for repair() where the registry was lost.
create or replace function funnelvec._side_definition(r funnelvec.resolutions)
returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select jsonb_build_object(
        'format', 1, 'table', (select c.relname from pg_class as c where c.oid = r.table_name), 'column', r.column_name,
        'resolution', r.resolution, 'metric', r.metric, 'side', (select c.relname from pg_class as c where c.oid = r.side_table),
        'code_column', r.code_column, 'state', r.state, 'index', r.index_options)
$body$;

-- (Re)write the trigger function.
create or replace function funnelvec._write_side_function(r funnelvec.resolutions)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    name text := r.side_table::text;
    owner text := (select c.relowner::regrole from pg_class as c where c.oid = r.table_name);
begin
    execute format(
        E'create or replace function %s() returns trigger\nlanguage plpgsql security definer\nset search_path = pg_catalog, pg_temp\nas %L',
        name, funnelvec._side_function_body(r));
    execute format('revoke all on function %s() from public', name);
    execute format('comment on function %s() is %L', name, format('keeps %s in step with %s', r.side_table, r.table_name));
    if (select p.proowner::regrole::text <> owner from pg_proc as p where p.oid = format('%s()', name)::regprocedure) then
        execute format('alter function %s() owner to %s', name, owner);
    end if;
end
$body$;

-- SQL that tells from `old` and `new` whether the key or the vector may be another one. A wide vector that nobody has changed is the
-- same value out of line, which is seen without reading it (17 and later); comparing it costs more than the whole update of the row.
-- The condition is parsed again for every statement, so it is short. The operator has its schema, since `is distinct from` would look
-- for one on the search_path, which is empty while a dump is restored.
create or replace function funnelvec._side_changed(r funnelvec.resolutions)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select format(case
            when current_setting('server_version_num')::integer >= 170000 and a.attstorage in ('e', 'x')
                and a.atttypmod * case when t.typname = 'halfvec' then 2 else 4 end >= 2000
            then '(%1$s and pg_column_toast_chunk_id(old.%2$I) = pg_column_toast_chunk_id(new.%2$I)) is not true'
            else '(%1$s and old.%2$I operator(%3$s.=) new.%2$I) is not true' end,
        (select string_agg(format('old.%1$I = new.%1$I', k.name), ' and ' order by k.ordinal) from funnelvec._key(r.table_name) as k),
        a.attname, funnelvec._vector_schema())
    from pg_attribute as a
    join pg_type as t on t.oid = a.atttypid
    where a.attrelid = r.table_name and a.attname = r.column_name
$body$;

-- Whether a trigger may change the key or the vector of a row before it is written. The usual one that keeps the time of an update does
-- not: its function assigns expressions to other columns, under conditions perhaps, returns the row, and has nothing else in it.
create or replace function funnelvec._may_change(r funnelvec.resolutions, function oid)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select l.lanname <> 'plpgsql' or strpos(p.prosrc, '--') > 0 or strpos(p.prosrc, '/*') > 0
        or p.prosrc ~* '\y(into|case|declare|execute)\y'
        or p.prosrc !~* format($re$^\s*begin\s+((new\s*\.\s*[a-z_][a-z0-9_]*\s*:?=%1$s;|(if|elsif)\y(=|%1$s)*\ythen\y|else\y|end\s+if\s*;|return\s+new\s*;)\s*)+end\s*;?\s*$$re$,
            $re$([^;'"$\\=]|'[^;'"$\\]*')*$re$)
        or exists (
            select
            from regexp_matches(p.prosrc, $re$new\s*\.\s*([a-z_][a-z0-9_]*)\s*:?=$re$, 'gi') as m (found)
            where lower(m.found[1]) = r.column_name or lower(m.found[1]) in (select k.name from funnelvec._key(r.table_name) as k))
    from pg_proc as p
    join pg_language as l on l.oid = p.prolang
    where p.oid = function
$body$;

-- The triggers that a side table needs, and whether they are there. The one for every update is needed only where another trigger may
-- change the vector before the row is written: then the columns that the statement names do not tell.
create or replace function funnelvec._side_triggers(r funnelvec.resolutions)
returns table (name text, definition text, present boolean, disabled boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select w.name, format('create trigger %I %s execute function %s()', w.name, w.events, r.side_table),
        t.oid is not null, coalesce(t.tgenabled in ('D', 'R'), false)
    from (select c.relname::text as name from pg_class as c where c.oid = r.side_table) as s
    cross join lateral (values
        (s.name, format('after insert or delete or update of %s on %s for each row',
            (select string_agg(quote_ident(k.name), ', ' order by k.ordinal) from funnelvec._key(r.table_name) as k)
                || ', ' || quote_ident(r.column_name),
            r.table_name), true),
        (funnelvec._fit_name(s.name, '_every'), format('after update on %s for each row when (%s)', r.table_name, funnelvec._side_changed(r)), exists (
            select from pg_trigger as b
            where b.tgrelid = r.table_name and not b.tgisinternal and b.tgenabled <> 'D'
                and b.tgtype & 1 = 1 and b.tgtype & 2 = 2 and b.tgtype & 16 = 16 and funnelvec._may_change(r, b.tgfoid))),
        (funnelvec._fit_name(s.name, '_truncate'), format('after truncate on %s for each statement', r.table_name), true)
    ) as w (name, events, needed)
    left join pg_trigger as t
        on t.tgrelid = r.table_name and t.tgname = w.name and not t.tgisinternal
        and t.tgfoid = to_regprocedure(format('%s()', r.side_table))
    where w.needed
$body$;

create or replace function funnelvec._write_side_triggers(r funnelvec.resolutions)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    w record;
begin
    for w in select * from funnelvec._side_triggers(r) loop
        if not w.present then
            execute w.definition;
        elsif w.disabled then
            execute format('alter table %s enable trigger %I', r.table_name, w.name);
        end if;
    end loop;
end
$body$;

-- Who may read the user's vectors and key may read the codes: grants to give, or to take back. Searches run with the caller's rights.
create or replace function funnelvec._side_grants(r funnelvec.resolutions)
returns table (grantee text, missing boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    with readers as (
        select a.grantee
        from pg_class as c cross join aclexplode(c.relacl) as a
        where c.oid = r.table_name and a.privilege_type = 'SELECT' and a.grantee <> c.relowner
        union
        select a.grantee
        from pg_class as c
        join pg_attribute as v on v.attrelid = c.oid and not v.attisdropped
        cross join aclexplode(v.attacl) as a
        where c.oid = r.table_name and a.privilege_type = 'SELECT' and a.grantee <> c.relowner
            and (v.attname = r.column_name or v.attname in (select k.name from funnelvec._key(r.table_name) as k))
        group by a.grantee
        having count(*) = 1 + (select count(*) from funnelvec._key(r.table_name))
    ), known as (
        select a.grantee
        from pg_class as c cross join aclexplode(c.relacl) as a
        where c.oid = r.side_table and a.privilege_type = 'SELECT' and a.grantee <> c.relowner
    )
    select case coalesce(w.grantee, k.grantee) when 0 then 'public' else coalesce(w.grantee, k.grantee)::regrole::text end,
        k.grantee is null
    from readers as w full join known as k on k.grantee = w.grantee
    where w.grantee is null or k.grantee is null
$body$;

-- Row-level security follows the user's table: a row of the side table shows where the row that it belongs to does.
create or replace function funnelvec._write_side_grants(r funnelvec.resolutions)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    g record;
begin
    for g in select * from funnelvec._side_grants(r) loop
        execute format(case when g.missing then 'grant select on %s to %s' else 'revoke select on %s from %s' end, r.side_table, g.grantee);
    end loop;
    if funnelvec._side_open(r) then
        execute format('alter table %s enable row level security', r.side_table);
        execute format('drop policy if exists follow on %s', r.side_table);
        execute format('create policy follow on %s for select using (exists (select from %s as t where %s))',
            r.side_table, r.table_name, funnelvec._side_join(r.side_table, quote_ident((select c.relname from pg_class as c where c.oid = r.side_table)), r.table_name));
    end if;
end
$body$;

-- Whether the user's table has row-level security and the side table has not.
create or replace function funnelvec._side_open(r funnelvec.resolutions)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select b.relrowsecurity and not s.relrowsecurity
    from pg_class as b, pg_class as s
    where b.oid = r.table_name and s.oid = r.side_table
$body$;

-- Rows that the filling role cannot see would be missing from the codes for good.
create or replace function funnelvec._check_sees_all(table_name regclass)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    if row_security_active(table_name) then
        raise exception using
            errcode = 'FV009',
            message = format('row-level security of %s is forced on %I too, so not every row can be filled in', table_name, current_user),
            hint = 'Run this as a role with BYPASSRLS, or store the resolution with storage => ''column''.';
    end if;
end
$body$;
