-- The statements of a session, read by `maintenance.stores.rows.load_statements`.

-- name: is_prepared
-- The schema creates this trigger last.
SELECT 1 FROM sqlite_master WHERE name = 'platform_settings_revise';

-- name: has_instances
SELECT 1 FROM sqlite_master WHERE name = 'maintenance_instances';

-- name: read
-- The time in UTC; as it is if SQLite cannot parse it.
SELECT s.key IS NOT NULL, s.value_bool, s.details, s.revision,
    coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', s.updated_at), s.updated_at), s.updated_by, s.drain_revision IS s.revision, false,
    EXISTS (SELECT 1 FROM maintenance_instances WHERE id = :instance)
FROM (SELECT 1) LEFT JOIN platform_settings s ON s.key = :key;

-- name: read_flag
SELECT s.key IS NOT NULL, s.value_bool, s.details, s.revision,
    coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', s.updated_at), s.updated_at), s.updated_by, s.drain_revision IS s.revision, false, false
FROM (SELECT 1) LEFT JOIN platform_settings s ON s.key = :key;

-- name: write
INSERT INTO platform_settings (key, value_bool, details, updated_by, updated_at)
VALUES (:key, :enabled, :details, :updated_by, strftime('%Y-%m-%d %H:%M:%fZ', 'now'))
ON CONFLICT (key) DO UPDATE SET
    value_bool = excluded.value_bool,
    details = excluded.details,
    updated_by = excluded.updated_by,
    updated_at = excluded.updated_at;

-- name: ask_drain
UPDATE platform_settings SET drain_revision = revision WHERE key = :key AND revision = :revision;

-- name: report
INSERT INTO maintenance_instances (
    id, host, boot, pid, program, version, when_stale, ttl,
    revision, in_flight, websockets, oldest, oldest_age, seen_at
)
VALUES (
    :id, :host, :boot, :pid, :program, :version, :when_stale, :ttl,
    :revision, :in_flight, :websockets, :oldest, :oldest_age, (julianday('now') - 2440587.5) * 86400.0
)
ON CONFLICT (id) DO UPDATE SET
    revision = excluded.revision,
    in_flight = excluded.in_flight,
    websockets = excluded.websockets,
    oldest = excluded.oldest,
    oldest_age = excluded.oldest_age,
    seen_at = excluded.seen_at;

-- name: remove
DELETE FROM maintenance_instances WHERE id = :id AND id <> '00000000000000000000000000000000';

-- name: fleet
SELECT s.key IS NOT NULL, s.value_bool, s.details, s.revision,
    coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', s.updated_at), s.updated_at), s.updated_by, s.drain_revision IS s.revision, false, false,
    i.id, i.host, i.boot, i.pid, i.program, i.version, i.when_stale, i.ttl,
    i.revision, i.in_flight, i.websockets, i.oldest, i.oldest_age,
    (julianday('now') - 2440587.5) * 86400.0 - i.seen_at
FROM (SELECT 1) LEFT JOIN platform_settings s ON s.key = :key LEFT JOIN maintenance_instances i ON true
ORDER BY i.host, i.pid, i.id;
