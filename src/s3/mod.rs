//! What a request means in S3's terms, and the errors S3 clients understand.

pub mod error;
pub mod request;

pub use error::S3Error;
pub use request::{Multipart, Operation, S3Request, Target};
