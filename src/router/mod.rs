//! HTTP from the world to the dynos: own HTTP/1.1 loop, strict heads, exact log lines.
//!
//! Request: `listener` → `head` → `table` (host → app → dynos, built from the supervisor's
//! snapshot) → `queue` (`policy`) → `upstream` → `proxy` → `access_log`. The router asks no one: tables and
//! counters are read where they lie; a refused connect is quarantined locally.
//! Overflow: at most [`listener::CONNECTIONS_MAX`] connections, more wait in the kernel's backlog;
//! at most 200 requests per web dyno of an app, 50 with the global queue (H11).
//! The loop is generic over what carries its bytes (`wire`): plain TCP, TLS (`tls`, `https`), or a
//! stream of HTTP/2 (`h2`).
//! Absent on purpose: compression, caching, server push, HTTP/2 in clear text.

mod access_log;
mod affinity;
mod chunks;
mod deadline;
mod exchange;
mod failure;
#[cfg(test)]
mod fuzz;
mod h2;
mod hail;
mod head;
mod headers;
mod https;
mod introduction;
mod listener;
mod name;
mod policy;
mod proxy;
mod queue;
mod relay;
mod route;
mod table;
mod tls;
mod tunnel;
mod upstream;
mod wire;
mod worker;

pub use listener::{Listeners, Router, RouterError};
