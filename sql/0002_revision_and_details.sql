-- A revision that grows with each change of a value, whoever makes it, and the details of a maintenance.
-- Safe to run again: each step checks whether it is needed before it takes a lock.

-- If several transactions migrate at the same time, the first takes this lock and the others wait.
DO $$ BEGIN LOCK TABLE public.platform_settings IN SHARE UPDATE EXCLUSIVE MODE; END $$;

-- If the settings table is recreated while old instance rows remain, a revision that they have acknowledged must never
-- be used again.
DO $$
DECLARE
    acknowledged bigint := 0;
BEGIN
    IF pg_catalog.to_regclass('public.platform_settings_revision_seq') IS NOT NULL THEN
        RETURN;
    END IF;
    IF pg_catalog.to_regclass('public.maintenance_instances') IS NOT NULL THEN
        -- A revision that only a broken row can hold would leave no numbers for later ones.
        SELECT coalesce(max(revision), 0) INTO acknowledged
        FROM public.maintenance_instances WHERE revision <= 4611686018427387904;
    END IF;
    EXECUTE pg_catalog.concat(
        'CREATE SEQUENCE public.platform_settings_revision_seq AS bigint START WITH ', acknowledged + 1
    );
END
$$;

-- A role that may update the row needs no further grant. USAGE allows taking numbers, which leaves gaps, but not setting
-- them.
DO $$
BEGIN
    IF NOT pg_catalog.has_sequence_privilege('public', 'public.platform_settings_revision_seq', 'USAGE') THEN
        GRANT USAGE ON SEQUENCE public.platform_settings_revision_seq TO PUBLIC;
    END IF;
END
$$;

DO $$
BEGIN
    IF (
        SELECT count(*) < 3
        FROM pg_attribute
        WHERE attrelid = 'public.platform_settings'::regclass::oid
          AND attname IN ('details', 'revision', 'drain_revision')
          AND NOT attisdropped
    ) THEN
        ALTER TABLE public.platform_settings
            -- mode, message, until, retry_after, actor, reason: written with the value, in one statement
            ADD COLUMN IF NOT EXISTS details jsonb NOT NULL DEFAULT '{}',
            ADD COLUMN IF NOT EXISTS revision bigint NOT NULL
                DEFAULT pg_catalog.nextval('public.platform_settings_revision_seq'),
            -- the revision at which an operator waits for requests in flight
            ADD COLUMN IF NOT EXISTS drain_revision bigint;
    END IF;
    -- The default fills existing rows. For a new row the trigger takes a number, and a default would take another.
    IF EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'public.platform_settings'::regclass::oid AND attname = 'revision' AND atthasdef
    ) THEN
        ALTER TABLE public.platform_settings ALTER COLUMN revision DROP DEFAULT;
    END IF;
    -- Every process reads the details again and again.
    IF NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = 'public.platform_settings'::regclass::oid AND conname = 'platform_settings_details_bounded'
    ) THEN
        ALTER TABLE public.platform_settings ADD CONSTRAINT platform_settings_details_bounded
            CHECK (pg_catalog.pg_column_size(details) <= 262144) NOT VALID;
    END IF;
END
$$;

-- Never SECURITY DEFINER: any role may put this trigger on its own table, whose types may run that role's code.
CREATE OR REPLACE FUNCTION public.platform_settings_revise() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    will_update boolean := false;
BEGIN
    -- A crash must not take a flip back, whoever made it, because processes may already follow it.
    IF current_setting('synchronous_commit') IN ('off', 'local') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF TG_OP = 'INSERT' THEN
        -- INSERT ... ON CONFLICT DO UPDATE also comes here first. If the row exists, the update takes the number, so that
        -- a flip takes one number only. The lock keeps the row from being deleted before the update.
        BEGIN
            PERFORM FROM public.platform_settings WHERE key = NEW.key FOR KEY SHARE;
            will_update := FOUND;
        EXCEPTION
            WHEN insufficient_privilege THEN
                NULL;  -- This role may only insert, so no update follows.
        END;
        NEW.revision := CASE WHEN will_update THEN 0 ELSE nextval('public.platform_settings_revision_seq') END;
    ELSIF (NEW.key, NEW.value_bool, NEW.value_text, NEW.details)
        IS DISTINCT FROM (OLD.key, OLD.value_bool, OLD.value_text, OLD.details)
    THEN
        NEW.revision := nextval('public.platform_settings_revision_seq');
        -- Unless the writer sets the time, it is now.
        IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
            NEW.updated_at := now();
        END IF;
    ELSE
        NEW.revision := OLD.revision;
    END IF;
    -- 0 stands for the revision of this very change, which its writer cannot know.
    IF NEW.drain_revision = 0 THEN
        NEW.drain_revision := NEW.revision;
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION public.platform_settings_notify() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- IS DISTINCT FROM would fail if the table has a column whose type has no equality, such as json.
    IF TG_OP = 'UPDATE' AND OLD *= NEW THEN
        RETURN NULL;
    END IF;
    -- One queue serves the whole cluster, and a listener in any database may keep it full. A flip must not fail because
    -- of that. Without a notification, every process still reads within one TTL.
    IF pg_notification_queue_usage() > 0.9 THEN
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('platform_settings', OLD.key);
    END IF;
    -- PostgreSQL delivers equal notifications of one transaction once.
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('platform_settings', NEW.key);
    END IF;
    RETURN NULL;
END
$$;

-- CREATE OR REPLACE TRIGGER needs PostgreSQL 14.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'public.platform_settings'::regclass::oid AND tgname = 'platform_settings_revise'
    ) THEN
        CREATE TRIGGER platform_settings_revise
            BEFORE INSERT OR UPDATE ON public.platform_settings
            FOR EACH ROW EXECUTE FUNCTION public.platform_settings_revise();
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'public.platform_settings'::regclass::oid AND tgname = 'platform_settings_notify'
    ) THEN
        CREATE TRIGGER platform_settings_notify
            AFTER INSERT OR UPDATE OR DELETE ON public.platform_settings
            FOR EACH ROW EXECUTE FUNCTION public.platform_settings_notify();
    END IF;
    -- ALWAYS, so that changes by logical replication, or with session_replication_role = replica, count too.
    IF EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'public.platform_settings'::regclass::oid
          AND tgname IN ('platform_settings_revise', 'platform_settings_notify')
          AND tgenabled <> 'A'
    ) THEN
        ALTER TABLE public.platform_settings ENABLE ALWAYS TRIGGER platform_settings_revise;
        ALTER TABLE public.platform_settings ENABLE ALWAYS TRIGGER platform_settings_notify;
    END IF;
END
$$;
