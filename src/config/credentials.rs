//! `Clusters.NAME.Credentials`: what the program's own requests to backends are signed with.
//!
//! They stand in the file, best as `${NAME}`, or in a file of their own, which is read with the configuration and so
//! by every reload. That file must not be one that others may read, or change. Nothing that is in it is in a message:
//! a path may lead to any file.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use super::{
    BackendUrl, ConfigErrors,
    errors::{Report, printable},
    reader::{At, MapReader, Text},
    regions::ClusterDraft,
    secret::Secret,
    tree::{self, Value},
};

const REGION: &str = "us-east-1";
/// Far more than keys and a token take.
const MAX_BYTES: u64 = 64 << 10;
const KEYS: &str = "AccessKey, SecretKey and perhaps SessionToken";

/// Keys of an account at a backend.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: Secret,
    pub session_token: Option<Secret>,
    /// Of the signature.
    pub region: String,
}

/// The access key may come from the environment, too.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.region)
    }
}

/// What an entry says, and of which backend.
pub struct CredentialsDraft {
    /// `None` = of all that have none of their own.
    backend: Option<(BackendUrl, Text)>,
    path: String,
    line: usize,
    /// `None` = not known, or wrong.
    credentials: Option<Arc<Credentials>>,
}

/// One mapping or a list of them. `look` = files may be read.
pub fn read(cluster: &mut MapReader, look: bool) -> Vec<CredentialsDraft> {
    let Some(at) = cluster.get("Credentials") else { return Vec::new() };
    let entries = match &at.node.value {
        Value::List(_) => at.items().unwrap_or_default(),
        _ => vec![at],
    };
    entries.into_iter().filter_map(|at| read_entry(at, look)).collect()
}

fn read_entry(at: At, look: bool) -> Option<CredentialsDraft> {
    let mut map = at.map()?;
    let backend_is_known = !map.is_unknown("Backend");
    let named = map.get("Backend");
    let backend = named.as_ref().and_then(|at| {
        let text = at.text()?;
        match BackendUrl::parse(&text.value) {
            Ok(backend) => Some((backend, text)),
            Err(error) => at.error(error.to_string()),
        }
    });
    let region = match map.get("Region") {
        Some(at) => word(&at, "a region such as us-east-1"),
        None => Some(REGION.to_owned()),
    };
    let keys = match map.get("File") {
        Some(file) => read_file(&file, &mut map, look),
        None if map.is_unknown("File") => {
            beside(&mut map);
            None
        }
        None => read_keys(&mut map),
    };
    map.finish();
    if !backend_is_known || named.is_some() != backend.is_some() {
        return None;
    }
    let credentials = keys.zip(region).map(|(keys, region)| {
        let Keys { access_key, secret_key, session_token } = keys;
        Arc::new(Credentials { access_key, secret_key, session_token, region })
    });
    Some(CredentialsDraft { backend, path: at.path, line: at.node.line, credentials })
}

struct Keys {
    access_key: String,
    secret_key: Secret,
    session_token: Option<Secret>,
}

fn read_keys(map: &mut MapReader) -> Option<Keys> {
    let access_key = map.require(
        "AccessKey",
        "write it, best as ${NAME} from the environment, or File: with the path of a file",
    );
    let secret_key = map.require("SecretKey", "write it, best as ${NAME} from the environment");
    let session_token = map.get("SessionToken");
    let access_key = access_key.and_then(|at| word(&at, "an access key"));
    let secret_key = secret_key.and_then(|at| word(&at, "a secret key"));
    let token_is_known = !map.is_unknown("SessionToken");
    let token = session_token.as_ref().and_then(|at| word(at, "a session token"));
    let complete = token_is_known && session_token.is_some() == token.is_some();
    complete.then_some(Keys {
        access_key: access_key?,
        secret_key: Secret::new(secret_key?),
        session_token: token.map(Secret::new),
    })
}

/// A text that can stand in a signature's header.
fn word(at: &At, what: &str) -> Option<String> {
    let value = at.text()?.value;
    if is_word(&value) {
        return Some(value);
    }
    // What it is instead stays unsaid.
    at.error(format!("not usable as {what}; write ASCII characters without blanks and commas"))
}

fn is_word(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// A key that belongs into the file, and stands here.
fn beside<'a>(map: &mut MapReader<'a>) -> Option<At<'a>> {
    let keys = ["AccessKey", "SecretKey", "SessionToken"].map(|key| map.get(key));
    keys.into_iter().flatten().next()
}

fn read_file(at: &At, map: &mut MapReader, look: bool) -> Option<Keys> {
    if let Some(beside) = beside(map) {
        return beside.error("stands beside File; write one of them");
    }
    let Text { value, shown, .. } = at.text()?;
    if !value.starts_with('/') {
        return at
            .error(format!("{shown} is not an absolute path; write one such as /etc/akubra/credentials"));
    }
    if !look {
        at.warning("the file system is not looked at here: the file is not checked");
        return None;
    }
    match open(Path::new(&value)).and_then(|text| keys_of(&text)) {
        Ok(keys) => Some(keys),
        Err(error) => at.error(format!("{shown} {error}")),
    }
}

