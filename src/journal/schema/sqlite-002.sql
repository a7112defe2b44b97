-- Version 2 of the journal in SQLite: how often a gateway was taken for dead.
ALTER TABLE gateways ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
