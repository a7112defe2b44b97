use std::time::Duration;

use super::{look::WINDOW, *};
use crate::journal::{
    Change, Enrolled, Intent, Memory, Object, Record, Said, Standing, fixture, system_clock,
};

fn object(cluster: &str, number: i64) -> Object {
    Object { cluster: cluster.into(), bucket: b"b".into(), key: number.to_string().into() }
}

/// A write that one backend took.
fn record(object: Object, number: i64, good: &str) -> Record {
    let intent = Intent { object, ..fixture::intent("k", number) };
    let replies = vec![(good.to_owned(), Said::Good { etag: None, version: None })];
    Record { intent, commit: None, ended: 0, turn: None, replies }
}

fn clusters() -> Vec<Cluster> {
    let backend =
        |name: &str| Backend { endpoint: format!("http://{name}:80"), url: format!("http://{name}") };
    vec![
        Cluster { name: "one".into(), backends: vec![backend("a"), backend("b")] },
        Cluster { name: "two".into(), backends: vec![backend("b"), backend("c")] },
    ]
}

fn case(cluster: &str, number: i64, standing: Standing, good: &str) -> Case {
    let object = object(cluster, number);
    Case {
        records: vec![record(object.clone(), number, good)],
        object,
        standing,
        more: 0,
        under_way: 0,
        unseen: None,
        attempts: 0,
        since: 0,
        due: 0,
        reason: String::new(),
    }
}

#[test]
fn who_is_behind_is_counted_in_the_clusters_that_have_it_and_in_proportion() {
    let open = Standing::Open;
    let mut sample = vec![
        case("one", 1, open, "http://a:80"),
        case("one", 2, open, "http://a:80"),
        case("two", 3, open, "http://b:80"),
        case("one", 4, Standing::Parked, "http://a:80"),
    ];
    let counts = |open, parked| Counts { open, parked, ..Counts::default() };
    let expected = |a, b, c| BTreeMap::from([("http://a", a), ("http://b", b), ("http://c", c)]);
    let seen = |sample: &[Case], counts| {
        let behind = behind(&clusters(), sample, &counts);
        behind.iter().map(|(url, count)| (url.clone(), *count)).collect::<Vec<_>>()
    };
    let named =
        |map: BTreeMap<&str, u64>| map.into_iter().map(|(url, n)| (url.to_owned(), n)).collect::<Vec<_>>();
    assert_eq!(seen(&sample, counts(3, 1)), named(expected(0, 2, 1)));
    assert_eq!(seen(&sample, counts(3000, 1000)), named(expected(0, 2000, 1000)));
    // One of a gateway that died: nobody knows who took it. And nobody is behind in more than there are.
    sample[0].records[0].replies.clear();
    assert_eq!(seen(&sample, counts(1, 1)), named(expected(1, 1, 1)));
    assert_eq!(seen(&[], counts(0, 0)), named(expected(0, 0, 0)));
}

#[test]
fn a_pace_is_that_of_the_last_minute() {
    let counts = |open, parked, resolved| Counts { open, parked, resolved, ..Counts::default() };
    let (start, mut past) = (Instant::now().into_std(), Past::default());
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(past.pace(at(0), &counts(1000, 0, 5)), None);
    let drains = past.pace(at(10), &counts(800, 10, 305)).unwrap();
    assert_eq!((drains.resolved_per_second, drains.new_per_second), (30.0, 11.0));
    assert_eq!((drains.open_per_second, drains.seconds_to_drain), (-20.0, Some(40)));
    let grows = past.pace(at(20), &counts(1200, 10, 305)).unwrap();
    assert_eq!((grows.open_per_second, grows.seconds_to_drain), (10.0, None));
    // The burst at the beginning is forgotten, and so is what a database that crashed has forgotten.
    let still = past.pace(at(WINDOW.as_secs() + 20), &counts(1200, 10, 300)).unwrap();
    let none =
        Pace { new_per_second: 0.0, resolved_per_second: 0.0, open_per_second: 0.0, seconds_to_drain: None };
    assert_eq!(still, none);
    let empty = past.pace(at(WINDOW.as_secs() + 30), &counts(0, 10, 1500)).unwrap();
    assert_eq!(empty.seconds_to_drain, Some(0));
}

#[tokio::test(start_paused = true)]
async fn it_looks_again_when_told_and_keeps_what_it_saw_while_the_journal_is_away() {
    let journal: Arc<dyn Journal> = Arc::new(Memory::new(system_clock()));
    let engine: Arc<Mutex<Option<Arc<dyn Journal>>>> = Arc::default();
    let given = engine.clone();
    let survey = Arc::new(Survey::new(Box::new(move || given.lock().unwrap().clone()), Box::new(clusters)));
    let running = survey.clone();
    tokio::spawn(async move { running.run().await });
    let until = async |so: &dyn Fn(&Known) -> bool| {
        let started = Instant::now();
        while !so(&survey.known()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        started.elapsed()
    };
    until(&|known| known.trouble.as_ref().is_some_and(|why| why.contains("not be opened"))).await;

    let settle = Duration::from_secs(1);
    let records =
        (0..2500).map(|number| Change::Diverged(record(object("one", number), number, "http://a:80")));
    let gateway = Enrolled { number: journal.enrol("host").await.unwrap(), name: "host".into(), deaths: 0 };
    journal.apply(&gateway, records.collect(), settle).await.unwrap();
    *engine.lock().unwrap() = Some(journal.clone());
    until(&|known| known.look.is_some() && known.trouble.is_none()).await;
    let look = survey.known().look.unwrap();
    assert_eq!((look.counts.open, look.sampled, look.aside.len()), (2500, Some(SAMPLE), 0));
    assert_eq!((look.behind["http://a"], look.behind["http://b"], look.behind["http://c"]), (0, 2500, 0));

    for number in 0..2490 {
        assert!(journal.drop_object(&object("one", number), "why").await.unwrap());
    }
    survey.look_again();
    let took = until(&|known| known.look.as_ref().is_some_and(|look| look.counts.open == 10)).await;
    assert!(took < PERIOD, "{took:?}");
    let look = survey.known().look.unwrap();
    assert_eq!((look.sampled, look.behind["http://b"]), (None, 10));

    *engine.lock().unwrap() = None;
    until(&|known| known.trouble.is_some()).await;
    assert_eq!(survey.known().look.unwrap().counts.open, 10);
}

#[tokio::test]
async fn the_log_beside_a_file_is_measured_also_while_the_journal_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let survey =
        Survey::new(Box::new(|| None), Box::new(clusters)).of_file(&folder.path().join("journal.sqlite"));
    for length in [5, 70, 0] {
        std::fs::write(folder.path().join("journal.sqlite-wal"), vec![0; length]).unwrap();
        survey.measure().await;
        assert_eq!(survey.metrics.log_bytes.get(), length as i64);
    }
    std::fs::write(folder.path().join("journal.sqlite-wal"), "log").unwrap();
    survey.measure().await;
    std::fs::remove_file(folder.path().join("journal.sqlite-wal")).unwrap();
    survey.measure().await;
    assert_eq!(survey.metrics.log_bytes.get(), 0);
}
