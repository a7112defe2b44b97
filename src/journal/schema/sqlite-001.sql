-- Version 1 of the journal in SQLite; docs/journal.md says what the tables and columns are.
CREATE TABLE gateways (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    seen INTEGER NOT NULL,
    gone INTEGER NOT NULL
) STRICT;

CREATE TABLE intents (
    gateway INTEGER NOT NULL,
    number INTEGER NOT NULL,
    digest BLOB NOT NULL,
    cluster TEXT NOT NULL,
    bucket BLOB NOT NULL,
    key BLOB NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (gateway, number, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX intents_digest ON intents (digest);

CREATE TABLE objects (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    cluster TEXT NOT NULL,
    bucket BLOB NOT NULL,
    key BLOB NOT NULL,
    standing INTEGER NOT NULL,
    diverged INTEGER NOT NULL,
    due INTEGER NOT NULL,
    calm INTEGER NOT NULL,
    worker TEXT,
    token INTEGER,
    held INTEGER,
    unseen_since INTEGER,
    unseen_until INTEGER,
    replaced INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    since INTEGER NOT NULL,
    reason TEXT NOT NULL,
    records INTEGER NOT NULL,
    appended INTEGER NOT NULL
) STRICT;
CREATE INDEX objects_due ON objects (diverged, due) WHERE standing = 0;
CREATE INDEX objects_since ON objects (since) WHERE standing = 0;
CREATE INDEX objects_aside ON objects (id) WHERE standing <> 0;
CREATE INDEX objects_held ON objects (held) WHERE token IS NOT NULL;

CREATE TABLE records (
    object INTEGER NOT NULL,
    gateway INTEGER NOT NULL,
    number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (object, gateway, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE dropped (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster TEXT NOT NULL,
    bucket BLOB NOT NULL,
    key BLOB NOT NULL,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    records BLOB NOT NULL
) STRICT;

-- The newest stays: so none gets the number of another, without a page that counts them.
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    cluster TEXT NOT NULL,
    bucket BLOB NOT NULL,
    key BLOB NOT NULL
) STRICT;

CREATE TABLE counters (
    slot INTEGER PRIMARY KEY,
    open INTEGER NOT NULL,
    parked INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    resolved INTEGER NOT NULL,
    tokens INTEGER NOT NULL
) STRICT;
INSERT INTO counters VALUES (0, 0, 0, 0, 0, 0);

CREATE TRIGGER objects_added AFTER INSERT ON objects BEGIN
    UPDATE counters SET
        open = open + (new.standing = 0), parked = parked + (new.standing = 1), dead = dead + (new.standing = 2);
END;
CREATE TRIGGER objects_moved AFTER UPDATE OF standing ON objects WHEN new.standing <> old.standing BEGIN
    UPDATE counters SET
        open = open + (new.standing = 0) - (old.standing = 0),
        parked = parked + (new.standing = 1) - (old.standing = 1),
        dead = dead + (new.standing = 2) - (old.standing = 2);
END;
CREATE TRIGGER objects_removed AFTER DELETE ON objects BEGIN
    UPDATE counters SET
        open = open - (old.standing = 0), parked = parked - (old.standing = 1), dead = dead - (old.standing = 2);
END;
