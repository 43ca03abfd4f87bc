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
    details        text    NOT NULL DEFAULT '{}' CHECK (length(CAST(details AS blob)) <= 262144),
    revision       integer NOT NULL DEFAULT 0 CHECK (typeof(revision) = 'integer'),
    drain_revision integer
);

-- The settings and the instances are created together. If only the instances are missing, they are unknown.
CREATE TEMP TABLE new_file AS
SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM main.sqlite_master WHERE name = 'platform_settings_revision');

CREATE TABLE IF NOT EXISTS maintenance_instances (
    id         text    PRIMARY KEY NOT NULL
               CHECK (typeof(id) = 'text' AND length(id) = 32 AND id NOT GLOB '*[^0-9a-f]*'),
    host       text    NOT NULL CHECK (typeof(host) = 'text' AND length(host) <= 1000),
    boot       text    NOT NULL CHECK (typeof(boot) = 'text' AND length(boot) <= 1000),
    pid        integer NOT NULL CHECK (typeof(pid) = 'integer' AND pid BETWEEN 0 AND 2147483647),
    program    text    NOT NULL CHECK (typeof(program) = 'text' AND length(program) <= 1000),
    version    text    NOT NULL CHECK (typeof(version) = 'text' AND length(version) <= 1000),
    when_stale text    NOT NULL CHECK (when_stale IN ('serve', 'block')),
    ttl        real    NOT NULL CHECK (typeof(ttl) = 'real' AND ttl > 0 AND ttl <= 1000000),
    revision   integer CHECK (revision IS NULL OR typeof(revision) = 'integer' AND revision BETWEEN 0 AND 4611686018427387904),
    in_flight  integer CHECK (in_flight IS NULL OR typeof(in_flight) = 'integer' AND in_flight BETWEEN 0 AND 2147483647),
    websockets integer NOT NULL DEFAULT 0 CHECK (typeof(websockets) = 'integer' AND websockets BETWEEN 0 AND 2147483647),
    oldest     text    CHECK (oldest IS NULL OR typeof(oldest) = 'text' AND length(oldest) <= 1000),
    oldest_age real    CHECK (oldest_age IS NULL OR typeof(oldest_age) = 'real' AND oldest_age BETWEEN -60 AND 1e10),
    drains     text    NOT NULL DEFAULT '{}' CHECK (typeof(drains) = 'text' AND json_valid(drains) AND json_type(drains) = 'object'),
    service    text    NOT NULL DEFAULT '' CHECK (typeof(service) = 'text' AND length(service) <= 1000),
    seen_at    real    NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400.0)
               CHECK (typeof(seen_at) = 'real' AND abs(seen_at) <= 1e10)
);

INSERT OR IGNORE INTO maintenance_instances (id, host, boot, pid, program, version, when_stale, ttl)
SELECT '00000000000000000000000000000000', '', '', 0, 'the table is whole', '', 'block', 1 FROM temp.new_file;

DROP TABLE temp.new_file;

-- The last revision used. It outlives the rows, so that it grows across delete and insert too. The token is new whenever
-- a process has something to read.
CREATE TABLE IF NOT EXISTS platform_settings_revision (
    id    integer PRIMARY KEY CHECK (id = 1),
    last  integer NOT NULL,
    token text    NOT NULL DEFAULT (hex(randomblob(16)))
);

INSERT OR IGNORE INTO platform_settings_revision (id, last)
SELECT 1, coalesce(max(revision), 0)
FROM (SELECT revision FROM platform_settings UNION ALL SELECT revision FROM maintenance_instances)
-- A revision that only a broken row can hold would leave no numbers for later ones.
WHERE typeof(revision) = 'integer' AND revision <= 4611686018427387904;

-- Every change of a flag, whoever makes it.
CREATE TABLE IF NOT EXISTS maintenance_history (
    id          integer PRIMARY KEY,
    changed_at  text    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    key         text    NOT NULL,
    revision    integer NOT NULL,
    old_value   boolean,
    new_value   boolean,
    old_details text,
    new_details text,
    updated_by  text
);

CREATE INDEX IF NOT EXISTS maintenance_history_flag ON maintenance_history (key, revision);

