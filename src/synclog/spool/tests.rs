//! The spool as two processes would use it: order, crashes at every byte, bounds, owners.

use super::*;
use crate::telemetry::destination::Sink;

const MIB: u64 = 1 << 20;

fn spool_in(folder: &Path, limit: u64) -> std::sync::Arc<Spool> {
    std::sync::Arc::new(Spool::new(folder.join(FOLDER), limit))
}

fn spool() -> (tempfile::TempDir, std::sync::Arc<Spool>) {
    let folder = tempfile::tempdir().unwrap();
    let spool = spool_in(folder.path(), MIB);
    (folder, spool)
}

/// Appends records named so.
fn put(
    appender: &mut Appender,
    names: impl IntoIterator<Item = impl std::fmt::Display>,
) -> io::Result<usize> {
    let lines: String = names.into_iter().map(|name| format!("{{\"n\":\"{name}\"}}\n")).collect();
    let mut taken = 0;
    appender.write(lines.as_bytes(), &mut |n| taken += n)?;
    assert_eq!(taken, lines.len());
    Ok(taken)
}

/// Everything that is there to be delivered, by name, acknowledged.
fn take(reader: &mut Reader) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let records = reader.next(7).unwrap();
        let Some(last) = records.last() else { return names };
        names.extend(records.iter().map(|stored| stored.record[6..stored.record.len() - 2].to_owned()));
        reader.acknowledge(last);
    }
}

fn own(spool: &std::sync::Arc<Spool>) -> Reader {
    Reader::own(spool).unwrap().expect("nobody else owns it")
}

fn names(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}

#[test]
fn records_come_out_in_order_once_and_with_ids_of_their_own() {
    let (folder, spool) = spool();
    let mut appender = Appender::new(spool.clone());
    put(&mut appender, 0..50).unwrap();
    let mut reader = own(&spool);
    let first = reader.next(3).unwrap();
    // Not acknowledged: the same again, ids too.
    assert_eq!(reader.next(3).unwrap(), first);
    let ids: std::collections::BTreeSet<&str> = first.iter().map(|stored| stored.id.as_str()).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'7'), "{ids:?}");
    assert_eq!(take(&mut reader), names(0..50));
    put(&mut appender, 50..60).unwrap();
    assert_eq!(take(&mut reader), names(50..60));
    drop(reader);
    let mut reader = own(&spool_in(folder.path(), MIB));
    assert_eq!(take(&mut reader), Vec::<String>::new());
    assert_eq!(spool.used(&spool.segments().unwrap()), 0);
}

#[test]
fn segments_follow_each_other_and_delivered_ones_are_deleted() {
    let (_folder, spool) = spool();
    let mut appender = Appender::new(spool.clone());
    let long = "x".repeat(1000);
    for batch in 0..20 {
        put(&mut appender, (0..20).map(|n| format!("{batch}-{n}-{long}"))).unwrap();
    }
    assert!(spool.segments().unwrap().len() >= 5, "{:?}", spool.segments());
    let mut reader = own(&spool);
    let taken = take(&mut reader);
    let expected: Vec<_> = (0..400).map(|n| format!("{}-{}-{long}", n / 20, n % 20)).collect();
    assert!(taken == expected);
    assert_eq!(spool.segments().unwrap().len(), 1);
}

#[test]
fn two_processes_append_in_turn_and_one_delivers() {
    let (folder, spool) = spool();
    let other = spool_in(folder.path(), MIB);
    let (mut old, mut new) = (Appender::new(spool.clone()), Appender::new(other.clone()));
    put(&mut old, ["a"]).unwrap();
    let mut reader = own(&spool);
    assert!(Reader::own(&other).unwrap().is_none());
    put(&mut new, ["b"]).unwrap();
    put(&mut old, ["c"]).unwrap();
    assert_eq!(take(&mut reader), ["a", "b", "c"]);
    put(&mut new, ["d"]).unwrap();
    put(&mut old, ["e"]).unwrap();
    // One of its own for each, and both go on in the later one.
    assert!(spool.segments().unwrap().last().unwrap().number == 2, "{:?}", spool.segments());
    drop(reader);
    let mut reader = own(&other);
    assert!(Reader::own(&spool).unwrap().is_none());
    assert_eq!(take(&mut reader), ["d", "e"]);
}

#[test]
fn what_two_append_at_once_while_a_third_reads_comes_out_whole_and_in_each_ones_order() {
    let (folder, spool) = spool();
    let writers: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|writer| {
            let mut appender = Appender::new(spool_in(folder.path(), MIB));
            thread::spawn(move || {
                for batch in 0..60 {
                    put(
                        &mut appender,
                        (0..5).map(|n| format!("{writer}-{:04}-{}", batch * 5 + n, "x".repeat(300))),
                    )
                    .unwrap();
                }
            })
        })
        .collect();
    let mut reader = own(&spool);
    let mut names = Vec::new();
    while names.len() < 600 {
        names.extend(take(&mut reader));
        if writers.iter().all(|writer| writer.is_finished()) {
            names.extend(take(&mut reader));
            break;
        }
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(names.len(), 600);
    for writer in ["a", "b"] {
        let own: Vec<&String> = names.iter().filter(|name| name.starts_with(writer)).collect();
        assert!(own.len() == 300 && own.is_sorted(), "{writer}");
    }
}

