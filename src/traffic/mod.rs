//! Requests, counted where they pass: what the router writes and the API reads.
//!
//! Every app and every dyno has its own counters. A write touches memory that no other router
//! thread writes; readers add the shards up and may be one request behind. The [`Gate`] of a dyno
//! is the one number that must be exact: the routing policy and the drain before a stop stand on
//! it. Deliberately absent: what a count means for routing (`router`), how it is shown (`api`).

mod counters;
mod gate;
mod histogram;
mod window;

pub use counters::{CLASSES, Counters, Report, Sample};
pub use gate::Gate;
pub use histogram::{Distribution, bounds};
pub use window::{AppTraffic, QUEUE_WARNING};

/// One dyno's gate and counters; made with it, shared by whoever sees the dyno.
#[derive(Debug, Default)]
pub struct DynoTraffic {
    /// Requests in flight.
    pub gate: Gate,
    /// Requests that ended.
    pub counters: Counters,
}
