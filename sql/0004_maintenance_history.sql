-- Every change of a flag, whoever makes it, raw SQL included.
-- Safe to run again: this file creates missing objects and never removes an entry.

-- If several transactions migrate at the same time, the first takes this lock and the others wait.
DO $$ BEGIN LOCK TABLE public.platform_settings IN SHARE UPDATE EXCLUSIVE MODE; END $$;

-- The id is random. Numbers of a sequence would collide when a dump is restored while the flag changes.
CREATE TABLE IF NOT EXISTS public.maintenance_history (
    id               uuid        PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    changed_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    key              text        NOT NULL,
    revision         bigint      NOT NULL,
    old_value        boolean,                -- null if the flag is new
    new_value        boolean,                -- null if the flag was deleted
    old_details      jsonb,
    new_details      jsonb,
    updated_by       uuid,
    role             text        NOT NULL,   -- of the database
    application_name text        NOT NULL,
    client_address   inet                    -- null for a local connection
);

DO $$
BEGIN
    -- IF NOT EXISTS would wait for writers even if the index exists.
    IF pg_catalog.to_regclass('public.maintenance_history_flag') IS NULL THEN
        CREATE INDEX maintenance_history_flag ON public.maintenance_history (key, revision);
        CREATE INDEX maintenance_history_revision ON public.maintenance_history (revision);
    END IF;
END
$$;

-- It runs as the owner, because a role that may change a flag needs no further grant, and no role may change an entry.
CREATE OR REPLACE FUNCTION public.platform_settings_record() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '250ms'
AS $$
DECLARE
    kept    constant integer := 1000;  -- entries of one flag
    changed text;
    number  bigint;
BEGIN
    IF TG_RELID <> 'public.platform_settings'::regclass::oid THEN
        RAISE EXCEPTION 'platform_settings_record belongs to public.platform_settings';
    END IF;
    BEGIN
        changed := coalesce(NEW.key, OLD.key);
        IF changed !~ '^maintenance_mode(:|$)' OR TG_OP = 'UPDATE' AND NEW.revision = OLD.revision THEN
            RETURN NULL;  -- A new row is recorded when it gets its number.
        END IF;
        SELECT coalesce(NEW.revision, last) INTO number FROM public.platform_settings_revision;
        INSERT INTO public.maintenance_history (
            key, revision, old_value, new_value, old_details, new_details, updated_by, role, application_name, client_address
        )
        VALUES (
            changed, number, CASE WHEN OLD.revision > 0 THEN OLD.value_bool END, NEW.value_bool,
            CASE WHEN OLD.revision > 0 THEN OLD.details END, NEW.details, NEW.updated_by,
            -- The role of SET ROLE, if there is one. current_user is the owner of this function.
            coalesce(nullif(current_setting('role'), 'none'), session_user), current_setting('application_name'),
            inet_client_addr()
        );
        -- A flag that changes a thousand times a second must not fill the disk.
        DELETE FROM public.maintenance_history
        WHERE key = changed AND revision < (
            SELECT revision FROM public.maintenance_history WHERE key = changed ORDER BY revision DESC OFFSET kept LIMIT 1
        );
    EXCEPTION
        WHEN others THEN  -- such as a table that is locked, dropped or full: the flip counts more than its record
            RAISE WARNING USING MESSAGE = concat('the change of ', changed, ' is not in maintenance_history: ', SQLERRM);
    END;
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON FUNCTION public.platform_settings_record() FROM PUBLIC;

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'public.platform_settings'::regclass::oid AND tgname = 'platform_settings_record'
    ) THEN
        CREATE TRIGGER platform_settings_record
            AFTER UPDATE OR DELETE ON public.platform_settings
            FOR EACH ROW EXECUTE FUNCTION public.platform_settings_record();
        ALTER TABLE public.platform_settings ENABLE ALWAYS TRIGGER platform_settings_record;
    END IF;
END
$$;
