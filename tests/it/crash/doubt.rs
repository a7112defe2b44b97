//! What may be left to a human: what docs/journal.md says that no rule decides, where the records have what it takes.

use serde_json::Value;

/// `Sync.ClockBound` of these runs, in milliseconds.
const CLOCK_BOUND: i64 = 1000;

/// Why an object may be parked; `None` = it should have been decided.
pub fn excuse(case: &Case) -> Option<&'static str> {
    let of = |what: &str| case.reason.contains(what);
    let is_orphan = |record: &Value| record["replies"] == serde_json::json!({});
    if of("a gateway died in the middle") && case.has(is_orphan) {
        return Some("a gateway died in the middle of a write");
    }
    // What each backend holds may be of one of them, or of what was there before all.
    let mut writes = case.records.iter().filter(|record| record["what"]["attribute"].is_null()).peekable();
    if of("nothing tells which is newer") && writes.peek().is_some() && writes.all(is_orphan) {
        return Some("of nothing that is recorded anybody knows whether it arrived");
    }
    let is_of_tags = |record: &Value| record["what"]["attribute"] == "tagging";
    if (of("?tagging") && case.has(is_of_tags)) || of("tags") {
        return Some("nobody knows who has the right tags");
    }
    // Copies, uploads in parts, and what was cut off: nobody knows how long they are.
    if case.has(|record| record["what"] == "put" && record["length"].is_null()) {
        return Some("a copy, or an upload in parts, may be what a backend holds");
    }
    let is_at_once = |one: &Value| case.has(|other| are_unordered(one, other));
    case.has(is_at_once).then_some("it was written through two gateways at once")
}

/// Whether nothing tells which of two writes through different gateways came first. That of a gateway that died is over
/// when somebody found that out: with a takeover that may be long after its successor has begun.
fn are_unordered(one: &Value, other: &Value) -> bool {
    let number = |of: &Value, name: &str| of[name].as_i64();
    let is_told =
        |a, b| number(a, "ended_turn").zip(number(b, "turn")).is_some_and(|(end, begin)| end < begin);
    let is_over = |a, b| {
        number(a, "ended").zip(number(b, "begun")).is_some_and(|(end, begin)| end + CLOCK_BOUND < begin)
    };
    let is_before = |a, b| is_told(a, b) || is_over(a, b);
    one["gateway"] != other["gateway"] && !is_before(one, other) && !is_before(other, one)
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
        let replies = r#""replies":{"http://a:1":["unknown"]}"#;
        let told = |reason: &str, record: &str| {
            let line = format!(r#"{{"path":"/b/k","reason":"{reason}","records":[{{"begun":1,{record}}}]}}"#);
            excuse(&Case::of(&line)).is_some()
        };
        let put = |length: &str| format!(r#""what":"put","length":{length},{replies}"#);
        let tagging = format!(r#""what":{{"attribute":"tagging"}},"length":9,{replies}"#);
        let orphan = r#""what":"put","length":7,"replies":{}"#;
        for (reason, record, excused) in [
            ("nothing tells which is newer", put("7"), false),
            ("nothing tells which is newer", put("null"), true),
            ("nothing tells which is newer", orphan.into(), true),
            ("a gateway died in the middle of a write, over which", put("7"), false),
            ("a gateway died in the middle of a write, over which", orphan.into(), true),
            ("nothing tells on which backend ?tagging is newer", put("7"), false),
            ("nothing tells on which backend ?tagging is newer", tagging, true),
        ] {
            assert_eq!(told(reason, &record), excused, "{reason}: {record}");
        }
    }

    #[test]
    fn writes_through_two_gateways_have_no_order_while_both_are_under_way() {
        let write = |gateway: i64, turns: [i64; 2], times: [i64; 2]| {
            let ([turn, ended_turn], [begun, ended]) = (turns, times);
            serde_json::json!({
                "gateway": gateway, "turn": turn, "ended_turn": ended_turn, "begun": begun, "ended": ended
            })
        };
        let one = write(1, [1, 4], [0, 9000]);
        for (other, unordered) in [
            (write(1, [2, 3], [100, 200]), false),
            (write(2, [2, 3], [100, 200]), true),
            (write(2, [5, 6], [9001, 9002]), false),
            (write(2, [3, 6], [9001, 9002]), true),
            (write(2, [3, 6], [10_001, 10_002]), false),
        ] {
            assert_eq!([are_unordered(&one, &other), are_unordered(&other, &one)], [unordered; 2], "{other}");
        }
    }
}
