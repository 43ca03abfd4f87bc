-- The statements of a session, read by `maintenance.stores.rows.load_statements`. Parameters are psycopg's.
-- Names and casts match PostgreSQL's own exactly, or are written with their schema: up to PostgreSQL 14, any role may
-- create functions and operators in the schema public that would match better.

-- name: probe
-- The pid differs behind a pooler, which makes up the key that it hands out.
SELECT pg_catalog.pg_backend_pid(), coalesce(
    pg_catalog.has_table_privilege(pg_catalog.to_regclass('public.maintenance_instances'), 'SELECT'), false
);

-- name: listen
-- The time-outs hold for the whole session, so that they are not sent with each statement.
LISTEN platform_settings;
SET statement_timeout = %(milliseconds)s;
SET lock_timeout = 250;

-- name: short_lock_timeout
-- If the table of instances is locked for long, the flag can still be read.
SET LOCAL lock_timeout = 250;

-- name: no_lock_timeout
SET LOCAL lock_timeout = 0;

-- name: durable
-- A flip or a registration that a crash forgets proves nothing, so the role's own setting must not decide.
SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local');

-- name: flag
-- A row of a flag, as JSON. The time as text of a fixed form: psycopg parses no other DateStyle than ISO. Only infinity
-- has no such form. Details that are too large are not sent to every process. The first size is known without a look at
-- them, and the second one is that of a text that was compressed well.
pg_catalog.json_build_array(
    s.key, s.value_bool,
    CASE WHEN pg_catalog.pg_column_size(s.details) > 262144 OR pg_catalog.octet_length(s.details::text) > 262144
        THEN '"larger than 262144 bytes"' ELSE s.details::text END,
    s.revision,
    coalesce(pg_catalog.to_char(s.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), s.updated_at::text),
    s.updated_by::text, s.drain_revision IS NOT DISTINCT FROM s.revision
)

-- name: in_force
-- The same condition as that of the index.
pg_catalog.starts_with(s.key::text, 'maintenance_mode:'::text) AND (s.value_bool OR s.details ? 'starts'::text)

-- name: clock
extract(epoch FROM pg_catalog.clock_timestamp())::numeric

-- name: facts
-- The scopes only if something has changed since the caller's token.
(SELECT {flag}::text FROM public.platform_settings s WHERE s.key = 'maintenance_mode' LIMIT 1),
    CASE WHEN c.token::text IS DISTINCT FROM %(token)s::text THEN (
        SELECT coalesce(pg_catalog.json_agg({flag})::text, '[]'::text)
        FROM public.platform_settings s
        WHERE ({in_force}) OR s.key = ANY (%(keys)s::text[])
    ) END,
    c.last, c.token::text, {clock}, pg_catalog.pg_is_in_recovery()

-- name: read
SELECT {facts},
    EXISTS (SELECT FROM public.maintenance_instances WHERE id = %(instance)s),
    CASE WHEN %(doubtful)s THEN EXISTS (
        SELECT FROM public.maintenance_instances i
        WHERE i.revision > c.last AND i.seen_at > ALL (
            SELECT s.updated_at FROM public.platform_settings s WHERE s.key = 'maintenance_mode'
        )
    ) ELSE false END
FROM (VALUES (1)) AS one LEFT JOIN public.platform_settings_revision c ON true;

-- name: read_flag
-- The same without the instances, whose table may be missing, locked or not granted.
SELECT {facts}, false, false
FROM (VALUES (1)) AS one LEFT JOIN public.platform_settings_revision c ON true;

-- name: lock
SELECT (SELECT {flag}::text FROM public.platform_settings s WHERE s.key = %(key)s FOR UPDATE), {clock};

-- name: write
-- The trigger replaces a drain_revision of 0 by the revision of this very change.
INSERT INTO public.platform_settings AS s (key, value_bool, details, updated_by, updated_at, drain_revision)
VALUES (%(key)s, %(enabled)s, %(details)s, %(updated_by)s, pg_catalog.now(), CASE WHEN %(drain)s THEN 0 END)
ON CONFLICT (key) DO UPDATE SET
    value_bool = EXCLUDED.value_bool,
    details = EXCLUDED.details,
    updated_by = EXCLUDED.updated_by,
    updated_at = EXCLUDED.updated_at,
    drain_revision = CASE WHEN %(drain)s THEN 0 ELSE s.drain_revision END
-- If another caller inserts the row now, `lock` has found nothing to lock.
WHERE %(if_revision)s::bigint IS NULL OR s.revision = %(if_revision)s::bigint
RETURNING true;

-- name: written
-- In a statement of its own, because RETURNING would show the counter as it was before.
SELECT {flag}::text, c.last, {clock}
FROM public.platform_settings s, public.platform_settings_revision c
WHERE s.key = %(key)s;

