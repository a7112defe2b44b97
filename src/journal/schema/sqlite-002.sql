-- Version 2 of the journal in SQLite: how often a gateway was taken for dead, and what gateways know of an object.
ALTER TABLE gateways ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
ALTER TABLE objects ADD COLUMN known BLOB;
