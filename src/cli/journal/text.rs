//! The journal as people and programs read it.

use std::{collections::BTreeMap, io::Write};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::super::names::{self, name, printable};
use crate::{
    journal::{Case, Counts, Record, Said, Standing, What},
    sync::{Held, State},
    telemetry::line::push_json,
};

/// A point in time, given in milliseconds since 1970.
pub fn time(millis: i64) -> String {
    let known = DateTime::<Utc>::from_timestamp_millis(millis);
    known.map_or_else(|| millis.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn standing(case: &Case) -> &'static str {
    match case.standing {
        Standing::Open => "open",
        Standing::Parked => "parked",
        Standing::Dead => "dead",
    }
}

fn what(record: &Record) -> String {
    match &record.intent.what {
        What::Put => "put".to_owned(),
        What::Delete => "delete".to_owned(),
        What::Attribute(name) => format!("write of ?{}", printable(name)),
        What::Version(request) => format!("{} of a version", printable(request)),
        What::Bucket(request) if record.intent.object.bucket.is_empty() => {
            format!("{} of the service", printable(request))
        }
        What::Bucket(request) => format!("{} of the bucket", printable(request)),
        What::Seen => "a read found that a backend lacks it".to_owned(),
        What::Misplaced(cluster) => format!("a read found it on cluster {}", printable(cluster)),
    }
}

/// A line per object, in columns.
pub fn table(cases: &[Case], out: &mut impl Write) -> anyhow::Result<()> {
    let rows: Vec<[String; 5]> = cases
        .iter()
        .map(|case| {
            let due = if case.standing == Standing::Open { time(case.due) } else { "-".to_owned() };
            [
                standing(case).to_owned(),
                format!("since {}", time(case.since)),
                format!("due {due}"),
                if case.attempts == 1 { "1 try".to_owned() } else { format!("{} tries", case.attempts) },
                name(&case.object),
            ]
        })
        .collect();
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    // One long key must not push all reasons out of sight.
    widths[4] = widths[4].min(60);
    for (row, case) in rows.iter().zip(cases) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = format!("{}  {}", cells.collect::<Vec<_>>().join("  "), printable(&case.reason));
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// An object with its records, and what its backends hold.
pub fn shown(case: &Case, held: &[(String, State)], out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "object     {}", name(&case.object))?;
    writeln!(out, "standing   {}", standing(case))?;
    if !case.reason.is_empty() {
        writeln!(out, "reason     {}", printable(&case.reason))?;
    }
    writeln!(out, "since      {}", time(case.since))?;
    if case.standing == Standing::Open {
        writeln!(out, "due        {}", time(case.due))?;
    }
    writeln!(out, "tries      {}", case.attempts)?;
    writeln!(out, "under way  {} writes", case.under_way)?;
    writeln!(out)?;
    for record in &case.records {
        write_record(record, out)?;
    }
    if case.more > 0 {
        writeln!(out, "and {} more records, which are not read\n", case.more)?;
    }
    if !held.is_empty() {
        writeln!(out, "held now")?;
        let width = held.iter().map(|(backend, _)| backend.len()).max().unwrap_or(0);
        for (backend, state) in held {
            writeln!(out, "    {backend:<width$}  {}", state_text(state))?;
        }
    }
    Ok(())
}

fn write_record(record: &Record, out: &mut impl Write) -> anyhow::Result<()> {
    let intent = &record.intent;
    let commit = record.commit.map_or("not known to be committed".to_owned(), |at| format!("commit {at}"));
    writeln!(out, "{}, by gateway {} ({commit})", what(record), intent.id.gateway)?;
    writeln!(out, "    {} to {}", time(intent.begun), time(record.ended))?;
    writeln!(out, "    region {}, request {}", printable(&intent.region), printable(&intent.req_id))?;
    let width = record.replies.iter().map(|(backend, _)| backend.len()).max().unwrap_or(0);
    for (backend, said) in &record.replies {
        let said = match said {
            Said::Good { etag, version } => {
                let part = |name: &str, value: &Option<String>| {
                    value.as_ref().map_or(String::new(), |value| format!(", {name} {}", printable(value)))
                };
                format!("took it{}{}", part("etag", etag), part("version", version))
            }
            Said::NotApplied => "did not take it".to_owned(),
            Said::Unknown => "nobody knows".to_owned(),
        };
        writeln!(out, "    {:<width$}  {said}", printable(backend))?;
    }
    writeln!(out)?;
    Ok(())
}

fn state_text(state: &State) -> String {
    match state {
        State::Absent => "nothing".to_owned(),
        State::Unknown(why) => format!("not known: {}", printable(why)),
        State::Refused(why) | State::Denied(why) => format!("refused: {}", printable(why)),
        State::Present(held) => {
            let Held { etag, version, modified, length, object_version, .. } = held;
            let mut text = format!("etag {}, {length} bytes, of {}", printable(etag), time(*modified));
            if let Some(version) = version {
                text += &format!(", version id {}", printable(version));
            }
            if let Some(version) = object_version {
                text += &format!(", object version {version}");
            }
            text
        }
    }
}

/// A JSON object per line.
pub fn lines(cases: &[Case], out: &mut impl Write) -> anyhow::Result<()> {
    cases.iter().try_for_each(|case| write_line(&value(case), out))
}

/// Nothing in it is obeyed by a terminal: serde_json alone would leave DEL, C1 and what turns text as they are.
pub fn write_line(value: &Value, out: &mut impl Write) -> anyhow::Result<()> {
    let mut line = Vec::new();
    push_json(value, &mut line)?;
    Ok(out.write_all(&line)?)
}

fn value(case: &Case) -> Value {
    json!({
        "cluster": case.object.cluster,
        "path": names::path(&case.object),
        "standing": standing(case),
        "reason": case.reason,
        "since": time(case.since),
        "due": time(case.due),
        "tries": case.attempts,
        "under_way": case.under_way,
        "records": case.records.iter().map(record_value).collect::<Vec<_>>(),
        "more_records": case.more,
    })
}

pub fn record_value(record: &Record) -> Value {
    let intent = &record.intent;
    // A list: one that was sent the write twice has said two things.
    let mut replies = BTreeMap::<&str, Vec<&Said>>::new();
    for (backend, said) in &record.replies {
        replies.entry(backend).or_default().push(said);
    }
    json!({
        "gateway": intent.id.gateway,
        "number": intent.id.number,
        "what": intent.what,
        "region": intent.region,
        "reqID": intent.req_id,
        "length": intent.length,
        "begun": intent.begun,
        "ended": record.ended,
        "commit": record.commit,
        "strong": intent.strong,
        "turn": intent.turn,
        "ended_turn": record.turn,
        "replies": replies,
    })
}

pub fn shown_line(case: &Case, held: &[(String, State)], out: &mut impl Write) -> anyhow::Result<()> {
    let mut all = value(case);
    let held = held.iter().map(|(backend, state)| {
        let state = match state {
            State::Absent => json!({"state": "absent"}),
            State::Unknown(why) => json!({"state": "unknown", "why": why}),
            State::Refused(why) | State::Denied(why) => json!({"state": "refused", "why": why}),
            State::Present(held) => json!({
                "state": "present",
                "etag": held.etag,
                "version": held.version,
                "modified": time(held.modified),
                "length": held.length,
                "object_version": held.object_version,
                "metadata": held.metadata.iter().map(|(name, value)| (name.clone(), json!(value)))
                    .collect::<serde_json::Map<_, _>>(),
            }),
        };
        (backend.clone(), state)
    });
    all["held"] = Value::Object(held.collect());
    write_line(&all, out)
}

/// What is counted.
pub struct Counted {
    pub counts: Counts,
    /// By backend's URL, the open objects of which it has not taken a write.
    pub behind: BTreeMap<String, u64>,
    /// From so many objects; `None` = from all.
    pub sampled: Option<usize>,
}

pub fn counts(counted: &Counted, out: &mut impl Write) -> anyhow::Result<()> {
    let Counted { counts, behind, sampled } = counted;
    let oldest = counts.oldest.map_or(String::new(), |since| format!(", the oldest since {}", time(since)));
    writeln!(out, "open       {} ({} being repaired{oldest})", counts.open, counts.leased)?;
    writeln!(out, "parked     {}", counts.parked)?;
    writeln!(out, "dead       {}", counts.dead)?;
    writeln!(out, "under way  {} writes", counts.intents)?;
    writeln!(out, "resolved   {}", counts.resolved)?;
    for (backend, count) in behind {
        let backend = printable(backend);
        match sampled {
            Some(seen) => writeln!(out, "behind     {backend} in about {count}, by a sample of {seen}")?,
            None => writeln!(out, "behind     {backend} in {count}")?,
        }
    }
    Ok(())
}

pub fn counts_line(counted: &Counted, out: &mut impl Write) -> anyhow::Result<()> {
    let Counted { counts, behind, sampled } = counted;
    let line = json!({
        "open": counts.open,
        "leased": counts.leased,
        "parked": counts.parked,
        "dead": counts.dead,
        "intents": counts.intents,
        "oldest": counts.oldest.map(time),
        "resolved": counts.resolved,
        "behind": behind,
        "sampled": sampled,
    });
    write_line(&line, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Intent, Object, WriteId};

    fn case() -> Case {
        let object = Object { cluster: "c".into(), bucket: b"b".into(), key: b"k\x1b[2J\n\xff".into() };
        let intent = Intent {
            id: WriteId { gateway: 1, number: 2 },
            object: object.clone(),
            what: What::Put,
            region: "r".into(),
            req_id: "q\u{1b}[2J".into(),
            length: Some(3),
            begun: 0,
            strong: true,
            turn: None,
        };
        let good = Said::Good { etag: Some("e\n".into()), version: None };
        let replies = vec![("http://a:1".into(), good), ("http://longer:1".into(), Said::NotApplied)];
        Case {
            object,
            standing: Standing::Parked,
            records: vec![Record { intent, commit: Some(3), ended: 1_000, turn: None, replies }],
            more: 0,
            under_way: 0,
            unseen: None,
            attempts: 1,
            since: 0,
            due: 0,
            reason: "because\n\u{1b}]0;x".into(),
        }
    }

    fn printed(print: impl Fn(&mut Vec<u8>) -> anyhow::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_that_others_wrote_reaches_a_terminal_as_it_is() {
        let held = [("http://a:1".to_owned(), State::Unknown("no\r\u{7}answer".into()))];
        let table = printed(|out| table(&[case(), case()], out));
        let shown = printed(|out| shown(&case(), &held, out));
        for text in [&table, &shown] {
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
            assert!(text.contains("c:/b/k%1B%5B2J%0A%FF"), "{text}");
        }
        assert_eq!(table.lines().count(), 2);
        assert!(table.starts_with("parked  since 1970-01-01T00:00:00Z  due -  1 try  c:/b/k"), "{table}");
        assert!(shown.contains("    http://a:1       took it, etag e\\n\n"), "{shown}");
        assert!(shown.contains("    http://longer:1  did not take it\n"), "{shown}");
    }

    #[test]
    fn nor_does_it_as_json_and_programs_read_it_as_it_was() {
        // DEL, NEL, CSI, and what turns the direction of text.
        let hostile = "\u{7f}\u{85}\u{9b}2J\u{202e}\u{2028}\u{1b}[2J\n\u{e9}";
        let mut case = case();
        case.reason = hostile.into();
        case.records[0].intent.what = What::Version(hostile.into());
        case.records[0].intent.req_id = hostile.into();
        let good = Said::Good { etag: Some(hostile.into()), version: Some(hostile.into()) };
        case.records[0].replies = vec![(hostile.into(), good)];
        let present = Held {
            etag: hostile.into(),
            version: Some(hostile.into()),
            modified: 0,
            length: 1,
            object_version: None,
            md5: None,
            metadata: vec![(hostile.into(), hostile.into())],
        };
        let held = [
            (hostile.to_owned(), State::Present(present)),
            ("refuses".to_owned(), State::Refused(hostile.into())),
            ("away".to_owned(), State::Unknown(hostile.into())),
        ];
        let behind = BTreeMap::from([(hostile.to_owned(), 1)]);
        let counted = Counted { counts: Counts::default(), behind, sampled: None };
        let listed = printed(|out| lines(&[case.clone()], out));
        let shown = printed(|out| shown_line(&case, &held, out));
        let counts = printed(|out| counts_line(&counted, out));
        for text in [&listed, &shown, &counts] {
            let line = text.strip_suffix('\n').unwrap();
            assert!(
                !line.contains(|c: char| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c)),
                "{line:?}"
            );
        }
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["reason"], hostile);
        assert_eq!(shown["held"][hostile]["metadata"][hostile], hostile);
        assert_eq!(shown["records"][0]["replies"][hostile][0]["good"]["etag"], hostile);
        let counts: Value = serde_json::from_str(&counts).unwrap();
        assert_eq!(counts["behind"][hostile], 1);
    }

    #[test]
    fn an_estimate_is_told_as_one() {
        let behind = BTreeMap::from([("http://a".to_owned(), 7000)]);
        let mut counted = Counted { counts: Counts::default(), behind, sampled: Some(1000) };
        let told = |counted: &Counted| printed(|out| counts(counted, out)).lines().last().unwrap().to_owned();
        assert_eq!(told(&counted), "behind     http://a in about 7000, by a sample of 1000");
        counted.sampled = None;
        assert_eq!(told(&counted), "behind     http://a in 7000");
    }

    #[test]
    fn programs_get_an_object_per_line() {
        let lines = printed(|out| lines(&[case()], out));
        assert_eq!(lines.lines().count(), 1);
        let line: Value = serde_json::from_str(&lines).unwrap();
        assert_eq!((&line["path"], &line["standing"]), (&"/b/k%1B%5B2J%0A%FF".into(), &"parked".into()));
        assert_eq!(line["records"][0]["replies"]["http://longer:1"], json!(["not_applied"]));
    }

    #[test]
    fn a_backend_that_was_sent_the_write_twice_has_both_its_answers() {
        let mut case = case();
        case.records[0].replies.push(("http://a:1".into(), Said::Unknown));
        let line: Value = serde_json::from_str(&printed(|out| lines(&[case.clone()], out))).unwrap();
        let said = json!([{"good": {"etag": "e\n", "version": null}}, "unknown"]);
        assert_eq!(
            line["records"][0]["replies"],
            json!({"http://a:1": said, "http://longer:1": ["not_applied"]})
        );
        let shown = printed(|out| shown(&case, &[], out));
        assert!(shown.contains("http://a:1       took it, etag e\\n\n"), "{shown}");
        assert!(shown.contains("http://a:1       nobody knows\n"), "{shown}");
    }
}
