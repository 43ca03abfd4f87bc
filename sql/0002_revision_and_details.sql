-- A revision that grows with each change of a flag, whoever makes it, and the details of a maintenance.
-- Safe to run again: each step checks whether it is needed before it takes a lock.

-- If several transactions migrate at the same time, the first takes this lock and the others wait.
DO $$ BEGIN LOCK TABLE public.platform_settings IN SHARE UPDATE EXCLUSIVE MODE; END $$;

-- One row, which every change of a flag updates. A second change waits here until the first one commits, so revisions are
-- in the order of commits, and no number is lost. A sequence gives neither. A process that has read `last` has therefore
-- read every change up to it.
CREATE TABLE IF NOT EXISTS public.platform_settings_revision (
    id    integer PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    last  bigint  NOT NULL DEFAULT 0,
    token uuid    NOT NULL DEFAULT pg_catalog.gen_random_uuid()  -- new whenever a process has something to read
) WITH (fillfactor = 10);                                        -- room for updates in place

DO $$
DECLARE
    foreign_columns text;
BEGIN
    -- A platform may count revisions of its own in a column of that name, which the trigger would undo.
    SELECT pg_catalog.string_agg(attname::text, ', ' ORDER BY attname) INTO foreign_columns
    FROM pg_attribute
    WHERE attrelid = 'public.platform_settings'::regclass::oid
      AND attname IN ('details', 'revision', 'drain_revision')
      AND NOT attisdropped
      AND pg_catalog.to_regprocedure('public.platform_settings_revise()') IS NULL
    HAVING count(*) < 3;
    IF foreign_columns IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = pg_catalog.concat(
            'public.platform_settings has columns of another use (', foreign_columns,
            '): rename them, or keep the flag in a database of its own'
        );
    END IF;
    -- The numbers are not secret. Only the owner can change them, or lock the row.
    IF NOT pg_catalog.has_table_privilege('public', 'public.platform_settings_revision', 'SELECT') THEN
        GRANT SELECT ON public.platform_settings_revision TO PUBLIC;
    END IF;
    IF (
        SELECT count(*) < 3
        FROM pg_attribute
        WHERE attrelid = 'public.platform_settings'::regclass::oid
          AND attname IN ('details', 'revision', 'drain_revision')
          AND NOT attisdropped
    ) THEN
        ALTER TABLE public.platform_settings
            -- mode, message, starts, until and so on: written with the value, in one statement
            ADD COLUMN IF NOT EXISTS details jsonb NOT NULL DEFAULT '{}',
            -- 0 in the rows of other settings
            ADD COLUMN IF NOT EXISTS revision bigint NOT NULL DEFAULT 0,
            -- the revision at which an operator waits for requests in flight
            ADD COLUMN IF NOT EXISTS drain_revision bigint;
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

-- A read fetches the scopes that are on or scheduled. They may be few among very many.
DO $$
BEGIN
    -- IF NOT EXISTS would wait for writers even if the index exists.
    IF pg_catalog.to_regclass('public.platform_settings_scopes') IS NULL THEN
        CREATE INDEX platform_settings_scopes ON public.platform_settings (key)
            WHERE pg_catalog.starts_with(key::text, 'maintenance_mode:'::text)
                AND (value_bool OR details ? 'starts'::text);
    END IF;
END
$$;

-- It runs as the owner, because a role that may change a flag needs no further grant. Only the owner may execute it, so
-- no other role can put it on a table.
CREATE OR REPLACE FUNCTION public.platform_settings_revise() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changes boolean := true;
    number  bigint;
