-- Every statement that the client sends, by name. Searches go to the generated function of the funnel, and its text is made in the
-- database alone. Objects of funnelvec are written with their schema; names of the user's come in as text, never spliced.

-- name: set_timeout
select pg_catalog.set_config('statement_timeout', %(limit)s, false)

-- name: show_timeout
select pg_catalog.current_setting('statement_timeout')

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
-- The columns that a row can be written with, and what filters make of their types.
select a.attname as name, a.atttypid::integer as oid, pg_catalog.format_type(a.atttypid, null) as type,
    funnelvec._filter_kind(a.atttypid) as kind
from pg_catalog.pg_attribute as a
where a.attrelid = %(table)s::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
order by a.attnum

-- name: funnels
select f.name, f.funnel, f.model, f.metric
from funnelvec.funnels as f
where f.table_name = %(table)s::regclass and f.column_name = %(vector)s
order by f.name

-- name: vector_type
select funnelvec._vector_schema() || case %(code)s when 'f16' then '.halfvec' else '.vector' end

-- name: add_resolution
select funnelvec.add_resolution(
    %(table)s::regclass, %(vector)s, %(resolution)s, index => %(index)s, allow_rewrite => %(allow_rewrite)s,
    metric => %(metric)s, storage => %(storage)s)

-- name: next_step
select funnelvec.next_step(%(table)s::regclass)

-- name: backfill_step
select b.resolution, b.state, b.done, b.total from funnelvec._backfill_step(%(table)s::regclass, %(batch)s) as b

-- name: unfinished
select r.table_name::text
from funnelvec.resolutions as r
where r.side_table is not null and funnelvec._owns(r.table_name) and funnelvec._next_of(r) is not null
group by r.table_name
order by r.table_name::text

-- name: drop_resolution
select funnelvec.drop_resolution(%(table)s::regclass, %(vector)s, %(resolution)s)

-- name: create_funnel
select funnelvec.create_funnel(
    %(name)s, %(table)s::regclass, %(vector)s, %(funnel)s,
    approximate => %(approximate)s, replace => %(replace)s, model => %(model)s, metric => %(metric)s)

-- name: drop_funnel
select funnelvec.drop_funnel(%(funnel)s)

-- name: explain
select e.stage, e.resolution, e.keep, e.rows_in, e.rows_out, e.ms, e.access
from funnelvec.explain(%(funnel)s, %(query)s, %(k)s, %(min_relevance)s, %(filter)s) as e

-- name: measure_recall
select m.stage, m.resolution, m.keep, m.recall, m.queries, m.funnel_ms, m.exact_ms
from funnelvec.measure_recall(%(funnel)s, sample => %(sample)s, k => %(k)s, seed => %(seed)s) as m

-- name: calibrate
select c.version, c.slope, c."offset", c.queries, c.pairs, c.relevant, c.missing, c.judgments_sha256
from funnelvec.calibrate(%(funnel)s, 'pg_temp.funnelvec_judgments') as c

-- name: status
-- The column itself is no resolution to report, unless an index was built on it; its row may be there for the metric alone.
select s."table"::text as table, s.column_name as vector, s.resolution, s.code_column as column, s.rows, s.filled, s.coverage,
    s.bit_balance, s.index_name::text as index, s.index_bytes, s.advice
from funnelvec.status(%(table)s::regclass) as s
where s.column_name = %(vector)s and (s.code_column <> s.column_name or s.index_name is not null)
