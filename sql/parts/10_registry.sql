-- The registry: what funnelvec keeps about your tables. The only stateful part; every other part is `create or replace`.
-- Typed search functions never read it: it serves status, explain, measure_recall and calibrate.

-- Refuse to install beside a pgvector that lacks what the searches need (iterative scans: 0.8.0).
do $check$
declare
    installed text := (select e.extversion from pg_catalog.pg_extension as e where e.extname = 'vector');
begin
    if installed is null then
        raise exception using
            errcode = 'FV010',
            message = 'funnelvec needs the extension "vector" (pgvector), which this database does not have',
            hint = 'As an administrator: create extension vector;';
    end if;
    if pg_catalog.string_to_array(pg_catalog.substring(installed, '^[0-9.]+'), '.')::integer[] < array[0, 8] then
        raise exception using
            errcode = 'FV010',
            message = pg_catalog.format('funnelvec needs pgvector 0.8.0 or later; this database has %s', installed),
            hint = 'Install a newer pgvector, then: alter extension vector update;';
    end if;
    if pg_catalog.string_to_array(pg_catalog.substring(installed, '^[0-9.]+'), '.')::integer[] < array[0, 8, 4] then
        raise warning 'pgvector % works, but its HNSW has faults that 0.8.4 repairs', installed
            using hint = 'Update pgvector when you can.';
    end if;
end
$check$;

-- Filled by the plain install only; in extension mode PostgreSQL itself keeps the version.
create table if not exists funnelvec._install (
    version text not null,
    sha256 text not null,
    applied_at timestamptz not null default pg_catalog.now()
);

create table if not exists funnelvec.resolutions (
    table_name regclass not null,
    column_name text not null,
    resolution text not null,
    metric text not null,
    code_column text not null,
    index_name text,
    -- Where searches read the code: 'column', a column of the table itself, or 'side', a table beside it. While a column is moved into
    -- a side table it has both.
    storage text not null default 'column',
    side_table regclass,
    -- How far a side table is: filling, sweeping, filled, ready. The rest is for resuming: the key that was reached, rows so far,
    -- and the index to build.
    state text,
    filled_to text[],
    filled bigint not null default 0,
    index_options jsonb,
    created_at timestamptz not null default pg_catalog.now(),
    primary key (table_name, column_name, resolution)
);

create table if not exists funnelvec.funnels (
    table_name regclass not null,
    name text not null,
    column_name text not null,
    funnel text not null,
    metric text not null,
    approximate boolean not null,
    model text not null,
    calibration integer,
    returns text[],
    -- What was asked for, while a resolution that it needs is still being filled; `funnel` is what runs meanwhile.
    pending text,
    created_at timestamptz not null default pg_catalog.now(),
    logging jsonb,
    -- What was certified of this funnel (74_certificate); void when the funnel or its calibration is another.
    certificate jsonb,
    -- What feedback has come to since the calibration (76_feedback).
    feedback jsonb,
    -- What a tuning run found, and which rows there were then (83_since); of no use when the funnel is another.
    tuned jsonb,
    primary key (table_name, name)
);

create table if not exists funnelvec.calibrations (
    table_name regclass not null,
    column_name text not null,
    model text not null,
    metric text not null,
    last_stage text not null,
    version integer not null,
    family text not null,
    parameters jsonb not null,
    judgments_sha256 text not null,
    queries integer not null,
    pairs integer not null,
    relevant integer not null,
    fitted_at timestamptz not null default pg_catalog.now(),
    -- The best scores of the judged queries, in order: what later queries are compared with (77_drift).
    reference jsonb,
    primary key (table_name, column_name, model, metric, last_stage, version)
);

-- How far each bulk load has come, written in the transaction of every batch. It belongs to the role that loads: a loader needs no
-- more than the right to insert, and nobody else can make its next start skip rows.
create table if not exists funnelvec.loads (
    table_name regclass not null,
    column_name text not null,
    loader text not null default current_user,
    name text not null,
    source jsonb not null,
    rows bigint not null,
    keys_crc bigint not null,
    started_at timestamptz not null default pg_catalog.clock_timestamp(),
    updated_at timestamptz not null default pg_catalog.clock_timestamp(),
    finished_at timestamptz,
    primary key (table_name, column_name, loader, name)
);

