//! What the operator reads: `tracing` to stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Lines go to stderr; without time and colour under systemd, which adds its own.
/// `MANIFOLD_LOG` filters as `RUST_LOG` does; default `info`.
pub(super) fn start() {
    let filter = EnvFilter::try_from_env("MANIFOLD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(!is_journal && !is_plain && std::io::stderr().is_terminal());
    // An error means someone set a subscriber already (tests): keep theirs.
    if is_journal {
        builder.without_time().try_init().ok();
    } else {
        builder.try_init().ok();
    }
}
