-- Filling a side table, building its index and switching searches over: resumable steps, each a short transaction.
--
--   filling   rows that were there before the triggers are copied in batches, in the order of the key
--   sweeping  every row is looked up once more, in batches too; then the table is filled
--   filled    the index is built (concurrently, which only the client can ask for); then activate
--   ready     searches use it
--   leaving   searches have switched between a column and a side table; what they have left is dropped in a step of its own, because a
--             search that was waiting for a lock at that moment still reads it
--   checking  as ready, but a trigger was off for a while: every code is compared with its vector in batches, then it is ready again
--
-- A batch reads rows as they are and inserts codes that are not there yet, so what a trigger wrote wins. A row that is deleted while a
-- batch holds its uncommitted code leaves a code without a row: searches skip those, and the sweep removes them. It begins when all are
-- at their end who may have deleted one so.

-- One batch of what is left to fill for a table: what was done, or null when there is nothing left.
create or replace function funnelvec._backfill_step(
    table_name regclass,
    batch integer,
    out resolution text,
    out state text,
    out done bigint,
    out total bigint,
    out went_through bigint
)
language plpgsql
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 1
as $body$
declare
    r funnelvec.resolutions;
    hub record;
begin
    perform funnelvec._check_table(table_name);
    perform funnelvec._check_owner(table_name);
    if batch is null or batch not between 1 and 1000000 then
        raise exception using
            errcode = 'FV004',
            message = format('batch is %s', coalesce(batch::text, 'null')),
            hint = 'Fill 1 to 1000000 rows at a time; 2000 is the default of the procedure.';
    end if;
    select s.* into r
    from funnelvec.resolutions as s
    where s.table_name = $1 and s.state in ('filling', 'sweeping', 'checking')
    order by s.column_name, s.resolution
    limit 1
    -- Two sessions that fill the same table take turns.
    for update;
    if r.state is null then
        hub := funnelvec._hub_step(table_name, batch);
        resolution := hub.hub_column;
        state := hub.state;
        done := hub.written;
        went_through := hub.written;
        total := case when resolution is not null then funnelvec._believed_rows(table_name) end;
        return;
    end if;
    went_through := -r.filled;
    perform funnelvec._check_sees_all(table_name);
    perform funnelvec._check_sees_now();
    if not funnelvec._side_stands(r) then
        raise exception using
            errcode = 'FV005',
            message = format('the side table of %s of %s.%I is gone', r.resolution, r.table_name, r.column_name),
            hint = format('select funnelvec.drop_resolution(%L, %L, %L); then add it again.', r.table_name::text, r.column_name, r.resolution);
    end if;
    if r.state = 'sweeping' and r.filled_to is null then
        -- A step of its own, in the row that says so: whoever has deleted a row beside the code that the last batch was writing for it
        -- began before this transaction did, but maybe after that of the batch.
        r.filled_to := '{}';
    else
        if r.state = 'sweeping' and r.filled_to = '{}' then
            perform funnelvec._wait_for_writers(
                (select s.xmin from funnelvec.resolutions as s
                 where s.table_name = r.table_name and s.column_name = r.column_name and s.resolution = r.resolution),
                format('%s was filled', r.side_table));
            r.filled_to := null;
        end if;
        r := funnelvec._take_batch(r, batch);
    end if;
    update funnelvec.resolutions as u
    set state = r.state, filled_to = r.filled_to, filled = r.filled
    where u.table_name = r.table_name and u.column_name = r.column_name and u.resolution = r.resolution;
    perform funnelvec._write_side_function(r) where r.state in ('filled', 'ready');
    resolution := r.resolution;
    state := r.state;
    done := r.filled;
    went_through := went_through + r.filled;
    total := greatest(funnelvec._believed_rows(r.table_name), r.filled);
end
$body$;

-- How many rows the planner believes the table to have; 0 where it has no belief. Progress may be vague, but has to be cheap.
create or replace function funnelvec._believed_rows(table_name regclass)
returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select greatest(0, coalesce(sum(c.reltuples) filter (where c.reltuples > 0), 0))::bigint
    from (
        select p.relid from pg_partition_tree(table_name) as p where p.isleaf
        union select table_name
    ) as l
    join pg_class as c on c.oid = l.relid and c.relkind = 'r'
