//! HTTP/1.1 from the world to the dynos: own loop, strict heads, exact log lines.
//!
//! Request: `listener` → `head` → `table` (host → app → dynos, built from the supervisor's
//! snapshot) → `queue` (`policy`) → `upstream` → `proxy` → `access_log`. The router asks no one: tables and
//! counters are read where they lie; a refused connect is quarantined locally.
//! Overflow: at most [`listener::CONNECTIONS_MAX`] connections, more wait in the kernel's backlog;
//! at most 200 requests per web dyno of an app, 50 with the global queue (H11).
//! Absent on purpose: HTTP/2, TLS, compression, caching.

mod access_log;
mod chunks;
mod exchange;
mod failure;
mod head;
mod headers;
mod https;
mod listener;
mod policy;
mod proxy;
mod queue;
mod route;
mod table;
mod tls;
mod upstream;
mod wire;

pub use listener::{Listeners, Router, RouterError};
