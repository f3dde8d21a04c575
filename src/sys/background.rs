//! Blocking work beside what goes on.

use std::time::Duration;

/// Runs blocking work beside what goes on, or here and now where no runtime is.
pub fn in_background(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

/// The same after a while, when what goes on now will be over. At the end of the runtime it is not
/// done at all; without one it is done here and now.
pub fn later(delay: Duration, work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(async move {
            tokio::time::sleep(delay).await;
            in_background(work);
        })),
        Err(_) => work(),
    }
}