$body$;

-- A batch of a side table, without making others wait for those whom the batch waits for. It stands on codes that are not committed;
-- a writer who has changed one vector and wants to change another that is in the batch, while the batch comes to the first, would
-- wait for the batch and the batch for him. So it gives up soon (before PostgreSQL looks for a deadlock and picks a victim), which lets
-- everybody go, and takes fewer rows: in the end one row alone, which nobody else waits for.
create or replace function funnelvec._take_batch(r funnelvec.resolutions, batch integer)
returns funnelvec.resolutions
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    before text := current_setting('lock_timeout');
    deadline timestamptz := clock_timestamp() + nullif(before, '0')::interval;
    rows integer := batch;
    taken funnelvec.resolutions;
begin
    loop
        begin
            perform set_config('lock_timeout', '100ms', true);
            if r.state = 'filling' then
                taken := funnelvec._fill_batch(r, rows);
            else
                taken := funnelvec._sweep_batch(r, rows);
            end if;
            perform set_config('lock_timeout', before, true);
            return taken;
        exception when lock_not_available then
            if clock_timestamp() > deadline then
                raise;
            end if;
            rows := greatest(1, rows / 8);
        end;
    end loop;
end
$body$;

create or replace function funnelvec._fill_batch(r funnelvec.resolutions, batch integer)
returns funnelvec.resolutions
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    code record := funnelvec._code_of(r.table_name, r.column_name, r.resolution, 'b.vector', r.metric);
    keys text;
    plain text;
    backwards text;
    texts text;
    counted bigint;
    last text[];
begin
    select
        string_agg(format('t.%I as key_%s', k.name, k.ordinal), ', ' order by k.ordinal),
        string_agg(format('b.key_%s', k.ordinal), ', ' order by k.ordinal),
        string_agg(format('b.key_%s desc', k.ordinal), ', ' order by k.ordinal),
        string_agg(format('b.key_%s::text', k.ordinal), ', ' order by k.ordinal)
    into keys, plain, backwards, texts
    from funnelvec._key(r.table_name) as k;
    execute format(
        $text$
        with batch as materialized (
            select %1$s, t.%2$I as vector from %3$s as t where %4$s order by %5$s limit %6$s
        ), put as (
            insert into %7$s select %8$s, %9$s from batch as b where b.vector is not null on conflict do nothing
        )
        select (select count(*) from batch), (select array[%10$s] from batch as b order by %11$s limit 1)
        $text$,
        keys, r.column_name, r.table_name, funnelvec._key_range(r.table_name, 't', r.table_name, r.filled_to, null),
        (select string_agg(format('t.%I', k.name), ', ' order by k.ordinal) from funnelvec._key(r.table_name) as k),
        batch, r.side_table, plain, code.expression, texts, backwards)
    into counted, last;
    r.filled := r.filled + counted;
    r.filled_to := last;
    if counted < batch then
        r.state := 'sweeping';
        r.filled_to := null;
    end if;
    return r;
end
$body$;

-- That a key lies behind `above` and not behind `upto` (null: no bound), for a relation whose first columns are the key, or the table.
create or replace function funnelvec._key_range(table_name regclass, alias text, relation regclass, above text[], upto text[])
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select concat_ws(' and ', 'true',
        case when above is not null then format('(%s) > (%s)', k.names, (
            select string_agg(format('%L::%s', above[y.ordinal], y.type), ', ' order by y.ordinal) from funnelvec._key(table_name) as y)) end,
        case when upto is not null then format('(%s) <= (%s)', k.names, (
            select string_agg(format('%L::%s', upto[y.ordinal], y.type), ', ' order by y.ordinal) from funnelvec._key(table_name) as y)) end)
    from (
        select string_agg(format('%s.%I', alias, case when relation = table_name then y.name else a.attname end), ', ' order by y.ordinal)
        from funnelvec._key(table_name) as y
        left join pg_attribute as a on a.attrelid = relation and a.attnum = y.ordinal
    ) as k (names)
$body$;

