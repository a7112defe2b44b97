//! Logs over destinations that fail, hang, stutter and recover. Each test has a log name of its own, because
//! metrics are the process's.

use std::{fs, io::Read, path::Path, process::Command};

use super::*;
use crate::{
    config::LogConfig,
    telemetry::{
        metrics::DestinationMetrics,
        scripted::{PATIENCE, Scripted, eventually},
    },
};

const LIMITS: Limits = Limits {
    queue_bytes: 64,
    hangs_after: Duration::from_millis(50),
    first_retry: Duration::from_millis(1),
    last_retry: Duration::from_millis(4),
};

/// Never given up by the clock: for tests in which a hanging destination is to hold up its log.
const PATIENT: Limits = Limits { hangs_after: Duration::from_secs(3600), ..LIMITS };

fn channel(
    log: &'static str,
    destinations: Vec<Destination>,
    capacity: usize,
    limits: Limits,
) -> LogChannel<u32> {
    let encode = |n: &u32, line: &mut Vec<u8>| {
        line.extend_from_slice(format!("line {n}\n").as_bytes());
        Ok(())
    };
    let channel = LogChannel::new(log, destinations, capacity, limits, Arc::new(encode));
    channel.start().unwrap();
    channel
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|n| format!("line {n}\n")).collect()
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

#[tokio::test]
async fn a_destination_that_fails_in_the_middle_of_lines_has_each_line_once_whole_and_in_order() {
    let sink = Scripted::stutters(5);
    let log = channel("test-stutter", vec![sink.destination()], 4, LIMITS);
    for n in 0..200 {
        log.send(n).await;
    }
    assert!(log.flush(soon()).await);
    assert_eq!(sink.text(), lines(0..200));
    let metrics = DestinationMetrics::of("test-stutter", "scripted");
    assert_eq!(metrics.written.get(), 200);
    assert!(metrics.errors.get() > 100);
}

#[tokio::test]
async fn nothing_is_lost_when_a_failing_destination_recovers() {
    let sink = Scripted::fails();
    let log = channel("test-recover", vec![sink.destination()], 4, LIMITS);
    let sender = tokio::spawn({
        let log = log.clone();
        async move {
            for n in 0..500 {
                log.send(n).await;
            }
        }
    });
    sink.wait_for_writes(5).await;
    eventually("a sender waits", || LogMetrics::of("test-recover").waits.get() > 0).await;
    assert_eq!(sink.text(), "");
    sink.take();
    sender.await.unwrap();
    assert!(log.flush(soon()).await);
    assert_eq!(sink.text(), lines(0..500));
    assert_eq!(LogMetrics::of("test-recover").queue.get(), 0);
    assert_eq!(LogMetrics::of("test-recover").dropped.get(), 0);
}

#[tokio::test]
async fn a_failing_destination_stops_no_other() {
    let (failing, good) = (Scripted::fails(), Scripted::takes());
    let log = channel("test-fails-beside", vec![failing.destination(), good.destination()], 4, LIMITS);
    for n in 0..300 {
        log.send(n).await;
    }
    good.wait_for_lines(300).await;
    assert_eq!(good.text(), lines(0..300));
    failing.take();
    assert!(log.flush(soon()).await);
    let written = failing.text().lines().count() as u64;
    assert_eq!(DestinationMetrics::of("test-fails-beside", "scripted").missed.get(), 300 - written);
    assert!(written > 0 && lines(0..300).starts_with(&failing.text()));
}

#[tokio::test]
async fn a_hanging_destination_stops_no_other() {
    let (hanging, good) = (Scripted::hangs(), Scripted::takes());
    let log = channel("test-hangs-beside", vec![hanging.destination(), good.destination()], 4, LIMITS);
    for n in 0..300 {
        log.send(n).await;
    }
    good.wait_for_lines(300).await;
    assert_eq!(good.text(), lines(0..300));
    hanging.take();
    assert!(log.flush(soon()).await);
}

#[tokio::test]
async fn a_slow_destination_is_waited_for_and_misses_nothing() {
    let (slow, good) = (Scripted::hangs(), Scripted::takes());
    let log = channel("test-slow", vec![slow.destination(), good.destination()], 4, PATIENT);
    let sender = tokio::spawn({
        let log = log.clone();
        async move {
            for n in 0..300 {
                log.send(n).await;
            }
        }
    });
    eventually("a sender waits", || LogMetrics::of("test-slow").waits.get() > 0).await;
    slow.take();
    sender.await.unwrap();
    assert!(log.flush(soon()).await);
    assert_eq!(slow.text(), lines(0..300));
    assert_eq!(good.text(), lines(0..300));
}

