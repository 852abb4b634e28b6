-- Guard of a registry's write path in PostgreSQL: no transaction that changes a guarded table commits without a lease of the cluster.
--
-- 1. Run this file as a superuser in the registry's database: the clock is read from /proc/uptime (CLOCK_BOOTTIME of the machine the
--    database runs on), which needs pg_read_file.
-- 2. SELECT zaibei_guard('registrations');   once for each guarded table
-- 3. GRANT EXECUTE ON FUNCTION zaibei_lease_renewed(bigint, bigint) TO the guard's role alone; the guard keeps the row:
--    publisher.guard(rows=[PostgresLeaseRow(connect)]).
--
-- The triggers are constraint triggers, deferred: they look when the transaction commits, so a writer that waited, slept or was frozen
-- between its statement and its COMMIT is refused too. What was refused is rolled back whole.

CREATE TABLE IF NOT EXISTS zaibei_lease (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    boot_id text NOT NULL,     -- of the machine's present life: after a restart an old row counts for nothing
    until_ms bigint NOT NULL   -- CLOCK_BOOTTIME in milliseconds
);
REVOKE ALL ON zaibei_lease FROM PUBLIC;

CREATE OR REPLACE FUNCTION zaibei_boottime_ms() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT (split_part(pg_read_file('/proc/uptime', 0, 64), ' ', 1)::numeric * 1000)::bigint
$$;

CREATE OR REPLACE FUNCTION zaibei_boot_id() RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT rtrim(pg_read_file('/proc/sys/kernel/random/boot_id', 0, 64), E'\n')
$$;

-- The lease lasts `duration_ms` from `asked_ms` on, which this same clock said before the question was sent; 0, 0: there is none.
CREATE OR REPLACE FUNCTION zaibei_lease_renewed(asked_ms bigint, duration_ms bigint) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_catalog AS $$
    INSERT INTO zaibei_lease (one, boot_id, until_ms) VALUES (true, zaibei_boot_id(), asked_ms + duration_ms)
    ON CONFLICT (one) DO UPDATE SET boot_id = excluded.boot_id, until_ms = excluded.until_ms
    RETURNING until_ms
$$;
REVOKE ALL ON FUNCTION zaibei_lease_renewed(bigint, bigint) FROM PUBLIC;

CREATE OR REPLACE FUNCTION zaibei_lease_required() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_catalog AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM zaibei_lease WHERE boot_id = zaibei_boot_id() AND zaibei_boottime_ms() < until_ms) THEN
        RAISE EXCEPTION 'zaibei: no lease on the write path, nothing is registered' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION zaibei_guard(guarded regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS zaibei_guard ON %s', guarded);
    EXECUTE format(
        'CREATE CONSTRAINT TRIGGER zaibei_guard AFTER INSERT OR UPDATE OR DELETE ON %s '
        'DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION zaibei_lease_required()', guarded);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER zaibei_guard', guarded);
END
$$;
