//! Keys on disk: whole files or none, for root's eyes only.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use crate::sys;

/// Makes a directory that only its owner may enter.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Replaces a file with mode 0600: readers see the old one or the new one, after a crash too.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    sys::replace_file(path, text.as_bytes(), 0o600)
}

/// The file's text; `None`: there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn nobody_else_can_read_a_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("certs");
        make_dir(&inner).expect("made");
        make_dir(&inner).expect("there already");
        let path = inner.join("a.pem");
        assert_eq!(read(&path).expect("read"), None);
        replace(&path, "one").expect("written");
        replace(&path, "two").expect("replaced");
        assert_eq!(read(&path).expect("read").as_deref(), Some("two"));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&path)), (0o700, 0o600));
        remove(&path).expect("removed");
        remove(&path).expect("gone already");
    }
}
