//! Room `sys`.

#![expect(unsafe_code, reason = "the one room where it is allowed")]

mod watch;

pub use watch::watch;
