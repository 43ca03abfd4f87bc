-- The processes that serve, one row each, with the revision that each acknowledged and the requests that it has in flight.
-- The table is logged. If a crash of the server emptied it, a wait would treat an unknown fleet as an empty one.

-- If several transactions migrate at the same time, the first takes this lock and the others wait.
DO $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('maintenance migrate', 0)); END $$;

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
        when_stale  text        NOT NULL CHECK (when_stale IN ('serve', 'block')),
        ttl         float8      NOT NULL CHECK (ttl > 0 AND ttl < 'Infinity'),
        revision    bigint,                -- installed, then acknowledged
        in_flight   integer,               -- null if requests are not tracked
        websockets  integer     NOT NULL DEFAULT 0,
        oldest      text,
        oldest_age  float8      CHECK (oldest_age < 'Infinity'),
        seen_at     timestamptz NOT NULL DEFAULT now()
    ) WITH (fillfactor = 50);              -- room for updates in place, which touch no index

    -- This row is created with the first table only. If it is missing, the table was emptied or dropped since, and the
    -- instances that were in it are unknown.
    IF pg_catalog.obj_description('public.platform_settings_revision_seq'::regclass::oid, 'pg_class') IS NULL THEN
        INSERT INTO public.maintenance_instances (id, host, boot, pid, program, version, when_stale, ttl)
        VALUES ('00000000-0000-0000-0000-000000000000', '', '', 0, 'the table is whole', '', 'block', 1);
    END IF;
END
$$;

DO $$
DECLARE
    highest bigint;
BEGIN
    IF pg_catalog.obj_description('public.platform_settings_revision_seq'::regclass::oid, 'pg_class') IS NULL THEN
        COMMENT ON SEQUENCE public.platform_settings_revision_seq
            IS 'Instances have registered before, so a new table of instances is not complete.';
    END IF;
    -- Rows may arrive without the sequence, as by logical replication. No revision may be used twice.
    SELECT greatest(
        (SELECT max(revision) FROM public.platform_settings), (SELECT max(revision) FROM public.maintenance_instances)
    ) INTO highest;
    -- A sequence that was never called returns its last_value first.
    IF highest > (
        SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM public.platform_settings_revision_seq
    ) THEN
        PERFORM pg_catalog.setval('public.platform_settings_revision_seq', highest);
    END IF;
END
$$;
