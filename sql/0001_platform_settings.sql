-- The settings of a platform, one row each, and the maintenance flag among them.
-- Safe to run again: it creates what is missing and never resets a value.
-- What is called here is named or cast so that it is PostgreSQL's own, whatever functions others have put into public.

-- Of several at once in a transaction each, one migrates and the others wait.
DO $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('maintenance migrate', 0)); END $$;

CREATE TABLE IF NOT EXISTS public.platform_settings (
    id          serial      PRIMARY KEY,
    key         text        NOT NULL UNIQUE,  -- the constraint's own index serves every look-up by key
    value_bool  boolean,
    value_text  text,
    description text        NOT NULL DEFAULT '',
    updated_at  timestamptz DEFAULT now(),
    updated_by  uuid
);

-- A table of that name may have been there before. What it lacks is added, after a look; what it has in another form is
-- somebody else's, and stays.
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
            'public.platform_settings is there in another form (', wrong, '): change its columns, or rename it'
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
            ADD COLUMN IF NOT EXISTS updated_at timestamptz DEFAULT now(),
            ADD COLUMN IF NOT EXISTS updated_by uuid;
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

-- Not ON CONFLICT: that would use up a value of the id's sequence each time.
INSERT INTO public.platform_settings (key, value_bool, description)
SELECT 'maintenance_mode', false, 'While true, every process answers 503 Service Unavailable.'
WHERE NOT EXISTS (SELECT FROM public.platform_settings WHERE key = 'maintenance_mode');

-- Where the platform keeps its users in public.users with a uuid key, updated_by refers to it.
DO $$
BEGIN
    IF EXISTS (
        -- whatever it is called, and whatever it refers to
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
          -- a permanent table; neither an unlogged one nor a materialized view can be referred to
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
    -- NOT VALID: rows written before the users table existed stay as they are.
    ALTER TABLE public.platform_settings
        ADD CONSTRAINT platform_settings_updated_by_fkey
        FOREIGN KEY (updated_by) REFERENCES public.users (id) ON DELETE SET NULL NOT VALID;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'updated_by stays a plain uuid: this role may not refer to public.users';
END
$$;
