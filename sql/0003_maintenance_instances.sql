-- The processes that serve, one row each, with the revision that each acknowledged and the requests that it has in flight.
-- The table is logged. If a crash of the server emptied it, a wait would treat an unknown fleet as an empty one.

-- If several transactions migrate at the same time, the first takes this lock and the others wait.
DO $$ BEGIN LOCK TABLE public.platform_settings IN SHARE UPDATE EXCLUSIVE MODE; END $$;

DO $$
BEGIN
    IF pg_catalog.to_regclass('public.maintenance_instances') IS NOT NULL THEN
        RETURN;
    END IF;
    CREATE TABLE public.maintenance_instances (
        id          uuid        PRIMARY KEY,
        host        text        NOT NULL,
        boot        text        NOT NULL,  -- one boot and one process namespace of that host
        pid         integer     NOT NULL,
        program     text        NOT NULL,
        version     text        NOT NULL,
        when_stale  text        NOT NULL,
        ttl         float8      NOT NULL,
        revision    bigint,                -- installed, then acknowledged
        in_flight   integer,               -- null if requests are not tracked
        websockets  integer     NOT NULL DEFAULT 0,
        oldest      text,
        oldest_age  float8,
        service     text        NOT NULL DEFAULT '',
        drains      jsonb       NOT NULL DEFAULT '{}',  -- scope: requests in flight, if an operator waits for them
        seen_at     timestamptz NOT NULL DEFAULT now(),
        registered_by name      DEFAULT current_user
    ) WITH (fillfactor = 50);              -- room for updates in place, which touch no index

    -- This row is created with the first table only. If it is missing, the table was emptied or dropped since, and the
    -- instances that were in it are unknown.
    IF pg_catalog.obj_description('public.platform_settings_revision'::regclass::oid, 'pg_class') IS NULL THEN
        INSERT INTO public.maintenance_instances (id, host, boot, pid, program, version, when_stale, ttl)
        VALUES ('00000000-0000-0000-0000-000000000000', '', '', 0, 'the table is whole', '', 'block', 1);
    END IF;
END
$$;

-- A table of an earlier version gets the same columns and rules. Rows that break them stay, and no wait counts them.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'public.maintenance_instances'::regclass::oid AND attname = 'drains'
    ) THEN
        ALTER TABLE public.maintenance_instances
            ADD COLUMN IF NOT EXISTS service text NOT NULL DEFAULT '',
            ADD COLUMN IF NOT EXISTS drains jsonb NOT NULL DEFAULT '{}';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = 'public.maintenance_instances'::regclass::oid AND conname = 'maintenance_instances_bounded'
    ) THEN
        ALTER TABLE public.maintenance_instances ADD CONSTRAINT maintenance_instances_bounded CHECK (
            pg_catalog.length(host) <= 1000 AND pg_catalog.length(boot) <= 1000 AND pid >= 0
            AND pg_catalog.length(program) <= 1000 AND pg_catalog.length(version) <= 1000
            AND when_stale IN ('serve', 'block') AND ttl > 0::float8 AND ttl <= 1000000::float8
            AND revision BETWEEN 0 AND 4611686018427387904 AND in_flight >= 0 AND websockets >= 0
            AND pg_catalog.length(oldest) <= 1000 AND oldest_age BETWEEN -60::float8 AND 1e10::float8
            AND pg_catalog.isfinite(seen_at) AND pg_catalog.length(service) <= 1000
            AND pg_catalog.jsonb_typeof(drains) = 'object' AND pg_catalog.pg_column_size(drains) <= 262144
        ) NOT VALID;
    END IF;
    -- Rows from before have no role, so that the processes that run go on.
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'public.maintenance_instances'::regclass::oid AND attname = 'registered_by'
    ) THEN
        ALTER TABLE public.maintenance_instances ADD COLUMN registered_by name;
        ALTER TABLE public.maintenance_instances ALTER COLUMN registered_by SET DEFAULT current_user;
    END IF;
END
$$;

-- A role changes the rows that it registered, and no others. Row level security would do the same, but a role that may
-- only read could then not dump the database.
CREATE OR REPLACE FUNCTION public.maintenance_instances_guard() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    other name;
BEGIN
    IF TG_OP <> 'DELETE' THEN
        NEW.registered_by := coalesce(NEW.registered_by, current_user);
        -- This row shows that no instance is missing. A role that serves must not be able to claim that.
        IF NEW.id = '00000000-0000-0000-0000-000000000000'
            AND NOT has_any_column_privilege('public.platform_settings', 'UPDATE')
        THEN
            RAISE insufficient_privilege USING
                MESSAGE = 'only a role that may update platform_settings marks the table of instances as complete';
        END IF;
    END IF;
    FOREACH other IN ARRAY ARRAY[OLD.registered_by, NEW.registered_by] LOOP
        IF other <> current_user AND NOT EXISTS (
            SELECT FROM pg_roles
            WHERE (rolname = other OR oid = (SELECT relowner FROM pg_class WHERE oid = TG_RELID))
              AND pg_has_role(oid, 'MEMBER')
        ) THEN
            RAISE insufficient_privilege USING
                MESSAGE = concat('only ', quote_ident(other), ', its members and the owner of ', TG_TABLE_NAME,
                    ' may change the row of instance ', coalesce(OLD.id, NEW.id));
        END IF;
    END LOOP;
    RETURN coalesce(NEW, OLD);
END
$$;

DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'public.maintenance_instances'::regclass::oid AND tgname = 'maintenance_instances_guard_delete'
    ) THEN
        RETURN;
    END IF;
    -- The conditions spare a process the call of a function, which would double the cost of an acknowledgement.
    CREATE TRIGGER maintenance_instances_guard_insert
        BEFORE INSERT ON public.maintenance_instances FOR EACH ROW
        WHEN (NEW.registered_by IS DISTINCT FROM current_user OR NEW.id = '00000000-0000-0000-0000-000000000000'::uuid)
        EXECUTE FUNCTION public.maintenance_instances_guard();
    CREATE TRIGGER maintenance_instances_guard_update
        BEFORE UPDATE ON public.maintenance_instances FOR EACH ROW
        WHEN (
            OLD.registered_by IS DISTINCT FROM current_user OR NEW.registered_by IS DISTINCT FROM current_user
            OR NEW.id IS DISTINCT FROM OLD.id
        )
        EXECUTE FUNCTION public.maintenance_instances_guard();
    CREATE TRIGGER maintenance_instances_guard_delete
        BEFORE DELETE ON public.maintenance_instances FOR EACH ROW
        WHEN (OLD.registered_by IS DISTINCT FROM current_user)
        EXECUTE FUNCTION public.maintenance_instances_guard();
END
$$;

DO $$
BEGIN
    IF pg_catalog.obj_description('public.platform_settings_revision'::regclass::oid, 'pg_class') IS NULL THEN
        COMMENT ON TABLE public.platform_settings_revision
            IS 'Instances have registered before, so a new table of instances is not complete.';
    END IF;
END
$$;
