//! What may be left to a human: what docs/journal.md says that no rule decides, where the records have what it takes.

use serde_json::Value;

use super::history::History;

/// Why an object may be parked; `None` = it should have been decided.
pub fn excuse(case: &Case, history: &History) -> Option<&'static str> {
    let of = |what: &str| case.reason.contains(what);
    if of("a gateway died in the middle") && case.has(|record| record["replies"] == serde_json::json!({})) {
        return Some("a gateway died in the middle of a write");
    }
    let is_of_tags = |record: &Value| record["what"]["attribute"] == "tagging";
    if (of("?tagging") && case.has(is_of_tags)) || of("tags") {
        return Some("nobody knows who has the right tags");
    }
    // Copies, uploads in parts, and what was cut off: nobody knows how long they are.
    if case.has(|record| record["what"] == "put" && record["length"].is_null()) {
        return Some("a copy, or an upload in parts, may be what a backend holds");
    }
    let since = case.records.iter().filter_map(|record| record["begun"].as_i64()).min().unwrap_or(0);
    let mut places = history.writes().iter().filter(|write| write.clock + 1000 >= since);
    let first = places.next().map(|write| write.through.place);
    places
        .any(|write| Some(write.through.place) != first)
        .then_some("it was written through two gateways at once")
}

/// An object of the journal that is parked or dead.
#[derive(Debug)]
pub struct Case {
    pub path: String,
    pub reason: String,
    pub records: Vec<Value>,
}

impl Case {
    /// From a line of `akubra journal list --json`.
    pub fn of(line: &str) -> Case {
        let mut case: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| case[name].as_str().unwrap().to_owned();
        let (path, reason) = (text("path"), text("reason"));
        Case { path, reason, records: case["records"].as_array_mut().map(std::mem::take).unwrap_or_default() }
    }

    fn has(&self, is: impl Fn(&Value) -> bool) -> bool {
        self.records.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rule_decides_has_no_excuse() {
        let replies = r#""replies":{"http://a:1":"unknown"}"#;
        let told = |reason: &str, record: &str| {
            let line = format!(r#"{{"path":"/b/k","reason":"{reason}","records":[{{"begun":1,{record}}}]}}"#);
            excuse(&Case::of(&line), &History::default()).is_some()
        };
        let put = |length: &str| format!(r#""what":"put","length":{length},{replies}"#);
        let tagging = format!(r#""what":{{"attribute":"tagging"}},"length":9,{replies}"#);
        let orphan = r#""what":"put","length":7,"replies":{}"#;
        for (reason, record, excused) in [
            ("nothing tells which is newer", put("7"), false),
            ("nothing tells which is newer", put("null"), true),
            ("a gateway died in the middle of a write, over which", put("7"), false),
            ("a gateway died in the middle of a write, over which", orphan.into(), true),
            ("nothing tells on which backend ?tagging is newer", put("7"), false),
            ("nothing tells on which backend ?tagging is newer", tagging, true),
        ] {
            assert_eq!(told(reason, &record), excused, "{reason}: {record}");
        }
    }
}