CREATE TRIGGER IF NOT EXISTS platform_settings_insert AFTER INSERT ON platform_settings
WHEN NEW.key = 'maintenance_mode' OR NEW.key GLOB 'maintenance_mode:*'
BEGIN
    UPDATE platform_settings_revision SET last = last + 1, token = hex(randomblob(16));
    UPDATE platform_settings SET revision = (SELECT last FROM platform_settings_revision) WHERE id = NEW.id;
    INSERT INTO maintenance_history (key, revision, new_value, new_details, updated_by)
    SELECT NEW.key, last, NEW.value_bool, NEW.details, NEW.updated_by FROM platform_settings_revision;
END;

CREATE TRIGGER IF NOT EXISTS platform_settings_delete AFTER DELETE ON platform_settings
WHEN OLD.key = 'maintenance_mode' OR OLD.key GLOB 'maintenance_mode:*'
BEGIN
    UPDATE platform_settings_revision SET last = last + 1, token = hex(randomblob(16));
    INSERT INTO maintenance_history (key, revision, old_value, old_details)
    SELECT OLD.key, last, OLD.value_bool, OLD.details FROM platform_settings_revision;
END;

CREATE TRIGGER IF NOT EXISTS platform_settings_drain AFTER UPDATE OF drain_revision ON platform_settings
WHEN NEW.drain_revision IS NOT OLD.drain_revision
BEGIN
    UPDATE platform_settings_revision SET token = hex(randomblob(16));
END;

-- The last clause replaces a revision that was written by hand by a new one.
CREATE TRIGGER IF NOT EXISTS platform_settings_revise AFTER UPDATE ON platform_settings
WHEN (
    NEW.key = 'maintenance_mode' OR NEW.key GLOB 'maintenance_mode:*'
    OR OLD.key = 'maintenance_mode' OR OLD.key GLOB 'maintenance_mode:*'
) AND (
    NEW.key IS NOT OLD.key
    OR NEW.value_bool IS NOT OLD.value_bool
    OR NEW.value_text IS NOT OLD.value_text
    OR NEW.details IS NOT OLD.details
    OR NEW.revision IS NOT OLD.revision AND NEW.revision IS NOT (SELECT last FROM platform_settings_revision)
)
BEGIN
    UPDATE platform_settings_revision SET last = last + 1, token = hex(randomblob(16));
    UPDATE platform_settings
    SET revision = (SELECT last FROM platform_settings_revision),
        -- A request to drain that came with this very change, or before it was carried out, is for the new revision.
        drain_revision = CASE WHEN NEW.drain_revision = 0 THEN (SELECT last FROM platform_settings_revision)
                              ELSE NEW.drain_revision END,
        -- A schedule ends with its flag. Otherwise, a flag that is switched off by hand would be on again at once. So
        -- does a secret link. Otherwise, it would be valid again when the flag is switched on by hand.
        details = CASE WHEN OLD.value_bool AND NOT ifnull(NEW.value_bool, 0) AND json_valid(NEW.details)
                            AND json_valid(OLD.details)
                            AND json_extract(NEW.details, '$.starts') IS json_extract(OLD.details, '$.starts')
                       THEN json_remove(NEW.details, '$.starts', '$.auto_off', '$.secret') ELSE NEW.details END,
        -- Unless the writer sets the time, it is now.
        updated_at = CASE WHEN NEW.updated_at IS NOT OLD.updated_at THEN NEW.updated_at
                          ELSE strftime('%Y-%m-%d %H:%M:%fZ', 'now') END
    WHERE id = NEW.id;
    INSERT INTO maintenance_history (key, revision, old_value, new_value, old_details, new_details, updated_by)
    SELECT NEW.key, last, OLD.value_bool, NEW.value_bool, OLD.details, NEW.details, NEW.updated_by
    FROM platform_settings_revision;
    -- A flag that changes a thousand times a second must not fill the disk.
    DELETE FROM maintenance_history
    WHERE key = NEW.key AND revision < (
        SELECT revision FROM maintenance_history WHERE key = NEW.key ORDER BY revision DESC LIMIT 1 OFFSET 1000
    );
END;

-- A process that follows a flag which is on must not take this row for a flip, as in a new file instead of one that was
-- deleted. So its time is older than that of any flip.
INSERT INTO platform_settings (key, value_bool, description, updated_at)
SELECT 'maintenance_mode', 0, 'While 1, every process answers 503 Service Unavailable.', '1970-01-01 00:00:00.000Z'
WHERE NOT EXISTS (SELECT 1 FROM platform_settings WHERE key = 'maintenance_mode');
