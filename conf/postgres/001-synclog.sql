-- The table for the synclog's records that the default statement (Logging.Synclog.database) inserts into.
-- Apply it once, as the owner of the database:
--
--     psql -d akubra -v ON_ERROR_STOP=1 -f 001-synclog.sql
--
-- and let the gateway's role insert, which is all that it does:
--
--     GRANT INSERT, SELECT (id) ON akubra_synclog TO akubra;
--
-- docs/synclog.md says what the columns hold.

BEGIN;

CREATE TABLE IF NOT EXISTS akubra_synclog (
    -- The order in which records came; numbers can be left out.
    seq            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- A record that is delivered a second time has the same id, and is left out.
    id             uuid NOT NULL UNIQUE,
    ts             timestamptz NOT NULL,
    reqid          text NOT NULL,
    method         text NOT NULL,
    region         text NOT NULL,
    cluster        text NOT NULL,
    failedhost     text NOT NULL,
    successhost    text NOT NULL,
    path           text NOT NULL,
    bucket         text NOT NULL,
    key            text NOT NULL,
    version        text NOT NULL,
    subresource    text NOT NULL,
    status         integer NOT NULL,
    outcome        text NOT NULL,
    error          text NOT NULL,
    etag           text NOT NULL,
    content_length bigint NOT NULL,
    useragent      text NOT NULL
);

COMMIT;