#[test]
fn a_crash_at_any_byte_of_the_last_batch_loses_nothing_that_was_written() {
    let (_folder, spool) = spool();
    put(&mut Appender::new(spool.clone()), ["a", "b"]).unwrap();
    let file = spool.segment_file(1);
    let before = fs::metadata(&file).unwrap().len() as usize;
    put(&mut Appender::new(spool.clone()), ["c", "d"]).unwrap();
    let torn = fs::read(spool.segment_file(2)).unwrap();
    let whole = fs::read(&file).unwrap();
    assert_eq!(whole.len(), before);
    let line = torn.len() / 2;
    for length in 0..=torn.len() {
        let folder = tempfile::tempdir().unwrap();
        let spool = spool_in(folder.path(), MIB);
        spool.create().unwrap();
        fs::write(spool.segment_file(1), [&whole[..], &torn[..length]].concat()).unwrap();
        let expected: Vec<&str> = ["a", "b", "c", "d"][..2 + length / line].to_vec();
        // A reader that is there before the successor appends, and one that comes after it.
        let mut reader = own(&spool);
        assert_eq!(take(&mut reader), expected, "{length}");
        put(&mut Appender::new(spool.clone()), ["e"]).unwrap();
        assert_eq!(take(&mut reader), ["e"], "{length}");
        drop(reader);
        fs::remove_file(spool.file(POSITION)).unwrap();
        assert_eq!(take(&mut own(&spool)), ["e"], "{length}");
        assert!(!spool.file(REJECTED).exists());
    }
}

#[test]
fn an_appender_goes_on_behind_another_that_died_in_the_middle_of_a_line() {
    let (_folder, spool) = spool();
    let mut appender = Appender::new(spool.clone());
    put(&mut appender, ["a"]).unwrap();
    let mut file = OpenOptions::new().append(true).open(spool.segment_file(1)).unwrap();
    io::Write::write_all(&mut file, b"0123abcd 0199").unwrap();
    put(&mut appender, ["b"]).unwrap();
    assert_eq!(take(&mut own(&spool)), ["a", "b"]);
}