-- What batches and triggers could not see, in the next `batch` rows: codes whose row has gone, rows that came with a partition that was
-- attached. Where a trigger was off, also codes that are not those of their vectors.
create or replace function funnelvec._sweep_batch(r funnelvec.resolutions, batch integer)
returns funnelvec.resolutions
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    code record := funnelvec._code_of(r.table_name, r.column_name, r.resolution, format('t.%I', r.column_name), r.metric);
    joined text := funnelvec._side_join(r.side_table, 's', r.table_name);
    keys text := (select string_agg(format('t.%I', k.name), ', ' order by k.ordinal) from funnelvec._key(r.table_name) as k);
    upto text[];
    range text;
begin
    execute format('select array[%s] from %s as t where %s order by %s offset %s limit 1',
        (select string_agg(format('t.%I::text', k.name), ', ' order by k.ordinal) from funnelvec._key(r.table_name) as k),
        r.table_name, funnelvec._key_range(r.table_name, 't', r.table_name, r.filled_to, null), keys, batch - 1)
    into upto;
    range := funnelvec._key_range(r.table_name, 't', r.table_name, r.filled_to, upto);
    if r.state = 'checking' then
        perform funnelvec._correct(r, range);
    end if;
    -- A row whose code is written here is locked, so that who deletes it at this moment finds the code.
    -- Deleted first: a row of such a key may come back at this moment and find its code still there. The next statement sees that row,
    -- if it is committed by now; if it is not, its trigger waits for us and then writes the code.
    execute format(
        'delete from %s as s where %s and not exists (select from %s as t where %s and t.%I is not null)',
        r.side_table, funnelvec._key_range(r.table_name, 's', r.side_table, r.filled_to, upto), r.table_name, joined, r.column_name);
    execute format(
        'insert into %1$s select %2$s, %3$s from %4$s as t where %7$s and t.%5$I is not null and not exists (select from %1$s as s where %6$s) '
        'for share of t on conflict do nothing',
        r.side_table, keys, code.expression, r.table_name, r.column_name, joined, range);
    r.filled_to := upto;
    r.filled := r.filled + case when r.state = 'checking' and upto is not null then batch else 0 end;
    if upto is null then
        r.state := case r.state when 'checking' then 'ready' else 'filled' end;
    end if;
    return r;
end
$body$;

