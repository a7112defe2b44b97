//! What tests of the journal's parts have in common.

mod behind;

pub use self::behind::Behind;
use super::{Intent, Object, What, WriteId};

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
