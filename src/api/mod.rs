//! The Platform API (v3) over the Unix socket.

pub mod types;