-- Codes that are not those of their vectors, because a trigger was off. The row is locked before its code is written: somebody who
-- changes the vector at this moment either has written the new code already, and it is compared with the new vector, or waits.
create or replace function funnelvec._correct(r funnelvec.resolutions, range text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    wanted record := funnelvec._parse_resolution(r.resolution);
    home text := case when wanted.code ~ '^bit' then 'pg_catalog' else funnelvec._vector_schema() end;
begin
    execute format(
        $text$
        with changed as materialized (
            select t.*
            from %1$s as t join %2$s as s on %3$s
            where %8$s and t.%4$I is not null and s.%5$I operator(%6$s.<>) %7$s
            for share of t
        )
        update %2$s as s set %5$I = %7$s from changed as t where %3$s and s.%5$I operator(%6$s.<>) %7$s
        $text$,
        r.table_name, r.side_table, funnelvec._side_join(r.side_table, 's', r.table_name), r.column_name, r.code_column, home,
        (funnelvec._code_of(r.table_name, r.column_name, r.resolution, format('t.%I', r.column_name), r.metric)).expression, range);
end
$body$;

-- For users of psql. Python's backfill and the command of that name do the same, build the index and activate.
create or replace procedure funnelvec.backfill(table_name regclass, batch integer default 2000)
language plpgsql
as $body$
-- A procedure with a SET clause cannot commit, so every name here has its schema, and no operator is used.
declare
    _fv_step record;
    _fv_next text;
begin
    loop
        select s.resolution, s.state, s.done, s.total into _fv_step from funnelvec._backfill_step(table_name, batch) as s;
        commit;
        exit when _fv_step.resolution is null;
        raise notice '%: % of about % rows, %', _fv_step.resolution, _fv_step.done, _fv_step.total, _fv_step.state;
    end loop;
    _fv_next := funnelvec._next_said(table_name);
    if _fv_next is not null then
        raise notice 'next: %', _fv_next;
    end if;
end
$body$;

-- HNSW indexes over a column with the operators that a resolution is searched by; `attached`: a part of the index of a partitioned table.
create or replace function funnelvec._indexes_over(relation regclass, code_column text, opclass text)
returns table (name regclass, valid boolean, attached boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select i.indexrelid::regclass, i.indisvalid and i.indisready, c.relispartition
    from pg_index as i
    join pg_class as c on c.oid = i.indexrelid
    join pg_am as m on m.oid = c.relam
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    join pg_opclass as o on o.oid = i.indclass[0]
    join pg_namespace as n on n.oid = o.opcnamespace
    where i.indrelid = relation and m.amname = 'hnsw' and i.indpred is null and a.attname = code_column
        and format('%I.%I', n.nspname, o.opcname) = opclass
    order by i.indexrelid
$body$;

-- The statement that brings a relation nearer to its index; both null where it has one. `waits`: somebody is at work there.
create or replace function funnelvec._index_step(
    relation regclass,
    code_column text,
    opclass text,
    options jsonb,
    out step text,
    out waits text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    broken regclass;
    found record;
    name text;
    number text := '';
begin
    if exists (select from funnelvec._indexes_over(relation, code_column, opclass) as i where i.valid and not i.attached) then
        return;
    end if;
    select i.name into broken
    from funnelvec._indexes_over(relation, code_column, opclass) as i
    where not i.valid and not i.attached
    limit 1;
    if broken is null then
        -- With a name, because two who run this at the same moment would else build it twice.
        loop
            name := funnelvec._fit_name((select format('%s_%s', c.relname, code_column) from pg_class as c where c.oid = relation), '_idx' || number);
            exit when not exists (
                select from pg_class as c join pg_class as t on t.oid = relation where c.relnamespace = t.relnamespace and c.relname = name);
            number := coalesce(nullif(number, '')::integer, 0) + 1;
        end loop;
        step := format('create index concurrently if not exists %I on %s using hnsw (%I %s) with (m = %s, ef_construction = %s);',
            name, relation, code_column, opclass, (options ->> 'm')::integer, (options ->> 'ef_construction')::integer);
        return;
    end if;
    found := funnelvec._broken_step(relation, broken);
    step := found.step;
    waits := found.waits;
end
$body$;

-- What to do about an index that is not valid: drop it, unless somebody is at work there.
create or replace function funnelvec._broken_step(relation regclass, broken regclass, out step text, out waits text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    builder integer;
begin
    -- A build holds this lock to its end, and so does VACUUM. Dropping would wait for it, and then drop what it has finished. Autovacuum
    -- (nobody's session) makes way for whoever waits for it.
    select l.pid into builder
    from pg_locks as l join pg_stat_activity as a on a.pid = l.pid and a.usesysid is not null
    where l.relation = _broken_step.relation and l.mode = 'ShareUpdateExclusiveLock' and l.granted and l.pid <> pg_backend_pid()
        and l.database = (select d.oid from pg_database as d where d.datname = current_database())
    limit 1;
    if builder is null then
        step := format('drop index concurrently %s;', broken);
    else
        waits := format('process %s is working on %s, perhaps building its index', builder, relation);
    end if;
end
$body$;

-- What the index of a column still needs that was asked for with concurrently => true. A partitioned table gets it leaf by leaf, because
-- Postgres builds no index over all of it concurrently; activate then puts one over those.
create or replace function funnelvec._column_step(r funnelvec.resolutions, opclass text, out step text, out waits text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    leaf regclass;
    found record;
begin
    if r.index_options is null
        or not exists (select from pg_attribute as a where a.attrelid = r.table_name and a.attname = r.code_column and not a.attisdropped)
    then
        return;
    elsif funnelvec._index_of(r.table_name, r.code_column, opclass) is null then
        for leaf in select l.relation from funnelvec._leaves(r.table_name) as l loop
            found := funnelvec._index_step(leaf, r.code_column, opclass, r.index_options);
            step := found.step;
            waits := coalesce(waits, found.waits);
            if step is not null then
                return;
            end if;
        end loop;
    end if;
    if waits is null then
        step := format('select funnelvec.activate(%L, %L, %L);', r.table_name::text, r.column_name, r.resolution);
    end if;
end
$body$;

-- Where the rows of a table are: in its partitions, else in itself.
create or replace function funnelvec._leaves(table_name regclass)
returns table (relation regclass)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select p.relid
    from pg_partition_tree(table_name) as p
    where p.isleaf and p.relid <> table_name
    union all
    select c.oid from pg_class as c where c.oid = table_name and c.relkind <> 'p'
    order by 1
$body$;

-- The statement that takes one resolution a step on; both null where it is in use as it was asked for.
create or replace function funnelvec._next_of(r funnelvec.resolutions, out step text, out waits text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    stored record;
    wanted record;
    found record;
begin
    if r.side_table is null and r.index_options is null or r.side_table is not null and not funnelvec._side_stands(r) then
        return;
    elsif r.state = 'leaving' then
        step := format('select funnelvec.activate(%L, %L, %L);', r.table_name::text, r.column_name, r.resolution);
        return;
    elsif r.state in ('filling', 'sweeping', 'checking') then
        step := format('call funnelvec.backfill(%L);', r.table_name::text);
        return;
    end if;
    wanted := funnelvec._parse_resolution(r.resolution);
    stored := funnelvec._code(wanted.dims, wanted.code, 'x', funnelvec._metric_at(r.table_name, r.column_name, r.resolution, r.metric), 'f32');
    if r.side_table is null then
        found := funnelvec._column_step(r, stored.opclass);
        step := found.step;
        waits := found.waits;
        return;
    elsif r.index_options is not null then
        found := funnelvec._index_step(r.side_table, r.code_column, stored.opclass, r.index_options);
        step := found.step;
        waits := found.waits;
    end if;
    if step is null and waits is null and (r.state = 'filled' or r.index_name is distinct from (
        select c.relname from pg_class as c where c.oid = funnelvec._index_of(r.side_table, r.code_column, stored.opclass)))
    then
        step := format('select funnelvec.activate(%L, %L, %L);', r.table_name::text, r.column_name, r.resolution);
    end if;
end
$body$;

-- The statement to run next for a table (null: none is left), so that a psql script can run it with \gexec until none is.
create or replace function funnelvec.next_step(table_name regclass)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $body$
declare
    n record := funnelvec._next_for(table_name);
begin
    if n.waits is not null then
        raise exception using
            errcode = 'FV008',
            message = n.waits,
            hint = 'Wait for it; an index that a stopped build left behind is dropped by the next call.';
    end if;
    return n.step;
end
$body$;

-- The first step that can be taken for a table; only where there is none, what has to be waited for.
create or replace function funnelvec._next_for(table_name regclass, out step text, out waits text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    r funnelvec.resolutions;
    w funnelvec.windows;
    n record;
begin
    perform funnelvec._check_table(table_name);
    for r in
        select s.* from funnelvec.resolutions as s
        where s.table_name = $1 and (s.side_table is not null or s.index_options is not null)
        order by s.column_name, s.resolution
    loop
        n := funnelvec._next_of(r);
        step := n.step;
        waits := case when n.step is null then coalesce(waits, n.waits) end;
        exit when step is not null;
    end loop;
    if step is not null then
        return;
    end if;
    for w in select s.* from funnelvec.windows as s where s.table_name = $1 and not s.ready order by s.column_name, s.resolution, s.by_column loop
        n := funnelvec._window_next(w);
        step := n.step;
        waits := case when n.step is null then coalesce(waits, n.waits) end;
        exit when step is not null;
    end loop;
    if step is null and exists (
        select from pg_attribute as v where v.attrelid = $1 and v.attnum > 0 and not v.attisdropped
            and (funnelvec._hub($1, v.attname)).filling)
    then
        step := format('call funnelvec.backfill(%L);', table_name::text);
    end if;
end
$body$;

-- The same for messages, which say what has to be waited for and go on.
create or replace function funnelvec._next_said(table_name regclass)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select coalesce(n.step, n.waits) from funnelvec._next_for(table_name) as n
$body$;

-- Switch searches over to a side table that is filled, and indexed if that was asked for: one short transaction. Funnels that waited for
-- it take their stages. After a move between column and side table a second call drops the place that was left.
create or replace function funnelvec.activate(table_name regclass, column_name text, resolution text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $body$
declare
    r funnelvec.resolutions;
    stored record;
    wanted record := funnelvec._parse_resolution(resolution);
    since xid;
begin
    perform funnelvec._base(table_name, column_name);
    perform funnelvec._check_owner(table_name);
    select s.* into r
    from funnelvec.resolutions as s
    where s.table_name = $1 and s.column_name = $2 and s.resolution = $3
    for update;
    since := (select s.xmin from funnelvec.resolutions as s where s.table_name = $1 and s.column_name = $2 and s.resolution = $3);
    if r.side_table is null and r.index_options is not null then
        perform funnelvec._use_index(r);
        return;
    elsif r.side_table is null and exists (
        select from funnelvec.windows as w where w.table_name = $1 and w.column_name = $2 and w.resolution = $3 and not w.ready)
    then
        perform funnelvec._use_windows($1, $2, $3);
        return;
    elsif r.side_table is null then
        raise exception using
            errcode = 'FV005',
            message = format('%s has no side table for %s of column %L', table_name, resolution, left(column_name, 100)),
            hint = 'Only side storage is activated: columns are used from the moment they are there.';
    elsif r.state = 'leaving' then
        perform funnelvec._wait_for_snapshots(since, format('searches were switched to the new place of %s', resolution));
        perform funnelvec._leave(r);
        return;
    end if;
    stored := funnelvec._code(wanted.dims, wanted.code, 'x', funnelvec._metric_at(r.table_name, r.column_name, r.resolution, r.metric), (funnelvec._base(table_name, column_name)).code);
    r.index_name := (
        select c.relname from pg_class as c where c.oid = funnelvec._index_of(r.side_table, r.code_column, stored.opclass));
    if r.state not in ('filled', 'ready', 'checking') or r.index_options is not null and r.index_name is null then
        raise exception using
            errcode = 'FV008',
            message = case when r.state in ('filled', 'ready', 'checking') then format('the index over %s is not built', r.side_table)
                else format('%s is not filled yet: %s rows so far', r.side_table, r.filled) end,
            hint = 'Next: ' || funnelvec._next_said(table_name);
    end if;
    if r.state = 'filled' then
        perform funnelvec._wait_for_snapshots(since, format('%s was filled', r.side_table));
    end if;
    r.state := case when r.storage = 'column' then 'leaving' when r.state = 'checking' then 'checking' else 'ready' end;
    r.storage := 'side';
    update funnelvec.resolutions as u
    set storage = r.storage, state = r.state, index_name = r.index_name, filled_to = null
    where u.table_name = $1 and u.column_name = $2 and u.resolution = $3;
    perform funnelvec._write_side_function(r);
    -- Who may search was perhaps granted while it was filled.
    perform funnelvec._write_side_grants(r);
    perform funnelvec._write_functions($1, $2);
end
$body$;

-- For writes that triggers did not see: rows of a partition that was attached, replication, session_replication_role. Nothing tells
-- that they happened, so whoever made them says so, and backfill compares every code with its vector. Searches go on meanwhile.
create or replace function funnelvec.recheck(table_name regclass)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    r funnelvec.resolutions;
    kept boolean := false;
begin
    perform funnelvec._check_table(table_name);
    perform funnelvec._check_owner(table_name);
    for r in
        select s.* from funnelvec.resolutions as s where s.table_name = $1 and s.side_table is not null
        order by s.column_name, s.resolution
        for update
    loop
        kept := true;
        -- What is being filled, or dropped, needs no check of its own.
        continue when r.state not in ('ready', 'filled') or not funnelvec._side_stands(r);
        r.filled := case r.state when 'ready' then 0 else r.filled end;
        r.state := case r.state when 'ready' then 'checking' else 'sweeping' end;
        update funnelvec.resolutions as u
        set state = r.state, filled = r.filled, filled_to = null
        where u.table_name = r.table_name and u.column_name = r.column_name and u.resolution = r.resolution;
        perform funnelvec._write_side_function(r);
    end loop;
    if not kept then
        raise exception using
            errcode = 'FV005',
            message = format('%s keeps no resolution in a side table', table_name),
            hint = 'Generated columns are always right; only side tables are checked.';
    end if;
    return funnelvec._next_said(table_name);
end
$body$;

-- Let searches use the index that was built for a column. Over a partitioned table it is made here: where each partition has its own,
-- Postgres takes those over, and nothing is built.
create or replace function funnelvec._use_index(r funnelvec.resolutions)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    wanted record := funnelvec._parse_resolution(r.resolution);
    stored record := funnelvec._code(wanted.dims, wanted.code, 'x', funnelvec._metric_at(r.table_name, r.column_name, r.resolution, r.metric), (funnelvec._base(r.table_name, r.column_name)).code);
    partitioned boolean := (select c.relkind = 'p' from pg_class as c where c.oid = r.table_name);
begin
    if partitioned and funnelvec._index_of(r.table_name, r.code_column, stored.opclass) is null then
        -- Nobody attaches a partition while this is held, so what is checked below is what Postgres finds.
        perform funnelvec._lock_briefly('share', r.table_name);
        if not exists (
            select from funnelvec._leaves(r.table_name) as l
            where not exists (
                select from funnelvec._indexes_over(l.relation, r.code_column, stored.opclass) as i where i.valid and not i.attached))
        then
            execute format('create index on %s using hnsw (%I %s) with (m = %s, ef_construction = %s)', r.table_name, r.code_column,
                stored.opclass, (r.index_options ->> 'm')::integer, (r.index_options ->> 'ef_construction')::integer);
        end if;
    end if;
    if funnelvec._index_of(r.table_name, r.code_column, stored.opclass) is null then
        raise exception using
            errcode = 'FV008',
            message = format('the index over %I of %s is not built', r.code_column, r.table_name),
            hint = 'Next: ' || funnelvec._next_said(r.table_name);
    end if;
    update funnelvec.resolutions as u
    set index_options = null,
        index_name = (select c.relname from pg_class as c where c.oid = funnelvec._index_of(r.table_name, r.code_column, stored.opclass))
    where u.table_name = r.table_name and u.column_name = r.column_name and u.resolution = r.resolution;
    perform funnelvec._write_functions(r.table_name, r.column_name);
end
$body$;

-- Drop the place that a resolution has moved out of.
create or replace function funnelvec._leave(r funnelvec.resolutions)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
begin
    if r.storage = 'column' then
        perform funnelvec._drop_side(r);
        update funnelvec.resolutions as u
        set side_table = null, state = null, filled_to = null, filled = 0, index_options = null
        where u.table_name = r.table_name and u.column_name = r.column_name and u.resolution = r.resolution;
        return;
    end if;
    if exists (
        select from funnelvec._made_columns(r.table_name) as m
        where m.code_column = r.code_column and m.column_name = r.column_name and m.resolution = r.resolution)
    then
        perform funnelvec._lock_briefly('access exclusive', r.table_name);
        execute format('alter table %s drop column %I', r.table_name, r.code_column);
    end if;
    r.state := 'ready';
    update funnelvec.resolutions as u
    set state = r.state
    where u.table_name = r.table_name and u.column_name = r.column_name and u.resolution = r.resolution;
    perform funnelvec._write_side_function(r);
end
$body$;

-- Rewrite the functions of a column's funnels; those that waited for a resolution which is there now take it up.
create or replace function funnelvec._write_functions(table_name regclass, column_name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels;
begin
    for f in select g.* from funnelvec.funnels as g where g.table_name = $1 and g.column_name = $2 order by g.name loop
        if f.pending is not null and not exists (
            select from funnelvec._parse_funnel(f.pending) as p
            where funnelvec._serves($1, $2, p.resolution) is not true)
        then
            f.funnel := f.pending;
            f.pending := null;
            f.calibration := funnelvec._latest_calibration(f);
            update funnelvec.funnels as u
            set funnel = f.funnel, pending = null, calibration = f.calibration
            where u.table_name = f.table_name and u.name = f.name;
        end if;
        perform funnelvec._write_function(f);
    end loop;
end
$body$;

comment on procedure funnelvec.backfill(regclass, integer)
    is 'fill the side tables of a table in batches, each committed; may be stopped and called again';
comment on function funnelvec.next_step(regclass)
    is 'the statement to run next until every resolution of a table is in use as it was asked for; null when none is left';
comment on function funnelvec.activate(regclass, text, text)
    is 'let searches use a side table that is filled and indexed, or an index that was built concurrently';
comment on function funnelvec.recheck(regclass)
    is 'have the next backfill compare every code of the side tables of a table with its vector, after writes that fired no triggers';
