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
    if code not in ('f32', 'f16', 'bit') then
        raise exception using
            errcode = 'FV001',
            message = format('unknown code "%s" in resolution %L', code, resolution),
            hint = 'The codes are f32 (vector), f16 (halfvec) and bit (signs).';
    end if;
    if rotation is not null then
        raise exception using
            errcode = 'FV009',
            message = format('resolution %L names the rotation "%s"; this version stores no rotations', resolution, rotation),
            hint = format('Use %s:%s.', dims, code);
    end if;
end
$body$;

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

-- How a code is stored, indexed and compared under cosine.
--   type        SQL type of the code, with its width
--   expression  the code of the vector expression `source`
--   operator    distance between two codes; opclass and index_limit: of its HNSW index
-- f16 codes are normalised first: a component over 65504 would not fit into float16 and would make the application's INSERT fail.
-- The base column itself (f32 at full width) is not a code: callers use the column as it is.
create or replace function funnelvec._code(
    dims integer,
    code text,
    source text,
    out type text,
    out expression text,
    out operator text,
    out opclass text,
    out index_limit integer
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
    home text := funnelvec._vector_schema();
    prefix text := format('%s.subvector(%s, 1, %s)', home, source, dims);
begin
    case code
    when 'f32' then
        type := format('%s.vector(%s)', home, dims);
        expression := format('%s::%s', prefix, type);
        operator := format('operator(%s.<=>)', home);
        opclass := home || '.vector_cosine_ops';
        index_limit := 2000;
    when 'f16' then
        type := format('%s.halfvec(%s)', home, dims);
        expression := format('%s.l2_normalize(%s)::%s', home, prefix, type);
        operator := format('operator(%s.<=>)', home);
        opclass := home || '.halfvec_cosine_ops';
        index_limit := 4000;
    when 'bit' then
        type := format('bit(%s)', dims);
        expression := format('%s.binary_quantize(%s)::%s', home, prefix, type);
        operator := format('operator(%s.<~>)', home);
        opclass := home || '.bit_hamming_ops';
        index_limit := 64000;
    end case;
end
$body$;

-- The similarity (higher is better, in [-1, 1]) that a distance expression between two codes means under cosine.
create or replace function funnelvec._similarity(dims integer, code text, distance text)
returns text
language sql immutable parallel safe
return case
    when code operator(pg_catalog.=) 'bit' then pg_catalog.format('1 - 2 * (%s) / %s', distance, dims)
    else pg_catalog.format('1 - (%s)', distance)
end;
