//! Who may import whom, as `ARCHITECTURE.md` says, and which files know of no runtime.
//!
//! A module that is not in the table may not exist: a new one begins with the decision about its place.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each top-level module and what it may name of the others. `cli` sees everything.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("s3", &["config"]),
    ("config", &["s3"]),
    ("telemetry", &["config"]),
    ("technical", &["config", "journal", "synclog", "telemetry"]),
    ("topology", &["config", "s3"]),
    ("upstream", &["config", "s3", "telemetry", "topology"]),
    ("synclog", &["config", "telemetry"]),
    ("journal", &["config", "telemetry"]),
    ("sync", &["config", "journal", "s3", "telemetry", "topology", "upstream"]),
    ("mirror", &["config", "s3", "telemetry", "topology", "upstream"]),
    ("gateway", &["config", "journal", "mirror", "s3", "synclog", "telemetry", "topology", "upstream"]),
    (
        "cli",
        &[
            "config",
            "gateway",
            "journal",
            "mirror",
            "s3",
            "sync",
            "synclog",
            "technical",
            "telemetry",
            "topology",
            "upstream",
        ],
    ),
];

/// Single files that may name one more, and no other file of their module may.
const EXCEPTIONS: &[(&str, &str)] = &[
    // `Logs` opens, starts and flushes all four logs at once, the synclog among them.
    ("telemetry/mod.rs", "synclog"),
];

/// Modules that name nothing of `telemetry` but its metrics: they know of no log.
const METRICS_ONLY: &[&str] = &["mirror", "upstream"];

/// Files that are tested with tables and run without tokio and Pingora.
const PURE: &[&str] = &[
    "topology/ring.rs",
    "mirror/verdict.rs",
    "config/units.rs",
    "config/insert.rs",
    "config/insert/problem.rs",
    "synclog/record.rs",
    "journal/batch.rs",
    "journal/ends.rs",
    "journal/live.rs",
    "journal/record.rs",
    "journal/remembered.rs",
    "journal/rules.rs",
    "sync/decide/mod.rs",
    "sync/decide/attributes.rs",
    "sync/decide/classes.rs",
    "sync/decide/content.rs",
    "sync/decide/order.rs",
    "sync/decide/origins.rs",
    "sync/decide/winner.rs",
    "sync/backoff.rs",
    "sync/circuit.rs",
    "sync/copies.rs",
    "sync/misplaced/step.rs",
    "s3/request.rs",
    "s3/error.rs",
    "upstream/wire/early.rs",
    "upstream/health/detector.rs",
    "upstream/health/escalation.rs",
    "technical/status/quantile.rs",
    "technical/status/report.rs",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The text without comments and without items that only tests have: those may speak of anything.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    while let Some(line) = lines.next() {
        let Some(indent) = line.strip_suffix("#[cfg(test)]") else {
            code.extend([line, "\n"]);
            continue;
        };
        // The item's first line, behind further attributes; a block ends with a brace below its beginning.
        let first = lines.find(|line| !line.trim_start().starts_with("#[")).unwrap_or_default();
        if first.ends_with('{') {
            lines.find(|line| line.strip_prefix(indent) == Some("}"));
        }
    }
    code
}

/// The top-level modules that a file names by `crate::`, also as `crate::{a, b::c}`.
fn imports(code: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let mut found = BTreeSet::new();
    for (_, rest) in code.match_indices("crate::").map(|(at, text)| (at, &code[at + text.len()..])) {
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    found.insert(name(&group[start..at]));
                    start = at + 1;
                }
                _ => {}
            }
            if c == '}' && depth == 0 && start == at + 1 {
                break;
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn modules_import_only_what_the_architecture_allows() {
    let mut files = Vec::new();
    files_below(&source(), &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(source()).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap();
        if matches!(module, "main.rs" | "lib.rs") {
            continue;
        }
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{} belongs to no module of the table", relative.display()));
            continue;
        };
        let code = code(&fs::read_to_string(&file).unwrap());
        let mut rest = code.split("telemetry").skip(1);
        if METRICS_ONLY.contains(&module) && !rest.all(|rest| rest.starts_with("::metrics")) {
            wrong.push(format!("{} names more of telemetry than metrics", relative.display()));
        }
        for import in imports(&code) {
            let excepted =
                EXCEPTIONS.iter().any(|(file, name)| relative == Path::new(file) && import == *name);
            if import != module && !allowed.contains(&import.as_str()) && !excepted {
                wrong.push(format!("{} imports {import}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_files_know_neither_tokio_nor_pingora() {
    for file in PURE {
        let path = source().join(file);
        // A file that is gone needs no check; its table entry says what to expect of its successor.
        if !path.exists() {
            continue;
        }
        let code = code(&fs::read_to_string(&path).unwrap());
        for runtime in ["tokio", "pingora"] {
            assert!(!code.contains(runtime), "{file} speaks of {runtime}");
        }
    }
}

#[test]
fn imports_are_found_in_groups_too() {
    let code = "use crate::{a, b::{c, d}, e::f};\nuse crate::g::h;\nlet x = crate::i::j();";
    assert_eq!(imports(code).into_iter().collect::<Vec<_>>(), ["a", "b", "e", "g", "i"]);
}

#[test]
fn only_what_tests_alone_have_is_passed_over() {
    let text = "#[cfg(test)]\nmod fixture;\nuse crate::a;\nenum E {\n    #[cfg(test)]\n    Of(crate::x::X),\n    \
        Other(crate::b::B),\n}\n// crate::y\n#[cfg(test)]\n#[path = \"t.rs\"]\nmod tests {\n    use crate::z;\n    \
        fn f() {\n    }\n}\nuse crate::c;\n";
    assert_eq!(imports(&code(text)).into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
}
