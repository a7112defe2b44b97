//! `Logging.Synclog.database`: a PostgreSQL that takes the synclog's records, and the spool in which they wait for it.

use super::{
    errors::quoted,
    insert::{self, Insert},
    reader::{At, MapReader},
    secret::Secret,
};

const PORT: u16 = 5432;
const GIB: u64 = 1 << 30;
/// A spool holds a few segments and some large records at least.
const SMALLEST_SPOOL: (u64, &str) = (1 << 20, "1MiB");

/// Where a PostgreSQL is, and as whom.
#[derive(Debug, Clone)]
pub struct Login {
    pub user: String,
    pub password: Option<Secret>,
    pub dbname: String,
    /// A name, an address, or the directory of a unix socket.
    pub host: String,
    pub port: u16,
}

/// A database as the synclog's destination.
#[derive(Debug, Clone)]
pub struct Database {
    pub login: Login,
    pub insert: Insert,
    /// Most bytes of records that wait for it.
    pub spool: u64,
}

pub fn read(log: &mut MapReader) -> Option<Database> {
    let mut map = log.get("database")?.map()?;
    let login = login(&mut map);
    let insert = match map.get("inserttmpl") {
        Some(at) => template(&at),
        None => insert::translate(insert::DEFAULT).ok(),
    };
    let spool = map.read("spool", GIB, spool);
    map.finish();
    Some(Database { login: login?, insert: insert?, spool })
}

/// The keys that say where it is. All of them are read, whatever is wrong with one.
pub fn login(map: &mut MapReader) -> Option<Login> {
    let user = map.require("user", "write the role that inserts").and_then(|at| name(&at));
    // Whatever is wrong with it, its text is in no message.
    let password = map.get("password").and_then(|at| at.nonempty()).map(Secret::new);
    let dbname = map.require("dbname", "write the database's name").and_then(|at| name(&at));
    let host = map.read("host", "localhost".to_owned(), name);
    let port = map.read("port", PORT, port);
    map.get("sslmode").and_then(|at| match at.text()? {
        text if text.value == "disable" => Some(()),
        text => at.error(format!(
            "{} is not supported: connections are not encrypted; write disable, and keep the way to the database private",
            text.shown
        )),
    });
    Some(Login { user: user?, password, dbname: dbname?, host, port })
}

fn name(at: &At) -> Option<String> {
    let text = at.text()?;
    if text.value.is_empty() || text.value.contains('\0') {
        return at.error("empty, or with a NUL character; write a name");
    }
    Some(text.value)
}

fn port(at: &At) -> Option<u16> {
    match at.count()?.try_into() {
        Ok(port) if port > 0 => Some(port),
        _ => at.error(format!("no port; write a number from 1 to 65535, or leave the key out for {PORT}")),
    }
}

fn template(at: &At) -> Option<Insert> {
    let text = at.text()?;
    match insert::translate(&text.value) {
        Ok(insert) => Some(insert),
        Err(error) => at.error(error.message(text.shown == quoted(&text.value))),
    }
}

fn spool(at: &At) -> Option<u64> {
    let size = at.size()?;
    if size < SMALLEST_SPOOL.0 {
        let shown = at.text()?.shown;
        return at.error(format!("{shown} is less than {}; write a size such as 1GiB", SMALLEST_SPOOL.1));
    }
    Some(size)
}
