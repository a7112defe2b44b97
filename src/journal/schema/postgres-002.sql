-- Version 2 of the journal in PostgreSQL: how often a gateway was taken for dead.
ALTER TABLE akubra_journal.gateways ADD COLUMN deaths BIGINT NOT NULL DEFAULT 0;
