//! The file: made, checked and brought to the schema of this version before anything else is done with it.

use std::{
    fs::File,
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{JournalError, checkpoint};

/// What stands in the file's header (`file` shows it): "akbJ".
const APPLICATION: i64 = 0x616b_624a;
/// The first makes version 1, and so on.
const MIGRATIONS: [&str; 4] = [
    include_str!("../schema/sqlite-001.sql"),
    include_str!("../schema/sqlite-002.sql"),
    include_str!("../schema/sqlite-003.sql"),
    include_str!("../schema/sqlite-004.sql"),
];
/// How long the locks of other processes are waited for.
pub const BUSY: Duration = Duration::from_secs(5);
/// Between two looks whether a lock is free.
const NAP: Duration = Duration::from_millis(2);
/// The cache of a connection, in KiB (negative, as the pragma has it); and more statements than there are. The kernel has
/// the file's pages, too, and SQLite looks through all of its own after a transaction in which an index page was split: so
/// a small one is faster.
const CACHE: i64 = -4 * 1024;
const STATEMENTS: usize = 64;
/// What the write-ahead log may keep of the disk once it was larger.
const LOG: i64 = checkpoint::MOST as i64 * 4096;

/// Makes an empty file with mode 0600, which those beside it get from SQLite, if there is none.
///
/// One that is there is not even opened: whoever closes a file gives up all locks that the process has on it (POSIX), also
/// those of its connections. Without these another process that ends takes the write-ahead log away.
pub fn make(path: &Path) -> Result<(), JournalError> {
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(JournalError::Unavailable(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// A connection to the journal in this file.
pub fn open(path: &Path) -> Result<Connection, JournalError> {
    connect(path).map_err(|error| match error {
        Refusal::Sqlite(error) => match told(&error) {
            JournalError::Unavailable(why) => JournalError::Unavailable(format!("{}: {why}", path.display())),
            JournalError::Unusable(why) => JournalError::Unusable(format!("{}: {why}", path.display())),
            other => other,
        },
        Refusal::Other(why) => JournalError::Unusable(format!("{}: {why}", path.display())),
    })
}

enum Refusal {
    Sqlite(rusqlite::Error),
    Other(String),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Refusal {
        Refusal::Sqlite(error)
    }
}

fn connect(path: &Path) -> Result<Connection, Refusal> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(waiting()))?;
    // Nothing is changed in a file that is something else.
    identify_at_once(&connection)?;
    let mode = write_ahead(&connection)?;
    if mode != "wal" {
        return Err(Refusal::Other(format!(
            "its journal mode stays {mode}: the file system has no shared memory; put the file on a local disk"
        )));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    connection.pragma_update(None, "journal_size_limit", LOG)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    migrate(&mut connection)?;
    Ok(connection)
}

/// Waits for a lock, up to [`BUSY`].
///
/// Nobody is told when a lock is free, and it has no line: who looks just then has it. SQLite's own waiting looks ever more
/// rarely, every 100 ms in the end. Beside processes that commit all the time, and leave the lock free for microseconds
/// between two commits, one that had waited for long had the least chance, and some waited in vain. Who looks as often as
/// the others does not fall behind.
fn waiting() -> impl FnMut(i32) -> bool + Send + 'static {
    let mut since = Instant::now();
    move |looks| {
        if looks == 0 {
            since = Instant::now();
        }
        let is_early = since.elapsed() < BUSY;
        if is_early {
            sleep(NAP);
        }
        is_early
    }
}

/// In one look: another process may be making the tables.
fn identify_at_once(connection: &Connection) -> Result<usize, Refusal> {
    identify(&*connection.unchecked_transaction()?)
}

/// The schema's version in a journal; 0 in an empty file. Asks several times.
fn identify(connection: &Connection) -> Result<usize, Refusal> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if (application, version, tables) == (0, 0, 0) {
        return Ok(0);
    }
    if application != APPLICATION {
        return Err(Refusal::Other("it is a database of something else".to_owned()));
    }
    match usize::try_from(version) {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        _ => Err(Refusal::Other(format!(
            "it has version {version} of the schema, of a later akubra; this one knows {}",
            MIGRATIONS.len()
        ))),
    }
}

/// Several processes that open a new file at once may get in one another's way here, without the usual waiting.
fn write_ahead(connection: &Connection) -> Result<String, rusqlite::Error> {
    let deadline = Instant::now() + BUSY;
    loop {
        let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0));
        match mode {
            Err(error) if is_busy(&error) && Instant::now() < deadline => sleep(Duration::from_millis(5)),
            mode => return mode,
        }
    }
}

fn migrate(connection: &mut Connection) -> Result<(), Refusal> {
    if identify_at_once(connection)? == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it meanwhile.
    let version = identify(&transaction)?;
    for migration in MIGRATIONS.iter().skip(version) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    transaction.commit()?;
    Ok(())
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// What an error of SQLite means to whoever asked. What the library says never holds values.
pub fn told(error: &rusqlite::Error) -> JournalError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => JournalError::Unusable("it is no database".to_owned()),
        Some(ErrorCode::DatabaseCorrupt) => JournalError::Unusable(format!("it is damaged: {error}")),
        Some(_) => JournalError::Unavailable(error.to_string()),
        None => JournalError::Unusable(format!("what is in it cannot be read: {error}")),
    }
}
