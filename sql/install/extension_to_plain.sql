-- From the extension to a plain install: every object leaves the extension and stays as it is, with its rows, grants and
-- dependencies; then the extension is empty and goes. The plain text that follows finds the objects and records itself.
do $release$
declare
    member record;
begin
    -- One at a time: a table takes its row type with it, in some versions of PostgreSQL and not in others.
    loop
        select i.type, i.identity
          into member
          from pg_catalog.pg_extension as e
          join pg_catalog.pg_depend as d
            on d.refclassid = 'pg_catalog.pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
         cross join lateral pg_catalog.pg_identify_object(d.classid, d.objid, 0) as i
         where e.extname = 'funnelvec'
         order by i.type = 'type'
         limit 1;
        exit when not found;
        execute pg_catalog.format('alter extension funnelvec drop %s %s', member.type, member.identity);
    end loop;
end
$release$;
drop extension funnelvec;
