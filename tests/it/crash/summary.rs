//! What the runs came to, printed, and kept in the file that `make crash-test` names.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// Names the file, relative to the repository.
const KEPT_IN: &str = "AKUBRA_CRASHES";

static LINES: Mutex<BTreeMap<&str, String>> = Mutex::new(BTreeMap::new());

/// What is said of a run that does not come to its end.
pub fn begin(run: &'static str, title: &str) {
    keep(run, format!("FAILED {title}: did not come to its end"));
}

pub fn say(run: &'static str, text: String) {
    println!("{text}");
    keep(run, text);
}

/// In place of what was said of the run before.
fn keep(run: &'static str, text: String) {
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.insert(run, text);
    let Some(file) = std::env::var_os(KEPT_IN) else { return };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let all: Vec<&str> = lines.values().map(String::as_str).collect();
    let text = format!(
        "# Crashes\n\nWritten by `make crash-test` on {cores} cores, Linux {}. What it does, and what the words mean, is \
         in [docs/journal.md](../docs/journal.md#crashes).\n\n```text\n{}\n```\n",
        kernel.trim(),
        all.join("\n\n")
    );
    std::fs::write(file, text).unwrap();
}

/// By the folder that the program is in.
pub fn profile() -> &'static str {
    let folder = Path::new(env!("CARGO_BIN_EXE_akubra")).parent().and_then(Path::file_name);
    folder.and_then(|name| name.to_str()).unwrap_or("unknown")
}
