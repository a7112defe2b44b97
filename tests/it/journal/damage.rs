//! Rows that are not what this program writes: they are seen, and stop nothing but the repair of their own object.

use std::time::Duration;

use akubra::journal::{Filter, News, Standing, Wanted};

use super::bench::*;

pub async fn all(engine: &Engine) {
    an_object_with_such_a_record_is_parked(&engine.empty().await).await;
    an_intent_of_a_gateway_that_ended_becomes_such_a_record(&engine.empty().await).await;
    what_follows_takes_its_place(&engine.empty().await).await;
}

/// No JSON, the beginning of some, that of something else, and none at all.
const PAYLOADS: [&[u8]; 4] =
    [b"\xff\0garbage", b"{\"what\":\"put\",\"region\":\"r", b"{\"what\":\"other\"}", b""];

async fn parked(bench: &Bench<'_>, key: &str, number: i64) {
    let case = bench.case(&object(key)).await.unwrap();
    assert_eq!(case.standing, Standing::Parked, "{case:?}");
    assert!(case.reason.starts_with(&format!("what is kept of write {number} of gateway ")), "{case:?}");
    assert!(!case.reason.contains("other") && case.records.iter().any(|record| record.id().number == number));
}

async fn an_object_with_such_a_record_is_parked(bench: &Bench<'_>) {
    let mark = bench.mark().await;
    for (number, payload) in (1..).zip(PAYLOADS) {
        bench.apply(vec![diverged(id(1, number), &object(&number.to_string()))]).await;
        bench.spoil("records", number, payload).await;
        bench.pass(Duration::from_secs(1)).await;
    }
    bench.apply(vec![diverged(id(1, 9), &object("good"))]).await;
    // Whoever looks before somebody wants to repair it is told, too.
    let case = bench.case(&object("1")).await.unwrap();
    assert!(case.standing == Standing::Open && case.reason.contains("write 1 of gateway 1 cannot be read"));
    // They have been due for longer, and are in nobody's way.
    let leases = bench.lease_some(Wanted::Diverged, 1).await;
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].0.object, object("good"));
    for number in 1..5 {
        parked(bench, &number.to_string(), number).await;
    }
    let counts = bench.journal.counts().await.unwrap();
    assert_eq!((counts.open, counts.parked, counts.leased), (1, 4, 1));
    let listed = bench.journal.list(&Filter::default(), None, 100).await.unwrap();
    assert!(listed.len() == 5 && listed.iter().all(|case| case.records.len() == 1));
    // To a gateway it is what it was.
    let unresolved = bench.unresolved(100).await.0;
    let News::Changed(changed, _) = bench.journal.news(mark, Duration::ZERO).await.unwrap() else {
        panic!("all is asked for")
    };
    let changed: Vec<_> = changed.into_iter().map(|(object, known)| (object, known.unwrap())).collect();
    for objects in [unresolved, changed] {
        assert!(objects.len() == 5 && objects.iter().all(|(_, known)| known.lags("http://b:80")));
    }
    // A human may look at it again, and may say that it does not matter.
    assert!(bench.journal.retry(&object("1")).await.unwrap());
    assert_eq!(bench.lease().await, []);
    parked(bench, "1", 1).await;
    assert!(bench.journal.drop_object(&object("1"), "why").await.unwrap());
    assert_eq!(bench.case(&object("1")).await, None);
}

async fn an_intent_of_a_gateway_that_ended_becomes_such_a_record(bench: &Bench<'_>) {
    for (at, payload) in (0..).zip(PAYLOADS) {
        let gateway = bench.journal.enrol("host").await.unwrap();
        let (spoiled, good, again) = (10 * at + 1, 10 * at + 2, 10 * at + 3);
        bench.apply(vec![uncertain(id(gateway, again), &object(&again.to_string()))]).await;
        for number in [spoiled, good, again] {
            bench.apply(vec![begin(id(gateway, number), &object(&number.to_string()))]).await;
        }
        // One that is a record already stays that.
        bench.spoil("intents", spoiled, payload).await;
        bench.spoil("intents", again, payload).await;
        if at % 2 == 0 {
            bench.journal.leave(&host(gateway), SETTLE).await.unwrap();
        } else {
            assert_eq!(bench.journal.adopt(Duration::ZERO, SETTLE).await.unwrap(), 3);
        }
        assert_eq!(bench.journal.counts().await.unwrap().intents, 0);
        // Nobody decides too early.
        assert_eq!(bench.lease().await, []);
        bench.pass(SETTLE).await;
        let mut leased = Vec::new();
        for (lease, case) in bench.lease().await {
            bench.journal.resolve(&lease, &[case.records[0].id()], &[]).await.unwrap();
            leased.push(lease.object);
        }
        leased.sort();
        assert_eq!(leased, [object(&good.to_string()), object(&again.to_string())]);
        parked(bench, &spoiled.to_string(), spoiled).await;
    }
}

async fn what_follows_takes_its_place(bench: &Bench<'_>) {
    let gateway = bench.journal.enrol("host").await.unwrap();
    let a = object("a");
    bench.apply(vec![diverged(id(gateway, 1), &a), begin(id(gateway, 2), &a)]).await;
    bench.spoil("records", 1, b"{}").await;
    bench.spoil("intents", 2, b"{}").await;
    // The end of a write whose intent cannot be read is as good as any.
    bench.apply(vec![diverged(id(gateway, 2), &a)]).await;
    assert_eq!((bench.lease().await, bench.recorded(&a).await), (vec![], vec![1, 2]));
    parked(bench, "a", 1).await;
    // Many more open it, and are looked through for what says nothing any more.
    for number in 3..70 {
        bench.apply(vec![diverged(id(gateway, number), &a)]).await;
    }
    assert!(bench.recorded(&a).await.starts_with(&[1, 64]));
    assert_eq!(bench.lease().await, []);
    parked(bench, "a", 1).await;
    // The same write again, told by who made it.
    bench.apply(vec![diverged(id(gateway, 1), &a)]).await;
    let (_, case) = bench.lease_one().await;
    assert_eq!((case.records[0].id(), case.records.len()), (id(gateway, 1), bench.recorded(&a).await.len()));
    assert_eq!(case.records[0].replies.len(), 2);
}
