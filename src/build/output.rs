//! A build's output: a file that readers can follow while it grows.

use std::path::Path;

/// Append-only text of a build, kept with its record. Cheap to clone.
/// At most 300 MB are kept (Dev Center, "Limits"); the rest is dropped and said so.
#[derive(Clone, Debug)]
pub struct Output {}

impl Output {
    /// Starts a new output at `path` (truncates what is there).
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let _ = path;
        todo!()
    }

    /// Appends bytes as they come.
    pub fn write(&self, bytes: &[u8]) {
        let _ = bytes;
        todo!()
    }

    /// Appends `-----> TEXT`.
    pub fn step(&self, text: &str) {
        let _ = text;
        todo!()
    }

    /// Appends `       TEXT`.
    pub fn detail(&self, text: &str) {
        let _ = text;
        todo!()
    }

    /// Appends ` !     TEXT`.
    pub fn error(&self, text: &str) {
        let _ = text;
        todo!()
    }

    /// No more will come: readers see the end.
    pub fn finish(&self) {
        todo!()
    }

    /// A reader from the start; yields `None` at the end of a finished output.
    pub fn reader(&self) -> OutputReader {
        todo!()
    }
}

/// Follows an [`Output`].
#[derive(Debug)]
pub struct OutputReader {}

impl OutputReader {
    /// The next bytes, waiting for more while the output is not finished. Cancel-safe.
    pub async fn next(&mut self) -> Option<bytes::Bytes> {
        todo!()
    }
}
