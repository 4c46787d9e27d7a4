-- Every statement that the client sends, by name. Searches go to the generated function of the funnel, and its text is made in the
-- database alone. Objects of funnelvec are written with their schema; names of the user's come in as text, never spliced.

-- name: set_timeout
select pg_catalog.set_config('statement_timeout', %(limit)s, false)

-- name: show_limits
select pg_catalog.current_setting('statement_timeout') as statement, pg_catalog.current_setting('lock_timeout') as lock

-- name: set_limits
select pg_catalog.set_config('statement_timeout', %(statement)s, false), pg_catalog.set_config('lock_timeout', %(lock)s, false)

-- name: find_table
-- A table as it is really called, or as SQL would read the text.
select c.oid::regclass::text as regclass, n.nspname as schema, c.relname as name
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where c.oid = coalesce(
    pg_catalog.to_regclass(pg_catalog.quote_ident(%(name)s)),
    case when %(name)s ~ %(sql_name)s then pg_catalog.to_regclass(%(name)s) end)

-- name: vector_columns
select a.attname as name
from pg_catalog.pg_attribute as a
join pg_catalog.pg_type as t on t.oid = a.atttypid
join pg_catalog.pg_extension as e on e.extname = 'vector' and e.extnamespace = t.typnamespace
where a.attrelid = %(table)s::regclass and t.typname in ('vector', 'halfvec') and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
order by a.attnum

-- name: describe
-- The vector column and the key, refused by the database where it can't work with them.
select b.dims, b.code, funnelvec._metric_of(%(table)s::regclass, %(vector)s, null) as metric,
    (select pg_catalog.array_agg(k.name order by k.ordinal) from funnelvec._key(%(table)s::regclass) as k) as key
from funnelvec._base(%(table)s::regclass, %(vector)s) as b

-- name: metric
select funnelvec._metric_of(%(table)s::regclass, %(vector)s, null)

-- name: columns
-- The columns that a row can be written with: what they hold (a domain: what it is made of), how they are declared, and what
-- filters make of their types.
select a.attname as name, pg_catalog.format_type(b.base, null) as type, pg_catalog.format_type(a.atttypid, a.atttypmod) as declared,
    funnelvec._filter_kind(a.atttypid) as kind
from pg_catalog.pg_attribute as a
cross join lateral (
    with recursive made_of (type, level) as (
        select a.atttypid, 0
        union all
        select t.typbasetype, m.level + 1
        from made_of as m
        join pg_catalog.pg_type as t on t.oid = m.type and t.typtype = 'd'
    )
    select m.type as base from made_of as m order by m.level desc limit 1
) as b
where a.attrelid = %(table)s::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
order by a.attnum

-- name: row_security
select pg_catalog.row_security_active(%(table)s::regclass), pg_catalog.has_table_privilege(%(table)s::regclass, 'select')

-- name: read_load
-- How far a load of this role has come, if it was here before.
select l.source, l.rows, l.keys_crc, l.finished_at is not null as finished
from funnelvec.loads as l
where l.table_name = %(table)s::regclass and l.column_name = %(vector)s and l.loader = current_user and l.name = %(name)s

-- name: begin_load
insert into funnelvec.loads as l (table_name, column_name, name, source, rows, keys_crc)
values (%(table)s::regclass, %(vector)s, %(name)s, %(source)s, 0, 0)
on conflict (table_name, column_name, loader, name) do update
set source = excluded.source, rows = 0, keys_crc = 0, started_at = excluded.started_at, updated_at = excluded.updated_at, finished_at = null

-- name: advance_load
-- Beside the rows themselves, in one transaction; nothing comes back where another session has gone on with the same load.
update funnelvec.loads as l
set rows = %(rows)s, keys_crc = %(keys_crc)s, updated_at = pg_catalog.clock_timestamp(),
    finished_at = case when %(finished)s then pg_catalog.clock_timestamp() end