#[test]
fn a_damaged_line_is_set_aside_and_counted_and_the_next_is_delivered() {
    let (_folder, spool) = spool();
    put(&mut Appender::new(spool.clone()), ["a", "b", "c"]).unwrap();
    let mut bytes = fs::read(spool.segment_file(1)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(spool.segment_file(1), &bytes).unwrap();
    let before = spool.metrics.damaged.get();
    let mut reader = own(&spool);
    assert_eq!(take(&mut reader), ["a", "c"]);
    assert!(spool.metrics.damaged.get() > before);
    let rejected = fs::read_to_string(spool.file(REJECTED)).unwrap();
    let entry: serde_json::Value = serde_json::from_str(&rejected).unwrap();
    assert_eq!(entry["error"], "the line is damaged");
    assert_eq!(entry["line"].as_str().unwrap().len(), bytes.len() / 3 - 1);
}

#[test]
fn a_rejected_record_is_kept_whole_behind_a_torn_entry() {
    let (_folder, spool) = spool();
    put(&mut Appender::new(spool.clone()), ["a", "b"]).unwrap();
    fs::write(spool.file(REJECTED), "{\"torn").unwrap();
    let mut reader = own(&spool);
    let record = reader.next(1).unwrap().remove(0);
    reader.reject(&record, "value too long\n").unwrap();
    assert_eq!(take(&mut reader), ["b"]);
    let rejected = fs::read_to_string(spool.file(REJECTED)).unwrap();
    let entry: serde_json::Value = serde_json::from_str(rejected.lines().nth(1).unwrap()).unwrap();
    assert_eq!(entry["record"]["n"], "a");
    assert_eq!(
        (entry["id"].as_str(), entry["error"].as_str()),
        (Some(record.id.as_str()), Some("value too long\n"))
    );
}

#[test]
fn a_full_spool_takes_what_fits_and_the_rest_once_there_is_room() {
    let (_folder, spool) = spool();
    let mut appender = Appender::new(spool.clone());
    let long = "x".repeat(3000);
    let lines: String = (0..400).map(|n| format!("{{\"n\":\"{n}-{long}\"}}\n")).collect();
    let mut taken = 0;
    let error = appender.write(lines.as_bytes(), &mut |n| taken += n).unwrap_err();
    assert_eq!(error.to_string(), "the spool is full: it holds 1048576 bytes at most");
    assert!(taken > lines.len() * 3 / 4 && lines[..taken].ends_with('\n'), "{taken}");
    let used = spool.segments().unwrap().iter().map(|segment| segment.bytes).sum::<u64>();
    assert!(used <= MIB && used > MIB - 4000, "{used}");
    let mut reader = own(&spool);
    let mut names = take(&mut reader);
    appender.write(&lines.as_bytes()[taken..], &mut |_| ()).unwrap();
    names.extend(take(&mut reader));
    assert!(names == (0..400).map(|n| format!("{n}-{long}")).collect::<Vec<_>>());
    // What was refused counts until somebody has taken it away.
    fs::write(spool.file(REJECTED), vec![b'x'; MIB as usize]).unwrap();
    assert_eq!(put(&mut appender, ["y"]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    fs::remove_file(spool.file(REJECTED)).unwrap();
    put(&mut appender, ["y"]).unwrap();
    assert_eq!(take(&mut reader), ["y"]);
}

#[test]
fn a_torn_position_is_that_of_before_and_without_any_all_is_delivered_again() {
    let (_folder, spool) = spool();
    put(&mut Appender::new(spool.clone()), ["a", "b", "c"]).unwrap();
    let mut reader = own(&spool);
    for _ in 0..2 {
        let records = reader.next(1).unwrap();
        reader.acknowledge(&records[0]);
    }
    drop(reader);
    let path = spool.file(POSITION);
    let sound = fs::read(&path).unwrap();
    // The second place holds the later position.
    for length in 64..128 {
        fs::write(&path, &sound[..length]).unwrap();
        let records = own(&spool).next(1).unwrap();
        assert!(records[0].record.contains("\"b\""), "{length}: {records:?}");
    }
    fs::write(&path, &sound).unwrap();
    assert!(own(&spool).next(1).unwrap()[0].record.contains("\"c\""));
    fs::write(&path, vec![0; 128]).unwrap();
    assert_eq!(take(&mut own(&spool)), ["a", "b", "c"]);
}

#[test]
fn numbers_go_on_where_an_operator_has_removed_all_segments() {
    let (_folder, spool) = spool();
    put(&mut Appender::new(spool.clone()), ["a"]).unwrap();
    put(&mut Appender::new(spool.clone()), ["b"]).unwrap();
    let mut reader = own(&spool);
    assert_eq!(take(&mut reader), ["a", "b"]);
    for segment in spool.segments().unwrap() {
        fs::remove_file(spool.segment_file(segment.number)).unwrap();
    }
    let mut appender = Appender::new(spool.clone());
    put(&mut appender, ["c"]).unwrap();
    assert_eq!(take(&mut reader), ["c"]);
    fs::remove_dir_all(spool.folder()).unwrap();
    assert!(reader.next(1).is_err());
    put(&mut appender, ["d"]).unwrap();
    drop(reader);
    assert_eq!(take(&mut own(&spool)), ["d"]);
}

#[test]
fn whoever_appends_for_too_long_is_an_error_for_the_others() {
    let (_folder, spool) = spool();
    spool.create().unwrap();
    let lock = spool.lock_for_append().unwrap();
    let error = put(&mut Appender::new(spool.clone()), ["a"]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(lock);
    put(&mut Appender::new(spool.clone()), ["a"]).unwrap();
}

#[test]
fn a_directory_that_is_moved_away_takes_nothing_of_the_next_one_along() {
    let (folder, spool) = spool();
    let mut appender = Appender::new(spool.clone());
    // Some segments further than another spool begins.
    for number in 0..5 {
        put(&mut appender, [number]).unwrap();
        appender = Appender::new(spool.clone());
    }
    let mut reader = own(&spool);
    assert_eq!(take(&mut reader), names(0..5));
    put(&mut appender, [5]).unwrap();
    assert_eq!(take(&mut reader), names(5..6));
    fs::rename(spool.folder(), folder.path().join("elsewhere")).unwrap();
    // Before the reader looks again.
    put(&mut appender, [6]).unwrap();
    put(&mut appender, [7]).unwrap();
    let error = reader.next(7).unwrap_err();
    assert!(error.to_string().contains("its directory was replaced"), "{error}");
    drop(reader);
    assert_eq!(take(&mut own(&spool)), names(6..8));
    assert_eq!(spool.segments().unwrap().len(), 1);
}

#[test]
fn a_copy_in_the_place_of_the_directory_is_gone_on_with() {
    let (folder, spool) = spool();
    let mut appender = Appender::new(spool.clone());
    put(&mut appender, [0, 1]).unwrap();
    let (former, copy) = (folder.path().join("former"), folder.path().join("copy"));
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(spool.folder()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    fs::rename(spool.folder(), &former).unwrap();
    fs::rename(&copy, spool.folder()).unwrap();
    put(&mut appender, [2]).unwrap();
    assert_eq!(take(&mut own(&spool)), names(0..3));
}