#[tokio::test]
async fn a_line_whose_sender_is_cancelled_while_it_waits_is_written() {
    let sink = Scripted::hangs();
    let log = channel("test-cancel", vec![sink.destination()], 2, PATIENT);
    let mut sent = 0;
    // An expired deadline cancels at the first wait.
    while timeout_at(Instant::now(), log.send(sent)).await.is_ok() {
        sent += 1;
        tokio::task::yield_now().await;
    }
    sink.take();
    assert!(log.flush(soon()).await);
    let text = sink.text();
    assert!(text.contains(&format!("line {sent}\n")));
    assert_eq!(text.lines().count() as u32, sent + 1);
}

#[tokio::test]
async fn offers_never_wait_and_what_is_dropped_is_counted() {
    let sink = Scripted::hangs();
    let log = channel("test-offer", vec![sink.destination()], 4, PATIENT);
    let refused = (0..5000).filter(|n| !log.offer(*n)).count();
    let metrics = LogMetrics::of("test-offer");
    assert!(refused > 0);
    assert_eq!(metrics.dropped.get(), refused as u64);
    sink.take();
    assert!(log.flush(soon()).await);
    let text = sink.text();
    let written: Vec<u32> = text.lines().map(|line| line[5..].parse().unwrap()).collect();
    assert_eq!(written.len() + refused, 5000);
    assert!(written.is_sorted());
    assert_eq!(metrics.queue.get(), 0);
}

#[tokio::test]
async fn what_is_not_written_by_the_deadline_is_rescued_and_so_is_what_comes_later() {
    let sink = Scripted::fails();
    let log = channel("test-rescue", vec![sink.destination()], 4, LIMITS);
    let sender = tokio::spawn({
        let log = log.clone();
        async move {
            for n in 0..40 {
                log.send(n).await;
            }
        }
    });
    sink.wait_for_writes(3).await;
    log.flush_or_rescue(Instant::now()).await;
    sender.await.unwrap();
    log.send(40).await;
    assert!(log.flush(soon()).await);
    assert_eq!(LogMetrics::of("test-rescue").rescued.get(), 41);
    assert_eq!(sink.text(), "");
}

#[tokio::test]
async fn what_another_destination_has_written_is_not_rescued() {
    let (hanging, good) = (Scripted::hangs(), Scripted::takes());
    let log = channel("test-no-rescue", vec![hanging.destination(), good.destination()], 40, PATIENT);
    for n in 0..3 {
        log.send(n).await;
    }
    good.wait_for_lines(3).await;
    // The line is taken a moment before it is noted as written.
    let written = DestinationMetrics::of("test-no-rescue", "scripted").written;
    eventually("written", || written.get() == 3).await;
    log.flush_or_rescue(Instant::now()).await;
    assert_eq!(LogMetrics::of("test-no-rescue").rescued.get(), 0);
    hanging.take();
}

fn open(log: &'static str, file: &Path) -> Vec<Destination> {
    let config = LogConfig { file: Some(file.to_path_buf()), ..LogConfig::default() };
    Destination::open_all(log, &config).unwrap()
}

#[tokio::test]
async fn a_full_disk_is_counted_and_its_lines_are_rescued_at_the_end() {
    let log = channel("test-dev-full", open("test-dev-full", Path::new("/dev/full")), 4, LIMITS);
    for n in 0..3 {
        log.send(n).await;
    }
    let errors = DestinationMetrics::of("test-dev-full", "file").errors;
    eventually("the write is tried again", || errors.get() >= 2).await;
    log.flush_or_rescue(Instant::now()).await;
    assert_eq!(LogMetrics::of("test-dev-full").rescued.get(), 3);
}

#[tokio::test]
async fn a_pipe_whose_reader_comes_late_gets_every_line() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("sync.log");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let log = channel("test-fifo", open("test-fifo", &fifo), 4, PATIENT);
    let sender = tokio::spawn({
        let log = log.clone();
        async move {
            // More than a pipe holds.
            for n in 0..20_000 {
                log.send(n).await;
            }
        }
    });
    eventually("the pipe is full", || LogMetrics::of("test-fifo").waits.get() > 0).await;
    let mut text = vec![0; lines(0..20_000).len()];
    let reader = tokio::task::spawn_blocking(move || {
        fs::File::open(fifo).unwrap().read_exact(&mut text).unwrap();
        text
    });
    assert_eq!(String::from_utf8(reader.await.unwrap()).unwrap(), lines(0..20_000));
    sender.await.unwrap();
    assert!(log.flush(soon()).await);
}
