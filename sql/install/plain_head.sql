-- funnelvec @version@, plain install: the extension's objects without the extension, for servers where
-- its files cannot be placed. Needs pgvector and the right to create a schema; no superuser. Running
-- it again over the same version is safe: functions are replaced, tables and their rows are kept.
set local client_min_messages = warning;  -- silences "already exists, skipping" when run again
do $head$
declare
    pgvector record;
    extension_version text := (
        select e.extversion from pg_catalog.pg_extension as e where e.extname = 'funnelvec'
    );
    home record;
    me record;
    -- An upgrade names the version that it starts from; an install names none.
    start constant text := nullif('@from@', '');
    recorded text;
begin
    -- Two installers at once would each see an empty schema.
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('funnelvec install', 0));

    if extension_version is not null then
        raise exception using
            errcode = 'FV010',
            message = pg_catalog.format(
                'funnelvec %s is already installed as an extension in database "%s"',
                extension_version, current_database()
            ),
            hint = 'A newer version comes with: alter extension funnelvec update. To turn it into a plain install: '
                'funnelvec install URL --mode plain --move';
    end if;

    select r.oid, r.rolsuper into me from pg_catalog.pg_roles as r where r.rolname = current_user;
    select n.nspowner as owner, pg_catalog.pg_get_userbyid(n.nspowner) as owner_name, r.rolsuper as owner_is_super
      into home
      from pg_catalog.pg_namespace as n
      left join pg_catalog.pg_roles as r on r.oid = n.nspowner
     where n.nspname = 'funnelvec';
    if not found and start is null then
        -- Not "if not exists": that would ask for the right to create a schema where none is created.
        create schema funnelvec;
    elsif home.owner <> me.oid and not (
        case
            when me.rolsuper then coalesce(home.owner_is_super, false)
            else pg_catalog.pg_has_role(home.owner, 'usage')
        end
    ) then
        -- The owner of a schema can replace what is in it, so a schema that another role put there
        -- first is no place to install into; for a superuser least of all.
        raise exception using
            errcode = 'FV010',
            message = pg_catalog.format(
                'schema funnelvec in database "%s" belongs to role "%s", not to "%s"',
                current_database(), home.owner_name, current_user
            ),
            hint = pg_catalog.format('Install as role "%s", or drop the schema if nothing in it is needed.', home.owner_name);
    end if;

    if exists (
        select
          from pg_catalog.pg_class as c
          join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
         where n.nspname = 'funnelvec' and c.relname = '_install'
    ) then
        select i.version into recorded from funnelvec._install as i order by i.applied_at desc limit 1;
    end if;
    if start is not null then
        if recorded is distinct from start then
            raise exception using
                errcode = 'FV010',
                message = pg_catalog.format(
                    'this text brings funnelvec %s to @version@; database "%s" has %s',
                    start, current_database(), coalesce(recorded, 'none')
                ),
                hint = 'The text for what is installed comes from: funnelvec upgrade URL --dry-run';
        end if;
    elsif recorded <> '@version@' then
        raise exception using
            errcode = 'FV010',
            message = pg_catalog.format(
                'funnelvec %s is installed in database "%s"; this is the text of version @version@',
                recorded, current_database()
            ),
            hint = 'Run "funnelvec upgrade URL" with the newer of the two Python packages.';
    end if;

    -- Unqualified names in the body mean what they mean under create extension: ours, then pgvector's.
    -- Where pgvector is missing or too old, the body's own first statement says so.
    select e.extversion as version, n.nspname as schema
      into pgvector
      from pg_catalog.pg_extension as e
      join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
     where e.extname = 'vector';
    if found then
        perform pg_catalog.set_config(
            'search_path', pg_catalog.format('funnelvec, %I, pg_temp', pgvector.schema), true
        );
    end if;
end
$head$;
