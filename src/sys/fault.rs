//! The fault tests' switch, in builds with debug assertions only: a step fails instead of being
//! done. Release builds have no such code, and it is no setting.
//!
//! The environment names a file. Its text is `ERRNO POINT`: every point whose name starts so fails
//! with that errno, as long as the text stands. Where `FILE.seen` exists, the names of the points
//! that were passed are appended to it, so that a test finds all of them by itself.

use std::io::{self, Write as _};

const SWITCH: &str = "MANIFOLD_TEST_ONLY_FAULTS";

/// What is to fail, read once: a dyno's child cannot read it any more.
#[derive(Clone, Debug, Default)]
pub struct Fault(Option<(i32, String)>);

impl Fault {
    /// What the file says now; nothing without one.
    pub fn read() -> Self {
        if !cfg!(debug_assertions) {
            return Self(None);
        }
        let file = std::env::var_os(SWITCH);
        let text = file.and_then(|file| std::fs::read_to_string(file).ok());
        let wanted = text.as_deref().and_then(|text| text.trim().split_once(' '));
        Self(wanted.and_then(|(errno, point)| Some((errno.parse().ok()?, point.to_owned()))))
    }

    /// Fails if this point is the one.
    ///
    /// # Errors
    /// The errno that was asked for.
    pub fn at(&self, point: &str) -> io::Result<()> {
        self.at_lazily(|| point)
    }

    /// As [`Self::at`], where the name is worth some time.
    ///
    /// # Errors
    /// The errno that was asked for.
    pub fn at_lazily<T: AsRef<str>>(&self, point: impl FnOnce() -> T) -> io::Result<()> {
        match &self.0 {
            Some((errno, wanted)) if point().as_ref().starts_with(wanted) => {
                Err(io::Error::from_raw_os_error(*errno))
            }
            _ => Ok(()),
        }
    }
}

/// A point of its own: told, and failed if it is the one.
///
/// # Errors
/// The errno that was asked for.
pub fn fault(point: &str) -> io::Result<()> {
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    passed([point.to_owned()]);
    Fault::read().at(point)
}

/// Tells the test which points there are.
pub fn passed(points: impl IntoIterator<Item = String>) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Some(mut file) = std::env::var_os(SWITCH) else {
        return;
    };
    file.push(".seen");
    // Only a test that wants to know has made the file.
    if let Ok(mut seen) = std::fs::File::options().append(true).open(file) {
        let text: String = points.into_iter().map(|point| point + "\n").collect();
        let _ = seen.write_all(text.as_bytes());
    }
}
