-- The last part: what an upgrade means for the search functions that are there.

-- After an upgrade: search functions whose text would be another now are written again, where the caller owns the table; a warning
-- names the others. Nothing here stops an upgrade.
create or replace function funnelvec._refresh_functions()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    failed text;
begin
    select string_agg(format('%s: %s', r.what, r.action), '; ') into failed
    from funnelvec._repair_functions() as r
    where r.action like 'not repaired%';
    if failed is not null then
        raise warning using message = format('not every search function could be written again: %s', failed);
    end if;
    perform funnelvec._warn_of_stale('01000');
exception when others then
    raise warning using
        message = format('search functions were not written again: %s', sqlerrm),
        hint = 'select * from funnelvec.repair();';
end
$body$;

create or replace function funnelvec._warn_of_stale(state text)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    stale text;
begin
    select string_agg(format('%s of %s', funnelvec._function_name(f), c.relowner::regrole), ', ' order by funnelvec._function_name(f))
    into stale
    from funnelvec.funnels as f
    join pg_class as c on c.oid = f.table_name
    where funnelvec._function_fault(f) like 'stale%';
    if stale is not null then
        raise warning using
            errcode = state,
            message = format('search functions were written by an older funnelvec: %s', stale),
            hint = 'As the owner of their tables run: select * from funnelvec.repair();';
    end if;
end
$body$;

-- A function that the script of an extension writes would belong to the extension, and one that is there can't be replaced by it: an
-- update can only say what has to be done. By its state the installer tells this warning from all others: it does what it asks for.
do $refresh$
begin
    if exists (select from pg_catalog.pg_extension as e where e.extname = 'funnelvec') then
        perform funnelvec._warn_of_stale('01FV1');
    else
        perform funnelvec._refresh_functions();
    end if;
exception when others then
    raise warning using message = pg_catalog.format('search functions were not looked at: %s', sqlerrm);
end
$refresh$;
