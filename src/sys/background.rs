//! Blocking work of a drop.

/// Runs blocking work beside what goes on, or here and now where no runtime is.
pub fn in_background(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}