-- name: carry_out
-- A drain that was asked for goes on under the new revision. A flag that is off may have a schedule that is over.
UPDATE public.platform_settings SET
    value_bool = %(enabled)s,
    details = CASE WHEN %(enabled)s THEN details ELSE '{}' END,
    updated_at = pg_catalog.now(),
    drain_revision = CASE WHEN drain_revision = revision THEN 0 ELSE drain_revision END
WHERE key = %(key)s AND revision = %(revision)s
    AND (value_bool IS DISTINCT FROM %(enabled)s OR NOT %(enabled)s AND details ? 'starts'::text)
RETURNING true;

-- name: ask_drain
UPDATE public.platform_settings SET drain_revision = revision
WHERE key = %(key)s AND revision = %(revision)s AND drain_revision IS DISTINCT FROM revision;

-- name: history
SELECT pg_catalog.to_char(h.changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), h.key, h.revision,
    h.old_value, h.new_value, h.old_details::text, h.new_details::text, h.updated_by::text, h.role, h.application_name,
    pg_catalog.host(h.client_address)
FROM public.maintenance_history h
WHERE %(key)s::text IS NULL OR h.key = %(key)s::text
ORDER BY h.revision DESC, h.changed_at DESC
LIMIT %(limit)s;

-- name: report
INSERT INTO public.maintenance_instances (
    id, host, boot, pid, program, version, service, when_stale, ttl,
    revision, in_flight, websockets, oldest, oldest_age, drains, seen_at
)
VALUES (
    %(id)s, %(host)s, %(boot)s, %(pid)s, %(program)s, %(version)s, %(service)s, %(when_stale)s, %(ttl)s,
    %(revision)s, %(in_flight)s, %(websockets)s, %(oldest)s, %(oldest_age)s, %(drains)s::jsonb, pg_catalog.now()
)
ON CONFLICT (id) DO UPDATE SET
    revision = EXCLUDED.revision,
    in_flight = EXCLUDED.in_flight,
    websockets = EXCLUDED.websockets,
    oldest = EXCLUDED.oldest,
    oldest_age = EXCLUDED.oldest_age,
    drains = EXCLUDED.drains,
    seen_at = EXCLUDED.seen_at;

-- name: acknowledge
-- A crash may forget an acknowledgement, unlike a flip: the row then holds what was true before, which proves less.
-- Only for a direct connection. A pooler would hide the crash from the process, which must then acknowledge again.
UPDATE public.maintenance_instances SET
    revision = %(revision)s,
    in_flight = %(in_flight)s,
    websockets = %(websockets)s,
    oldest = %(oldest)s,
    oldest_age = %(oldest_age)s,
    drains = %(drains)s::jsonb,
    seen_at = pg_catalog.now()
WHERE id = %(id)s AND pg_catalog.set_config('synchronous_commit', 'off', true) = 'off'
RETURNING true;

-- name: remove
DELETE FROM public.maintenance_instances
WHERE (id = ANY (%(ids)s::uuid[]) OR id IS NULL AND %(null)s)
    AND id IS DISTINCT FROM '00000000-0000-0000-0000-000000000000'::uuid
RETURNING true;

-- name: instances
-- A restore or a program may fill a table that has no constraints. So texts are cut here, no conversion can fail, and
-- `maintenance.stores.rows` checks each value.
-- Times as numeric: a role's extra_float_digits may round a float8, and a shorter TTL would prove too much.
SELECT coalesce(pg_catalog.replace(i.id::text, '-', ''), 'null'),
    pg_catalog.substr(i.host, 1, 1001), pg_catalog.substr(i.boot, 1, 1001), i.pid,
    pg_catalog.substr(i.program, 1, 1001), pg_catalog.substr(i.version, 1, 1001),
    pg_catalog.substr(i.when_stale, 1, 1001),
    CASE WHEN i.ttl > 0::float8 AND i.ttl <= 1000000::float8 THEN i.ttl::numeric END,
    i.revision, i.in_flight, i.websockets, pg_catalog.substr(i.oldest, 1, 1001), i.oldest_age,
    pg_catalog.substr(i.drains::text, 1, 262144), pg_catalog.substr(i.service, 1, 1001),
    CASE WHEN pg_catalog.isfinite(i.seen_at)
        THEN extract(epoch FROM pg_catalog.clock_timestamp() - i.seen_at)::numeric END
FROM public.maintenance_instances i
WHERE pg_catalog.starts_with(coalesce(pg_catalog.replace(i.id::text, '-', ''), 'null'), %(beginning)s)

-- name: any_bytes
SET client_encoding TO LATIN1;

-- name: no_bytes
SET client_encoding TO UTF8;

-- name: fleet
-- The flags in one row only, because there may be many of both.
SELECT f.*, i.*
FROM (
    SELECT {facts}, false, false, 1::bigint AS number
    FROM (VALUES (1)) AS one LEFT JOIN public.platform_settings_revision c ON true
) AS f FULL JOIN (
    SELECT pg_catalog.row_number() OVER (), i.* FROM ({instances}) AS i
) AS i (number) ON i.number = f.number;
