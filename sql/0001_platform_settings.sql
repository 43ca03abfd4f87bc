-- The settings of a platform, one row each, and the maintenance flag among them.
-- Safe to run again: it creates what is missing and never resets a value.
-- What is called here is named or cast so that it is PostgreSQL's own, whatever others have put into public.

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

-- Not ON CONFLICT: that would use up a value of the id's sequence each time.
INSERT INTO public.platform_settings (key, value_bool, description)
SELECT 'maintenance_mode', false, 'While true, every process answers 503 Service Unavailable.'
WHERE NOT EXISTS (SELECT FROM public.platform_settings WHERE key = 'maintenance_mode');

-- Where the platform keeps its users in public.users with a uuid key, updated_by refers to it.
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = 'public.platform_settings'::regclass::oid
          AND conname = 'platform_settings_updated_by_fkey'
    ) OR NOT EXISTS (
        SELECT
        FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = pg_catalog.to_regclass('public.users')::oid
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
