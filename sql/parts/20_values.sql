-- Values: the text of a resolution and of a funnel, and what a code is in Postgres.
-- Grammar:  funnel = stage { " > " stage }   stage = resolution [ "@" keep ]   resolution = dims ":" code [ "~" rotation ]
-- Helpers run with search_path = pg_catalog, pg_temp, so nothing that somebody puts into a schema can change what they mean.

-- One resolution. Refused: anything but the grammar, and what this version cannot store.
create or replace function funnelvec._parse_resolution(
    resolution text,
    out dims integer,
    out code text,
    out rotation text
)
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    parts text[] := regexp_match(resolution, '^([1-9][0-9]{0,4}):([a-z][a-z0-9]*)(?:~([a-z][a-z0-9_]{0,15}))?$');
begin
    if parts is null or parts[1]::integer > 16000 then
        raise exception using
            errcode = 'FV001',
            message = format('not a resolution: %s', coalesce(quote_literal(left(resolution, 100)), 'null')),
            hint = 'Write dims:code, such as 128:f16, with 1 to 16000 dims and one of the codes f32, f16, bit.';
    end if;
    dims := parts[1];
    code := parts[2];
    rotation := parts[3];
    if code not in ('f32', 'f16', 'bit', 'bit2', 'bit3', 'bit4') then
        raise exception using
            errcode = 'FV001',
            message = format('unknown code "%s" in resolution %L', code, resolution),
            hint = 'The codes are f32 (vector), f16 (halfvec), bit (signs), and bit2, bit3, bit4 (so many bits a number).';
    end if;
    -- Other names are of fitted rotations, which belong to a column: add_resolution knows them.
    if rotation ~ '^random[0-9]*$' and not funnelvec._is_random(rotation) then
        raise exception using
            errcode = 'FV009',
            message = format('resolution %L names the rotation "%s", which this version does not know', resolution, rotation),
            hint = format('Use %s:%s~random, or random1, random2, ... for others of its kind, or %1$s:%2$s without a rotation.', dims, code);
    elsif rotation is null and code ~ '^bit[2-4]$' then
        raise exception using
            errcode = 'FV001',
            message = format('resolution %L has no rotation, and %s compares numbers with levels that fit all of them alike', resolution, code),
            hint = format('Write %s:%s~random.', dims, code);
    end if;
end
$body$;

-- How many bits a code has for each number; null for codes of floats.
create or replace function funnelvec._levels(code text)
returns integer
language sql immutable parallel safe
return case
    when code operator(pg_catalog.=) 'bit' then 1
    when code operator(pg_catalog.~) '^bit[2-4]$' then pg_catalog.right(code, 1)::integer
end;

-- The stages of a funnel, in order. `keep` is null on the last stage and nowhere else.
create or replace function funnelvec._parse_funnel(funnel text)
returns table (stage integer, resolution text, dims integer, code text, keep integer)
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    texts text[] := string_to_array(funnel, '>');
    parts text[];
    previous integer;
    previous_resolution text;
begin
    if coalesce(btrim(funnel), '') = '' then
        raise exception using
            errcode = 'FV001',
            message = 'the funnel is empty',
            hint = 'Write its stages from coarse to fine, such as 128:f16@200 > 768:f32.';
    elsif cardinality(texts) > 16 then
        raise exception using
            errcode = 'FV001',
            message = format('the funnel has %s stages; it may have 16', cardinality(texts)),
            hint = 'Two or three are what pays.';
    end if;
    for i in 1 .. cardinality(texts) loop
        stage := i;
        parts := regexp_match(btrim(texts[stage]), '^([^@\s]+)\s*(?:@\s*([1-9][0-9]{0,8}))?$');
        if parts is null then
            raise exception using
                errcode = 'FV001',
                message = format('stage %s of the funnel is not a stage: %L', stage, left(btrim(texts[stage]), 100)),
                hint = 'Write resolution@keep on every stage but the last, such as 128:f16@200 > 768:f32.';
        end if;
        resolution := parts[1];
        keep := parts[2];
        select p.dims, p.code into dims, code from funnelvec._parse_resolution(parts[1]) as p;
        if stage < cardinality(texts) and keep is null then
            raise exception using
                errcode = 'FV001',
                message = format('stage %s of the funnel (%s) does not say how many rows it keeps', stage, resolution),
                hint = format('Write %s@200, for example.', resolution);
        elsif stage = cardinality(texts) and keep is not null then
            raise exception using
                errcode = 'FV001',
                message = format('the last stage of the funnel (%s) has a keep of %s', resolution, keep),
                hint = format('Write %s: the last stage keeps the k that the search asks for.', resolution);
        elsif keep > previous then
            raise exception using
                errcode = 'FV001',
                message = format('stage %s keeps %s rows, more than the %s of the stage before it', stage, keep, previous),
                hint = 'Keeps never grow from one stage to the next.';
        elsif resolution = previous_resolution then
            raise exception using
                errcode = 'FV001',
                message = format('stages %s and %s are the same resolution %s', stage - 1, stage, resolution),
                hint = 'Leave one of them out.';
        end if;
        previous := keep;
        previous_resolution := resolution;
        return next;
    end loop;
