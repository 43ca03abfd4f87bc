-- A revision that grows with each change of a value, whoever makes it, and the details of a maintenance.
-- Safe to run again: each step looks before it locks.

-- Of several at once in a transaction each, one migrates and the others wait.
DO $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('maintenance migrate', 0)); END $$;

-- Where the settings are made anew beside instances of before, their revisions must not come again.
DO $$
DECLARE
    acknowledged bigint := 0;
BEGIN
    IF pg_catalog.to_regclass('public.platform_settings_revision_seq') IS NOT NULL THEN
        RETURN;
    END IF;
    IF pg_catalog.to_regclass('public.maintenance_instances') IS NOT NULL THEN
        SELECT coalesce(max(revision), 0) INTO acknowledged FROM public.maintenance_instances;
    END IF;
    EXECUTE pg_catalog.concat(
        'CREATE SEQUENCE public.platform_settings_revision_seq AS bigint START WITH ', acknowledged + 1
    );
END
$$;

-- Who may update the row needs no grant of its own. USAGE takes numbers, which leaves gaps, and sets none.
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
END
$$;

-- Never SECURITY DEFINER: anyone may put this trigger on a table of his own, whose types run his code.
CREATE OR REPLACE FUNCTION public.platform_settings_revise() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A crash must not take a flip back, whoever made it: processes may have followed it already.
    IF current_setting('synchronous_commit') IN ('off', 'local') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF TG_OP = 'INSERT' THEN
        NEW.revision := nextval('public.platform_settings_revision_seq');
        RETURN NEW;
    END IF;
    IF (NEW.key, NEW.value_bool, NEW.value_text, NEW.details)
        IS DISTINCT FROM (OLD.key, OLD.value_bool, OLD.value_text, OLD.details)
    THEN
        NEW.revision := nextval('public.platform_settings_revision_seq');
        -- Unless the writer says when, it is now.
        IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
            NEW.updated_at := now();
        END IF;
    ELSE
        NEW.revision := OLD.revision;
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION public.platform_settings_notify() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Not IS DISTINCT FROM: that fails where somebody added a column whose type has no equality, such as json.
    IF TG_OP = 'UPDATE' AND OLD *= NEW THEN
        RETURN NULL;
    END IF;
    -- One queue serves the whole cluster, and a listener in any database may keep it full: a flip must not fail for
    -- that. Everybody reads within one TTL.
    IF pg_notification_queue_usage() > 0.9 THEN
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('platform_settings', OLD.key);
    END IF;
    -- PostgreSQL delivers the same notification of one transaction once.
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
    -- Also what replication applies, or a session that plays its part, is a change like any other.
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
