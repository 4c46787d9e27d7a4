-- The search statement, built here and nowhere else: typed functions, search_sql, explain and measure_recall all take it from here.
--
--   with stage_1 as materialized (
--       select key, codes of the later stages from the table (or a side table and the table) where <filter> order by code <=> query code limit keep
--   ), stage_2 as materialized (
--       select ... from stage_1 order by its code <=> query code limit keep
--   ), scored as materialized (select key, score from the last of them)
--   select key, score, relevance from scored where score >= cutoff order by score desc, key limit k
--
-- With an adapter (59_query_lines) the last select stands beside the line of this query, q, and its cutoff, t; what the query itself says of its line
-- comes first, as a, where no caller has worked that out. Where the calibration takes a hub column into account
-- (48_hub), the score of `scored` is the corrected one, and so are the order, the cutoff and the relevance.
--
-- Why so: the first ORDER BY repeats the indexed expression and nothing else, so that HNSW serves it; the wide vector travels as a
-- toast pointer and is read for the rows of the last shortlist alone; the cutoff stands outside, because inside the first stage it
-- would drive an iterative scan to its limit; materialized CTEs give explain a node per stage.

-- What every row of the registry has to hold before a word of it becomes SQL. Whoever owns a table may write its rows by hand.
create or replace function funnelvec._check_row(
    table_name regclass,
    metric text,
    funnel text,
    name text default null,
    family text default null,
    parameters jsonb default null
)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
begin
    perform funnelvec._check_table(table_name);
    perform funnelvec._metric(metric);
    perform funnelvec._parse_funnel(funnel);
    if octet_length(name) not between 1 and 63 then
        raise exception using
            errcode = 'FV004',
            message = format('a funnel needs a name of 1 to 63 bytes; %L has %s', left(name, 100), octet_length(name)),
            hint = 'The name becomes the name of a function.';
    end if;
    if parameters is null then
        return;
    end if;
    perform funnelvec._check_calibration(table_name, family, parameters);
end
$body$;

