//! What the gateway is measured with and against (`load-tests/run`): a client and a sink that cost little, and
//! a bare Pingora pass-through as the yardstick.
//!
//! All of them share two cores with the proxy that is measured. So client and sink are single threads, know just
//! enough HTTP/1.1 for well-behaved peers, and never copy a body: it is discarded in the kernel (`wire`).

pub mod client;
pub mod sink;
pub mod wire;
