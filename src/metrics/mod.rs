//! What dynos use, looked at from outside: memory against its quota (R14, R15), load, the
//! `log-runtime-metrics` lines, and the figures that `top` and the API show.
//!
//! Once a second every dyno gets a glance (two reads of open files): it makes the curve that is
//! told after an OOM kill, and finds kills that left a dyno half alive, so that it goes whole on
//! every kernel. Every 20 s, spread over the dynos, a full look follows. What to think of a
//! figure is pure (`quota`, `load`, `l2met`); `sample` does the looking, in a thread of its own
//! that nothing waits for.
//!
//! The same look keeps the host's disk from filling (`room`).
//!
//! Source: Dev Center, "Log Runtime Metrics" and "Heroku Error Codes".

mod l2met;
mod load;
mod quota;
mod room;
mod sample;

pub use sample::Metrics;