/// The text of a file that only its owner may change, who is root or the reader, and at most a group may read. What belongs
/// to the service's user is not for root: root's commands would go by what that user can change.
fn open(path: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    // A pipe is not waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    check(&file)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("is larger than {} KiB; write {KEYS}", MAX_BYTES >> 10));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".into())
}

/// Asked of the open file: a path may lead to another one meanwhile.
fn check(file: &File) -> Result<(), String> {
    let found = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if !found.is_file() {
        return Err("is no file".into());
    }
    let reader = rustix::process::geteuid().as_raw();
    usable(found.mode() & 0o7777, found.uid(), reader)
}

fn usable(mode: u32, owner: u32, reader: u32) -> Result<(), String> {
    if mode & !0o640 != 0 {
        return Err(format!("has the mode {mode:04o}, so that others may use it; make that 0600, or 0640"));
    }
    if ![0, reader].contains(&owner) {
        return Err(format!(
            "belongs to user {owner}, and user {reader} reads it; make it root's, with the service's group and the mode 0640"
        ));
    }
    Ok(())
}

fn keys_of(text: &str) -> Result<Keys, String> {
    let report = Report::default();
    let root = tree::parse(text, &report);
    let keys = root.as_ref().and_then(|root| {
        let at = At { node: root, path: String::new(), report: &report };
        let mut map = at.map()?;
        let keys = read_keys(&mut map);
        map.finish();
        keys
    });
    // What the messages say may be what is in the file.
    let wrong = report.finish().err().unwrap_or_else(|| ConfigErrors { file: None, errors: Vec::new() });
    keys.filter(|_| wrong.errors.is_empty()).ok_or_else(|| {
        let line = wrong.errors.iter().map(|error| error.line).find(|line| *line > 0).unwrap_or(1);
        format!("is wrong in line {line}; write a line each of {KEYS}, as \"Key: value\"")
    })
}

/// The credentials of each of a cluster's backends, in their order.
pub fn of_backends(draft: &ClusterDraft) -> Vec<Option<Arc<Credentials>>> {
    let mut entries = HashMap::new();
    for entry in &draft.credentials {
        let endpoint = entry.backend.as_ref().map(|(backend, _)| backend.endpoint());
        entries.entry(endpoint).or_insert(&entry.credentials);
    }
    let for_all = entries.get(&None).copied();
    let of = |backend: &BackendUrl| entries.get(&Some(backend.endpoint())).copied().or(for_all)?.clone();
    draft.backends.iter().map(|(backend, _)| of(backend)).collect()
}

/// Entries that name a backend of another cluster, or one again; backends that are known by different keys.
pub fn validate(clusters: &[ClusterDraft], report: &Report) {
    let mut known: HashMap<(String, u16), (Arc<Credentials>, &str)> = HashMap::new();
    for cluster in clusters {
        validate_entries(cluster, report);
        for ((backend, text), credentials) in cluster.backends.iter().zip(of_backends(cluster)) {
            let Some(credentials) = credentials else { continue };
            match known.entry(backend.endpoint()) {
                Entry::Occupied(other) if other.get().0 != credentials => {
                    let message = format!(
                        "{} has other Credentials in cluster {}; write the same in both",
                        text.shown,
                        printable(other.get().1)
                    );
                    report.error(&text.path, text.line, message);
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(place) => drop(place.insert((credentials, cluster.name))),
            }
        }
    }
}

fn validate_entries(cluster: &ClusterDraft, report: &Report) {
    let own: HashSet<_> = cluster.backends.iter().map(|(backend, _)| backend.endpoint()).collect();
    let mut seen = HashSet::new();
    for entry in &cluster.credentials {
        let endpoint = entry.backend.as_ref().map(|(backend, _)| backend.endpoint());
        let Some((_, text)) = &entry.backend else {
            if !seen.insert(None) {
                let message = "the second one without Backend; write whose it is, or keep one";
                report.error(&entry.path, entry.line, message);
            }
            continue;
        };
        if cluster.complete && endpoint.as_ref().is_some_and(|endpoint| !own.contains(endpoint)) {
            let message = format!("{} is no backend of this cluster; write one of its Backends", text.shown);
            report.error(&text.path, text.line, message);
        } else if !seen.insert(endpoint) {
            report.error(&text.path, text.line, format!("{} has Credentials already; keep one", text.shown));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::usable;

    #[test]
    fn a_file_of_root_is_for_the_service_and_for_root() {
        const SERVICE: u32 = 990;
        for (mode, owner, reader) in [(0o640, 0, SERVICE), (0o640, 0, 0), (0o600, SERVICE, SERVICE)] {
            assert_eq!(usable(mode, owner, reader), Ok(()));
        }
        let refused = usable(0o600, SERVICE, 0).unwrap_err();
        assert!(refused.starts_with("belongs to user 990, and user 0 reads it; make it root's"), "{refused}");
    }
}