where l.table_name = %(table)s::regclass and l.column_name = %(vector)s and l.loader = current_user and l.name = %(name)s
    and l.rows = %(before)s and l.keys_crc = %(before_crc)s
returning true

-- name: forget_loads
-- What was finished long ago helps nobody to go on.
delete from funnelvec.loads as l
where l.table_name = %(table)s::regclass and l.column_name = %(vector)s and l.loader = current_user
    and l.finished_at < pg_catalog.now() - interval '30 days'

-- name: funnels
select f.name, f.funnel, f.model, f.metric, coalesce(f.returns, '{}') as returns, a.atttypid::bigint as vector_oid,
    pg_catalog.format('%%s.%%I', funnelvec._vector_schema(), t.typname) as vector_type,
    array(select m.id::text from funnelvec._funnel_maps(f) as m order by m.ordinal) as maps,
    array(select m.dims from funnelvec._funnel_maps(f) as m order by m.ordinal) as map_dims,
    (funnelvec._vector_schema() || '.vector')::regtype::oid::bigint as map_oid, funnelvec._vector_schema() || '.vector' as map_type
from funnelvec.funnels as f
join pg_catalog.pg_attribute as a on a.attrelid = f.table_name and a.attname = f.column_name
join pg_catalog.pg_type as t on t.oid = a.atttypid
where f.table_name = %(table)s::regclass and f.column_name = %(vector)s
order by f.name

-- name: tuned
select f.name, (t.said ->> 'target')::double precision, (t.said ->> 'k')::integer, (t.said ->> 'recall')::double precision,
    (t.said ->> 'low')::double precision, (t.said ->> 'high')::double precision, (t.said -> 'mark' ->> 'rows')::bigint, t.said ->> 'at'
from funnelvec.funnels as f
cross join lateral (select funnelvec._tuned(f) as said) as t
where f.table_name = %(table)s::regclass and f.column_name = %(vector)s and t.said is not null
order by f.name

-- name: keep_tuned
select funnelvec._keep_tuned(%(funnel)s, %(found)s)

-- name: recall_since
select r.recall, r.low, r.high, r.queries, r.rows, r.since, r.decided, r.ms
from funnelvec._recall_since(%(funnel)s, %(recent)s, %(sample)s, %(k)s, %(seed)s) as r

-- name: vector_type
select funnelvec._vector_schema() || case %(code)s when 'f16' then '.halfvec' else '.vector' end

-- name: add_resolution
select funnelvec.add_resolution(
    %(table)s::regclass, %(vector)s, %(resolution)s, index => %(index)s, allow_rewrite => %(allow_rewrite)s,
    m => coalesce(%(m)s, 16), ef_construction => coalesce(%(ef_construction)s, greatest(64, 2 * %(m)s)),
    metric => %(metric)s, storage => %(storage)s, concurrently => %(concurrently)s)

-- name: add_resolutions
select funnelvec.add_resolutions(
    %(table)s::regclass, %(vector)s, %(funnel)s, index => %(index)s, allow_rewrite => %(allow_rewrite)s,
    metric => %(metric)s, storage => %(storage)s, concurrently => %(concurrently)s)

-- name: next_step
select funnelvec.next_step(%(table)s::regclass)

-- name: backfill_step
select b.resolution, b.state, b.done, b.total, b.went_through
from funnelvec._backfill_step(%(table)s::regclass, %(batch)s) as b

-- name: unfinished
select u.table_name::text
from (
    select r.table_name, n.step, n.waits
    from funnelvec.resolutions as r
    cross join lateral funnelvec._next_of(r) as n
    where funnelvec._owns(r.table_name)
    union all
    select w.table_name, n.step, n.waits
    from funnelvec.windows as w
    cross join lateral funnelvec._window_next(w) as n
    where funnelvec._owns(w.table_name)
) as u
where coalesce(u.step, u.waits) is not null
group by u.table_name
order by u.table_name::text

-- name: drop_resolution
select funnelvec.drop_resolution(%(table)s::regclass, %(vector)s, %(resolution)s)

