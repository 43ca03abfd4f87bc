-- The statements of a session, read by `maintenance.stores.rows.load_statements`.

-- name: is_prepared
-- The schema creates this trigger last.
SELECT 1 FROM sqlite_master WHERE name = 'platform_settings_revise';

-- name: has_instances
SELECT 1 FROM sqlite_master WHERE name = 'maintenance_instances';

-- name: flag
-- The time in UTC; as it is if SQLite cannot parse it. The length as bytes, because that of a text ends at a NUL.
s.key, s.value_bool,
    CASE WHEN length(CAST(s.details AS blob)) > 262144 THEN '"larger than 262144 bytes"' ELSE s.details END, s.revision,
    coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', s.updated_at), s.updated_at), s.updated_by, s.drain_revision IS s.revision

-- name: clock
(julianday('now') - 2440587.5) * 86400.0

-- name: one
SELECT {flag} FROM platform_settings s WHERE s.key = :key;

-- name: scopes
SELECT {flag} FROM platform_settings s
WHERE s.key GLOB 'maintenance_mode:*' AND (s.value_bool OR json_valid(s.details) AND json_extract(s.details, '$.starts') IS NOT NULL);

-- name: facts
SELECT last, token, {clock}, false, EXISTS (SELECT 1 FROM maintenance_instances WHERE id = :instance),
    :doubtful AND EXISTS (
        SELECT 1 FROM maintenance_instances WHERE revision > last AND seen_at > (
            SELECT (julianday(updated_at) - 2440587.5) * 86400.0 FROM platform_settings WHERE key = 'maintenance_mode'
        )
    )
FROM platform_settings_revision;

-- name: facts_of_flags
-- The same without the instances, whose table may be missing.
SELECT last, token, {clock}, false, false, false FROM platform_settings_revision;

-- name: write
INSERT INTO platform_settings (key, value_bool, details, updated_by, updated_at)
VALUES (:key, :enabled, :details, :updated_by, strftime('%Y-%m-%d %H:%M:%fZ', 'now'))
ON CONFLICT (key) DO UPDATE SET
    value_bool = excluded.value_bool,
    details = excluded.details,
    updated_by = excluded.updated_by,
    updated_at = excluded.updated_at;

-- name: carry_out
UPDATE platform_settings SET
    value_bool = :enabled,
    details = CASE WHEN :enabled THEN details ELSE '{}' END,
    updated_at = strftime('%Y-%m-%d %H:%M:%fZ', 'now'),
    drain_revision = CASE WHEN drain_revision IS revision THEN 0 ELSE drain_revision END
WHERE key = :key AND revision = :revision
    AND (
        value_bool IS NOT :enabled
        OR NOT :enabled AND json_valid(details) AND json_extract(details, '$.starts') IS NOT NULL
    );

-- name: ask_drain
UPDATE platform_settings SET drain_revision = revision
WHERE key = :key AND revision = :revision AND drain_revision IS NOT revision;

-- name: history
SELECT changed_at, key, revision, old_value, new_value, old_details, new_details, updated_by, '', '', NULL
FROM maintenance_history
WHERE :key IS NULL OR key = :key
ORDER BY revision DESC
LIMIT :limit;

-- name: report
INSERT INTO maintenance_instances (
    id, host, boot, pid, program, version, service, when_stale, ttl,
    revision, in_flight, websockets, oldest, oldest_age, drains, seen_at
)
VALUES (
    :id, :host, :boot, :pid, :program, :version, :service, :when_stale, :ttl,
    :revision, :in_flight, :websockets, :oldest, :oldest_age, :drains, {clock}
)
ON CONFLICT (id) DO UPDATE SET
    revision = excluded.revision,
    in_flight = excluded.in_flight,
    websockets = excluded.websockets,
    oldest = excluded.oldest,
    oldest_age = excluded.oldest_age,
    drains = excluded.drains,
    seen_at = excluded.seen_at;

-- name: key
-- The id, or the number of a row whose id is not one.
CASE WHEN typeof(id) = 'text' AND length(id) = 32 AND id NOT GLOB '*[^0-9a-f]*' THEN id ELSE 'row' || rowid END

-- name: remove
DELETE FROM maintenance_instances
WHERE {key} IN (SELECT value FROM json_each(:ids)) AND id IS NOT '00000000000000000000000000000000';

-- name: instances
-- Another program may write values of any type into a file without the constraints. So each is cut here, and
-- `maintenance.stores.rows` checks it.
SELECT {key}, substr(host, 1, 1001), substr(boot, 1, 1001),
    CASE WHEN typeof(pid) IN ('text', 'blob') THEN '' ELSE pid END,
    substr(program, 1, 1001), substr(version, 1, 1001), substr(when_stale, 1, 1001),
    CASE WHEN typeof(ttl) IN ('text', 'blob') THEN '' ELSE ttl END,
    CASE WHEN typeof(revision) IN ('text', 'blob') THEN '' ELSE revision END,
    CASE WHEN typeof(in_flight) IN ('text', 'blob') THEN '' ELSE in_flight END,
    CASE WHEN typeof(websockets) IN ('text', 'blob') THEN '' ELSE websockets END,
    substr(oldest, 1, 1001),
    CASE WHEN typeof(oldest_age) IN ('text', 'blob') THEN '' ELSE oldest_age END,
    substr(drains, 1, 262144), substr(service, 1, 1001),
    CASE WHEN typeof(seen_at) IN ('integer', 'real') THEN {clock} - seen_at END
FROM maintenance_instances
WHERE substr({key}, 1, length(:beginning)) = :beginning;
