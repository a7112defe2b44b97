-- Version 4 of the journal in SQLite: objects are found by a table that stays behind, src/journal/sqlite/index.rs. Each
-- object has an id that none had before it.
CREATE TABLE found (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL,
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
    appended INTEGER NOT NULL,
    known BLOB
) STRICT;
INSERT INTO found SELECT id, digest, cluster, bucket, key, standing, diverged, due, calm, worker, token, held,
    unseen_since, unseen_until, replaced, attempts, since, reason, records, appended, known FROM objects;
-- With its indexes and triggers.
DROP TABLE objects;
ALTER TABLE found RENAME TO objects;

CREATE INDEX objects_due ON objects (diverged, due) WHERE standing = 0;
CREATE INDEX objects_since ON objects (since) WHERE standing = 0;
CREATE INDEX objects_aside ON objects (id) WHERE standing <> 0;
CREATE INDEX objects_held ON objects (held) WHERE token IS NOT NULL;

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
    INSERT INTO removed (object, prefix) VALUES (old.id, substr(old.digest, 1, 6));
END;

CREATE TABLE digests (
    prefix BLOB NOT NULL,
    object INTEGER NOT NULL,
    PRIMARY KEY (prefix, object)
) STRICT, WITHOUT ROWID;
INSERT INTO digests SELECT substr(digest, 1, 6), id FROM objects ORDER BY 1, 2;

-- The newest stays, as in `events`.
CREATE TABLE removed (
    id INTEGER PRIMARY KEY,
    object INTEGER NOT NULL,
    prefix BLOB NOT NULL
) STRICT;

ALTER TABLE counters ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN swept INTEGER NOT NULL DEFAULT 0;
UPDATE counters SET indexed = (SELECT coalesce(max(id), 0) FROM objects);