-- Partial indexes over ranges of a column. Bounds part the rows into cells, at first as many rows in each; windows run from one to another
-- (46_windows). `shares` says which part of all rows each cell held then. Searches use the windows from `ready` on.
create table if not exists funnelvec.windows (
    table_name regclass not null,
    column_name text not null,
    resolution text not null,
    by_column text not null,
    levels integer not null,
    bounds text[] not null,
    shares double precision[] not null,
    m integer not null,
    ef_construction integer not null,
    ready boolean not null default false,
    created_at timestamptz not null default pg_catalog.now(),
    primary key (table_name, column_name, resolution, by_column)
);

-- What was fitted: linear maps of one vector column, immutable. A map is kept in whole numbers, row by row; times its step they are the
-- numbers of the map, in SQL as in numpy. `id` is what ties a map to the functions that were made from it.
create table if not exists funnelvec.rotations (
    table_name regclass not null,
    column_name text not null,
    name text not null,
    id uuid not null default pg_catalog.gen_random_uuid(),
    kind text not null,
    -- What follows it, random or itq, after which only the full width means anything; null where nothing does.
    chain text,
    dims integer not null,
    width integer not null,
    -- The metric of the column that it was fitted for.
    metric text not null,
    row_map integer[] not null,
    row_step double precision not null,
    -- Null where queries take the map of rows.
    query_map integer[],
    query_step double precision,
    fitted_on text not null,
    rows integer not null,
    queries integer not null,
    recommended boolean not null,
    report jsonb,
    fitted_at timestamptz not null default pg_catalog.now(),
    primary key (table_name, column_name, name),
    -- All of it goes into the text of functions, and whoever owns the table may write rows by hand.
    constraint a_rotation check (
        name ~ '^[a-z][a-z0-9_]{0,15}$' and kind in ('pca', 'sphering') and chain in ('random', 'itq')
        and metric in ('cosine', 'dot', 'euclidean') and fitted_on ~ '^[0-9a-f]{64}$'
        and pg_catalog.array_ndims(row_map) = 2 and pg_catalog.array_length(row_map, 1) = width and pg_catalog.array_length(row_map, 2) = dims
        and row_step > 0 and row_step < 1e30
        and (query_map is null) = (kind <> 'sphering') and (query_map is null) = (query_step is null)
        and pg_catalog.array_dims(query_map) = pg_catalog.array_dims(row_map) and query_step > 0 and query_step < 1e30
    )
);

comment on table funnelvec._install is 'versions of a plain install (empty when funnelvec is an extension)';
comment on table funnelvec.resolutions is 'stored resolutions: one row per table, vector column and resolution';
comment on table funnelvec.funnels is 'funnels: one row per generated search function';
comment on table funnelvec.rotations is 'fitted rotations: one row per map; immutable, a refit gets another name';
comment on table funnelvec.loads is 'bulk loads: how many rows of each source are in; finished_at is null while one is under way or interrupted';
comment on table funnelvec.windows is 'partial indexes over ranges of a column: one row per resolution and column';
comment on table funnelvec.calibrations is 'fitted maps from score to relevance; immutable, a refit gets the next version';

-- Who may see and change a row follows from the user's table alone: a reader of the table may see its rows, an owner may change
-- them. A row can't be written before its table exists, or it would wait for a table of somebody else's to get that number. Rows
-- whose table is gone belong to nobody and may be removed by anybody.
create or replace function funnelvec._owns(table_name regclass)
returns boolean
language sql stable parallel safe
return coalesce(
    (
        select pg_catalog.pg_has_role(c.relowner, 'usage')
        from pg_catalog.pg_class as c
        where c.oid operator(pg_catalog.=) table_name
            and c.relkind operator(pg_catalog.=) any (array['r'::"char", 'p'::"char"])
    ),
    false
);

