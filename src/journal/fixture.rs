//! What tests of the journal's parts have in common.

mod behind;

use std::time::Duration;

use tokio::time::{sleep, timeout};

pub use self::behind::Behind;
use super::{Intent, Object, What, WriteId};

pub async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !so().await {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("waited for {what}"));
}

/// A PUT through gateway 1.
pub fn intent(key: &str, number: i64) -> Intent {
    Intent {
        id: WriteId { gateway: 1, number },
        object: Object { cluster: "c".into(), bucket: b"b".into(), key: key.into() },
        what: What::Put,
        region: "r".into(),
        req_id: String::new(),
        length: None,
        begun: 0,
        strong: false,
        turn: None,
    }
}
