//! What a request means in S3's terms, and the errors S3 clients understand.
//!
//! | file | what it is |
//! |---|---|
//! | `target.rs` | the request target, decoded as the ring wants it |
//! | `query.rs` | sub-resources and versions |
//! | `request.rs` | both, with method and headers, to an operation |
//! | `delete_objects.rs` | the bodies of DeleteObjects and of its answers |
//! | `xml.rs` | the text of their elements |
//! | `error.rs` | error documents: ours, and those of backends |

pub mod delete_objects;
pub mod error;
mod query;
pub mod request;
pub mod target;
pub mod xml;

pub use error::S3Error;
pub use request::{CopySource, Multipart, Operation, S3Request, Target};