-- The stages of a stored funnel with all that SQL needs to know of them. The base column may stand at any stage.
create or replace function funnelvec._stages(f funnelvec.funnels)
returns table (
    stage integer,
    resolution text,
    dims integer,
    code text,
    keep integer,
    code_column text,
    type text,
    operator text,
    encoded text,
    norm text,
    is_base boolean,
    index_name regclass,
    relation regclass,
    alias text,
    storage text,
    metric text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    base record := funnelvec._base(f.table_name, f.column_name);
    parsed record;
    stored record;
    place record;
begin
    perform funnelvec._check_row(f.table_name, f.metric, f.funnel, f.name);
    for parsed in select * from funnelvec._parse_funnel(f.funnel) as p order by p.stage loop
        -- A funnel is resolved at every turn, and what has no rotation is told without a look at the catalogue.
        if parsed.resolution like '%~%' then
            stored := funnelvec._code_of(f.table_name, f.column_name, parsed.resolution, '{query}', f.metric, true);
            metric := funnelvec._metric_at(f.table_name, f.column_name, parsed.resolution, f.metric);
        else
            stored := funnelvec._code(parsed.dims, parsed.code, '{query}', f.metric, base.code);
            metric := f.metric;
        end if;
        stage := parsed.stage;
        resolution := parsed.resolution;
        dims := parsed.dims;
        code := parsed.code;
        keep := parsed.keep;
        type := stored.type;
        operator := stored.operator;
        norm := stored.norm;
        place := funnelvec._stored(f.table_name, f.column_name, parsed.resolution);
        code_column := place.code_column;
        relation := place.relation;
        storage := place.storage;
        alias := case when storage = 'side' then 'c' || stage else 't' end;
        is_base := storage = 'base';
        encoded := case when is_base then '{query}' else stored.expression end;
        if place.ready = false then
            raise exception using
                errcode = 'FV008',
                message = format('stage %s needs resolution %s of %s.%I, which is still being filled',
                    stage, resolution, f.table_name, f.column_name),
                hint = format('Next: %s', funnelvec._next_said(f.table_name));
        elsif code_column is null then
            raise exception using
                errcode = 'FV005',
                message = format('stage %s needs resolution %s, which %s.%I does not store',
                    stage, resolution, f.table_name, f.column_name),
                hint = format('select funnelvec.add_resolution(%L, %L, %L%s);', f.table_name::text, f.column_name, resolution,
                    case when stage = 1 then ', index => true' end);
        end if;
        index_name := case when stage = 1 then funnelvec._index_of(relation, code_column, stored.opclass) end;
        return next;
    end loop;
end
$body$;

-- The resolution of the last stage; a calibration belongs to it.
create or replace function funnelvec._last_stage(funnel text)
returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $body$
    select p.resolution from funnelvec._parse_funnel(funnel) as p where p.keep is null
$body$;

-- The statement in two halves: a filter goes between them, as ' and (predicate)'.
--   exact    no index: every row is compared in the first stage, ties go by key
--   query    SQL for the query vector; codes: SQL for its code per stage (null: computed from query); k, cutoff: SQL for them, the
--            cutoff within sight of q, the line of the query, where the calibration has one (59_maps)
--   after    SQL for the score (NaN: none) and the key columns of the row that the answer begins behind; null: from the best row on
--   upto     stop after this stage and return the keys it keeps, a text per row; null: the whole search
--   counted  add the number of rows that the first stage found, and return one row even when no row passes
--   best_f1  the cutoff NaN asks for the one of the best F1 (74_certificate). Only where it may come: its plan costs every search some time, and
--            as no plan without known parameters is as cheap as one that knows that it is not wanted, a plan for each search would be made
--   asked    SQL for slope and base of the line as far as the query alone makes them (_asked_sql); null: computed from query
create or replace function funnelvec._statement(
    f funnelvec.funnels,
    exact boolean,
    query text,
    codes text[],
    k text,
    cutoff text,
    upto integer default null,
    counted boolean default false,
    after text[] default null,
    best_f1 boolean default false,
    asked text[] default null,
    out head text,
    out tail text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    key record := funnelvec._key_sql(f.table_name);
    carried text;
    distance text;
    s record;
    returned record := funnelvec._returned_sql(f);
    calibration jsonb := funnelvec._calibration(f);
    line text := funnelvec._line_sql(calibration, coalesce(asked, case when calibration ? 'rows' then array['a.slope', 'a.base'] end));
    -- Travels with the key where the score is corrected by it.
    hub text := case when calibration ? 'hub' then (funnelvec._hub(f.table_name, f.column_name)).hub_column end;
    wrapped boolean;
    beside text;
    relevance text;
    stages integer;
    result text;
begin
    stages := cardinality(string_to_array(f.funnel, '>'));
    for s in
        -- For all stages at once, since to resolve them is most of the work here: `held` is where the code of each is read from, and
        -- `joined` what the first one reads. Where its code lies in a side table, that drives, and the user's table is looked up row by
        -- row: there filters and row-level security apply, and a row that has gone is gone. Side tables of later stages hang on by the key.
        select g.*,
            array_agg(format('%s.%I', g.alias, g.code_column)) over whole as held,
            string_agg(
                case
                    when g.storage = 'side' then
                        format(case g.stage when 1 then E'%1$s as %2$s\n    join %4$s as t on %3$s' else E'\n    left join %1$s as %2$s on %3$s' end,
                            g.relation, g.alias, funnelvec._side_join(g.relation, g.alias, f.table_name), f.table_name)
                    when g.stage = 1 then format('%s as t', f.table_name)
                end, '') over whole as joined
        from funnelvec._stages(f) as g
        window whole as (order by g.stage rows between unbounded preceding and unbounded following)
        order by g.stage
    loop
        select string_agg(case when s.stage = 1 then format(', %s as code_%s', s.held[l], l) else ', s.code_' || l end, '' order by l)
        into carried
        from generate_series(case when stages = 1 then 1 else s.stage + 1 end, stages) as l;
        carried := carried || case when hub is null then '' when s.stage = 1 then format(', t.%I as hub', hub) else ', s.hub' end;
        distance := format('%s %s %s',
            case when s.stage = 1 then format('%s.%I', s.alias, s.code_column) else format('s.code_%s', s.stage) end,
            s.operator, coalesce(codes[s.stage], replace(s.encoded, '{query}', query)));
        if s.stage = 1 then
            -- What is counted has no reader who wants a node per stage, and what is read once need not be kept.
            head := format(E'with stage_1 as %s(\n    select %s%s\n    from %s\n    where %s.%I is not null%s',
                case when not counted then 'materialized ' end, key.names, carried, s.joined, s.alias, s.code_column,
                case when s.storage = 'side' then format(' and t.%I is not null', f.column_name) end);
            if stages = 1 and after is not null then
                -- Nothing else keeps rows for the next page. Such a search goes without an index.
                head := head || format(' and (%s = ''NaN'' or %s)', after[1], funnelvec._behind_sql(
                    f.table_name, funnelvec._similarity(s.dims, s.code, s.metric, distance), 't.%I', after));
            end if;
            tail := format(E'\n    order by %s\n    limit %s\n)',
                case
                    when exact and stages = 1 then
                        format('-(%s), %s', funnelvec._similarity(s.dims, s.code, s.metric, distance), key.scan_order)
                    when exact then format('(%s) + 0, %s', distance, key.scan_order)
                    else distance
                end,
                coalesce(s.keep::text, k));
        elsif s.stage < stages then
            tail := tail || format(
                E', stage_%s as materialized (\n    select %s%s\n    from stage_%s as s\n    order by %s, %s\n    limit %s\n)',
                s.stage, key.carried, carried, s.stage - 1, distance, key.ordering, s.keep);
        end if;
        exit when s.stage = upto;
    end loop;
    if upto < stages then
        tail := tail || format(E'\nselect row(%s)::text as key\nfrom stage_%s as s', key.carried, upto);
        return;
    end if;
    -- s is the last stage here. NaN is a row without a direction (a zero vector); it sorts above everything, so it is cut off.
    distance := format('s.code_%s %s %s', s.stage, s.operator, coalesce(codes[s.stage], replace(s.encoded, '{query}', query)));
    tail := tail || format(E', scored as materialized (\n    select %s, %s as score\n    from stage_%s as s%s\n)\n',
        key.carried, funnelvec._corrected_sql(calibration, funnelvec._similarity(s.dims, s.code, s.metric, distance), 's.hub'),
        greatest(1, stages - 1),
        -- Line and answer want the same order. From PostgreSQL 17 on what reads a CTE knows its order.
        case when line <> '' and current_setting('server_version_num')::integer >= 170000
            then E'\n    order by score desc, ' || key.ordering end);
    if best_f1 and calibration is not null then
        cutoff := format('case when %1$s = ''NaN'' then %2$s else %1$s end', cutoff, funnelvec._best_f1_sql(calibration));
    end if;
    -- An adapter's line and its cutoff are worked out once for all rows, and relevance for the rows of the answer alone. With no stage between
    -- them the last one compares as many rows as the first one found.
    wrapped := counted or returned.names is not null or line <> '';
    beside := concat_ws(E'\ncross join ',
        case when asked is null then E'(\n' || funnelvec._asked_sql(calibration, query) || E'\n) as a' end,
        case when line <> '' then format(E'lateral (\n%s\n) as q\ncross join lateral (select %s as score offset 0) as t', line, cutoff) end,
        case when counted and (line = '' or stages > 2) then format('(select count(*) from %s) as c (found)',
            case when stages > 2 then 'stage_1' else 'scored' end) end);
    relevance := funnelvec._relevance_sql(calibration, 's.score');
    result := format(
        E'select %s, s.score%s\nfrom scored as s\nwhere s.score >= %s and %s\norder by s.score desc, %s\nlimit %s',
        case when wrapped then key.carried else key.returned end,
        case when not wrapped then format(', %s as relevance', relevance) end,
        case when line = '' then cutoff else 't.score' end,
        coalesce('(' || funnelvec._behind_sql(f.table_name, 's.score', null, after) || ')', 's.score < ''NaN'''), key.ordering, k);
    tail := tail || case
        when counted then format(
            E'select %s%s, s.score, %s as relevance, %s.found\nfrom %s\nleft join %s(\n%s\n) as s on true%s\norder by s.score desc, %s',
            key.carried, returned.names, relevance, case when line = '' or stages > 2 then 'c' else 'q' end, beside,
            case when line <> '' then 'lateral ' end, result, E'\nleft join ' || returned.lookup || ' on true', key.ordering)
        when wrapped then format(
            E'select %s%s, s.score, %s as relevance\nfrom %s(\n%s\n) as s%s\norder by s.score desc, %s',
            key.returned, returned.names, relevance, case when line <> '' then beside || E'\ncross join lateral ' end, result,
            E'\ncross join ' || returned.lookup, key.ordering)
        else result
    end;
end
$body$;

-- That a row comes behind another one in the order of the answer: score descending, then key. `score` is SQL for its score, `column_form`
-- how its key columns are written (null: as they travel between stages), `after` SQL for the other one's score and key columns. Every
-- row but one without a direction comes behind the score NaN, which therefore stands for the beginning.
create or replace function funnelvec._behind_sql(table_name regclass, score text, column_form text, after text[])
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    k record;
    later text;
begin
    if after is null then
        return null;
    end if;
    for k in
        select
            coalesce(format(column_form, n.name), 's.key_' || n.ordinal) || n.collated as here,
            after[1 + n.ordinal] as there,
            funnelvec._key_operator(a.atttypid, 3) as equals,
            funnelvec._key_operator(a.atttypid, 5) as exceeds
        from funnelvec._key(table_name) as n
        join pg_attribute as a on a.attrelid = table_name and a.attname = n.name
        order by n.ordinal desc
    loop
        later := format('%s %s %s', k.here, k.exceeds, k.there)
            || coalesce(format(' or %s %s %s and (', k.here, k.equals, k.there) || later || ')', '');
    end loop;
    return format('%2$s < %1$s or %2$s = %1$s and (%3$s)', after[1], score, later);
end
$body$;

-- The operator of a key column's type that its order goes by (strategy 3: equal, 5: greater), wherever its type is from.
create or replace function funnelvec._key_operator(type oid, strategy integer)
returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select coalesce(
        (
            select format('operator(%I.%s)', n.nspname, o.oprname)
            from pg_opclass as c
            join pg_am as m on m.oid = c.opcmethod
            join pg_amop as a on a.amopfamily = c.opcfamily and a.amoplefttype = c.opcintype and a.amoprighttype = c.opcintype
            join pg_operator as o on o.oid = a.amopopr
            join pg_namespace as n on n.oid = o.oprnamespace
            where m.amname = 'btree' and c.opcdefault and a.amopstrategy = strategy
                and c.opcintype = (select coalesce(nullif(t.typbasetype, 0), t.oid) from pg_type as t where t.oid = type)),
        case strategy when 3 then '=' else '>' end)
$body$;

-- Columns that a funnel returns beside the key, as they are now. Refused: one that the table does not have (any more).
create or replace function funnelvec._returned(f funnelvec.funnels)
returns table (ordinal integer, name text, type text, type_id oid)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    missing text := (
        select r.name
        from unnest(f.returns) with ordinality as r (name, ordinal)
        where not exists (
            select from pg_attribute as a where a.attrelid = f.table_name and a.attname = r.name and a.attnum > 0 and not a.attisdropped)
        order by r.ordinal
        limit 1);
begin
    if missing is not null then
        raise exception using
            errcode = 'FV005',
            message = format('the funnel %s returns the column %L, which %s does not have', f.name, missing, f.table_name),
            hint = 'If it was renamed or dropped, create the funnel again with replace => true and the columns that there are.';
    end if;
    return query
    select r.ordinal::integer, a.attname::text, format_type(a.atttypid, a.atttypmod), a.atttypid
    from unnest(f.returns) with ordinality as r (name, ordinal)
    join pg_attribute as a on a.attrelid = f.table_name and a.attname = r.name and a.attnum > 0 and not a.attisdropped
    order by r.ordinal;
end
$body$;

-- What the returned columns are in SQL; all null where there are none.
--   names    , r."price", r."name"                   lookup    lateral (select ... from the table where it is row s) as r
--   columns  , "price" numeric, "name" text          targets   , "price", "name"
-- They are read for the rows of the answer only, one lookup by key each, whatever the planner believes of their number.
create or replace function funnelvec._returned_sql(
    f funnelvec.funnels,
    out names text,
    out lookup text,
    out columns text,
    out targets text
)
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select
        string_agg(format(', r.%I', r.name), '' order by r.ordinal),
        case when count(*) > 0 then format(E'lateral (\n    select %s from %s as t where %s limit 1\n) as r',
            string_agg(format('t.%I', r.name), ', ' order by r.ordinal), f.table_name, (
                select string_agg(
                    format('t.%I %s s.key_%s', k.name, funnelvec._key_operator(a.atttypid, 3), k.ordinal), ' and ' order by k.ordinal)
                from funnelvec._key(f.table_name) as k
                join pg_attribute as a on a.attrelid = f.table_name and a.attname = k.name)) end,
        string_agg(format(', %I %s', r.name, r.type), '' order by r.ordinal),
        string_agg(format(', %I', r.name), '' order by r.ordinal)
    from funnelvec._returned(f) as r
$body$;

-- A funnel by the name of its function: as SQL would find it, or written schema.name.
create or replace function funnelvec._funnel(funnel text)
returns funnelvec.funnels
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    parts text[];
    found_ones funnelvec.funnels[];
begin
    begin
        parts := parse_ident(funnel);
    exception when invalid_parameter_value then
        parts := array[funnel];
    end;
    select array_agg(f) into found_ones
    from funnelvec.funnels as f
    join pg_class as c on c.oid = f.table_name
    join pg_namespace as n on n.oid = c.relnamespace
    where f.name in (parts[cardinality(parts)], $1)
        and (cardinality(parts) = 1 or f.name = $1 or n.nspname = parts[cardinality(parts) - 1]);
    if cardinality(found_ones) > 1 then
        -- Somebody else's table may have a funnel of the same name: one's own comes first.
        found_ones := coalesce((
            select array_agg(f)
            from unnest(found_ones) as f
            join pg_class as c on c.oid = f.table_name
            where pg_get_userbyid(c.relowner) = current_user), found_ones);
    end if;
    if found_ones is null then
        raise exception using
            errcode = 'FV005',
            message = format('there is no funnel %s', coalesce(quote_literal(left(funnel, 100)), 'null')),
            hint = coalesce(
                'Funnels: ' || (
                    select string_agg(format('%I.%I', n.nspname, f.name), ', ' order by n.nspname, f.name)
                    from funnelvec.funnels as f
                    join pg_class as c on c.oid = f.table_name
                    join pg_namespace as n on n.oid = c.relnamespace) || '.',
                'Make one: select funnelvec.create_funnel(name, table, column, ''128:f16@200 > 768:f32'');');
    elsif cardinality(found_ones) > 1 then
        raise exception using
            errcode = 'FV004',
            message = format('there are %s funnels named %L', cardinality(found_ones), left(funnel, 100)),
            hint = 'Write schema.name.';
    end if;
    return found_ones[1];
end
$body$;

-- The text that a search runs, with $1 = query vector and $2 = k, for reading, EXPLAIN and prepared statements. It does what the
-- typed function does first, but for its settings: hnsw.ef_search has to be at least the first keep, and with a filter
-- hnsw.iterative_scan has to be relaxed_order. With a filter that is narrow now, it is the statement without the index.
create or replace function funnelvec.search_sql(funnel text, filter jsonb default null)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $body$
declare
    f funnelvec.funnels := funnelvec._funnel(funnel);
    predicate text := funnelvec._filter_sql(f.table_name, filter);
    within record := funnelvec._window_for(f, filter);
    exact boolean := not funnelvec._indexed(f) or predicate is not null and (funnelvec._narrow(f.table_name, ' and (' || predicate || ')',
        coalesce((select p.keep from funnelvec._parse_funnel(f.funnel) as p where p.stage = 1), 10), within.share)).narrow;
    statement record := funnelvec._statement(
        f, exact, format('$1::%s', (funnelvec._base(f.table_name, f.column_name)).type), null, '$2::bigint', '''-infinity''::double precision');
begin
    return concat(statement.head, E'\n    and (' || predicate || ')', case when not exact then within.predicate end, statement.tail);
end
$body$;

-- Whether the first stage has an index to start from.
create or replace function funnelvec._indexed(f funnelvec.funnels)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select s.index_name is not null from funnelvec._stages(f) as s where s.stage = 1
$body$;

-- Whether the first stage looks anything up beside the table that it reads.
create or replace function funnelvec._joins(f funnelvec.funnels)
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $body$
    select bool_or(s.storage = 'side') from funnelvec._stages(f) as s
$body$;

comment on function funnelvec.search_sql(text, jsonb)
    is 'the SQL that a funnel runs, with $1 = query vector and $2 = k';