BEGIN
    IF TG_RELID <> 'public.platform_settings'::regclass::oid THEN
        RAISE EXCEPTION 'platform_settings_revise belongs to public.platform_settings';
    END IF;
    IF TG_OP = 'INSERT' THEN
        NEW.revision := 0;
        RETURN NEW;
    ELSIF TG_OP = 'UPDATE' THEN
        NEW.revision := OLD.revision;
        -- A schedule ends with its flag. Otherwise, a flag that is switched off by hand would be on again at once. So
        -- does a secret link. Otherwise, it would be valid again when the flag is switched on by hand.
        IF OLD.value_bool AND NEW.value_bool IS NOT TRUE AND jsonb_typeof(NEW.details) = 'object'
            AND NEW.details -> 'starts' IS NOT DISTINCT FROM OLD.details -> 'starts'
        THEN
            NEW.details := NEW.details - 'starts' - 'auto_off' - 'secret';
        END IF;
        changes := OLD.revision = 0 OR (NEW.key, NEW.value_bool, NEW.value_text, NEW.details)
            IS DISTINCT FROM (OLD.key, OLD.value_bool, OLD.value_text, OLD.details);
        -- Unless the writer sets the time, it is now.
        IF changes AND OLD.revision <> 0 AND NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
            NEW.updated_at := now();
        END IF;
    END IF;
    IF (NEW.key::text ~ '^maintenance_mode(:|$)' OR OLD.key::text ~ '^maintenance_mode(:|$)') IS NOT TRUE THEN
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        RETURN NEW;
    END IF;
    -- A crash must not take a flip back, whoever made it, because processes may already follow it.
    IF current_setting('synchronous_commit') IN ('off', 'local') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF changes THEN
        -- Rows may arrive without this table, as by logical replication. No revision may be used twice.
        INSERT INTO public.platform_settings_revision AS r (last) VALUES (coalesce(OLD.revision, 0) + 1)
        ON CONFLICT (id) DO UPDATE SET last = greatest(r.last + 1, EXCLUDED.last), token = EXCLUDED.token
        RETURNING r.last INTO number;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    IF changes THEN
        NEW.revision := number;
    END IF;
    -- 0 stands for the revision of this very change, which its writer cannot know.
    IF NEW.drain_revision = 0 THEN
        NEW.drain_revision := NEW.revision;
    END IF;
    IF TG_OP = 'UPDATE' AND NOT changes AND NEW.drain_revision IS DISTINCT FROM OLD.drain_revision THEN
        UPDATE public.platform_settings_revision SET token = gen_random_uuid();
    END IF;
    RETURN NEW;
END
$$;

REVOKE EXECUTE ON FUNCTION public.platform_settings_revise() FROM PUBLIC;

-- A new row gets its number here, and not before it is inserted. Otherwise an insert would hold the counter and wait for
-- the row, while an update holds the row and waits for the counter.
-- It runs as the role that inserts and with its search_path, because an UPDATE also runs the platform's own triggers.
CREATE OR REPLACE FUNCTION public.platform_settings_number() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE public.platform_settings SET revision = 0::bigint
    WHERE key::text = NEW.key::text AND revision = 0::bigint;
    RETURN NULL;
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

-- Rows may arrive without the counter, as by logical replication or from a table that existed before. No revision may be
-- used twice. If the counter is new, also not one that an instance has acknowledged. If it is not, such an instance
-- follows a state that was taken back, and the processes that start now must find that out by its revision.
DO $$
DECLARE
    highest bigint;
    acknowledged bigint;
BEGIN
    IF pg_catalog.to_regclass('public.maintenance_instances') IS NOT NULL
        AND NOT EXISTS (SELECT FROM public.platform_settings_revision)
    THEN
        -- Any role that serves writes its own number. Half of those that can be acknowledged stay for later flips.
        SELECT max(revision) INTO acknowledged FROM public.maintenance_instances
        WHERE revision <= 2305843009213693952;
    END IF;
    SELECT greatest(max(revision), acknowledged, 0) INTO highest FROM public.platform_settings;
    IF highest > coalesce((SELECT last FROM public.platform_settings_revision), -1) THEN
        INSERT INTO public.platform_settings_revision (last) VALUES (highest)
        ON CONFLICT (id) DO UPDATE SET last = EXCLUDED.last, token = EXCLUDED.token;
    END IF;
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
            BEFORE INSERT OR UPDATE OR DELETE ON public.platform_settings
            FOR EACH ROW EXECUTE FUNCTION public.platform_settings_revise();
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'public.platform_settings'::regclass::oid AND tgname = 'platform_settings_number'
    ) THEN
        CREATE TRIGGER platform_settings_number
            AFTER INSERT ON public.platform_settings
            FOR EACH ROW WHEN (NEW.key::text ~ '^maintenance_mode(:|$)'::text)
            EXECUTE FUNCTION public.platform_settings_number();
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
          AND tgname IN ('platform_settings_revise', 'platform_settings_number', 'platform_settings_notify')
          AND tgenabled <> 'A'
    ) THEN
        ALTER TABLE public.platform_settings ENABLE ALWAYS TRIGGER platform_settings_revise;
        ALTER TABLE public.platform_settings ENABLE ALWAYS TRIGGER platform_settings_number;
        ALTER TABLE public.platform_settings ENABLE ALWAYS TRIGGER platform_settings_notify;
    END IF;
    -- A flag from before the triggers gets its first number here.
    IF EXISTS (
        SELECT FROM public.platform_settings WHERE key::text ~ '^maintenance_mode(:|$)'::text AND revision = 0
    ) THEN
        UPDATE public.platform_settings SET revision = 0
        WHERE key::text ~ '^maintenance_mode(:|$)'::text AND revision = 0;
    END IF;
END
$$;
