-- Guard of a registry's write path in SQLite: no row of a guarded table changes without a lease of the cluster that lasts.
--
-- 1. Replace `registrations` below by the registry's table (once a table), and run this file in the registry's database.
-- 2. The registry opens its connections with replica.client.guard_rows.with_functions: the triggers ask the machine's
--    CLOCK_BOOTTIME through them. A connection without the functions cannot write: it fails closed.
-- 3. The guard keeps the row: publisher.guard(rows=[SqliteLeaseRow("registry.db")]).
--
-- The triggers look inside the writer's own transaction, at each changed row. SQLite has no trigger at COMMIT: keep transactions short,
-- and ask the guard once more before the acknowledgement.

CREATE TABLE IF NOT EXISTS zaibei_lease (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    boot_id TEXT NOT NULL,     -- of the machine's present life: after a restart an old row counts for nothing
    until_ms INTEGER NOT NULL  -- CLOCK_BOOTTIME in milliseconds
);

CREATE TRIGGER IF NOT EXISTS zaibei_guard_registrations_insert BEFORE INSERT ON registrations
WHEN NOT EXISTS (SELECT 1 FROM zaibei_lease WHERE boot_id = zaibei_boot_id() AND zaibei_boottime_ms() < until_ms)
BEGIN
    SELECT RAISE(ABORT, 'zaibei: no lease on the write path, nothing is registered');
END;

CREATE TRIGGER IF NOT EXISTS zaibei_guard_registrations_update BEFORE UPDATE ON registrations
WHEN NOT EXISTS (SELECT 1 FROM zaibei_lease WHERE boot_id = zaibei_boot_id() AND zaibei_boottime_ms() < until_ms)
BEGIN
    SELECT RAISE(ABORT, 'zaibei: no lease on the write path, nothing is registered');
END;

CREATE TRIGGER IF NOT EXISTS zaibei_guard_registrations_delete BEFORE DELETE ON registrations
WHEN NOT EXISTS (SELECT 1 FROM zaibei_lease WHERE boot_id = zaibei_boot_id() AND zaibei_boottime_ms() < until_ms)
BEGIN
    SELECT RAISE(ABORT, 'zaibei: no lease on the write path, nothing is registered');
END;
