//! `akubra journal dropped`: what humans have decided, the last first.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::{PAGE, names, text};
use crate::journal::{Dropped, Journal};

#[derive(Args)]
pub struct List {
    /// The most to list; 0 for all
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
    /// A JSON object per line, with the records
    #[arg(long)]
    json: bool,
}

pub async fn list(journal: &dyn Journal, list: &List, out: &mut impl Write) -> anyhow::Result<()> {
    let mut left = if list.limit == 0 { usize::MAX } else { list.limit };
    let mut before = None;
    loop {
        // One more tells whether there are more.
        let found = journal.dropped(before, PAGE.min(left.saturating_add(1))).await?;
        let shown = found.len().min(left);
        for dropped in &found[..shown] {
            if list.json { line(dropped, out)? } else { row(dropped, out)? }
        }
        left -= shown;
        if found.len() > shown {
            if !list.json {
                writeln!(out, "... and more: --limit 0 lists all")?;
            }
            return Ok(());
        }
        match found.last() {
            Some(last) => before = Some(last.number),
            None => return Ok(()),
        }
    }
}

fn row(dropped: &Dropped, out: &mut impl Write) -> anyhow::Result<()> {
    let (at, name) = (text::time(dropped.at), names::name(&dropped.object));
    writeln!(out, "{at}  {name}  {}", names::printable(&dropped.reason))?;
    Ok(())
}

fn line(dropped: &Dropped, out: &mut impl Write) -> anyhow::Result<()> {
    let records = dropped.records.as_ref();
    let line = json!({
        "cluster": dropped.object.cluster,
        "path": names::path(&dropped.object),
        "at": text::time(dropped.at),
        "reason": dropped.reason,
        // null: they cannot be read.
        "records": records.map(|records| records.iter().map(text::record_value).collect::<Vec<_>>()),
    });
    text::write_line(&line, out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::tests::{journal, lost},
        *,
    };
    use crate::journal::{Memory, Object};

    async fn printed(journal: &Memory, limit: usize, json: bool) -> String {
        let mut out = Vec::new();
        list(journal, &List { limit, json }, &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn the_last_are_first_and_no_more_than_asked_for() {
        let (journal, gateway) = journal().await;
        for number in 0..3 {
            let key = format!("k{number}\u{9b}").into_bytes();
            let object = Object { cluster: "c".into(), bucket: b"b".into(), key };
            lost(&journal, &gateway, number, &object, Duration::ZERO).await;
            assert!(journal.drop_object(&object, &format!("ticket {number}\u{9b}2J\u{202e}")).await.unwrap());
        }
        let two = printed(&journal, 2, false).await;
        let lines: Vec<&str> = two.lines().collect();
        assert!(lines[0].ends_with("  c:/b/k2%C2%9B  ticket 2\\u{9b}2J\\u{202e}"), "{two}");
        assert!(lines[1].contains("  c:/b/k1%C2%9B  ticket 1"), "{two}");
        assert_eq!(lines[2..], ["... and more: --limit 0 lists all"]);
        assert!(two.is_ascii(), "{two}");

        let all = printed(&journal, 0, true).await;
        assert!(all.is_ascii() && all.lines().count() == 3, "{all}");
        let last: serde_json::Value = serde_json::from_str(all.lines().next().unwrap()).unwrap();
        assert_eq!(last["reason"], "ticket 2\u{9b}2J\u{202e}");
        assert_eq!(last["records"][0]["what"], "put");
        assert_eq!(printed(&journal, 3, false).await.lines().count(), 3);
    }
}
