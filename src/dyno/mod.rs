//! Room `dyno`.