-- name: add_window
select funnelvec.add_window(
    %(table)s::regclass, %(vector)s, %(resolution)s, %(by)s, levels => %(levels)s, allow_rewrite => %(allow_rewrite)s,
    concurrently => %(concurrently)s)

-- name: drop_window
select funnelvec.drop_window(%(table)s::regclass, %(vector)s, %(resolution)s, %(by)s)

-- name: create_funnel
select funnelvec.create_funnel(
    %(name)s, %(table)s::regclass, %(vector)s, %(funnel)s,
    approximate => %(approximate)s, replace => %(replace)s, model => %(model)s, metric => %(metric)s,
    returns => %(returns)s)

-- name: drop_funnel
select funnelvec.drop_funnel(%(funnel)s)

-- name: explain
select e.stage, e.resolution, e.keep, e.rows_in, e.rows_out, e.ms, e.access, e.blocks_hit, e.blocks_read,
    pg_catalog.array_remove(pg_catalog.string_to_array(e.notes, E'\n'), '') as notes
from funnelvec.explain(%(funnel)s, %(query)s, %(k)s, %(min_relevance)s, %(filter)s, %(cutoff)s) as e

-- name: measure_recall
select m.stage, m.resolution, m.keep, m.recall, m.low, m.high, m.queries, m.funnel_ms, m.exact_ms
from funnelvec.measure_recall(
    %(funnel)s, sample => %(sample)s, k => %(k)s, seed => %(seed)s, queries_from => %(queries)s::regclass, filter => %(filter)s) as m

-- name: log_queries
select funnelvec.log_queries(
    %(funnel)s, share => %(share)s, keep_for => %(keep_for)s, max_rows => %(max_rows)s, roles => %(roles)s)

-- name: stop_logging
select funnelvec.stop_logging(%(funnel)s, forget => %(forget)s)

-- name: query_log
select f.logging ->> 'table'
from funnelvec.funnels as f
where f.table_name = %(table)s::regclass and f.name = %(funnel)s

-- name: calibrate
select c.family, c.parameters, c.judgments_sha256, c.pairs, c.relevant, c.queries
from funnelvec.calibrate(%(funnel)s, 'pg_temp.funnelvec_judgments', %(family)s) as c

-- name: judged
select pg_catalog.cardinality(j.scores), j.sha256,
    (select h.id from funnelvec._hub(f.table_name, f.column_name) as h where not h.filling)
from funnelvec._funnel(%(funnel)s) as f
cross join lateral funnelvec._judged_scores(f, 'pg_temp.funnelvec_judgments') as j

-- name: judged_lists
select j.scores, j.labels, j.list, j.hubs, j.list_hubs, j.query, j.wanted
from funnelvec._judged_lists(%(funnel)s, 'pg_temp.funnelvec_judgments', %(depth)s) as j

-- name: add_hub
select funnelvec.add_hub(%(table)s::regclass, %(vector)s, %(sample)s, %(allow_rewrite)s, concurrently => %(concurrently)s)

-- name: drop_hub
select funnelvec.drop_hub(%(table)s::regclass, %(vector)s)

-- name: keep_calibration
select funnelvec._keep_calibration(
    funnelvec._funnel(%(funnel)s), %(family)s, %(parameters)s::jsonb, %(sha256)s, %(queries)s::integer, %(pairs)s::integer,
    %(relevant)s::integer)

-- name: keep_reference
select funnelvec._keep_reference(%(funnel)s, 'pg_temp.funnelvec_judgments')

-- name: certify
select c.kind, c.level, c.at_confidence, c.top_k, c.cutoff, c.relevance, c.observed, c.low, c.high, c.queries, c.without_relevant,
    c.answered, c.approximate, c.stages, c.judgments_sha256, c.certified_at
from funnelvec.certify(%(funnel)s, 'pg_temp.funnelvec_judgments', %(max_miss)s, %(k)s, %(min_precision)s, %(confidence)s, %(unjudged)s) as c

