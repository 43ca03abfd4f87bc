-- The flag in one SQLite file: the same tables and rules as in PostgreSQL, for one host.
-- Applied in one transaction, and safe to run again. SQLite 3.35 and newer.

CREATE TABLE IF NOT EXISTS platform_settings (
    id             integer PRIMARY KEY,
    key            text    NOT NULL UNIQUE,
    value_bool     boolean,
    value_text     text,
    description    text    NOT NULL DEFAULT '',
    updated_at     text    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%fZ', 'now'))
                   CHECK (typeof(updated_at) = 'text' AND ifnull(datetime(updated_at), '') > '1'),
    updated_by     text
                   CHECK (length(replace(updated_by, '-', '')) = 32 AND updated_by NOT GLOB '*[^-0-9a-fA-F]*'),
    details        text    NOT NULL DEFAULT '{}',
    revision       integer NOT NULL DEFAULT 0 CHECK (typeof(revision) = 'integer'),
    drain_revision integer
);

-- The settings and the instances are created together. If only the instances are missing, they are unknown.
CREATE TEMP TABLE new_file AS
SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM main.sqlite_master WHERE name = 'platform_settings_revision');

CREATE TABLE IF NOT EXISTS maintenance_instances (
    id         text    PRIMARY KEY NOT NULL,
    host       text    NOT NULL,
    boot       text    NOT NULL,
    pid        integer NOT NULL,
    program    text    NOT NULL,
    version    text    NOT NULL,
    when_stale text    NOT NULL CHECK (when_stale IN ('serve', 'block')),
    ttl        real    NOT NULL CHECK (ttl > 0 AND ttl < 9e999),
    revision   integer,
    in_flight  integer,
    websockets integer NOT NULL DEFAULT 0,
    oldest     text,
    oldest_age real    CHECK (oldest_age < 9e999),
    seen_at    real    NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400.0)
);

INSERT OR IGNORE INTO maintenance_instances (id, host, boot, pid, program, version, when_stale, ttl)
SELECT '00000000000000000000000000000000', '', '', 0, 'the table is whole', '', 'block', 1 FROM temp.new_file;

DROP TABLE temp.new_file;

-- The last revision used. It outlives the rows, so that it grows across delete and insert too.
CREATE TABLE IF NOT EXISTS platform_settings_revision (
    id   integer PRIMARY KEY CHECK (id = 1),
    last integer NOT NULL
);

INSERT OR IGNORE INTO platform_settings_revision
SELECT 1, coalesce(max(revision), 0)
FROM (SELECT revision FROM platform_settings UNION ALL SELECT revision FROM maintenance_instances);

CREATE TRIGGER IF NOT EXISTS platform_settings_insert AFTER INSERT ON platform_settings
BEGIN
    UPDATE platform_settings_revision SET last = last + 1;
    UPDATE platform_settings SET revision = (SELECT last FROM platform_settings_revision) WHERE id = NEW.id;
END;

-- The last clause replaces a revision that was written by hand by a new one.
CREATE TRIGGER IF NOT EXISTS platform_settings_revise AFTER UPDATE ON platform_settings
WHEN NEW.key IS NOT OLD.key
    OR NEW.value_bool IS NOT OLD.value_bool
    OR NEW.value_text IS NOT OLD.value_text
    OR NEW.details IS NOT OLD.details
    OR NEW.revision IS NOT OLD.revision AND NEW.revision IS NOT (SELECT last FROM platform_settings_revision)
BEGIN
    UPDATE platform_settings_revision SET last = last + 1;
    UPDATE platform_settings
    SET revision = (SELECT last FROM platform_settings_revision),
        -- Unless the writer sets the time, it is now.
        updated_at = CASE WHEN NEW.updated_at IS NOT OLD.updated_at THEN NEW.updated_at
                          ELSE strftime('%Y-%m-%d %H:%M:%fZ', 'now') END
    WHERE id = NEW.id;
END;

INSERT INTO platform_settings (key, value_bool, description)
SELECT 'maintenance_mode', 0, 'While 1, every process answers 503 Service Unavailable.'
WHERE NOT EXISTS (SELECT 1 FROM platform_settings WHERE key = 'maintenance_mode');