end
$body$;

-- The schema that pgvector lives in, quoted; generated SQL names its types and operators with it.
create or replace function funnelvec._vector_schema()
returns text
language sql stable parallel safe
return (
    select pg_catalog.quote_ident(n.nspname)
    from pg_catalog.pg_extension as e
    join pg_catalog.pg_namespace as n on n.oid operator(pg_catalog.=) e.extnamespace
    where e.extname operator(pg_catalog.=) 'vector'
);

-- The metrics: what pgvector calls them, and how a distance becomes a score (higher is better).
create or replace function funnelvec._metric(
    metric text,
    out operator text,
    out opclass_suffix text,
    out needs_direction boolean
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
begin
    case metric
    when 'cosine' then
        operator := '<=>';
        opclass_suffix := 'cosine_ops';
    when 'dot' then
        operator := '<#>';
        opclass_suffix := 'ip_ops';
    when 'euclidean' then
        operator := '<->';
        opclass_suffix := 'l2_ops';
    else
        raise exception using
            errcode = 'FV004',
            message = format('unknown metric %s', coalesce(quote_literal(left(metric, 100)), 'null')),
            hint = 'The metrics are cosine, dot (inner product) and euclidean.';
    end case;
    -- A zero vector has no cosine with anything; under the other metrics it is a vector like all others.
    needs_direction := metric = 'cosine';
end
$body$;

-- How a code is stored, indexed and compared.
--   type        SQL type of the code, with its width
--   expression  the code of the expression `source`, which is of the base column's type
--   operator    distance between two codes; opclass and index_limit: of its HNSW index
--   norm        function that gives the length of a code, where the metric needs one; null otherwise
-- f16 codes never overflow, so that no component over 65504 makes the application's INSERT fail: under cosine they are normalised
-- first, under the other metrics a vector longer than 65504 is shortened to that (they saturate; its direction is kept).
-- The base column itself is not a code: callers use the column as it is.
create or replace function funnelvec._code(
    dims integer,
    code text,
    source text,
    metric text,
    base_code text,
    out type text,
    out expression text,
    out operator text,
    out opclass text,
    out index_limit integer,
    out norm text
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    home text := funnelvec._vector_schema();
    m record := funnelvec._metric(metric);
    prefix text := format('%s.subvector(%s, 1, %s)', home, source, dims);
begin
    operator := format('operator(%s.%s)', home, m.operator);
    case code
    when 'f32' then
        type := format('%s.vector(%s)', home, dims);
        expression := format('%s::%s', prefix, type);
        opclass := format('%s.vector_%s', home, m.opclass_suffix);
        index_limit := 2000;
        norm := case when m.needs_direction then home || '.vector_norm' end;
    when 'f16' then
        type := format('%s.halfvec(%s)', home, dims);
        expression := case
            when m.needs_direction then format('%s.l2_normalize(%s)::%s', home, prefix, type)
            when base_code = 'f16' then format('%s::%s', prefix, type)
            else format(
                '(case when %1$s.vector_norm(%2$s) <= 65504::double precision then %2$s else %1$s.l2_normalize(%2$s) operator(%1$s.*) '
                'array_fill(''65504''::real, array[%3$s])::%1$s.vector(%3$s) end)::%4$s', home, prefix, dims, type)
        end;
        opclass := format('%s.halfvec_%s', home, m.opclass_suffix);
        index_limit := 4000;
        norm := case when m.needs_direction then home || '.l2_norm' end;
    else
        type := format('bit(%s)', dims * funnelvec._levels(code));
        -- The function of a rotation gives the bits of several levels itself.
        expression := case code
            when 'bit' then format('%s.binary_quantize(%s)::%s', home, prefix, type)
            else format('%s::%s', source, type)
        end;
        operator := format('operator(%s.<~>)', home);
        opclass := home || '.bit_hamming_ops';
        index_limit := 64000 / funnelvec._levels(code);
    end case;
end
$body$;

-- The score that a distance expression between two codes means; higher is better. Cosine in [-1, 1]; the inner product; the
-- negative Euclidean distance. For bits 1 less twice the share that differs, whatever the metric: for signs the cosine of the sign vectors. 0 - x and not -x: the distance 0 would
-- print as -0.
create or replace function funnelvec._similarity(dims integer, code text, metric text, distance text)
returns text
language sql immutable parallel safe
return case
    when funnelvec._levels(code) is not null then
        pg_catalog.format('1 - 2 * (%s) / %s', distance, dims operator(pg_catalog.*) funnelvec._levels(code))
    when metric operator(pg_catalog.=) 'cosine' then pg_catalog.format('1 - (%s)', distance)
    else pg_catalog.format('0 - (%s)', distance)
end;
