//! What is learnt of backends in memory.

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::sync::fixture::{A, B, EPOCH, Fake, Unheard};

struct Open;

#[async_trait]
impl Gate for Open {
    async fn may_go_on(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_leaves_changes_unknown_is_left_alone_and_their_source_is_not() {
    let stores = Arc::new(Fake::default());
    stores.put(A, "key", "text", EPOCH);
    let held = stores.holds(A, "key").unwrap();
    let limited = Limited::new(stores.clone(), [A, B], 1, &SyncMetrics::of_process());
    let object = Object { cluster: "main".into(), bucket: b"bucket".into(), key: b"key".into() };
    for _ in 0..5 {
        assert!(limited.admit(&[A.into(), B.into()]).is_ok());
        stores.unheard.lock().unwrap().insert(B, Unheard::NotDone);
        let copied = limited.copy(&object, (A, &held), (B, &State::Absent, Instant::now()), &Open).await;
        assert!(matches!(copied, Err(StoreError::Unknown(_))), "{copied:?}");
        // It answers questions.
        assert_eq!(limited.state(B, &object).await, State::Absent);
    }
    assert!(limited.admit(&[A.into()]).is_ok());
    let why = limited.admit(&[B.into()]).err().map(|(_, why)| why);
    assert_eq!(why.as_deref(), Some("http://b:80: no answer"));
    assert_eq!(stores.most_at_once.load(Relaxed), 1);

    // An object that needs no change there says nothing of changes, and keeps nobody from trying one.
    tokio::time::advance(Duration::from_secs(10)).await;
    let names = [B.to_owned()];
    let pass = limited.admit(&names).ok().unwrap();
    assert!(limited.admit(&names).is_err());
    limited.state(B, &object).await;
    pass.end();
    assert!(limited.admit(&names).is_ok() && limited.admit(&names).is_ok());
    stores.unheard.lock().unwrap().insert(B, Unheard::NotDone);
    let copied = limited.copy(&object, (A, &held), (B, &State::Absent, Instant::now()), &Open).await;
    assert!(matches!(copied, Err(StoreError::Unknown(_))), "{copied:?}");
    assert!(limited.admit(&names).is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_of_no_use_about_objects_says_nothing_of_their_backend() {
    let stores = Arc::new(Fake::default());
    let limited = Limited::new(stores.clone(), [A], 1, &SyncMetrics::of_process());
    let object = |key: &str| Object { cluster: "main".into(), bucket: b"bucket".into(), key: key.into() };
    stores.unreadable.lock().unwrap().insert((A, "key"));
    for _ in 0..9 {
        let state = limited.state(A, &object("key")).await;
        assert!(matches!(&state, State::Refused(why) if why.contains("metadata")), "{state:?}");
    }
    assert!(limited.admit(&[A.into()]).is_ok());
    assert_eq!(limited.state(A, &object("other")).await, State::Absent);
}