-- name: feedback
select f.slope, f."offset", f.seen, f.means, f.counts, f.h
from funnelvec.feedback(%(funnel)s, %(relevant)s, %(score)s, %(query)s, %(key)s) as f

-- name: feedback_state
select f.slope, f."offset", f.seen, f.means, f.counts, f.h
from funnelvec.feedback_state(%(funnel)s) as f

-- name: adopt_feedback
select funnelvec.adopt_feedback(%(funnel)s)

-- name: check_drift
select d.reference_queries, d.live_queries, d.distance, d.p_value, d.reference_median, d.live_median, d.stale, d.advice
from funnelvec.check_drift(%(funnel)s, %(live)s) as d

-- name: sample
-- How the vectors of a column are sent, and how many pages its rows lie on; a partitioned table has them in its leaves.
select funnelvec._vector_schema() || case %(code)s when 'f16' then '.halfvec_send' else '.vector_send' end as send,
    coalesce(sum(pg_catalog.pg_relation_size(c.oid)), 0)::bigint / pg_catalog.current_setting('block_size')::integer as pages
from pg_catalog.pg_class as c
where c.oid = %(table)s::regclass and c.relkind = 'r'
    or c.oid in (select p.relid from pg_catalog.pg_partition_tree(%(table)s::regclass) as p where p.isleaf)

-- name: check_rotation_metric
select funnelvec._metric_of(%(table)s::regclass, %(vector)s, %(metric)s)

-- name: check_rotation_name
select funnelvec._check_rotation_name(%(table)s::regclass, %(vector)s, %(name)s)

-- name: keep_rotation
select funnelvec._keep_rotation(
    %(table)s::regclass, %(vector)s, %(name)s, %(kind)s, %(chain)s, %(metric)s, %(row_map)s::integer[], %(row_step)s,
    %(query_map)s::integer[], %(query_step)s, %(fitted_on)s, %(rows)s::integer, %(queries)s::integer, %(recommended)s, %(report)s::jsonb)

-- name: read_rotation
-- Maps as they are sent: their numbers, each behind its length, behind seven numbers of the head.
select r.name, r.kind, r.chain, r.metric, r.width, r.dims, pg_catalog.array_send(r.row_map), r.row_step,
    pg_catalog.array_send(r.query_map), r.query_step, r.fitted_on, r.rows, r.queries
from funnelvec.rotations as r
where r.id = %(id)s::uuid

-- name: rotation_ids
select r.name, r.id::text
from funnelvec.rotations as r
where r.table_name = %(table)s::regclass and r.column_name = %(vector)s

-- name: rotations
select r.rotation, r.kind, r.dims, r.width, r.cuttable, r.metric, r.prefix_metric, r.recommended, r.rows, r.queries, r.fitted_on,
    r.fitted_at, r.used_by
from funnelvec.list_rotations(%(table)s::regclass) as r
where r.column_name = %(vector)s

-- name: drop_rotation
select funnelvec.drop_rotation(%(table)s::regclass, %(vector)s, %(name)s)

-- name: status
-- The column itself is no resolution to report, unless an index was built on it; its row may be there for the metric alone.
select s."table"::text as table, s.column_name as vector, s.resolution, s.code_column as column, s.rows, s.filled, s.coverage,
    s.bit_balance, s.index_name::text as index, s.index_bytes, s.advice, s.storage, s.code_bytes, s.toasted, s.index_growth,
    s.dead_share, s.changed, s.vacuumed_at, s.analyzed_at, s.hot_share, s.fillfactor,
    case s.storage when 'window' then pg_catalog.substr(s.object, 8) end as window
from funnelvec.status(%(table)s::regclass) as s
where s.column_name = %(vector)s and (s.code_column <> s.column_name or s.index_name is not null or s.storage = 'window')

-- name: problems
select p.object, p.advice
from funnelvec._problems() as p
order by p."table"::text, p.object

-- name: repair
select r.what, r.action
from funnelvec.repair(dry_run => %(dry_run)s) as r