create or replace function funnelvec._gone(table_name regclass)
returns boolean
language sql stable parallel safe
return not exists (select from pg_catalog.pg_class as c where c.oid operator(pg_catalog.=) table_name);

create or replace function funnelvec._reads(table_name regclass)
returns boolean
language sql stable parallel safe
return coalesce(
    pg_catalog.has_table_privilege(table_name, 'select')
    or pg_catalog.has_any_column_privilege(table_name, 'select'),
    true
);

create or replace function funnelvec._inserts(table_name regclass)
returns boolean
language sql stable parallel safe
return coalesce(
    pg_catalog.has_table_privilege(table_name, 'insert')
    or pg_catalog.has_any_column_privilege(table_name, 'insert'),
    false
);

do $policies$
declare
    registry text;
begin
    foreach registry in array array['resolutions', 'funnels', 'calibrations', 'loads', 'rotations', 'windows'] loop
        execute pg_catalog.format('alter table funnelvec.%I enable row level security', registry);
        execute pg_catalog.format('drop policy if exists readers on funnelvec.%I', registry);
        execute pg_catalog.format('drop policy if exists owners on funnelvec.%I', registry);
        execute pg_catalog.format('drop policy if exists anybody on funnelvec.%I', registry);
        if registry = 'loads' then
            execute pg_catalog.format('drop policy if exists loaders on funnelvec.%I', registry);
            execute pg_catalog.format(
                'create policy loaders on funnelvec.%I '
                'using (loader operator(pg_catalog.=) current_user::text and funnelvec._inserts(table_name)) '
                'with check (loader operator(pg_catalog.=) current_user::text and funnelvec._inserts(table_name))', registry);
            execute pg_catalog.format(
                'create policy owners on funnelvec.%I for select using (funnelvec._owns(table_name))', registry);
            execute pg_catalog.format('drop policy if exists removal on funnelvec.%I', registry);
            execute pg_catalog.format(
                'create policy removal on funnelvec.%I for delete using (funnelvec._owns(table_name))', registry);
        else
            execute pg_catalog.format(
                'create policy readers on funnelvec.%I for select using (funnelvec._reads(table_name))', registry);
            execute pg_catalog.format(
                'create policy owners on funnelvec.%I using (funnelvec._owns(table_name)) '
                'with check (funnelvec._owns(table_name))', registry);
        end if;
        execute pg_catalog.format(
            'create policy anybody on funnelvec.%I for delete using (funnelvec._gone(table_name))', registry);
        -- A map that changed would leave every code that was made with it wrong.
        execute pg_catalog.format('grant select, insert, %sdelete on funnelvec.%I to public',
            case when registry <> 'rotations' then 'update, ' end, registry);
        -- pg_dump skips the rows of an extension's tables unless it is told; outside an extension script this call is an error.
        -- It is told only where the owner of the database has the rights of whoever installs: for any other owner row-level
        -- security would make every pg_dump of the database stop. There repair() reads the rows back from the functions.
        if exists (
            select
            from pg_catalog.pg_extension as e, pg_catalog.pg_database as d
            where e.extname = 'funnelvec' and d.datname = pg_catalog.current_database()
                and pg_catalog.pg_has_role(d.datdba, current_user, 'usage')
        ) then
            perform pg_catalog.pg_extension_config_dump(('funnelvec.' || registry)::regclass, '');
        end if;
    end loop;
    grant usage on schema funnelvec to public;
    grant select on funnelvec._install to public;
end
$policies$;

-- The installed version: from pg_extension, or from the record of the plain install.
create or replace function funnelvec.version()
returns text
language sql stable parallel safe
return coalesce(
    (select e.extversion from pg_catalog.pg_extension as e where e.extname operator(pg_catalog.=) 'funnelvec'),
    (select i.version from funnelvec._install as i order by i.applied_at desc limit 1)
);

comment on function funnelvec.version() is 'installed version of funnelvec';
