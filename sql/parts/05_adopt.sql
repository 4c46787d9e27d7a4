-- From a plain install to the extension: `create extension` takes over what is there, with every row, grant and dependency, where
-- Postgres alone would stop at the first name that exists. Fresh installs, plain installs and updates pass through here untouched.
-- Only what the same role owns is taken over: else somebody who may create a schema could slip a function under an administrator.

do $adopt$
declare
    -- The tables of the parts below; a test compares them with what an install leaves.
    registry constant name[] := array['_install', 'calibrations', 'funnels', 'loads', 'resolutions', 'rotations', 'windows'];
    home constant oid := (select n.oid from pg_catalog.pg_namespace as n where n.nspname = 'funnelvec');
    me constant oid := (select r.oid from pg_catalog.pg_roles as r where r.rolname = current_user);
    extension record;
    other text;
    recorded text;
    member text;
begin
    select e.oid, e.extversion as version into extension from pg_catalog.pg_extension as e where e.extname = 'funnelvec';
    if extension.oid is null or not exists (
        select
        from pg_catalog.pg_class as c
        where c.relnamespace = home and c.relname = '_install' and not exists (
            select from pg_catalog.pg_depend as d where d.objid = c.oid and d.refobjid = extension.oid and d.deptype = 'e')
    ) then
        return;
    end if;
    select o.owner::regrole::text into other
    from (
        select n.nspowner from pg_catalog.pg_namespace as n where n.oid = home
        union all select c.relowner from pg_catalog.pg_class as c where c.relnamespace = home
        union all select p.proowner from pg_catalog.pg_proc as p where p.pronamespace = home
    ) as o (owner)
    where o.owner <> me
    limit 1;
    if other is not null then
        raise exception using
            errcode = 'FV010',
            message = pg_catalog.format('the plain install of funnelvec belongs to role %s, not to %I', other, current_user),
            hint = pg_catalog.format('Create the extension as that role: set role %s;', other);
    end if;
    select pg_catalog.string_agg(pg_catalog.format('funnelvec.%I', c.relname), ', ' order by c.relname) into other
    from pg_catalog.pg_class as c
    where c.relnamespace = home and c.relkind not in ('i', 'I') and c.relname <> all (registry);
    if other is not null then
        raise exception using
            errcode = 'FV010',
            message = pg_catalog.format('schema funnelvec also holds what funnelvec did not make: %s', other),
            hint = 'Move it to another schema first (alter table ... set schema ...): the extension would own it.';
    end if;
    select i.version into recorded from funnelvec._install as i order by i.applied_at desc limit 1;
    if recorded is distinct from extension.version then
        raise exception using
            errcode = 'FV010',
            message = pg_catalog.format('the plain install is of version %s, the extension of %s', recorded, extension.version),
            hint = 'Bring the plain install to that version first: funnelvec upgrade URL.';
    end if;
    for member in
        select pg_catalog.format('table funnelvec.%I', c.relname)
        from pg_catalog.pg_class as c
        where c.relnamespace = home and c.relkind = 'r'
        union all
        select pg_catalog.format('routine %s', p.oid::regprocedure)
        from pg_catalog.pg_proc as p
        where p.pronamespace = home
    loop
        execute pg_catalog.format('alter extension funnelvec add %s', member);
    end loop;
    delete from funnelvec._install;
end
$adopt$;
