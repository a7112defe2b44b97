-- Version 2 of the journal in PostgreSQL: how often a gateway was taken for dead, and what gateways know of an object.
ALTER TABLE akubra_journal.gateways ADD COLUMN deaths BIGINT NOT NULL DEFAULT 0;
ALTER TABLE akubra_journal.objects ADD COLUMN known BYTEA;
