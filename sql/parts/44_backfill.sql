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
