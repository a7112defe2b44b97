//! How metrics leave the process, and the bounds that are told among them.
//!
//! [`prometheus`] and [`expvar`] are endpoints; a [`reporter`] tells graphite or stdout. All but the first work on
//! [`series`] with paths, which [`intervals`] turns into numbers.

pub mod expvar;
mod graphite;
mod histogram;
mod intervals;
mod name;
mod original;
pub mod prometheus;
pub mod reporter;
mod series;

use super::metrics::METRICS;
use crate::config::Config;

/// Tells the bounds that the configuration sets, where it sets one. The others are told where they are.
pub fn tell_limits(config: &Config) {
    let (transport, mirror) = (&config.transport, &config.mirror);
    let some = |most: usize| Some(most as u64);
    let unless_0 = |most: usize| (most > 0).then_some(most as u64);
    for (key, most) in [
        ("MaxConcurrentRequests", unless_0(config.max_concurrent_requests)),
        ("BodyMaxSize", config.body_max_size),
        ("MaxConnsPerBackend", unless_0(transport.max_conns_per_backend)),
        ("MaxIdleConns", unless_0(transport.max_idle_conns)),
        ("MaxIdleConnsPerHost", some(transport.max_idle_conns_per_host)),
        ("ReplicaBuffer", some(mirror.replica_buffer)),
        ("ReplayBuffer", some(mirror.replay_buffer)),
        ("BackgroundRequests", some(mirror.background_requests)),
        ("BackgroundBytes", some(mirror.background_bytes)),
        (
            "TechnicalEndpointBodyMaxSize",
            config.technical.as_ref().map(|technical| technical.body_max_size as u64),
        ),
    ] {
        METRICS.limit_if(key, most);
    }
}
