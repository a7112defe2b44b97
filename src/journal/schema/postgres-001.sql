-- Version 1 of the journal in PostgreSQL; docs/journal.md says what the tables and columns are.
CREATE TABLE akubra_journal.gateways (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT NOT NULL,
    seen BIGINT NOT NULL,
    gone BOOLEAN NOT NULL
);

CREATE TABLE akubra_journal.intents (
    gateway BIGINT NOT NULL,
    number BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    cluster TEXT NOT NULL,
    bucket BYTEA NOT NULL,
    key BYTEA NOT NULL,
    payload BYTEA NOT NULL,
    PRIMARY KEY (gateway, number, digest)
);
CREATE INDEX intents_digest ON akubra_journal.intents (digest);

CREATE TABLE akubra_journal.objects (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest BYTEA NOT NULL UNIQUE,
    cluster TEXT NOT NULL,
    bucket BYTEA NOT NULL,
    key BYTEA NOT NULL,
    standing SMALLINT NOT NULL,
    diverged BOOLEAN NOT NULL,
    due BIGINT NOT NULL,
    calm BIGINT NOT NULL,
    worker TEXT,
    token BIGINT,
    held BIGINT,
    unseen_since BIGINT,
    unseen_until BIGINT,
    replaced BOOLEAN NOT NULL,
    attempts BIGINT NOT NULL,
    since BIGINT NOT NULL,
    reason TEXT NOT NULL,
    records BIGINT NOT NULL,
    appended BIGINT NOT NULL
);
CREATE INDEX objects_due ON akubra_journal.objects (diverged, due, id) WHERE standing = 0;
CREATE INDEX objects_since ON akubra_journal.objects (since) WHERE standing = 0;
CREATE INDEX objects_aside ON akubra_journal.objects (id) WHERE standing <> 0;
CREATE INDEX objects_held ON akubra_journal.objects (held) WHERE token IS NOT NULL;
CREATE SEQUENCE akubra_journal.tokens;

CREATE TABLE akubra_journal.records (
    object BIGINT NOT NULL,
    gateway BIGINT NOT NULL,
    number BIGINT NOT NULL,
    position BIGINT NOT NULL,
    payload BYTEA NOT NULL,
    PRIMARY KEY (object, gateway, number)
);

CREATE TABLE akubra_journal.dropped (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster TEXT NOT NULL,
    bucket BYTEA NOT NULL,
    key BYTEA NOT NULL,
    at BIGINT NOT NULL,
    reason TEXT NOT NULL,
    records BYTEA NOT NULL
);

CREATE TABLE akubra_journal.events (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest BYTEA NOT NULL,
    cluster TEXT NOT NULL,
    bucket BYTEA NOT NULL,
    key BYTEA NOT NULL
);

-- Their sums count; a session changes the row of its slot, so that few wait for one another.
CREATE TABLE akubra_journal.counters (
    slot BIGINT PRIMARY KEY,
    open BIGINT NOT NULL DEFAULT 0,
    parked BIGINT NOT NULL DEFAULT 0,
    dead BIGINT NOT NULL DEFAULT 0,
    resolved BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO akubra_journal.counters (slot) SELECT generate_series(0, 31);

CREATE FUNCTION akubra_journal.count_objects() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    opened BIGINT := 0;
    parked_ BIGINT := 0;
    dead_ BIGINT := 0;
    less RECORD;
BEGIN
    IF TG_OP <> 'DELETE' THEN
        SELECT count(*) FILTER (WHERE standing = 0), count(*) FILTER (WHERE standing = 1),
               count(*) FILTER (WHERE standing = 2)
        INTO opened, parked_, dead_ FROM added;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        SELECT count(*) FILTER (WHERE standing = 0) AS opened, count(*) FILTER (WHERE standing = 1) AS parked,
               count(*) FILTER (WHERE standing = 2) AS dead
        INTO less FROM removed;
        opened := opened - less.opened;
        parked_ := parked_ - less.parked;
        dead_ := dead_ - less.dead;
    END IF;
    IF (opened, parked_, dead_) <> (0, 0, 0) THEN
        UPDATE akubra_journal.counters
        SET open = open + opened, parked = parked + parked_, dead = dead + dead_
        WHERE slot = pg_backend_pid() % 32;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER objects_added AFTER INSERT ON akubra_journal.objects
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION akubra_journal.count_objects();
CREATE TRIGGER objects_moved AFTER UPDATE ON akubra_journal.objects
    REFERENCING OLD TABLE AS removed NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION akubra_journal.count_objects();
CREATE TRIGGER objects_removed AFTER DELETE ON akubra_journal.objects
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION akubra_journal.count_objects();
