-- The settings of a platform, one row each. The maintenance flag is one of them.
-- Safe to run again: this file creates missing objects and never resets a value.
-- Every function is named with its schema, or called with exactly matching types. Otherwise a function that another role
-- created in the schema public could be called instead of PostgreSQL's own.

-- If several transactions migrate at the same time, the first takes this lock and the others wait. A role without a
-- grant cannot take the table's lock. Until the table exists there is only an advisory lock, which any role can take.
DO $$
DECLARE
    before text := pg_catalog.current_setting('lock_timeout');
    holders text;
BEGIN
    -- Many processes may begin at the same time. Each takes a fraction of a second.
    PERFORM pg_catalog.set_config('lock_timeout', '30s', true);
    IF pg_catalog.to_regclass('public.platform_settings') IS NULL THEN
        PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('maintenance migrate', 0));
    END IF;
    IF pg_catalog.to_regclass('public.platform_settings') IS NOT NULL THEN
        LOCK TABLE public.platform_settings IN SHARE UPDATE EXCLUSIVE MODE;
    END IF;
    PERFORM pg_catalog.set_config('lock_timeout', before, true);
EXCEPTION
    WHEN lock_not_available THEN
        SELECT pg_catalog.string_agg(DISTINCT pid::text, ', ') INTO holders
        FROM pg_catalog.pg_locks
        WHERE granted
          AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
          AND CASE locktype
              WHEN 'relation' THEN
                  relation = pg_catalog.to_regclass('public.platform_settings')::oid
                  AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
              WHEN 'advisory' THEN
                  objsubid = 1::smallint AND (classid::bigint << 32) | objid::bigint
                      = pg_catalog.hashtextextended('maintenance migrate', 0)
          END;
        RAISE EXCEPTION USING
            ERRCODE = 'object_in_use',
            MESSAGE = pg_catalog.concat(
                'another migration, or a transaction that holds its lock, has not ended in time: try again, or end it ',
                'with SELECT pg_terminate_backend(', holders, ')'
            );
END
$$;

CREATE TABLE IF NOT EXISTS public.platform_settings (
    id          serial      PRIMARY KEY,
    key         text        NOT NULL UNIQUE,  -- the constraint's own index serves every look-up by key
    value_bool  boolean,
    value_text  text,
    description text        NOT NULL DEFAULT '',
    updated_at  timestamptz NOT NULL DEFAULT now(),
    updated_by  uuid
);

-- A table of that name may already exist. Missing columns are added, and existing columns stay as they are. If a column
-- has another type, the migration stops.
DO $$
DECLARE
    wrong text;
BEGIN
    SELECT pg_catalog.string_agg(
        pg_catalog.concat(
            needed.name, ' is ', coalesce(pg_catalog.format_type(a.atttypid, NULL), 'missing'), ', not ', needed.types[1]
        ),
        '; ' ORDER BY needed.name
    ) INTO wrong
    FROM (VALUES
        ('key', ARRAY['text', 'character varying']), ('value_bool', ARRAY['boolean']),
        ('value_text', ARRAY['text', 'character varying']), ('description', ARRAY['text', 'character varying']),
        ('updated_at', ARRAY['timestamp with time zone']), ('updated_by', ARRAY['uuid'])
    ) AS needed (name, types)
    LEFT JOIN pg_attribute a
        ON a.attrelid = 'public.platform_settings'::regclass::oid AND a.attname = needed.name::name
        AND NOT a.attisdropped
    WHERE CASE
        WHEN a.attname IS NULL THEN needed.name = 'key'
        ELSE pg_catalog.format_type(a.atttypid, NULL) <> ALL (needed.types)
    END;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = pg_catalog.concat(
            'public.platform_settings exists in another form (', wrong, '): change its columns, or rename it'
        );
    END IF;
    IF (
        SELECT count(*) < 5
        FROM pg_attribute
        WHERE attrelid = 'public.platform_settings'::regclass::oid
          AND attname IN ('value_bool', 'value_text', 'description', 'updated_at', 'updated_by')
          AND NOT attisdropped
    ) THEN
        ALTER TABLE public.platform_settings
            ADD COLUMN IF NOT EXISTS value_bool boolean,
            ADD COLUMN IF NOT EXISTS value_text text,
            ADD COLUMN IF NOT EXISTS description text NOT NULL DEFAULT '',
            ADD COLUMN IF NOT EXISTS updated_at timestamptz NOT NULL DEFAULT now(),
            ADD COLUMN IF NOT EXISTS updated_by uuid;
    END IF;
    -- ON CONFLICT (key) fails as long as there is one, so no flip would succeed.
    IF EXISTS (
        SELECT
        FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = 'public.platform_settings'::regclass::oid
          AND i.indisunique
          AND NOT i.indimmediate
          AND i.indnkeyatts = 1
          AND a.attname = 'key'
    ) THEN
        RAISE EXCEPTION 'the unique constraint of public.platform_settings (key) is deferrable: make it NOT DEFERRABLE';
    END IF;
    IF NOT EXISTS (
        SELECT
        FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = 'public.platform_settings'::regclass::oid
          AND i.indisunique
          AND i.indisvalid
          AND i.indpred IS NULL
          AND i.indnkeyatts = 1
          AND a.attname = 'key'
    ) THEN
        ALTER TABLE public.platform_settings ADD CONSTRAINT platform_settings_key_unique UNIQUE (key);
    END IF;
END
$$;

-- ON CONFLICT would take a value of the id's sequence each time.
-- A process that follows a flag which is on must not take this row for a flip: after a restore without the flag, that
-- would open the site. So its time is older than that of any flip.
INSERT INTO public.platform_settings (key, value_bool, description, updated_at)
SELECT 'maintenance_mode', false, 'While true, every process answers 503 Service Unavailable.', 'epoch'
WHERE NOT EXISTS (SELECT FROM public.platform_settings WHERE key = 'maintenance_mode');

-- If the platform keeps its users in public.users with a uuid key, updated_by refers to that table.
DO $$
BEGIN
    IF EXISTS (
        -- under any name, and to any table
        SELECT FROM pg_constraint c
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
        WHERE c.conrelid = 'public.platform_settings'::regclass::oid
          AND c.contype = 'f'
          AND a.attname = 'updated_by'
    ) OR NOT EXISTS (
        SELECT
        FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        JOIN pg_class t ON t.oid = i.indrelid
        WHERE i.indrelid = pg_catalog.to_regclass('public.users')::oid
          -- A foreign key can refer to permanent tables only, not to unlogged tables or materialized views.
          AND t.relkind IN ('r', 'p')
          AND t.relpersistence = 'p'
          AND i.indisunique
          AND i.indimmediate
          AND i.indpred IS NULL
          AND i.indnkeyatts = 1
          AND a.attname = 'id'
          AND a.atttypid = 'uuid'::regtype::oid
    ) THEN
        RETURN;
    END IF;
    -- NOT VALID, because rows from before the users table existed stay as they are.
    ALTER TABLE public.platform_settings
        ADD CONSTRAINT platform_settings_updated_by_fkey
        FOREIGN KEY (updated_by) REFERENCES public.users (id) ON DELETE SET NULL NOT VALID;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'updated_by stays a plain uuid, because this role may not refer to public.users';
END
$$;
